"""Drawing of directions: regions, the rose and the wheel of colours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hypervlad.fibres import AlignedFraction
from hypervlad.pages.base import thumbnail, write
from hypervlad.pages.colours import (
    DARK,
    GREY,
    Colours,
    direction_colours,
    tint_by_direction,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Point = tuple[float, float]
Segment = tuple[Point, Point]
FloatMap = NDArray[np.float32]

_POINTS_PER_INCH = 72
_FONT_POINTS = 8.0
# Regions
_TINT = 0.75
_BACKGROUND_BRIGHTNESS = 0.45
_MIN_LENGTH = 0.02  # inches: three pixels of a page
_N_FULL_WIDTH = 10  # regions whose outlines are drawn in full width
_BAR = 0.7  # half its length, over the radius of the largest disc in the region
# Rose and wheel
_N_PETALS = 24  # over half a turn
_WHEEL_PIXELS = 200
_WHEEL_GREY = 0.8  # of bright fibres
_SEAM = 0.5  # points
_FAINT = "#cccccc"


def shrink_directions(
    orientation: NDArray[Any], coherence: NDArray[Any], side: int
) -> tuple[FloatMap, FloatMap]:
    """Shrink maps of directions, in radians, as `thumbnail` does: a mean weighted by coherence."""
    doubled = np.multiply(orientation, 2, dtype=np.float32)
    across, up = (thumbnail(coherence * part(doubled), side) for part in (np.cos, np.sin))
    return np.arctan2(up, across) / 2, np.hypot(across, up)


def tinted_regions(grey: NDArray[np.floating], aligned: AlignedFraction) -> Colours:
    """Tint regions of a grey image by their mean directions, and darken the background."""
    ends = (aligned.rows, aligned.columns)
    which = np.ix_(*(_windows_at(edges, n) for edges, n in zip(ends, grey.shape, strict=True)))
    labels, background = _labels_of_windows(aligned)[which], aligned.background[which]
    angles = np.array([0.0, *(region.mean_angle for region in aligned.regions)], dtype=np.float32)
    tinted = tint_by_direction(grey, angles[labels], _TINT * (labels > 0))
    tinted[background] *= np.float32(_BACKGROUND_BRIGHTNESS)
    return tinted


def outlines(aligned: AlignedFraction) -> list[Segment]:
    """Return the sides of windows, in pixels, that outline regions of more than one window."""
    # Outlines of single windows would hide the image.
    joined = np.array([False, *(region.n_windows > 1 for region in aligned.regions)])
    own = _labels_of_windows(aligned)
    labels = np.pad(np.where(joined[own], own, 0), 1)
    rows, columns = aligned.rows.tolist(), aligned.columns.tolist()
    level = np.argwhere(labels[:-1, 1:-1] != labels[1:, 1:-1])
    upright = np.argwhere(labels[1:-1, :-1] != labels[1:-1, 1:])
    return [((columns[j], rows[i]), (columns[j + 1], rows[i])) for i, j in level] + [
        ((columns[j], rows[i]), (columns[j], rows[i + 1])) for i, j in upright
    ]


def mean_bars(aligned: AlignedFraction) -> Iterator[Segment]:
    """Yield a bar in pixels along the mean direction of each region, centred in its widest part."""
    from scipy.ndimage import distance_transform_edt

    labels = _labels_of_windows(aligned)
    for region in aligned.regions:
        inside = np.pad(labels == region.label, 1)
        depth = distance_transform_edt(inside)[1:-1, 1:-1]
        i, j = np.unravel_index(_innermost(depth), depth.shape)
        y, x = aligned.rows[i : i + 2].mean(), aligned.columns[j : j + 2].mean()
        reach = _BAR * (depth[i, j] - 0.5) * min(aligned.window_sides)
        across, up = reach * np.cos(region.mean_angle), reach * np.sin(region.mean_angle)
        yield (x - across, y + up), (x + across, y - up)


def draw_regions(ax: Axes, aligned: AlignedFraction, left: float, top: float, scale: float) -> None:
    """Draw outlines and bars over an image; its pixels are `scale` inches wide.

    Here and below, the unit of `ax` is an inch, and its y axis points down.
    """
    window = scale * min(aligned.window_sides)
    sides, bars = (
        np.asarray(lines).reshape(-1, 2, 2) * scale + (left, top)
        for lines in (outlines(aligned) if window > _MIN_LENGTH else [], list(mean_bars(aligned)))
    )
    n_joined = sum(region.n_windows > 1 for region in aligned.regions)
    crowd = min(1.0, (_N_FULL_WIDTH / max(n_joined, 1)) ** 0.5)
    _draw_lines(
        ax, sides, np.clip(_POINTS_PER_INCH * 0.07 * window * crowd, 0.3, 1.1), "projecting"
    )
    lengths = np.linalg.norm(bars[:, 1] - bars[:, 0], axis=1)
    long = lengths > _MIN_LENGTH
    _draw_lines(ax, bars[long], np.clip(_POINTS_PER_INCH * 0.12 * lengths[long], 0.4, 2.2), "round")


def _draw_lines(
    ax: Axes,
    lines: NDArray[np.float64],
    widths: ArrayLike,
    capstyle: Literal["projecting", "round"],
) -> None:
    """Draw white lines with a dark border, which are visible on any background."""
    from matplotlib.collections import LineCollection

    for colour, wider, layer, opacity in (("black", 2.0, 2, 0.6), ("white", 1.0, 3, 1.0)):
        drawn = LineCollection(
            list(lines),
            colors=colour,
            linewidths=wider * np.atleast_1d(widths),
            alpha=opacity,
            zorder=layer,
            capstyle=capstyle,
        )
        ax.add_collection(drawn, autolim=False)


def _innermost(depth: NDArray[np.float64]) -> int:
    """Return the place farthest from the edge of a region; of several, the most central one."""
    deepest = np.argwhere(depth >= depth.max() - 1e-9)
    away = np.linalg.norm(deepest - deepest.mean(axis=0), axis=1)
    return int(np.ravel_multi_index(tuple(deepest[away.argmin()]), depth.shape))


def _labels_of_windows(aligned: AlignedFraction) -> NDArray[np.int32]:
    return aligned.labels[np.ix_(aligned.rows[:-1], aligned.columns[:-1])]


def _windows_at(edges: NDArray[np.intp], n: int) -> NDArray[np.intp]:
    places = (np.arange(n) + 0.5) * (edges[-1] / n)
    windows: NDArray[np.intp] = np.searchsorted(edges, places, side="right") - 1
    return windows


def rose_weights(angles: ArrayLike, weights: ArrayLike) -> NDArray[np.float64]:
    """Return the histogram of directions, in radians, over half a turn; bin 0 is centred on 0."""
    bins = np.rint(np.ravel(angles) * (_N_PETALS / np.pi)).astype(np.intp) % _N_PETALS
    sums = np.bincount(bins, np.ravel(weights), _N_PETALS)
    return np.asarray(sums / (sums.sum() or 1.0))


def draw_rose(
    ax: Axes, centre: Point, radius: float, shares: NDArray[np.float64], mean: float | None
) -> None:
    """Draw a rose, whose petals have areas proportional to their shares, and the mean axis."""
    from matplotlib.patches import Circle, Wedge

    for share in (0.5, 1.0):
        ax.add_patch(Circle(centre, share * radius, fill=False, ec=_FAINT, lw=0.7, zorder=1))
    for angle in np.arange(4) * np.pi / 4:
        _draw_axis(ax, centre, radius, angle, color=_FAINT, lw=0.7, zorder=1)
    half = 90 / _N_PETALS
    lengths = radius * np.sqrt(shares / (shares.max() or 1.0))
    for k in np.flatnonzero(shares):
        colour = direction_colours(k * np.pi / _N_PETALS)
        for turn in (0, 180):
            # The y axis points down, so degrees run the other way.
            middle = turn - 180 * k / _N_PETALS
            petal = Wedge(centre, lengths[k], middle - half, middle + half, zorder=2)
            # An edge of the same colour hides the gap that antialiasing leaves between petals.
            petal.set(fc=colour, ec=colour, lw=_SEAM, joinstyle="miter")
            ax.add_patch(petal)
    if mean is not None:
        _draw_axis(ax, centre, radius, mean, color=DARK, lw=1.4, ls=(0, (4, 2)), zorder=3)
    _draw_degrees(ax, centre, radius, (0, 45, 90, 135))


def draw_wheel(ax: Axes, centre: Point, radius: float) -> None:
    """Draw the colours of directions as half a disc; the coherence rises from centre to rim."""
    (x, y), side = centre, _WHEEL_PIXELS
    up, across = np.mgrid[1 : 0 : side * 1j, -1 : 1 : 2 * side * 1j]
    distance = np.hypot(up, across)
    colours = tint_by_direction(
        np.full(up.shape, _WHEEL_GREY), np.arctan2(up, across), np.minimum(distance, 1)
    )
    edge = np.clip((1 - distance) * side, 0, 1)[..., None]
    extent = (x - radius, x + radius, y, y - radius)
    ax.imshow(np.concatenate([colours, edge], axis=-1), extent=extent, zorder=2)
    _draw_degrees(ax, centre, radius, (0, 45, 90, 135, 180))


def _draw_degrees(ax: Axes, centre: Point, radius: float, degrees: tuple[int, ...]) -> None:
    (x, y), gap = centre, 1.07 * radius
    for each in degrees:
        across, up = np.cos(np.deg2rad(each)), np.sin(np.deg2rad(each))
        write(
            ax,
            x + gap * across,
            y - gap * up,
            f"{each}°",
            ha="center" if abs(across) < 0.1 else "left" if across > 0 else "right",
            va="center" if up < 0.1 else "bottom",
            fontsize=_FONT_POINTS,
            color=GREY,
        )


def _draw_axis(ax: Axes, centre: Point, radius: float, angle: float, **style: Any) -> None:
    (x, y), across, up = centre, radius * np.cos(angle), radius * np.sin(angle)
    ax.plot([x - across, x + across], [y + up, y - up], solid_capstyle="butt", **style)
