"""What is done with images, by whatever process: taken in, encoded, sent back as vectors."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

import numpy as np

from hypervlad.backbones import Backbone, ensure_registered
from hypervlad.encoder import HypercolumnVLAD
from hypervlad.encoder.caching import ResultCache
from hypervlad.encoder.encoding import encode_loaded
from hypervlad.encoder.loading import Batch, ImageInfo, LoadedImage, ReadReport
from hypervlad.encoder.spreading import from_anywhere, is_spread, spread
from hypervlad.extraction.met import Comparison, Met
from hypervlad.extraction.sources import Item, Task
from hypervlad.images import ImageReadError, SkippedImage
from hypervlad.images.reading import read_in_order

Stamp: TypeAlias = tuple[int | None, int | None]


@dataclass(frozen=True, eq=False)
class Encoded:
    """What became of the images of a task.

    Attributes
    ----------
    outcomes : list of (ImageInfo or SkippedImage)
        The second for an image that could not be read.
    vectors : ndarray of shape (n_readable, n_features), float32
    stamps : list of (int, int) or (None, None)
        Size and time of each file before it was read.
    n_found : int
        Vectors that were not computed but found in the cache.
    """

    outcomes: list[ImageInfo | SkippedImage]
    vectors: np.ndarray
    stamps: list[Stamp]
    n_found: int

    def met(self, items: list[Item]) -> list[Met]:
        """Return the images as they were."""
        rows = zip(items, self.outcomes, self.stamps, strict=True)
        return [_met(item, outcome, stamp) for item, outcome, stamp in rows]


def _met(item: Item, outcome: ImageInfo | SkippedImage, stamp: Stamp) -> Met:
    if isinstance(outcome, ImageInfo):
        return Met(item.path, item.label, outcome.digest, None, None, *stamp)
    return Met(item.path, item.label, None, outcome.name, outcome.reason, *stamp)


@dataclass(frozen=True, eq=False)
class Job:
    """What every process needs.

    Attributes
    ----------
    encoder : HypercolumnVLAD
        Fitted; it travels without its network, which each process builds once.
    backbone : Backbone
        Of the encoder: one that was registered here may not be known there.
    run : str
        See `ResultCache`.
    verify : bool
        Read files although the cache's index knows them.
    """

    encoder: HypercolumnVLAD
    backbone: Backbone
    run: str
    verify: bool

    def done(self, tasks: Iterable[Task], n_jobs: int | None) -> Iterator[tuple[Task, Encoded]]:
        """Do tasks, here or in joblib's workers; the latter finish in any order."""
        return self._elsewhere(tasks, n_jobs) if is_spread(n_jobs) else self._here(tasks)

    def knows(self) -> Callable[[Any], bool]:
        """Return what says whether an image's vector can be found without reading the image."""
        work = _Work(self)
        return lambda image: work.loader.is_cached(image, work.cache.find)

    def comparison(self) -> Comparison:
        """Return how images are compared with those that an earlier run has met."""
        loader = replace(_Work(self).loader, memory=None)

        def digest(image: Any) -> str | None:
            try:
                return loader.load(image, "image", lambda key: True).info.digest
            except ImageReadError:
                return None

        return Comparison(digest, self.verify)

    def _here(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, Encoded]]:
        work, tasks = _Work(self), iter(tasks)
        yield from _until_new(work, tasks)
        yield from _reading_ahead(work, tasks)

    def _elsewhere(
        self, tasks: Iterable[Task], n_jobs: int | None
    ) -> Iterator[tuple[Task, Encoded]]:
        under_way: dict[int, Task] = {}

        def noted() -> Iterator[Task]:
            for number, task in enumerate(tasks):
                under_way[number] = task
                yield task.from_anywhere(from_anywhere)

        def named(number: int) -> str:
            return ", ".join(item.path or "array" for item in under_way[number].items)

        for number, encoded in spread(_encode, self, noted(), n_jobs, named=named):
            yield under_way.pop(number), encoded


class _Work:
    """A job in one process: network and cache, opened once."""

    def __init__(self, job: Job) -> None:
        encoder = job.encoder
        ensure_registered(job.backbone)
        self.loader = encoder.loader(verify=job.verify)
        fingerprint = {} if encoder.memory is None else encoder.fingerprint()
        self.cache = ResultCache(encoder.memory, fingerprint, job.run)
        self._encoder = encoder
        self._encode: Any = None
        self._lock = threading.Lock()  # a dask worker may have several threads

    def taken(
        self, task: Task, name: str = ""
    ) -> tuple[list[LoadedImage | SkippedImage], list[Stamp]]:
        """Take in the images of a task; sizes and times of the files are those from before."""
        stamps = task.stamps()
        return list(read_in_order(task.numbered(), self._load)), stamps

    def encoded(self, taken: Sequence[LoadedImage | SkippedImage], stamps: list[Stamp]) -> Encoded:
        """Encode the images of one task."""
        report = ReadReport(len(taken), [each for each in taken if isinstance(each, SkippedImage)])
        loaded = ((i, each) for i, each in enumerate(taken) if isinstance(each, LoadedImage))
        n_features = self._encoder.n_features_out_
        found = encode_loaded(loaded, report, self.loader, self._compute, n_features, self.cache)
        outcomes = [image.info if isinstance(image, LoadedImage) else image for image in taken]
        return Encoded(outcomes, found.vectors, stamps, found.n_cached)

    def _load(self, image: Any, name: str) -> LoadedImage:
        return self.loader.load(image, name, self.cache.find)

    def _compute(self, batch: Batch) -> np.ndarray:
        with self._lock:
            if self._encode is None:  # not where all vectors are found
                self._encode = self._encoder.batch_encoder()
        vectors: np.ndarray = self._encode(batch)
        return vectors


def _until_new(work: _Work, tasks: Iterator[Task]) -> Iterator[tuple[Task, Encoded]]:
    """Do tasks one after the other up to the first image that is not in the cache.

    Before that one, handing images over from other threads would take longer than finding them.
    """
    for task in tasks:
        encoded = work.encoded(*work.taken(task))
        yield task, encoded
        if encoded.n_found < len(task.items):
            return


def _reading_ahead(work: _Work, tasks: Iterator[Task]) -> Iterator[tuple[Task, Encoded]]:
    """Do tasks one after the other; threads read the images of the next ones meanwhile."""
    ahead = deque[Task]()

    def noted() -> Iterator[tuple[int, Task]]:
        for task in tasks:
            ahead.append(task)
            yield task.number, task

    for taken in read_in_order(noted(), work.taken, max(1, work.loader.n_threads)):
        yield ahead.popleft(), work.encoded(*taken)


_works: WeakKeyDictionary[Job, _Work] = WeakKeyDictionary()
_lock = threading.Lock()


def _encode(job: Job, task: Task) -> Encoded:
    """Do a task in a worker, with the network that it has built before."""
    with _lock:
        work = _works.get(job)
        if work is None:
            work = _works[job] = _Work(job)
    return work.encoded(*work.taken(task))
