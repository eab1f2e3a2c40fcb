"""One extraction: task by task, here or in workers; finished tasks are kept, merged at the end."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import pyarrow as pa

from hypervlad.common.files import (
    HashingStream,
    exclusive_lock,
    file_digest,
    new_folder,
    replace_when_complete,
)
from hypervlad.common.terminal import ProgressBar
from hypervlad.common.wording import counted, warn_user
from hypervlad.common.workload import announced
from hypervlad.data.extraction.manifest import (
    DigestNow,
    FinishedTask,
    Manifest,
    TaskFolder,
    as_table,
    finished_manifest,
    skipped_images,
    unchanged,
    write_manifest,
)
from hypervlad.data.extraction.sources import Source, SourceRecord, Stamp, Task
from hypervlad.data.extraction.table import (
    FeatureFileError,
    described,
    description,
    encoder_digest,
    file_beside,
    fitted_encoder,
    open_table,
    schema_of,
    table_facts,
    table_of,
    write_rows,
)
from hypervlad.features.backbones import Backbone, ensure_registered, get_backbone
from hypervlad.features.cache import ResultCache
from hypervlad.features.encoder import HypercolumnVLAD, LoadedImage
from hypervlad.features.encoder.encoding import encode_loaded
from hypervlad.features.encoder.loading import Batch, ReadReport
from hypervlad.features.encoder.parallel import map_tasks, uses_workers
from hypervlad.images import ImageReadError, SkippedImage
from hypervlad.images.reading import read_in_order

_MANY = 10**6  # images that a stream may have
_DISK_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}


@dataclass(frozen=True)
class Extraction:
    """What an extraction has done.

    Attributes
    ----------
    path : Path
    n_images : int
        Rows in it.
    n_kept : int
        Images that an earlier, interrupted run had finished.
    n_found : int
        Vectors that were found in the cache instead of computed.
    skipped : tuple of SkippedImage
        Images that could not be read, with the reasons.
    seconds : float
        Duration of the run.
    """

    path: Path
    n_images: int
    n_kept: int
    n_found: int
    skipped: tuple[SkippedImage, ...]
    seconds: float

    def __str__(self) -> str:
        parts = [f"{counted(self.n_images, 'image')} in {self.seconds:.1f} s: {self.path}"]
        if self.n_kept:
            parts.append(f"{counted(self.n_kept, 'image')} had been finished before")
        if self.n_found:
            parts.append(f"{self.n_found} vectors were found in the cache")
        if self.skipped:
            parts.append(f"{counted(len(self.skipped), 'image')} could not be read")
        return "; ".join(parts)


@dataclass(frozen=True, eq=False)
class Run:
    """How an extraction is done."""

    encoder: HypercolumnVLAD
    digest: str  # of all that vectors depend on, except the images
    n_jobs: int | None
    verbose: bool

    @classmethod
    def of(cls, model: Any, n_jobs: int | None = None, verbose: bool = False) -> Run:
        if n_jobs == 0:
            raise ValueError("n_jobs must be a number of processes, or -1 for one per core; got 0")
        encoder = fitted_encoder(model).portable_copy()
        encoder.check_run_parameters()
        return cls(encoder, encoder_digest(encoder), n_jobs, verbose)

    @property
    def settings(self) -> dict[str, Any]:
        """All that finished tasks depend on, except the images."""
        return {
            "encoder": self.digest,
            "n_features": self.encoder.n_features_out_,
            "task_size": self.task_size,
        }

    @property
    def task_size(self) -> int:
        """Images per task: a batch."""
        return self.encoder.loader().n_per_batch

    def job(self, run: str, n_images: int | None = None) -> Job:
        backbone = get_backbone(self.encoder.fitted_params_.backbone)
        n_images = _MANY if n_images is None else n_images
        return Job(self.encoder, backbone, run, n_images)

    def to_file(self, source: Source, path: Path, resume: bool) -> Extraction:
        """Write vectors, and what is known of the images, to a file."""
        path = Path(os.path.abspath(path))
        # Before the lock: a complete file may be in a folder that cannot be written.
        if resume and (complete := self.complete(source, path)) is not None:
            return complete
        with new_folder(path.parent), exclusive_lock(file_beside(path, "lock"), path):
            return self._extract(source, path, resume)

    def _extract(self, source: Source, path: Path, resume: bool) -> Extraction:
        """Do what is not done yet, and merge all of it into one file."""
        began = time.monotonic()
        folder = TaskFolder.open(path, self.settings, resume=resume)
        progress = _Progress()
        try:
            with self._bar(source) as bar:
                unfinished = self._unfinished(source, folder, progress, bar)
                job = self.job(folder.run, source.n_images)
                for task, finished in job.finished(unfinished, self.n_jobs):
                    folder.keep(task, finished)
                    bar.update(len(task.items))
            report, n_cached = self._merge(folder, progress, path)
        except OSError as error:
            if error.errno not in _DISK_FULL:
                raise
            raise OSError(
                error.errno,
                "the disk is full; what is finished is kept: free some space and resume",
                str(folder.path),
            ) from error
        folder.remove()
        report.warn()
        return Extraction(
            path,
            report.n_images - len(report.skipped),
            progress.n_kept,
            n_cached,
            tuple(report.skipped),
            time.monotonic() - began,
        )

    def complete(self, source: Source, path: Path) -> Extraction | None:
        """Return what a complete file holds, if these images would give the same vectors again."""
        if TaskFolder.is_unfinished(path):
            return None
        try:
            with open_table(path) as file:
                facts, n_rows = description(file.schema_arrow, path), file.metadata.num_rows
        except FeatureFileError:  # none, or a damaged one
            return None
        if facts["encoder"] != self.digest:
            raise FeatureFileError(
                f"{path}: holds features of another model (or of this one, retrained); give "
                "another name, or start again without resume"
            )
        if source.n_images is None:
            return None
        manifest = Manifest.open(finished_manifest(path))
        if manifest is None or manifest.settings != self.settings:
            return None
        records = manifest.records(source.n_images)
        if records is None:
            return None
        skipped = skipped_images(records, 0)
        report = ReadReport(len(records), skipped)
        if n_rows != report.n_images - len(skipped):
            return None
        if not unchanged(source.listed(), records, self.job("").digest_now()):
            return None
        if file_digest(path) != manifest.output_digest:
            warn_user(
                f"{path}: damaged or changed since it was written; its images are encoded again",
            )
            return None
        report.warn()
        return Extraction(path, n_rows, n_rows, 0, tuple(skipped), 0.0)

    def _unfinished(
        self, source: Source, folder: TaskFolder, progress: _Progress, bar: ProgressBar
    ) -> Iterator[Task]:
        digest_now = self.job(folder.run).digest_now()
        for task in source.tasks(self.task_size):
            progress.n_tasks += 1
            if not folder.has(task, digest_now):
                yield task
                continue
            progress.n_kept += len(task.items)
            if not bar.disable:
                bar.initial += len(task.items)  # does not count in the rate
            bar.update(len(task.items))

    def _merge(self, folder: TaskFolder, progress: _Progress, path: Path) -> tuple[ReadReport, int]:
        """Write all finished tasks to one file; return the report, and how many were cached."""
        report, n_cached = ReadReport(0), 0
        records: list[pa.Table] = []
        finished_manifest(path).unlink(missing_ok=True)

        def tables() -> Iterator[pa.Table]:
            nonlocal n_cached
            for number in range(progress.n_tasks):
                finished = folder.read(number)
                self._note(finished, report)
                records.append(as_table(finished.records))
                n_cached += finished.n_cached
                yield table_of(finished.records, finished.vectors)

        schema = schema_of(self.encoder.n_features_out_)
        schema = described(schema, table_facts(self.encoder, self.digest))
        with replace_when_complete(path, draft_folder=folder.path) as stream:
            hashing = HashingStream(stream)
            write_rows(hashing, tables(), schema)
            _check_any_read(report)
        write_manifest(
            finished_manifest(path), folder.run, self.settings, records, hashing.hexdigest()
        )
        return report, n_cached

    def _note(self, finished: FinishedTask, report: ReadReport) -> None:
        report.skipped += skipped_images(finished.records, report.n_images)
        report.n_images += len(finished.records)
        if self.encoder.fitted_params_.pixel_size is not None:
            report.unscaled += [
                record.path or "array"
                for record in finished.records
                if record.digest is not None and record.pixel_size is None
            ]

    def _bar(self, source: Source) -> ProgressBar:
        return ProgressBar(
            desc="features",
            total=source.n_images,
            unit="image",
            disable=None if self.verbose else True,
        )


@dataclass
class _Progress:
    """How many tasks there are, and how many images an earlier run had finished."""

    n_tasks: int = 0
    n_kept: int = 0


def _check_any_read(report: ReadReport) -> None:
    if not report.n_images:
        raise ImageReadError("there are no images; the stream ended before the first one")
    if len(report.skipped) == report.n_images:
        report.warn()


# --- in any process -------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Job:
    """What every process needs."""

    encoder: HypercolumnVLAD  # without its network, which each process builds once
    backbone: Backbone  # it may not be registered in other processes
    run: str  # see `ResultCache`
    n_images: int  # in all tasks: it decides what runs the network

    def finished(
        self, tasks: Iterable[Task], n_jobs: int | None
    ) -> Iterator[tuple[Task, FinishedTask]]:
        """Do tasks, here or in joblib's workers; the latter finish in any order."""
        return self._in_workers(tasks, n_jobs) if uses_workers(n_jobs) else self._here(tasks)

    def is_cached(self) -> Callable[[Any], bool]:
        """Return a test of whether an image's vector can be found without reading the image."""
        worker = _Worker(self)
        return lambda image: worker.loader.is_cached(image, worker.cache.find)

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
                yield task.with_absolute_paths()

        def name(number: int) -> str:
            return ", ".join(item.path or "array" for item in running[number].items)

        for number, finished in map_tasks(_run_task, self, noted(), n_jobs, named=name):
            yield running.pop(number), finished


@dataclass(frozen=True, eq=False)
class _Loaded:
    """The images of a task."""

    images: list[LoadedImage | SkippedImage]
    stamps: list[Stamp]  # from before the reading


class _Worker:
    """A job in one process: cache and network are opened once."""

    def __init__(self, job: Job) -> None:
        ensure_registered(job.backbone)
        self._encoder = encoder = job.encoder
        self.loader = encoder.loader()
        fingerprint = {} if encoder.memory is None else encoder.fingerprint()
        self.cache = ResultCache(encoder.memory, fingerprint, job.run)
        self._n_images = job.n_images
        self._batch_encoder: Any = None
        self._lock = threading.Lock()  # a dask worker may have several threads

    def load(self, task: Task) -> _Loaded:
        """Read the images of a task, or find their vectors."""
        stamps = [item.stamp() for item in task.items]
        return _Loaded(list(read_in_order(task.numbered(), self._load)), stamps)

    def load_ahead(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, _Loaded]]:
        """Do so for many tasks, with threads that read ahead."""
        reading, stamps = deque[Task](), deque[Stamp]()

        def images() -> Iterator[tuple[int, Any]]:
            for task in tasks:
                reading.append(task)
                for item, numbered in zip(task.items, task.numbered(), strict=True):
                    stamps.append(item.stamp())
                    yield numbered

        loader = self.loader
        # Two tasks: with one, the readers are idle for the last part of each computation.
        outcomes = read_in_order(images(), self._load, loader.n_threads, 2 * loader.n_per_batch)
        with contextlib.closing(outcomes):  # stops the readers if the caller stops early
            for first in outcomes:
                task = reading.popleft()
                n_more = len(task.items) - 1
                loaded = [first, *itertools.islice(outcomes, n_more)]
                yield task, _Loaded(loaded, [stamps.popleft() for _ in loaded])

    def encode(self, task: Task, loaded: _Loaded) -> FinishedTask:
        images = loaded.images
        skipped = [image for image in images if isinstance(image, SkippedImage)]
        encoded = encode_loaded(
            ((i, image) for i, image in enumerate(images) if isinstance(image, LoadedImage)),
            ReadReport(len(images), skipped),
            self.loader,
            self._compute,
            self._encoder.n_features_out_,
            self.cache,
        )
        records = list(map(SourceRecord.of, task.items, images, loaded.stamps))
        return FinishedTask(records, encoded.vectors, encoded.n_cached)

    def _load(self, image: Any, name: str) -> LoadedImage:
        return self.loader.load(image, name, self.cache.find)

    def _compute(self, batch: Batch) -> np.ndarray:
        with self._lock:
            if self._batch_encoder is None:  # no network where all vectors are found
                with announced(self._n_images):
                    self._batch_encoder = self._encoder.batch_encoder()
        vectors: np.ndarray = self._batch_encoder(batch)
        return vectors


_workers: WeakKeyDictionary[Job, _Worker] = WeakKeyDictionary()
_lock = threading.Lock()


def _run_task(job: Job, task: Task) -> FinishedTask:
    """Do a task in a worker, with the network that it has built before."""
    with _lock:
        worker = _workers.get(job)
        if worker is None:
            worker = _workers[job] = _Worker(job)
    return worker.encode(task, worker.load(task))
