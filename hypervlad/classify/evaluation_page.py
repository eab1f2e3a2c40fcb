"""The report folder of an evaluation: a page for people who did not train the model."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hypervlad.classify.answers import LabelIssue
from hypervlad.classify.codewords_display import CodewordMapDisplay
from hypervlad.classify.displays import (
    ConfusionDisplay,
    ContactSheetDisplay,
    ReliabilityDisplay,
    SelectiveAccuracyDisplay,
)
from hypervlad.classify.evidence_display import EvidenceDisplay
from hypervlad.classify.held_out import SureAnswers
from hypervlad.classify.predictions import predictions_as_bytes
from hypervlad.classify.summary import (
    ACCEPTED_ERRORS,
    evaluation_lines,
    expected_shares_text,
    held_out_text,
    leakage_text,
    unlike_text,
    warning_lines,
)
from hypervlad.common.files import move_into_place, new_folder
from hypervlad.common.progress import ProgressBar
from hypervlad.common.wording import counted, name_some, percent, verb, warn_user
from hypervlad.images import ReadOptions
from hypervlad.images.reading import relative_names
from hypervlad.pages.base import Display, names_or_default, one_each, save_png
from hypervlad.pages.facts import page_facts, words_of
from hypervlad.pages.files import PageFigure, decimal, share_of, write_page
from hypervlad.statistics.classification import Evaluation

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
_FILES = (*(f"{name}.png" for name in FIGURES), "predictions.csv", "index.html")
_EXPERT_SHARES = (0, 0.1, 0.2, 0.3, 0.5)  # of the images
_TITLE = "How well the model classifies"


@dataclass(frozen=True)
class HeldOutFindings:
    """Sure answers and probably wrong labels; ``rows`` have their images."""

    sure: list[SureAnswers]
    issues: list[LabelIssue]
    rows: list[int]


@dataclass(frozen=True)
class EvaluatedImages:
    """Images and their predictions, and the figures that show them.

    With `held_out`, they are training images, predicted by learners without their groups.
    """

    images: Sequence[Any]
    names: Sequence[str]
    result: Evaluation
    model: Any
    held_out: HeldOutFindings | None = None

    def drawing(self, name: str) -> Callable[[Axes], Display] | None:
        """Return how to draw one of `FIGURES`, or None if there is nothing to show."""
        result = self.result
        if name == "confusion":
            return lambda ax: ConfusionDisplay.from_predictions(
                result.true, result.predicted, labels=result.labels, ax=ax
            )
        if name == "reliability":
            return lambda ax: ReliabilityDisplay.from_predictions(
                result.true, result.proba, classes=result.classes, ax=ax
            )
        if name == "selective_accuracy":
            return lambda ax: SelectiveAccuracyDisplay.from_predictions(
                result.true, result.proba, classes=result.classes, ax=ax
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
            has_linear_part = getattr(self.model.boosting_, "linear_coef_", None) is not None
            return self._draw_evidence if has_linear_part and self.held_out is None else None
        return self._draw_codewords

    @property
    def _read_options(self) -> ReadOptions:
        options: ReadOptions = self.model.encoder_.fitted_params_.read_options
        return options

    def _file(self, row: int) -> str:
        return self.names[row].replace("\\", "/").rsplit("/", 1)[-1]

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
            names=[self._file(i) for i in rows],
            read_options=self._read_options,
            ax=ax,
        )

    def _draw_evidence(self, ax: Axes) -> Display:
        chosen = np.argsort(self.result.confidence, kind="stable")[:_N_EXPLAINED].tolist()
        return EvidenceDisplay.from_estimator(
            self.model,
            [self.images[index] for index in chosen],
            y_true=[self.result.true[index] for index in chosen],
            names=[self._file(index) for index in chosen],
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
    """Choose images of as many classes as possible, confident correct predictions first."""
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


def write_report(
    out_dir: str | os.PathLike[str],
    evaluated: EvaluatedImages,
    *,
    title: str = _TITLE,
    how_measured: str = "",
    in_training: bool = False,
    details: Mapping[str, Any] | None = None,
    files: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
    remarks: Sequence[str] = (),
    progress: bool = False,
) -> Path:
    """Write a report; if all are training images (`in_training`), it draws no conclusions."""
    folder, result, held_out = Path(out_dir), evaluated.result, evaluated.held_out
    words = words_of(evaluated.model, result.labels)
    warnings = [words(line.removeprefix("warning: ")) for line in warning_lines(result)]
    check_report_folder(folder)
    with (
        new_folder(folder),
        tempfile.TemporaryDirectory(prefix=".report-", dir=folder) as temporary,
    ):
        draft = Path(temporary)
        drawn = {}
        hidden = not progress or None  # None: hidden if stderr is no terminal
        for name in ProgressBar(FIGURES, desc="report", unit="figure", disable=hidden):
            draw = evaluated.drawing(name)
            drawn[name] = None if draw is None else _saved(draw, draft / f"{name}.png")
        (draft / "predictions.csv").write_bytes(_table(evaluated))
        write_page(
            draft / "index.html",
            "evaluation.html",
            says_particle=evaluated.model.encoder_.is_of_particles_,
            title=title,
            result=result,
            n_images=len(result.true),
            n_correct=int(result.correct.sum()),
            n_unknown=sum(name in result.unknown for name in result.true),
            n_groups=0 if result.groups is None else len({str(group) for group in result.groups}),
            in_training=in_training,
            mean_confidence=float(result.confidence.mean()),
            class_rows=class_rows(result),
            selective_rows=selective_rows(result),
            warnings=[*notes, *warnings],
            remarks=remarks,
            held_out=held_out,
            sure_rows=[] if held_out is None else sure_rows(held_out.sure, len(result.true)),
            how_measured=how_measured,
            figures=drawn,
            details=details or {},
            files=files or {},
        )
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
    title: str = _TITLE,
    how_measured: str = "",
    details: Mapping[str, Any] | None = None,
    files: Mapping[str, str] | None = None,
    progress: bool = False,
) -> tuple[Path, Evaluation, list[str]]:
    """Classify images and write ``index.html``, its figures and ``predictions.csv``.

    Images that cannot be read are left out, and so are those with the pixels of a training image,
    unless all have them. Files of an earlier report are replaced once all are complete.

    Parameters
    ----------
    out_dir : path-like
        Made if it is missing.
    model : fitted MicrographClassifier
    images : sequence of n paths or arrays
    y_true : sequence of n labels
        A label that is not among the classes counts as a mistake.
    groups : sequence of n hashables, optional
        See `accuracy_interval`.
    names : sequence of n str, optional
        Names of the images; by default their paths, or ``image 3``.
    title : str, default="How well the model classifies"
    how_measured : str, default=""
        What was held out, and how, in a sentence or two.
    details : mapping, optional
        Facts in addition to those of `model_facts`.
    files : mapping of str to str, optional
        Further files of the folder to link to, with their descriptions.
    progress : bool, default=False
        Show a bar on stderr.

    Returns
    -------
    index : Path
        ``index.html``.
    result : Evaluation
        Of the images of the report.
    lines : list of str
        A summary: training images, images unlike them, accuracies, recalls, warnings.

    Raises
    ------
    ValueError
        If lengths differ, no image can be read, or the folder has files of these names that are of
        no report.

    Examples
    --------
    >>> import tempfile
    >>> from hypervlad import HypercolumnVLAD, MicrographClassifier, make_tem_images
    >>> from hypervlad.results import report_on_model
    >>> images, labels = make_tem_images(16, size=32, random_state=0)
    >>> encoder = HypercolumnVLAD(weights="random", image_size=32, n_codewords=4, sampling=900)
    >>> model = MicrographClassifier(encoder, random_state=0).fit(images, labels)
    >>> new, truth = make_tem_images(8, size=32, random_state=1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     index, result, lines = report_on_model(folder, model, new, truth)
    >>> index.name, len(result.true)
    ('index.html', 8)
    """
    y_true = one_each("true label", y_true, len(images))
    names = names_or_default(images, names, full=True)
    if groups is not None:
        groups = one_each("group", groups, len(images))
    found = model.classify(images)
    found.images.warn()
    positions, known = found.images.positions, found.in_training
    everything = Evaluation(
        [y_true[i] for i in positions],
        found.proba,
        list(model.classes_),
        None if groups is None else [groups[i] for i in positions],
    )
    remarks = [leakage_text(everything, int(known.sum()))] if known.any() else []
    tested = known if known.all() else ~known
    result = everything.subset(tested)
    assert result is not None  # no image could be read: `warn` raises
    words = words_of(model, {*names, *result.true})
    unlike = found.unlike_training[tested]
    if unlike.any() and not known.all():
        remarks.append(unlike_text(result, unlike))
    chosen = positions[tested].tolist()
    evaluated = EvaluatedImages(
        [images[i] for i in chosen], [names[i] for i in chosen], result, model
    )
    index = write_report(
        out_dir,
        evaluated,
        title=title,
        how_measured=how_measured,
        in_training=bool(known.all()),
        details=page_facts(model, details),
        files=files,
        notes=list(map(words, [*found.images.messages, *found.differences])),
        remarks=list(map(words, remarks)),
        progress=progress,
    )
    for difference in found.differences:
        warn_user(difference)
    lines = [*remarks, *evaluation_lines(result, forecast=not known.all())]
    return index, result, list(map(words, lines))


def report_on_held_out(
    out_dir: str | os.PathLike[str],
    model: Any,
    images: Sequence[Any],
    *,
    groups: Sequence[Any] | None = None,
    names: Sequence[str] | None = None,
    title: str = _TITLE,
    notes: Sequence[str] = (),
    progress: bool = False,
) -> tuple[Path, Evaluation]:
    """Write the report of `report_on_model` for training images that ``fit`` held out.

    The predictions are those of `held_out_evaluation`.

    Parameters
    ----------
    out_dir : path-like
    model : fitted MicrographClassifier
    images : sequence of n paths or arrays
        Those given to ``fit``, in the same order.
    groups : sequence of n hashables, optional
        Those given to ``fit``, for their names in the table; by default they have numbers.
    names, title, progress
        As for `report_on_model`.
    notes : sequence of str, default=()
        Sentences to show as warnings.

    Returns
    -------
    index : Path
        ``index.html``.
    result : Evaluation

    Raises
    ------
    ValueError
        If nothing was held out in ``fit``, lengths differ, or the images or groups are not those
        given to it.

    Examples
    --------
    >>> import tempfile
    >>> from hypervlad import HypercolumnVLAD, MicrographClassifier, make_tem_images
    >>> from hypervlad.results import report_on_held_out
    >>> images, labels = make_tem_images(24, size=64, random_state=0)
    >>> encoder = HypercolumnVLAD(weights="random", image_size=64, n_codewords=4, sampling=900)
    >>> model = MicrographClassifier(encoder, random_state=0).fit(images, labels)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     index, result = report_on_held_out(folder, model, images)
    >>> index.name, len(result.true)
    ('index.html', 24)
    """
    result = model.held_out_evaluation()
    _check_training_images(model, images)
    names = names_or_default(images, names, full=True)
    if groups is not None:
        groups = one_each("group", groups, len(images))
        names_of = _names_of_groups(model.training_, groups)
        if result.groups is not None:
            result = replace(result, groups=[names_of[code] for code in result.groups])
    positions = model.training_.positions[model.held_out_.rows].tolist()
    evaluated = EvaluatedImages(
        [images[i] for i in positions],
        [names[i] for i in positions],
        result,
        model,
        _held_out_findings(model, positions),
    )
    index = write_report(
        out_dir,
        evaluated,
        title=title,
        how_measured=words_of(model)(_how_held_out(model, result)),
        details=page_facts(model),
        notes=notes,
        progress=progress,
    )
    return index, result


def _held_out_findings(model: Any, positions: Sequence[int]) -> HeldOutFindings:
    row_of = {position: row for row, position in enumerate(positions)}
    issues = model.label_issues()
    errors = () if len(model.held_out_.lone) else ACCEPTED_ERRORS
    return HeldOutFindings(
        [model.held_out_.sure_answers(error) for error in errors],
        issues,
        [row_of[issue.position] for issue in issues],
    )


def _names_of_groups(training: Any, groups: Sequence[Any]) -> dict[int, Any]:
    """Return for each group of training images the name that its first image's group was given."""
    # A copy is in the group of its original, whatever the name of its own group.
    pairs = sorted(zip(training.positions.tolist(), training.groups.tolist(), strict=True))
    codes = {groups[i]: code for i, code in reversed(pairs)}
    apart = [groups[i] for i, code in pairs if codes[groups[i]] != code]
    if apart:
        raise ValueError(f"the groups are not those given to fit, such as {apart[0]!r}")
    return {code: groups[i] for i, code in reversed(pairs)}


def _check_training_images(model: Any, images: Sequence[Any]) -> None:
    known = model.training_
    chosen = [images[i] for i in known.positions.tolist() if i < len(images)]
    if len(chosen) < len(known) or relative_names(chosen) != known.names:
        raise ValueError(
            "the report needs the images given to fit, in the same order; the model was trained "
            f"on {counted(len(known), 'image')}"
            f"{f', such as {known.names[0]}' if known.names[0] else ''}, and "
            f"these {len(images)} are others, or in another order"
        )


def _how_held_out(model: Any, result: Evaluation) -> str:
    shares = expected_shares_text(model, result)
    return (
        "These are the training images themselves, but each was classified by models that were "
        "trained in the same way without the groups of these images ("
        f"{held_out_text(model, result)}). Without a table of groups, each image is its own "
        "group.\n"
        "The figures show what to expect of new images from groups like these. They do not show "
        "whether the model works for another instrument, another kind of sample or other settings: "
        "for this, evaluate it on such images. They are too good if images of one sample or "
        "micrograph were given as separate groups, and slightly too low if the models had fewer "
        "groups to learn from than the final one."
        + (
            f"\nThe probabilities are for {shares}, not for the shares of these images, so the "
            "mean confidence may differ from the accuracy."
            if shares
            else ""
        )
    )


def class_rows(result: Evaluation) -> list[tuple[Any, ...]]:
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
    """Return images for an expert, for the model, share of these correct, and of mistakes found."""
    curve, n_wrong = result.selective_curve, len(result.true) - int(result.correct.sum())
    places = np.searchsorted(curve.coverage, 1 - np.array(_EXPERT_SHARES) - 1e-9)
    rows = []
    for place in dict.fromkeys(places.tolist()):  # of few images, two shares may be equal
        kept = round(curve.coverage[place] * len(result.true))
        left = round(kept * (1 - curve.accuracy[place]))
        found = percent((n_wrong - left) / n_wrong) if n_wrong else "–"
        rows.append((len(result.true) - kept, kept, percent(curve.accuracy[place]), found))
    return rows


def sure_rows(counts: Sequence[SureAnswers], n_images: int) -> list[tuple[Any, ...]]:
    return [
        (
            percent(each.max_error),
            "–" if np.isinf(each.threshold) else percent(each.threshold),
            share_of(each.n_sure, n_images),
            share_of(each.n_wrong, each.n_sure) if each.n_sure else "–",
        )
        for each in counts
    ]


def _saved(draw: Callable[[Axes], Display], path: Path) -> PageFigure:
    displays: list[Display] = []

    def drawn(ax: Axes) -> Display:
        displays.append(draw(ax))
        return displays[0]

    return PageFigure.of(path.name, save_png(drawn, path), displays[0])


def _table(evaluated: EvaluatedImages) -> bytes:
    result = evaluated.result
    columns: dict[str, Sequence[Any]] = {
        "true_label": result.true,
        "correct": [int(correct) for correct in result.correct],
    }
    if result.groups is not None:
        columns["group"] = list(result.groups)
    return predictions_as_bytes(evaluated.names, result.proba, result.classes, columns=columns)


def check_report_folder(folder: Path) -> None:
    """Raise a ValueError if a report would replace files that are of no earlier report."""
    index = folder / "index.html"
    is_report = index.is_file() and b'content="hypervlad ' in index.read_bytes()[:2000]
    existing = [name for name in _FILES if (folder / name).exists()]
    if existing and not is_report:
        raise ValueError(
            f"{folder}: a report would replace {name_some(existing)}, which "
            f"{verb(len(existing), 'is', 'are')} of no earlier report; choose another folder"
        )


def _move_in(draft: Path, folder: Path) -> None:
    for name in _FILES:
        if (draft / name).exists():
            move_into_place(draft / name, folder / name)
        else:
            # A figure of an earlier report that this one does not have would be misleading.
            (folder / name).unlink(missing_ok=True)
