"""Margins of one level: what surrounds an image that was turned, shifted or seen through a hole."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hypervlad.images.morphology import Mask, convex_hull, grown, shrunk
from hypervlad.images.resampling import areas_of

# Margins have one level: compression changes it by so much, but half of it by little, and where
# much within has it, it is the background's. The rest is convex, with other levels along its edge,
# and leaves two corners of the image or more. It reaches all sides, or leaves all corners, and is
# so large, or larger; or it is a rectangle.
_BLANK, _RINGING, _EXACT, _LEAST_MARGIN, _FOLLOWED = 2, 20, 0.5, 0.005, 0.9
_MAX_WITHIN, _WITHIN, _TO_ALL_SIDES = 0.3, 0.6, 0.45
_BLURRED = 3  # pixels, of the edge
_BESIDE = 4  # pixels beside the edge, within which other levels are
_RECTANGLE = 0.97  # least share of its box that a rectangle fills
# What else is in the margin, such as letters or an axis with its ticks, is at most this share of
# it; so many of its pixels away from that have its level. Without that, the rest is a rectangle, a
# disc or tiles, with an edge so crisp that the second of its pixels has such a share of the
# contrast within. Crystals on clipped ground have less.
_MAX_DRAWN, _LEVEL, _CRISP = 0.15, 0.9, 0.8
# Or it is put together from tiles: nearly all of its outline is straight for so many pixels. Leaks
# and specks of so many pixels do not count.
_SPECK, _STRAIGHT, _LEAST_STRAIGHT = 5, 12, 0.9
# Or it is a field of view that reaches few sides: a disc within so much of its radius, so wide, by
# the shorter side, with a crisp edge, where it is nearly as bright as further within, and parts, of
# so many pixels, of other levels. Round particles have blurred, bright or dark edges, or are even.
_ROUND, _WIDE, _CHANGE, _VARIED, _PART = 0.01, 0.6, 0.25, 0.04, 8
# That is looked for at so few pixels a side first, and levels at no more than so many.
_ROUGH, _LARGE = 512, 4096

Grey: TypeAlias = NDArray[np.float32]


def find_margins(grey: Grey) -> list[Mask]:
    """Return where margins are, (H, W), of each level, in levels of 0 to 255."""
    corners = [each for rows in (grey[:3], grey[-3:]) for each in (rows[:, :3], rows[:, -3:])]
    levels = {float(np.median(each)) for each in corners if np.ptp(each) <= _BLANK}
    found = (_margin_of(grey, level) for level in sorted(levels))
    return [each for each in found if each is not None]


def _margin_of(grey: Grey, level: float) -> Mask | None:
    other = _differs(grey, level, _RINGING)
    if not 0 < other.mean() <= 1 - _LEAST_MARGIN:
        return None
    margin = _margin_around(grey, level, other)
    if margin is None and (main := _largest_part(other)).any():
        margin = _margin_around(grey, level, main, is_part=True)
        if margin is not None and not _is_drawn_upon(grey, level, margin, other):
            return None
    return margin


def _largest_part(other: Mask) -> Mask:
    """Return what is largest, without specks, the lines at its edges, and what is apart from it."""
    solid = _without_specks(np.pad(other, _SPECK, "edge"))
    parts, n = ndimage.label(solid[_SPECK:-_SPECK, _SPECK:-_SPECK])
    sizes = areas_of(parts, n)
    largest: Mask = parts == sizes[1:].argmax() + 1 if len(sizes) > 1 else parts > 0
    return largest


def _without_specks(mask: Mask) -> Mask:
    """Return a mask without gaps, and then without parts, in which no square of a speck lies."""
    closed = shrunk(grown(mask, _SPECK // 2, corners=True), _SPECK // 2, corners=True)
    return grown(shrunk(closed, _SPECK // 2, corners=True), _SPECK // 2, corners=True)


def _is_drawn_upon(grey: Grey, level: float, margin: Mask, other: Mask) -> bool:
    """Return whether a margin has one level but for a little, and the rest is crisp and solid."""
    if other[margin].mean() > _MAX_DRAWN or other[~margin].mean() < 1 - _MAX_WITHIN:
        return False
    away = margin & ~grown(other, _BESIDE, corners=True)
    if not away.any() or _differs(grey[away], level, _BLANK).mean() > 1 - _LEVEL:
        return False
    depths = 1, 2, _BESIDE, _PART
    beyond = [~grown(margin, depth, corners=True) for depth in depths]
    edge, within = (
        np.median(np.abs(grey[low & ~high] - level)) for low, high in (beyond[:2], beyond[2:])
    )
    return bool(edge >= _CRISP * within)


def _margin_around(grey: Grey, level: float, other: Mask, *, is_part: bool = False) -> Mask | None:
    shown = convex_hull(other)
    ends = [np.flatnonzero(shown.any(axis=axis))[[0, -1]] for axis in (1, 0)]
    spaces = [(low, n - 1 - high) for (low, high), n in zip(ends, grey.shape, strict=True)]
    box = np.prod([high + 1 - low for low, high in ends])
    is_apart = is_part or np.min(spaces) > _BLURRED
    is_shape = not is_apart or shown.sum() >= _RECTANGLE * box
    candidates = [(~shown, 2)] if is_shape else []  # and how many corners of the image it has
    reaches_all = np.max(spaces) <= _BLURRED
    if reaches_all:
        candidates = [(_around_tiles(other), 1), *candidates]
    for margin, least_corners in candidates:
        n_corners = margin[[0, 0, -1, -1], [0, -1, 0, -1]].sum()
        least = _TO_ALL_SIDES if reaches_all or n_corners == 4 else _WITHIN
        is_large = least <= 1 - margin.mean() <= 1 - _LEAST_MARGIN
        if is_large and n_corners >= least_corners and _surrounds(grey, level, margin, other):
            return margin
    field = None if reaches_all else _field_of_view(grey, level, shown)
    return ~field if field is not None and _surrounds(grey, level, ~field, other) else None


def _differs(grey: Grey, level: float, by: float) -> Mask:
    """Return where a level is not, without a copy of the largest images as numbers."""
    return (grey > level + by) | (grey < level - by)


def _surrounds(grey: Grey, level: float, margin: Mask, other: Mask) -> bool:
    """Return whether a margin has one level, and what is beside it others."""
    edge = ~margin & grown(margin, corners=True)
    has_level = ~_differs(grey, level, _BLANK)
    own, within = has_level[margin].mean(), has_level[~margin].mean()
    followed = grown(other, _BESIDE, corners=True)[edge].mean()
    return bool(own >= _EXACT and within <= _MAX_WITHIN and followed >= _FOLLOWED)


def _around_tiles(other: Mask) -> Mask:
    """Return where no other levels are from the sides on, if the outline has straight steps."""
    beyond = 2 * _SPECK
    parts, _ = ndimage.label(_without_specks(np.pad(~other, beyond, constant_values=True)))
    margin: Mask = (parts == parts[_SPECK, _SPECK])[beyond:-beyond, beyond:-beyond]
    del parts  # of the largest images, they take 256 MB
    steps = [own[1:] != own[:-1] for own in (margin, margin.T)]
    line = 1, _STRAIGHT
    straight = (ndimage.grey_opening(np.uint8(own), line, mode="constant") for own in steps)
    n_steps, n_straight = (sum(map(np.count_nonzero, own)) for own in (steps, straight))
    if n_straight >= _LEAST_STRAIGHT * n_steps and ndimage.label(~margin)[1] == 1:
        return margin
    return np.zeros_like(margin)


def _field_of_view(grey: Grey, level: float, shown: Mask) -> Mask | None:
    """Return what is shown if it is a disc, does not reach all sides, and is an image itself."""
    shortest = max(_WIDE * min(grey.shape), 8 * _PART)
    step = -(-max(grey.shape) // _ROUGH)
    some, contrast = shown[::step, ::step], np.abs(grey[::step, ::step] - level)
    if not contrast[some].any():  # specks
        return None
    _, radius = _disc_of(convex_hull(contrast > np.median(contrast[some]) / 2), 2 * _ROUND)
    if 2 * step * (radius + 1) < shortest:
        return None
    step = -(-max(grey.shape) // _LARGE)
    some, contrast = shown[::step, ::step], np.abs(grey[::step, ::step] - level)
    shown = convex_hull(_differs(grey, level, np.median(contrast[some]) / 2))
    middle, radius = _disc_of(shown, _ROUND)
    if 2 * radius < shortest:
        return None
    rows, columns = (
        np.arange(0, n, step, dtype=np.float32) - at
        for n, at in zip(shown.shape, middle, strict=True)
    )
    depth = np.float32(radius) - np.hypot(rows[:, None], columns)
    near, edge, inner = (
        np.median(contrast[(depth > low) & (depth <= high)])
        for low, high in ((1, 2), (_BESIDE, _PART), (0.3 * radius, radius))
    )
    parts = ndimage.uniform_filter(contrast, _PART)[depth > step * _PART]
    is_field = (
        np.mean(contrast[depth < -_BESIDE] <= _BLANK) >= _FOLLOWED
        and near >= (1 - _CHANGE) * edge
        and abs(edge - inner) <= _CHANGE * inner
        and parts.std() >= _VARIED * inner
    )
    return shown if is_field else None


def _disc_of(shown: Mask, within: float) -> tuple[list[float], float]:
    """Return the middle and the radius of a convex part, or 0 if it is no disc within this."""
    radius = np.sqrt(shown.sum() / np.pi)
    middle = [
        np.average(np.arange(n), weights=shown.sum(axis=1 - k)) for k, n in enumerate(shown.shape)
    ]
    places = np.argwhere(shown & ~shrunk(shown))
    off = np.abs(np.linalg.norm(places - middle, axis=1) - radius)
    return middle, radius if np.mean(off <= max(2, within * radius)) >= _FOLLOWED else 0.0
