"""Directions shrunk to the size that they are shown at, before anything is coloured."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hypervlad.displays.tiles import thumbnail

FloatMap = NDArray[np.float32]


def shrunk_axes(
    orientation: NDArray[Any], coherence: NDArray[Any], side: int
) -> tuple[FloatMap, FloatMap]:
    """Shrink directions by averaging them as axes, each as long as it is coherent.

    Parameters
    ----------
    orientation, coherence : ndarray of shape (H, W)
        Radians, and 0 to 1.
    side : int
        As for `thumbnail`.

    Returns
    -------
    orientation, coherence : ndarray of float32, shape (h, w)
        Directions that differ within a block leave it less coherent.

    Examples
    --------
    >>> import numpy as np
    >>> across = np.array([[0.1, 3.1], [0.0, np.pi / 2]])
    >>> angles, lengths = shrunk_axes(across.repeat(2, axis=0), np.ones((4, 2)), side=2)
    >>> angles.shape
    (2, 1)
    >>> (lengths.ravel() > 0.9).tolist()
    [True, False]
    """
    doubled = np.multiply(orientation, 2, dtype=np.float32)
    across, up = (thumbnail(coherence * part(doubled), side) for part in (np.cos, np.sin))
    return np.arctan2(up, across) / 2, np.hypot(across, up)
