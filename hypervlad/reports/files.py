"""Tables as CSV and maps as TIFF."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from hypervlad.modelfile import replace_when_complete


def table_as_bytes(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    """Return a table as CSV, in UTF-8.

    File names that are not valid text, which Linux allows, keep their bytes.

    Examples
    --------
    >>> table_as_bytes(["path", "score"], [["a.png", 0.5]])
    b'path,score\\na.png,0.5\\n'
    """
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return as_utf8(stream.getvalue())


def as_utf8(text: str) -> bytes:
    """Encode text; bytes of file names that are not valid text are kept."""
    return text.encode("utf-8", "surrogateescape")


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table as CSV; the file is complete or not there."""
    with replace_when_complete(path) as stream:
        stream.write(table_as_bytes(header, rows))


def write_tiff(path: Path, values: NDArray[Any], *, flush: bool = True, **options: Any) -> None:
    """Write a map as compressed TIFF, in a folder that is made if it is missing.

    Parameters
    ----------
    path : Path
    values : ndarray of shape (H, W)
    flush : bool, default=True
        Wait until the file is on the disk.
    **options
        Further arguments of `tifffile.imwrite`.
    """
    import tifffile

    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_when_complete(path, flush=flush) as stream:
        tifffile.imwrite(
            stream, values, compression="zlib", predictor=False, software="", **options
        )
