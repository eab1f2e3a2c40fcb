"""Figure of detection limits: the smallest defect that is found, by its contrast."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from hypervlad.defects.limits import NO_LIMITS, DetectionLimits
from hypervlad.pages.base import Display

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Different in lightness as well as in hue.
_COLOURS = ("#222222", "#c05a00", "#2a7ab9", "#6a9a1f")
_CONTRASTS = np.geomspace(0.05, 0.6, 60)


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
        for kind, colour in zip(np.unique(self.limits.kinds).tolist(), _COLOURS, strict=False):
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
