"""What every decoder hands over: values as stored, and what the file says about them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


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
    """

    pixels: NDArray
    pixel_size: float | None = None
    scan_rows: int | None = None
    metadata: dict[str, Any] = field(default_factory=dict)


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
