"""Queues without a model, and a server of one in a separate process."""

from __future__ import annotations

import io
import multiprocessing
import sys
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hypervlad.apps.cli import main
from hypervlad.apps.review import Queue
from hypervlad.apps.review.database import Entry, TrainingImage, make_queue
from hypervlad.apps.review.particles import queued_particles
from hypervlad.particles import find_in_images, find_particles
from hypervlad.particles.particle import NOT_A_PARTICLE

CLASSES = ["fibre", "matrix", "particle"]


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def entry(folder: Path, i: int, place: int | None = 0, **changes: object) -> Entry:
    """The i-th image, of which little is sure."""
    shares = np.roll([0.6, 0.3, 0.1], i % 3).tolist()
    scores = sorted(zip(CLASSES, shares, strict=True), key=lambda s: -s[1])
    facts = {
        "name": f"new/{i:03d}.png",
        "image": folder / "new" / f"{i:03d}.png",
        "place": place,
        "kind": "sure" if place is None else ("out_of_distribution" if i % 4 == 3 else "ambiguous"),
        "scores": scores,
        "reason": f"between {scores[0][0]} (60 %) and {scores[1][0]} (30 %)",
        "novelty": 1.0,
        "nearest": [i % 3, (i + 1) % 3],
    }
    return Entry(**(facts | changes))


def write_picture(path: Path, seed: int, size: tuple[int, int] = (300, 400)) -> None:
    """Write an image of stripes for each seed, each in its own direction."""
    path.parent.mkdir(parents=True, exist_ok=True)
    y, x = np.mgrid[: size[0], : size[1]]
    wave = np.sin((x * np.cos(seed) + y * np.sin(seed)) / 8)
    noise = np.random.default_rng(seed).normal(0, 12, size)
    Image.fromarray(np.clip(128 + 70 * wave + noise, 0, 255).astype(np.uint8)).save(path)


def write_queue(folder: Path, n: int = 6, sure: int = 2, *, pictures: bool = False) -> Path:
    """Write a queue of n doubtful and some sure images, with or without the files of images."""
    entries = [entry(folder, i, i) for i in range(n)]
    entries += [entry(folder, i, None) for i in range(n, n + sure)]
    training = [
        TrainingImage(f"{label}/{i}.png", label, folder / "training" / f"{i}.png")
        for i, label in enumerate(CLASSES)
    ]
    if pictures:
        for i, image in enumerate([*entries, *training]):
            write_picture(image.image, i)
    make_queue(folder / "queue", CLASSES, entries, training, {"max_error": "0.05"})
    return folder / "queue"


def write_particle_queue(folder: Path) -> Path:
    """Write a queue of the particles of two fields: a small square, a large one, one at an edge."""
    for name in ("a.png", "b.png"):
        pixels = np.random.default_rng(0).integers(40, 60, (200, 240)).astype(np.uint8)
        for top, left, side in ((20, 30, 12), (70, 100, 90), (0, 60, 16)):
            pixels[top : top + side, left : left + side] += 120
        (folder / "fields").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / "fields" / name)
    found, _ = find_in_images(
        folder / "found",
        sorted((folder / "fields").iterdir()),
        find_particles,
        root=folder / "fields",
    )
    entries = [
        entry(folder, i, i, name=str(particle), image=particle)
        for i, particle in enumerate(queued_particles(found))
    ]
    training = [TrainingImage(each.name, CLASSES[0], each.image) for each in entries[:3]]
    make_queue(folder / "queue", CLASSES, entries, training, {}, [NOT_A_PARTICLE])
    return folder / "queue"


# A process that has imported what a server needs, which takes seconds, and is forked for each.
_FORKING = multiprocessing.get_context("spawn" if sys.platform == "win32" else "forkserver")
_FORKING.set_forkserver_preload(["hypervlad.apps.cli.review", "hypervlad.apps.review.server"])


class _Printed(io.StringIO):
    """A stream that sends what is printed to another process."""

    def __init__(self, sending: Connection) -> None:
        super().__init__()
        self.sending = sending

    def flush(self) -> None:
        self.sending.send(self.getvalue())


def _serve(folder: Path, lease: float, sending: Connection) -> None:
    Queue.lease = lease
    sys.stdout = _Printed(sending)
    sys.argv[1:] = ["review", "serve", str(folder), "--no-open", "--quiet"]
    main()


class Served:
    """``review serve`` of a folder, until it is stopped."""

    def __init__(self, folder: Path, lease: float = Queue.lease) -> None:
        self.folder, self.lease = folder, lease
        self.start()

    def start(self) -> None:
        self.printed, sending = _FORKING.Pipe(duplex=False)
        self.running = _FORKING.Process(
            target=_serve, args=(self.folder, self.lease, sending), daemon=True
        )
        self.running.start()
        sending.close()
        line = self.printed.recv()
        assert line.startswith("open http://127.0.0.1:"), line
        self.link = line.split()[1]

    def kill(self) -> None:
        self.running.kill()
        self.running.join()


# --- fixtures, which a conftest.py imports ------------------------------------------------------


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """Make a queue in a new folder; see `write_queue`."""
    return partial(write_queue, tmp_path)


@pytest.fixture
def queue(make: Callable[..., Path], clock: Clock) -> Iterator[Queue]:
    opened = Queue(make())
    opened.now = clock
    yield opened
    opened.close()


@pytest.fixture
def served() -> Iterator[Callable[[Path], Served]]:
    running = []

    def start(folder: Path, **options: float) -> Served:
        running.append(Served(folder, **options))
        return running[-1]

    yield start
    for server in running:
        server.kill()
