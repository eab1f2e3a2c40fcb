"""The page of classified images: one file that sorts, filters and shows them."""

from __future__ import annotations

import base64
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from hypervlad.classify.answers import AMBIGUOUS, OUT_OF_DISTRIBUTION, SURE, Classification
from hypervlad.classify.predictions import (
    LIKE_TRAINING,
    kinds_of,
    possible_classes,
    prediction_notes,
)
from hypervlad.common.progress import ProgressBar
from hypervlad.common.wording import percent, printable
from hypervlad.images import ReadOptions, SkippedImage, read_image
from hypervlad.images.files import encode_jpeg
from hypervlad.images.reading import read_in_order
from hypervlad.pages.base import names_or_default, one_each
from hypervlad.pages.facts import page_facts, words_of
from hypervlad.pages.files import as_script, share_of, thousands, write_page

_MAX_THUMBNAILS = 10_000  # about 4 kB each
_SIDE = 160  # pixels, of a thumbnail's longer side
_QUALITY = 72
_N_AHEAD = 2  # images decoded at a time: each may take a gigabyte
_DIGITS = 6  # of a probability
_NOVELTY_DIGITS = 4
_KINDS = {
    SURE: "sure",
    AMBIGUOUS: "ambiguous",
    LIKE_TRAINING: "like the training images",
    OUT_OF_DISTRIBUTION: "unlike the training images",
}


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
        found.images.warn()
    folder = path.absolute().parent
    read = [images[position] for position in found.images.positions]
    links = [link_to(image, folder) for image in read]
    called = [names[position] for position in found.images.positions]
    truth = None if true_labels is None else [true_labels[p] for p in found.images.positions]
    data = page_data(model, found, called, links, truth)
    doubtful = most_doubtful(found, _MAX_THUMBNAILS).tolist()
    jpegs = thumbnails(read, doubtful, model.encoder_.fitted_params_.read_options)
    hidden = not progress or None  # None: hidden if stderr is no terminal
    words = words_of(model, names)
    write_page(
        path,
        "classified.html",
        "classified.css",
        "classified.js",
        says_particle=model.encoder_.is_of_particles_,
        title=words("Classified images") if title is None else title,
        n_read=len(read),
        n_pictured=len(doubtful),
        notes=[printable(words(note)) for note in prediction_notes(found, called)],
        numbers={words(name): n for name, n in (_numbers(found) | _correct(data)).items()},
        max_error=max_error,
        is_judged=found.judgement is not None,
        can_be_sure=found.judgement is not None and np.isfinite(found.judgement.threshold),
        has_truth="truth" in data,
        class_rows=_class_rows(data),
        image_rows=_image_rows(data),
        # The reasons begin with the name of the image.
        unreadable=[
            (names[each.position], each.reason.removeprefix(f"{each.name}: "))
            for each in found.images.skipped
        ],
        details=page_facts(model),
        data=as_script(data),
        thumbnails=ProgressBar(jpegs, "page", len(doubtful), unit="image", disable=hidden),
    )
    return path


def page_data(
    model: Any,
    found: Classification,
    names: Sequence[str],
    links: Sequence[str],
    truth: Sequence[Any] | None,
) -> dict[str, Any]:
    rows, places = np.unique(found.nearest, return_inverse=True)
    training = model.training_
    data: dict[str, Any] = {
        "unit": words_of(model)("image"),
        "classes": [printable(label) for label in model.classes_],
        "names": [printable(name) for name in names],
        "links": list(links),
        "predicted": found.proba.argmax(axis=1).tolist(),
        "proba": np.round(found.proba.astype(np.float64), _DIGITS).tolist(),
        "kinds": kinds_of(found),
        "novelty": np.round(found.novelty, _NOVELTY_DIGITS).tolist(),
        "nearest": places.reshape(found.nearest.shape).tolist(),
        "training": [
            [printable(training.names[row]), printable(training.labels[row])] for row in rows
        ],
    }
    if found.sets is not None:
        data["possible"] = possible_classes(found.sets, data["classes"])
    if truth is not None:
        data["truth"] = [None if label is None else printable(label) for label in truth]
    if found.judgement is not None:
        data["reasons"] = [printable(reason) for reason in found.judgement.reasons]
    return data


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


def most_doubtful(found: Classification, n: int) -> NDArray[np.intp]:
    confidence = found.proba.max(axis=1, initial=0)
    is_sure = np.isin(kinds_of(found), (SURE, LIKE_TRAINING))
    return np.sort(np.lexsort((confidence, is_sure))[:n])


def thumbnails(
    images: Sequence[Any], chosen: Sequence[int], read_options: ReadOptions
) -> Iterator[tuple[int, str]]:
    """Yield each chosen position and a JPEG in base 64, "" if the image cannot be read."""
    keywords = asdict(read_options)

    def made(image: Any, _name: str) -> str:
        pixels = read_image(image, **keywords)
        return base64.b64encode(encode_jpeg(pixels, _SIDE, _QUALITY)).decode("ascii")

    pairs = ((position, images[position]) for position in chosen)
    outcomes = read_in_order(pairs, made, _N_AHEAD)
    for position, outcome in zip(chosen, outcomes, strict=True):
        yield position, "" if isinstance(outcome, SkippedImage) else outcome


def _numbers(found: Classification) -> dict[str, str]:
    numbers = {"images classified": thousands(len(found.proba))}
    counts = Counter(kinds_of(found))
    if found.judgement is None:
        if len(found.proba):
            numbers["median confidence"] = percent(float(np.median(found.proba.max(axis=1))))
        shown = [OUT_OF_DISTRIBUTION]
    else:
        shown = [SURE, AMBIGUOUS, OUT_OF_DISTRIBUTION]
    numbers |= {_KINDS[kind]: thousands(counts[kind]) for kind in shown}
    if found.in_training.any():
        numbers["training images"] = thousands(int(found.in_training.sum()))
    if found.images.skipped:
        numbers["could not be read"] = thousands(len(found.images.skipped))
    return numbers


def _correct(data: dict[str, Any]) -> dict[str, str]:
    pairs = [
        (label, data["classes"][code])
        for label, code in zip(data.get("truth", ()), data["predicted"], strict=False)
        if label is not None
    ]
    n_correct = sum(label == predicted for label, predicted in pairs)
    return {"predicted correctly": share_of(n_correct, len(pairs))} if pairs else {}


def _class_rows(data: dict[str, Any]) -> list[tuple[str, int]]:
    counts = np.bincount(data["predicted"], minlength=len(data["classes"])).tolist()
    return list(zip(data["classes"], counts, strict=True))


def _image_rows(data: dict[str, Any]) -> list[list[str]]:
    columns = [
        data["names"],
        [data["classes"][code] for code in data["predicted"]],
        [percent(max(row)) for row in data["proba"]],
        [_KINDS[kind] for kind in data["kinds"]],
    ]
    if "truth" in data:
        columns.append(["" if label is None else label for label in data["truth"]])
    if "reasons" in data:
        columns.append(data["reasons"])
    return [list(row) for row in zip(*columns, strict=True)]
