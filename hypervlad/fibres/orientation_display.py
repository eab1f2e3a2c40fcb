"""Directions of fibres: in colours over the image, as regions, and as a rose."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hypervlad.common.wording import counted
from hypervlad.fibres import AlignedFraction, AlignmentRecipe, AlignmentResult, AxialStatistics
from hypervlad.pages.base import Display, literal, shorten, thumbnail, write
from hypervlad.pages.colours import (
    DARK,
    GREY,
    Colours,
    direction_colours,
    stretch_contrast,
    tint_by_direction,
)
from hypervlad.pages.numbers import draw_scale_bar, length_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Point = tuple[float, float]
Segment = tuple[Point, Point]

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
_SHOWN_PIXELS = 700
_STRIP = 2.5  # width over height from which images are placed one above the other
# Lengths in inches.
_SIDE = 3.4  # longer side of an image
_WIDE, _TALL = 7.0, 5.0  # longer side of a strip
_MIN_CELL = 2.8  # for a caption
_MIN_BAR_WIDTH, _MIN_BAR_HEIGHT, _BELOW = 0.7, 0.6, 0.36  # of images with scale bars
_GAP, _MARGIN = 0.12, 0.06
_LINE, _CAPTION = 0.17, 0.42
_WHEEL, _ROSE = 0.48, 0.52
_LABEL = 0.2  # height of the degrees above and beneath a circle
# Width and height of the wheel and of the rose with their captions.
_WHEEL_SIZE = (1.75, _WHEEL + _LABEL + _LINE + 0.1)
_ROSE_SIZE = (2 * _ROSE + 0.8, 2 * _ROSE + _LABEL + 0.1 + _CAPTION)


class OrientationDisplay(Display):
    """A micrograph coloured by the direction of its fibres, its aligned regions, and a rose.

    In the first image, the hue is the direction (see the half wheel) and the saturation its
    coherence. In the second, aligned regions have bars along their mean directions and their
    colours; windows without fibres are dark. In the rose, the area of a petal is the energy of a
    direction, and the dashed line the mean.

    Parameters
    ----------
    result : AlignmentResult
        With a pixel size, there are scale bars.
    name : str, optional
        Name of the image.

    Examples
    --------
    >>> from hypervlad import make_fibre_images
    >>> from hypervlad.results import OrientationDisplay
    >>> (image,), _ = make_fibre_images(1, aligned=1.0, size=128, random_state=0)
    >>> display = OrientationDisplay.from_image(image)
    >>> display.result.aligned.fraction > 0.7
    True
    """

    def __init__(self, result: AlignmentResult, *, name: str | None = None) -> None:
        self.result = result
        self.name = name

    @classmethod
    def from_image(
        cls, image: Any, *, name: str | None = None, ax: Axes | None = None, **options: Any
    ) -> OrientationDisplay:
        """Find the directions and regions of an image, and plot them.

        Parameters
        ----------
        image : path or array
            Colour images are averaged over the channels.
        name : str, optional
        ax : matplotlib Axes, optional
        **options
            Parameters of `hypervlad.fibres.AlignmentRecipe`. The pixel size of a file takes
            precedence over `pixel_size`.

        Raises
        ------
        ValueError
            If the image cannot be read or used, or an option is out of range.
        """
        return cls(AlignmentRecipe(**options).find(image), name=name).plot(ax=ax)

    @property
    def figure_size(self) -> tuple[float, float]:
        (width, height), key = self._cell_size, self._key_size
        if self._is_wide:
            return width + 2 * _MARGIN, 2 * (height + _GAP) + key[1] + 2 * _MARGIN
        return 2 * (width + _GAP) + key[0] + 2 * _MARGIN, max(height, key[1]) + 2 * _MARGIN

    def _draw(self) -> None:
        width, height = self.figure_size
        overlay, regions, key = self._places()
        self._draw_overlay(*overlay)
        self._draw_regions(*regions)
        self._draw_key(*key)
        # Units are inches, and y points down.
        self.ax_.set(xlim=(0, width), ylim=(height, 0), aspect="equal")
        self.ax_.set_axis_off()

    @property
    def _is_wide(self) -> bool:
        height, width = self.result.pixels.shape
        return bool(width > _STRIP * height)

    @property
    def _panel_size(self) -> tuple[float, float]:
        height, width = self.result.pixels.shape
        side = _WIDE if self._is_wide else _TALL if height > _STRIP * width else _SIDE
        scale = side / max(height, width)
        return width * scale, height * scale

    @property
    def _cell_size(self) -> tuple[float, float]:
        width, height = self._panel_size
        return max(width, _MIN_CELL), height + _CAPTION

    @property
    def _key_size(self) -> tuple[float, float]:
        widths, heights = zip(_WHEEL_SIZE, _ROSE_SIZE, strict=True)
        return (sum(widths), max(heights)) if self._is_wide else (max(widths), sum(heights))

    def _places(self) -> Iterator[tuple[float, float]]:
        """Yield the upper left corners of both images and of the key."""
        width, height = self._cell_size
        indent = (width - self._panel_size[0]) / 2
        left = top = _MARGIN
        for _ in range(2):
            yield left + indent, top
            if self._is_wide:
                top += height + _GAP
            else:
                left += width + _GAP
        yield left + (width - self._key_size[0]) / 2 * self._is_wide, top

    def _draw_overlay(self, left: float, top: float) -> None:
        found = self.result.orientation
        axes = shrink_directions(found.orientation, found.coherence, _SHOWN_PIXELS)
        self._draw_image(left, top, tint_by_direction(self._shown, *axes))
        where = f"{100 * (1 - found.mask.mean()):.0f} % of the pixels are background"
        self._write(left, top, self.name or "direction of fibres", where)

    def _draw_regions(self, left: float, top: float) -> None:
        aligned = self.result.aligned
        self._draw_image(left, top, tinted_regions(self._shown, aligned))
        width, _ = self._panel_size
        draw_regions(self.ax_, aligned, left, top, width / self.result.pixels.shape[1])
        self._write(left, top, *_alignment_text(aligned, self.result.orientation.pixel_size))

    @functools.cached_property
    def _shown(self) -> NDArray[np.float32]:
        return stretch_contrast(thumbnail(self.result.pixels, _SHOWN_PIXELS))

    def _draw_image(self, left: float, top: float, pixels: Colours) -> None:
        width, height = self._panel_size
        right, bottom = left + width, top + height
        self.ax_.imshow(pixels, extent=(left, right, bottom, top), interpolation="antialiased")
        size = self.result.orientation.pixel_size
        if size is None or width < _MIN_BAR_WIDTH:
            return
        below = _BELOW if self._is_thin else 0.0
        nm = size * self.result.pixels.shape[1]
        draw_scale_bar(self.ax_, right, bottom + below, width, nm)

    @property
    def _is_thin(self) -> bool:
        return self._panel_size[1] < _MIN_BAR_HEIGHT

    def _write(self, left: float, top: float, first: str, second: str) -> None:
        width, height = self._panel_size
        letters = int((0.5 if self._is_thin else 1.0) * max(width, _MIN_CELL) / 0.068)
        self._lines(left + width / 2, top + height + 0.06, first, second, letters)

    def _draw_key(self, left: float, top: float) -> None:
        for draw, (width, height) in (
            (self._draw_wheel, _WHEEL_SIZE),
            (self._draw_rose, _ROSE_SIZE),
        ):
            own = width if self._is_wide else self._key_size[0]
            draw(left + own / 2, top + _LABEL)
            left, top = (left + width, top) if self._is_wide else (left, top + height)

    def _draw_wheel(self, middle: float, top: float) -> None:
        draw_wheel(self.ax_, (middle, top + _WHEEL), _WHEEL)
        note: dict[str, Any] = {"va": "top", "ha": "center", "fontsize": 8.0, "color": GREY}
        write(self.ax_, middle, top + _WHEEL + 0.07, "paler: less coherent", **note)

    def _draw_rose(self, middle: float, top: float) -> None:
        found, mean = self.result.orientation, self.result.statistics
        shares = rose_weights(found.orientation[found.mask], found.energy[found.mask])
        centre = (middle, top + _ROSE)
        draw_rose(self.ax_, centre, _ROSE, shares, None if mean is None else mean.mean)
        self._lines(middle, top + 2 * _ROSE + 0.08, *_statistics_text(mean), 40)

    def _lines(self, x: float, y: float, first: str, second: str, letters: int) -> None:
        style: dict[str, Any] = {"ha": "center", "va": "top", "fontsize": 8.5}
        write(self.ax_, x, y, literal(shorten(first, letters)), color=DARK, **style)
        write(self.ax_, x, y + _LINE, literal(shorten(second, letters)), color=GREY, **style)


def _alignment_text(aligned: AlignedFraction, pixel_size: float | None) -> tuple[str, str]:
    n, degrees = len(aligned.regions), np.rad2deg(aligned.tolerance)
    rule = f"spread below {degrees:.3g}°" if aligned.proba is None else "as judged by the model"
    windows = f"windows {_side_text(aligned, pixel_size)}, {rule}"
    if np.isnan(aligned.fraction):
        return "background everywhere", windows
    regions = counted(n, "region")
    return f"{100 * aligned.fraction:.0f} % of the area is aligned, {regions}", windows


def _side_text(aligned: AlignedFraction, pixel_size: float | None) -> str:
    side = float(np.sqrt(np.prod(aligned.window_sides)))
    text = f"{side:.0f} px" if pixel_size is None else length_text(side * pixel_size)
    sides = {*np.diff(aligned.rows).tolist(), *np.diff(aligned.columns).tolist()}
    return f"of {text}" if sides == {aligned.window} else f"of about {text}"


def _statistics_text(found: AxialStatistics | None) -> tuple[str, str]:
    if found is None:
        return "no direction", ""
    spread = "" if np.isinf(found.spread) else f", spread {np.rad2deg(found.spread):.0f}°"
    return f"mean {np.rad2deg(found.mean) % 180:.0f}°{spread}", f"order {found.order:.2f}"


# --- regions, rose and wheel ---------------------------------------------------------------------


def shrink_directions(
    orientation: NDArray[Any], coherence: NDArray[Any], side: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
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
