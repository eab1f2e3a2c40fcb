"""The tasks of an extraction: images that are encoded together, and how a process does it."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

import numpy as np

from hypervlad.features.cache import Cache
from hypervlad.features.encoder import HypercolumnVLAD
from hypervlad.features.encoding import encode_loaded
from hypervlad.features.loading import Batch, LoadedImage, ReadReport
from hypervlad.features.registry import Backbone, ensure_registered
from hypervlad.features.workers import absolute_path, map_tasks, uses_workers
from hypervlad.images import ImageReadError, SkippedImage, find_images
from hypervlad.images.files import composed, file_stamp, is_zarr
from hypervlad.images.reading import N_READERS, check_image_list, is_particle, read_in_order

#: The fields of a record that say where a particle is.
PLACE = ("micrograph", "particle", "top", "left", "bottom", "right")
#: Of `file_stamp`; None for an array or a missing file.
Stamp: TypeAlias = tuple[int | None, int | None]
#: Reads an image; returns its digest, or None if it cannot be read.
DigestNow: TypeAlias = Callable[[Any], str | None]


@dataclass(frozen=True)
class Item:
    image: Any
    path: str | None  # in the table: relative, with forward slashes; None for an array
    label: str | None
    micrograph: str | None = None  # of a particle, likewise

    @property
    def name(self) -> str:
        return self.path or (self.image.name if self.micrograph else "array")

    def stamp(self) -> Stamp:
        stamp = None if self.path is None else file_stamp(self.image)
        return (None, None) if stamp is None else stamp


@dataclass(frozen=True)
class SourceRecord:
    """One image as it was when it was read, or why it could not be read."""

    # Columns of the table of features:
    path: str | None
    label: str | None
    digest: str | None
    height: int | None
    width: int | None
    channels: int | None
    pixel_size: float | None
    # Of an image that could not be read:
    name: str | None
    reason: str | None
    # Of a file before it was read: see `file_stamp`.
    size: int | None
    time: int | None
    # Columns of the table, if there are particles: where each is in its micrograph.
    micrograph: str | None = None
    particle: int | None = None
    top: int | None = None
    left: int | None = None
    bottom: int | None = None
    right: int | None = None

    @classmethod
    def of(cls, item: Item, image: LoadedImage | SkippedImage, stamp: Stamp) -> SourceRecord:
        path, label, place = item.path, item.label, list[Any]()
        if item.micrograph is not None:
            place = [item.micrograph, *map(int, (item.image.label, *item.image.box))]
        if isinstance(image, SkippedImage):
            name, reason = escape_bytes(image.name), escape_bytes(image.reason)
            return cls(path, label, None, None, None, None, None, name, reason, *stamp, *place)
        info = image.info
        height, width = info.shape[:2]
        channels = 1 if len(info.shape) == 2 else info.shape[2]
        image_facts = info.digest, height, width, channels, info.pixel_size
        return cls(path, label, *image_facts, None, None, *stamp, *place)


@dataclass(frozen=True)
class Task:
    number: int
    start: int  # the position of the first image
    items: list[Item]

    def numbered(self) -> Iterator[tuple[int, Any]]:
        return ((position, item.image) for position, item in enumerate(self.items, self.start))


@dataclass(frozen=True, eq=False)
class FinishedTask:
    records: list[SourceRecord]
    vectors: np.ndarray  # of the images that could be read
    n_cached: int


# --- where images come from ----------------------------------------------------------------------


@dataclass
class Source:
    items: Iterable[Item]
    n_images: int | None  # None for a stream

    def listed(self) -> list[Item]:
        self.items = list(self.items)
        return self.items

    def tasks(self, size: int) -> Iterator[Task]:
        items = iter(self.items)
        for number in itertools.count():
            some = list(itertools.islice(items, size))
            if not some:
                return
            yield Task(number, number * size, some)


def open_source(
    images: Any,
    root: str | os.PathLike[str] | None = None,
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
) -> Source:
    base = None if root is None else Path(root)
    if isinstance(images, str | os.PathLike) and os.path.isdir(images) and not is_zarr(images):
        folder, items = Path(images), list[Item]()
        for file in find_images(folder, include=include, exclude=exclude):
            first, *more = file.relative_to(folder).parts  # a label, if it is a folder
            items.append(_item(file, base or folder, composed(first) if more else None))
        return Source(items, len(items))
    if isinstance(images, str | os.PathLike) and not os.path.exists(images):
        raise ImageReadError(
            f"{os.fspath(images)}: no such folder; check the path for typing errors"
        )
    if include or exclude:
        raise ValueError("include and exclude select files of a folder; give a folder")
    if isinstance(images, Iterable) and not isinstance(images, Sized):
        return Source((_item(image, base) for image in images), None)
    items = [_item(image, base) for image in check_image_list(images)]
    return Source(items, len(items))


def _item(image: Any, root: Path | None, label: str | None = None) -> Item:
    if is_particle(image):
        is_file = os.path.isabs(image.micrograph) or os.path.exists(image.micrograph)
        name = _below(Path(image.micrograph), root) if is_file else image.micrograph
        return Item(image, None, label, escape_bytes(name))
    is_path = isinstance(image, str | os.PathLike)
    return Item(image, escape_bytes(_below(Path(image), root)) if is_path else None, label)


def escape_bytes(text: str) -> str:
    """Escape bytes of a name that are not text: a table cannot hold them."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _below(path: Path, root: Path | None) -> str:
    if root is None:
        if path.is_absolute():
            raise ValueError(
                f"{path} is absolute, and a table of features holds no absolute paths; give "
                "root=, the folder that paths are relative to"
            )
        return path.as_posix()
    inside, base = os.path.abspath(path), os.path.join(os.path.abspath(root), "")
    if not os.path.normcase(inside).startswith(os.path.normcase(base)):
        raise ValueError(f"{path} is not in root={os.fspath(root)!r}")
    return inside[len(base) :].replace(os.sep, "/")


# --- in any process -------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Job:
    """What every process needs."""

    encoder: HypercolumnVLAD  # without its network, which each process builds once
    backbone: Backbone  # it may not be registered in other processes
    run: str  # see `Cache`

    def finished(
        self, tasks: Iterable[Task], n_jobs: int | None
    ) -> Iterator[tuple[Task, FinishedTask]]:
        """Do tasks, here or in joblib's workers, which finish in any order."""
        return self._in_workers(tasks, n_jobs) if uses_workers(n_jobs) else self._here(tasks)

    def digest_now(self) -> DigestNow:
        """Return what reads an image and returns its digest, or None if it cannot be read."""
        loader = replace(_Worker(self).loader, memory=None)

        def digest(image: Any) -> str | None:
            try:
                return loader.load(image, "image", lambda key: True).info.digest
            except ImageReadError:
                return None

        return digest

    def _here(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, FinishedTask]]:
        worker, tasks = _Worker(self), iter(tasks)
        # Up to the first image that is not in the cache, one task after the other: passing images
        # between threads would take longer than finding their vectors.
        for task in tasks:
            if not worker.loader.is_cached(task.items[0].image, worker.cache.find):
                tasks = itertools.chain([task], tasks)
                break
            yield task, worker.encode(task, worker.load(task))
        for task, loaded in worker.load_ahead(tasks):
            yield task, worker.encode(task, loaded)

    def _in_workers(
        self, tasks: Iterable[Task], n_jobs: int | None
    ) -> Iterator[tuple[Task, FinishedTask]]:
        running: dict[int, Task] = {}

        def noted() -> Iterator[Task]:
            for number, task in enumerate(tasks):
                running[number] = task
                items = [replace(each, image=absolute_path(each.image)) for each in task.items]
                yield replace(task, items=items)

        def name(number: int) -> str:
            return ", ".join(item.name for item in running[number].items)

        for number, finished in map_tasks(run_task, self, noted(), n_jobs, name):
            yield running.pop(number), finished


#: Images, and their stamps from before the reading.
_Loaded: TypeAlias = tuple[list[LoadedImage | SkippedImage], list[Stamp]]


class _Worker:
    def __init__(self, job: Job) -> None:
        ensure_registered(job.backbone)
        self._encoder = encoder = job.encoder
        self.loader = encoder.loader()
        fingerprint = {} if encoder.memory is None else encoder.fingerprint()
        self.cache = Cache(encoder.memory, fingerprint, job.run)
        self._batch_encoder: Any = None
        self._lock = threading.Lock()  # a dask worker may have several threads

    def load(self, task: Task) -> _Loaded:
        stamps = [item.stamp() for item in task.items]
        return list(read_in_order(task.numbered(), self._load)), stamps

    def load_ahead(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, _Loaded]]:
        reading, stamps = deque[Task](), deque[Stamp]()

        def images() -> Iterator[tuple[int, Any]]:
            for task in tasks:
                reading.append(task)
                for item, numbered in zip(task.items, task.numbered(), strict=True):
                    stamps.append(item.stamp())
                    yield numbered

        # Two tasks: with one, the readers are idle for the last part of each computation.
        outcomes = read_in_order(images(), self._load, N_READERS, 2 * self.loader.n_per_batch)
        with contextlib.closing(outcomes):  # stops the readers if the caller stops early
            for first in outcomes:
                task = reading.popleft()
                n_more = len(task.items) - 1
                loaded = [first, *itertools.islice(outcomes, n_more)]
                yield task, (loaded, [stamps.popleft() for _ in loaded])

    def encode(self, task: Task, loaded: _Loaded) -> FinishedTask:
        images, stamps = loaded
        skipped = [image for image in images if isinstance(image, SkippedImage)]
        encoded = encode_loaded(
            ((i, image) for i, image in enumerate(images) if isinstance(image, LoadedImage)),
            ReadReport(len(images), skipped),
            self.loader,
            self._compute,
            self._encoder.n_features_out_,
            self.cache,
        )
        records = list(map(SourceRecord.of, task.items, images, stamps))
        return FinishedTask(records, encoded.vectors, encoded.n_cached)

    def _load(self, image: Any, name: str) -> LoadedImage:
        return self.loader.load(image, name, self.cache.find)

    def _compute(self, batch: Batch) -> np.ndarray:
        with self._lock:
            if self._batch_encoder is None:  # no network where all vectors are found
                self._batch_encoder = self._encoder.batch_encoder()
        vectors: np.ndarray = self._batch_encoder(batch)
        return vectors


_workers: WeakKeyDictionary[Job, _Worker] = WeakKeyDictionary()
_lock = threading.Lock()


def run_task(job: Job, task: Task) -> FinishedTask:
    with _lock:
        worker = _workers.get(job)
        if worker is None:
            worker = _workers[job] = _Worker(job)
    return worker.encode(task, worker.load(task))
