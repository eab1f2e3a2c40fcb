"""The images of an evaluation, and the figures of a report that show them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hypervlad.evaluation import Evaluation
from hypervlad.models.classifier import LabelIssue, SureAnswers
from hypervlad.results.displays.base import Display, image_names, one_each
from hypervlad.results.displays.codewords import CodewordMapDisplay
from hypervlad.results.displays.contact_sheet import ContactSheetDisplay
from hypervlad.results.displays.evaluation import (
    ConfusionDisplay,
    ReliabilityDisplay,
    SelectiveAccuracyDisplay,
)
from hypervlad.results.displays.evidence import EvidenceDisplay

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


@dataclass(frozen=True)
class HeldOutFindings:
    """What a report on held-out training images shows in addition.

    ``issues`` are probably wrong labels, None without cleanlab, and ``rows`` those of their images.
    """

    sure: list[SureAnswers]
    issues: list[LabelIssue] | None
    rows: list[int]


class EvaluatedImages:
    """Images and their predictions, and the figures that show them.

    With `held_out`, these are training images that `model` has not predicted itself.
    """

    def __init__(
        self,
        images: Sequence[Any],
        result: Evaluation,
        names: Sequence[str] | None = None,
        model: Any = None,
        held_out: HeldOutFindings | None = None,
    ) -> None:
        self.images, self.result, self.model, self.held_out = images, result, model, held_out
        own = image_names(images, full=True)
        self.names = own if names is None else one_each("name", names, len(images))
        one_each("true label", result.true, len(images))
        self._files = [name.replace("\\", "/").rsplit("/", 1)[-1] for name in self.names]
        encoder = getattr(model, "encoder_", None)
        self._read_options = None if encoder is None else encoder.fitted_params_.read_options

    def drawing(self, name: str) -> Callable[[Axes], Display] | None:
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
            return self._sheet("least_certain", _N_LEAST_CERTAIN, range(len(self.images)))
        if name == "mistakes":
            if result.correct.all():
                return None
            return self._sheet("mistakes", _N_MISTAKES, range(len(self.images)))
        if name == "label_issues":
            suspect = [] if self.held_out is None else self.held_out.rows[:_N_LABEL_ISSUES]
            return self._sheet("all", _N_LABEL_ISSUES, suspect) if suspect else None
        if name == "evidence":
            boosting = getattr(self.model, "boosting_", None)
            has_linear_part = getattr(boosting, "linear_coef_", None) is not None
            return self._draw_evidence if has_linear_part and self.held_out is None else None
        return None if self.model is None else self._draw_codewords

    def _sheet(
        self,
        select: Literal["least_certain", "mistakes", "all"],
        n_images: int,
        rows: Sequence[int],
    ) -> Callable[[Axes], Display]:
        return lambda ax: ContactSheetDisplay.from_predictions(
            [self.images[i] for i in rows],
            np.asarray(self.result.proba)[list(rows)],
            classes=self.result.classes,
            y_true=[self.result.true[i] for i in rows],
            select=select,
            n_images=n_images,
            names=[self._files[i] for i in rows],
            read_options=self._read_options,
            ax=ax,
        )

    def _draw_evidence(self, ax: Axes) -> Display:
        chosen = np.argsort(self.result.confidence, kind="stable")[:_N_EXPLAINED].tolist()
        return EvidenceDisplay.from_estimator(
            self.model,
            [self.images[index] for index in chosen],
            y_true=[self.result.true[index] for index in chosen],
            names=[self._files[index] for index in chosen],
            ax=ax,
        )

    def _draw_codewords(self, ax: Axes) -> Display:
        chosen = one_of_each_class(self.result, _N_MAPPED)
        return CodewordMapDisplay.from_estimator(
            self.model,
            [self.images[index] for index in chosen],
            names=[self.result.true[index] for index in chosen],
            read_options=self._read_options,
            ax=ax,
        )


def one_of_each_class(result: Evaluation, n_images: int) -> list[int]:
    """Choose images of as many classes as possible, the most confident correct ones first."""
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
