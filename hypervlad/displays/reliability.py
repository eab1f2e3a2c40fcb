"""Reliability diagram: is the model right as often as it is sure?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hypervlad.displays.evaluation import wilson_interval
from hypervlad.displays.figures import axes_or_new
from hypervlad.displays.tiles import GREY

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class ReliabilityDisplay:
    """Share of right predictions against their confidence, in bins of equal width.

    It is best made by `from_predictions`.

    Parameters
    ----------
    confidence : array-like of shape (n_bins,)
        Mean confidence of each bin; not-a-number where a bin is empty.
    accuracy : array-like of shape (n_bins,)
        Share of right predictions of each bin; not-a-number where a bin is empty.
    counts : array-like of int of shape (n_bins,)

    Attributes
    ----------
    calibration_error : float
        The expected calibration error: the mean distance between confidence and accuracy, each bin
        weighted by its count [1]_.
    figure_ : matplotlib Figure
    ax_ : matplotlib Axes

    References
    ----------
    .. [1] Guo, Pleiss, Sun, Weinberger. "On calibration of modern neural networks", ICML 2017.
    """

    figure_: Figure
    ax_: Axes

    def __init__(self, confidence: ArrayLike, accuracy: ArrayLike, counts: ArrayLike) -> None:
        self.confidence = np.asarray(confidence, dtype=float)
        self.accuracy = np.asarray(accuracy, dtype=float)
        self.counts = np.asarray(counts, dtype=int)

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
        table = np.asarray(proba, dtype=float)
        said = table.argmax(axis=1)
        correct = [str(classes[k]) == str(label) for k, label in zip(said, y_true, strict=True)]
        bins = reliability_bins(table.max(axis=1), np.asarray(correct, dtype=float), n_bins)
        return cls(*bins).plot(ax=ax)

    @property
    def calibration_error(self) -> float:
        """Mean distance between confidence and accuracy, weighted by counts."""
        filled = self.counts > 0
        gaps = np.abs(self.accuracy - self.confidence)[filled]
        return float(np.average(gaps, weights=self.counts[filled])) if filled.any() else np.nan

    @property
    def figure_size(self) -> tuple[float, float]:
        """Width and height in inches."""
        return 5.2, 4.4

    def plot(self, ax: Axes | None = None) -> ReliabilityDisplay:
        """Draw the diagram: bars, their 95 % intervals and their counts.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            A new figure by default.

        Returns
        -------
        ReliabilityDisplay
            Itself.
        """
        self.figure_, self.ax_ = axes_or_new(ax, self.figure_size)
        n_bins = len(self.counts)
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
        for index in np.flatnonzero(self.counts):
            share, count = self.accuracy[index], int(self.counts[index])
            self.ax_.bar(
                index / n_bins, share, 1 / n_bins, align="edge", color="#9ec5e8", edgecolor="white"
            )
            low, high = wilson_interval(share, count)
            x = self.confidence[index]
            self.ax_.plot([x, x], [low, high], color="#1f5a8c", linewidth=1.2, zorder=4)
            self.ax_.plot(x, share, "o", color="#1f5a8c", markersize=4, zorder=5, clip_on=False)
            middle = (index + 0.5) / n_bins
            self.ax_.text(middle, 1.02, f"{count}", ha="center", fontsize=8, color=GREY)
        self.ax_.text(0, 1.02, "images:", ha="left", fontsize=8, color=GREY)
        ticks = np.linspace(0, 1, 6)
        self.ax_.set(
            xlim=(0, 1),
            ylim=(0, 1),
            xlabel="how sure the model is",
            ylabel="share of right predictions",
            xticks=ticks,
            yticks=ticks,
            xticklabels=[f"{100 * tick:.0f} %" for tick in ticks],
            yticklabels=[f"{100 * tick:.0f} %" for tick in ticks],
        )
        self.ax_.spines[["top", "right"]].set_visible(False)
        return self


def reliability_bins(
    confidence: NDArray[Any], correct: NDArray[Any], n_bins: int = 10
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Average confidence and correctness over bins of equal width in confidence.

    Parameters
    ----------
    confidence : ndarray of shape (n,)
        In [0, 1]; a value on an edge belongs to the lower bin, as in
        `hypervlad.metrics.expected_calibration_error`.
    correct : ndarray of shape (n,)
        1 for a right prediction, 0 for a wrong one.
    n_bins : int

    Returns
    -------
    mean_confidence, accuracy, counts : ndarrays of shape (n_bins,)
        The first two are not-a-number where a bin is empty.

    Examples
    --------
    >>> reliability_bins(np.array([0.6, 0.9, 1.0]), np.array([1, 0, 1]), n_bins=2)[2]
    array([0, 3])
    """
    edges = np.arange(1, n_bins) / n_bins
    place = np.searchsorted(edges, confidence, side="left")
    counts = np.bincount(place, minlength=n_bins)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(place, confidence, n_bins) / counts
        share = np.bincount(place, correct, n_bins) / counts
    return mean, share, counts
