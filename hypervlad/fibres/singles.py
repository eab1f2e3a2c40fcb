"""Single fibres, followed through crossings and outlined."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter1d, label
from scipy.spatial import cKDTree
from scipy.special import expit

from hypervlad.common.constraints import Number, OneOf, check_value
from hypervlad.common.progress import joined_notes
from hypervlad.fibres.contrast import OF_FEW_LEVELS, Values, few_levels
from hypervlad.fibres.diameters import SIGNS, Polarity
from hypervlad.fibres.places import (
    PROBABILITY,
    Appearance,
    Field,
    LongFibres,
    followed,
    following,
    sharp_field,
)
from hypervlad.fibres.profile_network import ProfileNetwork
from hypervlad.fibres.shells import OF_WALLS, WholeBodies, are_walls
from hypervlad.images import PixelSizes, ReadOptions
from hypervlad.images.reading import image_name
from hypervlad.images.resampling import at_own_sampling
from hypervlad.images.sample import Annotations, one_or_many, read_sample
from hypervlad.objects.particle import Outline, Outlines, cropped, marked_outlines

_N_PLACES = (2000, 32_000)  # per image, by its area
_PROBABILITY = 0.3  # of a place: one without a good diameter may still show where a fibre is
_CERTAIN = 0.7  # of the surest place of each line: textures have many that are likely
_MIN_PLACES = 3
# Halfway between logistic regressions on 2324 lines of 100 drawn images, half of them textures, and
# on 4616 of 126 deposits and mats and 140 textures: the first is too sure of lines in mats, the
# second finds more lines in textures.
_CONFIDENCE = (-7.8, -14.2, 0.26, 1.06, -1.7, 0.64)
_LEAST_CONFIDENCE = 0.5
_FAR = 1.5  # diameters between places, from which on the brightness between them counts
_BESIDE = 0.3  # pixels along the fibre: closer places lie beside each other
_UNSURE = 10.0  # cost in diameters of a relative error of 1; with 12.5, 1 % fewer are found
_JOINED_GAP = (8.0, 50.0)  # between lines that follow each other: in diameters, pixels more
_JOINED_OFF = (0.3, 0.08)
_JOINED_TURN = 0.35
_JOINED_UNLIKE = 0.2
_SMOOTHING = 0.5  # along lines, in diameters
_BODY = 0.8  # of the diameter, across which brightness is averaged
_LEVEL = 0.65  # of the contrast, below which there is no fibre
_TIP = 0.07  # diameters from where a round end is below the level to its tip
_BEYOND = (8.0, 40.0)  # the last place, at most: in diameters, and in pixels more
_PIECE = 128  # points of an outline that are drawn together
_OF_THEIR_OUTLINES = ": their outlines hold several fibres, and widths are those of the bundles"
_DOUBLE = 0.7  # of a fibre, within larger ones


@one_or_many("leave_out")
def find_fibres(
    image: Any,
    *,
    pixel_size: float | PixelSizes | None = None,
    polarity: Polarity = "auto",
    min_length: float = 30.0,
    leave_out: ArrayLike | None = None,
    annotations: Annotations = "leave_out",
    read_options: Mapping[str, Any] | ReadOptions | None = None,
) -> Outlines:
    """Find single fibres, wires or tubes, each with its own outline, also where they cross.

    Places on fibres, as for `fibre_diameters`, are followed by position, direction and diameter,
    through crossings as long as the brightness does not fall. Each fibre is extended to where it
    does. The outline is a rod along it, of its mean diameter, with round ends; outlines of fibres
    that cross overlap. Images that a program has enlarged are looked at in their own sampling.

    Parameters
    ----------
    image : path or array, or list of these
        As in :func:`hypervlad.read_micrograph`. Colours are averaged.
    pixel_size : float or PixelSizes, optional
        Nanometres per pixel, of an image that states none.
    polarity : {"auto", "bright", "dark"}, default="auto"
        Whether fibres are brighter or darker than what is beside them.
    min_length : float, default=30
        Shorter fibres are left out, in pixels.
    leave_out : array-like of shape (n, 2), optional
        Row and column, in pixels, of a point on each fibre that a person has left out; of a
        crossing, it leaves out all. See `read_left_out`. With a list of images, a list.
    annotations : {"leave_out", "keep"}, default="leave_out"
        Whether margins and what was drawn into the image, as
        :func:`hypervlad.images.find_annotations` finds them, are left out. Margins cut fibres off
        as the image's edge does; fibres that end below the rest are left out, others go on below.
        A wire without noise may be taken for a scale bar.
    read_options : dict or ReadOptions, optional
        The fields of :class:`hypervlad.images.ReadOptions`; ``scaling="auto"`` is "minmax" here.

    Returns
    -------
    Outlines, or list of them
        The largest first, each with its `confidence`, at least 0.5: the share of such outlines of
        drawn deposits, mats and textures that hold one fibre; none, with a UserWarning, in most
        textures, as the `note` says. :func:`hypervlad.particles.measure` gives their lengths,
        diameters (``width``), aspect ratios, end-to-end distances and persistence lengths, and
        whether they touch the edge. A list of images gives a list.

    Raises
    ------
    ValueError
        If a parameter is out of range, or an image cannot be read (`ImageReadError`); it is named.

    See Also
    --------
    hypervlad.particles.find_particles : Finds particles of any shape that do not cross.

    Examples
    --------
    >>> from hypervlad.data import make_fibre_images
    >>> from hypervlad.fibres import find_fibres
    >>> from hypervlad.particles import match_rule, measure
    >>> (image,), (truth,) = make_fibre_images(
    ...     1, diameter=8, length=120, cover=0.08, size=256, contrast_to_noise=20, random_state=0
    ... )
    >>> table = measure(find_fibres(image, pixel_size=20))
    >>> len(table), len(truth.diameters)
    (6, 6)
    >>> int(match_rule(table, "length > 2 um and not touches_edge").sum())
    3
    """
    check_value("polarity", polarity, [OneOf(*get_args(Polarity))])
    check_value("min_length", min_length, [Number(at_least=0, meaning="pixels")])
    sample = read_sample(
        image, annotations=annotations, read_options=read_options, pixel_size=pixel_size
    )
    shape, size = (sample.grey.shape[0], sample.grey.shape[1]), sample.pixel_size
    why = "all pixels are alike, beside annotations"
    nothing = Outlines(shape, (), size, sample.annotations, note=f"no fibre is found: {why}")
    if not np.ptp(sample.grey) or not sample.mask.any():
        return nothing
    name = image_name(image)
    grey, mask, enlarged = at_own_sampling(sample.grey, sample.mask, name)
    how = SIGNS[polarity], _N_PLACES, ProfileNetwork.pretrained()
    field, found, step = sharp_field(grey, mask, *how, name)
    if found is None:
        return replace(nothing, note="no fibre is found: no lines could be fibres")
    fibres = _Followed(field, found)
    lines = [fibres.completed(line).scaled(step) for line in fibres.joined(list(fibres.lines()))]
    lines = [each for each in lines if each.length * enlarged >= min_length]
    sure = [each for each in lines if each.confidence(found) >= _LEAST_CONFIDENCE]
    places = found.places.chosen(found.places.probability > PROBABILITY)
    fibres_of, lengths = followed(places)
    long = LongFibres.of(places, fibres_of, lengths)
    n_levels = few_levels(sample.grey[sample.mask])
    bodies = WholeBodies.of(field, found, long, few_levels=n_levels > 0)
    bundled = _OF_THEIR_OUTLINES * bool((bodies.n_wide > 1).any())
    of_levels = OF_FEW_LEVELS.format(n_levels) * (n_levels > 0)
    of_walls = OF_WALLS * are_walls(field, found.sign, places, lengths)
    note = joined_notes([of_levels, of_walls, *(words + bundled for words, _ in bodies.doubts)])
    wider = float(np.median(bodies.outer)) if len(places) else 1.0
    sure = [replace(each, diameter=wider * each.diameter) for each in sure]
    outlines = [each.outline(shape, found, enlarged) for each in sure]
    margin = sample.margin
    drawn = [_cut_off(each, margin, min_length) for each in outlines if each]
    shown = _without_doubles([each for each in drawn if each], shape)
    seen = sample.mask | margin
    n_shown, shown = len(shown), tuple(each for each in shown if not _is_hidden(each, seen))
    is_out = marked_outlines(shown, leave_out, name)
    kept = tuple(each for each, is_marked in zip(shown, is_out, strict=True) if not is_marked)
    why = f"annotations cover a part of {n_shown - len(shown)}, and {len(shown)} are left out"
    why = why if sure else "none of the lines is probably a fibre, as in textures"
    why = why if lines else f"no line of {min_length:g} pixels could be one"
    note = note if kept else f"no fibre is found: {why}"
    return replace(nothing, outlines=kept, n_beside=n_shown - len(shown), note=note)


@dataclass(frozen=True, eq=False)
class _Line:
    """A part of a fibre's centre line."""

    points: Values  # (n, 2), row and column, about a pixel apart
    diameter: float
    level: float  # brightness across, below which it ends
    probability: float  # that it is a fibre, the mean of its places
    error: float  # of the logarithm of the diameter, the median of its places

    @property
    def length(self) -> float:
        return _length(self.points)

    def confidence(self, found: Appearance) -> float:
        """Return the probability that it is one fibre, from how it and the image look.

        Textures look alike in their negative, fibres do not.
        """
        odds = self.probability / max(1 - self.probability, 0.005)
        logs = np.log([odds, self.length / self.diameter, self.error, self.diameter])
        facts = [1, min(found.negative, 2), *logs]
        return float(expit(np.dot(_CONFIDENCE, facts)))

    def heading(self) -> Values:
        """Return the direction of the last part, outwards."""
        part = self.points[-max(8, int(2.5 * self.diameter)) :]
        along: Values = np.linalg.svd(part - part.mean(axis=0), full_matrices=False)[2][0]
        return along if along @ (part[-1] - part[0]) > 0 else -along

    def scaled(self, by: float) -> _Line:
        return replace(self, points=(self.points + 0.5) * by - 0.5, diameter=by * self.diameter)

    def reversed(self) -> _Line:
        return replace(self, points=self.points[::-1])

    def outline(self, shape: tuple[int, int], found: Appearance, enlarged: float) -> Outline | None:
        """Return the pixels of a rod with round ends, in an image of this shape."""
        large = self.scaled(enlarged)
        radius, points, n = large.diameter / 2, resampled(large.points, 0.5), round(large.diameter)
        points = points[n:-n] if len(points) > 2 * n else points[len(points) // 2 :][:1]
        low = np.maximum(np.floor(points.min(axis=0) - radius), 0).astype(int)
        high = np.minimum(np.ceil(points.max(axis=0) + radius) + 1, shape).astype(int)
        if (low >= high).any():
            return None
        mask = np.zeros(high - low, dtype=bool)
        for first in range(0, len(points), _PIECE):  # boxes around pieces are small
            piece = points[first : first + _PIECE] - low
            start = np.maximum(np.floor(piece.min(axis=0) - radius), 0).astype(int)
            stop = np.maximum(np.ceil(piece.max(axis=0) + radius) + 1, start).astype(int)
            part = mask[start[0] : stop[0], start[1] : stop[1]]
            grid = np.moveaxis(np.indices(part.shape), 0, -1) + start
            distance = cKDTree(piece).query(grid, distance_upper_bound=radius)[0]
            part |= np.asarray(distance < np.inf)
        outline = cropped(mask, int(low[0]), int(low[1]))
        return outline and replace(outline, confidence=self.confidence(found))


class _Followed:
    """Places of an image, which are joined to lines one after the other."""

    def __init__(self, field: Field, found: Appearance) -> None:
        self.field, self.sign, self.blur = field, found.sign, found.blur
        places = found.places.chosen(found.places.probability > _PROBABILITY)
        self.places, self.tangents, self.logs = places, places.tangents, np.log(places.diameter)
        self.relative = np.minimum(places.error, 0.2)
        self.free = np.ones(len(places), dtype=bool)

    def lines(self) -> Iterator[_Line]:
        """Give lines of places that follow each other, those with the surest places first."""
        pairs, places = following(self.places), self.places
        i, j = pairs.T
        step = places.positions[j] - places.positions[i]
        ahead = np.stack([(step * self.tangents[k]).sum(axis=1) for k in (i, j)])
        distance, thin = np.abs(ahead).min(axis=0), np.minimum(*places.diameter[pairs].T)
        far = np.linalg.norm(step, axis=1) > _FAR * thin
        cost = distance / thin + _UNSURE * self.relative[pairs].sum(axis=1)
        cost[distance < _BESIDE] = np.inf  # beside each other, not one after the other
        ends = np.stack([2 * i + (ahead[0] > 0), 2 * j + (ahead[1] < 0)], axis=1)

        def is_joined(k: int) -> bool:
            level = self.level(pairs[k], thin[k]) if far[k] else 0.0
            start = places.positions[i[k]]
            return not far[k] or self.is_fibre(start, step[k], thin[k], level)

        chains = list(_chains(_matched(ends, cost, 2 * len(places), is_joined)))
        index = [np.array(chain) // 2 for chain in chains]
        for own in sorted(index, key=lambda each: float(self.relative[each].min())):
            own = own[self.free[own]]
            if len(own) >= _MIN_PLACES and places.probability[own].max() >= _CERTAIN:
                diameter = float(np.exp(np.median(self.logs[own])))
                points = _smoothed(places.positions[own], _SMOOTHING * diameter)
                self.free[own] = False
                self._take(points, diameter)
                probability = float(places.probability[own].mean())
                error, level = float(np.median(self.relative[own])), self.level(own, diameter)
                yield _Line(points, diameter, level, probability, error)

    def _take(self, points: Values, diameter: float) -> None:
        """Take away what is left within a line and has its direction."""
        reach = 0.6 * diameter + 1
        distance, where = cKDTree(points).query(self.places.positions, distance_upper_bound=reach)
        inside = np.flatnonzero(np.isfinite(distance) & self.free)
        along = (self.tangents[inside] * _tangents(points)[where[inside]]).sum(axis=1)
        self.free[inside[np.abs(along) > np.cos(0.35)]] = False

    def brightness(self, points: Values, normals: Values, diameter: float) -> Values:
        """Return the mean brightness across a body of this diameter."""
        across = np.linspace(-0.5, 0.5, max(3, round(_BODY * diameter))) * _BODY * diameter
        at = points[:, None] + across[:, None] * normals[:, None]
        return np.asarray(self.sign * self.field.sample(np.moveaxis(at, -1, 0)).mean(axis=1))

    def level(self, index: Sequence[int], diameter: float) -> float:
        """Return the brightness below which there is no fibre, from some of its places."""
        some = self.places.chosen(np.asarray(index))
        side = (diameter / 2 + 2 + 2 * self.blur) * some.normals
        beside = [self.sign * self.field.sample((some.positions + s * side).T) for s in (-1, 1)]
        body = float(np.median(self.brightness(some.positions, some.normals, diameter)))
        background = float(np.median(np.minimum(*beside)))
        return background + _LEVEL * (body - background)

    def is_fibre(self, start: Values, step: Values, diameter: float, level: float) -> bool:
        """Return whether there is no gap in the brightness along a step."""
        points = start + np.linspace(0, 1, int(np.linalg.norm(step)) + 2)[:, None] * step
        normals = np.broadcast_to(_normal(step / np.linalg.norm(step)), points.shape)
        here = gaussian_filter1d(self.brightness(points, normals, diameter), 1)
        return bool((here > level).all())

    def joined(self, lines: list[_Line]) -> list[_Line]:
        """Join lines that continue each other, the most alike first."""
        sides = [side for line in lines for side in (line.reversed(), line)]  # they end there
        ends = np.array([side.points[-1] for side in sides]).reshape(-1, 2)
        headings = np.array([side.heading() for side in sides]).reshape(-1, 2)
        widths = np.array([side.diameter for side in sides])
        reach = _JOINED_GAP[0] * widths + _JOINED_GAP[1]
        pairs = cKDTree(ends).query_pairs(reach.max(initial=0), output_type="ndarray")
        i, j = pairs[pairs[:, 0] // 2 != pairs[:, 1] // 2].T
        apart = ends[j] - ends[i]
        distance, thin = np.linalg.norm(apart, axis=1), np.minimum(widths[i], widths[j])
        allowed = _JOINED_OFF[0] * thin + _JOINED_OFF[1] * distance + 1
        off = [np.abs((apart * _normal(headings[k])).sum(axis=1)) / allowed for k in (i, j)]
        ahead = np.minimum((apart * headings[i]).sum(axis=1), -(apart * headings[j]).sum(axis=1))
        turn = np.arccos(np.clip(-(headings[i] * headings[j]).sum(axis=1), -1, 1)) / _JOINED_TURN
        unlike = np.abs(np.log(widths[i] / widths[j])) / _JOINED_UNLIKE
        far = distance / np.minimum(reach[i], reach[j])
        cost = off[0] ** 2 + off[1] ** 2 + turn**2 + unlike**2 + far
        worst = np.max([*off, turn, unlike, far], axis=0)
        cost[(worst > 1) | (ahead < -thin)] = np.inf

        def is_joined(k: int) -> bool:
            level = min(sides[i[k]].level, sides[j[k]].level)
            return distance[k] < 2 or self.is_fibre(ends[i[k]], apart[k], thin[k], level)

        partner = _matched(np.stack([i, j], axis=1), cost, len(sides), is_joined)
        return [_one_line([sides[end] for end in chain]) for chain in _chains(partner)]

    def completed(self, line: _Line) -> _Line:
        """Let a line end where the brightness falls, or at the edge of the image."""
        for _ in range(2):
            heading = line.heading()
            n_kept = max(len(line.points) // 2, len(line.points) - int(1.5 * line.diameter))
            beyond = np.arange(1, _BEYOND[0] * line.diameter + _BEYOND[1])
            points = np.concatenate(
                [line.points[n_kept:], line.points[-1] + beyond[:, None] * heading]
            )
            normals = np.broadcast_to(_normal(heading), points.shape)
            is_inside = (points > -0.5) & (points < np.asarray(self.field.shape) - 0.5)
            inside = np.asarray(is_inside.all(axis=1))
            here = gaussian_filter1d(self.brightness(points, normals, line.diameter), 0.5)
            is_out = np.append(~inside | (here < line.level), True)
            n = int(is_out.argmax())
            if n < len(points) and not inside[n]:
                n = len(points)  # the rest is cut off with the image
            tip = points[min(n, len(points) - 1)] + _TIP * line.diameter * heading
            ended = np.concatenate([line.points[:n_kept], points[: n + 1], [tip]])
            line = replace(line, points=ended).reversed()
        return line


def _normal(direction: Values) -> Values:
    return np.stack([-direction[..., 1], direction[..., 0]], axis=-1)


def _matched(
    ends: NDArray[np.intp], cost: Values, n: int, is_joined: Callable[[int], bool]
) -> NDArray[np.intp]:
    """Join pairs (n_pairs, 2) of n ends at a finite cost, the lowest first; no end twice, no loops.

    Ends 2 k and 2 k + 1 are those of one part. Return the partner of each end, -1 if it is free.
    """
    partner = np.full(n, -1)
    other = np.arange(n) ^ 1  # the free end of the parts joined so far, for each end
    for k in np.argsort(cost):
        a, b = ends[k].tolist()
        if not np.isfinite(cost[k]):
            break
        if max(partner[a], partner[b]) < 0 and other[a] != b and is_joined(k):
            partner[a], partner[b] = b, a
            other[other[a]], other[other[b]] = other[b], other[a]
    return partner


def _chains(partner: NDArray[np.intp]) -> Iterator[list[int]]:
    """Give the ends at which the lines of each fibre end, in their order along it."""
    used = np.zeros(len(partner) // 2, dtype=bool)
    for first in np.flatnonzero(partner < 0):
        chain, end = list[int](), int(first) ^ 1
        while not used[end // 2]:
            used[end // 2] = True
            chain.append(end)
            if partner[end] < 0:
                break
            end = int(partner[end]) ^ 1
        if chain:
            yield chain


def _one_line(lines: Sequence[_Line]) -> _Line:
    points = np.concatenate([line.points for line in lines])
    sizes = [len(line.points) for line in lines]
    level = min(line.level for line in lines)
    facts = [(np.log(line.diameter), line.probability, line.error) for line in lines]
    log_diameter, probability, error = np.average(facts, axis=0, weights=sizes)
    diameter = float(np.exp(log_diameter))
    points = _smoothed(points, _SMOOTHING * diameter)
    return _Line(points, diameter, level, float(probability), float(error))


def resampled(points: Values, step: float = 1.0) -> Values:
    """Return points along a polyline at about equal steps."""
    ends = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    at = np.linspace(0, ends[-1], max(2, round(ends[-1] / step) + 1))
    return np.stack([np.interp(at, ends, each) for each in points.T], axis=1)


def _length(points: Values) -> float:
    return float(np.linalg.norm(np.diff(points, axis=0), axis=1).sum())


def _tangents(points: Values) -> Values:
    steps = np.gradient(points, axis=0)
    return np.asarray(steps / np.maximum(np.linalg.norm(steps, axis=1, keepdims=True), 1e-9))


def _smoothed(points: Values, sigma: float) -> Values:
    """Return a smoothed line with the same ends."""
    points = resampled(points)
    n = min(int(4 * sigma) + 1, len(points) - 1)
    before, after = 2 * points[0] - points[n:0:-1], 2 * points[-1] - points[-2 : -n - 2 : -1]
    line = gaussian_filter1d(np.concatenate([before, points, after]), sigma, axis=0)
    return np.asarray(line[n : n + len(points)])


def _cut_off(each: Outline, margin: NDArray[np.bool_], min_length: float) -> Outline | None:
    """Return what margins leave of an outline, if it is long enough."""
    shown = each.mask & ~margin[each.window]
    if shown.sum() == each.mask.sum():
        return each
    rest = cropped(shown, *each.box[:2], each.label)
    if rest is None or math.hypot(*rest.mask.shape) < min_length:
        return None
    return replace(rest, confidence=each.confidence)


def _is_hidden(each: Outline, seen: NDArray[np.bool_]) -> bool:
    """Return whether an annotation hides an end: a fibre below it has a part on each side."""
    own = each.mask & seen[each.window]
    return bool(own.sum() < each.mask.sum() and label(own)[1] < 2)


def _without_doubles(outlines: Sequence[Outline], shape: tuple[int, int]) -> tuple[Outline, ...]:
    """Leave out what lies mostly within larger outlines, and number the others."""
    covered, kept = np.zeros(shape, dtype=bool), list[Outline]()
    for each in sorted(outlines, key=lambda one: -int(one.mask.sum())):
        if np.mean(covered[each.window][each.mask]) < _DOUBLE:
            covered[each.window] |= each.mask
            kept.append(replace(each, label=len(kept) + 1))
    return tuple(kept)
