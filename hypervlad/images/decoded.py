"""What every decoder hands over: values as stored, and what the file says about them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hypervlad.images.metadata import Sides, square_pixel_size


@dataclass
class Decoded:
    """One decoded image, before any scaling.

    Attributes
    ----------
    pixels : ndarray
        Values as stored.
    pixel_size : float or None
        Nanometres per pixel.
    scan_rows : int or None
        Height of the scanned image, without the banner, where the metadata tell; None: not known.
    metadata : dict
        Plain values only (str, int, float, bool, None, lists and dicts of them).
        ``"pixel_sides_nm"``: across and down, of pixels that are not square.
    """

    pixels: NDArray
    pixel_size: float | None = None
    scan_rows: int | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    def measure(self, sides: Sides) -> None:
        """Take what the file says of a pixel, across and down."""
        self.pixel_size = square_pixel_size(sides)
        if self.pixel_size is None and None not in sides:
            self.metadata["pixel_sides_nm"] = list(sides)


def plain(value: Any) -> Any:
    """`value` with NumPy scalars, tuples, bytes and the like replaced by what JSON can hold."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, bytes):
        return value.decode("latin-1").rstrip("\x00")
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    return str(value)
