"""Extract a folder in child processes that are killed, each a little later; print the outcome.

The argument is a folder to work in. The last line of output is JSON. A child kills itself when it
opens, moves, creates or removes a file or a folder for the n-th time.
"""

import faulthandler
import json
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import torch
from support.extraction_fixtures import BATCH, NETWORK, build_watched
from support.feature_folders import write_image
from tqdm.auto import tqdm

from hypervlad import HypercolumnVLAD, extract_features, register_backbone
from hypervlad.features import Preprocessing

N_IMAGES, LATER = 60, 5
FORKING = multiprocessing.get_context("fork")
EVENTS = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree"}


def killed_at(event, work):
    """Do work in a forked process, which is killed at an event; say whether it came so far."""

    def work_until_then():
        left = [event]

        def count(name, _):
            if name in EVENTS:
                left[0] -= 1
                if not left[0]:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        work()

    child = FORKING.Process(target=work_until_then)
    child.start()
    child.join()
    assert child.exitcode in (0, -signal.SIGKILL), "the child failed by itself"
    return child.exitcode != 0


def main(folder):
    # tqdm's own lock is shared with forked children, one of which may die while it holds the lock.
    tqdm.set_lock(threading.RLock())
    faulthandler.dump_traceback_later(240, exit=True)  # in case anything waits forever
    torch.set_num_threads(1)
    register_backbone("watched", build_watched, ["1", "2"], Preprocessing(minimum_size=4))
    rng = np.random.default_rng(0)
    files = [write_image(folder / "images" / f"{i:03d}.png", rng) for i in range(N_IMAGES)]
    files[30].write_bytes(b"no image")
    files[7].write_bytes(files[50].read_bytes())  # the same pixels far apart
    encoder = HypercolumnVLAD(
        "watched", weights="random", image_size=16, n_codewords=4, sampling=400, random_state=0
    ).fit(files[:20])
    encoder.set_params(batch_size=BATCH, memory=folder / "cache a")
    warnings.simplefilter("ignore")
    extract_features(folder / "images", encoder, out=folder / "whole.parquet")
    encoder.set_params(memory=folder / "cache b")
    log = (folder / "batches.txt").open("ab", buffering=0)
    NETWORK.before_batch = lambda _: log.write(b".")

    def go_on():
        extract_features(folder / "images", encoder, out=folder / "killed.parquet", resume=True)

    kills = 0
    while killed_at(1 + LATER * kills, go_on):
        kills += 1
    same = (folder / "whole.parquet").read_bytes() == (folder / "killed.parquet").read_bytes()
    n_batches = (folder / "batches.txt").stat().st_size
    print(json.dumps({"kills": kills, "same": same, "batches": n_batches}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
