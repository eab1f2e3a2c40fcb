"""Score maps beside images, with outlines of predicted and of true defects."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hypervlad.displays.colours import FOUND, GREY, TRUE, as_rgb
from hypervlad.displays.image_grid import (
    SHOWN_PIXELS,
    Grid,
    GridDisplay,
    Line,
    ReadingOptions,
    Tile,
    check_size,
    columns_for_maps,
    common_tile_height,
    draw_legend,
    names_or_default,
    one_each,
    thumbnail,
)
from hypervlad.images import check_image_list, read_mask
from hypervlad.images.masks import mask_banner_rows
from hypervlad.metrics import area_fraction_error
from hypervlad.wording import counted
from hypervlad.workload import announced

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SCALE_PERCENTILES = (1, 99.8)
_PALETTE = "gray"  # both outlines are visible on it
Painter = Callable[[NDArray[np.floating[Any]]], NDArray[np.float64]]


class DefectMapDisplay(GridDisplay):
    """Images beside the maps of their defect scores.

    Orange outlines lie inside the regions that were found, blue ones outside the true regions of
    the mask (inside at the image's edges). Large images are shrunk; a block of pixels gets its
    highest score. All maps share one scale, so that their colours can be compared.

    Parameters
    ----------
    images : sequence of n path or ndarray of shape (H, W) or (H, W, 3)
    maps : sequence of n ndarray of shape (H, W)
        Scores, higher where more defective, of the size of the images.
    threshold : float, optional
        Pixels with at least this score are called defective.
    found : sequence of n ndarray of shape (H, W), optional
        True where a defect was found; by default where the score reaches the threshold.
    masks : sequence of n path, ndarray or None, optional
        True where there is a defect; None if unknown.
    names : sequence of n str, optional
        Names of the images; by default those of their files.
    read_options : ReadOptions or mapping of its fields, optional
        How to read the images.

    Attributes
    ----------
    figure_ : matplotlib Figure
    ax_ : matplotlib Axes

    Raises
    ------
    ValueError
        If there is not one map, mask and name for each image or a map has NaN; when it is plotted,
        also if an image or mask cannot be read, or is of another size than its map.

    Examples
    --------
    >>> import numpy as np
    >>> from hypervlad.displays import DefectMapDisplay
    >>> scores = np.zeros((64, 64))
    >>> scores[20:30, 40:50] = 3
    >>> display = DefectMapDisplay([np.zeros((64, 64))], [scores], threshold=1, names=["a.png"])
    >>> display.plot().names
    ['a.png']
    """

    _has_legend = True

    def __init__(
        self,
        images: Sequence[Any],
        maps: Sequence[ArrayLike],
        *,
        threshold: float | None = None,
        found: Sequence[ArrayLike] | None = None,
        masks: Sequence[Any] | None = None,
        names: Sequence[str] | None = None,
        read_options: ReadingOptions = None,
    ) -> None:
        self.images = check_image_list(images)
        self.maps = [np.asarray(scores, dtype=np.float64) for scores in maps]
        self.threshold = threshold
        self.masks = one_each("mask", masks, len(self.images))
        self.found = one_each("region found", found, len(self.images))
        if found is None and threshold is not None:
            self.found = [scores >= threshold for scores in self.maps]
        self.names = names_or_default(self.images, names)
        self.read_options = read_options
        if len(self.maps) != len(self.images):
            raise ValueError(
                f"expected one map for each of {counted(len(self.images), 'image')}; got "
                f"{len(self.maps)}."
            )
        for name, scores in zip(self.names, self.maps, strict=True):
            if scores.ndim != 2 or not np.isfinite(scores).all():
                problem = f"shape {scores.shape}" if scores.ndim != 2 else "NaN or infinity in it"
                raise ValueError(
                    f"{name}: expected a map of finite scores, shape (H, W); got {problem}."
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
        """Create a display with the parameters of the class, and plot it."""
        return cls(images, maps, **options).plot(ax=ax)

    @classmethod
    def from_estimator(
        cls, scorer: Any, images: Sequence[Any], *, ax: Axes | None = None, **options: Any
    ) -> DefectMapDisplay:
        """Score images with a fitted :class:`hypervlad.PatchDefectScorer` and plot the maps.

        The threshold, the regions found and the reading options are those of the scorer.
        """
        images = check_image_list(images)
        with announced(len(images)):
            findings = [scorer.find(image) for image in images]
        own = {
            "threshold": scorer.threshold_,
            "found": [finding.mask for finding in findings],
            "read_options": scorer.encoder_.fitted_params_.read_options,
        }
        maps = [finding.map for finding in findings]
        return cls.from_predictions(images, maps, ax=ax, **own | options)

    @property
    def grid(self) -> Grid:
        """The extent of the grid: each image and its map."""
        n_images = len(self.images)
        height = common_tile_height(scores.shape for scores in self.maps)
        return Grid(2 * n_images, columns_for_maps(n_images, 1), n_lines=2, tile_height=height)

    def _draw(self) -> None:
        super()._draw()
        low, high = self._limits()
        entries = [("mask", TRUE)] if any(mask is not None for mask in self.masks) else []
        if self.threshold is not None:
            entries.append((f"score ≥ {self.threshold:.3g}", FOUND))
        below = "≤ " if min(scores.min() for scores in self.maps) < low else ""
        above = "≥ " if max(scores.max() for scores in self.maps) > high else ""
        colours = self._painter(np.linspace(low, high, 129)[None])
        ends = f"{below}{low:.3g}", f"{above}{high:.3g}"
        draw_legend(self.ax_, entries, (_minus(ends[0]), colours, _minus(ends[1])))

    def _limits(self) -> tuple[float, float]:
        """The limits of the common scale, which includes the threshold."""
        scores = np.concatenate([scores.ravel() for scores in self.maps])
        low, high = np.percentile(scores, _SCALE_PERCENTILES)
        if self.threshold is not None:
            low, high = min(low, self.threshold), max(high, self.threshold)
        return float(low), float(high) if high > low else float(low) + 1.0

    @property
    def _painter(self) -> Painter:
        import matplotlib as mpl

        (low, high), palette = self._limits(), mpl.colormaps[_PALETTE]
        return lambda scores: np.asarray(palette(np.clip((scores - low) / (high - low), 0, 1)))[
            ..., :3
        ]

    def _tiles(self) -> Iterator[Tile]:
        paint, rows = self._painter, mask_banner_rows(self.read_options or {})
        for image, name, scores, found, mask in zip(
            self.images, self.names, self.maps, self.found, self.masks, strict=True
        ):
            pixels = self._read(image)
            check_size(name, pixels, scores)
            truth = None if mask is None else read_mask(mask, shape=scores.shape, banner_rows=rows)
            shown = as_rgb(thumbnail(pixels, SHOWN_PIXELS))
            painted = paint(thumbnail(scores, SHOWN_PIXELS, np.max))
            for region, colour in ((truth, TRUE), (found, FOUND)):
                if region is not None:
                    small = thumbnail(region, SHOWN_PIXELS, np.max).astype(bool)
                    border = outline(small, outside=region is truth)
                    shown[border] = painted[border] = colour
            yield Tile(shown, [Line(name), Line(_truth_text(truth), GREY)])
            yield Tile(painted, [Line(""), Line(_found_text(found, truth), GREY)])


def outline(region: NDArray[np.bool_], *, outside: bool = False) -> NDArray[np.bool_]:
    """Return the outline of a region, two pixels wide: inside it, or outside except at edges."""
    from scipy.ndimage import binary_dilation, binary_erosion

    inside = region & ~binary_erosion(region, iterations=2)
    if not outside:
        return np.asarray(inside)
    edge = np.ones(region.shape, dtype=bool)
    edge[2:-2, 2:-2] = False
    return np.asarray(binary_dilation(region, iterations=2) & ~region | inside & edge)


def _truth_text(truth: NDArray[np.bool_] | None) -> str:
    return "" if truth is None else f"true: {100 * truth.mean():.1f} % defective"


def _found_text(found: NDArray[np.bool_] | None, truth: NDArray[np.bool_] | None) -> str:
    if found is None:
        return ""
    text = f"found: {100 * found.mean():.1f} %"
    if truth is None:
        return text
    return f"{text} ({_minus(f'{100 * area_fraction_error(found, truth):+.1f}')})"


def _minus(number: str) -> str:
    return number.replace("-", "−")
