"""Selective accuracy: accuracy of the most confident predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from hypervlad.displays.colours import GREY
from hypervlad.displays.figures import Display
from hypervlad.metrics import Evaluation

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class SelectiveAccuracyDisplay(Display):
    """Accuracy of the most confident predictions against the share of images that they cover.

    Usually created by `from_predictions`.

    Parameters
    ----------
    coverage, accuracy : array-like of shape (m,)
        As from `hypervlad.metrics.selective_accuracy_curve`.
    area : float
        As from `hypervlad.metrics.selective_accuracy_area`.

    Attributes
    ----------
    figure_ : matplotlib Figure
    ax_ : matplotlib Axes

    Examples
    --------
    >>> from hypervlad.displays import SelectiveAccuracyDisplay
    >>> proba = [[0.9, 0.1], [0.6, 0.4]]
    >>> display = SelectiveAccuracyDisplay.from_predictions(
    ...     ["SEM", "TEM"], proba, classes=["SEM", "TEM"]
    ... )
    >>> display.coverage.tolist(), display.accuracy.tolist()
    ([0.5, 1.0], [1.0, 0.5])
    """

    def __init__(self, coverage: ArrayLike, accuracy: ArrayLike, area: float) -> None:
        self.coverage = np.asarray(coverage, dtype=float)
        self.accuracy = np.asarray(accuracy, dtype=float)
        self.area = float(area)

    @classmethod
    def from_predictions(
        cls,
        y_true: Sequence[Any],
        proba: ArrayLike,
        *,
        classes: Sequence[Any],
        ax: Axes | None = None,
    ) -> SelectiveAccuracyDisplay:
        """Order predictions by the probability of the predicted class, and plot.

        Parameters
        ----------
        y_true : sequence of n labels
            A label that is not among `classes` counts as a wrong prediction.
        proba : array-like of shape (n, n_classes)
        classes : sequence of n_classes labels
        ax : matplotlib Axes, optional

        Returns
        -------
        SelectiveAccuracyDisplay
        """
        result = Evaluation(y_true, np.asarray(proba, dtype=float), classes)
        curve = result.selective_curve
        return cls(curve.coverage, curve.accuracy, result.selective_area).plot(ax=ax)

    @property
    def figure_size(self) -> tuple[float, float]:
        """Width and height in inches."""
        return 5.2, 3.6

    def _draw(self) -> None:
        from matplotlib.ticker import MaxNLocator

        everything = self.accuracy[-1]
        self.ax_.axhline(everything, color="#888888", linestyle="--", linewidth=1)
        self.ax_.annotate(
            f"all images: {100 * everything:.0f} %",
            (1, everything),
            xytext=(0, -4),
            textcoords="offset points",
            ha="right",
            va="top",
            fontsize=8,
            color="#666666",
        )
        self.ax_.plot(
            np.append(0, self.coverage),
            np.append(self.accuracy[0], self.accuracy),
            drawstyle="steps-pre",
            color="#1f5a8c",
            linewidth=1.6,
            clip_on=False,
        )
        ticks = np.linspace(0, 1, 6)
        self.ax_.set(
            xlim=(0, 1),
            ylim=(max(0.0, np.floor(10 * self.accuracy.min() - 1) / 10), 1),
            xlabel="share of images, most confident first",
            ylabel="accuracy on these images",
            xticks=ticks,
            xticklabels=[f"{100 * tick:.0f} %" for tick in ticks],
        )
        self.ax_.yaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10]))
        self.ax_.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.6g} %")
        self.ax_.set_title(f"area {self.area:.3f}", fontsize=9, color=GREY, loc="right")
        self.ax_.spines[["top", "right"]].set_visible(False)
