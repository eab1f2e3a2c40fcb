"""The folder of a report, and its page for people who did not train the model."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from sklearn.metrics import confusion_matrix

from hypervlad.classify.answers import LabelIssue
from hypervlad.classify.displays import ConfusionDisplay, ReliabilityDisplay
from hypervlad.classify.evidence_display import EvidenceDisplay
from hypervlad.classify.held_out import SureAnswers
from hypervlad.classify.page import pictures, prediction_sheet
from hypervlad.classify.predictions import predictions_as_bytes
from hypervlad.classify.summary import calibration_text, warning_lines
from hypervlad.common.files import move_into_place, new_folder
from hypervlad.common.wording import counted, name_some, percent, verb
from hypervlad.pages import parts
from hypervlad.pages.facts import page_facts, words_of
from hypervlad.pages.numbers import decimal, share_of
from hypervlad.statistics.classification import Evaluation

_TABLE, _PAGE = "predictions.csv", "index.html"
_N_PICTURED = 48  # of the images: least certain, mistakes, and labels that are probably wrong
_N_EXPLAINED = 4
_EXPERT_SHARES = (0, 0.1, 0.2, 0.3, 0.5)  # of the images


@dataclass(frozen=True)
class HeldOutFindings:
    """Sure answers and probably wrong labels; ``rows`` have their images."""

    sure: list[SureAnswers]
    issues: list[LabelIssue]
    rows: list[int]


@dataclass(frozen=True)
class EvaluatedImages:
    """Images and their predictions.

    With `held_out`, they are training images, predicted by learners without their groups; with
    `in_training`, the model itself was trained on all of them, and nothing follows for others.
    """

    images: Sequence[Any]
    names: Sequence[str]
    result: Evaluation
    model: Any
    held_out: HeldOutFindings | None = None
    in_training: bool = False


def write_report(
    out_dir: str | os.PathLike[str],
    evaluated: EvaluatedImages,
    *,
    title: str,
    how_measured: str,
    notes: Sequence[str],
    progress: bool,
    remarks: Sequence[str] = (),
) -> Path:
    """Write the page and the table of a report: both, or neither."""
    folder, result = Path(out_dir), evaluated.result
    words = words_of(evaluated.model, {*evaluated.names, *result.labels, *result.true})
    warnings = [line.removeprefix("warning: ") for line in warning_lines(result)]
    link = Markup(
        '<a href="{0}">{0}</a>: the predicted class and all probabilities of every image, for '
        "spreadsheets."
    )
    check_report_folder(folder)
    with (
        new_folder(folder),
        tempfile.TemporaryDirectory(prefix=".report-", dir=folder) as temporary,
    ):
        draft = Path(temporary)
        (draft / _TABLE).write_bytes(_table(evaluated))
        content = [
            *_headline(evaluated, [*notes, *warnings], remarks),
            parts.section(
                "How this was measured", *how_measured.splitlines(), _independence(evaluated)
            ),
            *_sections(evaluated, folder.absolute(), progress),
            parts.section("The model", parts.Table((), page_facts(evaluated.model).items())),
            parts.section("Files", link.format(_TABLE)),
        ]
        parts.write_page(draft / _PAGE, title, content, words=words)
        for name in (_TABLE, _PAGE):
            move_into_place(draft / name, folder / name)
    return folder / _PAGE


def check_report_folder(folder: Path) -> None:
    """Raise a ValueError if a report would replace files that are of no earlier report."""
    index = folder / _PAGE
    is_report = index.is_file() and b'content="hypervlad ' in index.read_bytes()[:2000]
    existing = [name for name in (_TABLE, _PAGE) if (folder / name).exists()]
    if existing and not is_report:
        raise ValueError(
            f"{folder}: a report would replace {name_some(existing)}, which "
            f"{verb(len(existing), 'is', 'are')} of no earlier report; write to a new folder"
        )


def _headline(
    evaluated: EvaluatedImages, warnings: Sequence[str], remarks: Sequence[str]
) -> Iterator[parts.Part]:
    """Yield the accuracies, and what is to be said of them."""
    result, held_out, in_training = evaluated.result, evaluated.held_out, evaluated.in_training
    n_images, n_correct, classes = len(result.true), int(result.correct.sum()), result.classes
    (low, high), (label, share), n_untested = result.interval, result.baseline, len(result.untested)
    images, accuracy = f"{n_correct} of {counted(n_images, 'image')}", percent(result.accuracy)
    lead = f"The model classified {images} correctly: {accuracy}."
    if held_out:
        lead = f"Held out from training, {images} were classified correctly: {accuracy}."
    if in_training:
        lead += " It was trained on all of them, so this is no forecast for new images."
    else:
        others = "of new groups like these" if held_out else "of the same kind"
        lead += f" With images {others}, expect between {percent(low)} and {percent(high)}."
    plain, mean = (
        " on training images"
        if in_training
        else f"; 95 % interval {100 * a:.0f} to {100 * b:.0f} %"
        for a, b in (result.interval, result.balanced_interval)
    )
    tested = f"of {len(classes)} classes tested" if n_untested else "classes of the model"
    yield parts.Note(lead, "lead")
    yield parts.Numbers(
        {
            f"accuracy{plain}": accuracy,
            f"balanced accuracy{mean}": percent(result.balanced_accuracy),
            "images tested": n_images,
            tested: len(classes) - n_untested,
            f"accuracy of always predicting “{label}”": percent(share),
        }
    )
    yield (
        "The balanced accuracy is the mean over the classes of the share that is classified "
        "correctly, so that small classes count as much as large ones."
    )
    yield from (parts.warning("Warning", f"{each}.") for each in warnings)
    if result.untested:
        second = " To hold out an image of a class takes a second group of it." if held_out else ""
        names = "”, “".join(map(str, result.untested))
        text = f"there is no image of “{names}”, to which nothing here applies.{second}"
        yield parts.warning("Not tested", text)
    yield from (f"{remark}." for remark in remarks)
    if low <= share and not in_training and not result.unknown:
        yield (
            f"This is not clearly better than always predicting “{label}”: do not use this model "
            "before it has been trained on more images, or tested on more."
        )
    if result.unknown:
        n = sum(name in result.unknown for name in result.true)
        yield (
            f"Of these images, {n} {verb(n, 'has', 'have')} a label that the model was not trained "
            f"on (“{'”, “'.join(map(str, result.unknown))}”), and {verb(n, 'counts', 'count')} as "
            f"mistakes. Of the other {counted(n_images - n, 'image')}, {n_correct} "
            f"{verb(n_correct, 'is', 'are')} correct."
        )


def _independence(evaluated: EvaluatedImages) -> str:
    result, in_training = evaluated.result, evaluated.in_training
    if result.groups is not None:
        n = len({str(group) for group in result.groups})
        groups = "one group" if n == 1 else counted(n, "group")
        alike = "" if in_training else ", and the interval allows for images of a group being alike"
        return f"The images tested come from {groups} (samples or micrographs, for example){alike}."
    return (
        "The interval assumes that the images are independent of each other. If several come from "
        "the same sample or micrograph, give groups: without them the accuracy may look too good."
    ) * (not in_training)


def _sections(evaluated: EvaluatedImages, folder: Path, progress: bool) -> Iterator[parts.Part]:
    result, held_out = evaluated.result, evaluated.held_out
    mistake = "There are no mistakes."
    if result.confusions:
        label, mistaken_for, n = result.confusions[0]
        often = "once" if n == 1 else counted(n, "time")
        mistake = f"The most frequent mistake: “{label}” is mistaken for “{mistaken_for}”, {often}."
    matrix = confusion_matrix(result.true, result.predicted, labels=result.labels)
    yield parts.section(
        "Which classes are mistaken for which",
        f"Each number counts images; those on the diagonal are correct. {mistake}",
        parts.Figure.of(
            ConfusionDisplay(matrix, result.labels),
            f"Confusion matrix of {len(result.labels)} classes; the table below has the scores.",
            "The darker a cell, the larger its share of the row.",
        ),
    )
    yield parts.section(
        "Class by class",
        "Precision: of the images predicted to be of the class, the share that are. Recall: of the "
        "images of the class, the share that are predicted to be. F1 is their harmonic mean.",
        parts.Table(["Class", "Precision", "Recall", "F1", "Images"], _class_rows(result)),
    )
    yield parts.section(
        "Can the probabilities be trusted?",
        _calibration(evaluated),
        parts.Figure.of(
            ReliabilityDisplay(result),
            "Reliability diagram: share of correct predictions against confidence.",
            "Below the dotted line, the model is overconfident. Vertical lines are 95 % intervals; "
            "the numbers above count images.",
        ),
    )
    header = ["Images for the expert", "Images for the model", "Correct of these", "Mistakes found"]
    yield parts.section(
        "What if an expert looks at the doubtful images?",
        "The expert gets the images with the lowest confidence.",
        parts.Table(header, _selective_rows(result)),
    )
    if held_out:
        header = ["Accepted error", "Sure from", "Sure answers", "Wrong of these"]
        yield parts.section(
            "How many answers are sure?",
            Markup(
                "With an accepted error, the model answers only where held-out images show with "
                "90 % certainty that no more of its answers are wrong (<code>predict --max-error"
                "</code>)."
            ),
            parts.Table(header, _sure_rows(held_out.sure, len(result.true)))
            if held_out.sure
            else "None is sure as long as a class has images of a single group, or a single image.",
        )
    yield parts.section(
        "Image by image",
        "Look first at the images with the lowest confidence. Where the model is confident and "
        "wrong, check the label.",
        _suspects(held_out) if held_out else "",
        _sheet(evaluated, folder, progress),
    )
    model = evaluated.model
    is_linear = getattr(model.boosting_, "linear_coef_", None) is not None
    if held_out is None and is_linear and isinstance(model.encoder_.fitted_params_.grid, str):
        yield parts.section(
            "Why the model decided so",
            "Some of the images with the lowest confidence. Where labels or scale bars are red, "
            "the model relies on how the images were made rather than on what they show. Thin "
            "coloured borders and corners mean little.",
            parts.Figure.of(
                _evidence(evaluated),
                "Images, each beside a map of the evidence for the predicted class.",
                "Each image, and the evidence for (red) and against (blue) the predicted class. "
                "The numbers add up to the margin of the class.",
            ),
        )


def _evidence(evaluated: EvaluatedImages) -> EvidenceDisplay:
    result, model = evaluated.result, evaluated.model
    chosen = np.argsort(result.confidence, kind="stable")[:_N_EXPLAINED].tolist()
    images = [evaluated.images[row] for row in chosen]
    return EvidenceDisplay(
        images,
        [model.explain(image) for image in images],
        y_true=[result.true[row] for row in chosen],
        names=[evaluated.names[row].replace("\\", "/").rsplit("/", 1)[-1] for row in chosen],
        read_options=model.encoder_.fitted_params_.read_options,
    )


def _sheet(evaluated: EvaluatedImages, folder: Path, progress: bool) -> parts.Sheet:
    """Return all images as rows, with pictures of those that people should look at."""
    result, images = evaluated.result, evaluated.images
    classes = list(map(str, result.classes))
    sheet = prediction_sheet(evaluated.names, result.proba, classes, result.true, folder, images)
    suspect = [] if evaluated.held_out is None else evaluated.held_out.rows
    if suspect:
        options, wrong_labels = ["probably wrong", "plausible"], set(suspect)
        texts = [options[row not in wrong_labels] for row in range(len(images))]
        sheet.columns.append(parts.Column("Label", texts, options=options))
    by_confidence = np.argsort(result.confidence, kind="stable").tolist()
    wrong = [row for row in reversed(by_confidence) if not result.correct[row]]
    shown = {*by_confidence[:_N_PICTURED], *wrong[:_N_PICTURED], *suspect[:_N_PICTURED]}
    sheet.pictures = pictures(images, sorted(shown), evaluated.model, progress)
    return sheet


def _calibration(evaluated: EvaluatedImages) -> str:
    result = evaluated.result
    error, chance = 100 * result.calibration_error, 100 * result.calibration_range[1]
    of_training = " The model was trained on these images, so nothing follows for new ones."
    return (
        f"The confidence is {calibration_text(result)}. The mean distance of the points from the "
        f"line (the expected calibration error) is {error:.1f} percentage points; chance alone "
        f"gives up to {chance:.1f}.{of_training * evaluated.in_training}"
    )


def _suspects(held_out: HeldOutFindings) -> str:
    if not held_out.issues:
        return "Labels that are probably wrong: None was found among these images."
    return Markup(
        "The label of {} is improbable compared with other images of the class (confident "
        "learning), also where an image is difficult. <code>hypervlad suspects</code> lists all."
    ).format(counted(len(held_out.issues), "image"))


def _class_rows(result: Evaluation) -> list[tuple[Any, ...]]:
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


def _selective_rows(result: Evaluation) -> list[tuple[Any, ...]]:
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


def _sure_rows(counts: Sequence[SureAnswers], n_images: int) -> list[tuple[Any, ...]]:
    return [
        (
            percent(each.max_error),
            "–" if np.isinf(each.threshold) else percent(each.threshold),
            share_of(each.n_sure, n_images),
            share_of(each.n_wrong, each.n_sure) if each.n_sure else "–",
        )
        for each in counts
    ]


def _table(evaluated: EvaluatedImages) -> bytes:
    result = evaluated.result
    columns: dict[str, Sequence[Any]] = {
        "true_label": result.true,
        "correct": [int(correct) for correct in result.correct],
    }
    if result.groups is not None:
        columns["group"] = list(result.groups)
    return predictions_as_bytes(evaluated.names, result.proba, result.classes, columns=columns)
