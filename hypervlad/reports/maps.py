"""Maps as TIFF."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hypervlad.files import replace_when_complete


def write_tiff(
    path: Path,
    values: NDArray[Any],
    pixel_size: float | None,
    *,
    flush: bool = True,
    level: int | None = None,
) -> None:
    """Write a map as compressed TIFF, in a folder that is made if it is missing.

    ImageJ reads the pixel size, which is in nanometres, except that of maps of uint32: it has no
    32-bit integers.

    Parameters
    ----------
    path : Path
    values : ndarray of shape (H, W)
    pixel_size : float or None
        Nanometres per pixel, if known.
    flush : bool, default=True
        Wait until the file is on the disk.
    level : int, optional
        Of the compression, from 1 (fast) to 9 (small).
    """
    import tifffile

    options: dict[str, Any] = {} if level is None else {"compressionargs": {"level": level}}
    if pixel_size is not None:
        options["resolution"] = (1 / pixel_size, 1 / pixel_size)  # pixels per nm
    if values.dtype != np.uint32:
        options |= {"imagej": True, "metadata": {} if pixel_size is None else {"unit": "nm"}}
    elif pixel_size is not None:
        options |= {"resolution": (1e7 / pixel_size,) * 2, "resolutionunit": "CENTIMETER"}
    with replace_when_complete(path, flush=flush) as stream:
        tifffile.imwrite(
            stream, values, compression="zlib", predictor=False, software="", **options
        )
