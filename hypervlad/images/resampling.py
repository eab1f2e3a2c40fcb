"""Images that a program has enlarged, brought back to their own sampling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hypervlad.common.progress import warn_of_image
from hypervlad.common.wording import name_some

_FACTORS = (1.15, 4.0)
_MIN_SIDE, _MAX_SIDE = 64, 768  # of the part that is looked at
_MAX_LINES = 256  # in each direction
_REACH = 0.06  # from half the grid's frequency, in cycles per pixel
_CLEARLY = 1.2  # times the coherence of the next eighth, which the blocks of JPEG do not reach
_COHERENT = 0.5  # enlarged images with some noise reach 0.7 to 1, others 0.05
_SAME = 0.015  # between both directions
_LOST = 0.2  # of the variance within 9 px, by shrinking and enlarging again: mostly below 0.1


def enlargement(grey: NDArray[Any]) -> float:
    """Return by how much a program has enlarged an image, 1 if it shows no signs of it.

    Interpolation repeats the spectrum of the original, weaker, at each multiple of its sampling
    frequency. So frequencies that are so far apart are coherent over the lines of the image, those
    of other images are not (Gardner 1991, "Exploitation of spectral redundancy in cyclostationary
    signals", IEEE Signal Processing Magazine 8).

    Parameters
    ----------
    grey : ndarray of shape (H, W)

    Returns
    -------
    float
        From 1.15 to 4, the same in both directions. It is found if there is some noise, of all
        interpolations but the nearest pixel's; after JPEG of low quality, 2 and 4 are not always.
        Periodic pictures without noise may be taken for enlarged ones.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy.ndimage import zoom
    >>> from hypervlad.images.resampling import enlargement
    >>> noise = np.random.default_rng(0).random((128, 160))
    >>> round(enlargement(noise), 2), round(enlargement(zoom(noise, 1.3)), 2)
    (1.0, 1.3)
    """
    if min(grey.shape) < _MIN_SIDE:
        return 1.0
    part = grey[middle(grey.shape, _MAX_SIDE)].astype(float)
    detail = part - ndimage.uniform_filter(part, 9)
    rows, columns = _spacings(detail.T), _spacings(detail)
    pairs = [float(r + c) / 2 for r in rows for c in columns if abs(r / c - 1) < _SAME]
    for factor in sorted(pairs, reverse=True):  # halves of a grid are coherent, too
        own = _resampled(part, factor, [round(side / factor) for side in part.shape])
        lost = part - _resampled(own, 1 / factor, part.shape)
        if lost.var() < _LOST * detail.var():
            return factor
    return 1.0


def middle(shape: Sequence[int], most: int) -> tuple[slice, ...]:
    """Return the window in the middle of an image, of sides of `most` pixels at most."""
    return tuple(slice(max(0, (side - most) // 2), (side + most) // 2) for side in shape)


def _spacings(detail: NDArray[np.float64]) -> list[float]:
    """Return possible spacings, in pixels, of the original pixels along the rows of an image."""
    n = detail.shape[1]
    lines = detail[:: max(1, len(detail) // _MAX_LINES)] * np.hanning(n + 2)[1:-1]
    spectrum = np.fft.fft(lines, axis=1)
    spectrum /= np.sqrt((np.abs(spectrum) ** 2).mean(axis=0)) + 1e-12
    coherence = np.zeros(n)
    for k in range(int(n / _FACTORS[1]) - 2, int(7 / 8 * n) + 3):
        upper = np.arange((k + 1) // 2, int(min(k / 2 + _REACH * n, n / 2 - 1)))
        each = (spectrum[:, upper] * spectrum[:, upper - k].conj()).mean(axis=0)
        coherence[k] = np.abs(each.mean())
    # The blocks of JPEG make a grid, too, whose coherence grows from each eighth to the next.
    eighths = np.abs(np.arange(n)[:, None] - np.arange(2, 8) * n / 8) <= 2.5
    following = np.append((eighths * coherence[:, None]).max(axis=0)[1:], np.inf)
    coherence[(eighths & (coherence[:, None] <= _CLEARLY * following)).any(axis=1)] = 0
    is_peak = (coherence >= _COHERENT) & (coherence == ndimage.maximum_filter1d(coherence, 7))
    return [n / k for k in np.flatnonzero(is_peak) if n / k >= _FACTORS[0]]


def at_own_sampling(
    grey: NDArray[np.float32], mask: NDArray[np.bool_], name: str
) -> tuple[NDArray[np.float32], NDArray[np.bool_], float]:
    """Return an image and a mask, (H, W), without their `enlargement`, and how large it was.

    A UserWarning, one for all images of a run, says so.
    """
    factor = enlargement(grey)
    if factor == 1:
        return grey, mask, factor
    warn_of_image(_enlarged, name, factor)
    shape = [round(side / factor) for side in grey.shape]
    return _resampled(grey, factor, shape), _resampled(mask, factor, shape, order=0), factor


def _resampled(
    image: NDArray[Any], step: float, shape: Sequence[int], order: int = 3
) -> NDArray[Any]:
    at = np.meshgrid(*((np.arange(side) + 0.5) * step - 0.5 for side in shape), indexing="ij")
    return np.asarray(ndimage.map_coordinates(image, at, order=order, mode="nearest"))


def _enlarged(facts: Mapping[str, float], _n_images: int) -> str:
    each = [f"{name} ({factor:.3g} times)" for name, factor in facts.items()]
    return f"enlarged by a program, but measured at its own sampling: {name_some(each)}"
