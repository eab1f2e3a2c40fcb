"""The regions of a common direction, drawn over an image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hypervlad.displays.alignment_table import window_sides
from hypervlad.displays.axis_colours import Colours, coloured
from hypervlad.fibres import AlignedFraction

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Segment = tuple[tuple[float, float], tuple[float, float]]
_POINTS = 72  # an inch
_TINT = 0.75
_DIMMED = 0.45  # brightness of background windows
_SMALLEST = 0.02  # inches: three pixels of a page
_FEW = 10  # regions whose outlines are drawn in full width
_BAR = 0.7  # half its length, over the radius of the largest disc in the region


def tinted_regions(grey: NDArray[np.floating], aligned: AlignedFraction) -> Colours:
    """Colour regions by their mean directions, and darken windows that are background.

    Parameters
    ----------
    grey : ndarray of shape (h, w)
        The image, in [0, 1], of its own size or shrunk.
    aligned : AlignedFraction

    Returns
    -------
    ndarray of float32, shape (h, w, 3)
    """
    ends = (aligned.rows, aligned.columns)
    which = np.ix_(*(_windows_at(edges, n) for edges, n in zip(ends, grey.shape, strict=True)))
    labels, background = _labels_of_windows(aligned)[which], aligned.background[which]
    angles = np.array([0.0, *(region.mean_angle for region in aligned.regions)], dtype=np.float32)
    tinted = coloured(grey, angles[labels], _TINT * (labels > 0))
    tinted[background] *= np.float32(_DIMMED)
    return tinted


def outlines(aligned: AlignedFraction) -> list[Segment]:
    """Return the sides of windows that part a region from what is beside it.

    Regions of one window have none: many such outlines would hide the image.

    Returns
    -------
    list of ((x, y), (x, y))
        In pixels, from the upper left corner of the image.
    """
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
    """Yield a bar along the mean direction of each region, in the middle of its widest part.

    Yields
    ------
    (x, y), (x, y)
        In pixels, from the upper left corner of the image.
    """
    from scipy.ndimage import distance_transform_edt

    labels = _labels_of_windows(aligned)
    for region in aligned.regions:
        inside = np.pad(labels == region.label, 1)
        depth = distance_transform_edt(inside)[1:-1, 1:-1]
        i, j = np.unravel_index(_innermost(depth), depth.shape)
        y, x = aligned.rows[i : i + 2].mean(), aligned.columns[j : j + 2].mean()
        reach = _BAR * (depth[i, j] - 0.5) * min(window_sides(aligned))
        across, up = reach * np.cos(region.mean_angle), reach * np.sin(region.mean_angle)
        yield (x - across, y + up), (x + across, y - up)


def draw_regions(ax: Axes, aligned: AlignedFraction, left: float, top: float, scale: float) -> None:
    """Draw outlines and bars over an image.

    Parameters
    ----------
    ax : matplotlib Axes
        Its y axis points down.
    aligned : AlignedFraction
    left, top : float
        The image's upper left corner.
    scale : float
        Units of `ax`, which are inches, a pixel of the image.
    """
    window = scale * min(window_sides(aligned))
    sides, bars = (
        np.asarray(lines).reshape(-1, 2, 2) * scale + (left, top)
        for lines in (outlines(aligned) if window > _SMALLEST else [], list(mean_bars(aligned)))
    )
    n_joined = sum(region.n_windows > 1 for region in aligned.regions)
    crowd = min(1.0, (_FEW / max(n_joined, 1)) ** 0.5)
    _draw_lines(ax, sides, np.clip(_POINTS * 0.07 * window * crowd, 0.3, 1.1), "projecting")
    lengths = np.linalg.norm(bars[:, 1] - bars[:, 0], axis=1)
    long = lengths > _SMALLEST
    _draw_lines(ax, bars[long], np.clip(_POINTS * 0.12 * lengths[long], 0.4, 2.2), "round")


def _draw_lines(
    ax: Axes,
    lines: NDArray[np.float64],
    widths: ArrayLike,
    capstyle: Literal["projecting", "round"],
) -> None:
    """Draw white lines with a dark seam, so that they are seen on any ground."""
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
    """Return where a region is deepest, of several such places the one in their middle."""
    deepest = np.argwhere(depth >= depth.max() - 1e-9)
    away = np.linalg.norm(deepest - deepest.mean(axis=0), axis=1)
    return int(np.ravel_multi_index(tuple(deepest[away.argmin()]), depth.shape))


def _labels_of_windows(aligned: AlignedFraction) -> NDArray[np.int32]:
    return aligned.labels[np.ix_(aligned.rows[:-1], aligned.columns[:-1])]


def _windows_at(edges: NDArray[np.intp], n: int) -> NDArray[np.intp]:
    """Return which window each of n points is in, which share out the image evenly."""
    places = (np.arange(n) + 0.5) * (edges[-1] / n)
    return np.searchsorted(edges, places, side="right") - 1
