"""Confusion matrix that stays readable for a dozen classes with long names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.metrics import ConfusionMatrixDisplay, confusion_matrix

from hypervlad.displays.colours import DARK
from hypervlad.displays.figures import Display
from hypervlad.displays.image_grid import literal, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

_MAX_WITH_COUNTS = 20


class ConfusionDisplay(Display):
    """scikit-learn's confusion matrix, coloured by row and labelled with counts.

    Rows are true classes, columns predicted classes. The colour is the share of the row, so that
    rare classes are as visible as common ones; the number is the count of images.

    Parameters
    ----------
    matrix : int ndarray of shape (n_labels, n_labels)
    labels : sequence of n_labels labels

    Attributes
    ----------
    figure_ : matplotlib Figure
    ax_ : matplotlib Axes

    Examples
    --------
    >>> from hypervlad.displays import ConfusionDisplay
    >>> display = ConfusionDisplay.from_predictions(["SEM", "TEM", "TEM"], ["SEM", "SEM", "TEM"])
    >>> display.matrix.tolist(), display.labels
    ([[1, 0], [1, 1]], ['SEM', 'TEM'])
    """

    def __init__(self, matrix: NDArray[Any], labels: Sequence[Any]) -> None:
        self.matrix = np.asarray(matrix)
        self.labels = [str(label) for label in labels]

    @classmethod
    def from_predictions(
        cls,
        y_true: Sequence[Any],
        y_pred: Sequence[Any],
        *,
        labels: Sequence[Any] | None = None,
        ax: Axes | None = None,
    ) -> ConfusionDisplay:
        """Count predictions and plot the matrix.

        Parameters
        ----------
        y_true, y_pred : sequences of n labels
        labels : sequence of labels, optional
            The order of the classes; by default all labels that occur, sorted.
        ax : matplotlib Axes, optional

        Returns
        -------
        ConfusionDisplay
        """
        true, predicted = ([str(label) for label in y] for y in (y_true, y_pred))
        names = sorted({*true, *predicted}) if labels is None else [str(label) for label in labels]
        return cls(confusion_matrix(true, predicted, labels=names), names).plot(ax=ax)

    @property
    def figure_size(self) -> tuple[float, float]:
        """Width and height in inches that suit the number of classes and their names."""
        side = min(max(0.55 * len(self.labels), 2.4), 12)
        names = 0.075 * max((len(shorten(label, 22)) for label in self.labels), default=0)
        return side + names + 0.8, side + names + 0.6

    def _draw(self) -> None:
        shares = self.matrix / np.maximum(self.matrix.sum(axis=1, keepdims=True), 1)
        names = [literal(shorten(label, 22)) for label in self.labels]
        crowded = max((len(name) for name in names), default=0) * len(names) > 24
        ConfusionMatrixDisplay(shares, display_labels=names).plot(
            ax=self.ax_,
            include_values=False,
            cmap="Blues",
            colorbar=False,
            xticks_rotation=40 if crowded else "horizontal",
            im_kw={"vmin": 0, "vmax": 1},
        )
        if crowded:
            for label in self.ax_.get_xticklabels():
                label.set(ha="right", rotation_mode="anchor")
        self.ax_.set(xlabel="predicted class", ylabel="true class")
        self.ax_.tick_params(labelsize=9 if len(names) <= _MAX_WITH_COUNTS else 6, length=0)
        if len(names) <= _MAX_WITH_COUNTS:
            self._write_counts(shares)

    def _write_counts(self, shares: NDArray[Any]) -> None:
        for (row, column), count in np.ndenumerate(self.matrix):
            if count:
                self.ax_.text(
                    column,
                    row,
                    f"{count}",
                    ha="center",
                    va="center",
                    fontsize=9,
                    color="white" if shares[row, column] > 0.55 else DARK,
                )
