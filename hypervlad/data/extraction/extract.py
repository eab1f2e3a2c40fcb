"""``extract_features`` and ``plan_extraction``: from images to a file of vectors."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypervlad.common.files import check_writable
from hypervlad.common.wording import counted
from hypervlad.data.extraction.manifest import TaskFolder, finished_manifest
from hypervlad.data.extraction.run import Extraction, Run
from hypervlad.data.extraction.sources import open_source
from hypervlad.data.extraction.table import FeatureFileError, is_parquet, open_table
from hypervlad.features.backbones.weights import PUBLISHED


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

    Finished batches are kept beside the file, in ``_OUT.parts``, until all are merged; at that
    moment the disk holds the vectors twice. ``_OUT.images`` then records the images.

    Parameters
    ----------
    images : path of a folder, or iterable of paths and arrays
        A folder is searched as by :func:`hypervlad.images.find_images`; the label of an image is
        the first folder below it. A generator is consumed as needed.
    encoder : HypercolumnVLAD or MicrographClassifier
        Fitted; its ``memory`` is used.
    out : path
        Parquet file to write, ``NAME.parquet``.
    root : path, optional
        Folder that the paths in the table are relative to, by default that of the images.
    include, exclude : str or sequence of str
        For a folder: see :func:`hypervlad.images.find_images`.
    n_jobs : int, optional
        Processes, which share the cores; -1 for as many as there are. Within
        ``joblib.parallel_config`` the work goes to its backend, a dask or ray cluster too.
    resume : bool, default=False
        Continue an interrupted call, or start. An undamaged file that the same encoder made from
        the same images (by path, size and modification time) is kept.
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
        If the disk is full (what was finished is kept), or ``out`` is a symbolic link.
    RuntimeError
        If another process is extracting to the same file, or workers are killed repeatedly.

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
    >>> encoder = HypercolumnVLAD(weights="random", image_size=64, n_codewords=4).fit(images)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     done = extract_features(images, encoder, out=f"{folder}/features.parquet")
    ...     X, frame = load_features(done.path)
    >>> X.shape, frame["height"].unique().tolist()
    ((8, 544), [64])
    """
    path = Path(out)
    run = Run.of(encoder, n_jobs, verbose)
    _check_target(path)
    return run.to_file(open_source(images, root, include, exclude), path, resume)


@dataclass(frozen=True)
class Plan:
    """What an extraction would do.

    Attributes
    ----------
    n_images : int
        In the list.
    n_kept : int
        Finished by an earlier, interrupted run.
    n_found : int
        Others whose vectors are in the cache.
    n_bytes : int
        Of the file, if all images can be read.
    """

    n_images: int
    n_kept: int
    n_found: int
    n_bytes: int

    @property
    def n_left(self) -> int:
        """Images to be read and, unless the cache knows their pixels, computed."""
        return self.n_images - self.n_kept - self.n_found

    def __str__(self) -> str:
        return (
            f"{counted(self.n_images, 'image')}: {self.n_kept} finished before, {self.n_found} in "
            f"the cache, {self.n_left} to do; the file will have about {self.n_bytes / 1e6:.1f} MB"
        )


def plan_extraction(
    images: Any,
    encoder: Any,
    *,
    out: str | os.PathLike[str],
    root: str | os.PathLike[str] | None = None,
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    resume: bool = False,
) -> Plan:
    """Return what :func:`hypervlad.extract_features` would do; nothing is computed or written.

    Parameters
    ----------
    images, encoder, out, root, include, exclude, resume
        As in :func:`hypervlad.extract_features`; no stream.

    Returns
    -------
    Plan

    Raises
    ------
    ValueError
        For a stream, and as :func:`hypervlad.extract_features` would.

    Examples
    --------
    >>> from hypervlad import HypercolumnVLAD, make_tem_images, plan_extraction
    >>> images, _ = make_tem_images(8, size=64, random_state=0)
    >>> encoder = HypercolumnVLAD(weights="random", image_size=64, n_codewords=4, random_state=0)
    >>> plan_extraction(images, encoder.fit(images), out="features.parquet").n_images
    8
    """
    _check_target(Path(out))
    run, path = Run.of(encoder), Path(os.path.abspath(out))
    source = open_source(images, root, include, exclude)
    if source.n_images is None:
        raise ValueError("a stream cannot be examined without consuming it; give a list")
    if isinstance(run.encoder.memory, str) and not os.path.isdir(run.encoder.memory):
        run.encoder.memory = None  # opening a cache would create it
    n_bytes = source.n_images * (4 * run.encoder.n_features_out_ + 200)
    if resume and run.complete(source, path) is not None:
        return Plan(source.n_images, source.n_images, 0, n_bytes)
    folder = TaskFolder.existing(path, run.settings) if resume else None
    job = run.job("" if folder is None else folder.run)
    is_cached, digest_now = job.is_cached(), job.digest_now()
    n_kept = n_found = 0
    for task in source.tasks(run.task_size):
        if folder is not None and folder.has(task, digest_now):
            n_kept += len(task.items)
        else:
            n_found += sum(is_cached(image) for _, image in task.numbered())
    plan = Plan(source.n_images, n_kept, n_found, n_bytes)
    if plan.n_left and run.encoder.weights not in PUBLISHED:  # those may have to be downloaded
        run.encoder.network()  # raises now if the file is missing, or holds other weights
    return plan


def _check_target(path: Path) -> None:
    """Raise unless a file of features may be written here."""
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
        if not is_parquet(path) and (
            finished_manifest(path).exists() or TaskFolder.is_unfinished(path)
        ):
            return
        raise FeatureFileError(
            f"{path}: exists, and is not a file of features; give another name, or remove it"
        ) from error
