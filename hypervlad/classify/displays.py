"""Figures of predictions with known labels: confusion, reliability, images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.calibration import CalibrationDisplay
from sklearn.metrics import ConfusionMatrixDisplay

from hypervlad.common.constraints import one_each
from hypervlad.images import ReadOptions
from hypervlad.pages.base import Display, Grid, GridDisplay, Line, Tile, literal, shorten, thumbnail
from hypervlad.pages.colours import GREY
from hypervlad.statistics.classification import Evaluation

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MAX_WITH_COUNTS = 20  # classes
_LINE = "#1f5a8c"
_TICKS = np.linspace(0, 1, 6)
_TICK_LABELS = [f"{100 * tick:.0f} %" for tick in _TICKS]


class ConfusionDisplay(Display):
    """scikit-learn's confusion matrix, labelled with counts and coloured by their share of the row.

    Long names of many classes are shortened, and those of more than 20 have no counts.

    Parameters
    ----------
    matrix : int ndarray of shape (n_labels, n_labels)
        Rows are true classes, columns predicted classes.
    labels : sequence of n_labels labels

    Examples
    --------
    >>> from hypervlad.results import ConfusionDisplay
    >>> display = ConfusionDisplay([[1, 0], [1, 1]], ["SEM", "TEM"]).plot()
    >>> display.ax_.get_xlabel()
    'predicted class'
    """

    def __init__(self, matrix: NDArray[Any], labels: Sequence[Any]) -> None:
        self.matrix = np.asarray(matrix)
        self.labels = [str(label) for label in labels]

    @property
    def figure_size(self) -> tuple[float, float]:
        side = min(max(0.55 * len(self.labels), 2.4), 12)
        names = 0.075 * max((len(shorten(label, 22)) for label in self.labels), default=0)
        return side + names + 0.8, side + names + 0.6

    def _draw(self) -> None:
        shares = self.matrix / np.maximum(self.matrix.sum(axis=1, keepdims=True), 1)
        names = [literal(shorten(label, 22)) for label in self.labels]
        crowded = max((len(name) for name in names), default=0) * len(names) > 24
        are_counted = len(names) <= _MAX_WITH_COUNTS
        drawn = ConfusionMatrixDisplay(shares, display_labels=names).plot(
            ax=self.ax_,
            include_values=are_counted,
            cmap="Blues",
            colorbar=False,
            xticks_rotation=40 if crowded else "horizontal",
            im_kw={"vmin": 0, "vmax": 1},
        )
        if are_counted:
            for text, count in zip(drawn.text_.flat, self.matrix.flat, strict=True):
                text.set(text=f"{count}" if count else "", fontsize=9)
        if crowded:
            for label in self.ax_.get_xticklabels():
                label.set(ha="right", rotation_mode="anchor")
        self.ax_.set(xlabel="predicted class", ylabel="true class")
        self.ax_.tick_params(labelsize=9 if are_counted else 6, length=0)


class ReliabilityDisplay(Display):
    """scikit-learn's calibration curve, of the confidence, with an `accuracy_interval` of each bin.

    Parameters
    ----------
    evaluation : Evaluation

    Examples
    --------
    >>> from hypervlad.results import ReliabilityDisplay
    >>> proba, truth = [[0.75, 0.25], [0.75, 0.25], [0.95, 0.05]], ["SEM", "TEM", "SEM"]
    >>> display = ReliabilityDisplay.from_predictions(truth, proba, classes=["SEM", "TEM"])
    >>> display.bins.counts[7:].tolist(), display.bins.accuracy[7:].tolist()
    ([2, 0, 1], [0.5, nan, 1.0])
    """

    def __init__(self, evaluation: Evaluation) -> None:
        self.evaluation = evaluation
        self.bins = evaluation.reliability_bins()

    @classmethod
    def from_predictions(
        cls,
        y_true: Sequence[Any],
        proba: ArrayLike,
        *,
        classes: Sequence[Any],
        ax: Axes | None = None,
    ) -> Self:
        """Evaluate predictions, and plot.

        Parameters
        ----------
        y_true : sequence of n labels
            One that is not among `classes` counts as a wrong prediction.
        proba : array-like of shape (n, n_classes)
        classes : sequence of n_classes labels
        ax : matplotlib Axes, optional
        """
        return cls(Evaluation(y_true, np.asarray(proba, dtype=float), classes)).plot(ax=ax)

    figure_size = 5.2, 4.4

    def _draw(self) -> None:
        used = self.bins.counts > 0
        means, shares, counts = (values[used] for values in self.bins)
        CalibrationDisplay(shares, means, self.evaluation.confidence).plot(
            ax=self.ax_, color=_LINE, marker="o", markersize=4, clip_on=False
        )
        place = np.searchsorted(np.arange(1, len(used)) / len(used), self.evaluation.confidence)
        own = (self.evaluation.subset(place == k) for k in np.flatnonzero(used))
        ends = np.array([each.interval for each in own if each])
        self.ax_.vlines(means, *ends.T, color=_LINE, linewidth=1.2)
        middles = (np.flatnonzero(used) + 0.5) / len(used)
        for middle, count in zip(middles.tolist(), counts.tolist(), strict=True):
            self.ax_.text(middle, 1.02, f"{count}", ha="center", fontsize=8, color=GREY)
        self.ax_.text(0, 1.02, "number:", ha="left", fontsize=8, color=GREY)
        self.ax_.legend().remove()
        self.ax_.set(xlabel="confidence", ylabel="share of correct predictions")
        self.ax_.set(xlim=(0, 1), xticks=_TICKS, xticklabels=_TICK_LABELS)
        self.ax_.set(ylim=(0, 1), yticks=_TICKS, yticklabels=_TICK_LABELS)
        self.ax_.spines[["top", "right"]].set_visible(False)


class ContactSheetDisplay(GridDisplay):
    """Images in rows, each with a caption.

    Parameters
    ----------
    images : sequence of paths or arrays
    captions : sequence of sequence of str
        The lines beneath each image.
    colours : sequence of str, optional
        A matplotlib colour for each image's second line, which is then bold.
    n_columns : int, default=6
    read_options : ReadOptions, optional

    Examples
    --------
    >>> sheet = ContactSheetDisplay([np.eye(8), np.ones((8, 4))], [["a.png"], ["b.png"]])
    >>> len(sheet.captions)
    2
    """

    def __init__(
        self,
        images: Sequence[Any],
        captions: Sequence[Sequence[str]],
        *,
        colours: Sequence[str] | None = None,
        n_columns: int = 6,
        read_options: ReadOptions | None = None,
    ) -> None:
        self.images = images
        self.captions = one_each("caption", captions, len(images))
        self.colours = colours
        self.n_columns = n_columns
        self.read_options = read_options

    @property
    def grid(self) -> Grid:
        n_lines = max((len(lines) for lines in self.captions), default=0)
        return Grid(len(self.images), self.n_columns, n_lines)

    def _tiles(self) -> Iterator[Tile]:
        for index, image in enumerate(self.images):
            yield Tile(thumbnail(self._read(image)), self._caption(index))

    def _caption(self, index: int) -> list[Line]:
        lines = [Line(text, GREY) for text in self.captions[index]]
        if self.colours is not None and len(lines) > 1:
            lines[1] = Line(lines[1].text, self.colours[index], "bold")
        return lines
