"""Detection of the instrument's information bar (banner) below an image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hypervlad.images.pixels import scale_pixels

# Smallest and largest height of a banner, as shares of the image's height.
MIN_SHARE, MAX_SHARE = 0.02, 0.30
# Smallest height of a banner in rows: text needs them.
MIN_ROWS = 6
# The most common level of the last rows, as a share of the image's height, is the ground: the level
# of a banner without its text.
_LAST_SHARE = 0.03
# After lossy compression, pixels within this many grey levels (of 255) are ground. It is assumed if
# more than this share of a banner is so near to the ground without having its level.
_TOLERANCE, _LOSSY_SHARE = 16, 0.025
# Share of the pixels near the ground that have exactly its level: even dark scans have noise.
_EXACT_SHARE = 0.3
# Ink differs from the ground by more than this, in at least this share of a banner.
_INK_CONTRAST, _INK_SHARE = 80, 0.003
# Shares of ground: the minimum in rows with text; the minimum in a banner's first row, by how much
# that exceeds the rows just above, and the maximum in a lossy image above.
_TEXT_ROW_SHARE, _FIRST_ROW_SHARE, _RISE, _ABOVE_SHARE = 0.25, 0.8, 0.3, 0.7
# An edge is straight: it is in one row, in six of eight parts of the width. Logos cover the others.
_N_PARTS, _N_LOGO_PARTS = 8, 2
# It suffices that three parts, which are no ground above, become ground: the scan may be ground in
# the others, as is black vacuum.
_N_CLEAR_PARTS, _CLEAR_RISE = 3, 0.9
_N_OF_LATTICE = 2  # times that ground begins above a bar
_LINE_ROWS = 4  # largest width of a line that frames a banner or separates its rows
_LINE_SHARE = 0.9


def find_banner(pixels: NDArray[Any]) -> int:
    """Return the height in rows of the information bar at the bottom of an image; 0 if none.

    A bar is a band of one flat grey level over the full width, with text or a scale of strong
    contrast and a straight upper edge. Uncertain bands are kept.

    Parameters
    ----------
    pixels : ndarray of shape (H, W) or (H, W, 3)
        Pixels of any real type, all finite.

    Returns
    -------
    n_rows : int
        From 0 to 30 % of the image's height.

    Examples
    --------
    >>> import numpy as np
    >>> image = np.random.default_rng(0).integers(60, 200, (120, 160), dtype=np.uint8)
    >>> image[100:] = 0
    >>> image[106:114, 10:60:3] = 255
    >>> find_banner(image)
    20
    """
    n_rows, n_columns = pixels.shape[:2]
    if n_rows < 4 * MIN_ROWS or n_columns < 2 * _N_PARTS:
        return 0
    # Only the lowest part can contain a banner and the rows just above it.
    lowest = pixels[int(n_rows * (1 - MAX_SHARE)) - 2 * _LINE_ROWS :]
    grey = as_8bit_grey(lowest)
    last = grey[-max(MIN_ROWS, int(_LAST_SHARE * n_rows)) :]
    levels, counts = np.unique(last, return_counts=True)
    level = levels[counts.argmax()]
    deviation = np.abs(grey - level)
    tolerance, top = 0, _upper_edge(deviation == 0)
    own = deviation[-len(last) if top is None else top :]
    if ((own > 0) & (own <= _TOLERANCE)).mean() > _LOSSY_SHARE:
        tolerance, top = _TOLERANCE, _upper_edge(deviation <= _TOLERANCE)
    if top is None:
        return 0
    band, above = deviation[top:], deviation[max(top - 2 * _LINE_ROWS, 0) : top - 1]
    ink = band > _INK_CONTRAST
    if (
        (band[band <= _TOLERANCE] == 0).mean() < _EXACT_SHARE
        or (tolerance and (above <= tolerance).mean() > _ABOVE_SHARE)
        or ink.mean() < _INK_SHARE
    ):
        return 0
    inked = np.flatnonzero(ink.any(axis=1))
    margin_above, margin_below = int(inked[0]), len(band) - 1 - int(inked[-1])
    if margin_above > margin_below + np.ptp(inked) + 1:
        # The text of a banner is in its middle: the rows far above are a flat part of the scan.
        top += margin_above - margin_below
    else:
        top -= _frame_rows(grey[max(top - _LINE_ROWS, 0) : top], tolerance)
    height = len(grey) - top
    if not max(MIN_ROWS, MIN_SHARE * n_rows) <= height <= MAX_SHARE * n_rows:
        return 0
    # In a lattice, ground begins again and again.
    low, high = (0, 255) if lowest.dtype == np.uint8 else (lowest.min(), lowest.max())
    scan = 255 * (pixels[: n_rows - height] - float(low)) / (float(high) - float(low))
    scan = scan.mean(axis=2) if scan.ndim == 3 else scan
    _, edges = _edges(np.abs(scan - level) <= max(tolerance, 0.5))
    return 0 if (np.diff(edges, prepend=-MIN_ROWS) >= MIN_ROWS).sum() >= _N_OF_LATTICE else height


def as_8bit_grey(bottom: NDArray[Any]) -> NDArray[np.float32]:
    """Return grey levels of 0 to 255; those of types other than 8-bit fill this range."""
    if bottom.dtype == np.uint8:
        grey = bottom.astype(np.float32)
    elif bottom.dtype == np.float32 and (bottom.min(), bottom.max()) == (0, 255):
        grey = bottom  # the largest images take 256 MB
    else:
        grey = scale_pixels(bottom, ("minmax", 0, 0))
        grey *= 255
    return grey.mean(axis=2) if grey.ndim == 3 else grey


def as_8bit_colour(image: NDArray[Any]) -> NDArray[np.float32]:
    """Return how far the channels of (H, W, 3) differ, of 255; not stretched, as tints would be."""
    colour: NDArray[np.float32] = image.max(axis=2).astype(np.float32) - image.min(axis=2)
    if image.dtype != np.uint8:
        colour *= 255 / (float(np.abs(image).max()) or 1)
    return colour


def _upper_edge(is_ground: NDArray[np.bool_]) -> int | None:
    """Return the first row of the ground that lies at the bottom; None if it has no edge."""
    shares, edges = _edges(is_ground)
    # Lines, which are no ground, interrupt it by a few rows.
    flat = np.flatnonzero(shares.mean(axis=1) >= _TEXT_ROW_SHARE)
    breaks = np.flatnonzero(np.diff(flat) > _LINE_ROWS + 1)
    lowest = flat[breaks[-1] + 1 if breaks.size else 0] if flat.size else len(shares)
    edges = edges[(edges >= lowest) & (edges <= len(shares) - MIN_ROWS)]
    return int(edges[0]) if edges.size else None


def _edges(is_ground: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.int_]]:
    """Return the shares of ground in parts of rows, and the rows in which ground begins."""
    columns = np.array_split(is_ground, _N_PARTS, axis=1)
    shares = np.stack([part.mean(axis=1) for part in columns], axis=1)
    rises = np.sort(shares[2:] - np.minimum(shares[:-2], shares[1:-1]), axis=1)
    is_edge = (rises[:, _N_LOGO_PARTS] >= _RISE) | (rises[:, -_N_CLEAR_PARTS] >= _CLEAR_RISE)
    is_edge &= np.sort(shares[2:], axis=1)[:, _N_LOGO_PARTS] >= _FIRST_ROW_SHARE
    return shares, np.flatnonzero(is_edge) + 2


def _frame_rows(above: NDArray[np.float32], tolerance: float) -> int:
    """Return how many of the last rows are a line over the full width, not wider than lines are."""
    levels = np.median(above, axis=1, keepdims=True)
    is_line = (np.abs(above - levels) <= tolerance).mean(axis=1) >= _LINE_SHARE
    return int(is_line[::-1].argmin())  # 0 if all rows are such lines
