"""Near copies among many images: candidates by nearest neighbours, then registration."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from hypervlad.datasets._thumbnails import (
    SIDE,
    position_descriptor,
    spectrum_descriptor,
    unit_rows,
)
from hypervlad.splits import linked_groups

# Largest shift that is tried, of the frame's side.
_LARGEST_SHIFT = SIDE // 5
_N_TILES = 4
_N_NEIGHBOURS = 10
_BLOCK = 1024
# Below this height of the correlation peak, no pair of copies was ever confirmed.
_LOWEST_PEAK = 0.3
# The worst third of the tiles need not agree: a banner, a scale bar or an arrow may cover them.
_WORST_THIRD = 30
_LOWEST_TILE = 0.5

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
    a scale bar on one of the two does not hide a copy, nor the same banner on two pictures make
    one.

    Parameters
    ----------
    thumbnails : array of shape (n, 64, 64), int8
        From `make_thumbnail`.
    min_similarity : float, default=0.8
        Lowest similarity, 0 to 1. Most real copies lie above 0.9, pictures of like things
        (parallel scratches) below 0.75.
    progress : callable, optional
        Called with the number of images dealt with since the last call.

    Returns
    -------
    pairs : array of shape (n_pairs, 2), int
        Indices ``i < j``, sorted.
    similarity : array of shape (n_pairs,), float32

    Notes
    -----
    Time grows with n squared in the matrix products only, memory with n: 20,000 images took three
    minutes and 0.7 GB on two processors. Found: shifts up to a tenth of the frame, changes of
    brightness, contrast and gamma, recompression, any change of size of the whole picture,
    magnification by up to about 3 %. Not found: rotated or mirrored copies, small crops.
    """
    n_images = len(thumbnails)
    if n_images < 2:
        return np.empty((0, 2), np.intp), np.empty(0, np.float32)
    seen = np.empty(0, np.intp)
    kept = [(np.empty((0, 2), np.intp), np.empty(0, np.float32))]
    for n_done, candidates in _candidate_pairs(thumbnails):
        # Most pairs are neighbours both ways, and come up in two blocks.
        codes = np.setdiff1d(candidates[:, 0] * n_images + candidates[:, 1], seen)
        seen = np.union1d(seen, codes)
        kept += _confirm(thumbnails, np.stack(np.divmod(codes, n_images), axis=1), min_similarity)
        if progress is not None:
            progress(n_done)
    pairs = np.concatenate([block[0] for block in kept])
    similarity = np.concatenate([block[1] for block in kept])
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    return pairs[order], similarity[order]


def group_copies(pairs: NDArray[np.intp], n_images: int) -> list[list[int]]:
    """Sets of images that chains of pairs connect, each sorted, in order of their first image."""
    if len(pairs) == 0:
        return []
    member_of = linked_groups(pairs, n_images)
    sets: dict[int, list[int]] = {}
    for i in np.unique(pairs):
        sets.setdefault(int(member_of[i]), []).append(int(i))
    return sorted(sets.values())


def _candidate_pairs(thumbnails: NDArray[np.int8]) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """For each block of images: how many they are, and their pairs (i < j) with neighbours."""
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
    """Those candidates that are near copies, with their similarity, block by block."""
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
    """Indices of the most similar other images, shape (n_rows, at most 10)."""
    closeness = descriptor[rows] @ descriptor.T
    closeness[:, blank] = -2
    closeness[np.arange(len(rows)), rows] = -3
    n_neighbours = min(_N_NEIGHBOURS, len(descriptor) - 1)
    return np.argpartition(-closeness, n_neighbours - 1, axis=1)[:, :n_neighbours]


def _similarity(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    """Similarity of each pair after registration, shape (n_pairs,); 0 where there is none."""
    shifts, peaks = _register(first, second)
    out = np.zeros(len(first), np.float32)
    likely = peaks > _LOWEST_PEAK
    if likely.any():
        moved = _move(second[likely], shifts[likely])
        tiles = _tile_correlations(first[likely], moved, shifts[likely])
        agree = np.nanpercentile(tiles, _WORST_THIRD, axis=1) > _LOWEST_TILE
        out[likely] = np.where(agree, np.nanmedian(tiles, axis=1), 0)
    return out


def _register(
    first: NDArray[np.float32], second: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """How far ``second`` must move onto ``first`` (rows, columns), and the correlation there."""
    # A taper: the transform sees opposite edges as neighbours.
    taper = np.sqrt(np.hanning(SIDE + 2)[1:-1]).astype(np.float32)
    window = taper[:, None] * taper[None, :]
    a, b = first * window, second * window
    energy = np.sqrt((a * a).sum(axis=(1, 2)) * (b * b).sum(axis=(1, 2)))
    correlation = fft.irfft2(fft.rfft2(a) * np.conj(fft.rfft2(b)), s=(SIDE, SIDE))
    reach = _LARGEST_SHIFT
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
    """Offset of the parabola's top through three points around ``at`` on each line."""
    each, last = np.arange(len(lines)), lines.shape[1] - 1
    before, after = lines[each, np.maximum(at - 1, 0)], lines[each, np.minimum(at + 1, last)]
    curvature = before - 2 * lines[each, at] + after
    inside = (at > 0) & (at < last) & (curvature < 0)
    offset = 0.5 * (before - after) / np.where(inside, curvature, 1)
    return np.where(inside, np.clip(offset, -0.5, 0.5), 0)


def _move(images: NDArray[np.float32], shifts: NDArray[np.float32]) -> NDArray[np.float32]:
    """Shift each image by a fraction of pixels, with a phase ramp (what leaves comes in again)."""
    rows = fft.fftfreq(SIDE).astype(np.float32)[None, :, None] * shifts[:, 0, None, None]
    cols = fft.rfftfreq(SIDE).astype(np.float32)[None, None, :] * shifts[:, 1, None, None]
    ramp = np.exp(np.complex64(-2j * np.pi) * (rows + cols))
    return np.asarray(fft.irfft2(fft.rfft2(images) * ramp, s=(SIDE, SIDE)), dtype=np.float32)


def _tile_correlations(
    first: NDArray[np.float32], moved: NDArray[np.float32], shifts: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Correlation coefficient of each of 4 x 4 tiles, NaN where the frames overlap too little."""
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
    # One unit of quantisation noise a pixel: an empty tile says nothing, and is like no other.
    correlation = covariance / (np.sqrt(variance_a * variance_b) + known)
    return np.where(count >= 0.4 * (SIDE // _N_TILES) ** 2, correlation, np.nan)


def _overlap(shift: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which rows (or columns) of the moved image came from inside its frame, edges left out."""
    position = np.arange(SIDE)[None, :]
    low = np.ceil(np.maximum(shift, 0))[:, None] + 2
    high = SIDE - 2 - np.ceil(np.maximum(-shift, 0))[:, None]
    return (position >= low) & (position < high)
