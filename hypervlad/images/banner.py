"""Detection of the instrument's information bar (banner) below an image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hypervlad.images.pixels import percentile_limits, scale_pixels

# Smallest and largest height of a banner, as shares of the image's height.
MIN_SHARE, MAX_SHARE = 0.02, 0.30
# Smallest height of a banner in rows: text needs them.
MIN_ROWS = 6
# Grey levels (of 255) from the background within which a pixel counts as background: JPEG artefacts
# around text are as large.
_TOLERANCE, _TIGHT_TOLERANCE = 12, 4
# Drawn areas are flat, scanned ones have noise. At least 30 % of a banner lie within this of its
# background (in a dense, strongly compressed one, hardly more is free of text).
_FLATNESS = 2.0
# A text pixel differs from the background by more than this.
_TEXT_CONTRAST = 80
# Shares of background pixels: the minimum in a banner's first row, the minimum in any of its rows,
# and the maximum in each of the rows just above it.
_EDGE_SHARE, _TEXT_ROW_SHARE, _IMAGE_SHARE = 0.9, 0.3, 0.25
_N_ABOVE = 4


def find_banner(pixels: NDArray[Any]) -> int:
    """Return the height in rows of the information bar at the bottom of an image; 0 if none.

    A bar is a band of one flat grey level over the full width, with text of strong contrast and a
    straight upper edge. Uncertain bands are kept.

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
    if n_rows < 4 * MIN_ROWS or n_columns < 16:
        return 0
    # Only the lowest part can contain a banner and the rows just above it.
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


def _as_8bit_grey(bottom: NDArray[Any], scene: NDArray[Any]) -> NDArray[np.float32]:
    """Return `bottom` in grey levels 0 to 255; types other than 8-bit use the range of `scene`.

    White text at 65535 would turn a 12-bit scene almost black.
    """
    if bottom.dtype == np.uint8:
        grey = bottom.astype(np.float32)
    else:
        low, high = percentile_limits(scene, (0.1, 99.9))
        grey = 255 * scale_pixels(bottom, ("limits", low, high) if low < high else ("minmax", 0, 0))
    return grey.mean(axis=2) if grey.ndim == 3 else grey


def _background_level(bottom: NDArray[np.float32]) -> float | None:
    """Return the most common level of the last rows, or None if it is too rare."""
    last = bottom[-MIN_ROWS:]
    counts = np.bincount(last.astype(np.intp).ravel(), minlength=256)
    windows = np.convolve(counts, np.ones(5, dtype=np.intp), mode="same")
    centre = int(windows.argmax())
    if windows[centre] < _TEXT_ROW_SHARE * last.size:
        return None
    start = max(centre - 2, 0)
    return float(start + int(counts[start : centre + 3].argmax()))


def _top_edge(bottom: NDArray[np.float32], background: float) -> int | None:
    """Return the first row with background below and image just above it."""
    deviation = np.abs(bottom - background)
    below = _background_shares(bottom, deviation)
    # Even a scene as grey as the banner has a wider distribution than a drawn area.
    above = (deviation <= _TIGHT_TOLERANCE).mean(axis=1)
    interrupted = np.flatnonzero(below < _TEXT_ROW_SHARE)
    lowest = int(interrupted[-1]) + 1 if interrupted.size else 0
    for top in range(max(lowest, _N_ABOVE), len(bottom) - MIN_ROWS + 1):
        if below[top] >= _EDGE_SHARE and above[top - _N_ABOVE : top].max() <= _IMAGE_SHARE:
            return top
    return None


def _background_shares(
    bottom: NDArray[np.float32], deviation: NDArray[np.float32]
) -> NDArray[np.floating]:
    """Return each row's share of background; full-width lines count."""
    shares = (deviation <= _TOLERANCE).mean(axis=1)
    own_level = np.median(bottom, axis=1, keepdims=True)
    is_line = (np.abs(bottom - own_level) <= _TOLERANCE).mean(axis=1) >= _EDGE_SHARE
    return np.where(is_line, 1.0, shares)


def _is_flat_with_text(band: NDArray[np.float32], background: float) -> bool:
    deviation = np.abs(band - background)
    is_flat = float(np.quantile(deviation, 0.3)) <= _FLATNESS
    return is_flat and 0.003 <= (deviation > _TEXT_CONTRAST).mean() <= 0.5
