"""From images to a file of vectors, task by task: finished tasks are kept, then merged."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from hypervlad.common.files import (
    LockedError,
    check_writable,
    exclusive_lock,
    file_digest,
    new_folder,
    replace_when_complete,
)
from hypervlad.common.progress import ProgressBar
from hypervlad.common.wording import counted, warn_user
from hypervlad.extraction.manifest import (
    Manifest,
    TaskFolder,
    as_table,
    finished_manifest,
    remove_drafts,
    skipped_images,
    unchanged,
    write_manifest,
)
from hypervlad.extraction.table import (
    FORMAT_VERSION,
    FeatureFileError,
    described,
    description,
    encoder_digest,
    file_beside,
    fitted_encoder,
    is_parquet,
    open_table,
    schema_of,
    table_of,
    write_rows,
)
from hypervlad.extraction.tasks import FinishedTask, Job, Source, Task, open_source
from hypervlad.features.encoder import HypercolumnVLAD
from hypervlad.features.loading import ReadReport
from hypervlad.features.registry import get_backbone
from hypervlad.images import ImageReadError, SkippedImage
from hypervlad.images.reading import check_any_read

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


def extract_features(
    images: Any,
    encoder: Any,
    *,
    out: str | os.PathLike[str],
    root: str | os.PathLike[str] | None = None,
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    n_jobs: int | None = None,
    resume: bool = False,
    verbose: bool = False,
) -> Extraction:
    """Encode the images of a folder, a list or a stream, and write their vectors to one file.

    Finished batches are kept in ``_OUT.parts`` until all are merged; at that moment the disk holds
    the vectors twice. ``_OUT.images`` then records the images.

    Parameters
    ----------
    images : path of a folder, or iterable of paths, arrays and particles
        A folder is searched as by :func:`hypervlad.images.find_images`; the label of an image is
        the first folder below it. A generator is consumed step by step.
    encoder : HypercolumnVLAD or MicrographClassifier
        Fitted; its ``memory`` is used.
    out : path
        Parquet file to write, ``NAME.parquet``.
    root : path, optional
        Folder that the paths in the table are relative to; by default that of the images.
    include, exclude : str or sequence of str, default=()
        Patterns for a folder: see :func:`hypervlad.images.find_images`.
    n_jobs : int, optional
        Processes, -1 for one per core; by default 1, or the backend of
        ``joblib.parallel_config``, such as a dask or ray cluster.
    resume : bool, default=False
        Continue an interrupted call, if there was one. A complete file that the same encoder made
        from the same images (by path, size and times) is kept.
    verbose : bool, default=False
        Show progress.

    Returns
    -------
    Extraction
        What was done; :func:`load_features` reads the vectors.

    Raises
    ------
    ImageReadError
        If there are no images, or none that can be read.
    FeatureFileError
        A ValueError: ``out`` cannot be such a file, or the extraction to be resumed had another
        model or batches of another size.
    OSError
        If the disk is full (finished batches are kept), or ``out`` is a symbolic link.
    RuntimeError
        If another process extracts to the same file, or workers are killed repeatedly.

    Warns
    -----
    SkippedImagesWarning
        Once, with the images that could not be read, whatever the encoder's ``on_error``.
    UnknownPixelSizeWarning
        Once, if the encoder has a ``pixel_size`` and that of some images is unknown.

    Examples
    --------
    >>> import tempfile
    >>> from hypervlad import HypercolumnVLAD, extract_features, load_features, make_tem_images
    >>> images, _ = make_tem_images(8, size=64, random_state=0)
    >>> encoder = HypercolumnVLAD(weights="random", image_size=64, n_codewords=4, sampling=900)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     done = extract_features(images, encoder.fit(images), out=f"{folder}/features.parquet")
    ...     X, frame = load_features(done.path)
    >>> X.shape, frame["height"].unique().tolist()
    ((8, 544), [64])
    """
    path = Path(out)
    run = Run.of(encoder, n_jobs, verbose)
    _check_target(path)
    return run.to_file(open_source(images, root, include, exclude), path, resume)


def _check_target(path: Path) -> None:
    if path.is_dir():
        raise FeatureFileError(f"{path} is a folder; give the name of a file to write")
    if path.suffix.lower() not in (".parquet", ".pq"):
        raise FeatureFileError(f"{path}: features are written as Parquet; give NAME.parquet")
    check_writable(path)
    if not path.exists():
        return
    try:
        open_table(path).close()
    except FeatureFileError as error:
        # It may still be one of features, damaged beyond reading.
        is_ours = finished_manifest(path).exists() or TaskFolder.is_unfinished(path)
        if is_ours and not is_parquet(path):
            return
        raise FeatureFileError(
            f"{path}: exists, and is not a file of features; give another name, or remove it"
        ) from error


# --- one extraction ------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Run:
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
        """What finished tasks depend on, besides the images."""
        return {
            "encoder": self.digest,
            "n_features": self.encoder.n_features_out_,
            "task_size": self.encoder.loader().n_per_batch,  # images: a batch
        }

    def job(self, run: str) -> Job:
        backbone = get_backbone(self.encoder.fitted_params_.backbone)
        return Job(self.encoder, backbone, run)

    def to_file(self, source: Source, path: Path, resume: bool) -> Extraction:
        path = Path(os.path.abspath(path))
        lock, parts = file_beside(path, "lock"), file_beside(path, "parts")
        # Before the lock: a complete file may be in a folder that cannot be written.
        if resume and (complete := self.complete(source, path)) is not None:
            if lock.exists() or parts.exists():  # of a run that was killed at its very end
                with contextlib.suppress(OSError, LockedError), exclusive_lock(lock, path):
                    remove_drafts(parts)
                    parts.rmdir()  # if it is empty
            return complete
        with new_folder(path.parent), exclusive_lock(lock, path):
            return self._extract(source, path, resume)

    def _extract(self, source: Source, path: Path, resume: bool) -> Extraction:
        began = time.monotonic()
        folder = TaskFolder.open(path, self.settings, resume=resume)
        progress = _Progress()
        try:
            with ProgressBar(
                desc="features",
                total=source.n_images,
                unit="image",
                shown=self.verbose,
            ) as bar:
                unfinished = self._unfinished(source, folder, progress, bar)
                for task, finished in self.job(folder.run).finished(unfinished, self.n_jobs):
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
        """Return what a complete file holds, if these images would give it again."""
        if TaskFolder.is_unfinished(path):
            return None
        try:
            with open_table(path) as file:
                facts, n_rows = description(file.schema_arrow, path), file.metadata.num_rows
        except FeatureFileError:  # none, or a damaged one
            return None
        if facts["encoder"] != self.digest:
            raise FeatureFileError(
                f"{path}: holds features of another model (or of this one, retrained or with other "
                "pixel sizes); give another name, or start again without resume"
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
                f"{path}: damaged or changed since it was written; its images are encoded again"
            )
            return None
        report.warn()
        return Extraction(path, n_rows, n_rows, 0, tuple(skipped), 0.0)

    def _unfinished(
        self, source: Source, folder: TaskFolder, progress: _Progress, bar: ProgressBar
    ) -> Iterator[Task]:
        digest_now = self.job(folder.run).digest_now()
        for task in source.tasks(self.settings["task_size"]):
            progress.n_tasks += 1
            progress.has_particles |= any(item.micrograph is not None for item in task.items)
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
                yield table_of(finished.records, finished.vectors, schema)

        schema = schema_of(self.encoder.n_features_out_, with_particles=progress.has_particles)
        facts = {"format": FORMAT_VERSION, "encoder": self.digest}
        schema = described(schema, facts | {"parts": self.encoder.feature_blocks})
        with replace_when_complete(path, draft_folder=folder.path) as stream:
            write_rows(stream, tables(), schema)
            if not report.n_images:
                raise ImageReadError("there are no images; the stream ended before the first one")
            check_any_read(report.skipped, report.n_images)
            stream.flush()
            digest = file_digest(stream.name)  # of the draft: nobody has changed it yet
        manifest = finished_manifest(path)
        write_manifest(manifest, folder.run, self.settings, records, digest, folder.path)
        return report, n_cached

    def _note(self, finished: FinishedTask, report: ReadReport) -> None:
        report.skipped += skipped_images(finished.records, report.n_images)
        report.n_images += len(finished.records)
        if self.encoder.fitted_params_.pixel_size is not None:
            report.unscaled += [
                record.path or record.micrograph or "array"
                for record in finished.records
                if record.digest is not None and record.pixel_size is None
            ]


@dataclass
class _Progress:
    n_tasks: int = 0
    n_kept: int = 0  # images that an earlier run had finished
    has_particles: bool = False
