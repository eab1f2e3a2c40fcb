"""The report folder of an evaluation: a page for people who did not train the model."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from tqdm import tqdm

from hypervlad.displays.codeword_map import CodewordMapDisplay
from hypervlad.displays.confusion import ConfusionDisplay
from hypervlad.displays.contact_sheet import ContactSheetDisplay
from hypervlad.displays.evidence import EvidenceDisplay
from hypervlad.displays.figures import Display, save_png
from hypervlad.displays.image_grid import ReadingOptions, image_names
from hypervlad.displays.reliability import ReliabilityDisplay
from hypervlad.displays.selective_accuracy import SelectiveAccuracyDisplay
from hypervlad.files import move_into_place
from hypervlad.metrics import Evaluation
from hypervlad.reports.facts import model_facts, versions_text
from hypervlad.reports.html import CSS_PIXELS_PER_INCH, asset, decimal, percent, render
from hypervlad.reports.predictions import predictions_as_bytes
from hypervlad.wording import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FIGURES = (
    "confusion",
    "reliability",
    "selective_accuracy",
    "least_certain",
    "mistakes",
    "evidence",
    "codewords",
)
_N_LEAST_CERTAIN = 18
_N_MISTAKES = 12
_N_EXPLAINED = 4
_N_MAPPED = 4
_EXPERT_SHARES = (0, 0.1, 0.2, 0.3, 0.5)  # of the images


def write_report(
    out_dir: str | os.PathLike[str],
    *,
    images: Sequence[Any],
    y_true: Sequence[Any],
    proba: ArrayLike,
    classes: Sequence[Any],
    in_training: ArrayLike | None = None,
    title: str = "How well the model classifies",
    how_measured: str = "",
    groups: Sequence[Any] | None = None,
    names: Sequence[str] | None = None,
    encoder: Any = None,
    model: Any = None,
    details: Mapping[str, Any] | None = None,
    files: Mapping[str, str] | None = None,
    read_options: ReadingOptions = None,
    progress: bool = False,
) -> Path:
    """Write a folder with ``index.html``, its figures and ``predictions.csv``.

    The page needs no network and no scripts. Files of an earlier report in the folder are replaced,
    ``index.html`` last, and only once all are complete; no other file in the folder is changed.

    Parameters
    ----------
    out_dir : path-like
        Made if it is missing.
    images : sequence of n path or ndarray of shape (H, W) or (H, W, 3)
        Images that the model was not trained on.
    y_true : sequence of n labels
        A label that is not among `classes` counts as a mistake, and the page reports it.
    proba : array-like of shape (n, n_classes)
        Predicted probabilities of `images`.
    classes : sequence of n_classes labels
        In the order of the columns of `proba`.
    in_training : array-like of bool, shape (n,), optional
        Which of the images the model was trained on; the page then shows the accuracy on the
        others too.
    title : str
    how_measured : str
        A sentence or two on the origin of these images: what was held out, and how.
    groups : sequence of n hashables, optional
        See `accuracy_interval`.
    names : sequence of n str, optional
        Names of the images; by default their paths, or ``image 3``.
    encoder : fitted HypercolumnVLAD, optional
        For the codeword maps; without it they are omitted.
    model : fitted MicrographClassifier, optional
        For the evidence maps; without it, or if it has no linear part, they are omitted.
    details : mapping, optional
        Facts about the model for a table at the end of the page.
    files : mapping of str to str, optional
        Further files of the folder to link to, with their descriptions.
    read_options : ReadOptions or mapping of its fields, optional
        How to read the images for the figures.
    progress : bool
        Show a progress bar where stderr is a terminal.

    Returns
    -------
    Path
        ``index.html``.

    Raises
    ------
    ValueError
        If the lengths differ or there are no images.
    OSError
        If the folder cannot be written.
    """
    folder = Path(out_dir)
    result = Evaluation(y_true, np.asarray(proba), classes, groups)
    names = image_names(images, full=True) if names is None else list(names)
    if not len(images) == len(names) == len(result.true):
        raise ValueError(
            f"got {counted(len(images), 'image')}, {counted(len(names), 'name')} and "
            f"{counted(len(result.true), 'true label')}; "
            "expected as many of each."
        )
    known = np.zeros(len(names), bool) if in_training is None else np.asarray(in_training, bool)
    if len(known) != len(names):
        raise ValueError(
            f"in_training: {counted(len(known), 'value')} for {counted(len(names), 'image')}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    figures = _Figures(images, names, result, read_options)
    with tempfile.TemporaryDirectory(prefix=".report-", dir=folder) as temporary:
        draft = Path(temporary)
        drawn = {}
        hidden = None if progress else True  # None: hidden if stderr is no terminal
        for name in tqdm(FIGURES, desc="report", unit="figure", disable=hidden):
            draw = figures.drawing(name, model, encoder)
            drawn[name] = None if draw is None else _saved(draw, draft / f"{name}.png")
        (draft / "predictions.csv").write_bytes(_table(names, result))
        page = render(
            "evaluation.html",
            title=title,
            style=asset("page.css"),
            result=result,
            n_images=len(result.true),
            n_correct=int(result.correct.sum()),
            n_unknown=sum(name in result.unknown for name in result.true),
            n_groups=0 if groups is None else len({str(group) for group in groups}),
            n_known=int(np.sum(known)),
            new=result.subset(~known),
            mean_confidence=float(result.confidence.mean()),
            class_rows=class_rows(result),
            selective_rows=selective_rows(result),
            how_measured=how_measured,
            figures=drawn,
            details=details or {},
            files=files or {},
        )
        (draft / "index.html").write_text("".join(page), encoding="utf-8", newline="\n")
        _move_in(draft, folder)
    return folder / "index.html"


def report_on_model(
    out_dir: str | os.PathLike[str],
    model: Any,
    images: Sequence[Any],
    y_true: Sequence[Any],
    *,
    groups: Sequence[Any] | None = None,
    names: Sequence[str] | None = None,
    details: Mapping[str, Any] | None = None,
    **options: Any,
) -> tuple[Path, Evaluation, Evaluation | None]:
    """Classify images and write the report; images that cannot be read are left out.

    Parameters
    ----------
    out_dir : path-like
    model : fitted MicrographClassifier
    images : sequence of n path or ndarray of shape (H, W) or (H, W, 3)
    y_true : sequence of n labels
    groups, names : sequence of n, optional
        As for `write_report`.
    details : mapping, optional
        Facts in addition to those of `model_facts`.
    **options
        Further arguments of `write_report`.

    Returns
    -------
    index : Path
        ``index.html``.
    result : Evaluation
    new : Evaluation or None
        Without images that have the pixels of a training image; None if no other is left.
    """
    found = model.classify(images)
    found.images.warn()

    def of_read(values: Sequence[Any]) -> list[Any]:
        return [values[int(position)] for position in found.images.positions]

    result = Evaluation(
        of_read(y_true),
        found.proba,
        list(model.classes_),
        None if groups is None else of_read(groups),
    )
    index = write_report(
        out_dir,
        in_training=found.in_training,
        images=of_read(images),
        y_true=result.y_true,
        proba=result.proba,
        classes=result.classes,
        groups=result.groups,
        names=None if names is None else of_read(names),
        encoder=model.encoder_,
        model=model,
        details={**model_facts(model), **(details or {}), "versions": versions_text()},
        read_options=model.encoder_.fitted_params_.read_options,
        **options,
    )
    return index, result, result.subset(~found.in_training)


def class_rows(result: Evaluation) -> list[tuple[Any, ...]]:
    """Return the scores of each class and their means, formatted.

    Returns
    -------
    list of (label, precision, recall, F1, number of images)
    """
    rows: list[tuple[Any, ...]] = [
        (
            score.label if score.known else f"{score.label} (unknown to the model)",
            percent(score.precision),
            percent(score.recall),
            decimal(score.f1),
            score.support,
        )
        for score in result.scores
    ]
    tested = [score for score in result.scores if score.support]
    # A class that is never predicted has no precision; it counts as 0 in the mean, so that
    # ignoring a class does not improve it.
    precision = float(np.mean([np.nan_to_num(score.precision) for score in tested]))
    recall, f1 = (float(np.mean([getattr(s, name) for s in tested])) for name in ("recall", "f1"))
    means = percent(precision), percent(recall), decimal(f1)
    return [*rows, ("mean of the classes", *means, len(result.true))]


def selective_rows(result: Evaluation) -> list[tuple[Any, ...]]:
    """Return the effect of leaving the least confident predictions to an expert, formatted.

    Returns
    -------
    list of (images for the expert, for the model, share of these correct, share of mistakes found)
    """
    curve, n_wrong = result.selective_curve, len(result.true) - int(result.correct.sum())
    places = np.searchsorted(curve.coverage, 1 - np.array(_EXPERT_SHARES) - 1e-9)
    rows = []
    for place in dict.fromkeys(places.tolist()):  # of few images, two shares may be equal
        kept = round(curve.coverage[place] * len(result.true))
        left = round(kept * (1 - curve.accuracy[place]))
        found = percent((n_wrong - left) / n_wrong) if n_wrong else "–"
        rows.append((len(result.true) - kept, kept, percent(curve.accuracy[place]), found))
    return rows


class SavedFigure(NamedTuple):
    """A figure in the folder of the report, with its size in CSS pixels."""

    source: str
    width: int
    height: int
    display: Display


class _Figures:
    """The figures of an evaluation."""

    def __init__(
        self,
        images: Sequence[Any],
        names: Sequence[str],
        result: Evaluation,
        read_options: ReadingOptions,
    ) -> None:
        self.images, self.result, self.read_options = images, result, read_options
        self.names = [name.replace("\\", "/").rsplit("/", 1)[-1] for name in names]

    def drawing(self, name: str, model: Any, encoder: Any) -> Callable[[Axes], Display] | None:
        """Return how to draw a figure, or None if there is nothing to show."""
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
        if name == "evidence":
            boosting = getattr(model, "boosting_", None)
            has_linear_part = getattr(boosting, "linear_coef_", None) is not None
            return self._evidence(model) if has_linear_part else None
        return None if encoder is None else self._codewords(encoder)

    def _sheet(
        self, select: Literal["least_certain", "mistakes"], n_images: int
    ) -> Callable[[Axes], Display]:
        return lambda ax: ContactSheetDisplay.from_predictions(
            self.images,
            self.result.proba,
            classes=self.result.classes,
            y_true=self.result.true,
            select=select,
            n_images=n_images,
            names=self.names,
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


def _saved(draw: Callable[[Axes], Display], path: Path) -> SavedFigure:
    displays: list[Display] = []

    def drawn(ax: Axes) -> Display:
        displays.append(draw(ax))
        return displays[0]

    width, height = (round(side * CSS_PIXELS_PER_INCH) for side in save_png(drawn, path))
    return SavedFigure(path.name, width, height, displays[0])


def _table(names: Sequence[str], result: Evaluation) -> bytes:
    columns: dict[str, Sequence[Any]] = {
        "true_label": result.true,
        "correct": [int(correct) for correct in result.correct],
    }
    if result.groups is not None:
        columns["group"] = list(result.groups)
    return predictions_as_bytes(names, result.proba, result.classes, columns=columns)


def _move_in(draft: Path, folder: Path) -> None:
    for name in (*(f"{each}.png" for each in FIGURES), "predictions.csv", "index.html"):
        if (draft / name).exists():
            move_into_place(draft / name, folder / name)
        else:
            # A figure of an earlier report that this one does not have would be misleading.
            (folder / name).unlink(missing_ok=True)
