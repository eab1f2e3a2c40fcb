"""Queues without a model, and a server of one in a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.review_queues import CLASSES, Clock, Served, entry, write_picture

from hypervlad.review.database import make_queue
from hypervlad.review.records import TrainingImage
from hypervlad.review.store import Queue


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """Make a queue of so many doubtful images, and so many sure ones, with or without files."""

    def made(n: int = 6, sure: int = 2, *, pictures: bool = False, name: str = "queue") -> Path:
        entries = [entry(tmp_path, i, i) for i in range(n)]
        entries += [entry(tmp_path, i, None) for i in range(n, n + sure)]
        training = [
            TrainingImage(f"{label}/{i}.png", label, tmp_path / "training" / f"{i}.png")
            for i, label in enumerate(CLASSES)
        ]
        if pictures:
            for i, image in enumerate([*entries, *training]):
                write_picture(image.path, i)
        make_queue(tmp_path / name, CLASSES, entries, training, {"max_error": "0.05"})
        return tmp_path / name

    return made


@pytest.fixture
def queue(make: Callable[..., Path], clock: Clock) -> Iterator[Queue]:
    opened = Queue(make(), clock=clock)
    yield opened
    opened.close()


@pytest.fixture
def served() -> Iterator[Callable[[Path], Served]]:
    running = []

    def start(folder: Path) -> Served:
        running.append(Served(folder))
        return running[-1]

    yield start
    for server in running:
        server.kill()
