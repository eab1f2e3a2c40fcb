"""Images smoothed, halved, or in bands of rows; those that a program has enlarged as before."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

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
STRIP = 32  # rows that are smoothed at once
_AT_ONCE = 128  # rows to which a function is applied
_MAX_PRODUCT = 2**18  # multiplications of which libraries use one thread: others would only wait
_LOST = 0.2  # of the variance within 9 px, by shrinking and enlarging again: mostly below 0.1
_BROAD = 1e-3  # median over mean of a spectrum's power: 0.1 with noise, 1e-5 of stripes without it


def smoothed(
    image: NDArray[np.float32],
    sigma: float,
    *,
    truncate: float = 4.0,
    mode: Literal["symmetric", "edge"] = "symmetric",
) -> NDArray[np.float32]:
    """Average an image by a Gaussian, as ``scipy.ndimage.gaussian_filter`` does, but faster.

    Values are finite, and sigma is positive.

    >>> spot = np.zeros((7, 7), np.float32)
    >>> spot[3, 3] = 1
    >>> smoothed(spot, 1.0)[3].astype(float).round(3).tolist()
    [0.002, 0.022, 0.097, 0.159, 0.097, 0.022, 0.002]
    """
    taps = gaussian_taps(sigma, truncate)
    return correlated(correlated(image, taps, mode).T, taps, mode).T


def by_rows(
    function: Callable[[NDArray[Any]], NDArray[Any]], values: NDArray[Any], reach: int = 0
) -> NDArray[Any]:
    """Apply to few rows at a time what depends on so many above and below; copies take little."""
    found = values
    for top in range(0, len(values), _AT_ONCE):
        own = function(values[max(top - reach, 0) : top + _AT_ONCE + reach])[min(top, reach) :][
            :_AT_ONCE
        ]
        if top == 0:
            found = np.empty((len(values), *own.shape[1:]), own.dtype)
        found[top : top + _AT_ONCE] = own
    return found


def areas_of(labels: NDArray[np.int32], n: int) -> NDArray[np.int64]:
    """Return the number of pixels of labels 0 to n; by parts, as indices take 64 bits."""
    flat, step, areas = labels.ravel(), 1 << 22, np.zeros(n + 1, np.int64)
    for start in range(0, flat.size, step):
        areas += np.bincount(flat[start : start + step], minlength=n + 1)
    return areas


def nearest(values: NDArray[Any], size: tuple[int, ...]) -> NDArray[Any]:
    rows, columns = (
        ((np.arange(n) + 0.5) * own / n).astype(np.intp)
        for n, own in zip(size, values.shape, strict=True)
    )
    found: NDArray[Any] = values[rows[:, None], columns]
    return found


def halved(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return an image of half the size, without an odd last row or column."""
    even = image[: len(image) // 2 * 2, : image.shape[1] // 2 * 2]
    total = even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]
    return np.asarray(total * np.float32(0.25))


def gaussian_taps(sigma: float, truncate: float, order: int = 0) -> NDArray[np.float64]:
    """Return the weights of a Gaussian, or of its first or second derivative."""
    at = np.arange(-int(truncate * sigma + 0.5), int(truncate * sigma + 0.5) + 1) / sigma
    weights = np.exp(-0.5 * at**2)
    weights /= weights.sum()
    return np.asarray((weights, weights * at / sigma, weights * (at**2 - 1) / sigma**2)[order])


def correlated(
    image: NDArray[np.float32],
    taps: NDArray[np.float64],
    mode: Literal["symmetric", "edge"] = "symmetric",
) -> NDArray[np.float32]:
    """Multiply the pixels around each one in its column by weights, and add them up."""
    reach = len(taps) // 2
    padded = np.pad(image, ((reach, reach), (0, 0)), mode=mode)
    # All weights of a strip as a matrix: SciPy, which takes pixel by pixel, is five times slower.
    matrix = np.zeros((STRIP, STRIP + 2 * reach), np.float32)
    for row, weights in enumerate(matrix):
        weights[row : row + len(taps)] = taps
    n_columns = max(16, _MAX_PRODUCT // matrix.size)
    found: NDArray[np.float32] = np.empty_like(image)
    for top in range(0, len(image), STRIP):
        rows = padded[top : top + STRIP + 2 * reach]
        own = matrix[: len(rows) - 2 * reach, : len(rows)]
        for left in range(0, image.shape[1], n_columns):
            columns = slice(left, left + n_columns)
            np.matmul(own, rows[:, columns], out=found[top : top + STRIP, columns])
    return found


def enlargement(grey: NDArray[Any]) -> float:
    """Return by how much a program has enlarged an image (H, W), 1 if it shows no signs of it.

    Interpolation repeats the spectrum of the original, weaker, at each multiple of its sampling
    frequency. So frequencies that are so far apart are coherent over the lines of the image, those
    of other images are not (Gardner 1991, "Exploitation of spectral redundancy in cyclostationary
    signals", IEEE Signal Processing Magazine 8).

    It is 1.15 or more, the same in both directions, and found if there is some noise, of all
    interpolations but the nearest pixel's; after JPEG of low quality, 2 and 4 are not always.
    Periodic pictures without noise are not.

    >>> import numpy as np
    >>> from scipy.ndimage import zoom
    >>> from hypervlad.images.resampling import enlargement
    >>> noise = np.random.default_rng(0).random((128, 160))
    >>> [round(enlargement(zoom(noise, factor)), 1) for factor in (1, 1.3, 3)]
    [1.0, 1.3, 3.0]
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
        if lost.var() < _LOST * detail.var() and not _is_periodic(own):
            return factor * enlargement(own)  # of three times, one and a half may be seen first
    return 1.0


def _is_periodic(image: NDArray[np.float64]) -> bool:
    """Return whether an image is a pattern without noise, which is coherent as well."""
    fine = ndimage.laplace(image)
    power = np.abs(np.fft.rfft2(fine * np.outer(*map(np.hanning, fine.shape)))) ** 2
    return bool(np.median(power) <= _BROAD * power.mean())


def middle(shape: Sequence[int], most: int) -> tuple[slice, ...]:
    """Return the window in the middle of an image, of sides of `most` pixels at most."""
    return tuple(slice(max(0, (side - most) // 2), (side + most) // 2) for side in shape)


def _spacings(detail: NDArray[np.float64]) -> list[float]:
    """Return possible spacings, in pixels, of the original pixels along the rows of an image."""
    n = detail.shape[1]
    lines = detail[:: max(1, len(detail) // _MAX_LINES)] * np.hanning(n + 2)[1:-1]
    spectrum = np.fft.fft(lines, axis=1).T.copy()  # a row for each frequency
    spectrum /= np.sqrt((np.abs(spectrum) ** 2).mean(axis=1, keepdims=True)) + 1e-12
    coherence = np.zeros(n)
    for k in range(int(n / _FACTORS[1]) - 2, int(7 / 8 * n) + 3):
        first, end = (k + 1) // 2, int(min(k / 2 + _REACH * n, n / 2 - 1))
        upper = spectrum[first:end]
        lower = spectrum[n + first - k :][: len(upper)]  # of negative frequencies
        coherence[k] = np.abs(np.vdot(lower, upper)) / max(upper.size, 1)
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


def _enlarged(facts: Mapping[str, float]) -> str:
    each = [f"{name} ({factor:.3g} times)" for name, factor in facts.items()]
    return f"enlarged by a program, but measured at its own sampling: {name_some(each)}"
