"""Extract a folder in child processes that are killed at random moments; print the outcome.

Arguments: a folder to work in, and a seed. The last line of output is JSON.
"""

from __future__ import annotations

import faulthandler
import json
import os
import random
import signal
import sys
import threading
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from support.feature_folders import write_image
from tqdm.auto import tqdm

from hypervlad import HypercolumnVLAD, extract_features, register_backbone
from hypervlad.features import Preprocessing
from hypervlad.features.encoder.encoding import BatchEncoder

N_IMAGES, BATCH, LEAST_KILLS, FILES = 240, 4, 24, "images"


def build() -> torch.nn.Module:
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 6, 3, padding=1), torch.nn.Conv2d(6, 8, 3, stride=2, padding=1)
    )


def log_what_is_computed(log: Path) -> None:
    """Note each image that the network has been given, as soon as it is."""
    original = BatchEncoder.__call__

    def logged(self: BatchEncoder, batch: Any) -> np.ndarray:
        with log.open("a", encoding="ascii") as stream:
            stream.write("".join(f"{digest}\n" for digest in batch.keys))
        return original(self, batch)

    BatchEncoder.__call__ = logged  # type: ignore[method-assign]


def killed_after(seconds: float, work: Any) -> bool:
    """Do work in a child process; kill it after a while, and say whether that was in time."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the child failed by itself"
    return os.WIFSIGNALED(status)


def main(folder: Path, seed: int) -> None:
    # tqdm's own lock is shared with forked children, one of which may die while it holds the lock.
    tqdm.set_lock(threading.RLock())
    faulthandler.dump_traceback_later(120, exit=True)  # in case anything waits forever
    torch.set_num_threads(1)
    register_backbone("small", build, ["0", "1"], Preprocessing(minimum_size=4))
    rng, chance = np.random.default_rng(0), random.Random(seed)
    files = [write_image(folder / FILES / f"{i:03d}.png", rng) for i in range(N_IMAGES)]
    (folder / FILES / "100.png").write_bytes(b"no image")
    (folder / FILES / "007.png").write_bytes(files[200].read_bytes())  # the same pixels far apart
    encoder = HypercolumnVLAD(
        "small", weights="random", image_size=16, n_codewords=3, random_state=0
    ).fit(files[:20])
    encoder.batch_size = BATCH
    encoder.transform(files[:1])
    warnings.simplefilter("ignore")
    encoder.set_params(memory=folder / "cache a")
    began = time.monotonic()
    extract_features(folder / FILES, encoder, out=folder / "whole.parquet")
    took = time.monotonic() - began
    log = folder / "computed.txt"
    log_what_is_computed(log)
    encoder.set_params(memory=folder / "cache b")

    def go_on() -> None:
        extract_features(folder / FILES, encoder, out=folder / "killed.parquet", resume=True)

    kills = 0
    while kills < LEAST_KILLS:
        # Short lives, so that there are many before the end; the rest at the end of this loop.
        kills += killed_after(chance.uniform(0, 1.6 * took / LEAST_KILLS), go_on)
        if (folder / "killed.parquet").exists() and kills < LEAST_KILLS:
            raise SystemExit(f"done after {kills} kills; more images are needed")
    go_on()
    same = (folder / "whole.parquet").read_bytes() == (folder / "killed.parquet").read_bytes()
    computed = len(log.read_text(encoding="ascii").split())
    facts = {"kills": kills, "same": same, "computed": computed, "images": N_IMAGES}
    print(json.dumps(facts | {"seconds": took}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
