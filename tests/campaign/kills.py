"""Kills: extraction, review and retraining end without warning at any moment.

Each is first run undisturbed, which gives the result to expect and how long it takes. Then forked
copies of this process are killed at moments spread over that time. Forked, they begin with the work
itself rather than with imports, which would take most of the time.
"""

from __future__ import annotations

import contextlib
import http.client
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from support.commands import TINY, run
from support.feature_folders import write_image
from support.review_queues import Served, write_queue
from support.tiny import make_tiny_encoder, register_tiny
from tqdm.auto import tqdm

from hypervlad import extract_features
from hypervlad.apps.review import Queue
from tests.campaign.case import Case

_N_MOMENTS = 4  # of each seed
_N_ITEMS = 60  # of a queue
_LABELS = ["bright", "dark", "stripes"]


def cases(seed: int, folder: Path) -> Iterator[Case]:
    """Kill one kind of work in each quarter of its run, at a random moment."""
    if not hasattr(os, "fork"):  # Windows
        return
    torch.set_num_threads(1)
    # tqdm's own lock is shared with forked children, one of which may die while it holds the lock.
    tqdm.set_lock(threading.RLock())
    register_tiny()
    rng = np.random.default_rng(seed)
    kinds = (Extraction, Review, Retraining)
    kind = kinds[seed % len(kinds)]  # seeds follow each other
    scenario = kind(folder, rng)
    began = time.monotonic()
    scenario.run_whole()
    seconds = time.monotonic() - began
    for number in range(_N_MOMENTS):
        moment = seconds * (number + rng.random()) / _N_MOMENTS
        name = f"{kind.__name__.lower()} killed after {moment:.2f} s of {seconds:.2f} s"
        yield Case(name, partial(scenario.attack, folder / str(number), moment))


class Scenario:
    """Work that may be killed, and whose result is a file: the old one, or the whole new one."""

    result = "model.hvlad"

    def __init__(self, folder: Path, rng: np.random.Generator) -> None:
        self.folder, self.whole = folder, folder / "whole"
        make_tiny_encoder().fit(list(rng.random((4, 20, 24)).astype(np.float32))).save(folder / "o")
        self.old: bytes | None = (folder / "o").read_bytes()

    def work(self, place: Path) -> None:
        """Do the whole work, or what is left of it, in a folder."""
        raise NotImplementedError

    def check_more(self, place: Path) -> None:
        """Check what else is in the folder, after a kill and at the end."""

    def prepare(self, place: Path) -> None:
        """Fill the folder in which the work begins."""
        place.mkdir()
        if self.old is not None:
            (place / self.result).write_bytes(self.old)

    def run_whole(self) -> None:
        """Do the work undisturbed, in this process's own folder."""
        self.prepare(self.whole)
        self.work(self.whole)

    def attack(self, place: Path, moment: float) -> None:
        """Kill the work at a moment, check what it left, do it again and check the result."""
        self.prepare(place)
        child = start(partial(self.work, place))
        time.sleep(moment)
        kill(child)
        whole = (self.whole / self.result).read_bytes()
        path = place / self.result
        found = path.read_bytes() if path.exists() else None
        assert found in (self.old, whole), "neither the old file nor that of an undisturbed run"
        self.check_more(place)
        child = start(partial(self.work, place))
        child.join()
        assert child.exitcode == 0, "the work failed by itself: see standard error"
        assert path.read_bytes() == whole, "another file than that of an undisturbed run"
        self.check_more(place)
        left, expected = ({path.name for path in each.iterdir()} for each in (place, self.whole))
        assert left <= expected, f"files are left: {left - expected}"
        shutil.rmtree(place)


class Extraction(Scenario):
    """Resumed, it gives the same bytes, and leaves no parts."""

    result = "features.parquet"

    def __init__(self, folder: Path, rng: np.random.Generator) -> None:
        super().__init__(folder, rng)
        self.old = None
        self.files = [write_image(folder / "images" / f"{i:03d}.png", rng) for i in range(120)]
        self.encoder = make_tiny_encoder().fit(self.files[:12])
        self.encoder.batch_size = 4
        self.encoder.transform(self.files[:1])

    def work(self, place: Path) -> None:
        encoder = self.encoder.set_params(memory=place / "cache")
        extract_features(self.folder / "images", encoder, out=place / self.result, resume=True)


class Retraining(Scenario):
    """The command: the same model again, and every label still in the queue."""

    def __init__(self, folder: Path, rng: np.random.Generator) -> None:
        super().__init__(folder, rng)
        write_classes(folder / "images", 18, rng)
        write_classes(folder / "new", 12, rng)
        model, queue = folder / "first.hvlad", folder / "queue"
        run("train", folder / "images", "-o", model, *TINY, "-q")
        run("review", "start", model, folder / "new", "-o", queue, "-q", "--max-error", "0.01")
        self.labels: dict[int, str] = {}
        with contextlib.closing(Queue(queue)) as opened:
            for image in opened.images()[:8]:
                label = Path(image.name).parent.name
                category = opened.add_category(label).id
                opened.label("client-1", f"click-{image.item:03d}", image.item, category)
                self.labels[image.item] = label

    def prepare(self, place: Path) -> None:
        super().prepare(place)
        shutil.copytree(self.folder / "queue", place / "queue")

    def work(self, place: Path) -> None:
        # The queue may name the new model by now.
        old = ["--model", self.folder / "first.hvlad"]
        training = ["--training", self.folder / "images"]
        run("review", "retrain", place / "queue", *training, *old, "-o", place / self.result)

    def check_more(self, place: Path) -> None:
        assert labels_in(place / "queue") == self.labels, "the queue has other labels than before"


class Review(Scenario):
    """No label whose click was answered is lost."""

    def prepare(self, place: Path) -> None:
        if not (self.folder / "queue").exists():
            write_queue(self.folder, _N_ITEMS, 0)
        shutil.copytree(self.folder / "queue", place)

    def run_whole(self) -> None:
        self.prepare(self.whole)
        assert len(self.labelled_until_killed(self.whole, 300.0)) == _N_ITEMS

    def attack(self, place: Path, moment: float) -> None:
        self.prepare(place)
        answered = self.labelled_until_killed(place, moment)
        kept = labels_in(place)
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


def labels_in(queue: Path) -> dict[int, str]:
    with contextlib.closing(Queue(queue)) as opened:
        return {image.item: image.label for image in opened.images() if image.label is not None}


def write_classes(root: Path, n: int, rng: np.random.Generator) -> None:
    """Write images of three classes, which even a random network tells apart."""
    x = np.arange(24)[None, :]
    patterns = {"bright": 0 * x + 170, "dark": 0 * x + 70, "stripes": 120 + 60 * np.sin(2 * x)}
    for number in range(n):
        label = _LABELS[number % 3]
        pixels = patterns[label] + rng.normal(0, 12, (20, 24))
        (root / label).mkdir(parents=True, exist_ok=True)
        grey = np.clip(pixels, 0, 255).astype(np.uint8)
        Image.fromarray(grey).save(root / label / f"{number:03d}.png")


# --- forked copies of this process --------------------------------------------------------------


def start(work: Callable[[], object]) -> BaseProcess:
    """Do work in a copy of this process."""
    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    return child


def kill(child: BaseProcess) -> None:
    """Kill a copy, which must be at work, or done without an error."""
    child.kill()
    child.join()
    assert child.exitcode in (0, -signal.SIGKILL), "the work failed by itself"
