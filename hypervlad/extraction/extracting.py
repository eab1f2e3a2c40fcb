"""``extract_features``: from images to a file of vectors."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from hypervlad.cache import Memory
from hypervlad.extraction.running import Extraction, Run, check_target
from hypervlad.extraction.sources import open_source

if TYPE_CHECKING:
    import pandas as pd


@overload
def extract_features(
    images: Any,
    encoder: Any,
    *,
    out: str | os.PathLike[str],
    root: str | os.PathLike[str] | None = None,
    labels: Iterable[str | None] | None = None,
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    memory: Memory = None,
    n_jobs: int | None = None,
    resume: bool = False,
    verify: bool = False,
    verbose: bool = False,
) -> Extraction: ...


@overload
def extract_features(
    images: Any,
    encoder: Any,
    *,
    out: None = None,
    root: str | os.PathLike[str] | None = None,
    labels: Iterable[str | None] | None = None,
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    memory: Memory = None,
    n_jobs: int | None = None,
    resume: bool = False,
    verify: bool = False,
    verbose: bool = False,
) -> tuple[np.ndarray, pd.DataFrame]: ...


def extract_features(
    images: Any,
    encoder: Any,
    *,
    out: str | os.PathLike[str] | None = None,
    root: str | os.PathLike[str] | None = None,
    labels: Iterable[str | None] | None = None,
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    memory: Memory = None,
    n_jobs: int | None = None,
    resume: bool = False,
    verify: bool = False,
    verbose: bool = False,
) -> Extraction | tuple[np.ndarray, pd.DataFrame]:
    """Encode the images of a folder, a list or a stream, and write their vectors to one file.

    Finished batches wait in a folder beside the file, ``_OUT.parts``. Killed at any moment, the
    same call with ``resume=True`` goes on after them, and the file becomes the same to the byte,
    given the same threads and the same cache: a network's last digits depend on both, and on what
    else is in a batch. An image that cannot be read costs only its own row. Until the end the disk
    must hold the vectors twice; ``_OUT.images`` then keeps which files they are of, and of what
    time.

    Parameters
    ----------
    images : path of a folder, or iterable of paths and arrays
        A folder is searched through, as by :func:`hypervlad.images.find_images`; the first folder
        below it that an image lies in is its label. A generator is drawn from as it is needed.
    encoder : HypercolumnVLAD or MicrographClassifier
        Fitted.
    out : path, optional
        Parquet file to write, ``NAME.parquet``. If not given, the vectors are returned and nothing
        is kept.
    root : path, optional
        Folder that the paths in the table are relative to; by default, of a folder, the folder
        itself. The table holds no absolute paths.
    labels : iterable of n str or None, optional
        For a list or stream.
    include, exclude : str or sequence of str
        For a folder: see :func:`hypervlad.images.find_images`.
    memory : None, str or joblib.Memory, default=None
        Private, trusted folder where vectors are kept and found again, whatever their files are
        called; the encoder's own by default. Files that it has seen are not even opened if path,
        size and time of change are the same.
    n_jobs : int, optional
        Processes, which share the cores; -1 for as many as there are. Within
        ``joblib.parallel_config`` the work goes to its backend, a dask or ray cluster too, whose
        machines must find images, weights and memory under the same paths.
    resume : bool, default=False
        Go on where an earlier call was stopped; if nothing was, begin. A file that is complete,
        made by the same encoder of the same images, stays: files count as the same by path, size
        and time of change, arrays are read. What could not be read is tried again. A stream that
        is complete begins anew, because it cannot be looked at without using it up.
    verify : bool, default=False
        Read all files, although the memory's index knows them. With ``resume``, all that were
        finished before are read too, one after the other.
    verbose : bool, default=False
        Show progress: images done, rate, time left.

    Returns
    -------
    Extraction
        What was done; with :func:`load_features` the vectors are read back.
    X : ndarray of shape (n_readable, n_features), float32
        Instead, without ``out``; with ``frame``, see :func:`load_features`.

    Raises
    ------
    ImageReadError
        If there are no images, or none that can be read.
    FeatureFileError
        A ValueError: ``out`` is a folder, has another ending, or is a file that no extraction has
        made; or what ``resume`` should go on with was made by another model or with batches of
        another size.
    OSError
        If the disk is full; what was finished is kept.
    RuntimeError
        If worker processes are killed over the same images time and again; they are named. (A dask
        cluster has its own error for that, ``KilledWorker``.)

    Warns
    -----
    SkippedImagesWarning
        Once, with the images that could not be read, whatever the encoder's ``on_error``.
    UnknownPixelSizeWarning
        Once, if the encoder brings images to a ``pixel_size`` and some do not know theirs.

    Examples
    --------
    >>> from hypervlad import HypercolumnVLAD, extract_features, make_tem_images
    >>> images, labels = make_tem_images(8, size=64, random_state=0)
    >>> encoder = HypercolumnVLAD(weights="random", image_size=64, n_codewords=4, random_state=0)
    >>> X, frame = extract_features(images, encoder.fit(images), labels=labels)
    >>> X.shape, frame["height"].tolist()
    ((8, 544), [64, 64, 64, 64, 64, 64, 64, 64])
    """
    run = Run.of(encoder, memory, verify, n_jobs, verbose)
    if out is None:
        if resume:
            raise ValueError("resume goes on with a file; give out=")
        return run.in_memory(open_source(images, root, labels, include, exclude))
    path = Path(out)
    check_target(path)
    return run.to_file(open_source(images, root, labels, include, exclude), path, resume)
