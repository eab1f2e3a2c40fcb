"""Particles of a micrograph: outlines in the colours of their classes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, compress
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hypervlad.common.constraints import one_each
from hypervlad.common.wording import name_some
from hypervlad.images import read_micrograph
from hypervlad.images.reading import image_name
from hypervlad.objects.particle import Outline, Outlines, check_same_size
from hypervlad.pages.base import Display, literal, shorten, thumbnail
from hypervlad.pages.colours import BORDER, CLASS_COLOURS, GREY, stretch_contrast
from hypervlad.pages.numbers import draw_scale_bar

_SIDE = 5.0  # inches, of the longer side of the image
_SHOWN_PIXELS = 700
_LINE_INCHES, _KEY_INCHES, _LETTER_INCHES = 0.2, 0.6, 0.068  # of the legend
_POINTS = 1.3
_STYLES: tuple[Any, ...] = ("solid", (0, (4, 2)), (0, (1, 1.5)))


class ParticleDisplay(Display):
    """A micrograph with the outlines of its particles, in the colours of their classes.

    Parameters
    ----------
    image : path or array
        As in :func:`hypervlad.read_micrograph`.
    outlines : Outlines, array (H, W) of int, or array or sequence of n masks (H, W)
        As in :func:`hypervlad.particles.cut_particles`.
    classes : sequence of n labels, optional
        The class of each particle, in the order of the outlines.
    class_names : sequence of labels, optional
        All classes, in the order of their colours; by default those that occur, sorted. The lines
        of the seventh and of later classes are dashed or dotted.
    pixel_size : float, optional
        Nanometres per pixel, for the scale bar; by default those that the file contains. Without
        them, there is no scale bar.

    Attributes
    ----------
    outlines : Outlines
    class_names : list of str
        Empty without classes.

    Raises
    ------
    ValueError
        If the image cannot be read, the outlines have another size, there is not one class for
        each, or a class is not among `class_names`.

    Examples
    --------
    >>> from hypervlad import make_particle_fields
    >>> from hypervlad.results import ParticleDisplay
    >>> (image,), (truth,) = make_particle_fields(1, n_particles=4, size=128, random_state=0)
    >>> ParticleDisplay(image, truth.outlines, truth.classes, pixel_size=2.0).plot().class_names
    ['rod', 'sphere']
    """

    def __init__(
        self,
        image: Any,
        outlines: ArrayLike | Outlines,
        classes: Sequence[Any] | None = None,
        *,
        class_names: Sequence[Any] | None = None,
        pixel_size: float | None = None,
    ) -> None:
        micrograph = read_micrograph(image)
        self.outlines = Outlines.of(outlines)
        check_same_size(self.outlines, micrograph.pixels, image_name(image))
        self.pixels = micrograph.pixels
        self.pixel_size = micrograph.pixel_size if pixel_size is None else pixel_size
        labels = one_each("class", classes, len(self.outlines))
        self.classes = None if classes is None else list(map(str, labels))
        names = sorted(set(self.classes or ())) if class_names is None else class_names
        self.class_names = [str(name) for name in names]
        strange = sorted(set(self.classes or ()) - set(self.class_names))
        if strange:
            raise ValueError(
                f"class_names={self.class_names!r} must name each class; there are "
                f"{name_some(strange)}"
            )

    @property
    def figure_size(self) -> tuple[float, float]:
        width, height = self._panel_size
        n_rows = -(-len(self.class_names) // self._n_columns)
        return width, height + (_LINE_INCHES * n_rows + 0.2 if n_rows else 0)

    @property
    def _panel_size(self) -> tuple[float, float]:
        height, width = self.outlines.shape
        scale = _SIDE / max(height, width)
        return width * scale, height * scale

    @property
    def _n_columns(self) -> int:
        """Of the legend."""
        longest = max((len(shorten(name)) for name in self.class_names), default=0)
        return max(1, int(self._panel_size[0] / (_KEY_INCHES + _LETTER_INCHES * longest)))

    def _draw(self) -> None:
        from matplotlib.collections import LineCollection
        from matplotlib.patheffects import withStroke

        ax, (width, height) = self.ax_, self._panel_size
        shown = stretch_contrast(thumbnail(self.pixels, _SHOWN_PIXELS))
        ax.imshow(shown, cmap="gray", vmin=0, vmax=1, extent=(0, width, height, 0))
        inches = width / self.outlines.shape[1]
        rings = [[inches * ring for ring in contours(outline)] for outline in self.outlines]
        labels = [""] * len(rings) if self.classes is None else self.classes
        for code, name in enumerate(self.class_names if self.classes is not None else [""]):
            turn, place = divmod(code, len(CLASS_COLOURS))
            of_class = [label == name for label in labels]
            lines = LineCollection(
                list(chain(*compress(rings, of_class))),
                colors=CLASS_COLOURS[place],
                linestyles=[_STYLES[turn % len(_STYLES)]],
                linewidths=_POINTS,
                path_effects=[withStroke(linewidth=2 * _POINTS, foreground=BORDER)],
                label=literal(shorten(name)),
            )
            ax.add_collection(lines, autolim=False)
        if self.classes is not None and self.class_names:
            ax.legend(
                loc="upper center",
                bbox_to_anchor=(0.5, 0),
                ncols=self._n_columns,
                frameon=False,
                fontsize=8.5,
                labelcolor=GREY,
            )
        if self.pixel_size is not None:
            draw_scale_bar(ax, width, self.pixels, self.pixel_size)
        ax.set(xlim=(0, width), ylim=(height, 0), aspect="equal")
        ax.set_axis_off()


def contours(outline: Outline) -> list[NDArray[np.float64]]:
    """Return closed lines around a particle and its holes: x and y in the field, (n, 2) each."""
    from skimage.measure import find_contours  # not above: importing it takes long

    top, left, *_ = outline.box
    # Coordinates of a picture count from the corner of the first pixel, not from its middle.
    found = find_contours(np.pad(outline.mask, 1).astype(np.uint8), 0.5)
    return [line[:, ::-1] + (left - 0.5, top - 0.5) for line in found]


def svg_path(outline: Outline) -> str:
    """Return `contours` as a path of SVG, in half pixels."""
    parts = []
    for line in contours(outline):
        corners = np.rint(2 * line).astype(int)
        steps = np.diff(corners, axis=0)
        is_turn = np.append((steps[1:] != steps[:-1]).any(axis=1), True)
        corners = np.concatenate([corners[:1], corners[1:][is_turn]])
        moves = " ".join(map(str, np.diff(corners, axis=0).ravel().tolist()))
        parts.append(f"M{corners[0, 0]} {corners[0, 1]}l{moves}z")
    return "".join(parts)
