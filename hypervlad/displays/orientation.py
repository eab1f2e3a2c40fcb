"""Directions of fibres: over the image in colours, as regions, and as a rose."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hypervlad.displays.aligned_regions import draw_regions, tinted_regions
from hypervlad.displays.alignment_found import AlignmentFound, AlignmentRecipe
from hypervlad.displays.alignment_table import window_sides
from hypervlad.displays.axis_colours import Colours, coloured, stretched
from hypervlad.displays.direction_rose import draw_rose, draw_wheel, rose_weights
from hypervlad.displays.figures import axes_or_new
from hypervlad.displays.scale_bar import draw_scale_bar, length_in_words
from hypervlad.displays.shrunk_axes import shrunk_axes
from hypervlad.displays.tiles import GREY, literal, shorten, thumbnail
from hypervlad.fibres import AlignedFraction, AxialStatistics, LocalOrientation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = ("overlay", "regions", "rose")
_SIDE = 3.4  # inches, the longer side of an image
_WIDE, _TALL = 7.0, 5.0  # the longer side of a strip
_STRIP = 2.5  # width over height from which on images lie one above the other
_NARROWEST = 2.8  # what a caption needs
_SHOWN_PIXELS = 700
_NARROWEST_BAR, _LOWEST_WITH_BAR, _BELOW = 0.7, 0.6, 0.36  # of scale bars
_GAP, _MARGIN = 0.12, 0.06
_LINE, _CAPTION = 0.17, 0.42
_KEY = 1.75  # width of the column of wheel and rose
_WHEEL, _ROSE, _LARGE_ROSE = 0.48, 0.52, 1.0
_LABEL = 0.2  # what degrees take above and beneath a circle


class OrientationDisplay:
    """A micrograph coloured by the direction of its fibres, its aligned regions, and a rose.

    "overlay": the hue is the direction, as the half wheel says; the less coherent, the less colour,
    and none in the background. "regions": what is coherently aligned, each region
    coloured by its mean direction, which a bar shows too, and outlined if it is of several windows;
    windows without fibres are darkened.
    "rose": how much energy each direction has, as areas of petals, each petal drawn twice, as an
    axis has two ends; the dashed line is the mean.

    It is best made by `from_image`.

    Parameters
    ----------
    image : array-like of shape (H, W)
        Grey.
    orientation : LocalOrientation
        Of this image. Where it knows the pixel size, images have a scale bar.
    aligned : AlignedFraction, optional
        Of this image; without, there are no regions.
    statistics : AxialStatistics, optional
        Of the directions; found here by default.
    panels : str or sequence of str, optional
        Which of "overlay", "regions" and "rose"; all by default.
    name : str, optional
        What to call the image.

    Attributes
    ----------
    figure_ : matplotlib Figure
    ax_ : matplotlib Axes

    Raises
    ------
    ValueError
        If sizes differ, or a panel is unknown.

    Examples
    --------
    >>> from hypervlad import make_nanowire_images
    >>> from hypervlad.displays import OrientationDisplay
    >>> (image,), _ = make_nanowire_images(1, aligned=1.0, size=128, random_state=0)
    >>> display = OrientationDisplay.from_image(image)
    >>> display.aligned.fraction > 0.7, display.panels
    (True, ('overlay', 'regions', 'rose'))
    """

    figure_: Figure
    ax_: Axes

    def __init__(
        self,
        image: ArrayLike,
        orientation: LocalOrientation,
        aligned: AlignedFraction | None = None,
        *,
        statistics: AxialStatistics | None = None,
        panels: str | Sequence[str] | None = None,
        name: str | None = None,
    ) -> None:
        self.image = np.asarray(image)
        self.orientation = orientation
        self.aligned = aligned
        self.statistics = _own_statistics(orientation) if statistics is None else statistics
        self.panels = _checked_panels(panels, with_regions=aligned is not None)
        self.name = name
        maps = [orientation.mask] if aligned is None else [orientation.mask, aligned.labels]
        for found in maps:
            if self.image.shape != found.shape:
                raise ValueError(
                    f"expected a grey image of the size of what was found, {found.shape}; got "
                    f"shape {self.image.shape}."
                )

    @classmethod
    def from_image(
        cls,
        image: Any,
        *,
        panels: str | Sequence[str] | None = None,
        name: str | None = None,
        ax: Axes | None = None,
        **options: Any,
    ) -> OrientationDisplay:
        """Find the directions and regions of an image, and plot them.

        Parameters
        ----------
        image : path or array
            Of colour images the mean of the channels.
        panels, name, ax
            As for the class and `plot`.
        **options
            method, window, tolerance (radians), sigma and pixel_size (nm), as in
            `hypervlad.fibres.aligned_fraction`; lengths are in pixels, or with a unit, such as
            "500nm". A file's own pixel size goes before that given.

        Returns
        -------
        OrientationDisplay

        Raises
        ------
        ValueError
            If the image cannot be read or used, or an option is out of range.
        """
        found = AlignmentRecipe(**options).find(image)
        return cls.from_found(found, panels=panels, name=name).plot(ax=ax)

    @classmethod
    def from_found(cls, found: AlignmentFound, **options: Any) -> OrientationDisplay:
        """Make a display, with the parameters of the class, without plotting it."""
        return cls(
            found.pixels, found.orientation, found.aligned, statistics=found.statistics, **options
        )

    @property
    def figure_size(self) -> tuple[float, float]:
        """Width and height in inches that suit the image and the panels."""
        n, cell = len(self._pictures), self._cell_size
        key = self._key_size
        if not n:
            return key[0] + 2 * _MARGIN, key[1] + 2 * _MARGIN
        if self._is_wide:
            return cell[0] + 2 * _MARGIN, n * (cell[1] + _GAP) + key[1] + 2 * _MARGIN
        across = n * (cell[0] + _GAP) + key[0] + 2 * _MARGIN
        return across, max(cell[1], key[1]) + 2 * _MARGIN

    def plot(self, ax: Axes | None = None) -> OrientationDisplay:
        """Draw the panels side by side, and those of a wide image one above the other.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            A new figure by default.

        Returns
        -------
        OrientationDisplay
            Itself.
        """
        self.figure_, self.ax_ = axes_or_new(ax, self.figure_size)
        width, height = self.figure_size
        draw = {"overlay": self._draw_overlay, "regions": self._draw_regions}
        for panel, (left, top) in zip(self._pictures, self._places(), strict=False):
            draw[panel](left, top)
        self._draw_key()
        # In inches, y down; what was drawn would else set the limits.
        self.ax_.set(xlim=(0, width), ylim=(height, 0), aspect="equal")
        self.ax_.set_axis_off()
        return self

    @property
    def _pictures(self) -> list[str]:
        return [panel for panel in self.panels if panel != "rose"]

    @property
    def _is_wide(self) -> bool:
        height, width = self.image.shape
        return width > _STRIP * height

    @property
    def _panel_size(self) -> tuple[float, float]:
        height, width = self.image.shape
        side = _WIDE if self._is_wide else _TALL if height > _STRIP * width else _SIDE
        scale = side / max(height, width)
        return width * scale, height * scale

    @property
    def _cell_size(self) -> tuple[float, float]:
        """Of a picture with its caption."""
        width, height = self._panel_size
        return max(width, _NARROWEST), height + _CAPTION

    def _places(self) -> Iterator[tuple[float, float]]:
        """Yield the upper left corner of each picture, and then that of the key."""
        cell = self._cell_size
        indent = (cell[0] - self._panel_size[0]) / 2
        left = top = _MARGIN
        for _ in self._pictures:
            yield left + indent, top
            left, top = (
                (left, top + cell[1] + _GAP) if self._is_wide else (left + cell[0] + _GAP, top)
            )
        yield left, top

    @property
    def _key_size(self) -> tuple[float, float]:
        """Of the wheel above the rose, or beside it below a wide image."""
        parts = self._key_parts
        widths, heights = ([part[k] for part in parts] for k in (0, 1))
        if self._is_wide:
            return sum(widths), max(heights)
        return max(widths), sum(heights)

    @property
    def _key_parts(self) -> list[tuple[float, float]]:
        radius = self._rose_radius
        wheel = (_KEY, _WHEEL + _LABEL + _LINE + 0.1)
        rose = (2 * radius + 0.8, 2 * radius + _LABEL + 0.1 + _CAPTION)
        return [wheel] * bool(self._pictures) + [rose] * ("rose" in self.panels)

    @property
    def _rose_radius(self) -> float:
        return _ROSE if self._pictures else _LARGE_ROSE

    def _draw_overlay(self, left: float, top: float) -> None:
        found = self.orientation
        axes = shrunk_axes(found.orientation, found.coherence, _SHOWN_PIXELS)
        self._draw_picture(left, top, coloured(self._shown, *axes))
        where = f"{100 * (1 - found.mask.mean()):.0f} % of the pixels are background"
        self._write(left, top, self.name or "direction of fibres", where)

    def _draw_regions(self, left: float, top: float) -> None:
        aligned = self.aligned
        assert aligned is not None  # or the panel would not be there
        self._draw_picture(left, top, tinted_regions(self._shown, aligned))
        width, _ = self._panel_size
        draw_regions(self.ax_, aligned, left, top, width / self.image.shape[1])
        self._write(left, top, *_alignment_in_words(aligned, self.orientation.pixel_size))

    @functools.cached_property
    def _shown(self) -> NDArray[np.float32]:
        return stretched(thumbnail(self.image, _SHOWN_PIXELS))

    def _draw_picture(self, left: float, top: float, picture: Colours) -> None:
        width, height = self._panel_size
        right, bottom = left + width, top + height
        self.ax_.imshow(picture, extent=(left, right, bottom, top), interpolation="antialiased")
        size = self.orientation.pixel_size
        if size is None or width < _NARROWEST_BAR:
            return
        below = _BELOW if self._is_thin else 0.0
        draw_scale_bar(self.ax_, right, bottom + below, width, size * self.image.shape[1])

    @property
    def _is_thin(self) -> bool:
        """Whether a scale bar would hide the image and has to lie beneath it."""
        return self._panel_size[1] < _LOWEST_WITH_BAR

    def _write(self, left: float, top: float, first: str, second: str) -> None:
        """Write two lines beneath a picture."""
        width, height = self._panel_size
        letters = int((0.5 if self._is_thin else 1.0) * max(width, _NARROWEST) / 0.068)
        self._lines(left + width / 2, top + height + 0.06, first, second, letters)

    def _draw_key(self) -> None:
        (left, top), parts = list(self._places())[-1], self._key_parts
        if self._is_wide and self._pictures:
            left += (self._cell_size[0] - self._key_size[0]) / 2
        draw = [self._draw_wheel] * bool(self._pictures) + [self._draw_rose] * (
            "rose" in self.panels
        )
        for each, (width, height) in zip(draw, parts, strict=True):
            own = width if self._is_wide else self._key_size[0]
            each(left + own / 2, top + _LABEL)
            left, top = (left + width, top) if self._is_wide else (left, top + height)

    def _draw_wheel(self, middle: float, top: float) -> None:
        draw_wheel(self.ax_, (middle, top + _WHEEL), _WHEEL)
        note: dict[str, Any] = {"va": "top", "ha": "center", "fontsize": 8.0, "color": GREY}
        if "overlay" in self.panels:
            self.ax_.text(middle, top + _WHEEL + 0.07, "paler: less coherent", **note)

    def _draw_rose(self, middle: float, top: float) -> None:
        radius, found, mean = self._rose_radius, self.orientation, self.statistics
        shares = rose_weights(found.orientation[found.mask], found.energy[found.mask])
        draw_rose(
            self.ax_, (middle, top + radius), radius, shares, None if mean is None else mean.mean
        )
        self._lines(middle, top + 2 * radius + 0.08, *_statistics_in_words(mean), 40)

    def _lines(self, x: float, y: float, first: str, second: str, letters: int) -> None:
        style: dict[str, Any] = {"ha": "center", "va": "top", "fontsize": 8.5}
        self.ax_.text(x, y, literal(shorten(first, letters)), color="#222222", **style)
        self.ax_.text(x, y + _LINE, literal(shorten(second, letters)), color=GREY, **style)


def _own_statistics(orientation: LocalOrientation) -> AxialStatistics | None:
    return orientation.statistics() if orientation.mask.any() else None


def _checked_panels(panels: str | Sequence[str] | None, *, with_regions: bool) -> tuple[str, ...]:
    if panels is None:
        return PANELS if with_regions else ("overlay", "rose")
    chosen = (panels,) if isinstance(panels, str) else tuple(panels)
    if not chosen or not set(chosen) <= set(PANELS):
        raise ValueError(f"panels={panels!r}: expected some of {', '.join(map(repr, PANELS))}.")
    if "regions" in chosen and not with_regions:
        raise ValueError("the panel 'regions' shows an aligned fraction; give aligned= too.")
    return tuple(panel for panel in PANELS if panel in chosen)


def _alignment_in_words(aligned: AlignedFraction, pixel_size: float | None) -> tuple[str, str]:
    n, degrees = len(aligned.regions), np.rad2deg(aligned.tolerance)
    rule = f"spread below {degrees:.3g}°" if aligned.proba is None else "as the model judges"
    windows = f"windows {_side_in_words(aligned, pixel_size)}, {rule}"
    if np.isnan(aligned.fraction):
        return "background everywhere", windows
    regions = "1 region" if n == 1 else f"{n} regions"
    return f"{100 * aligned.fraction:.0f} % of the area is aligned, {regions}", windows


def _side_in_words(aligned: AlignedFraction, pixel_size: float | None) -> str:
    side = float(np.sqrt(np.prod(window_sides(aligned))))
    words = f"{side:.0f} px" if pixel_size is None else length_in_words(side * pixel_size)
    sides = {*np.diff(aligned.rows).tolist(), *np.diff(aligned.columns).tolist()}
    return f"of {words}" if sides == {aligned.window} else f"of about {words}"


def _statistics_in_words(found: AxialStatistics | None) -> tuple[str, str]:
    if found is None:
        return "no direction", ""
    spread = "" if np.isinf(found.spread) else f", spread {np.rad2deg(found.spread):.0f}°"
    return f"mean {np.rad2deg(found.mean) % 180:.0f}°{spread}", f"order {found.order:.2f}"
