"""The words of a report: each section says in plain sentences what its numbers mean."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hypervlad.displays import page
from hypervlad.displays.evaluation import ClassScores, Evaluation

_LOOKED_AT = (0, 0.1, 0.2, 0.3, 0.5)  # of the images, by an expert


def headline(result: Evaluation) -> str:
    """How many are right, what to expect, and what the simplest guess would give."""
    n, right = len(result.true), int(result.correct.sum())
    counted = "1 image" if n == 1 else f"{n} images"
    low, high = result.interval
    label, share = result.baseline
    sentence = (
        f"The model classified {right} of {counted} correctly: {percent(result.accuracy)}. "
        f"With other images of the same kind, expect between {percent(low)} and {percent(high)}."
    )
    numbers = {
        "accuracy": percent(result.accuracy),
        "95 % interval of the accuracy": f"{100 * low:.0f} – {100 * high:.0f} %",
        "images tested": f"{n}",
        "classes": f"{len(result.classes)}",
        f"accuracy of always saying “{label}”": percent(share),
    }
    pieces = [page.paragraph(sentence, "lead"), page.cards(numbers)]
    if low <= share:
        pieces.append(
            page.paragraph(
                f"This is not clearly better than always saying “{label}”: do not use this model "
                "before it has learnt from more images, or has been tested on more."
            )
        )
    if result.unknown:
        count = sum(name in result.unknown for name in result.true)
        listed = ", ".join(f"“{name}”" for name in result.unknown)
        pieces.append(
            page.paragraph(
                f"Of these images, {count} carry a label that the model was not trained on "
                f"({listed}). It cannot be right about them; they count as mistakes."
            )
        )
    return "\n".join(pieces)


def method(result: Evaluation, how_measured: str) -> str:
    """Where the images come from, and what the interval takes into account."""
    if result.groups is None:
        interval = (
            "The interval takes the images as independent of each other. If several come from one "
            "sample or one micrograph, give groups: without them the accuracy may look too good."
        )
    else:
        n_groups = len({str(group) for group in result.groups})
        origin = "one group" if n_groups == 1 else f"{n_groups} groups"
        interval = (
            f"The images tested come from {origin} (samples, say, or micrographs), and the "
            "interval allows for images of one group being alike."
        )
    paragraphs = [how_measured, interval] if how_measured else [interval]
    return page.section("How this was measured", *map(page.paragraph, paragraphs))


def confusion(result: Evaluation, picture: str) -> str:
    """Which classes are mistaken for which."""
    explanation = (
        "Each row is a true class, each column what the model said, and each number counts images. "
        "Numbers on the diagonal are right; all others are mistakes."
    )
    return page.section(
        "Which classes are mistaken for which",
        page.paragraph(f"{explanation} {_worst_confusion(result)}"),
        picture,
    )


def class_scores(result: Evaluation) -> str:
    """A table of precision, recall and F1."""
    explanation = (
        "Precision: of the images that the model put into the class, the share that belongs there. "
        "Recall: of the images that belong to the class, the share that the model found. F1 is "
        "their harmonic mean. A dash means that there was nothing to count."
    )
    rows = [
        (
            score.label if score.known else f"{score.label} (unknown to the model)",
            percent(score.precision),
            percent(score.recall),
            decimal(score.f1),
            score.support,
        )
        for score in result.scores
    ]
    rows.append(("mean of the classes", *_means(result.scores), len(result.true)))
    header = ("Class", "Precision", "Recall", "F1", "Images")
    return page.section("Class by class", page.paragraph(explanation), page.table(header, rows))


def calibration(result: Evaluation, picture: str) -> str:
    """Whether the model is right as often as it is sure."""
    explanation = (
        "With each label the model says how sure it is. Where this can be trusted, about 80 % of "
        "the images for which it says “80 % sure” are right, and the bars follow the dashed line. "
        "Bars below the line: the model is too sure of itself. Above it: too modest."
    )
    sure, right = float(result.confidence.mean()), result.accuracy
    error, (_, chance) = result.calibration_error, result.calibration_range
    if error <= chance:
        verdict = "nothing here speaks against the probabilities"
    elif sure > right:
        verdict = "on the whole the model is too sure of itself"
    else:
        verdict = "on the whole the model is too modest"
    summary = (
        f"Here the model is {percent(sure)} sure on average and right in {percent(right)} of "
        f"cases. The bars are {100 * error:.1f} percentage points from the line on average (the "
        "expected calibration error). With this many images, chance alone gives up to "
        f"{100 * chance:.1f}, so {verdict}."
    )
    return page.section(
        "Can the probabilities be trusted?", *map(page.paragraph, (explanation, summary)), picture
    )


def selective_accuracy(result: Evaluation, picture: str) -> str:
    """How right the model is if a person looks at what it is least sure of."""
    explanation = (
        "The model need not answer for all images. The less sure it is of an image, the sooner an "
        "expert should look at it instead; the others are right more often then."
    )
    curve, wrong = result.selective_curve, len(result.true) - int(result.correct.sum())
    places = np.searchsorted(curve.coverage, 1 - np.array(_LOOKED_AT) - 1e-9)
    rows = []
    for at in dict.fromkeys(places.tolist()):  # of few images, two shares may be the same ones
        kept = round(curve.coverage[at] * len(result.true))
        left = round(kept * (1 - curve.accuracy[at]))
        caught = percent((wrong - left) / wrong) if wrong else "–"
        rows.append((len(result.true) - kept, kept, percent(curve.accuracy[at]), caught))
    header = ("Images an expert looks at", "The model answers", "Right of these", "Mistakes seen")
    return page.section(
        "What if an expert looks at the doubtful ones?",
        page.paragraph(explanation),
        page.table(header, rows),
        picture,
    )


def least_certain(picture: str) -> str:
    """The images with the lowest confidence."""
    explanation = (
        "An expert should look at these first: mistakes gather here, and so do images that belong "
        "to no class, or that carry a wrong label."
    )
    return page.section(
        "The images that the model is least sure of", page.paragraph(explanation), picture
    )


def mistakes(picture: str) -> str:
    """The most confident mistakes, or that there are none."""
    if not picture:
        return page.section("Mistakes", page.paragraph("The model made none on these images."))
    explanation = (
        "Where the model is sure and wrong, check the label first: some of these may be labelling "
        "errors. The others show what the model confuses. The surest come first."
    )
    return page.section("Mistakes", page.paragraph(explanation), picture)


def evidence(picture: str) -> str:
    """Why the model hesitates."""
    if not picture:
        return ""
    explanation = (
        "Some of the images that the model is least sure of, with the places that led it to its "
        "answer. The numbers add up to how much the model favours the class: all places together, "
        "and where it starts before it looks. Where labels or scale bars are red, the model leans "
        "on how the images were made rather than on what they show. Thin coloured borders and "
        "corners say little: networks see an image's edge as a pattern of its own."
    )
    return page.section("Why it said so", page.paragraph(explanation), picture)


def codewords(picture: str) -> str:
    """What codeword maps are."""
    if not picture:
        return ""
    explanation = (
        "To describe an image, the model gives every place in it the nearest of its visual words: "
        "small patterns that it found in the training images without being told of any class. In "
        "these maps every word has a colour, and words that are alike have similar colours. "
        "Regions of one texture come out in one mix of colours. The class is decided from how the "
        "words look over the whole image, not from any single place."
    )
    return page.section("What the model sees", page.paragraph(explanation), picture)


def model_facts(details: Mapping[str, Any]) -> str:
    """A table of facts on the model."""
    return page.section("The model", page.facts_table(details)) if details else ""


def file_list(files: Mapping[str, str]) -> str:
    """Links to the files of the folder."""
    listed = {
        "predictions.csv": "for every image, what the model said and all probabilities; opens in a "
        "spreadsheet.",
        **files,
    }
    return page.section("Files", page.links(listed))


def percent(share: float) -> str:
    """A share in per cent; a dash for not-a-number.

    Examples
    --------
    >>> percent(0.25)
    '25.0 %'
    """
    return "–" if math.isnan(share) else f"{100 * share:.1f} %"


def decimal(value: float) -> str:
    """A score with three decimals; a dash for not-a-number."""
    return "–" if math.isnan(value) else f"{value:.3f}"


def _means(scores: Sequence[ClassScores]) -> tuple[str, str, str]:
    tested = [score for score in scores if score.support]
    # A class that the model never names has no precision; in the mean it counts as 0, so that
    # ignoring a class does not look good.
    precision = float(np.mean([np.nan_to_num(score.precision) for score in tested]))
    recall = float(np.mean([score.recall for score in tested]))
    return percent(precision), percent(recall), decimal(float(np.mean([s.f1 for s in tested])))


def _worst_confusion(result: Evaluation) -> str:
    if not result.confusions:
        return "There are no mistakes."
    true, said, count = result.confusions[0]
    times = "once" if count == 1 else f"{count} times"
    return f"The most frequent mistake: “{true}” is taken for “{said}”, {times}."
