"""What is done with images, by whatever process: taken in, encoded, sent back as vectors."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hypervlad.encoder import HypercolumnVLAD
from hypervlad.encoder.caching import CachedVectors
from hypervlad.encoder.inputs import Inputs
from hypervlad.encoder.intake import Facts, Taken
from hypervlad.encoder.spreading import is_spread, spread
from hypervlad.extraction.sources import Task
from hypervlad.images import SkippedImage
from hypervlad.images.outcomes import outcomes_of


@dataclass(frozen=True, eq=False)
class Encoded:
    """What became of the images of a task.

    Attributes
    ----------
    facts : list of (Facts or None)
        None for an image that could not be read.
    skipped : list of SkippedImage
        Those images.
    vectors : ndarray of shape (n_readable, n_features), float32
    stamps : list of (list of int or None)
        Size and time of each file before it was read.
    n_found : int
        Vectors that were not computed but found in the cache.
    """

    facts: list[Facts | None]
    skipped: list[SkippedImage]
    vectors: np.ndarray
    stamps: list[list[int] | None]
    n_found: int


@dataclass(frozen=True, eq=False)
class Job:
    """What every process needs.

    Attributes
    ----------
    encoder : HypercolumnVLAD
        Fitted; it travels without its network, which each process builds once.
    run : str
        See `CachedVectors`.
    verify : bool
        Read files although the cache's index knows them.
    """

    encoder: HypercolumnVLAD
    run: str
    verify: bool

    def done(self, tasks: Iterable[Task], n_jobs: int | None) -> Iterator[tuple[Task, Encoded]]:
        """Do tasks, here or in joblib's workers; the latter finish in any order."""
        return self._elsewhere(tasks, n_jobs) if is_spread(n_jobs) else self._here(tasks)

    def knows(self) -> Callable[[Any], bool]:
        """Return what says whether an image's vector can be found without reading the image."""
        return _Work(self).take.knows

    def _here(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, Encoded]]:
        """Do tasks one after the other; a thread reads the images of the next ones meanwhile."""
        work, ahead = _Work(self), deque[tuple[Task, list[list[int] | None]]]()

        def images() -> Iterator[tuple[int, Any]]:
            for task in tasks:
                ahead.append((task, task.stamps()))
                yield from task.numbered()

        outcomes = outcomes_of(images(), work.take, max(1, work.inputs.n_threads))
        for first in outcomes:
            task, stamps = ahead.popleft()
            rest = itertools.islice(outcomes, len(task.items) - 1)
            yield task, work.encoded([first, *rest], stamps)

    def _elsewhere(
        self, tasks: Iterable[Task], n_jobs: int | None
    ) -> Iterator[tuple[Task, Encoded]]:
        under_way: dict[int, Task] = {}

        def noted() -> Iterator[tuple[Job, Task]]:
            for number, task in enumerate(tasks):
                under_way[number] = task
                yield self, task

        for number, encoded in spread(_encode, noted(), n_jobs):
            yield under_way.pop(number), encoded


class _Work:
    """A job in one process: network and cache, opened once."""

    def __init__(self, job: Job) -> None:
        encoder = job.encoder
        self.inputs = Inputs.of(encoder, encoder.recipe_, encoder.preprocessing_, verify=job.verify)
        self.cache = CachedVectors(encoder, job.run)
        self.take = self.inputs.intake(self.cache.find)
        self._encoder = encoder
        self._encode: Any = None

    def encoded(
        self, outcomes: Sequence[Taken | SkippedImage], stamps: list[list[int] | None]
    ) -> Encoded:
        """Encode the images of one task."""
        taken = [outcome for outcome in outcomes if isinstance(outcome, Taken)]
        vectors = np.empty((len(taken), self._encoder._n_features_out), dtype=np.float32)
        n_found = 0
        for row, image in enumerate(taken):
            if image.prepared is None:
                vectors[row] = image.found
                n_found += 1
        for batch in self.inputs.batches(enumerate(taken)):
            self._encode = self._encode or self._encoder._encoder()
            vectors[batch.positions] = self._encode(batch)
            self.cache.keep(batch.digests, vectors[batch.positions])
        return Encoded(
            [outcome.facts if isinstance(outcome, Taken) else None for outcome in outcomes],
            [outcome for outcome in outcomes if isinstance(outcome, SkippedImage)],
            vectors,
            stamps,
            n_found,
        )


_last: dict[str, _Work] = {}


def _encode(part: tuple[Job, Task]) -> Encoded:
    """Do a task in a worker, with the network that it has built before."""
    job, task = part
    work = _last.get(job.run)
    if work is None:
        _last.clear()
        work = _last[job.run] = _Work(job)
    stamps = task.stamps()
    return work.encoded(list(outcomes_of(task.numbered(), work.take)), stamps)
