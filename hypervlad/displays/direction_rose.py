"""A rose of directions, and the half wheel that says which colour stands for which."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hypervlad.displays.axis_colours import coloured, direction_colours
from hypervlad.displays.tiles import GREY

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Place = tuple[float, float]
_POINTS = 8.0
_WHEEL_PIXELS = 200
_WHEEL_GREY = 0.8  # that of bright fibres
_SEAM = 0.5  # points
_FAINT = "#cccccc"
_DARK = "#222222"


def rose_weights(angles: ArrayLike, weights: ArrayLike, n_bins: int = 24) -> NDArray[np.float64]:
    """Return the share of the weight that points into each part of half a turn.

    Parameters
    ----------
    angles : array-like of float
        Radians.
    weights : array-like of float
        At least 0.
    n_bins : int, default=24
        The first is centred on 0.

    Returns
    -------
    ndarray of shape (n_bins,)
        Of sum 1; all 0 where there is no weight.

    Examples
    --------
    >>> import numpy as np
    >>> from hypervlad.displays.direction_rose import rose_weights
    >>> rose_weights([0.0, 3.1, np.pi / 2], [1, 1, 2], n_bins=4)
    array([0.5, 0. , 0.5, 0. ])
    """
    bins = np.rint(np.ravel(angles) * (n_bins / np.pi)).astype(np.intp) % n_bins
    sums = np.bincount(bins, np.ravel(weights), n_bins)
    return np.asarray(sums / (sums.sum() or 1.0))


def draw_rose(
    ax: Axes, centre: Place, radius: float, shares: NDArray[np.float64], mean: float | None
) -> None:
    """Draw a rose whose petals have areas in proportion to their shares, and its mean axis.

    Each direction is drawn twice, half a turn apart, as an axis has no head.

    Parameters
    ----------
    ax : matplotlib Axes
        Its y axis points down.
    centre : (float, float)
    radius : float
        Of the longest petal.
    shares : ndarray of shape (n_bins,)
        As `rose_weights` returns them.
    mean : float or None
        Radians; None for no line.
    """
    from matplotlib.patches import Circle, Wedge

    for share in (0.5, 1.0):
        ax.add_patch(Circle(centre, share * radius, fill=False, ec=_FAINT, lw=0.7, zorder=1))
    for angle in np.arange(4) * np.pi / 4:
        _draw_axis(ax, centre, radius, angle, color=_FAINT, lw=0.7, zorder=1)
    n_bins, half = len(shares), 90 / len(shares)
    lengths = radius * np.sqrt(shares / (shares.max() or 1.0))
    for k in np.flatnonzero(shares):
        colour = direction_colours(k * np.pi / n_bins)
        for turn in (0, 180):
            # Downwards is positive here, so degrees run the other way.
            middle = turn - 180 * k / n_bins
            petal = Wedge(centre, lengths[k], middle - half, middle + half, zorder=2)
            # An edge of its colour: the smoothed sides of neighbours let the ground shine through.
            petal.set(fc=colour, ec=colour, lw=_SEAM, joinstyle="miter")
            ax.add_patch(petal)
    if mean is not None:
        _draw_axis(ax, centre, radius, mean, color=_DARK, lw=1.4, ls=(0, (4, 2)), zorder=3)
    draw_degrees(ax, centre, radius, (0, 45, 90, 135))


def draw_wheel(ax: Axes, centre: Place, radius: float) -> None:
    """Draw the colours of directions as half a disc: the coherence grows from centre to rim.

    Parameters
    ----------
    ax : matplotlib Axes
        Its y axis points down.
    centre : (float, float)
        Of the whole disc: the middle of the lower edge.
    radius : float
    """
    (x, y), side = centre, _WHEEL_PIXELS
    up, across = np.mgrid[1 : 0 : side * 1j, -1 : 1 : 2 * side * 1j]
    distance = np.hypot(up, across)
    colours = coloured(
        np.full(up.shape, _WHEEL_GREY), np.arctan2(up, across), np.minimum(distance, 1)
    )
    edge = np.clip((1 - distance) * side, 0, 1)[..., None]
    extent = (x - radius, x + radius, y, y - radius)
    ax.imshow(np.concatenate([colours, edge], axis=-1), extent=extent, zorder=2)
    draw_degrees(ax, centre, radius, (0, 45, 90, 135, 180))


def draw_degrees(ax: Axes, centre: Place, radius: float, degrees: tuple[int, ...]) -> None:
    """Write degrees around a circle."""
    (x, y), gap = centre, 1.07 * radius
    for each in degrees:
        across, up = np.cos(np.deg2rad(each)), np.sin(np.deg2rad(each))
        ax.text(
            x + gap * across,
            y - gap * up,
            f"{each}°",
            ha="center" if abs(across) < 0.1 else "left" if across > 0 else "right",
            va="center" if up < 0.1 else "bottom",
            fontsize=_POINTS,
            color=GREY,
        )


def _draw_axis(ax: Axes, centre: Place, radius: float, angle: float, **style: Any) -> None:
    (x, y), across, up = centre, radius * np.cos(angle), radius * np.sin(angle)
    ax.plot([x - across, x + across], [y + up, y - up], solid_capstyle="butt", **style)
