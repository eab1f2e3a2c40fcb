"""Files of results: maps as TIFF, masks as PNG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hypervlad.common.files import replace_when_complete


def write_tiff(
    path: Path,
    values: NDArray[Any],
    pixel_size: float | None,
    *,
    flush: bool = True,
    level: int | None = None,
) -> None:
    """Write a map as compressed TIFF, which ImageJ reads with its pixel size, in nanometres.

    `level` is from 1 (fast) to 9 (small). With `flush`, the file is on the disk at the end.
    """
    import tifffile

    options: dict[str, Any] = {} if level is None else {"compressionargs": {"level": level}}
    if pixel_size is not None:
        options["resolution"] = (1 / pixel_size, 1 / pixel_size)  # pixels per nm
    if values.dtype != np.uint32:  # ImageJ has no 32-bit integers
        options |= {"imagej": True, "metadata": {} if pixel_size is None else {"unit": "nm"}}
    elif pixel_size is not None:
        options |= {"resolution": (1e7 / pixel_size,) * 2, "resolutionunit": "CENTIMETER"}
    with replace_when_complete(path, flush=flush) as stream:
        tifffile.imwrite(
            stream, values, compression="zlib", predictor=False, software="", **options
        )


def write_png(path: Path, values: NDArray[np.uint8], *, flush: bool = True, level: int = 6) -> None:
    """Write an image as PNG; `flush` and `level` are as for `write_tiff`."""
    from PIL import Image

    with replace_when_complete(path, flush=flush) as stream:
        Image.fromarray(values).save(stream, format="PNG", compress_level=level)
