"""Directions of fibres: in colours over the image, as regions, and as a rose."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hypervlad.common.wording import counted
from hypervlad.fibres import AlignedFraction, AlignmentRecipe, AlignmentResult, AxialStatistics
from hypervlad.fibres.directions_display import (
    draw_regions,
    draw_rose,
    draw_wheel,
    rose_weights,
    shrink_directions,
    tinted_regions,
)
from hypervlad.pages.base import Display, literal, shorten, thumbnail, write
from hypervlad.pages.colours import (
    DARK,
    GREY,
    Colours,
    stretch_contrast,
    tint_by_direction,
)
from hypervlad.pages.numbers import draw_scale_bar, length_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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
    >>> from hypervlad import make_nanowire_images
    >>> from hypervlad.results import OrientationDisplay
    >>> (image,), _ = make_nanowire_images(1, aligned=1.0, size=128, random_state=0)
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
