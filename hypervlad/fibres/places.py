"""Places on fibres where profiles are fitted, and how they follow each other along fibres."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates, spline_filter
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from hypervlad.fibres.blur import spectral_blur
from hypervlad.fibres.gradients import FloatMap, gaussian_smooth, noise_deviation, subsample
from hypervlad.fibres.profiles import N_SAMPLES, Shape, Values, bank, match, sampled_diameter
from hypervlad.fibres.ridges import Ridges

REFUSALS: tuple[str, ...] = (
    "outside the mask",
    "no two edges",
    "rim of the image",
    "not resolved",
    "hidden side",
    "neighbour",
    "crossing",
    "uncertain",
    "within another",
    "not followed",
)
SMALLEST = 3.0  # diameter in pixels
RESOLVED = 2.355  # diameter over the blur's standard deviation: its full width at half maximum
_LARGEST_SCALE = 1 / 12  # over the shorter side of the image
_LEVEL, _LEVEL_SIGMA = 0.02, 2.0  # quantile of the smoothed image, sigma in pixels
N_ROWS = 6  # along, averaged
_ALONG_NOISE = 60.0  # least half length in pixels, over the noise of an image that spans 0 to 1
_ALONG = (0.7, 5.0, 16.0)  # half the length along: over the diameter, least and most in pixels
_SIDE = 0.25  # contrast of the weaker side over that of the stronger
_MAX_RESIDUAL = 0.25  # of a profile, over the contrast
_MAX_RESIDUAL_ALONG = 0.4  # of single rows
_UNLIKE = 0.25  # log diameter of the two halves of a place
_MAX_ERROR = 0.5  # standard error over the diameter
_NEAR = 2.0  # diameters along a fibre within which a rim belongs to it
_GAP = (4.0, 15.0)  # between places that follow each other: in diameters, and in pixels more
_STEP = (1.0, 5.0, 30.0)  # to a place that is tried next: in diameters, least and most in pixels
_FOLLOWED = 3.0  # diameters that a fibre is followed, at least
MIN_PLACES = 4  # along it


@dataclass(frozen=True, eq=False)
class Field:
    """An image that can be sampled between its pixels."""

    splines: FloatMap
    noise: float
    blur: float  # from the spectrum
    levels: tuple[float, float]  # of the darkest and the brightest areas
    mask: NDArray[np.bool_]

    @classmethod
    def of(cls, contrast: FloatMap, mask: NDArray[np.bool_]) -> Field:
        smooth = subsample(gaussian_smooth(contrast, _LEVEL_SIGMA))
        levels = float(np.quantile(smooth, _LEVEL)), float(np.quantile(smooth, 1 - _LEVEL))
        splines = spline_filter(contrast, order=3, output=np.float32, mode="mirror")
        blur = max(0.5, spectral_blur(contrast))
        return cls(splines, noise_deviation(contrast), blur, levels, mask)

    @property
    def shape(self) -> tuple[int, int]:
        return self.splines.shape[0], self.splines.shape[1]

    @property
    def largest(self) -> float:
        """Largest scale of ridges."""
        return max(4.0, min(self.shape) * _LARGEST_SCALE)

    def reach(self, diameter: Values) -> Values:
        """Return half the length along fibres that profiles are averaged over."""
        share, least, most = _ALONG
        return np.clip(share * diameter, np.clip(_ALONG_NOISE * self.noise, 0.7, least), most)

    def sample(self, positions: Values) -> Values:
        """Return brightnesses at positions (2, ...)."""
        taken = map_coordinates(self.splines, positions, order=3, mode="mirror", prefilter=False)
        return np.asarray(taken, dtype=np.float64)

    def allows(self, positions: Values) -> NDArray[np.bool_]:
        index = np.clip(np.rint(positions).astype(np.intp), 0, np.asarray(self.shape) - 1)
        return np.asarray(self.mask[tuple(index.T)])


@dataclass(frozen=True, eq=False)
class Places:
    """Places with the fibre's direction and diameter there, as guessed or as fitted."""

    positions: Values  # (n, 2)
    normals: Values  # (n, 2)
    diameter: Values

    @classmethod
    def on_ridges(cls, ridges: Ridges, n: int) -> Places:
        """Choose points, evenly along all centre lines, whatever their order."""
        ends = np.cumsum(ridges.lengths)
        n = min(n, len(ends))
        index = np.unique(np.searchsorted(ends, (np.arange(n) + 0.5) * ends[-1] / max(n, 1)))
        return cls(ridges.positions[index], ridges.normals[index], 2 * ridges.scales[index])

    def __len__(self) -> int:
        return len(self.diameter)

    @property
    def tangents(self) -> Values:
        return np.stack([-self.normals[:, 1], self.normals[:, 0]], axis=1)

    def margin(self, field: Field) -> Values:
        """Return how far places must be from the rim of the image, (n, 2)."""
        across = (self.diameter / 2 + 3)[:, None] * np.abs(self.normals)
        return np.asarray(across + field.reach(self.diameter)[:, None] * np.abs(self.tangents))

    def within(self, field: Field) -> NDArray[np.bool_]:
        margin, size = self.margin(field), np.asarray(field.shape) - 1
        inside = (self.positions >= margin) & (self.positions + margin <= size)
        return np.asarray(inside.all(axis=1))

    def chosen(self, index: NDArray[np.intp] | NDArray[np.bool_]) -> Self:
        return replace(
            self, **{each.name: getattr(self, each.name)[index] for each in fields(self)}
        )

    def joined(self, other: Self) -> Self:
        parts = {
            each.name: np.concatenate([getattr(self, each.name), getattr(other, each.name)])
            for each in fields(self)
        }
        return replace(self, **parts)


@dataclass(frozen=True, eq=False)
class FittedPlaces(Places):
    """Places on fitted centre lines."""

    error: Values  # standard error of the diameter for noise of the size of the residuals
    contrast: Values  # mean of the body less the background, (n, 2), left and right
    residual: Values  # root mean square
    explained: Values  # of the squared brightness across
    refused: NDArray[np.int64]  # index of the reason, -1 if accepted

    @property
    def accepted(self) -> NDArray[np.bool_]:
        return np.asarray(self.refused < 0)


def profiles(field: Field, sign: float, places: Places, half: Values) -> Values:
    """Return brightness around places, (n, n_rows, n_samples), `half` the extent across."""
    across = half[:, None] * np.linspace(-1, 1, N_SAMPLES)
    along = field.reach(places.diameter)[:, None] * np.linspace(-1, 1, N_ROWS)
    start, normal, tangent = (
        each.T[:, :, None, None] for each in (places.positions, places.normals, places.tangents)
    )
    positions = start + across[:, None] * normal + along[:, :, None] * tangent
    # No fibre is as dark as the darkest areas: the brightness of shapes starts there.
    level = field.levels[0] if sign > 0 else field.levels[1]
    return sign * (field.sample(positions) - level)


def by_bank(
    places: Places, blur: float, coarse: int = 1
) -> Iterator[tuple[int, NDArray[np.intp], Places]]:
    """Give places whose profiles share a bank: its number, their index, and they themselves."""
    sampled, number = sampled_diameter(places.diameter, blur, coarse)
    for one in np.unique(number):
        index = np.flatnonzero(number == one)
        yield int(one), index, replace(places.chosen(index), diameter=sampled[index])


def fit_places(
    field: Field, sign: float, places: Places, shape: Shape, blur: float, *, resolved: bool = True
) -> FittedPlaces:
    """Fit all places twice, the second time on the centre lines of the first, and test them."""
    places = Places(places.positions, places.normals, places.diameter)
    for _ in range(2):
        fitted = _fitted(field, sign, places, shape, blur)
        last, places = places, fitted
    tests = {
        "outside the mask": field.allows(fitted.positions),
        "rim of the image": last.within(field),
        "not resolved": ~np.asarray(resolved) | (fitted.diameter >= max(SMALLEST, RESOLVED * blur)),
    }
    return replace(fitted, refused=_first_failed(tests, fitted.refused))


def _fitted(field: Field, sign: float, places: Places, shape: Shape, blur: float) -> FittedPlaces:
    n = len(places)
    centre, turn, diameter, error = np.zeros(n), np.zeros(n), np.ones(n), np.zeros(n)
    residual, explained, contrast = np.zeros(n), np.zeros(n), np.zeros((n, 2))
    refused = np.full(n, -1)
    for number, index, some in by_bank(places, blur):
        templates = bank(shape, number)
        width = some.diameter
        rows = profiles(field, sign, some, templates.across[-1] * width)
        mean, half = rows.mean(axis=1), N_ROWS // 2
        seen = [mean, rows[:, :half].mean(axis=1), rows[:, half:].mean(axis=1)]
        found = match(templates, np.concatenate(seen))
        centres, logs = found.centre.reshape(3, -1), found.log.reshape(3, -1)
        energy, template = found.energy[: len(some), 0], found.template[: len(some), 0]
        factors, model = templates.fitted(template, mean)
        sides = factors[:, :2]
        behind = sides.mean(axis=1, keepdims=True) if shape.clear else 0
        contrast[index] = shape.mean * factors[:, 3:] + behind - sides
        centre[index] = centres[0] * width
        diameter[index] = np.clip(np.exp(logs[0]) * width, 1, 6 * field.largest)
        spacing = np.diff(templates.across[:2]) * width
        # Samples less than a pixel apart are not independent.
        variance = energy / (N_SAMPLES - 6) * np.maximum(1 / spacing, 1)
        error[index] = diameter[index] * np.sqrt(variance * found.variance[: len(some), 0])
        residual[index] = np.sqrt(energy / N_SAMPLES)
        signal = ((mean - sides.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)
        explained[index] = (signal - energy) * spacing
        length = field.reach(width) * N_ROWS / (N_ROWS - 1)
        turn[index] = (centres[2] - centres[1]) * width / length
        refused[index] = _tested(
            field,
            contrast[index],
            residual[index],
            np.sqrt(((rows - model[:, None]) ** 2).mean(axis=(1, 2))),
            np.abs(logs[2] - logs[1]),
            error[index] / diameter[index],
            found.inside[: len(some), 0],
        )
    normals = places.normals - np.clip(turn, -0.2, 0.2)[:, None] * places.tangents
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return FittedPlaces(
        positions=places.positions + centre[:, None] * normals,
        normals=normals,
        diameter=diameter,
        error=error,
        contrast=contrast,
        residual=residual,
        explained=explained,
        refused=refused,
    )


def _tested(
    field: Field,
    contrast: Values,
    residual: Values,
    along: Values,
    unlike: Values,
    error: Values,
    inside: NDArray[np.bool_],
) -> NDArray[np.int64]:
    """Return which reason refuses each place, given its residuals and how unlike its halves are."""
    low = np.maximum(contrast.min(axis=1), 1e-9)
    across = np.sqrt(np.maximum(residual**2 - field.noise**2 / N_ROWS, 0)) / low
    rows = np.sqrt(np.maximum(along**2 - field.noise**2, 0)) / low
    tests = {
        "no two edges": (contrast.min(axis=1) > 0) & inside,
        "hidden side": low > _SIDE * contrast.max(axis=1),
        "neighbour": across < _MAX_RESIDUAL,
        "crossing": (rows < _MAX_RESIDUAL_ALONG) & (unlike < _UNLIKE + 5 * np.minimum(error, 0.2)),
        "uncertain": error < _MAX_ERROR,
    }
    return _first_failed(tests, np.full(len(low), -1))


def _first_failed(
    tests: dict[str, NDArray[np.bool_]], refused: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return reasons to refuse places: those that were known, else the first failed test."""
    refused = refused.copy()
    for reason, passed in tests.items():
        refused[~passed & (refused < 0)] = REFUSALS.index(reason)
    return refused


@dataclass(frozen=True, eq=False)
class Chains:
    """How accepted places follow each other along fibres."""

    fibre: NDArray[np.int64]  # (n,), number of the fibre, -1 if not accepted
    before: Values  # distance to the next place on the same fibre, infinite if there is none
    after: Values
    followed: NDArray[np.bool_]  # along enough of the fibre to be believed

    @classmethod
    def of(cls, places: FittedPlaces) -> Chains:
        n = len(places)
        index = np.flatnonzero(places.accepted)
        fibre, followed = np.full(n, -1), np.zeros(n, dtype=bool)
        near = np.full((2, n), np.inf)
        if len(index) < MIN_PLACES:
            return cls(fibre, near[0], near[1], followed)
        some = places.chosen(index)
        pairs = _following(some)
        links = coo_array((np.ones(len(pairs)), pairs.T), shape=(len(index), len(index)))
        own = connected_components(links, directed=False)[1]
        for one, other in (pairs.T, pairs[:, ::-1].T):
            apart = some.positions[other] - some.positions[one]
            ahead = (apart * some.tangents[one]).sum(axis=1)
            for side, here in enumerate((ahead < 0, ahead >= 0)):
                np.minimum.at(near[side], index[one[here]], np.abs(ahead[here]))
        fibre[index] = own
        chains = cls(fibre, near[0], near[1], followed)
        long = np.bincount(own, chains.length[index])[own] > _FOLLOWED * some.diameter
        followed = followed.copy()
        followed[index] = long & (np.bincount(own)[own] >= MIN_PLACES)
        return replace(chains, followed=followed)

    @property
    def length(self) -> Values:
        """Length of the fibre that each place stands for: half way to its neighbours."""
        finite = [np.where(np.isfinite(each), each, 0) for each in (self.before, self.after)]
        return np.asarray((finite[0] + finite[1]) / 2)


def _following(places: FittedPlaces) -> NDArray[np.intp]:
    """Return pairs of places, (n, 2), that lie on one fibre by place, direction and diameter."""
    diameters, gap = _GAP
    farthest = float(min(diameters * np.quantile(places.diameter, 0.9) + gap, 150))
    pairs = cKDTree(places.positions).query_pairs(farthest, output_type="ndarray")
    one, other = pairs.T
    apart = places.positions[other] - places.positions[one]
    distance = np.linalg.norm(apart, axis=1)
    thin = np.minimum(places.diameter[one], places.diameter[other])
    off = np.maximum(
        np.abs((apart * places.normals[one]).sum(axis=1)),
        np.abs((apart * places.normals[other]).sum(axis=1)),
    )
    aligned = np.abs((places.normals[one] * places.normals[other]).sum(axis=1))
    logs, relative = np.log(places.diameter), np.minimum(places.error / places.diameter, 0.2)
    unlike = np.abs(logs[one] - logs[other])
    joined = (
        (distance < diameters * thin + gap)
        & (off < 0.25 * thin + 0.06 * distance)
        & (aligned > np.cos(0.25))
        & (unlike < 0.1 + 2 * np.hypot(relative[one], relative[other]))
    )
    return np.asarray(pairs[joined])


def next_places(places: FittedPlaces, chains: Chains) -> Places:
    """Return places to be tried before and after those that have no neighbour there."""
    share, least, most = _STEP
    step = np.clip(share * places.diameter, least, most)
    found = []
    for near, side in ((chains.before, -1), (chains.after, 1)):
        here = places.accepted & (near > 1.6 * step)
        some = places.chosen(here)
        moved = some.positions + (side * step[here])[:, None] * some.tangents
        found.append(Places(moved, some.normals, some.diameter))
    return found[0].joined(found[1])


def without_rims(places: FittedPlaces) -> FittedPlaces:
    """Refuse places at the side of a wide fibre of the same direction: they are its rims."""
    low = np.maximum(places.contrast.min(axis=1), 1e-9)
    wide = (places.residual < _MAX_RESIDUAL * low) & (
        places.refused != REFUSALS.index("no two edges")
    )
    inner, outer = np.flatnonzero(places.accepted), np.flatnonzero(wide)
    if not len(inner) or not len(outer):
        return places
    reach = _NEAR * places.diameter[outer]
    near = cKDTree(places.positions[inner]).query_ball_point(places.positions[outer], reach)
    counts = np.array([len(each) for each in near])
    i = inner[np.concatenate([np.asarray(each, dtype=np.intp) for each in near])]
    o = np.repeat(outer, counts)
    width = places.diameter[o]
    smaller = places.diameter[i] < 0.7 * width
    i, o, width = i[smaller], o[smaller], width[smaller]
    normal = places.normals[o]
    off = np.abs(((places.positions[i] - places.positions[o]) * normal).sum(axis=1))
    parallel = np.abs((places.normals[i] * normal).sum(axis=1)) > 0.85
    # Rims, not the fibre itself with another width.
    side = (off > 0.2 * width) & (off + places.diameter[i] / 2 < 0.6 * width)
    refused = places.refused.copy()
    refused[i[parallel & side]] = REFUSALS.index("within another")
    return replace(places, refused=refused)
