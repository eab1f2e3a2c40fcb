"""Extract a folder in child processes that are killed, each a little later; print the outcome.

The argument is a folder to work in. The last line of output is JSON. A child kills itself when it
opens, moves, creates or removes a file or a folder for the n-th time. Those that go on
where the last one was killed have less and less to do: the end is attacked by itself.
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

N_IMAGES, LATER, N_LAST = 32, 6, 22
FORKING = multiprocessing.get_context("fork")
N_EVENTS = FORKING.Value("q")  # of the child that ran last
EVENTS = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree"}


def killed_at(event, work):
    """Do work in a forked process, which is killed at an event; say whether it came so far."""

    def work_until_then():
        N_EVENTS.value = 0

        def count(name, _):
            if name in EVENTS:
                N_EVENTS.value += 1
                if N_EVENTS.value == event:
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
    files[28].write_bytes(b"no image")
    files[7].write_bytes(files[25].read_bytes())  # the same pixels far apart
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
    n_batches = (folder / "batches.txt").stat().st_size

    def is_whole():
        names = {path.name for path in folder.iterdir() if "killed" in path.name}
        same = (folder / "whole.parquet").read_bytes() == (folder / "killed.parquet").read_bytes()
        return same and names == {"killed.parquet", "_killed.parquet.images"}

    def anew():
        for path in folder.glob("*killed.parquet*"):
            path.unlink()
        go_on()

    same = is_whole()
    killed_at(-1, anew)
    n_events = N_EVENTS.value
    for event in range(n_events - N_LAST, n_events):
        killed_at(event, anew)
        killed_at(-1, go_on)
        same &= is_whole()
    print(json.dumps({"kills": kills, "same": same, "batches": n_batches}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
