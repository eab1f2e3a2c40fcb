"""Directions of fibres: over the image in colours, as regions, and as a rose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hypervlad.displays.aligned_regions import draw_regions, tinted_regions
from hypervlad.displays.alignment_found import AlignmentFound, AlignmentRecipe
from hypervlad.displays.axis_colours import Colours, coloured, stretched
from hypervlad.displays.direction_rose import draw_rose, draw_wheel, rose_weights
from hypervlad.displays.figures import axes_or_new
from hypervlad.displays.scale_bar import draw_scale_bar, length_in_words
from hypervlad.displays.tiles import GREY, literal, shorten, thumbnail
from hypervlad.fibres import AlignedFraction, AxialStatistics, LocalOrientation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = ("overlay", "regions", "rose")
_SIDE = 3.4  # inches, the longer side of an image
_NARROWEST = 2.8  # what a caption needs
_SHOWN_PIXELS = 700
_GAP, _MARGIN = 0.12, 0.06
_LINE, _CAPTION = 0.17, 0.42
_KEY = 1.75  # width of the column of wheel and rose
_WHEEL, _ROSE, _LARGE_ROSE = 0.48, 0.52, 1.0
_LABEL = 0.2  # what degrees take above and beneath a circle


class OrientationDisplay:
    """A micrograph coloured by the direction of its fibres, its aligned regions, and a rose.

    "overlay": the hue is the direction, as the half wheel says; the less coherent, the less colour,
    and none in the background. "regions": what is coherently aligned, each region outlined,
    coloured by its mean direction, which a bar shows too; windows without fibres are darkened.
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
        width, height = self._panel_size
        pictures = [max(width, _NARROWEST)] * len(self._pictures)
        below = [height + _CAPTION] if pictures else []
        widths = [*pictures, _KEY if pictures else 2 * _LARGE_ROSE + 0.8]
        across = sum(widths) + _GAP * (len(widths) - 1) + 2 * _MARGIN
        return across, max([*below, self._key_height]) + 2 * _MARGIN

    def plot(self, ax: Axes | None = None) -> OrientationDisplay:
        """Draw the panels side by side.

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
        left = _MARGIN
        draw = {"overlay": self._draw_overlay, "regions": self._draw_regions}
        for panel in self._pictures:
            draw[panel](left + max(_NARROWEST - self._panel_size[0], 0) / 2)
            left += max(self._panel_size[0], _NARROWEST) + _GAP
        self._draw_key(left)
        # In inches, y down; what was drawn would else set the limits.
        self.ax_.set(xlim=(0, width), ylim=(height, 0), aspect="equal")
        self.ax_.set_axis_off()
        return self

    @property
    def _pictures(self) -> list[str]:
        return [panel for panel in self.panels if panel != "rose"]

    @property
    def _panel_size(self) -> tuple[float, float]:
        height, width = self.image.shape
        scale = _SIDE / max(height, width)
        return width * scale, height * scale

    @property
    def _key_height(self) -> float:
        wheel = _WHEEL + _LABEL + _LINE + 0.1 if self._pictures else 0.0
        if "rose" not in self.panels:
            return wheel
        return wheel + 2 * self._rose_radius + _LABEL + 0.1 + _CAPTION

    @property
    def _rose_radius(self) -> float:
        return _ROSE if self._pictures else _LARGE_ROSE

    def _draw_overlay(self, left: float) -> None:
        found = self.orientation
        self._draw_picture(left, lambda grey: coloured(grey, found.orientation, found.coherence))
        where = f"{100 * (1 - found.mask.mean()):.0f} % of the pixels are background"
        self._write(left, self.name or "direction of fibres", where)

    def _draw_regions(self, left: float) -> None:
        aligned = self.aligned
        assert aligned is not None  # or the panel would not be there
        self._draw_picture(left, lambda grey: tinted_regions(grey, aligned))
        width, _ = self._panel_size
        draw_regions(self.ax_, aligned, left, _MARGIN, width / self.image.shape[1])
        self._write(left, *_alignment_in_words(aligned, self.orientation.pixel_size))

    def _draw_picture(
        self, left: float, colours_of: Callable[[NDArray[np.float32]], Colours]
    ) -> None:
        picture = thumbnail(colours_of(stretched(self.image)), _SHOWN_PIXELS)
        width, height = self._panel_size
        right, bottom = left + width, _MARGIN + height
        self.ax_.imshow(picture, extent=(left, right, bottom, _MARGIN), interpolation="antialiased")
        size = self.orientation.pixel_size
        if size is not None:
            draw_scale_bar(self.ax_, right, bottom, width, size * self.image.shape[1])

    def _write(self, left: float, first: str, second: str) -> None:
        """Write two lines beneath a picture."""
        width, height = self._panel_size
        letters = int(max(width, _NARROWEST) / 0.068)
        self._lines(left + width / 2, _MARGIN + height + 0.06, first, second, letters)

    def _draw_key(self, left: float) -> None:
        middle, top = left + _KEY / 2, _MARGIN + _LABEL
        if self._pictures:
            draw_wheel(self.ax_, (middle, top + _WHEEL), _WHEEL)
            note: dict[str, Any] = {"va": "top", "ha": "center", "fontsize": 8.0, "color": GREY}
            if "overlay" in self.panels:
                self.ax_.text(middle, top + _WHEEL + 0.07, "paler: less coherent", **note)
            top += _WHEEL + _LINE + _LABEL + 0.1
        else:
            middle = left + _LARGE_ROSE + 0.4 - _MARGIN
        if "rose" not in self.panels:
            return
        radius, mean = self._rose_radius, self.statistics
        found = self.orientation
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
    if not orientation.mask.any():
        return None
    return orientation.statistics(min(32, *orientation.mask.shape))


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
    rule = f"spread below {degrees:.3g}°" if aligned.proba is None else "as a model judges"
    side = f"{aligned.window} pixels"
    if pixel_size is not None:
        side = length_in_words(aligned.window * pixel_size)
    windows = f"windows of {side}, {rule}"
    if np.isnan(aligned.fraction):
        return "background everywhere", windows
    regions = "1 region" if n == 1 else f"{n} regions"
    return f"{100 * aligned.fraction:.0f} % of the area is aligned, {regions}", windows


def _statistics_in_words(found: AxialStatistics | None) -> tuple[str, str]:
    if found is None:
        return "no direction", ""
    spread = "" if np.isinf(found.spread) else f", spread {np.rad2deg(found.spread):.0f}°"
    return f"mean {np.rad2deg(found.mean) % 180:.0f}°{spread}", f"order {found.order:.2f}"
