"""Maps as TIFF."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from hypervlad.files import replace_when_complete


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
