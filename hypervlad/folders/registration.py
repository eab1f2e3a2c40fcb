"""Registration of two thumbnails, and whether they show the same thing at the same place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import affine_transform

from hypervlad.images.resampling import halved

FloatMap = NDArray[np.float32]
BoolMap = NDArray[np.bool_]
_Scalar = TypeVar("_Scalar", bound=np.generic)

_N_TILES = 4
_MIN_TILE_SIDE = 4
_MIN_TILES = 6
_MIN_COVERED = 0.6  # of a tile
_EDGE = 2  # pixels at the edges of a frame, which filters have changed
# Pixels of the halved thumbnails that the start may be wrong by, then pixels of a tile.
_COARSE_REACH, _TILE_REACH = 12, 6
# Below these correlations of the halved thumbnails, no copy was ever confirmed.
_MIN_PEAK, _MIN_COARSE, _MIN_MEDIAN = 0.25, 0.3, 0.5
# Largest change of a start's matrix; tiles of different images would be bent onto each other.
_MAX_BEND = 0.12
_MIN_OVERLAP = 0.1
# Of copies. Images of one lattice reach a distinctness of 0.1, copies 0.65.
_MIN_SIMILARITY, _MIN_DISTINCTNESS = 0.8, 0.6
# Where less than this share of an image overlaps, as a few round particles do by chance. Their
# agreement is 0.82 at most, rarely 0.87, that of real copies 0.86 at least; in series less.
_LARGE_OVERLAP, _MIN_AGREEMENT = 0.6, 0.85
_N_STARTS = 3
_CLEARLY_DISTINCT = 0.5
_MAX_FREQUENCY = 0.3  # cycles per pixel; beyond it, thumbnails contain little but rounding errors
# Shifts that are another place, in pixels; the detail of a thumbnail correlates as far.
_RIVAL_DISTANCE = 12


@dataclass(frozen=True)
class Transformation:
    """An affine transformation of points p (row, column) to ``matrix @ p + offset``."""

    matrix: NDArray[np.floating]
    offset: NDArray[np.floating]

    def inverse(self) -> Transformation:
        matrix = np.linalg.inv(self.matrix)
        return Transformation(matrix, -matrix @ self.offset)

    def after_shift(self, shift: NDArray[np.floating]) -> Transformation:
        """Return the transformation that takes p to where this one takes p - shift."""
        return Transformation(self.matrix, self.offset - self.matrix @ shift)

    def halved(self) -> Transformation:
        """Return the same transformation between thumbnails of half the size."""
        half = np.full(2, 0.5)  # the centre of a pixel of the small thumbnail lies between four
        return Transformation(self.matrix, (self.matrix @ half + self.offset - half) / 2)

    def doubled(self) -> Transformation:
        half = np.full(2, 0.5)
        return Transformation(self.matrix, 2 * self.offset + half - self.matrix @ half)


@dataclass(frozen=True)
class Registration:
    """How well two thumbnails agree where they overlap best, after a transformation of the first.

    The similarity is the median correlation of 4 x 4 tiles of the overlap, or that of the whole
    overlap if higher. The distinctness is ``(c - r) / (1 - r)`` for the correlation c of the
    overlap and the best one r at any other shift: about 0 for images of one lattice, 1 for copies.
    The agreement is the mean correlation of the tiles, by their contrast: low if some objects, but
    not all, are at the same places.
    """

    similarity: float
    distinctness: float
    agreement: float
    overlap: float  # part of the first thumbnail
    transformation: Transformation

    @property
    def is_copy(self) -> bool:
        if self.overlap < _LARGE_OVERLAP and self.agreement < _MIN_AGREEMENT:
            return False
        return self.similarity >= _MIN_SIMILARITY and self.distinctness >= _MIN_DISTINCTNESS


def register(first: FloatMap, second: FloatMap, start: Transformation) -> Registration | None:
    """Register two thumbnails, starting from an estimate; None if they do not agree near it.

    Cross-correlation at half size corrects the estimate by up to 24 pixels. Then an affine
    transformation is fitted to the shifts of 4 x 4 tiles. If another shift is nearly as good, as in
    a lattice, the fit starts again from there; the most distinct result is returned.
    """
    halves = halved(first), halved(second)
    if (found := _aligned(*halves, start.halved())) is None:
        return None
    found = _fitted(*halves, found, _TILE_REACH // 2)
    if _correlation_of_tiles(*_overlaid(*halves, found))[0] < _MIN_COARSE:
        return None
    current = found.doubled()
    best: Registration | None = None
    for _ in range(_N_STARTS):
        for _ in range(2):
            current = _fitted(first, second, current, _TILE_REACH)
        overlay = _overlaid(first, second, current)
        of_tiles, agreement = _correlation_of_tiles(*overlay)
        overlap = float(overlay[2].mean())
        if of_tiles < _MIN_MEDIAN or overlap < _MIN_OVERLAP:
            break
        here, rival, shift = best_other_shift(*overlay)
        distinctness = (here - rival) / (1 - rival)
        if best is None or distinctness > best.distinctness:
            best = Registration(max(of_tiles, here), distinctness, agreement, overlap, current)
        if distinctness > _CLEARLY_DISTINCT:
            break
        by_phase = phase_shift(first, overlay[1])
        if np.hypot(*by_phase) > _TILE_REACH:
            shift = by_phase
        elif rival <= here:
            break
        current = current.after_shift(shift)
    return best


def _correlation_of_tiles(first: FloatMap, moved: FloatMap, inside: BoolMap) -> tuple[float, float]:
    """Return median and mean of those of 4 x 4 tiles that overlap enough; 0 if they are too few.

    In the mean, a tile counts by its contrast in the image where it has more.
    """
    if (tiles := _tiles(first, moved, inside)) is None:
        return 0.0, 0.0
    a, b, known, _ = tiles
    enough = known.mean(axis=(1, 2)) >= _MIN_COVERED
    if np.count_nonzero(enough) < _MIN_TILES:
        return 0.0, 0.0
    known = known[enough]
    a, b = (_centred(values[enough], known) for values in (a, b))
    own, other = (a * a).sum(axis=(1, 2)), (b * b).sum(axis=(1, 2))
    # One unit of quantisation noise per pixel: an empty tile resembles no other.
    found = (a * b).sum(axis=(1, 2)) / (np.sqrt(own * other) + known.sum(axis=(1, 2)))
    contrast = np.sqrt(np.maximum(own, other)) + 1e-6
    return float(np.median(found)), float(np.average(found, weights=contrast))


def _overlaid(
    first: FloatMap, second: FloatMap, transformation: Transformation
) -> tuple[FloatMap, FloatMap, BoolMap]:
    """Return the first thumbnail, the second one moved onto it, and where both are known."""
    matrix, offset = transformation.matrix, transformation.offset
    moved = affine_transform(
        second, matrix, offset, output_shape=first.shape, order=1, mode="nearest"
    )
    rows, columns = np.arange(first.shape[0])[:, None], np.arange(first.shape[1])[None, :]
    inside: BoolMap = np.zeros(first.shape, dtype=bool)
    core = (slice(_EDGE, -_EDGE), slice(_EDGE, -_EDGE))
    inside[core] = True
    for (down, right), begin, extent in zip(matrix, offset, second.shape, strict=True):
        place = down * rows + right * columns + begin
        inside &= (place >= _EDGE) & (place <= extent - 1 - _EDGE)
    return first, moved, inside


def _aligned(first: FloatMap, second: FloatMap, start: Transformation) -> Transformation | None:
    _, moved, inside = _overlaid(first, second, start)
    moved = np.where(inside, moved, 0)
    energy = float(np.sqrt((first * first).sum() * (moved * moved).sum()))
    lags = _correlations_by_lag(first[None], moved[None], _COARSE_REACH)[0]
    row, column = np.unravel_index(lags.argmax(), lags.shape)
    if lags[row, column] < _MIN_PEAK * max(energy, 1e-6):
        return None
    return start.after_shift(np.array([row, column]) - _COARSE_REACH)


def _correlations_by_lag(first: FloatMap, second: FloatMap, reach: int) -> FloatMap:
    """Return sums of products at lags, shape (n, 2 reach + 1, 2 reach + 1)."""
    size = [fft.next_fast_len(max(e, reach + 1) + reach, real=True) for e in first.shape[1:]]
    product = fft.rfft2(first, s=size) * np.conj(fft.rfft2(second, s=size))
    lags = np.roll(fft.irfft2(product, s=size), (reach, reach), axis=(1, 2))
    return np.asarray(lags[:, : 2 * reach + 1, : 2 * reach + 1])


def _tiles(
    first: FloatMap, moved: FloatMap, inside: BoolMap
) -> tuple[FloatMap, FloatMap, BoolMap, NDArray[np.float64]] | None:
    """Cut the overlap into 4 x 4 tiles: both images, where they are known, and the centres."""
    rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
    if min(len(rows), len(columns)) < _N_TILES * _MIN_TILE_SIDE:
        return None
    corner = np.array([rows[0], columns[0]])
    side = (np.array([rows[-1], columns[-1]]) + 1 - corner) // _N_TILES
    end = corner + _N_TILES * side

    def cut(values: NDArray[_Scalar]) -> NDArray[_Scalar]:
        box = values[corner[0] : end[0], corner[1] : end[1]]
        grid = box.reshape(_N_TILES, side[0], _N_TILES, side[1]).swapaxes(1, 2)
        return grid.reshape(_N_TILES**2, side[0], side[1])

    index = np.stack(np.divmod(np.arange(_N_TILES**2), _N_TILES), axis=1)
    return cut(first), cut(moved), cut(inside), corner + side * index + (side - 1) / 2


def _fitted(first: FloatMap, second: FloatMap, start: Transformation, reach: int) -> Transformation:
    if (tiles := _tiles(*_overlaid(first, second, start))) is None:
        return start
    a, b, known, centres = tiles
    a, b = (_centred(values, known) for values in (a, b))
    energy = np.sqrt((a * a).sum(axis=(1, 2)) * (b * b).sum(axis=(1, 2))) + known.sum(axis=(1, 2))
    lags = _correlations_by_lag(a, b, reach) / energy[:, None, None]
    row, column = np.unravel_index(lags.reshape(len(lags), -1).argmax(axis=1), lags.shape[1:])
    each = np.arange(len(lags))
    peak = lags[each, row, column]
    inner = (row > 0) & (row < 2 * reach) & (column > 0) & (column < 2 * reach)
    use = np.flatnonzero(inner & (known.mean(axis=(1, 2)) >= _MIN_COVERED) & (peak > 0))
    down = row[use] - reach + _vertex(lags[use, :, column[use]], row[use])
    right = column[use] - reach + _vertex(lags[use, row[use], :], column[use])
    shifts = np.stack([down, right], axis=1)
    points, weights = centres[use], peak[use]
    goals = (points - shifts) @ start.matrix.T + start.offset
    if (fitted := _affine_fit(points, goals, weights)) is None:
        return start
    bend = np.linalg.solve(start.matrix, fitted.matrix) - np.eye(2)
    return fitted if np.abs(bend).max() < _MAX_BEND else start


def _affine_fit(
    points: NDArray[np.float64], goals: NDArray[np.float64], weights: FloatMap
) -> Transformation | None:
    """Return the weighted least-squares fit, made again without points far from it."""
    for _ in range(3):
        if len(points) < _MIN_TILES:
            return None
        design = np.column_stack([points, np.ones(len(points))])
        scale = weights[:, None]
        solution = np.linalg.lstsq(design * scale, goals * scale, rcond=None)[0]
        error = np.linalg.norm(design @ solution - goals, axis=1)
        good = error <= max(2 * float(np.median(error)), 0.75)
        if good.all():
            break
        points, goals, weights = points[good], goals[good], weights[good]
    return Transformation(solution[:2].T, solution[2])


def _vertex(lines: FloatMap, at: NDArray[np.intp]) -> FloatMap:
    """Return the offset of the top of a parabola through three points around ``at``."""
    each = np.arange(len(lines))
    before, top, after = (lines[each, at + step] for step in (-1, 0, 1))
    curvature = before - 2 * top + after
    offset = 0.5 * (before - after) / np.where(curvature < 0, curvature, 1)
    return np.where(curvature < 0, np.clip(offset, -0.5, 0.5), 0)


def _centred(tiles: FloatMap, known: BoolMap) -> FloatMap:
    count = np.maximum(known.sum(axis=(1, 2), keepdims=True), 1)
    mean = np.where(known, tiles, 0).sum(axis=(1, 2), keepdims=True) / count
    return np.where(known, tiles - mean, 0).astype(np.float32)


def phase_shift(first: FloatMap, moved: FloatMap) -> NDArray[np.float64]:
    """Return the further shift of the second image; all frequencies count alike."""
    size = [fft.next_fast_len(2 * extent, real=True) for extent in first.shape]
    taper = np.sqrt(np.outer(*(np.hanning(extent + 2)[1:-1] for extent in first.shape)))
    spectra = fft.rfft2(np.stack([first, moved]) * taper.astype(np.float32), s=size)
    product = spectra[0] * np.conj(spectra[1])
    frequency = np.hypot(fft.fftfreq(size[0])[:, None], fft.rfftfreq(size[1])[None, :])
    product *= (frequency < _MAX_FREQUENCY) / (np.abs(product) + 1e-6)
    surface = fft.irfft2(product, s=size)
    row, column = np.unravel_index(surface.argmax(), surface.shape)
    rows, columns = (np.round(fft.fftfreq(extent) * extent) for extent in size)
    return np.array([rows[row], columns[column]])


def best_other_shift(
    first: FloatMap, moved: FloatMap, inside: BoolMap
) -> tuple[float, float, NDArray[np.float64]]:
    """Return the correlation of the overlap, the best one at any other shift, and that shift.

    Other shifts are over 12 pixels away, with at least half the overlap (Padfield 2012, "Masked
    object registration in the Fourier domain", IEEE Transactions on Image Processing 21, 2706).
    """
    size = [fft.next_fast_len(2 * extent, real=True) for extent in first.shape]
    known = np.zeros(first.shape, np.float32)
    known[_EDGE:-_EDGE, _EDGE:-_EDGE] = 1
    a, b = first * known, np.where(inside, moved, np.float32(0))
    stack = np.stack([known, a, a * a, inside.astype(np.float32), b, b * b])
    f_known, f_a, f_aa, *others = fft.rfft2(stack, s=size)
    f_inside, f_b, f_bb = np.conj(others)
    products = [f_known * f_inside, f_a * f_inside, f_known * f_b, f_a * f_b]
    products += [f_aa * f_inside, f_known * f_bb]
    count, sum_a, sum_b, sum_ab, sum_aa, sum_bb = fft.irfft2(np.stack(products), s=size)
    count = np.maximum(count, 1)
    variance_a = np.maximum(sum_aa - sum_a**2 / count, 0)
    variance_b = np.maximum(sum_bb - sum_b**2 / count, 0)
    surface = (sum_ab - sum_a * sum_b / count) / (np.sqrt(variance_a * variance_b) + count)
    rows, columns = (np.round(fft.fftfreq(extent) * extent) for extent in size)
    elsewhere = np.hypot(rows[:, None], columns[None, :]) > _RIVAL_DISTANCE
    elsewhere &= count >= 0.5 * count[0, 0]
    here = float(surface[0, 0])
    if not elsewhere.any():
        return here, 0.0, np.zeros(2)
    surface = np.where(elsewhere, surface, -2)
    row, column = np.unravel_index(surface.argmax(), surface.shape)
    return here, max(float(surface[row, column]), 0.0), np.array([rows[row], columns[column]])
