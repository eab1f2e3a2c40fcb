"""The page of classified images: one file that sorts, filters and shows them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import ArrayLike

from hypervlad.classify.answers import AMBIGUOUS, OUT_OF_DISTRIBUTION, SURE, Classification
from hypervlad.classify.predictions import (
    LIKE_TRAINING,
    kinds_of,
    possible_classes,
    prediction_notes,
)
from hypervlad.common.constraints import one_each
from hypervlad.common.progress import ProgressBar
from hypervlad.common.wording import counted, percent, printable
from hypervlad.images import SkippedImage, read_image
from hypervlad.images.reading import read_in_order
from hypervlad.pages import parts
from hypervlad.pages.base import names_or_default
from hypervlad.pages.facts import page_facts, words_of
from hypervlad.pages.numbers import share_of, thousands

_MAX_PICTURES = 10_000  # about 4 kB each
_SIDE, _QUALITY = 160, 72  # pixels, of a picture's longer side
_N_AHEAD = 2  # images decoded at a time: each may take a gigabyte
_DIGITS = 6  # of a probability
_KINDS = {
    SURE: "sure",
    AMBIGUOUS: "ambiguous",
    LIKE_TRAINING: "like the training images",
    OUT_OF_DISTRIBUTION: "unlike the training images",
}
_STYLES = {SURE: "sure", AMBIGUOUS: "ambiguous", LIKE_TRAINING: "", OUT_OF_DISTRIBUTION: "unlike"}
_RESULT = "Result"
_TRUTHS = _CORRECT, _WRONG, _UNKNOWN = ("predicted correctly", "predicted wrongly", "unknown")


def write_classified_page(
    path: str | os.PathLike[str],
    model: Any,
    images: Sequence[Any],
    *,
    names: Sequence[str] | None = None,
    max_error: float | None = None,
    predictions: Classification | None = None,
    true_labels: Sequence[Any] | None = None,
    title: str | None = None,
    progress: bool = False,
) -> Path:
    """Classify images and write a page on which they can be sorted, filtered and inspected.

    The page is one file that works offline. It has thumbnails of the 10,000 most doubtful images,
    and links to the original files.

    Parameters
    ----------
    path : path of an .html file
    model : fitted MicrographClassifier
        If its encoder has ``on_error="skip"``, images that cannot be read are listed with the
        reasons.
    images : sequence of n paths or arrays
    names : sequence of n str, optional
        Names of the images; by default their paths, or ``image 3``.
    max_error : float, optional
        Also show which predictions are sure, so that at most this share of them is wrong: see
        `MicrographClassifier.judge`.
    predictions : Classification, optional
        What `MicrographClassifier.classify` returned for these images and this `max_error`.
    true_labels : sequence of n labels, optional
        None where a label is unknown.
    title : str, optional
        By default "Classified images", or particles.
    progress : bool, default=False
        Show a bar on stderr.

    Returns
    -------
    Path
        Where the page is.

    Raises
    ------
    ValueError
        If lengths differ, no image can be read, one cannot and the encoder does not skip it, or
        `max_error` is given and nothing was held out in ``fit``.

    Examples
    --------
    >>> import tempfile
    >>> from hypervlad import HypercolumnVLAD, MicrographClassifier, make_tem_images
    >>> from hypervlad.results import write_classified_page
    >>> images, labels = make_tem_images(16, size=32, random_state=0)
    >>> encoder = HypercolumnVLAD(weights="random", image_size=32, n_codewords=4, sampling=900)
    >>> model = MicrographClassifier(encoder, random_state=0).fit(images, labels)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_classified_page(f"{folder}/classified.html", model, images[:4]).name
    'classified.html'
    """
    path = Path(path)
    names = names_or_default(images, names, full=True)
    if true_labels is not None:
        true_labels = one_each("true label", true_labels, len(images))
    found = predictions
    if found is None:
        found = model.classify(images, max_error=max_error)
        found.warn()
    positions, judgement, kinds = found.images.positions.tolist(), found.judgement, kinds_of(found)
    read, called = ([listed[k] for k in positions] for listed in (images, names))
    words, classes = words_of(model, names), [printable(label) for label in model.classes_]
    truth = None if true_labels is None else [true_labels[k] for k in positions]
    sheet = prediction_sheet(called, found.proba, classes, truth, path.absolute().parent, read)
    shown = [SURE, AMBIGUOUS] if judgement is not None else [LIKE_TRAINING]
    shown.append(OUT_OF_DISTRIBUTION)
    sheet.columns.insert(
        3,
        parts.Column(
            "Prediction",
            [words(_KINDS[kind]) for kind in kinds],
            options=[words(_KINDS[kind]) for kind in shown],
            styles=[_STYLES[kind] for kind in shown],
            shown=True,
        ),
    )
    if found.sets is not None:
        possible = [", ".join(each) for each in possible_classes(found.sets, classes)]
        sheet.columns.append(parts.Column("Possible", possible, label="possible: ", shown=True))
    if judgement is not None:
        sheet.columns.append(parts.Column("Reason", [str(reason) for reason in judgement.reasons]))
    # Above 1, the confidence means little.
    novelty = [f"{value:.2f}" for value in found.novelty]
    distance = f"Distance from training {words('image')}s"
    sheet.columns.append(parts.Column(distance, novelty, found.novelty))
    sheet.unit = words("image")
    sheet.orders = [*sheet.orders, (words("least like the training images first"), distance, True)]
    rows, places = np.unique(found.nearest, return_inverse=True)
    training = model.training_
    nearest = [f"{training.labels[row]}: {training.names[row]}".removesuffix(": ") for row in rows]
    title_ = words("Nearest training images")
    sheet.lists = [(title_, nearest, places.reshape(found.nearest.shape).tolist())]
    is_sure = np.isin(kinds, (SURE, LIKE_TRAINING))
    by_doubt = np.lexsort((found.proba.max(axis=1, initial=0), is_sure))
    doubtful = np.sort(by_doubt[:_MAX_PICTURES]).tolist()
    sheet.pictures = pictures(read, doubtful, model, progress)
    # The reasons begin with the name of the image.
    bad = [
        (names[each.position], each.reason.removeprefix(f"{each.name}: "))
        for each in found.images.skipped
    ]
    lead = f"The model predicted a class for {counted(len(read), 'image')}."
    if bad:
        lead += f" {counted(len(bad), 'image')} could not be read: listed below."
    numbers = {"images classified": thousands(len(read))}
    counts = Counter(kinds)
    numbers |= {_KINDS[kind]: thousands(counts[kind]) for kind in shown if kind != LIKE_TRAINING}
    if found.in_training.any():
        numbers["training images"] = thousands(int(found.in_training.sum()))
    results = Counter(text for each in sheet.columns if each.name == _RESULT for text in each.texts)
    if n_known := results.total() - results[_UNKNOWN]:
        numbers[_CORRECT] = share_of(results[_CORRECT], n_known)
    some = (
        f"To keep this file small, only the {thousands(len(doubtful))} most doubtful of the "
        f"{thousands(len(read))} images are shown here; the others are listed without pixels."
    )
    content = [
        parts.Note(lead, "lead"),
        *_explained(found, max_error, truth is not None),
        parts.Numbers(numbers),
        parts.Items([printable(note) + "." for note in prediction_notes(found, called)]),
        some * (len(doubtful) < len(read)),
        sheet,
        parts.section("Could not be read", bad and parts.Table((), bad)),
        parts.section("The model", parts.Table((), page_facts(model).items())),
    ]
    title = words("Classified images") if title is None else title
    parts.write_page(path, title, content, words=words)
    return path


def prediction_sheet(
    names: Sequence[str],
    proba: ArrayLike,
    classes: Sequence[str],
    truth: Sequence[Any] | None,
    folder: Path,
    images: Sequence[Any],
) -> parts.Sheet:
    """Return classified images as cards: class, confidence and, where it is known, the truth."""
    exact = np.asarray(proba, dtype=np.float64)
    shares = np.round(exact, _DIGITS)
    predicted = [classes[code] for code in exact.argmax(axis=1)]
    confidence = shares.max(axis=1, initial=0)
    columns = [
        parts.Column("Image", list(names)),
        parts.Column("Class", predicted, options=classes),
        parts.Column(
            "Confidence", [percent(each) for each in confidence], 100 * confidence, "%", (0, 100)
        ),
    ]
    if truth is not None:
        labels = ["" if label is None else printable(label) for label in truth]
        results = [
            (_CORRECT if label == own else _WRONG) if label else _UNKNOWN
            for label, own in zip(labels, predicted, strict=True)
        ]
        options = [each for each in _TRUTHS if each in results]
        columns += [
            parts.Column("True label", labels, label="true label: ", shown=True),
            parts.Column(_RESULT, results, options=options),
        ]
    orders = [
        ("least confident first", "Confidence", False),
        ("most confident first", "Confidence", True),
        ("by name", "Image", False),
        ("by class", "Class", False),
    ]
    return parts.Sheet(
        "Contact sheet",
        columns,
        cards=True,
        orders=orders,
        links=[link_to(image, folder) for image in images],
        bars=(classes, shares),
        file="predictions.csv",
    )


def _explained(
    found: Classification, max_error: float | None, has_truth: bool
) -> Iterator[parts.Part]:
    if found.judgement is not None and not np.isfinite(found.judgement.threshold):
        yield parts.Note(
            "No answer is sure: held-out images do not show that few enough are wrong, or a class "
            "has images of a single group.",
            "warning",
        )
    elif found.judgement is not None:
        share = "as few as requested" if max_error is None else f"at most {percent(max_error)}"
        yield parts.Note(
            f"Of the sure predictions, {share} should be wrong (with 90 % certainty, if these "
            "images are like the training images). The ambiguous ones are not confident enough."
        )
    yield parts.Note(
        "The confidence in an image that is unlike all training images (distance above 1) means "
        "little, however high it is. Of images like the training images, about 5 % are called "
        "unlike them, and more if the training images are of few groups."
    )
    if has_truth:
        yield parts.Note(
            "The true labels are those given with the images, such as the names of their folders."
        )


def link_to(image: Any, folder: str | os.PathLike[str]) -> str:
    """Return the address of an image's file relative to a folder; "" for an array."""
    if not isinstance(image, str | os.PathLike):
        return ""
    try:
        below = os.path.relpath(image, folder)
    except ValueError:  # on another drive, on Windows
        return Path(os.path.abspath(image)).as_uri()
    # Names that are not valid text, which Linux allows, keep their bytes.
    return quote(os.fsencode(below.replace(os.sep, "/")))


def pictures(
    images: Sequence[Any], chosen: Sequence[int], model: Any, progress: bool
) -> Iterator[tuple[int, str]]:
    """Yield each chosen position and a JPEG in base 64, "" if the image cannot be read."""
    keywords = asdict(model.encoder_.fitted_params_.read_options)

    def made(image: Any, _name: str) -> str:
        return parts.jpeg_text(read_image(image, **keywords), _SIDE, _QUALITY)

    pairs = ((position, images[position]) for position in chosen)
    outcomes = zip(chosen, read_in_order(pairs, made, _N_AHEAD), strict=True)
    bar = ProgressBar(outcomes, "page", len(chosen), unit="image", shown=progress)
    for position, outcome in bar:
        yield position, "" if isinstance(outcome, SkippedImage) else outcome
