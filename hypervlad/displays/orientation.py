"""Directions of fibres: in colours over the image, as regions, and as a rose."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hypervlad.displays.colours import (
    DARK,
    GREY,
    Colours,
    stretch_contrast,
    tint_by_direction,
)
from hypervlad.displays.directions import (
    draw_regions,
    draw_rose,
    draw_scale_bar,
    draw_wheel,
    length_text,
    rose_weights,
    shrink_directions,
    tinted_regions,
)
from hypervlad.displays.figures import Display, write
from hypervlad.displays.image_grid import literal, shorten, thumbnail
from hypervlad.fibres import (
    AlignedFraction,
    AlignmentRecipe,
    AlignmentResult,
    AxialStatistics,
    LocalOrientation,
)
from hypervlad.wording import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANELS = ("overlay", "regions", "rose")
_SHOWN_PIXELS = 700
_STRIP = 2.5  # width over height from which images are placed one above the other
# Lengths in inches.
_SIDE = 3.4  # longer side of an image
_WIDE, _TALL = 7.0, 5.0  # longer side of a strip
_MIN_CELL = 2.8  # for a caption
_MIN_BAR_WIDTH, _MIN_BAR_HEIGHT, _BELOW = 0.7, 0.6, 0.36  # of images with scale bars
_GAP, _MARGIN = 0.12, 0.06
_LINE, _CAPTION = 0.17, 0.42
_KEY = 1.75  # width of the column of wheel and rose
_WHEEL, _ROSE, _LARGE_ROSE = 0.48, 0.52, 1.0
_LABEL = 0.2  # height of the degrees above and beneath a circle


class OrientationDisplay(Display):
    """A micrograph coloured by the direction of its fibres, its aligned regions, and a rose.

    "overlay": the hue is the direction (see the half wheel), the saturation its coherence; the
    background is grey. "regions": the coherently aligned regions in the colours of their mean
    directions, which bars show too, with outlines around regions of several windows; windows
    without fibres are darkened. "rose": the energy of each direction as the area of a petal; each
    petal is drawn twice, because an axis has two ends, and the dashed line is the mean.

    Usually created by `from_image`.

    Parameters
    ----------
    image : array-like of shape (H, W)
        Grey.
    orientation : LocalOrientation
        Of this image. Panels have a scale bar if it has a pixel size.
    aligned : AlignedFraction, optional
        Of this image; without it, there is no panel of regions.
    statistics : AxialStatistics, optional
        Of the directions; computed from ``orientation`` by default.
    panels : str or sequence of str, optional
        Some of "overlay", "regions" and "rose"; all by default.
    name : str, optional
        Name of the image.

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
                    f"expected a grey image of the size of its maps, {found.shape}; got shape "
                    f"{self.image.shape}."
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
            Colour images are averaged over the channels.
        panels, name, ax
            As for the class and `plot`.
        **options
            Parameters of `hypervlad.fibres.AlignmentRecipe`. The pixel size of a file takes
            precedence over `pixel_size`.

        Returns
        -------
        OrientationDisplay

        Raises
        ------
        ValueError
            If the image cannot be read or used, or an option is out of range.
        """
        result = AlignmentRecipe(**options).find(image)
        return cls.from_result(result, panels=panels, name=name).plot(ax=ax)

    @classmethod
    def from_result(cls, result: AlignmentResult, **options: Any) -> OrientationDisplay:
        """Create a display with the parameters of the class, without plotting it."""
        return cls(
            result.pixels,
            result.orientation,
            result.aligned,
            statistics=result.statistics,
            **options,
        )

    @property
    def figure_size(self) -> tuple[float, float]:
        """Width and height in inches that suit the image and the panels."""
        n, cell = len(self._image_panels), self._cell_size
        key = self._key_size
        if not n:
            return key[0] + 2 * _MARGIN, key[1] + 2 * _MARGIN
        if self._is_wide:
            return cell[0] + 2 * _MARGIN, n * (cell[1] + _GAP) + key[1] + 2 * _MARGIN
        across = n * (cell[0] + _GAP) + key[0] + 2 * _MARGIN
        return across, max(cell[1], key[1]) + 2 * _MARGIN

    def _draw(self) -> None:
        """Draw the panels side by side; those of a wide image one above the other."""
        width, height = self.figure_size
        draw = {"overlay": self._draw_overlay, "regions": self._draw_regions}
        for panel, (left, top) in zip(self._image_panels, self._places(), strict=False):
            draw[panel](left, top)
        self._draw_key()
        # Units are inches, and y points down.
        self.ax_.set(xlim=(0, width), ylim=(height, 0), aspect="equal")
        self.ax_.set_axis_off()

    @property
    def _image_panels(self) -> list[str]:
        return [panel for panel in self.panels if panel != "rose"]

    @property
    def _is_wide(self) -> bool:
        height, width = self.image.shape
        return bool(width > _STRIP * height)

    @property
    def _panel_size(self) -> tuple[float, float]:
        height, width = self.image.shape
        side = _WIDE if self._is_wide else _TALL if height > _STRIP * width else _SIDE
        scale = side / max(height, width)
        return width * scale, height * scale

    @property
    def _cell_size(self) -> tuple[float, float]:
        """Width and height of an image with its caption."""
        width, height = self._panel_size
        return max(width, _MIN_CELL), height + _CAPTION

    def _places(self) -> Iterator[tuple[float, float]]:
        """Yield the upper left corner of each image, then that of the key."""
        cell = self._cell_size
        indent = (cell[0] - self._panel_size[0]) / 2
        left = top = _MARGIN
        for _ in self._image_panels:
            yield left + indent, top
            left, top = (
                (left, top + cell[1] + _GAP) if self._is_wide else (left + cell[0] + _GAP, top)
            )
        yield left, top

    @property
    def _key_size(self) -> tuple[float, float]:
        """Width and height of the wheel above the rose, or beside it if the image is wide."""
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
        return [wheel] * bool(self._image_panels) + [rose] * ("rose" in self.panels)

    @property
    def _rose_radius(self) -> float:
        return _ROSE if self._image_panels else _LARGE_ROSE

    def _draw_overlay(self, left: float, top: float) -> None:
        found = self.orientation
        axes = shrink_directions(found.orientation, found.coherence, _SHOWN_PIXELS)
        self._draw_image(left, top, tint_by_direction(self._shown, *axes))
        where = f"{100 * (1 - found.mask.mean()):.0f} % of the pixels are background"
        self._write(left, top, self.name or "direction of fibres", where)

    def _draw_regions(self, left: float, top: float) -> None:
        aligned = self.aligned
        assert aligned is not None  # `_checked_panels` makes sure
        self._draw_image(left, top, tinted_regions(self._shown, aligned))
        width, _ = self._panel_size
        draw_regions(self.ax_, aligned, left, top, width / self.image.shape[1])
        self._write(left, top, *_alignment_text(aligned, self.orientation.pixel_size))

    @functools.cached_property
    def _shown(self) -> NDArray[np.float32]:
        return stretch_contrast(thumbnail(self.image, _SHOWN_PIXELS))

    def _draw_image(self, left: float, top: float, pixels: Colours) -> None:
        width, height = self._panel_size
        right, bottom = left + width, top + height
        self.ax_.imshow(pixels, extent=(left, right, bottom, top), interpolation="antialiased")
        size = self.orientation.pixel_size
        if size is None or width < _MIN_BAR_WIDTH:
            return
        below = _BELOW if self._is_thin else 0.0
        draw_scale_bar(self.ax_, right, bottom + below, width, size * self.image.shape[1])

    @property
    def _is_thin(self) -> bool:
        """Whether the scale bar is placed beneath the image, which it would hide."""
        return self._panel_size[1] < _MIN_BAR_HEIGHT

    def _write(self, left: float, top: float, first: str, second: str) -> None:
        """Write two lines beneath an image."""
        width, height = self._panel_size
        letters = int((0.5 if self._is_thin else 1.0) * max(width, _MIN_CELL) / 0.068)
        self._lines(left + width / 2, top + height + 0.06, first, second, letters)

    def _draw_key(self) -> None:
        (left, top), parts = list(self._places())[-1], self._key_parts
        if self._is_wide and self._image_panels:
            left += (self._cell_size[0] - self._key_size[0]) / 2
        draw = [self._draw_wheel] * bool(self._image_panels) + [self._draw_rose] * (
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
            write(self.ax_, middle, top + _WHEEL + 0.07, "paler: less coherent", **note)

    def _draw_rose(self, middle: float, top: float) -> None:
        radius, found, mean = self._rose_radius, self.orientation, self.statistics
        shares = rose_weights(found.orientation[found.mask], found.energy[found.mask])
        draw_rose(
            self.ax_, (middle, top + radius), radius, shares, None if mean is None else mean.mean
        )
        self._lines(middle, top + 2 * radius + 0.08, *_statistics_text(mean), 40)

    def _lines(self, x: float, y: float, first: str, second: str, letters: int) -> None:
        style: dict[str, Any] = {"ha": "center", "va": "top", "fontsize": 8.5}
        write(self.ax_, x, y, literal(shorten(first, letters)), color=DARK, **style)
        write(self.ax_, x, y + _LINE, literal(shorten(second, letters)), color=GREY, **style)


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
