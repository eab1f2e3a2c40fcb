"""Kills: extraction, training, review and retraining end without warning at any moment.

Each is first run undisturbed, which gives the result to expect and how long it takes. Then forked
copies of this process are killed at moments spread over that time. Forked, they begin with the work
itself rather than with imports, which would take most of the time.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import threading
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import torch
from PIL import Image
from support.commands import TINY, run
from support.feature_folders import write_image
from support.review_queues import CLASSES, entry
from support.tiny import make_tiny_encoder, register_tiny
from tqdm.auto import tqdm

import hypervlad
from hypervlad import extract_features
from hypervlad.apps.review import Queue
from hypervlad.apps.review.database import make_queue
from hypervlad.apps.review.server import serve
from hypervlad.models import TransferClassifier
from tests.campaign.case import Case

_N_MOMENTS = 4  # of each seed
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
    kinds = (Extraction, Review, FineTuning, Retraining, Training)
    kind = kinds[seed % len(kinds)]  # seeds follow each other
    scenario = kind(folder, rng)
    began = time.monotonic()
    scenario.run_whole()
    seconds = time.monotonic() - began
    for number in range(_N_MOMENTS):
        moment = seconds * (number + rng.random()) / _N_MOMENTS
        name = f"{kind.__name__.lower()} killed after {moment:.2f} s of {seconds:.2f} s"
        yield Case(name, partial(scenario.attack, folder / str(number), moment))


class Scenario(ABC):
    """Work that may be killed; the folder is for the material and the undisturbed result."""

    def __init__(self, folder: Path, rng: np.random.Generator) -> None:
        self.folder, self.whole = folder, folder / "whole"

    @abstractmethod
    def work(self, place: Path) -> None:
        """Do the whole work, or what is left of it, in a folder."""

    @abstractmethod
    def check_killed(self, place: Path) -> None:
        """Check what a kill has left behind."""

    @abstractmethod
    def check_done(self, place: Path) -> None:
        """Check what work that was killed and run again has made."""

    def prepare(self, place: Path) -> None:
        """Fill the folder in which the work begins."""
        place.mkdir()

    def run_whole(self) -> None:
        """Do the work undisturbed, in this process's own folder."""
        self.prepare(self.whole)
        self.work(self.whole)

    def attack(self, place: Path, moment: float) -> None:
        """Kill the work at a moment, check what it left, do it again and check the result."""
        self.prepare(place)
        killed_after(moment, partial(self.work, place))
        self.check_killed(place)
        finish(start(partial(self.work, place)))
        self.check_done(place)
        shutil.rmtree(place)


class Extraction(Scenario):
    """Resumed, it gives the same bytes, and leaves no parts."""

    def __init__(self, folder: Path, rng: np.random.Generator) -> None:
        super().__init__(folder, rng)
        self.files = [write_image(folder / "images" / f"{i:03d}.png", rng) for i in range(120)]
        self.encoder = make_tiny_encoder().fit(self.files[:12])
        self.encoder.batch_size = 4
        self.encoder.transform(self.files[:1])

    def work(self, place: Path) -> None:
        encoder = self.encoder.set_params(memory=place / "cache")
        out = place / "features.parquet"
        extract_features(self.folder / "images", encoder, out=out, resume=True)

    def check_killed(self, place: Path) -> None:
        self._check_result(place / "features.parquet", may_be_missing=True)

    def check_done(self, place: Path) -> None:
        self._check_result(place / "features.parquet")
        left, expected = ({path.name for path in each.iterdir()} for each in (place, self.whole))
        assert left == expected, f"files are left: {left - expected}"

    def _check_result(self, path: Path, *, may_be_missing: bool = False) -> None:
        if path.exists() or not may_be_missing:
            whole = (self.whole / "features.parquet").read_bytes()
            assert path.read_bytes() == whole, "other features than those of an undisturbed run"


class ModelScenario(Scenario):
    """Work that ends in a model file: the old one or the new one is there, never half of one."""

    def __init__(self, folder: Path, rng: np.random.Generator) -> None:
        super().__init__(folder, rng)
        images = list(rng.random((4, 20, 24)).astype(np.float32))
        make_tiny_encoder().fit(images).save(folder / "old.hvlad")
        self.old = (folder / "old.hvlad").read_bytes()

    def prepare(self, place: Path) -> None:
        place.mkdir()
        (place / "model.hvlad").write_bytes(self.old)

    def check_killed(self, place: Path) -> None:
        whole = (self.whole / "model.hvlad").read_bytes()
        found = (place / "model.hvlad").read_bytes()
        assert found in (self.old, whole), f"a file of {len(found)} bytes"

    def check_done(self, place: Path) -> None:
        whole = self.whole / "model.hvlad"
        hypervlad.load(whole)
        found = (place / "model.hvlad").read_bytes()
        assert found == whole.read_bytes(), "another model than that of an undisturbed run"


class FineTuning(ModelScenario):
    """It goes on from its checkpoint."""

    def __init__(self, folder: Path, rng: np.random.Generator) -> None:
        super().__init__(folder, rng)
        self.images = list(rng.random((40, 20, 24)).astype(np.float32))

    def work(self, place: Path) -> None:
        model = TransferClassifier(
            *("tiny", "random"),
            mode="finetune",
            trainable="all",
            image_size=16,
            batch_size=2,
            max_epochs=12,
            patience=12,
            random_state=0,
            checkpoint=place / "checkpoint",
        )
        model.fit(self.images, np.arange(40) % 2).save(place / "model.hvlad")


class Training(ModelScenario):
    """The command, with a cache that outlives it."""

    def __init__(self, folder: Path, rng: np.random.Generator) -> None:
        super().__init__(folder, rng)
        write_classes(folder / "images", 24, rng)

    def work(self, place: Path) -> None:
        options = [*TINY, "-q", "--cache", place / "cache"]
        run("train", self.folder / "images", "-o", place / "model.hvlad", *options)


class Review(Scenario):
    """No label whose click was answered is lost."""

    def __init__(self, folder: Path, rng: np.random.Generator) -> None:
        super().__init__(folder, rng)
        entries = [entry(folder, i, i) for i in range(60)]
        make_queue(folder / "queue", CLASSES, entries, [], {"max_error": "0.05"})

    def prepare(self, place: Path) -> None:
        shutil.copytree(self.folder / "queue", place)

    def run_whole(self) -> None:
        self.prepare(self.whole)
        assert len(self._labelled_until_killed(self.whole, 300.0)) == 60

    def attack(self, place: Path, moment: float) -> None:
        self.prepare(place)
        answered = self._labelled_until_killed(place, moment)
        self.check_killed(place)
        queue = Queue(place)
        kept = {image.item: image.label for image in queue.images() if image.label is not None}
        queue.close()
        missing = [item for item, label in answered.items() if kept.get(item) != label]
        assert not missing, f"{len(missing)} of {len(answered)} answered clicks are lost"
        assert len(kept) <= len(answered) + 1, "labels that nobody gave"
        answered = self._labelled_until_killed(place, 300.0)
        assert len(answered) == 60 - len(kept), "the rest cannot be labelled"
        shutil.rmtree(place)

    def work(self, place: Path) -> None:
        def ready(link: str) -> None:
            (place / "link.part").write_text(link, encoding="utf-8")
            (place / "link.part").rename(place / "link")

        serve(Queue(place), ready=ready)

    def check_killed(self, place: Path) -> None:
        (place / "link").unlink(missing_ok=True)

    def check_done(self, place: Path) -> None:
        """All is checked after the kill."""

    def _labelled_until_killed(self, place: Path, seconds: float) -> dict[int, str]:
        """Serve a queue and label what it offers until the server is killed; return the labels."""
        server = start(partial(self.work, place))
        killer = threading.Timer(seconds, os.kill, (server, signal.SIGKILL))
        killer.start()
        answered: dict[int, str] = {}
        try:
            while not (place / "link").exists() and not _has_ended(server):
                time.sleep(0.005)
            with contextlib.suppress(OSError, http.client.HTTPException):
                _label_all((place / "link").read_text(encoding="utf-8"), answered)
        finally:
            killer.cancel()
            with contextlib.suppress(ProcessLookupError):
                os.kill(server, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(server, 0)
        (place / "link").unlink(missing_ok=True)
        return answered


class Retraining(ModelScenario):
    """The command: the same model again, and every label still in the queue."""

    def __init__(self, folder: Path, rng: np.random.Generator) -> None:
        super().__init__(folder, rng)
        write_classes(folder / "images", 18, rng)
        write_classes(folder / "new", 12, rng)
        model, queue = folder / "first.hvlad", folder / "queue"
        run("train", folder / "images", "-o", model, *TINY, "-q")
        run("review", "start", model, folder / "new", "-o", queue, "-q", "--max-error", "0.01")
        opened = Queue(queue)
        self.labels: dict[int, str] = {}
        for number, image in enumerate(opened.images()):
            label = image.image.parent.name
            category = opened.add_category(label).id
            opened.label("client-1", f"click-{number:03d}", image.item, category)
            self.labels[image.item] = label
            if number == 7:
                break
        opened.close()

    def prepare(self, place: Path) -> None:
        super().prepare(place)
        shutil.copytree(self.folder / "queue", place / "queue")

    def work(self, place: Path) -> None:
        # The queue may name the new model by now.
        old = ["--model", self.folder / "first.hvlad"]
        training = ["--training", self.folder / "images"]
        run("review", "retrain", place / "queue", *training, *old, "-o", place / "model.hvlad")

    def check_killed(self, place: Path) -> None:
        super().check_killed(place)
        self._check_labels(place)

    def check_done(self, place: Path) -> None:
        super().check_done(place)
        self._check_labels(place)

    def _check_labels(self, place: Path) -> None:
        queue = Queue(place / "queue")
        kept = {image.item: image.label for image in queue.images() if image.label is not None}
        queue.close()
        assert kept == self.labels, "the queue has other labels than before"


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


def _label_all(link: str, answered: dict[int, str]) -> None:
    """Label what the server offers, and note each label once its click is answered."""
    parts = urlsplit(link)
    assert parts.hostname is not None
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
    headers = {"Content-Type": "application/json", "Origin": f"http://{parts.netloc}"}

    def post(action: str, **content: Any) -> dict[str, Any]:
        connection.request("POST", f"{parts.path}{action}", json.dumps(content), headers)
        response = connection.getresponse()
        found = json.loads(response.read())
        assert response.status == 200, found
        return dict(found)

    found = post("next", client="client-1", want=1)
    while found["items"]:
        item = found["items"][0]["id"]
        category = found["categories"][item % 3]
        click = f"click-{item:04d}"
        sent = {"client": "client-1", "item": item, "category": category["id"], "want": 1}
        found = post("label", click=click, **sent)
        answered[item] = category["name"]
    connection.close()


# --- forked copies of this process --------------------------------------------------------------


def start(work: Callable[[], None]) -> int:
    """Do work in a copy of this process; return its id."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return child


def finish(child: int) -> None:
    """Wait for a copy; AssertionError if its work failed."""
    _, status = os.waitpid(child, 0)
    assert status == 0, f"the work failed by itself, with status {status}: see standard error"


def killed_after(seconds: float, work: Callable[[], None]) -> bool:
    """Do work in a copy of this process and kill it; return whether that was in time."""
    child = start(work)
    time.sleep(seconds)
    return kill(child)


def kill(child: int) -> bool:
    """Kill a copy; return whether it was still at work. AssertionError if it had failed."""
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the work failed by itself"
    return os.WIFSIGNALED(status)


def _has_ended(child: int) -> bool:
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
