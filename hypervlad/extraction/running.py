"""How an extraction is done: task by task, each finished one kept, all merged at the end."""

from __future__ import annotations

import errno
import hashlib
import json
import secrets
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from tqdm.auto import tqdm

from hypervlad.cache import Memory
from hypervlad.encoder import HypercolumnVLAD
from hypervlad.encoder.batches import automatic_batch_size
from hypervlad.encoder.parameters import check_device
from hypervlad.extraction.fitted import digest_of, fitted_encoder
from hypervlad.extraction.parts import Parts
from hypervlad.extraction.sources import Source, Task
from hypervlad.extraction.table import (
    FeatureFileError,
    described,
    description,
    facts_of,
    frame_of,
    open_table,
    schema_of,
    table_of,
    vectors_of,
    write_rows,
)
from hypervlad.extraction.work import Job
from hypervlad.images import ImageReadError, SkippedImage, UnknownPixelSizeWarning
from hypervlad.images.outcomes import warn_of_skipped
from hypervlad.modelfile import replace_when_complete

if TYPE_CHECKING:
    import pandas as pd

_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}


@dataclass(frozen=True)
class Extraction:
    """What an extraction has done.

    Attributes
    ----------
    path : Path
        The file of features.
    n_images : int
        Rows in it.
    n_kept : int
        Images that an earlier, interrupted run had finished.
    n_found : int
        Vectors that were not computed but found in the cache.
    skipped : tuple of SkippedImage
        Images that could not be read, with the reasons.
    seconds : float
        This took.
    """

    path: Path
    n_images: int
    n_kept: int
    n_found: int
    skipped: tuple[SkippedImage, ...]
    seconds: float

    def __str__(self) -> str:
        parts = [f"{self.n_images} images in {self.seconds:.1f} s: {self.path}"]
        if self.n_kept:
            parts.append(f"{self.n_kept} images had been finished before")
        if self.n_found:
            parts.append(f"{self.n_found} vectors were found in the cache")
        if self.skipped:
            parts.append(f"{len(self.skipped)} images could not be read")
        return "; ".join(parts)


@dataclass(frozen=True, eq=False)
class Run:
    """How an extraction is done.

    Attributes
    ----------
    encoder : HypercolumnVLAD
    digest : str
        Of all that its vectors depend on but the images.
    verify, n_jobs, verbose
        As in :func:`hypervlad.extract_features`.
    """

    encoder: HypercolumnVLAD
    digest: str
    verify: bool
    n_jobs: int | None
    verbose: bool

    @classmethod
    def of(
        cls,
        encoder: Any,
        memory: Memory,
        verify: bool,
        n_jobs: int | None = None,
        verbose: bool = False,
    ) -> Run:
        encoder = fitted_encoder(encoder, memory)
        return cls(encoder, digest_of(encoder), verify, n_jobs, verbose)

    @property
    def settings(self) -> dict[str, Any]:
        """All that decides the parts of a file but the images."""
        return {"encoder": self.digest, "task_size": self.task_size}

    @property
    def task_size(self) -> int:
        """Images a task: a batch."""
        if self.encoder.batch_size != "auto":
            return self.encoder.batch_size
        device = check_device(self.encoder.device)
        return automatic_batch_size(self.encoder.recipe_.image_size, device)

    def in_memory(self, source: Source) -> tuple[np.ndarray, pd.DataFrame]:
        """Return vectors and frame."""
        job = Job(self.encoder, secrets.token_hex(16), self.verify)
        tables, skipped, n_images = dict[int, pa.Table](), list[SkippedImage](), 0
        with self._bar(source) as bar:
            for task, encoded in job.done(source.tasks(self.task_size), self.n_jobs):
                tables[task.number] = table_of(task.items, encoded)
                skipped += encoded.skipped
                n_images += len(task.items)
                bar.update(len(task.items))
        table = pa.concat_tables(tables[number] for number in sorted(tables)) if tables else None
        _tell(skipped, [] if table is None else self._of_unknown_scale(table), n_images)
        return vectors_of(table), frame_of(table)

    def to_file(self, source: Source, path: Path, resume: bool) -> Extraction:
        """Write vectors and what is known of the images to a file."""
        began = time.monotonic()
        if resume and (done := self._already(source, path)) is not None:
            return done
        path.parent.mkdir(parents=True, exist_ok=True)
        parts = Parts.open(path, self.settings, resume=resume)
        progress = _Progress()
        try:
            with self._bar(source) as bar:
                job = Job(self.encoder, parts.run, self.verify)
                unfinished = self._unfinished(source, parts, progress, bar)
                for task, encoded in job.done(unfinished, self.n_jobs):
                    parts.keep(task, encoded)
                    bar.update(len(task.items))
            skipped, n_found = self._merge(parts, progress, path)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            raise OSError(
                error.errno,
                "no room left; what is finished is kept: make room and run again with resume",
                str(parts.folder),
            ) from error
        parts.remove()
        n_images = progress.n_images - len(skipped)
        seconds = time.monotonic() - began
        return Extraction(path, n_images, progress.n_kept, n_found, tuple(skipped), seconds)

    def _unfinished(
        self, source: Source, parts: Parts, progress: _Progress, bar: tqdm[Any]
    ) -> Iterator[Task]:
        for task in source.tasks(self.task_size):
            progress.note(task)
            if not parts.has(task, self.encoder.recipe_.read_options):
                yield task
                continue
            progress.n_kept += len(task.items)
            if not bar.disable:
                bar.initial += len(task.items)  # no part of the rate
            bar.update(len(task.items))

    def _merge(
        self, parts: Parts, progress: _Progress, path: Path
    ) -> tuple[list[SkippedImage], int]:
        """Write all finished tasks to one file; return what was skipped and found on the way."""
        skipped: list[SkippedImage] = []
        unknown: list[str] = []
        n_found = 0

        def tables() -> Iterator[pa.Table]:
            nonlocal n_found
            for number in range(progress.n_tasks):
                part = parts.read(number)
                skipped.extend(part.skipped)
                unknown.extend(self._of_unknown_scale(part.table))
                n_found += part.n_found
                yield part.table

        facts = facts_of(self.encoder, self.digest) | {"images": progress.listing()}
        schema = described(schema_of(self.encoder._n_features_out), facts)
        with replace_when_complete(path) as stream:
            write_rows(stream, tables(), schema)
            _tell(skipped, unknown, progress.n_images)
        return skipped, n_found

    def _of_unknown_scale(self, table: pa.Table) -> list[str]:
        """Name the images whose pixel size is wanted and not known."""
        if self.encoder.recipe_.pixel_size is None:
            return []
        return [
            path or "array"
            for path, own in zip(
                table["path"].to_pylist(), table["pixel_size"].to_pylist(), strict=True
            )
            if own is None
        ]

    def _already(self, source: Source, path: Path) -> Extraction | None:
        """Return what a complete file holds, if these very images would give the same again."""
        if source.n_images is None or Parts.begun(path) or not path.is_file():
            return None
        items = source.listed()
        try:
            with open_table(path) as file:
                facts, n_rows = description(file.schema_arrow, path), file.metadata.num_rows
        except FeatureFileError:
            return None
        progress = _Progress()
        progress.note(Task(0, 0, items))
        written = path.stat().st_mtime_ns
        stamps = [item.stamp() for item in items]
        is_same = facts["encoder"] == self.digest and facts["images"] == progress.listing()
        if not is_same or any(stamp is None or stamp[1] >= written for stamp in stamps):
            return None
        return Extraction(path, n_rows, n_rows, 0, (), 0.0)

    def _bar(self, source: Source) -> tqdm[Any]:
        return tqdm(
            desc="features",
            total=source.n_images,
            unit="image",
            disable=None if self.verbose else True,
        )


class _Progress:
    """What an extraction has met so far."""

    def __init__(self) -> None:
        self.n_tasks = self.n_images = self.n_kept = 0
        self._paths = hashlib.sha256()

    def note(self, task: Task) -> None:
        self.n_tasks += 1
        self.n_images += len(task.items)
        for item in task.items:
            self._paths.update(json.dumps([item.path, item.label]).encode())

    def listing(self) -> str:
        """Return a digest of the paths and labels met."""
        return self._paths.hexdigest()


def _tell(skipped: list[SkippedImage], unknown: list[str], n_images: int) -> None:
    if not n_images:
        raise ImageReadError("there are no images; the stream ended before the first one")
    warn_of_skipped(sorted(skipped), n_images)
    if unknown:
        warnings.warn(UnknownPixelSizeWarning.about(unknown, n_images), stacklevel=4)
