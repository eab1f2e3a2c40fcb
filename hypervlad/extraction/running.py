"""How an extraction is done: task by task, each finished one kept, all merged at the end."""

from __future__ import annotations

import errno
import os
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

from hypervlad.backbones import get_backbone
from hypervlad.cache import Memory
from hypervlad.encoder import HypercolumnVLAD
from hypervlad.extraction import met
from hypervlad.extraction.fitted import digest_of, fitted_encoder
from hypervlad.extraction.parts import Parts
from hypervlad.extraction.sources import Source, Task
from hypervlad.extraction.table import (
    FeatureFileError,
    described,
    description,
    facts_of,
    frame_of,
    is_parquet,
    open_table,
    schema_of,
    table_of,
    vectors_of,
    write_rows,
)
from hypervlad.extraction.work import Job
from hypervlad.images import ImageReadError, SkippedImage, UnknownPixelSizeWarning
from hypervlad.images.errors import warn_skipped

if TYPE_CHECKING:
    import pandas as pd

_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}


def check_target(path: Path) -> None:
    """See that a file of features may be written here.

    Raises
    ------
    FeatureFileError
        If it is a folder, has the name of something else, or is a file that no extraction has made.
    """
    if path.is_dir():
        raise FeatureFileError(f"{path} is a folder; give the name of a file to write")
    if path.suffix.lower() not in (".parquet", ".pq"):
        raise FeatureFileError(f"{path}: features are written as Parquet; give NAME.parquet")
    whole = Path(os.path.realpath(path))
    if not whole.exists():
        return
    try:
        open_table(whole).close()
    except FeatureFileError as error:
        # Damaged beyond reading, it may be ours still.
        if not is_parquet(whole) and (met.place_of(whole).exists() or Parts.begun(whole)):
            return
        raise FeatureFileError(
            f"{path}: exists already, and is no file of features; give another name, or remove it"
        ) from error


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
        if n_jobs == 0:
            raise ValueError("n_jobs must be a number of processes, or -1 for one a core; got 0")
        encoder = fitted_encoder(encoder, memory)
        return cls(encoder, digest_of(encoder), verify, n_jobs, verbose)

    @property
    def settings(self) -> dict[str, Any]:
        """All that decides the parts of a file but the images."""
        return {"encoder": self.digest, "task_size": self.task_size}

    @property
    def task_size(self) -> int:
        """Images a task: a batch."""
        return self.encoder.loader().n_per_batch

    def job(self, run: str) -> Job:
        """Return what every process needs."""
        backbone = get_backbone(self.encoder.fitted_params_.backbone)
        return Job(self.encoder, backbone, run, self.verify)

    def in_memory(self, source: Source) -> tuple[np.ndarray, pd.DataFrame]:
        """Return vectors and frame."""
        job, tables, told = self.job(secrets.token_hex(16)), dict[int, pa.Table](), _Told()
        with self._bar(source) as bar:
            for task, encoded in job.done(source.tasks(self.task_size), self.n_jobs):
                tables[task.number] = table_of(task.items, encoded)
                unknown = self._of_unknown_scale(tables[task.number])
                told.note(encoded.met(task.items), unknown, task.start)
                bar.update(len(task.items))
        told.check()
        told.warn()
        table = pa.concat_tables(tables[number] for number in sorted(tables))
        return vectors_of(table), frame_of(table)

    def to_file(self, source: Source, path: Path, resume: bool) -> Extraction:
        """Write vectors and what is known of the images to a file."""
        began = time.monotonic()
        path = Path(os.path.realpath(path))  # so that all that is written is on one disk
        if resume and (done := self.already(source, path)) is not None:
            return done
        path.parent.mkdir(parents=True, exist_ok=True)
        parts = Parts.open(path, self.settings, resume=resume)
        progress = _Progress()
        try:
            with self._bar(source) as bar:
                unfinished = self._unfinished(source, parts, progress, bar)
                for task, encoded in self.job(parts.run).done(unfinished, self.n_jobs):
                    parts.keep(task, encoded)
                    bar.update(len(task.items))
            told, n_found = self._merge(parts, progress, path)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            raise OSError(
                error.errno,
                "no room left; what is finished is kept: make room and run again with resume",
                str(parts.folder),
            ) from error
        parts.remove()
        told.warn()
        n_images = told.n_images - len(told.skipped)
        seconds = time.monotonic() - began
        skipped = tuple(sorted(told.skipped))
        return Extraction(path, n_images, progress.n_kept, n_found, skipped, seconds)

    def _unfinished(
        self, source: Source, parts: Parts, progress: _Progress, bar: tqdm[Any]
    ) -> Iterator[Task]:
        comparison = self.job(parts.run).comparison()
        for task in source.tasks(self.task_size):
            progress.n_tasks += 1
            if not parts.has(task, comparison):
                yield task
                continue
            progress.n_kept += len(task.items)
            if not bar.disable:
                bar.initial += len(task.items)  # no part of the rate
            bar.update(len(task.items))

    def _merge(self, parts: Parts, progress: _Progress, path: Path) -> tuple[_Told, int]:
        """Write all finished tasks to one file; return what must be told, and what was found."""
        told, n_found = _Told(), 0
        met.forget(path)
        with met.keeping(path, self.settings) as keep:

            def tables() -> Iterator[pa.Table]:
                nonlocal n_found
                for number in range(progress.n_tasks):
                    part = parts.read(number)
                    told.note(part.met, self._of_unknown_scale(part.table), told.n_images)
                    keep(part.met)
                    n_found += part.n_found
                    yield part.table

            schema = schema_of(self.encoder.n_features_out_)
            schema = described(schema, facts_of(self.encoder, self.digest))
            with open(parts.place_for_the_whole(), "wb") as stream:
                write_rows(stream, tables(), schema)
                stream.flush()
                os.fsync(stream.fileno())
            told.check()
            os.replace(parts.place_for_the_whole(), path)
        return told, n_found

    def _of_unknown_scale(self, table: pa.Table) -> list[str]:
        """Name the images whose pixel size is wanted and not known."""
        if self.encoder.fitted_params_.pixel_size is None:
            return []
        return [
            path or "array"
            for path, own in zip(
                table["path"].to_pylist(), table["pixel_size"].to_pylist(), strict=True
            )
            if own is None
        ]

    def already(self, source: Source, path: Path) -> Extraction | None:
        """Return what a complete file holds, if these very images would give the same again.

        Raises
        ------
        FeatureFileError
            If another model made it.
        """
        if Parts.begun(path):
            return None
        try:
            with open_table(path) as file:
                facts, n_rows = description(file.schema_arrow, path), file.metadata.num_rows
        except FeatureFileError:  # none, or a damaged one
            return None
        if facts["encoder"] != self.digest:
            raise FeatureFileError(
                f"{path}: holds features of another model (or of this one trained anew); give "
                "another name, or begin anew without resume"
            )
        images = None if source.n_images is None else met.kept(path, self.settings)
        if images is None:
            return None
        told = _Told()
        told.note(images, [], 0)
        is_whole = n_rows == told.n_images - len(told.skipped)
        if not is_whole or not self.job("").comparison().unchanged(source.listed(), images):
            return None
        told.warn()
        return Extraction(path, n_rows, n_rows, 0, tuple(told.skipped), 0.0)

    def _bar(self, source: Source) -> tqdm[Any]:
        return tqdm(
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


class _Told:
    """What a user must be told at the end."""

    def __init__(self) -> None:
        self.n_images = 0
        self.skipped: list[SkippedImage] = []
        self._unknown: list[str] = []

    def note(self, images: list[met.Met], unknown: list[str], start: int) -> None:
        self.skipped += met.skipped_of(images, start)
        self._unknown += unknown
        self.n_images += len(images)

    def check(self) -> None:
        """Raise if there is nothing to write."""
        if not self.n_images:
            raise ImageReadError("there are no images; the stream ended before the first one")
        if len(self.skipped) == self.n_images:
            warn_skipped(self.skipped, self.n_images)

    def warn(self) -> None:
        """Name the images that could not be read, and those of unknown scale."""
        warn_skipped(sorted(self.skipped), self.n_images)
        if self._unknown:
            about = UnknownPixelSizeWarning.about(self._unknown, self.n_images)
            warnings.warn(about, stacklevel=4)
