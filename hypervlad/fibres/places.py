"""Places on fibres: points of lines, what the network says of them, which follow each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates, spline_filter
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from hypervlad.fibres.contrast import (
    FloatMap,
    Noise,
    Values,
    gaussian_smooth,
    normalised_contrast,
    subsample,
)
from hypervlad.fibres.profile_network import (
    LOOKS,
    N_ROWS,
    N_SAMPLES,
    Judged,
    ProfileNetwork,
    log_spectrum,
)
from hypervlad.images.resampling import correlated, gaussian_taps, halved
from hypervlad.statistics.groups import weighted_quantiles

# Lines. Scales in steps of the square root of 2, after Lindeberg. With a third more or less reach
# of the Gaussian, medians of 12 synthetic mats change by 1 to 2 %.
_SCALES = ((1.0, 1.41, 2.0), (1.41, 2.0))  # at full size, and at each half of the size before
_BAND = 2**20  # pixels that are filtered at a time
_TRUNCATE = 3.5  # of a Gaussian, in units of its standard deviation
_SIGNIFICANT = 4.5  # standard deviations of the response to noise: chance exceeds it nowhere
_MIN_RESPONSE = 0.03  # of an image that spans 0 to 1
# Standard deviation of the response to white noise of variance 1, times the scale.
_NOISE_GAIN = float(np.sqrt(3 / (16 * np.pi)))
_LARGEST_SCALE = 1 / 12  # over the shorter side of the image
_LARGEST = 6.0  # diameter over the largest scale

PROBABILITY = 0.7  # of a place whose diameter counts, at least

# What the network sees. It has learnt with these values (`benchmarks/fibres/train.py`), so others
# need another network. With a third more or less, medians of 12 synthetic mats change by 25 %
# (`_ACROSS`), 2 % (`ALONG`), 1 % (`_FINE`), and by 0.1 % or less (all others).
_LEVELS = (0.0002, 0.02, 0.98, 0.9998)  # quantiles of the smoothed image
_LEVEL_SIGMA = 2.0  # in pixels
_FEW = 0.35  # of the range of the outer two: less between the inner two shows that fibres are few
_FINE = 14.0  # diameter in pixels up to which the image itself is sampled
_MIN_SIDE, _MAX_LEVELS = 24, 5  # of the images of half the size each
_ACROSS = 1.5  # half the extent of profiles, in diameters
ALONG = (0.7, 5.0, 16.0)  # half the length along: over the diameter, least and most in pixels
_ALONG_NOISE = 60.0  # least half length in pixels, over the noise of an image that spans 0 to 1
_N_PASSES = 2  # after the first
_MOVED = 0.3  # probability from which a place is moved to the fibre's middle
_TURN = 0.3  # radians, at most

_USUAL_AREA = 360_000  # pixels, up to which the number of places does not grow
# In pixels, of what the network has learnt: blur, and the tenth of the diameters; least side.
_MAX_BLUR, _MAX_LEAST, _MIN_SHARP = 3.2, 28.0, 64
# Of wide ribbons at a smaller size: their area over that of what looked like fibres, and over that
# of the image, and the ratio of diameters.
_BETTER, _LEAST_WIDE, _WIDER = 1.5, 0.2, 2.0
_PART = 6  # of places: one in so many is looked at for this

# Which places follow each other. With a third more or less, these medians change by less than
# 0.1 %. With gaps twice as wide, as many single fibres of 32 deposits are found, to 1 %.
_NEXT = 2.0  # times as far as places are apart, within which the next one follows
_GAP = (4.0, 15.0)  # between places that follow each other: in diameters, and in pixels more

# Fibres with a mean profile.
_MIN_PLACES, _MAX_FIBRES = 5, 12  # on such a fibre, and the longest of these
_MIN_SHARE = 0.15  # of the visible length, that these must have


@dataclass(frozen=True, eq=False)
class Field:
    """An image that can be sampled between its pixels."""

    contrast: FloatMap
    pyramid: tuple[FloatMap, ...]  # cubic splines of the image, and of images of half the size each
    noise: Noise
    levels: tuple[float, float]  # of the darkest and the brightest areas
    mask: NDArray[np.bool_]

    @classmethod
    def of(cls, contrast: FloatMap, mask: NDArray[np.bool_]) -> Field:
        smooth = subsample(gaussian_smooth(contrast, _LEVEL_SIGMA))[subsample(mask)]
        lowest, low, high, highest = map(float, np.quantile(smooth, _LEVELS))
        are_few = high - low < _FEW * (highest - lowest)
        levels = (lowest, highest) if are_few else (low, high)
        pyramid, image = list[FloatMap](), contrast
        while len(pyramid) < _MAX_LEVELS and (min(image.shape) >= _MIN_SIDE or not pyramid):
            pyramid.append(spline_filter(image, order=3, output=np.float32, mode="mirror"))
            image = halved(image)
        return cls(contrast, tuple(pyramid), Noise.of(contrast, mask), levels, mask)

    @property
    def shape(self) -> tuple[int, int]:
        return self.contrast.shape[0], self.contrast.shape[1]

    @property
    def largest(self) -> float:
        """Largest scale of ridges."""
        return max(4.0, min(self.shape) * _LARGEST_SCALE)

    def sample(self, positions: Values, level: int = 0) -> Values:
        """Return brightnesses at positions (2, ...), from an image of half the size per level."""
        at = (positions + 0.5) / 2**level - 0.5
        taken = map_coordinates(self.pyramid[level], at, order=3, mode="mirror", prefilter=False)
        return np.asarray(taken, dtype=np.float64)

    def allows(self, positions: Values) -> NDArray[np.bool_]:
        """Return whether the pixels nearest to positions (n, 2) may be measured."""
        row, column = np.clip(np.rint(positions), 0, np.asarray(self.shape) - 1).astype(np.intp).T
        return np.asarray(self.mask[row, column])


@dataclass(frozen=True, eq=False)
class Places:
    """Places with the direction and the diameter of the fibre there, as guessed or as judged."""

    positions: Values  # (n, 2)
    normals: Values  # (n, 2)
    diameter: Values
    length: Values  # between places on lines of this diameter
    error: Values  # standard error of the logarithm of the diameter
    probability: Values  # that a fibre lies here, both edges visible

    @classmethod
    def on_ridges(cls, field: Field, signs: Sequence[float], n: int) -> dict[float, Places]:
        """Choose points of the centre lines of bright (1) or dark (-1) fibres, up to n of each."""
        found = find_ridges(field.contrast, field.noise, field.largest, signs)
        return {sign: places.spaced(field, n) for sign, places in found.items()}

    @classmethod
    def on_line(cls, positions: Values, normals: Values, scale: float, length: Values) -> Self:
        """Return all points of centre lines of one scale, and the length that each stands for."""
        diameter, unknown = np.full(len(length), 2 * scale), np.zeros(len(length))
        return cls(positions, normals, diameter, length, unknown, unknown)

    @classmethod
    def joined(cls, parts: Sequence[Places]) -> Self:
        parts = (cls.on_line(np.zeros((0, 2)), np.zeros((0, 2)), 0.0, np.zeros(0)), *parts)
        names = (each.name for each in fields(cls))
        return cls(*(np.concatenate([getattr(each, name) for each in parts]) for name in names))

    def spaced(self, field: Field, n: int) -> Self:
        """Return up to n points of lines, fewer on thick ones than on thin ones."""
        allowed = self.chosen(field.allows(self.positions))
        ends = np.cumsum(2 * allowed.length / allowed.diameter)
        n = min(n, len(ends))
        index = np.unique(np.searchsorted(ends, (np.arange(n) + 0.5) * ends[-1:] / max(n, 1)))
        chosen = allowed.chosen(np.minimum(index, len(ends) - 1))
        spacing = float(ends[-1]) / len(index) if len(ends) else 0.0
        return replace(chosen, length=spacing * chosen.diameter / 2)

    def __len__(self) -> int:
        return len(self.diameter)

    @property
    def tangents(self) -> Values:
        return np.stack([-self.normals[:, 1], self.normals[:, 0]], axis=1)

    def turned(self, angle: Values) -> Self:
        """Return places with other directions, by angles in radians."""
        cosine, sine = np.cos(angle)[:, None], np.sin(angle)[:, None]
        return replace(self, normals=cosine * self.normals + sine * self.tangents)

    def chosen(self, index: NDArray[np.intp] | NDArray[np.bool_]) -> Self:
        return replace(
            self, **{each.name: getattr(self, each.name)[index] for each in fields(self)}
        )


@dataclass(frozen=True, eq=False)
class Appearance:
    """The fibres of an image: where they may lie, and how they look."""

    sign: float  # 1 for bright fibres, -1 for dark ones
    negative: float  # probable length of fibres of the other sign, over theirs
    places: Places
    look: str
    blur: float

    @property
    def explained(self) -> tuple[float, float, float]:
        """Return the area of fibres, and the tenth and the median of their diameters, by length."""
        places = self.places.chosen(self.places.probability > PROBABILITY)
        if not len(places):
            return 0.0, 0.0, 0.0
        least, typical = weighted_quantiles(places.diameter, places.length, [0.1, 0.5]).tolist()
        return float(places.length @ places.diameter), least, typical


def find_places(
    field: Field, signs: Sequence[float], n: int, network: ProfileNetwork
) -> Appearance | None:
    """Judge n points on centre lines, of the polarity that fits; None without any lines."""
    spectrum = log_spectrum(field.contrast)
    found = dict[float, tuple[float, Places, tuple[FloatMap, FloatMap], Judged]]()
    for sign, places in Places.on_ridges(field, (1.0, -1.0), n).items():
        if len(places):
            seen = look_at(field, sign, places)
            judged = network(*seen, spectrum)
            found[sign] = float(judged.probability @ places.length), places, seen, judged
    allowed = [sign for sign in signs if sign in found]
    if not allowed:
        return None
    sign = max(allowed, key=lambda each: found[each][0])
    length, places, seen, judged = found[sign]
    negative = found[-sign][0] / max(length, 1e-9) if -sign in found else 0.0
    for _ in range(_N_PASSES):
        places, is_moved = moved(field, places, judged), judged.probability > _MOVED
        for facts, new in zip(seen, look_at(field, sign, places.chosen(is_moved)), strict=True):
            facts[is_moved] = new
        judged = network(*seen, spectrum)
    places = moved(field, places, judged)
    look = LOOKS[int(judged.looks.argmax())]
    return Appearance(sign, negative, places, look, judged.blur)


def sharp_field(
    pixels: FloatMap,
    allowed: NDArray[np.bool_],
    signs: Sequence[float],
    n_places: tuple[int, int],
    network: ProfileNetwork,
    name: str,
) -> tuple[Field, Appearance | None, float]:
    """Return an image without more blur than the network knows, its fibres, and its pixels' size.

    An image with more, or with wide fibres alone, is halved until it has less: it loses nothing,
    unless it is a fine pattern. At a quarter or an eighth of the size, wide ribbons are fibres, of
    which only the edges look like some before.
    """
    sizes = [(pixels, allowed)]

    def has(level: int) -> bool:
        while len(sizes) <= level:
            before, own = sizes[-1]
            smaller = halved(before)
            if min(smaller.shape) < _MIN_SHARP or np.ptp(smaller) < 0.1 * np.ptp(before):
                return False
            sizes.append((smaller, halved(own.astype(np.float32)) > 0))
        return True

    def at(level: int, part: int = 1) -> tuple[Field, Appearance | None]:
        field = Field.of(normalised_contrast(sizes[level][0], name), sizes[level][1])
        n = int(np.clip(n_places[0] * field.contrast.size / _USUAL_AREA, *n_places))
        return field, find_places(field, signs, n // part, network)

    level, (field, found) = 0, at(0)
    first = found
    while (
        found is not None
        and (found.blur > _MAX_BLUR or found.explained[1] > _MAX_LEAST)
        and has(level + 1)
    ):
        level, (field, found) = level + 1, at(level + 1)
    area, _, typical = (0.0, 0.0, 0.0) if found is None else found.explained
    for coarse in (2, 3):
        if level or not has(coarse):
            break
        _, wide = at(coarse, _PART)
        own, _, diameter = (0.0, 0.0, 0.0) if wide is None else wide.explained
        is_better = own * 4**coarse > max(_BETTER * area, _LEAST_WIDE * pixels.size)
        if is_better and diameter * 2**coarse > _WIDER * typical:
            level, (field, found) = coarse, at(coarse)
    if level and found is not None and first is not None:
        found = replace(found, negative=first.negative)  # halved, gaps look like lines
    return field, found, 2.0**level


def moved(field: Field, places: Places, judged: Judged) -> Places:
    """Return places in the middle of the fibres, with diameters and directions as found."""
    is_fibre = judged.probability > _MOVED
    offset = np.where(is_fibre, judged.offset * places.diameter, 0)
    diameter = places.diameter * np.exp(np.where(is_fibre, judged.log_ratio, 0))
    diameter = np.clip(diameter, 1.5, _LARGEST * field.largest)
    turn = np.where(is_fibre, np.clip(judged.turn, -_TURN, _TURN), 0)
    return replace(
        places.turned(turn),
        positions=places.positions + offset[:, None] * places.normals,
        diameter=diameter,
        length=places.length * diameter / places.diameter,
        error=judged.error,
        probability=judged.probability,
    )


def look_at(field: Field, sign: float, places: Places) -> tuple[FloatMap, FloatMap]:
    """Return what the network sees of places: their profiles, and facts beside them."""
    profiles = profiles_across(field, sign, places)
    mean = profiles.mean(axis=(1, 2))
    deviation = profiles.std(axis=(1, 2)) + 1e-4
    span = field.levels[1] - field.levels[0] + 1e-4
    noise = field.noise.deviation / 2.0 ** _level(field, places.diameter)
    facts = [
        np.log(places.diameter / 8),
        np.log(noise / deviation + 1e-3) + 2,
        np.log(deviation / span) + 1.5,
        mean / span - 0.5,
        np.full(len(places), np.log(field.noise.deviation / span + 1e-3) + 2),
    ]
    return profiles.astype(np.float32), np.stack(facts, axis=1).astype(np.float32)


def profiles_across(
    field: Field,
    sign: float,
    places: Places,
    reach: float = _ACROSS,
    shape: tuple[int, int] = (N_ROWS, N_SAMPLES),
    finer: float = 1.0,
) -> Values:
    """Return brightness around places, (n, *shape), as far as a multiple of the diameter.

    From an image as fine as for diameters that are `finer` times smaller.
    """
    (n_rows, n_samples), (share, least, most) = shape, ALONG
    least = np.clip(_ALONG_NOISE * field.noise.deviation, share, least)
    along = np.clip(share * places.diameter, least, most)
    rows = along[:, None] * np.linspace(-1, 1, n_rows)
    columns = reach * places.diameter[:, None] * np.linspace(-1, 1, n_samples)
    start, normal, tangent = (
        each.T[:, :, None, None] for each in (places.positions, places.normals, places.tangents)
    )
    across, down = start + columns[:, None] * normal, rows[:, :, None] * tangent
    level, profiles = _level(field, places.diameter / finer), np.empty((len(places), *shape))
    for one in np.unique(level):
        here = np.flatnonzero(level == one)
        profiles[here] = field.sample(across[:, here] + down[:, here], int(one))
    # No fibre is as dark as the darkest areas.
    profiles -= field.levels[0] if sign > 0 else field.levels[1]
    return profiles if sign > 0 else np.negative(profiles, out=profiles)


def _level(field: Field, diameter: Values) -> NDArray[np.intp]:
    """Return how often the image is halved for fibres of each diameter."""
    level = np.floor(np.log2(np.maximum(diameter, 1) / _FINE)) + 1
    return np.asarray(np.clip(level, 0, len(field.pyramid) - 1), dtype=np.intp)


def followed(places: Places) -> tuple[NDArray[np.int64], Values]:
    """Return the number of the fibre of each place, and the length that the place stands for.

    Places that follow each other share a fibre. A place stands for half the way to the next ones
    before and after it. Where the next one is missing, such as at a crossing, it stands for half as
    much as places are apart on lines of its width.
    """
    pairs, n = following(places), len(places)
    links = coo_array((np.ones(len(pairs)), pairs.T), shape=(n, n))
    fibre = connected_components(links, directed=False)[1]
    before, after = np.full(n, np.inf), np.full(n, np.inf)
    for one, other in (pairs.T, pairs[:, ::-1].T):
        apart = places.positions[other] - places.positions[one]
        along = (apart * places.tangents[one]).sum(axis=1)
        ahead = (along > 0) | ((along == 0) & (other > one))
        np.minimum.at(after, one[ahead], along[ahead])
        np.minimum.at(before, one[~ahead], -along[~ahead])
    halves = [
        np.where(each < _NEXT * places.length, each, places.length) / 2 for each in (before, after)
    ]
    return np.asarray(fibre, dtype=np.int64), halves[0] + halves[1]


@dataclass(frozen=True, eq=False)
class LongFibres:
    """The longest fibres with places for a mean profile; none if they are a small part."""

    places: Places
    fibres: NDArray[np.int64]  # number of the fibre of each place
    numbers: NDArray[np.intp]  # (n,), of the long ones
    lengths: Values  # (n,)

    @classmethod
    def of(cls, places: Places, fibres: NDArray[np.int64], lengths: Values) -> LongFibres:
        counts, length = np.bincount(fibres), np.bincount(fibres, lengths)
        long = np.argsort(-length * (counts >= _MIN_PLACES))[:_MAX_FIBRES]
        long = long[counts[long] >= _MIN_PLACES]
        if length[long].sum() < _MIN_SHARE * length.sum():
            long = long[:0]
        return cls(places, fibres, long, np.asarray(length[long]))

    def __len__(self) -> int:
        return len(self.numbers)

    def profiles(
        self, field: Field, sign: float, reach: float, shape: tuple[int, int], finer: float = 1.0
    ) -> Iterator[tuple[Places, Values]]:
        """Give the places of each fibre, and the profiles across them."""
        for number in self.numbers:
            own = self.places.chosen(self.fibres == number)
            yield own, profiles_across(field, sign, own, reach, shape, finer).mean(axis=1)

    def at_places(self, values: Values) -> Values:
        """Return those of each place's fibre; of short ones, of that with the nearest diameter."""
        logs, of_fibre = np.log(self.places.diameter), self.fibres == self.numbers[:, None]
        middle = np.array([np.median(logs[own]) for own in of_fibre])
        nearest = np.abs(logs - middle[:, None]).argmin(axis=0)
        of_place = np.where(of_fibre.any(axis=0), of_fibre.argmax(axis=0), nearest)
        return np.asarray(values[of_place])


def following(places: Places) -> NDArray[np.intp]:
    """Return pairs of places, (n, 2), that lie on one fibre by place, direction and diameter."""
    if len(places) < 2:
        return np.zeros((0, 2), dtype=np.intp)
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
    logs, error = np.log(places.diameter), np.minimum(places.error, 0.2)
    unlike = np.abs(logs[one] - logs[other])
    joined = (
        (distance < diameters * thin + gap)
        & (off < 0.25 * thin + 0.06 * distance)
        & (aligned > np.cos(0.25))
        & (unlike < 0.1 + 2 * np.hypot(error[one], error[other]))
    )
    return np.asarray(pairs[joined])


# --- centre lines --------------------------------------------------------------------------------


def find_ridges(
    contrast: FloatMap, noise: Noise, largest: float, signs: Sequence[float]
) -> dict[float, Places]:
    """Find points of centre lines of bright (1) or dark (-1) fibres, about twice a scale in width.

    There, the response is a maximum across the line and over scales.

    Steger 1998, "An unbiased detector of curvilinear structures", IEEE Transactions on Pattern
    Analysis and Machine Intelligence 20, at scales in steps of the square root of 2, normalised as
    by Lindeberg 1998, "Edge detection and ridge detection with automatic scale selection",
    International Journal of Computer Vision 30. The contrast spans 0 to 1; `largest` is
    the largest scale in pixels.
    """
    found = {sign: list[Places]() for sign in signs}
    finer: dict[float, _Scale] = {}
    for scale in _scales(contrast, noise, largest, signs):
        for sign, here in scale.items():
            points = here.points
            if finer:
                found[sign][-1] = _highest(found[sign][-1], finer[sign], here)
                points = _highest(points, here, finer[sign])
            found[sign].append(points)
        finer = scale
    return {sign: Places.joined(points) for sign, points in found.items()}


@dataclass(frozen=True, eq=False)
class _Scale:
    step: int  # pixels of the image per pixel of the map
    response: NDArray[np.float16]
    points: Places


def _scales(
    contrast: FloatMap, noise: Noise, largest: float, signs: Sequence[float]
) -> Iterator[dict[float, _Scale]]:
    """Give the responses scale by scale, not all at once: one may be as large as the image."""
    image, step = contrast, 1
    while min(image.shape) >= _MIN_SIDE:
        for scale in _SCALES[min(step - 1, 1)]:
            if scale * step <= largest * 1.01:
                yield _at_scale(image, scale, step, noise, signs)
                widest = scale * step
        if widest * 1.4 > largest:
            break
        image, step = halved(image), 2 * step


def _highest(points: Places, here: _Scale, other: _Scale) -> Places:
    """Return the points at which the response is not below that at another scale."""
    own, others = (_looked_up(each, points.positions) for each in (here, other))
    return points.chosen(own >= others)


def _looked_up(at: _Scale, positions: NDArray[np.float64]) -> FloatMap:
    index = np.rint((positions + 0.5) / at.step - 0.5).astype(np.intp)
    row, column = np.clip(index, 0, np.asarray(at.response.shape) - 1).T
    return np.asarray(at.response[row, column], dtype=np.float32)


def _at_scale(
    image: FloatMap, scale: float, step: int, noise: Noise, signs: Sequence[float]
) -> dict[float, _Scale]:
    response = {sign: np.empty(image.shape, dtype=np.float16) for sign in signs}
    found = {sign: list[Places]() for sign in signs}
    n_rows, reach = max(1, _BAND // image.shape[1]), int(_TRUNCATE * scale + 0.5)
    size = scale * step
    of_noise = noise.white * _NOISE_GAIN * size**2 / np.hypot(size, noise.grain) ** 3
    least = max(_SIGNIFICANT * of_noise, _MIN_RESPONSE)
    for top in range(0, len(image), n_rows):
        above = min(top, reach)
        part, own = image[top - above : top + n_rows + reach], slice(above, above + n_rows)
        derivatives = _Derivatives.of(part, scale, own)
        for sign in signs:
            here, place, normal = derivatives.ridges(sign, scale, least)
            response[sign][top : top + n_rows] = here
            positions = (place + [top, 0] + 0.5) * step - 0.5
            inside = (positions >= 0).all(axis=1)
            length = step / np.abs(normal[inside]).max(axis=1)
            found[sign].append(Places.on_line(positions[inside], normal[inside], size, length))
    return {
        sign: _Scale(step, response[sign], Places.joined(points)) for sign, points in found.items()
    }


@dataclass(frozen=True, eq=False)
class _Derivatives:
    """Derivatives of a smoothed image along its rows (r) and columns (c)."""

    r: FloatMap
    c: FloatMap
    rc: FloatMap
    mean: FloatMap  # of those along rows and along columns, and half their difference
    half: FloatMap
    gap: FloatMap  # between the eigenvalues, halved

    @classmethod
    def of(cls, image: FloatMap, scale: float, rows: slice) -> _Derivatives:
        taps = [gaussian_taps(scale, _TRUNCATE, order) for order in range(3)]
        across = [correlated(image.T, own).T for own in taps]
        orders = ((1, 0), (0, 1), (1, 1), (2, 0), (0, 2))  # down and across
        r, c, rc, rr, cc = (correlated(across[of], taps[down])[rows] for down, of in orders)
        mean, half = np.float32(0.5) * (rr + cc), np.float32(0.5) * (rr - cc)
        return cls(r, c, rc, mean, half, np.sqrt(half**2 + rc**2))

    def ridges(
        self, sign: float, scale: float, least: float
    ) -> tuple[FloatMap, NDArray[np.float64], NDArray[np.float64]]:
        """Return the response to bright (1) or dark (-1) lines, its maxima and their normals."""
        response = np.maximum(self.gap - np.float32(sign) * self.mean, 0)
        response *= np.float32(scale**2)
        index = np.flatnonzero(response > least)
        r, c, rc, half = (sign * own.ravel()[index] for own in (self.r, self.c, self.rc, self.half))
        # The eigenvector of the lower eigenvalue.
        angle = 0.5 * np.arctan2(rc, half) + np.pi / 2
        normal = np.stack([np.cos(angle), np.sin(angle)])
        curvature = -response.ravel()[index] / scale**2
        shift = normal * (-(r * normal[0] + c * normal[1]) / curvature)
        ridge = np.abs(shift).max(axis=0) <= 0.5
        place = np.stack(np.divmod(index[ridge], response.shape[1])) + shift[:, ridge]
        return response, place.T, normal[:, ridge].T
