"""Near copies among many images: thumbnails, candidates by nearest neighbours, registration."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import fft
from scipy.ndimage import gaussian_filter

from hypervlad.splits import linked_groups

SIDE = 64
# Half band of the Fourier magnitudes: periods of 64 down to 3.2 thumbnail pixels.
_BAND = 20
_QUANTUM = 24.0
_SMOOTH, _LOCAL = 0.7, 6.4

Thumbnail = NDArray[np.int8]
# Largest shift that is tried: a fifth of the frame.
_MAX_SHIFT = SIDE // 5
_N_TILES = 4
_N_NEIGHBOURS = 10
_BLOCK = 1024
# Below this height of the correlation peak, no pair of copies was ever confirmed.
_MIN_PEAK = 0.3
# The worst 30 % of the tiles need not agree: a banner, a scale bar or an arrow may cover them.
_TILE_PERCENTILE = 30
_MIN_TILE = 0.5

#: Lowest similarity of a pair that counts as near copies.
MIN_SIMILARITY = 0.8

Progress = Callable[[int], object]


def find_near_copies(
    thumbnails: NDArray[np.int8],
    *,
    min_similarity: float = MIN_SIMILARITY,
    progress: Progress | None = None,
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Find pairs of images that show the same thing at the same place.

    Candidates are each image's ten nearest neighbours by two descriptors (a blurred thumbnail and
    the magnitudes of its Fourier transform), from blocked matrix products. A candidate pair is
    registered by phase-true cross-correlation to a fraction of a pixel, and compared in 4 x 4
    tiles. Its similarity is the median of the tiles' correlation coefficients, so that a banner or
    a scale bar on one of the two images does not hide a copy, and the same banner on two images
    does not make them copies.

    Parameters
    ----------
    thumbnails : array of shape (n, 64, 64), int8
        From `make_thumbnail`.
    min_similarity : float, default=0.8
        Lowest similarity, 0 to 1. Most real copies lie above 0.9, images of similar objects
        (parallel scratches) below 0.75.
    progress : callable, optional
        Called with the number of images processed since the last call.

    Returns
    -------
    pairs : array of shape (n_pairs, 2), int
        Indices ``i < j``, sorted.
    similarity : array of shape (n_pairs,), float32

    Notes
    -----
    Memory grows with n. Time grows with n squared, but only in the matrix products: 20,000 images
    took three minutes and 0.7 GB on two processors. Found: shifts up to a tenth of the frame,
    changes of brightness, contrast and gamma, recompression, any change of size of the whole image,
    magnification by up to about 3 %. Not found: rotated or mirrored copies, small crops.
    """
    n_images = len(thumbnails)
    if n_images < 2:
        return np.empty((0, 2), np.intp), np.empty(0, np.float32)
    compared = np.empty(0, np.intp)
    kept = [(np.empty((0, 2), np.intp), np.empty(0, np.float32))]
    for n_done, candidates in _candidate_pairs(thumbnails):
        # Most pairs are neighbours both ways, and occur in two blocks.
        codes = np.setdiff1d(candidates[:, 0] * n_images + candidates[:, 1], compared)
        compared = np.union1d(compared, codes)
        kept += _confirm(thumbnails, np.stack(np.divmod(codes, n_images), axis=1), min_similarity)
        if progress is not None:
            progress(n_done)
    pairs = np.concatenate([block[0] for block in kept])
    similarity = np.concatenate([block[1] for block in kept])
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    return pairs[order], similarity[order]


def group_copies(pairs: NDArray[np.intp], n_images: int) -> list[list[int]]:
    """Return the sets of images that chains of pairs connect, sorted by their first image."""
    if len(pairs) == 0:
        return []
    member_of = linked_groups(pairs, n_images)
    sets: dict[int, list[int]] = {}
    for i in np.unique(pairs):
        sets.setdefault(int(member_of[i]), []).append(int(i))
    return sorted(sets.values())


def _candidate_pairs(thumbnails: NDArray[np.int8]) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """Yield the size of each block of images, and its pairs (i < j) with neighbours."""
    blank = np.logical_not(thumbnails.any(axis=(1, 2)))
    spectra = np.concatenate([spectrum_descriptor(block) for block in _blocks(thumbnails)])
    spectra -= spectra.mean(axis=0)
    positions = np.concatenate([position_descriptor(block) for block in _blocks(thumbnails)])
    descriptors = (unit_rows(spectra), positions)
    for start in range(0, len(thumbnails), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(thumbnails)), dtype=np.intp)
        found = []
        for descriptor in descriptors:
            neighbours = _nearest(descriptor, rows, blank)
            found.append(np.stack([np.repeat(rows, neighbours.shape[1]), neighbours.ravel()], 1))
        pairs = np.concatenate(found)
        yield len(rows), np.sort(pairs[~blank[pairs].any(axis=1)], axis=1)


def _confirm(
    thumbnails: NDArray[np.int8], candidates: NDArray[np.intp], min_similarity: float
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float32]]]:
    """Yield the candidates that are near copies, with their similarity, block by block."""
    for start in range(0, len(candidates), _BLOCK):
        pairs = candidates[start : start + _BLOCK]
        first, second = (thumbnails[pairs[:, side]].astype(np.float32) for side in (0, 1))
        similarity = _similarity(first, second)
        good = similarity >= min_similarity
        yield pairs[good], similarity[good]


def _blocks(thumbnails: NDArray[np.int8]) -> Iterator[NDArray[np.int8]]:
    for start in range(0, len(thumbnails), _BLOCK):
        yield thumbnails[start : start + _BLOCK]


def _nearest(
    descriptor: NDArray[np.float32], rows: NDArray[np.intp], blank: NDArray[np.bool_]
) -> NDArray[np.intp]:
    """Return the indices of the most similar other images, shape (n_rows, at most 10)."""
    closeness = descriptor[rows] @ descriptor.T
    closeness[:, blank] = -2
    closeness[np.arange(len(rows)), rows] = -3
    n_neighbours = min(_N_NEIGHBOURS, len(descriptor) - 1)
    return np.argpartition(-closeness, n_neighbours - 1, axis=1)[:, :n_neighbours]


def _similarity(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the similarity of each pair after registration, shape (n_pairs,); 0 for none."""
    shifts, peaks = _register(first, second)
    out = np.zeros(len(first), np.float32)
    likely = peaks > _MIN_PEAK
    if likely.any():
        moved = _move(second[likely], shifts[likely])
        tiles = _tile_correlations(first[likely], moved, shifts[likely])
        agree = np.nanpercentile(tiles, _TILE_PERCENTILE, axis=1) > _MIN_TILE
        out[likely] = np.where(agree, np.nanmedian(tiles, axis=1), 0)
    return out


def _register(
    first: NDArray[np.float32], second: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the shift of ``second`` onto ``first`` (rows, columns), and the correlation there."""
    # Tapered, since the transform is periodic.
    taper = np.sqrt(np.hanning(SIDE + 2)[1:-1]).astype(np.float32)
    window = taper[:, None] * taper[None, :]
    a, b = first * window, second * window
    energy = np.sqrt((a * a).sum(axis=(1, 2)) * (b * b).sum(axis=(1, 2)))
    correlation = fft.irfft2(fft.rfft2(a) * np.conj(fft.rfft2(b)), s=(SIDE, SIDE))
    reach = _MAX_SHIFT
    lags = np.roll(correlation, (reach, reach), axis=(1, 2))[:, : 2 * reach + 1, : 2 * reach + 1]
    best = lags.reshape(len(lags), -1).argmax(axis=1)
    row, col = np.unravel_index(best, lags.shape[1:])
    each = np.arange(len(lags))
    shifts = np.stack(
        [
            row - reach + _vertex(lags[each, :, col], row),
            col - reach + _vertex(lags[each, row, :], col),
        ],
        axis=1,
    )
    return shifts.astype(np.float32), lags[each, row, col] / np.maximum(energy, 1e-6)


def _vertex(lines: NDArray[np.float32], at: NDArray[np.intp]) -> NDArray[np.float32]:
    """Return the offset of the top of a parabola through three points around ``at``."""
    each, last = np.arange(len(lines)), lines.shape[1] - 1
    before, after = lines[each, np.maximum(at - 1, 0)], lines[each, np.minimum(at + 1, last)]
    curvature = before - 2 * lines[each, at] + after
    inside = (at > 0) & (at < last) & (curvature < 0)
    offset = 0.5 * (before - after) / np.where(inside, curvature, 1)
    return np.where(inside, np.clip(offset, -0.5, 0.5), 0)


def _move(images: NDArray[np.float32], shifts: NDArray[np.float32]) -> NDArray[np.float32]:
    """Shift each image by a fraction of a pixel with a phase ramp, periodically."""
    rows = fft.fftfreq(SIDE).astype(np.float32)[None, :, None] * shifts[:, 0, None, None]
    cols = fft.rfftfreq(SIDE).astype(np.float32)[None, None, :] * shifts[:, 1, None, None]
    ramp = np.exp(np.complex64(-2j * np.pi) * (rows + cols))
    return np.asarray(fft.irfft2(fft.rfft2(images) * ramp, s=(SIDE, SIDE)), dtype=np.float32)


def _tile_correlations(
    first: NDArray[np.float32], moved: NDArray[np.float32], shifts: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return the correlation of each of 4 x 4 tiles, NaN where the frames overlap too little."""
    inside = _overlap(shifts[:, 0])[:, :, None] & _overlap(shifts[:, 1])[:, None, :]

    def tile_sum(values: NDArray) -> NDArray[np.float32]:
        size = SIDE // _N_TILES
        tiles = values.reshape(len(values), _N_TILES, size, _N_TILES, size)
        return tiles.sum(axis=(2, 4)).reshape(len(values), -1)

    first, moved = np.where(inside, first, 0), np.where(inside, moved, 0)
    count = tile_sum(inside.astype(np.float32))
    known = np.maximum(count, 1)
    sum_a, sum_b = tile_sum(first), tile_sum(moved)
    covariance = tile_sum(first * moved) - sum_a * sum_b / known
    variance_a = np.maximum(tile_sum(first * first) - sum_a**2 / known, 0)
    variance_b = np.maximum(tile_sum(moved * moved) - sum_b**2 / known, 0)
    # One unit of quantisation noise per pixel: an empty tile resembles no other.
    correlation = covariance / (np.sqrt(variance_a * variance_b) + known)
    return np.where(count >= 0.4 * (SIDE // _N_TILES) ** 2, correlation, np.nan)


def _overlap(shift: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return which rows (or columns) of the moved image lie inside its frame, less its edges."""
    position = np.arange(SIDE)[None, :]
    low = np.ceil(np.maximum(shift, 0))[:, None] + 2
    high = SIDE - 2 - np.ceil(np.maximum(-shift, 0))[:, None]
    return (position >= low) & (position < high)


def make_thumbnail(pixels: NDArray[np.float32]) -> Thumbnail:
    """Shrink an image to 64 x 64 and remove local brightness, contrast and shading.

    The result is the same for two exposures, two file qualities or two sizes of one image. The
    aspect ratio is not kept, so that a rescaled copy has the thumbnail of its original.

    Parameters
    ----------
    pixels : array of shape (H, W) or (H, W, 3)

    Returns
    -------
    array of shape (64, 64), int8
        Local mean 0 and local standard deviation about 24; all 0 for a blank image.
    """
    grey = pixels if pixels.ndim == 2 else pixels.mean(axis=2)
    small = np.asarray(
        Image.fromarray(np.ascontiguousarray(grey, dtype=np.float32)).resize(
            (SIDE, SIDE), Image.Resampling.BILINEAR
        )
    )
    # Detail that half a pixel of shift would change does not help.
    small = gaussian_filter(small, _SMOOTH, mode="nearest")
    detail = small - gaussian_filter(small, _LOCAL, mode="nearest")
    spread = np.sqrt(gaussian_filter(detail * detail, _LOCAL, mode="nearest"))
    # The second term keeps the noise of an empty area from becoming as strong as an object.
    normal = detail / (spread + 0.2 * detail.std() + 1e-5)
    return np.clip(np.round(normal * _QUANTUM), -127, 127).astype(np.int8)


def position_descriptor(thumbnails: NDArray[np.int8]) -> NDArray[np.float32]:
    """Blur thumbnails: similar for copies shifted by up to about 3 % of the frame.

    Parameters
    ----------
    thumbnails : array of shape (n, 64, 64)

    Returns
    -------
    array of shape (n, 256), float32, rows of unit length (or 0)
    """
    blurred = gaussian_filter(thumbnails.astype(np.float32), (0, 2, 2), mode="nearest")
    cells = blurred.reshape(len(blurred), 16, SIDE // 16, 16, SIDE // 16).mean(axis=(2, 4))
    return unit_rows(cells.reshape(len(cells), -1))


def spectrum_descriptor(thumbnails: NDArray[np.int8]) -> NDArray[np.float32]:
    """Return magnitudes of the Fourier transform: similar for copies with any small shift.

    Square roots, so that a few strong components do not dominate. Not centred: subtract the mean
    over all images before comparing, since all spectra fall off in the same way.

    Parameters
    ----------
    thumbnails : array of shape (n, 64, 64)

    Returns
    -------
    array of shape (n, 780), float32
    """
    window = np.hanning(SIDE).astype(np.float32)
    windowed = thumbnails.astype(np.float32)
    windowed -= windowed.mean(axis=(1, 2), keepdims=True)
    windowed *= window[:, None] * window[None, :]
    spectrum = np.abs(fft.rfft2(windowed))
    band = np.concatenate([spectrum[:, :_BAND, :_BAND], spectrum[:, 1 - _BAND :, :_BAND]], axis=1)
    return np.sqrt(band).reshape(len(band), -1).astype(np.float32)


def unit_rows(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Subtract the mean of each row and scale it to unit length; a constant row becomes 0."""
    values = values - values.mean(axis=1, keepdims=True)
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return (values / np.maximum(length, 1e-6)).astype(np.float32)
