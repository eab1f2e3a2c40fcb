"""Directions of fibres: in colours over the image, as regions, and as a rose."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hypervlad.common.wording import counted
from hypervlad.fibres import AlignedFraction, AlignmentRecipe, AlignmentResult, AxialStatistics
from hypervlad.pages.base import Display, literal, shorten, thumbnail
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

_SHOWN_PIXELS = 700
_FAINT = "#cccccc"
# Regions
_TINT = 0.75
_BACKGROUND_BRIGHTNESS = 0.45
_MIN_LENGTH = 0.02  # inches: three pixels of a page
_BAR = 0.7  # half its length, over the radius of the largest disc in the region
# Rose
_N_PETALS = 24  # over half a turn
_STEP = 2**20  # pixels that are counted at a time, to save memory
_RIM = 1.08, 0.12  # start and width of the ring of colours, over the longest petal
# Lengths in inches.
_SIDE, _WIDE = 3.4, 7.0  # longer side of an image, and of one that is a strip
_STRIP = 2.5  # width over height from which images are placed one above the other
_MIN_CELL, _TEXT, _KEY = 2.9, 0.6, 1.9  # width of a panel, height of its texts, side of the rose
_MIN_BAR = 0.7  # sides of images with scale bars
_LETTER = 0.068


class OrientationDisplay(Display):
    """A micrograph coloured by the direction of its fibres, its aligned regions, and a rose.

    In the first image, the hue is the direction, as in the rim of the rose, and the saturation its
    coherence. In the second, aligned regions have bars along their mean directions and their
    colours; windows without fibres are dark. In the rose, the area of a petal is the energy of a
    direction, and the dashed line the mean.

    Parameters
    ----------
    result : AlignmentResult
        With a pixel size, there are scale bars.
    name : str, optional
        Name of the image.

    Attributes
    ----------
    panels_ : list of matplotlib Axes
        Of the overlay, the regions and the rose, inside ``ax_``, after `plot`.

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
        (width, height), cell = self._panel_size, self._cell
        if self._is_wide:
            return width, 2 * (height + _TEXT) + _KEY + _TEXT
        return 2 * cell + _KEY + 0.4, max(height, _KEY) + _TEXT

    @property
    def _is_wide(self) -> bool:
        height, width = self.result.pixels.shape
        return bool(width > _STRIP * height)

    @property
    def _panel_size(self) -> tuple[float, float]:
        height, width = self.result.pixels.shape
        scale = (_WIDE if self._is_wide else _SIDE) / max(height, width)
        return width * scale, height * scale

    @property
    def _cell(self) -> float:
        return max(self._panel_size[0], _MIN_CELL) + 0.1

    def _draw(self) -> None:
        self.ax_.set_axis_off()
        (width, height), (across, down) = self._panel_size, self.figure_size
        tall = down - _TEXT
        boxes: list[tuple[float, ...]] = [  # left, top, width, height
            (k * self._cell, 0, self._cell - 0.1, tall) for k in range(2)
        ]
        key = 2 * self._cell + 0.2, (tall - _KEY) / 2
        if self._is_wide:
            boxes = [(0, k * (height + _TEXT), width, height) for k in range(2)]
            key = (across - _KEY) / 2, 2 * (height + _TEXT)
        self.panels_ = [
            self.ax_.inset_axes(
                (left / across, 1 - (top + high + 0.22) / down, wide / across, high / down),
                projection=projection,
            )
            for (left, top, wide, high), projection in zip(
                [*boxes, (*key, _KEY, _KEY)], (None, None, "polar"), strict=True
            )
        ]
        overlay, regions, rose = self.panels_
        found, aligned, mean = self.result.orientation, self.result.aligned, self.result.statistics
        shown = stretch_contrast(thumbnail(self.result.pixels, _SHOWN_PIXELS))

        axes = shrink_directions(found.orientation, found.coherence, _SHOWN_PIXELS)
        self._draw_image(overlay, tint_by_direction(shown, *axes))
        where = f"{100 * (1 - found.mask.mean()):.0f} % background; paler: less coherent"
        self._write(overlay, self.name or "direction of fibres", where)

        self._draw_image(regions, tinted_regions(shown, aligned))
        draw_regions(regions, aligned, width / self.result.pixels.shape[1])
        self._write(regions, *_alignment_text(aligned, found.pixel_size))

        shares = rose_weights(found.orientation, found.energy * found.mask)
        draw_rose(rose, shares, None if mean is None else mean.mean)
        self._write(rose, *_statistics_text(mean))

    def _draw_image(self, ax: Axes, pixels: Colours) -> None:
        """Draw pixels into axes whose unit is an inch, and whose y axis points down."""
        width, height = self._panel_size
        ax.imshow(pixels, extent=(0, width, height, 0), interpolation="antialiased")
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
        size = self.result.orientation.pixel_size
        if size is not None and min(width, height) > _MIN_BAR:
            draw_scale_bar(ax, width, self.result.pixels, size)
        ax.set(xlim=(0, width), ylim=(height, 0))

    def _write(self, ax: Axes, above: str, below: str) -> None:
        letters = int(self._cell / _LETTER)
        ax.set_title(literal(shorten(above, letters)), fontsize=8.5, color=DARK, pad=4)
        ax.set_xlabel(literal(shorten(below, letters)), fontsize=8.5, color=GREY)


def _alignment_text(aligned: AlignedFraction, pixel_size: float | None) -> tuple[str, str]:
    n, degrees = len(aligned.regions), np.rad2deg(aligned.tolerance)
    rule = f"spread below {degrees:.3g}°" if aligned.proba is None else "as judged by the model"
    windows = f"windows {_side_text(aligned, pixel_size)}, {rule}"
    if np.isnan(aligned.fraction):
        return "background everywhere", windows
    low, high = 100 * aligned.fraction_interval.low, 100 * aligned.fraction_interval.high
    interval = "" if np.isnan(low) else f" ({low:.0f} to {high:.0f} %)"
    share = f"{100 * aligned.fraction:.0f} % aligned{interval}"
    return f"{share}, {counted(n, 'region')}", windows


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
    from scipy.ndimage import distance_transform_edt, find_objects

    labels = _labels_of_windows(aligned)
    boxes = find_objects(labels)
    for region in aligned.regions:
        rows, columns = box = boxes[region.label - 1]
        depth = distance_transform_edt(np.pad(labels[box] == region.label, 1))[1:-1, 1:-1]
        deepest = np.argwhere(depth >= depth.max() - 1e-9)
        away = np.linalg.norm(deepest - deepest.mean(axis=0), axis=1)
        i, j = deepest[away.argmin()] + (rows.start, columns.start)
        y, x = aligned.rows[i : i + 2].mean(), aligned.columns[j : j + 2].mean()
        reach = _BAR * (depth.max() - 0.5) * min(aligned.window_sides)
        across, up = reach * np.cos(region.mean_angle), reach * np.sin(region.mean_angle)
        yield (x - across, y + up), (x + across, y - up)


def draw_regions(ax: Axes, aligned: AlignedFraction, scale: float) -> None:
    """Draw outlines and bars over an image, whose pixels are `scale` inches wide."""
    window = scale * min(aligned.window_sides)
    if window > _MIN_LENGTH:
        _draw_lines(ax, outlines(aligned), scale, np.clip(3 * window, 0.3, 1.1), "projecting")
    bars = list(mean_bars(aligned))
    lengths = scale * np.array([np.hypot(b[0] - a[0], b[1] - a[1]) for a, b in bars])
    _draw_lines(ax, bars, scale, np.clip(8 * lengths, 0.4, 2.2), "round")


def _draw_lines(
    ax: Axes, lines: Sequence[Segment], scale: float, widths: ArrayLike, capstyle: Any
) -> None:
    """Draw white lines with a dark border, which are visible on any background."""
    from matplotlib.collections import LineCollection

    places = list(scale * np.asarray(lines).reshape(-1, 2, 2))
    for colour, wider, opacity in (("black", 2.0, 0.6), ("white", 1.0, 1.0)):
        style: dict[str, Any] = {"alpha": opacity, "capstyle": capstyle}
        drawn = LineCollection(
            places, colors=colour, linewidths=wider * np.atleast_1d(widths), **style
        )
        ax.add_collection(drawn, autolim=False)


def _labels_of_windows(aligned: AlignedFraction) -> NDArray[np.int32]:
    return aligned.labels[np.ix_(aligned.rows[:-1], aligned.columns[:-1])]


def _windows_at(edges: NDArray[np.intp], n: int) -> NDArray[np.intp]:
    places = (np.arange(n) + 0.5) * (edges[-1] / n)
    windows: NDArray[np.intp] = np.searchsorted(edges, places, side="right") - 1
    return windows


def rose_weights(angles: ArrayLike, weights: ArrayLike) -> NDArray[np.float64]:
    """Return the histogram of directions, in radians, over half a turn; bin 0 is centred on 0."""
    sums = np.zeros(_N_PETALS)
    flat_angles, flat_weights = np.ravel(angles), np.ravel(weights)
    for start in range(0, len(flat_angles), _STEP):
        some = slice(start, start + _STEP)
        bins = np.rint(flat_angles[some] * (_N_PETALS / np.pi)).astype(np.intp) % _N_PETALS
        sums += np.bincount(bins, flat_weights[some], _N_PETALS)
    return np.asarray(sums / (sums.sum() or 1.0))


def draw_rose(ax: Axes, shares: NDArray[np.float64], mean: float | None) -> None:
    """Draw a rose into polar axes, whose petals have areas proportional to their shares.

    The rim has the colours of all directions; the dashed line is the mean.
    """
    angles = np.arange(2 * _N_PETALS) * np.pi / _N_PETALS
    lengths = np.sqrt(np.tile(shares / (shares.max() or 1.0), 2))
    # An edge of the same colour hides the gap that antialiasing leaves between petals.
    style: dict[str, Any] = {"width": np.pi / _N_PETALS, "linewidth": 0.5, "zorder": 2}
    style["color"] = direction_colours(angles)
    ax.bar(angles, lengths, **style)
    start, width = _RIM
    ax.bar(angles, width, bottom=start, **style)
    if mean is not None:
        ax.plot([mean, mean, mean + np.pi], [1, 0, 1], color=DARK, lw=1.4, ls=(0, (4, 2)))
    ax.set(yticks=[0.5, 1.0], yticklabels=[], ylim=(0, start + width))
    names = [f"{each}°" if each < 180 else "" for each in range(0, 360, 45)]
    ax.set_xticks(np.arange(8) * np.pi / 4, names, fontsize=8.0, color=GREY)
    ax.tick_params(pad=-2)
    ax.grid(color=_FAINT, linewidth=0.7)
    ax.spines["polar"].set_visible(False)
