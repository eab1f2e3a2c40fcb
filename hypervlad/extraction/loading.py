"""``load_features``: vectors back from a file, in memory or mapped from the disk."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hypervlad.extraction.fitted import digest_of
from hypervlad.extraction.table import (
    VECTOR,
    FeatureFileError,
    beside,
    content_digest,
    description,
    open_table,
    vectors_of,
)
from hypervlad.modelfile import replace_when_complete

if TYPE_CHECKING:
    import pandas as pd

_SHARE_OF_MEMORY = 0.25  # that vectors may take
_DIGITS = 12  # of the digest in a copy's name
_USUAL_MEMORY = 16 * 2**30  # where nobody can say how much there is


def load_features(
    path: str | os.PathLike[str], *, encoder: Any = None, mmap: bool | None = None
) -> tuple[np.ndarray, pd.DataFrame]:
    """Read a file that :func:`extract_features` wrote.

    Parameters
    ----------
    path : path
    encoder : HypercolumnVLAD or MicrographClassifier, optional
        Fitted; if given, the file must be made with it.
    mmap : bool, optional
        Map the vectors from the disk instead of reading them: an uncompressed copy,
        ``_PATH.<digest>.npy``, is then written beside the file, once, and found again. By default
        where they would take more than a quarter of the machine's memory.

    Returns
    -------
    X : ndarray of shape (n, n_features), float32
        A read-only ``memmap`` if mapped.
    frame : DataFrame of n rows
        ``path`` (relative; missing for an array), ``label`` (may be missing), ``digest`` (SHA-256
        of the pixels: see :class:`hypervlad.images.Micrograph`), ``height``, ``width``,
        ``channels``, ``pixel_size`` (nm, NaN if not known).

    Raises
    ------
    FeatureFileError
        A ValueError: no such file, a damaged or a foreign one, or one of another encoder.

    Examples
    --------
    >>> import tempfile
    >>> from hypervlad import HypercolumnVLAD, extract_features, load_features, make_tem_images
    >>> images, labels = make_tem_images(8, size=64, random_state=0)
    >>> encoder = HypercolumnVLAD(weights="random", image_size=64, n_codewords=4).fit(images)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     done = extract_features(images, encoder, labels=labels, out=f"{folder}/f.parquet")
    ...     X, frame = load_features(f"{folder}/f.parquet", encoder=encoder)
    >>> X.shape, len(frame)
    ((8, 544), 8)
    """
    path = Path(path)
    with open_table(path) as file:
        if encoder is not None:
            _check_encoder(path, file, encoder)
        if mmap is None:
            mmap = _too_large(file)
        vectors = _mapped(path, file) if mmap else _read(path, file)
        rest = [name for name in file.schema_arrow.names if name != VECTOR]
        with _damage_told(path):
            return vectors, file.read(columns=rest).to_pandas()


@contextlib.contextmanager
def _damage_told(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise FeatureFileError(f"{path}: damaged ({error}); extract again") from error


def _check_encoder(path: Path, file: pq.ParquetFile, encoder: Any) -> None:
    made_with = description(file.schema_arrow, path)["encoder"]
    if made_with != digest_of(encoder):
        raise FeatureFileError(
            f"{path}: these features are of another model (or of this one trained anew); extract "
            "them again with this one"
        )


def _shape(file: pq.ParquetFile) -> tuple[int, int]:
    return file.metadata.num_rows, file.schema_arrow.field(VECTOR).type.list_size


def _blocks(path: Path, file: pq.ParquetFile) -> Iterator[np.ndarray]:
    for group in range(file.num_row_groups):
        with _damage_told(path):
            block = vectors_of(file.read_row_group(group, columns=[VECTOR]))
        yield block


def _read(path: Path, file: pq.ParquetFile) -> np.ndarray:
    vectors = np.empty(_shape(file), dtype=np.float32)
    row = 0
    for block in _blocks(path, file):
        vectors[row : row + len(block)] = block
        row += len(block)
    return vectors


def _mapped(path: Path, file: pq.ParquetFile) -> np.ndarray:
    copy = beside(path, f"{content_digest(file)[:_DIGITS]}.npy")
    if not copy.exists():
        _remove_older_copies(path)
        try:
            _write_copy(copy, path, file)
        except OSError as error:
            raise OSError(
                error.errno,
                "the uncompressed copy that mapping needs cannot be written; make room, or give "
                "mmap=False",
                str(copy),
            ) from error
    mapped: np.ndarray = np.load(copy, mmap_mode="r")
    return mapped


def _write_copy(copy: Path, path: Path, file: pq.ParquetFile) -> None:
    header = {"descr": "<f4", "fortran_order": False, "shape": _shape(file)}
    with replace_when_complete(copy) as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        for block in _blocks(path, file):
            stream.write(block.astype("<f4", copy=False).data)


def _remove_older_copies(path: Path) -> None:
    """Remove copies of what was in the file before; on Windows not while they are in use."""
    name = re.compile(rf"_{re.escape(path.name)}\.[0-9a-f]{{{_DIGITS}}}\.npy")
    for old in path.parent.iterdir():
        if name.fullmatch(old.name):
            with contextlib.suppress(OSError):
                old.unlink()


def _too_large(file: pq.ParquetFile) -> bool:
    n_rows, n_features = _shape(file)
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # Windows
        memory = _USUAL_MEMORY
    return 4 * n_rows * n_features > _SHARE_OF_MEMORY * memory
