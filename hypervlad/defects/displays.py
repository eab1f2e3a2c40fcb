"""Figures of defects: score maps, and the limits of detection."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from hypervlad.common.constraints import one_each
from hypervlad.common.progress import announced
from hypervlad.defects.limits import NO_LIMITS, DetectionLimits
from hypervlad.images import ReadOptions, read_mask
from hypervlad.images.masks import as_mask, mask_banner_rows
from hypervlad.images.morphology import grown, shrunk
from hypervlad.images.reading import check_image_list
from hypervlad.pages.base import (
    SHOWN_PIXELS,
    Display,
    Grid,
    GridDisplay,
    Line,
    Tile,
    check_size,
    columns_for_maps,
    common_tile_height,
    names_or_default,
    thumbnail,
)
from hypervlad.pages.colours import FOUND, GREY, TRUE, as_rgb

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SCALE_PERCENTILES = (1, 99.8)
# Of kinds of defects: different in lightness as well as in hue.
_KIND_COLOURS = ("#222222", "#c05a00", "#2a7ab9", "#6a9a1f")
_CONTRASTS = np.geomspace(0.05, 0.6, 60)


class DefectMapDisplay(GridDisplay):
    """Images beside the maps of their defect scores, all on one scale.

    Orange outlines lie inside the regions that were found, blue ones outside those of the mask.
    Blocks of pixels of large images are drawn with their highest score.

    Parameters
    ----------
    images : sequence of n paths or arrays
    maps : sequence of n ndarray of shape (H, W)
        Scores of all pixels, higher where more defective.
    found : sequence of n ndarray of shape (H, W)
        True where a defect was found.
    threshold : float
        The scale of the maps includes this score.
    masks : sequence of n paths, arrays or None, optional
        True where there is a defect; None if unknown.
    names : sequence of n str, optional
        By default the names of the files.
    read_options : ReadOptions, optional

    Raises
    ------
    ValueError
        If lengths differ or a map has NaN; when it is plotted, also if sizes differ, or an image
        or a mask cannot be read.

    Examples
    --------
    >>> import numpy as np
    >>> from hypervlad.results import DefectMapDisplay
    >>> scores = np.zeros((64, 64))
    >>> scores[20:30, 40:50] = 3
    >>> image, found = np.zeros((64, 64)), scores >= 1
    >>> display = DefectMapDisplay([image], [scores], [found], threshold=1, names=["a.png"])
    >>> display.plot().names
    ['a.png']
    """

    _has_legend = True

    def __init__(
        self,
        images: Sequence[Any],
        maps: Sequence[ArrayLike],
        found: Sequence[ArrayLike],
        threshold: float,
        *,
        masks: Sequence[Any] | None = None,
        names: Sequence[str] | None = None,
        read_options: ReadOptions | None = None,
    ) -> None:
        self.images = check_image_list(images)
        maps = one_each("map", maps, len(self.images))
        self.maps = [np.asarray(scores, dtype=np.float64) for scores in maps]
        found = one_each("region found", found, len(self.images))
        self.found = [as_mask(each, "region found") for each in found]
        self.threshold = threshold
        self.masks = one_each("mask", masks, len(self.images))
        self.names = names_or_default(self.images, names)
        self.read_options = read_options
        for name, scores in zip(self.names, self.maps, strict=True):
            if scores.ndim != 2 or not np.isfinite(scores).all():
                problem = f"shape {scores.shape}" if scores.ndim != 2 else "NaN or infinity in it"
                raise ValueError(
                    f"{name}: expected a map of finite scores, shape (H, W); got {problem}."
                )

    @classmethod
    def from_estimator(
        cls,
        scorer: Any,
        images: Sequence[Any],
        *,
        masks: Sequence[Any] | None = None,
        names: Sequence[str] | None = None,
        ax: Axes | None = None,
    ) -> DefectMapDisplay:
        """Score images, and plot their maps with the regions found.

        Parameters
        ----------
        scorer : fitted PatchDefectScorer
        images, masks, names
            As for the class.
        ax : matplotlib Axes, optional
        """
        images = check_image_list(images)
        with announced():
            findings = [scorer.find(image) for image in images]
        return cls(
            images,
            [finding.map for finding in findings],
            [finding.mask for finding in findings],
            scorer.threshold_,
            masks=masks,
            names=names,
            read_options=scorer.encoder_.fitted_params_.read_options,
        ).plot(ax=ax)

    @property
    def grid(self) -> Grid:
        n_images = len(self.images)
        height = common_tile_height(scores.shape for scores in self.maps)
        return Grid(2 * n_images, columns_for_maps(n_images, 1), n_lines=2, tile_height=height)

    def _draw(self) -> None:
        super()._draw()
        low, high = score_limits(self.maps, self.threshold, _SCALE_PERCENTILES)
        entries = [("mask", TRUE)] if any(mask is not None for mask in self.masks) else []
        entries.append(("found", FOUND))
        below = "≤ " if min(scores.min() for scores in self.maps) < low else ""
        above = "≥ " if max(scores.max() for scores in self.maps) > high else ""
        ends = _minus(f"{below}{low:.3g}"), _minus(f"{above}{high:.3g}")
        self._draw_legend(entries, (ends[0], as_rgb(np.linspace(0, 1, 129)[None]), ends[1]))

    def _tiles(self) -> Iterator[Tile]:
        low, high = score_limits(self.maps, self.threshold, _SCALE_PERCENTILES)
        rows = mask_banner_rows(self.read_options or ReadOptions())
        for image, name, scores, found, mask in zip(
            self.images, self.names, self.maps, self.found, self.masks, strict=True
        ):
            pixels = self._read(image)
            check_size(name, pixels, scores)
            truth = None if mask is None else read_mask(mask, shape=scores.shape, banner_rows=rows)
            shown = as_rgb(thumbnail(pixels, SHOWN_PIXELS))
            # Grey, on which both outlines are visible.
            heights = (thumbnail(scores, SHOWN_PIXELS, np.max) - low) / (high - low)
            painted = as_rgb(np.clip(heights, 0, 1))
            for region, colour in ((truth, TRUE), (found, FOUND)):
                if region is not None:
                    small = thumbnail(region, SHOWN_PIXELS, np.max).astype(bool)
                    border = outline(small, outside=region is truth)
                    shown[border] = painted[border] = colour
            true = "" if truth is None else f"true: {100 * truth.mean():.1f} % defective"
            yield Tile(shown, [Line(name), Line(true, GREY)])
            yield Tile(painted, [Line(""), Line(_found_text(found, truth), GREY)])


def score_limits(
    maps: Sequence[NDArray[Any]], threshold: float, percentiles: tuple[float, float]
) -> tuple[float, float]:
    """Return the ends of the scale of maps: percentiles of all scores, and the threshold inside."""
    scores = np.concatenate([*(each.ravel() for each in maps), [threshold]])
    low, high = np.percentile(scores, percentiles)
    low, high = min(low, threshold), max(high, threshold)
    return float(low), float(high) if high > low else float(low) + 1.0


def outline(region: NDArray[np.bool_], *, outside: bool = False) -> NDArray[np.bool_]:
    """Return an outline, two pixels wide, inside a region; or outside it, except at the edges."""
    inside = region & ~shrunk(region, 2)
    if not outside:
        return np.asarray(inside)
    edge = np.ones(region.shape, dtype=bool)
    edge[2:-2, 2:-2] = False
    return np.asarray(grown(region, 2) & ~region | inside & edge)


def _found_text(found: NDArray[np.bool_], truth: NDArray[np.bool_] | None) -> str:
    text = f"found: {100 * found.mean():.1f} %"
    if truth is None:
        return text
    return f"{text} ({_minus(f'{100 * (found.mean() - truth.mean()):+.1f}')})"


def _minus(number: str) -> str:
    return number.replace("-", "−")


class DetectionLimitsDisplay(Display):
    """The areas from which on 90 % (lines) and 50 % (dashed) of synthetic defects are found.

    Parameters
    ----------
    limits : DetectionLimits

    Examples
    --------
    >>> import numpy as np
    >>> from hypervlad.models import DetectionLimits
    >>> from hypervlad.results import DetectionLimitsDisplay
    >>> areas = np.geomspace(10, 1000, 40)
    >>> kinds, contrasts = np.repeat("stains", 40), np.full(40, 0.2)
    >>> limits = DetectionLimits(kinds, areas, contrasts, areas, areas > 100)
    >>> DetectionLimitsDisplay(limits).plot().ax_.get_xlabel()
    'contrast, % of the range from black to white'
    """

    figure_size = 8.4, 3.8

    def __init__(self, limits: DetectionLimits) -> None:
        if not len(limits):
            raise ValueError(NO_LIMITS)
        self.limits = limits

    @classmethod
    def from_estimator(cls, scorer: Any, *, ax: Axes | None = None) -> DetectionLimitsDisplay:
        """Plot the limits of a fitted :class:`hypervlad.PatchDefectScorer`."""
        check_is_fitted(scorer)
        return cls(scorer.limits_).plot(ax=ax)

    def _draw(self) -> None:
        scale, unit = self.limits.unit
        for kind, colour in zip(np.unique(self.limits.kinds).tolist(), _KIND_COLOURS, strict=False):
            for share, line in ((0.9, "-"), (0.5, "--")):
                areas = [scale * self.limits.area(kind, share, c) for c in _CONTRASTS.tolist()]
                shown = np.where(np.isfinite(areas), areas, np.nan)
                label = kind if share == 0.9 else None
                if label and np.isnan(shown).all():
                    label = f"{kind} (less than 90 % found)"
                self.ax_.plot(100 * _CONTRASTS, shown, line, color=colour, label=label)
        self.ax_.set(
            xscale="log",
            yscale="log",
            xlabel="contrast, % of the range from black to white",
            ylabel=f"area, {unit}",
            ylim=(0.7 * scale * self.limits.areas.min(), 1.4 * scale * self.limits.areas.max()),
        )
        ticks = [5, 10, 20, 40, 60]
        self.ax_.set_xticks(ticks, [str(each) for each in ticks])
        self.ax_.minorticks_off()
        self.ax_.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1, 1))
        self.ax_.spines[["top", "right"]].set_visible(False)
