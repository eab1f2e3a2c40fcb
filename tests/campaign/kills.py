"""Kills: extraction and review end without warning at any moment.

Each is first run undisturbed, which gives the result to expect and how long it takes. Then forked
copies of this process are killed at moments spread over that time. Forked, they begin with the work
itself rather than with imports, which would take most of the time.
"""

import contextlib
import http.client
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from support.feature_folders import write_image
from support.review_queues import Served, write_queue
from support.tiny import make_tiny_encoder, register_tiny
from tqdm.auto import tqdm

from hypervlad import extract_features
from hypervlad.apps.review import Queue
from tests.campaign.case import Case

_N_MOMENTS = 4  # of each seed
_N_ITEMS = 60  # of a queue
FEATURES = "features.parquet"


def cases(seed: int, folder: Path) -> Iterator[Case]:
    """Kill one kind of work in each quarter of its run, at a random moment."""
    if not hasattr(os, "fork"):  # Windows
        return
    torch.set_num_threads(1)
    # tqdm's own lock is shared with forked children, one of which may die while it holds the lock.
    tqdm.set_lock(threading.RLock())
    register_tiny()
    rng = np.random.default_rng(seed)
    kinds = (Extraction, Review)
    kind = kinds[seed % len(kinds)]  # seeds follow each other
    scenario = kind(folder, rng)
    began = time.monotonic()
    scenario.run_whole()
    seconds = time.monotonic() - began
    for number in range(_N_MOMENTS):
        moment = seconds * (number + rng.random()) / _N_MOMENTS
        name = f"{kind.__name__.lower()} killed after {moment:.2f} s of {seconds:.2f} s"
        yield Case(name, partial(scenario.attack, folder / str(number), moment))


class Extraction:
    """Resumed, it gives the same bytes, and leaves no parts."""

    def __init__(self, folder: Path, rng: np.random.Generator) -> None:
        self.folder, self.whole = folder, folder / "whole"
        files = [write_image(folder / "images" / f"{i:03d}.png", rng) for i in range(120)]
        self.encoder = make_tiny_encoder().fit(files[:12])
        self.encoder.batch_size = 4
        self.encoder.transform(files[:1])

    def work(self, place: Path) -> None:
        """Do the whole work, or what is left of it, in a folder."""
        encoder = self.encoder.set_params(memory=place / "cache")
        extract_features(self.folder / "images", encoder, out=place / FEATURES, resume=True)

    def run_whole(self) -> None:
        """Do the work undisturbed, in this process."""
        self.whole.mkdir()
        self.work(self.whole)

    def attack(self, place: Path, moment: float) -> None:
        """Kill the work at a moment, check what it left, do it again and check the result."""
        place.mkdir()
        fork = multiprocessing.get_context("fork")
        child = fork.Process(target=self.work, args=[place])
        child.start()
        time.sleep(moment)
        child.kill()
        child.join()
        assert child.exitcode in (0, -signal.SIGKILL), "the work failed by itself"
        whole, path = (self.whole / FEATURES).read_bytes(), place / FEATURES
        assert not path.exists() or path.read_bytes() == whole
        child = fork.Process(target=self.work, args=[place])
        child.start()
        child.join()
        assert child.exitcode == 0, "the work failed by itself: see what it printed"
        assert path.read_bytes() == whole, "another file than that of an undisturbed run"
        left, expected = ({path.name for path in each.iterdir()} for each in (place, self.whole))
        assert left <= expected, f"files are left: {left - expected}"
        shutil.rmtree(place)


class Review:
    """No label whose click was answered is lost."""

    def __init__(self, folder: Path, rng: np.random.Generator) -> None:
        self.whole = folder / "whole"
        self.queue = write_queue(folder, _N_ITEMS, 0)

    def run_whole(self) -> None:
        shutil.copytree(self.queue, self.whole)
        assert len(self.labelled_until_killed(self.whole, 300.0)) == _N_ITEMS

    def attack(self, place: Path, moment: float) -> None:
        shutil.copytree(self.queue, place)
        answered = self.labelled_until_killed(place, moment)
        with contextlib.closing(Queue(place)) as queue:
            kept = {each.item: each.label for each in queue.images() if each.label is not None}
        missing = [item for item, label in answered.items() if kept.get(item) != label]
        assert not missing, f"{len(missing)} of {len(answered)} answered clicks are lost"
        assert len(kept) <= len(answered) + 1, "labels that nobody gave"
        again = self.labelled_until_killed(place, 300.0)
        assert len(again) == _N_ITEMS - len(kept), "the rest cannot be labelled"
        shutil.rmtree(place)

    def labelled_until_killed(self, place: Path, seconds: float) -> dict[int, str]:
        """Serve a queue and label what it offers until the server is killed; return the labels."""
        server, answered = Served(place), {}
        killer = threading.Timer(seconds, server.running.kill)
        killer.start()
        try:
            with contextlib.suppress(OSError, http.client.HTTPException):
                found = server.post("next", client="client-1", want=1)
                while found["items"]:
                    item = found["items"][0]["id"]
                    category = found["categories"][item % 3]
                    facts: dict[str, Any] = {"client": "client-1", "click": f"click-{item:04d}"}
                    facts |= {"item": item, "category": category["id"], "want": 1}
                    found = server.post("label", **facts)
                    answered[item] = str(category["name"])
        finally:
            killer.cancel()
            server.kill()
        return answered
