"""Reliability diagram: accuracy against confidence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from hypervlad.displays.colours import GREY
from hypervlad.displays.figures import Display
from hypervlad.metrics import Evaluation, ReliabilityBins, wilson_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class ReliabilityDisplay(Display):
    """Share of correct predictions against their confidence, in bins of equal width.

    Usually created by `from_predictions`.

    Parameters
    ----------
    confidence, accuracy : array-like of shape (n_bins,)
        Mean confidence and share of correct predictions of each bin; NaN where a bin is empty.
    counts : array-like of int of shape (n_bins,)

    Attributes
    ----------
    bins : ReliabilityBins
    figure_ : matplotlib Figure
    ax_ : matplotlib Axes

    Examples
    --------
    >>> from hypervlad.displays import ReliabilityDisplay
    >>> proba = [[0.75, 0.25], [0.75, 0.25], [0.95, 0.05]]
    >>> display = ReliabilityDisplay.from_predictions(
    ...     ["SEM", "TEM", "SEM"], proba, classes=["SEM", "TEM"], n_bins=5
    ... )
    >>> display.bins.counts.tolist(), display.bins.accuracy[3:].tolist()
    ([0, 0, 0, 2, 1], [0.5, 1.0])
    """

    def __init__(self, confidence: ArrayLike, accuracy: ArrayLike, counts: ArrayLike) -> None:
        self.bins = ReliabilityBins(
            np.asarray(confidence, dtype=float),
            np.asarray(accuracy, dtype=float),
            np.asarray(counts, dtype=np.intp),
        )

    @classmethod
    def from_predictions(
        cls,
        y_true: Sequence[Any],
        proba: ArrayLike,
        *,
        classes: Sequence[Any],
        n_bins: int = 10,
        ax: Axes | None = None,
    ) -> ReliabilityDisplay:
        """Bin predictions by the probability of the predicted class, and plot.

        Parameters
        ----------
        y_true : sequence of n labels
            A label that is not among `classes` counts as a wrong prediction.
        proba : array-like of shape (n, n_classes)
        classes : sequence of n_classes labels
        n_bins : int
        ax : matplotlib Axes, optional

        Returns
        -------
        ReliabilityDisplay
        """
        result = Evaluation(y_true, np.asarray(proba, dtype=float), classes)
        return cls(*result.reliability_bins(n_bins)).plot(ax=ax)

    @property
    def calibration_error(self) -> float:
        """The expected calibration error of these bins."""
        return self.bins.calibration_error

    @property
    def figure_size(self) -> tuple[float, float]:
        """Width and height in inches."""
        return 5.2, 4.4

    def _draw(self) -> None:
        means, shares, counts = self.bins
        n_bins = len(counts)
        self.ax_.plot([0, 1], [0, 1], color="#888888", linestyle="--", linewidth=1, zorder=3)
        self.ax_.text(
            0.04,
            0.055,
            "perfectly calibrated",
            color="#666666",
            fontsize=8,
            rotation=45,
            rotation_mode="anchor",
            transform_rotates_text=True,
        )
        for index in np.flatnonzero(counts):
            share, count = shares[index], int(counts[index])
            self.ax_.bar(
                index / n_bins, share, 1 / n_bins, align="edge", color="#9ec5e8", edgecolor="white"
            )
            low, high = wilson_interval(share, count)
            x = means[index]
            self.ax_.plot([x, x], [low, high], color="#1f5a8c", linewidth=1.2, zorder=4)
            self.ax_.plot(x, share, "o", color="#1f5a8c", markersize=4, zorder=5, clip_on=False)
            middle = (index + 0.5) / n_bins
            self.ax_.text(middle, 1.02, f"{count}", ha="center", fontsize=8, color=GREY)
        self.ax_.text(0, 1.02, "images:", ha="left", fontsize=8, color=GREY)
        ticks = np.linspace(0, 1, 6)
        self.ax_.set(
            xlim=(0, 1),
            ylim=(0, 1),
            xlabel="confidence",
            ylabel="share of correct predictions",
            xticks=ticks,
            yticks=ticks,
            xticklabels=[f"{100 * tick:.0f} %" for tick in ticks],
            yticklabels=[f"{100 * tick:.0f} %" for tick in ticks],
        )
        self.ax_.spines[["top", "right"]].set_visible(False)
