"""Score maps beside images, what a threshold calls defective and what is, outlined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hypervlad.displays.contact_sheet import image_names
from hypervlad.displays.facts import read_options_of
from hypervlad.displays.figures import axes_or_new
from hypervlad.displays.tiles import (
    GREY,
    TILE_INCHES,
    Line,
    Tile,
    columns_for_maps,
    draw_tiles,
    sheet_size,
    thumbnail,
)
from hypervlad.images import check_image_list, read_image, read_mask
from hypervlad.images.masks import mask_banner_rows
from hypervlad.metrics import area_fraction_error

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Colour = tuple[float, float, float]
# Colours that people with any kind of colour vision tell apart (Okabe and Ito 2008).
SEEN: Colour = (0.90, 0.62, 0.0)
TRUE: Colour = (0.34, 0.71, 0.91)
SIDE = 200  # pixels of a picture at least: an outline of two of them is still seen
LEGEND_INCHES = 0.3
_SCALE_PERCENTILES = (1, 99.8)
_PALETTE = "bone"  # on which both lines are seen


class DefectMapDisplay:
    """Images beside the maps of their defect scores.

    Orange lines run inside of where the score reaches the threshold, blue ones outside of where the
    mask is true (inside at the image's edges). Where pictures are smaller than images, a block has
    its highest score. All maps have one scale, so their colours can be compared.

    Parameters
    ----------
    images : sequence of n path or ndarray of shape (H, W) or (H, W, 3)
    maps : sequence of n ndarray of shape (H, W)
        Scores, higher where more defective, of the images' own sizes.
    threshold : float, optional
        From which on a place counts as defective.
    masks : sequence of n path, ndarray or None, optional
        True where there is a defect; None where it is not known.
    names : sequence of n str, optional
        What to call each image.
    read_options : mapping, optional
        How to read the images: the fields of `hypervlad.images.ReadOptions`.

    Attributes
    ----------
    figure_ : matplotlib Figure
    ax_ : matplotlib Axes
    """

    figure_: Figure
    ax_: Axes

    def __init__(
        self,
        images: Sequence[Any],
        maps: Sequence[ArrayLike],
        *,
        threshold: float | None = None,
        masks: Sequence[Any] | None = None,
        names: Sequence[str] | None = None,
        read_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.images = check_image_list(images)
        self.maps = [np.asarray(scores, dtype=np.float64) for scores in maps]
        self.threshold = threshold
        self.masks = one_each("mask", masks, len(self.images))
        self.names = names_or_own(self.images, names)
        self.read_options = read_options
        if len(self.maps) != len(self.images):
            raise ValueError(
                f"expected one map for each of {len(self.images)} images; got {len(self.maps)}."
            )
        for name, scores in zip(self.names, self.maps, strict=True):
            if scores.ndim != 2 or not np.isfinite(scores).all():
                came = f"shape {scores.shape}" if scores.ndim != 2 else "NaN or infinity in it"
                raise ValueError(
                    f"{name}: expected a map of finite scores, shape (H, W); got {came}."
                )

    @classmethod
    def from_predictions(
        cls,
        images: Sequence[Any],
        maps: Sequence[ArrayLike],
        *,
        ax: Axes | None = None,
        **options: Any,
    ) -> DefectMapDisplay:
        """Make a display, with the parameters of the class, and plot it."""
        return cls(images, maps, **options).plot(ax=ax)

    @classmethod
    def from_estimator(
        cls, scorer: Any, images: Sequence[Any], *, ax: Axes | None = None, **options: Any
    ) -> DefectMapDisplay:
        """Score images with a fitted :class:`hypervlad.PatchDefectScorer` and plot the maps.

        The threshold, and how images are read, are the scorer's.
        """
        images = check_image_list(images)
        own = {
            "threshold": scorer.threshold_,
            "read_options": read_options_of(scorer.encoder_),
        }
        maps = [scorer.score_map(image) for image in images]
        return cls.from_predictions(images, maps, ax=ax, **own | options)

    @property
    def n_columns(self) -> int:
        """The image and its map; two images a row where there are several."""
        return columns_for_maps(len(self.images), 1)

    @property
    def figure_size(self) -> tuple[float, float]:
        """Width and height in inches that suit the number of images."""
        width, height = sheet_size(2 * len(self.images), self.n_columns, 2)
        return width, height + LEGEND_INCHES

    def plot(self, ax: Axes | None = None) -> DefectMapDisplay:
        """Read the images and draw them beside their maps.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            A new figure by default.

        Returns
        -------
        DefectMapDisplay
            Itself.

        Raises
        ------
        ValueError
            If an image or mask cannot be read, or is of another size than its map.
        """
        import matplotlib as mpl

        self.figure_, self.ax_ = axes_or_new(ax, self.figure_size)
        low, high = self._limits()
        palette = mpl.colormaps[_PALETTE]

        def coloured(scores: NDArray[np.float64]) -> NDArray[np.float64]:
            shares = np.clip((scores - low) / (high - low), 0, 1)
            return np.asarray(palette(shares)[..., :3])

        tiles = [tile for row in range(len(self.images)) for tile in self._tiles(row, coloured)]
        draw_tiles(self.ax_, tiles, self.n_columns)
        self._draw_legend(coloured(np.linspace(low, high, 129)[None]), low, high)
        return self

    def _limits(self) -> tuple[float, float]:
        """One scale for all maps, the threshold always inside of it."""
        scores = np.concatenate([scores.ravel() for scores in self.maps])
        low, high = np.percentile(scores, _SCALE_PERCENTILES)
        if self.threshold is not None:
            low, high = min(low, self.threshold), max(high, self.threshold)
        return float(low), float(high) if high > low else float(low) + 1.0

    def _tiles(self, row: int, coloured: Any) -> list[Tile]:
        scores = self.maps[row]
        pixels = read_image(self.images[row], **dict(self.read_options or {}))
        check_size(self.names[row], pixels, scores)
        seen = None if self.threshold is None else scores >= self.threshold
        mask = self.masks[row]
        rows = mask_banner_rows(self.read_options or {})
        truth = None if mask is None else read_mask(mask, shape=scores.shape, banner_rows=rows)
        picture = in_colour(thumbnail(pixels, SIDE))
        surface = coloured(thumbnail(scores, SIDE, np.max))
        for region, colour in ((truth, TRUE), (seen, SEEN)):
            if region is not None:
                small = thumbnail(region, SIDE, np.max).astype(bool)
                border = outline(small, outside=region is truth)
                picture[border] = surface[border] = colour
        return [
            Tile(picture, [Line(self.names[row]), Line(_truth_in_words(truth), GREY)]),
            Tile(surface, [Line(""), Line(_finding_in_words(seen, truth), GREY)]),
        ]

    def _draw_legend(self, bar: NDArray[np.float64], low: float, high: float) -> None:
        entries = [("mask", TRUE)] if any(mask is not None for mask in self.masks) else []
        if self.threshold is not None:
            entries.append((f"score ≥ {self.threshold:.3g}", SEEN))
        lowest = min(scores.min() for scores in self.maps)
        highest = max(scores.max() for scores in self.maps)
        left, right = "≤ " if lowest < low else "", "≥ " if highest > high else ""
        draw_legend(self.ax_, entries, bar=(f"{left}{low:.3g}", bar, f"{right}{high:.3g}"))


def outline(region: NDArray[np.bool_], *, outside: bool = False) -> NDArray[np.bool_]:
    """Return the border of a region, two pixels wide: inside, or outside but at image's edges."""
    from scipy.ndimage import binary_dilation, binary_erosion

    inside = region & ~binary_erosion(region, iterations=2)
    if not outside:
        return np.asarray(inside)
    edge = np.ones(region.shape, dtype=bool)
    edge[2:-2, 2:-2] = False
    return np.asarray(binary_dilation(region, iterations=2) & ~region | inside & edge)


def draw_legend(
    ax: Axes,
    entries: Sequence[tuple[str, Colour]],
    bar: tuple[str, NDArray[np.float64], str] | None = None,
) -> None:
    """Add colours and what they mean beneath the tiles, and a bar of a scale with its two ends."""
    left, bottom = ax.get_xlim()[0], ax.get_ylim()[0]
    inch = 1 / TILE_INCHES
    x, y, height = left + 0.1 * inch, bottom + 0.06 * inch, 0.12 * inch
    style: dict[str, Any] = {"va": "center", "fontsize": 8.5, "color": GREY}
    if bar is not None:
        low, colours, high = bar
        width = 0.8 * inch
        shift = 0.07 * inch * (len(low) + 1)
        ax.text(x, y + height / 2, low, ha="left", **style)
        ax.imshow(colours, extent=(x + shift, x + shift + width, y + height, y), aspect="equal")
        ax.text(x + shift + width, y + height / 2, f" {high}", ha="left", **style)
        x += 2 * shift + width + 0.25 * inch
    for text, colour in entries:
        box = np.asarray(colour)[None, None]
        ax.imshow(box, extent=(x, x + height, y + height, y), aspect="equal")
        ax.text(x + height, y + height / 2, f" {text}", ha="left", **style)
        x += height + (0.068 * len(text) + 0.2) * inch
    # The images of the legend would else set the limits.
    ax.set_xlim(left, ax.get_xlim()[1])
    ax.set_ylim(bottom + LEGEND_INCHES * inch, ax.get_ylim()[1])


def check_size(name: str, pixels: NDArray[Any], found: NDArray[Any]) -> None:
    if pixels.shape[:2] != found.shape:
        raise ValueError(
            f"{name}: an image of {pixels.shape[0]} x {pixels.shape[1]} pixels, but a map of "
            f"{found.shape[0]} x {found.shape[1]}; a map has the image's size."
        )


def in_colour(pixels: NDArray[Any]) -> NDArray[np.float64]:
    grey = pixels.ndim == 2
    return np.repeat(pixels[..., None], 3, axis=2).astype(float) if grey else pixels.astype(float)


def names_or_own(images: Sequence[Any], names: Sequence[str] | None) -> Sequence[str]:
    return image_names(images) if names is None else one_each("name", names, len(images))


def one_each(what: str, values: Sequence[Any] | None, n_images: int) -> list[Any]:
    listed = [None] * n_images if values is None else list(values)
    if len(listed) != n_images:
        raise ValueError(f"expected one {what} for each of {n_images} images; got {len(listed)}.")
    return listed


def _truth_in_words(truth: NDArray[np.bool_] | None) -> str:
    return "" if truth is None else f"true: {100 * truth.mean():.1f} % defective"


def _finding_in_words(seen: NDArray[np.bool_] | None, truth: NDArray[np.bool_] | None) -> str:
    if seen is None:
        return ""
    words = f"found: {100 * seen.mean():.1f} %"
    if truth is None:
        return words
    points = f"{100 * area_fraction_error(seen, truth):+.1f}".replace("-", "−")
    return f"{words} ({points})"
