"""Shells around fibres, walls of tubes, and ribbons: where the outer edge is, by mean profiles.

The network has learnt bodies with one edge. Where a paler shell surrounds a core, it measures the
core or something between; of tubes in transmission, whose walls fade towards the edge, something
within the wall; of ribbons in transmission, something beyond. Mean profiles are therefore compared
with blurred models: bodies with a halo, cores in shells, tubes, and ribbons. Where shells, tubes or
ribbons explain them better, diameters are those of the models; of tubes in dark field, which may be
solid fibres, only intervals are wider.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from hypervlad.fibres.bundles import find_bundles
from hypervlad.fibres.contrast import FloatMap, Values
from hypervlad.fibres.places import Appearance, Field, LongFibres, Places
from hypervlad.statistics.groups import weighted_quantiles

_REACH, _SHAPE = 2.5, (4, 101)  # of profiles: in diameters, and points along and across
_DIM = 0.35  # quantile of profiles along a fibre, which hardly depends on what lies beside it
_STEP, _FINE = 2 * _REACH / (_SHAPE[1] // 2), 5  # of profiles, in radii as found; points per step
# Models, in the same unit: standard deviations of the blur, and radii.
_BLURS = np.geomspace(0.06, 0.85, 10)
_SHARP = _BLURS[:7]  # with which shells and tubes show
_BODIES, _HALOS = np.geomspace(0.75, 1.35, 19), (0.15, 0.3, 0.6, 1.2)
_SHELLS, _CORES = np.geomspace(0.85, 4.2, 40), np.linspace(0.3, 0.7, 9)
_TUBES, _HOLES = np.geomspace(0.9, 1.35, 21), np.linspace(0.4, 0.9, 11)
_FILLED, _ABSORBED = (0.0, 0.3, 0.6), (0.3, 1.2, 2.5)  # density of the hole over the wall; of all
_FLAT_OR_ROUND = np.geomspace(0.7, 1.2, 23)
_HALO, _SHELL = (-0.05, 0.35), (0.1, 0.85)  # brightness over that of the middle
_MAX_REST = 0.018  # residual of a profile from 0 to 1, in the mean
# Shells show by how much better they explain profiles, in logarithms of residuals and with an
# allowance, times the logarithm of the radius, over its spread among fibres, or the third value.
# Drawn mats without shells have up to 1.6, where noise or neighbours leave residuals above 0.009;
# of 52 with shells that have more than 0.6, 8 have less than 2, and smaller residuals.
_ALLOWED, _LEAST, _SPREAD = 0.1, 0.6, 0.05
_CLEAR, _SMALL_REST = 2.0, 0.008
_LEAST_WIDER = 1.1  # shells than what was measured
_LEAST_THICK = 1.5  # standard deviations of the image's blur: what is thinner shows no two edges
# At most, that tubes explain fibres of dark rims worse than bodies, and of bright rims, which solid
# fibres have, too: these are explained worse, or by tubes hardly wider than what was measured.
_WORSE = {-1: 0.5, 1: 0.0}
_ERROR = 0.1  # of the logarithm of the diameter of such models
# By how much flat bodies explain fibres in transmission better or worse than round ones, in
# logarithms of residuals, from which on it shows which they are; else either answer is possible.
_SHOWN_FLAT, _EITHER = 0.1, 0.2
# Edges of plain drawn fibres differ by up to 0.11 of their bodies from one side of the image to the
# other. Of fibres whose edges differ by more, the median was 2 to 17 % too small.
_LIT, _OF_LIT = 0.12, 0.16
_ON_EDGES, _BESIDE = (0.5, 1.0), (1.3, 1.6)  # radii
_ACROSS = np.linspace(-2 * _REACH, 2 * _REACH, _SHAPE[1])  # in radii as found
_LIT_EDGES = (
    "one edge of the fibres is brighter than the other, towards one side of the image: where the "
    "other is as dark as the ground, diameters are up to a sixth too small"
)
_PERHAPS_SHELLS = (
    "a second edge shows outside the fibres, which may be a step between grey levels, or a shell: "
    "intervals contain the outer edge, too"
)
_OF_SHELLS = (
    "a second, fainter edge shows outside the edge of the fibres, as of a shell around a core: "
    "diameters are those of the outer edge, {:.2g} times as wide as the core"
)
_OF_TUBES = (
    "the fibres have pale middles and dark walls, as tubes in transmission: diameters are those of "
    "the outer edge, where the walls fade"
)
#: What is said where fibres may be tubes, which changes nothing but intervals.
PERHAPS_TUBES = (
    "the fibres have dim middles and bright edges, as tubes in dark field, or solid fibres: "
    "diameters are those of solid ones; tubes would be wider, and intervals of medians contain both"
)
#: What is said of ribbons in transmission, and where round fibres may be ribbons.
OF_RIBBONS = (
    "the fibres look equally thick from edge to edge, as ribbons in transmission: diameters are "
    "the widths of such bodies"
)
PERHAPS_RIBBONS = (
    "it does not show whether the fibres are round or, as ribbons, equally thick from edge to "
    "edge: these would be a tenth thinner, as the interval says"
)


# Walls of tubes run in pairs, one on each side, alike and parallel, at most so many of their widths
# apart, and between them is a share of their contrast.
_PAIR, _ALIKE, _TURN, _BETWEEN = (1.3, 8.0), 0.3, 0.15, (0.12, 0.88)
_MIN_PAIRED = 0.4  # of the visible length; of walls, 0.5 and more; of parallel fibres, up to 0.24
_MAX_PLACES = 2000  # that are compared with all others
OF_WALLS = (
    "the lines run in pairs with something between them, as the walls of tubes or bright rims: not "
    "tubes but their walls are seen"
)


@dataclass(frozen=True, eq=False)
class _Models:
    """Models of profiles from the middle outwards, each a sum of columns."""

    radii: Values  # (n,)
    cores: Values  # (n,), over the radii
    bases: FloatMap  # (n, n_columns, n_points), orthonormal
    factors: FloatMap  # (n, n_columns, n_columns), of the columns over those of the bases

    @classmethod
    def of(cls, blurs: Values, radii: Values, cores: Values, shapes: Sequence[Values]) -> _Models:
        """Blur shapes (n, n_fine), and add a constant column."""
        at = _STEP * np.arange(_SHAPE[1] // 2 + 1)
        apart = np.stack([at[:, None] - _fine(), at[:, None] + _fine()])
        weights = np.exp(-((apart / blurs[:, None, None, None]) ** 2) / 2).sum(axis=1)
        weights /= weights.sum(axis=2, keepdims=True)
        blurred = [(weights @ each.T).transpose(0, 2, 1).reshape(-1, len(at)) for each in shapes]
        columns = np.stack([*blurred, np.ones_like(blurred[0])], axis=2)
        bases, triangles = np.linalg.qr(columns)
        factors = np.linalg.inv(triangles).astype(np.float32)
        bases = np.ascontiguousarray(bases.transpose(0, 2, 1), np.float32)
        return cls(np.tile(radii, len(blurs)), np.tile(cores, len(blurs)), bases, factors)

    def fitted(
        self, profiles: FloatMap, fits: Callable[[FloatMap], NDArray[np.bool_]]
    ) -> tuple[Values, Values, Values]:
        """Return the residuals, radii and cores of the best models of profiles (n, n_points)."""
        n, n_columns, n_points = self.bases.shape
        along = (self.bases.reshape(-1, n_points) @ profiles.T).reshape(n, n_columns, -1)
        rest = (profiles**2).sum(axis=1) - (along**2).sum(axis=1)
        rest = np.where(fits(self.factors @ along), np.maximum(rest, 1e-6), n_points / 4)
        best = rest.argmin(axis=0)
        return np.log(rest.min(axis=0) / n_points) / 2, self.radii[best], self.cores[best]


def _fine() -> Values:
    """Return radii out to beyond the reach of profiles."""
    return (np.arange(_FINE * (_SHAPE[1] // 2 + 20)) + 0.5) * _STEP / _FINE


def _flat(radii: Values) -> Values:
    return np.clip((radii[:, None] - _fine()) * _FINE / _STEP + 0.5, 0, 1)


def _round(radii: Values) -> Values:
    return np.sqrt(np.clip(1 - (_fine() / radii[:, None]) ** 2, 0, 1))


def _grid(*values: Sequence[float] | Values) -> list[Values]:
    return [each.ravel() for each in np.meshgrid(*values, indexing="ij")]


@lru_cache(maxsize=1)
def _bodies() -> _Models:
    radii, widths = _grid(_BODIES, _HALOS)
    outside = _fine() - radii[:, None]
    halo = np.exp(-np.maximum(outside, 0) / widths[:, None]) * (outside >= 0)
    return _Models.of(_BLURS, radii, np.ones_like(radii), [_flat(radii), _round(radii), halo])


@lru_cache(maxsize=1)
def _shells() -> _Models:
    radii, cores = _grid(_SHELLS, _CORES)
    outer, inner = ([of(each) for of in (_flat, _round)] for each in (radii, radii * cores))
    shapes = [np.concatenate(outer), np.concatenate(inner)]
    return _Models.of(_SHARP, np.tile(radii, 2), np.tile(cores, 2), shapes)


@lru_cache(maxsize=1)
def _tubes() -> _Models:
    radii, holes, filled, absorbed = _grid(_TUBES, _HOLES, _FILLED, _ABSORBED)
    depth = _round(radii) - ((1 - filled) * holes)[:, None] * _round(radii * holes)
    depth *= (absorbed / depth.max(axis=1))[:, None]
    return _Models.of(_SHARP, radii, holes, [1 - np.exp(-depth)])


@lru_cache(maxsize=1)
def _flat_ones() -> _Models:
    radii = _FLAT_OR_ROUND
    return _Models.of(_SHARP, radii, np.ones_like(radii), [_flat(radii)])


@lru_cache(maxsize=1)
def _round_ones() -> _Models:
    radii, absorbed = _grid(_FLAT_OR_ROUND, _ABSORBED)
    shape = 1 - np.exp(-absorbed[:, None] * _round(radii))
    return _Models.of(_SHARP, radii, np.ones_like(radii), [shape])


@dataclass(frozen=True, eq=False)
class WholeBodies:
    """What mean profiles along long fibres show beside the edges that the network has found."""

    n_wide: Values  # number of fibres side by side at each place
    outer: Values  # diameters at the outer edge, over those found
    doubts: list[tuple[str, float]]  # in words, and by how much intervals may miss for each

    @classmethod
    def of(
        cls, field: Field, found: Appearance, long: LongFibres, few_levels: bool = False
    ) -> WholeBodies:
        """Look for bundles, shells and tubes; few levels of grey make steps as of shells."""
        n_wide = outer = np.ones(len(long.places))
        doubts = list[tuple[str, float]]()
        if not len(long):
            return cls(n_wide, outer, doubts)
        of_fibres = [*long.profiles(field, found.sign, _REACH, _SHAPE)]
        if _are_lit(of_fibres, long):  # a bright edge beside a dim body looks like a bundle
            doubts.append((_LIT_EDGES, _OF_LIT))
        else:
            n_wide, doubts = find_bundles(field, found, long)
            if doubts:
                return cls(n_wide, outer, doubts)
        profiles = np.stack([_mean_profile(each) for _, each in of_fibres])
        wider, words = _outer_edges(profiles, found, long)
        if few_levels and words not in ("", PERHAPS_TUBES):
            words = _PERHAPS_SHELLS
        if words in (_PERHAPS_SHELLS, PERHAPS_TUBES):
            doubts.append((words, math.hypot(_ERROR, np.log(np.median(wider)))))
        elif words:
            outer = wider
            doubts.append((words, _ERROR))
        elif found.look == "transmission":
            outer, of_flat = _of_flat_ones(profiles, long)
            doubts += of_flat
        return cls(n_wide, outer, doubts)


def are_walls(field: Field, sign: float, places: Places, lengths: Values) -> bool:
    """Return whether most places, by their lengths, are walls of tubes."""
    if len(places) < 2:
        return False
    positions, normals, logs = places.positions, places.normals, np.log(places.diameter)
    farthest = _PAIR[1] * float(np.median(places.diameter))
    some = np.arange(len(places))[:: -(-len(places) // _MAX_PLACES)]
    near = cKDTree(positions).query_ball_point(positions[some], farthest)
    one, other = np.repeat(some, [*map(len, near)]), np.concatenate(near).astype(np.intp)
    apart, wide = positions[other] - positions[one], places.diameter[one]
    across = (apart * normals[one]).sum(axis=1)
    along = np.linalg.norm(apart - across[:, None] * normals[one], axis=1)
    turn = np.abs((normals[one] * normals[other]).sum(axis=1))
    facing = (np.abs(across) > _PAIR[0] * wide) & (along < np.maximum(places.length[one], wide))
    facing &= (turn > np.cos(_TURN)) & (np.abs(logs[one] - logs[other]) < _ALIKE)
    one, side = one[facing], across[facing]
    inwards = side[:, None] * normals[one] / 2
    body, inside, beside = (
        sign * field.sample((positions[one] + share * inwards).T) for share in (0, 1, -1)
    )
    filled = (inside - beside) / np.maximum(body - beside, 1e-3)
    is_wall = _within(filled, _BETWEEN)
    if not is_wall.any():
        return False
    is_wall &= np.abs(np.log(np.abs(side) / np.median(np.abs(side[is_wall])))) < _ALIKE
    before, after = (one[is_wall & (side * way > 0)] for way in (-1, 1))
    paired = np.setxor1d(before, after)  # parallel fibres have others on both sides
    return bool(lengths[paired].sum() > _MIN_PAIRED * lengths[some].sum())


def _are_lit(of_fibres: Sequence[tuple[Places, Values]], long: LongFibres) -> bool:
    """Return whether edges towards one side of the image are brighter than the others."""
    towards, away = np.zeros(2), np.abs(_ACROSS)
    edges = np.sign(_ACROSS) * _within(away, _ON_EDGES)
    beside = [_within(side * _ACROSS, _BESIDE) for side in (-1, 1)]
    for (own, profiles), length in zip(of_fibres, long.lengths, strict=True):
        ground = np.min([profiles[:, each].mean(axis=1) for each in beside], axis=0)
        body = np.maximum(profiles[:, away < 1].mean(axis=1) - ground, 1e-3)
        excess = np.clip(profiles @ edges / (edges > 0).sum() / body, -2, 2)
        towards += length * (excess[:, None] * own.normals).mean(axis=0)
    return bool(np.linalg.norm(towards) > _LIT * long.lengths.sum())


def _of_flat_ones(profiles: FloatMap, long: LongFibres) -> tuple[Values, list[tuple[str, float]]]:
    """Return the diameters of ribbons in transmission over those found, and what is doubtful.

    The network has learnt bodies in transmission that are round.
    """
    same, weights = np.ones(len(long.places)), long.lengths
    rest_flat, radii, _ = _flat_ones().fitted(profiles, _is_body)
    rest_round, _, _ = _round_ones().fitted(profiles, _is_body)
    better = np.average(rest_round - rest_flat, weights=weights)
    if better < -_SHOWN_FLAT:
        return same, []
    if better < _SHOWN_FLAT:
        return same, [(PERHAPS_RIBBONS, _EITHER)]
    return same * np.exp(np.average(np.log(radii), weights=weights)), [(OF_RIBBONS, _ERROR)]


def _outer_edges(profiles: FloatMap, found: Appearance, long: LongFibres) -> tuple[Values, str]:
    """Return the outer diameters of places over those found, and a note if they differ."""
    same, weights = np.ones(len(long.places)), long.lengths
    least_thick = 2 * _LEAST_THICK * found.blur / float(np.median(long.places.diameter))
    body, _, _ = _bodies().fitted(profiles, lambda c: _within(c[:, 2], _HALO))
    rest, radii, cores = _shells().fitted(profiles, _is_shell)
    words, clear = _OF_SHELLS, rest < np.log(_MAX_REST)
    if shown := weights @ clear > weights.sum() / 2:
        own = weights * clear
        low, typical, high = np.log(weighted_quantiles(radii, own, [0.16, 0.5, 0.84]))
        better = np.average(body - rest, weights=own) + _ALLOWED
        evidence = better * abs(typical) / max((high - low) / 2, _SPREAD)
        fits = np.average(rest, weights=own) < np.log(_SMALL_REST)
        core = float(weighted_quantiles(cores, own, [0.5])[0])
        is_thick = (1 - core) * np.exp(typical) > least_thick
        shown = bool(is_thick and evidence > (_LEAST if fits else _CLEAR))
    if not shown and found.look == "rims":
        rest, radii, cores = _tubes().fitted(profiles, _is_body)
        clear, worse = np.ones(len(long), bool), np.average(rest - body, weights=weights)
        shown = bool(worse < _WORSE[int(found.sign)])
        words = _OF_TUBES
        if found.sign > 0:
            words = PERHAPS_TUBES
            wide, hole = (weighted_quantiles(each, weights, [0.5])[0] for each in (radii, cores))
            shown = shown and np.log(wide) > _ERROR and (1 - hole) * wide > least_thick
    if not shown:
        return same, ""
    weights = weights * clear
    radii = np.where((radii < _LEAST_WIDER) & (words == _OF_SHELLS), 1, radii)  # without a shell
    typical, core = (weighted_quantiles(each, weights, [0.5])[0] for each in (radii, cores))
    return long.at_places(np.where(clear, radii, typical)), words.format(1 / core)


def _within(values: FloatMap | Values, bounds: tuple[float, float]) -> NDArray[np.bool_]:
    return (bounds[0] < values) & (values < bounds[1])


def _is_body(parts: FloatMap) -> NDArray[np.bool_]:
    return parts[:, 0] > 0


def _is_shell(parts: FloatMap) -> NDArray[np.bool_]:
    shell, core = parts[:, 0], parts[:, 1]
    whole = shell + core
    return (core > 0) & (_SHELL[0] * whole < shell) & (shell < _SHELL[1] * whole)


def _mean_profile(profiles: Values) -> FloatMap:
    """Return the brightness from the middle outwards, from 0 to 1, without what lies beside it."""
    middle = _SHAPE[1] // 2
    sides = np.concatenate([profiles[:, middle:], profiles[:, middle::-1]])
    mean = np.quantile(sides, _DIM, axis=0)
    edge = round(0.8 / _STEP)
    mean[edge:] = np.minimum.accumulate(mean[edge:])
    return np.asarray((mean - mean.min()) / max(np.ptp(mean), 1e-9), np.float32)
