"""Which figures the report of an evaluation has, and which images they show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hypervlad.displays.codeword_map import CodewordMapDisplay
from hypervlad.displays.confusion import ConfusionDisplay
from hypervlad.displays.contact_sheet import ContactSheetDisplay
from hypervlad.displays.evidence import EvidenceDisplay
from hypervlad.displays.figures import Display
from hypervlad.displays.image_grid import ReadingOptions
from hypervlad.displays.reliability import ReliabilityDisplay
from hypervlad.displays.selective_accuracy import SelectiveAccuracyDisplay
from hypervlad.metrics import Evaluation

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FIGURES = (
    "confusion",
    "reliability",
    "selective_accuracy",
    "least_certain",
    "mistakes",
    "label_issues",
    "evidence",
    "codewords",
)
_N_LEAST_CERTAIN = 18
_N_MISTAKES = 12
_N_LABEL_ISSUES = 18
_N_EXPLAINED = 4
_N_MAPPED = 4


class EvaluationFigures:
    """The figures of an evaluation, drawn when they are needed.

    Parameters
    ----------
    images : sequence of n path or ndarray of shape (H, W) or (H, W, 3)
    names : sequence of n str
        Only the part after the last slash is shown.
    result : Evaluation
        Of these n images.
    read_options : ReadOptions or mapping of its fields, optional
    suspect : sequence of int
        Rows of images whose label is probably wrong, the most probable first.
    """

    def __init__(
        self,
        images: Sequence[Any],
        names: Sequence[str],
        result: Evaluation,
        read_options: ReadingOptions,
        suspect: Sequence[int],
    ) -> None:
        self.images, self.result, self.read_options = images, result, read_options
        self.suspect = suspect[:_N_LABEL_ISSUES]
        self.names = [name.replace("\\", "/").rsplit("/", 1)[-1] for name in names]

    def drawing(self, name: str, model: Any, encoder: Any) -> Callable[[Axes], Display] | None:
        """Return how to draw one of `FIGURES`, or None if there is nothing to show."""
        result = self.result
        common: dict[str, Any] = {"classes": result.classes}
        if name == "confusion":
            return lambda ax: ConfusionDisplay.from_predictions(
                result.true, result.predicted, labels=result.labels, ax=ax
            )
        if name == "reliability":
            return lambda ax: ReliabilityDisplay.from_predictions(
                result.true, result.proba, **common, ax=ax
            )
        if name == "selective_accuracy":
            return lambda ax: SelectiveAccuracyDisplay.from_predictions(
                result.true, result.proba, **common, ax=ax
            )
        if name == "least_certain":
            return self._sheet("least_certain", _N_LEAST_CERTAIN)
        if name == "mistakes":
            return None if result.correct.all() else self._sheet("mistakes", _N_MISTAKES)
        if name == "label_issues":
            return self._sheet("all", _N_LABEL_ISSUES, self.suspect) if self.suspect else None
        if name == "evidence":
            boosting = getattr(model, "boosting_", None)
            has_linear_part = getattr(boosting, "linear_coef_", None) is not None
            return self._evidence(model) if has_linear_part else None
        return None if encoder is None else self._codewords(encoder)

    def _sheet(
        self,
        select: Literal["least_certain", "mistakes", "all"],
        n_images: int,
        rows: Sequence[int] | None = None,
    ) -> Callable[[Axes], Display]:
        own = range(len(self.images)) if rows is None else rows
        return lambda ax: ContactSheetDisplay.from_predictions(
            [self.images[i] for i in own],
            np.asarray(self.result.proba)[list(own)],
            classes=self.result.classes,
            y_true=[self.result.true[i] for i in own],
            select=select,
            n_images=n_images,
            names=[self.names[i] for i in own],
            read_options=self.read_options,
            ax=ax,
        )

    def _evidence(self, model: Any) -> Callable[[Axes], Display]:
        chosen = np.argsort(self.result.confidence, kind="stable")[:_N_EXPLAINED].tolist()
        return lambda ax: EvidenceDisplay.from_estimator(
            model,
            [self.images[index] for index in chosen],
            y_true=[self.result.true[index] for index in chosen],
            names=[self.names[index] for index in chosen],
            ax=ax,
        )

    def _codewords(self, encoder: Any) -> Callable[[Axes], Display]:
        chosen = one_of_each_class(self.result, _N_MAPPED)
        return lambda ax: CodewordMapDisplay.from_estimator(
            encoder,
            [self.images[index] for index in chosen],
            names=[self.result.true[index] for index in chosen],
            read_options=self.read_options,
            ax=ax,
        )


def one_of_each_class(result: Evaluation, n_images: int) -> list[int]:
    """Choose images of different classes, the most confident correct ones first.

    Parameters
    ----------
    result : Evaluation
    n_images : int

    Returns
    -------
    list of int
        At most `n_images` positions; a second image of a class only if every class has one.
    """
    order = sorted(
        range(len(result.true)), key=lambda i: (not result.correct[i], -result.confidence[i], i)
    )
    rank: dict[int, int] = {}
    n_ranked: dict[str, int] = {}
    for index in order:
        label = result.true[index]
        rank[index] = n_ranked[label] = n_ranked.get(label, -1) + 1
    place = {label: number for number, label in enumerate(result.labels)}
    return sorted(order, key=lambda i: (rank[i], place[result.true[i]]))[:n_images]
