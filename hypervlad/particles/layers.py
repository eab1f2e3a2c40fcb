"""Particles of two layers, as cores in shells or metal on its support: which one is outlined?"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hypervlad.images.morphology import EIGHT, shrunk
from hypervlad.images.resampling import areas_of
from hypervlad.objects.found_counts import SHELLS_OUTLINED
from hypervlad.objects.measures import solidities
from hypervlad.objects.splitting import renumbered
from hypervlad.objects.windows import LabelMap, grown_window

Layer: TypeAlias = Literal["auto", "outer", "inner"]

_MAX_PARTICLES, _N_RAYS = 40, 24  # that are looked at, and from the middle of each
# Of rays beyond outlines, in radii; the quantile, which hardly depends on what lies beside.
_REACH, _STEP, _DIM = 2.0, 0.05, 0.4
# An outer step over the outline; the ratio of usual ones, as edges of supports and of what is
# beside differ more; the share of outlines that have such steps, and their number.
_MIN_WIDER, _ALIKE, _MIN_SHELLS, _MIN_NUMBER = 1.27, 1.22, 0.33, 4
_IF_ASKED = 1.15  # instead of the first, if a layer is asked for
# Of a profile: a rise over the fall so far, where something else begins; slopes between two steps
# over that of the outer one, at most; and the brightness of a shell over that of the middle.
_RISE, _VALLEY, _SHELL = 0.08, 0.75, (0.1, 0.85)
_MIN_LARGE, _MIN_SPOT, _RIM = 300, 12, 3  # pixels: of outlines, of spots, and of edges' width
_MIN_BRIGHTER, _MIN_CLEARER = 0.5, 5.0  # spots than the middle, over its step and its deviation
_OWN = 0.6  # of what is as bright as spots: rims are larger
_MIN_WITHIN, _MIN_SPOTS = 0.15, 3  # of the area, outlines with so many spots
# The outlines of one layer alone, to be meant: their number and what they cover, over those before,
# and the tenth of their solidities, less than 1. Several cores in a shell are upon a support.
_MIN_ALONE, _MIN_COVERED, _MAX_CONCAVE = 0.95, 0.8, 0.12
_MORE_CONVEX = 0.03  # outlines of shells than those before, with gaps along the inner edge
_OF_SHELLS = (
    "around many particles, a second, fainter edge shows, {:.2g} times as wide, as of shells "
    f"around cores: {SHELLS_OUTLINED}; for the cores alone, "
)
_OF_SPOTS = (
    "several small particles lie upon larger, fainter ones, as metal on a support: the small ones "
    "are outlined; for the larger ones, "
)
#: What is said if a layer is asked for that does not show.
NO_LAYER = "no second layer shows in this image, so what stands out most is outlined"


class LayerAlone(NamedTuple):
    """An image in which one layer of particles alone stands out, and a note that it is outlined."""

    grey: NDArray[np.float32]
    is_inner: bool
    note: str

    def outlined(self, own: LabelMap, before: LabelMap, concave: float) -> LabelMap | None:
        """Return the outlines of this image that take the place of those from before; or None.

        Particles without a shell keep theirs: their edges are at another level. Where those have
        gaps, there is a shell.
        """
        if not own.any():
            return None
        covered = 1 if self.is_inner else np.mean(own[before > 0] > 0)
        is_there = covered >= _MIN_COVERED and own.max() >= _MIN_ALONE * before.max()
        if self.note and not (is_there and concave <= _MAX_CONCAVE):
            return None
        if self.is_inner:
            return own
        areas, areas_before = (areas_of(each, int(each.max())) for each in (own, before))
        pairs = np.unique(np.stack([own, before])[:, (own > 0) & (before > 0)], axis=1)
        within = np.bincount(pairs[0], areas_before[pairs[1]], len(areas))
        is_bare = (within > 0) & (areas < _MIN_WIDER**2 * within)
        solid, solid_before = solidities(own), solidities(before)
        gained = np.full(len(areas), -np.inf)
        np.maximum.at(gained, pairs[0], solid[pairs[0] - 1] - solid_before[pairs[1] - 1])
        is_bare &= gained < _MORE_CONVEX
        is_kept = np.isin(np.arange(len(areas_before)), pairs[1][is_bare[pairs[0]]])
        shells = np.where(is_bare[own], 0, own)
        bare = is_kept[before] & (shells == 0)
        return renumbered(np.where(bare, before + own.max(), shells).astype(np.int32))


def layer_alone(
    grey: NDArray[np.float32], labels: LabelMap, polarity: str, wanted: Layer
) -> LayerAlone | None:
    """Return the image without the layer that is not wanted; None if only one shows."""
    sign = 1 if polarity == "bright" else -1
    areas = areas_of(labels, int(labels.max(initial=0)))
    note, is_inner = _OF_SPOTS, True
    levels = _spots(grey, labels, sign, areas, 1 if wanted == "inner" else _MIN_SPOTS)
    if levels is None:
        wider = _MIN_WIDER if wanted == "auto" else _IF_ASKED
        if (shells := _shells(grey, labels, sign, areas, wider)) is None:
            return None
        note, is_inner, levels = _OF_SHELLS.format(shells[0]), False, shells[1:] * 2
    other = "outer" if is_inner else "inner"
    note += f"--set layer={other} (in Python, layer={other!r})"
    if wanted != "auto":
        note, is_inner = "", wanted == "inner"
    clipped = np.maximum if is_inner == (sign > 0) else np.minimum
    return LayerAlone(clipped(grey, np.float32(sign * levels[is_inner])), is_inner, note)


def _spots(
    grey: NDArray[np.float32], labels: LabelMap, sign: int, areas: NDArray[np.int64], least: int
) -> tuple[float, ...] | None:
    """Return the brightness beside and below sharp spots, if large outlines have several within."""
    levels, windows = list[tuple[float, float]](), ndimage.find_objects(labels)
    within = looked_at = 0
    for number in (1 + np.argsort(-areas[1:], kind="stable")[:_MAX_PARTICLES]).tolist():
        if areas[number] < _MIN_LARGE:
            break
        looked_at += int(areas[number])
        window = windows[number - 1]
        around = grown_window(window, 2 * _RIM)
        own, free = labels[around] == number, labels[around] == 0
        inner = shrunk(own, _RIM)
        if not (inner.any() and free.any()):
            continue
        values = ndimage.gaussian_filter(sign * grey[around], 0.7)
        middle, top = np.quantile(values[inner], [0.5, 0.99]).tolist()
        step = middle - np.median(values[free])
        deviation = 1.4826 * np.median(np.abs(values[inner] - middle))
        if top - middle < max(_MIN_BRIGHTER * step, _MIN_CLEARER * deviation):
            continue
        sizes = areas_of(*ndimage.label(own & (values > (middle + top) / 2), EIGHT))[1:]
        is_spot = (sizes >= _MIN_SPOT) & (sizes < areas[number] / (2 * least))
        if is_spot.sum() >= least and sizes[is_spot].sum() > _OWN * sizes.sum():
            within += int(areas[number])
            levels.append((middle, 0.75 * middle + 0.25 * top))
    is_usual = within > _MIN_WITHIN * looked_at
    return tuple(np.median(levels, axis=0).tolist()) if is_usual else None


def _shells(
    grey: NDArray[np.float32], labels: LabelMap, sign: int, areas: NDArray[np.int64], least: float
) -> tuple[float, float] | None:
    """Return how wide a second, fainter step around outlines is, and its brightness."""
    found = [(0.0, 0.0)]
    for profile, radius in zip(*_profiles(grey, labels, sign, areas), strict=True):
        known = profile[: int(np.append(np.isfinite(profile), False).argmin())]
        if len(known) > 1.5 / _STEP:
            smooth = ndimage.gaussian_filter1d(known, max(0.8, 0.35 / (_STEP * radius)))
            found.append(_outer_step(smooth, 2 / _STEP))
    wider, levels = np.transpose(found[1:] or found) * [[_STEP], [1]]
    typical = np.median(wider[wider >= least]) if wider.max() >= least else np.inf
    is_shell = (wider > typical / _ALIKE) & (wider < typical * _ALIKE)
    if is_shell.sum() < max(_MIN_NUMBER, _MIN_SHELLS * len(wider)):
        return None
    return float(typical), float(np.median(levels[is_shell]))


def _profiles(
    grey: NDArray[np.float32], labels: LabelMap, sign: int, areas: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the brightness of some from their radius within outlines to beyond, and the radii.

    It is infinite where another particle, or the image's edge, is nearer.
    """
    numbers = np.arange(1, len(areas))[:: -(-len(areas) // _MAX_PARTICLES)]
    boxes = [[(s.start, s.stop - 1) for s in box] for box in ndimage.find_objects(labels)]
    middles = np.array(boxes)[numbers - 1].mean(axis=2)[:, :, None, None]
    angles, radii = np.arange(_N_RAYS) * 2 * np.pi / _N_RAYS, np.sqrt(areas[numbers] / np.pi)
    lengths = np.arange(0, 3 + _REACH, _STEP) * radii[:, None, None, None]
    rays = np.stack([np.sin(angles), np.cos(angles)])[:, :, None]
    places = np.rint(middles + rays * lengths).astype(int)
    inside = places.clip(0, np.reshape(labels.shape, (2, 1, 1)) - 1)
    y, x = inside[:, 0], inside[:, 1]
    there = np.where((places == inside).all(axis=1), labels[y, x], -1)
    is_own = there == numbers[:, None, None]
    edges = is_own.cumprod(axis=2).sum(axis=2, keepdims=True)
    at = edges + np.arange(round(-1 / _STEP), round(_REACH / _STEP))
    hidden = np.logical_or.accumulate((there != 0) & ~is_own, axis=2)
    values = np.where(hidden, np.inf, sign * grey[y, x])
    values = np.sort(np.take_along_axis(values, at.clip(0, values.shape[2] - 1), axis=2), axis=1)
    n = np.count_nonzero(np.isfinite(values), axis=1)
    found = np.take_along_axis(values, (_DIM * n).astype(int)[:, None], axis=1)[:, 0]
    return np.where(n >= _N_RAYS / 4, found, np.inf), radii


def _outer_step(profile: NDArray[np.float64], per_diameter: float) -> tuple[int, float]:
    """Return where the brightness falls once more after a core, from its middle; 0 if nowhere.

    With it comes the brightness between both steps. Diameters of the core have `per_diameter`
    points of the profile.
    """
    inside, edge, beyond = (round(share * per_diameter) for share in (0.25, 0.4, 0.75))
    top, lowest = profile[:inside].max(), np.minimum.accumulate(profile)
    rises = (profile - lowest > _RISE * (top - lowest)) & (np.arange(len(profile)) > edge)
    profile = profile[: int(rises.argmax()) if rises.any() else None]
    profile = profile[: int(profile.argmin()) + 1]
    bottom, height = profile[-1], top - profile[-1]
    if len(profile) <= beyond or height <= 0:
        return 0, bottom
    slope = -np.gradient(profile)
    first = inside + int(slope[inside:beyond].argmax())
    after = slope[first:]
    second = int((after - np.minimum.accumulate(after)).argmax())
    valley = int(after[: second + 1].argmin())
    shell = profile[first + valley] - bottom
    is_step = after[valley] < _VALLEY * after[second] and after[second] > 0.1 * after[0]
    if not (is_step and _SHELL[0] * height < shell < _SHELL[1] * height):
        return 0, bottom
    # Edges of flat shells are at half the brightness, of round ones further out.
    outer = first + valley + int((profile[first + valley :] < bottom + shell / 3).argmax())
    return outer, float(bottom + shell)
