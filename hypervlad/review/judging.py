"""What a model says of many images, in bounded memory: the one place that knows how it is asked."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hypervlad.classifier import Judgement, MicrographClassifier, judge_vectors
from hypervlad.encoder import HypercolumnVLAD
from hypervlad.images import (
    ImageReadError,
    SkippedImage,
    SkippedImagesWarning,
    read_micrograph,
)
from hypervlad.review.ranking import informativeness, rank
from hypervlad.review.records import Entry, TrainingImage

_BATCH = 256  # images whose whole vectors are in memory at a time


def judge_images(
    model: MicrographClassifier,
    images: Sequence[Path],
    *,
    max_error: float = 0.05,
    advance: Callable[[int], Any] = lambda _: None,
) -> tuple[Judgement, NDArray[np.bool_]]:
    """Encode images batch by batch and judge them.

    Parameters
    ----------
    model : MicrographClassifier
        Fitted; an image that cannot be read is left out if its encoder has ``on_error="skip"``.
    images : sequence of n Path
    max_error : float, default=0.05
        Share of the sure answers that may be wrong.
    advance : callable
        Called after each batch with its number of images.

    Returns
    -------
    judgement : Judgement
        Of the images that could be read.
    readable : ndarray of bool, shape (n,)

    Warns
    -----
    SkippedImagesWarning
        Once, of all images that could not be read.
    """
    parts, readable, caught = list[Judgement](), [np.empty(0, dtype=bool)], list[Any]()
    for start in range(0, len(images), _BATCH):
        batch = list(images[start : start + _BATCH])
        with warnings.catch_warnings(record=True) as of_batch:
            warnings.simplefilter("always")
            vectors = _encoded(model.encoder_, batch)
            read = ~np.isnan(vectors[:, 0])
            if read.any():
                parts.append(judge_vectors(model, vectors[read], max_error))
        caught += [(start, each.message) for each in of_batch]
        readable.append(read)
        advance(len(batch))
    _warn_once(caught, len(images))
    return _joined(model, parts), np.concatenate(readable)


def entries_of(
    model: MicrographClassifier, judged: Judgement, names: Sequence[str], paths: Sequence[Path]
) -> list[Entry]:
    """Put judged images in the order to look at them; sure ones have no place in it.

    Parameters
    ----------
    model : MicrographClassifier
    judged : Judgement
        Of n images.
    names : sequence of n str
    paths : sequence of n Path

    Returns
    -------
    list of n Entry
        In the order of the images.
    """
    classes = [str(label) for label in model.classes_]
    doubtful = np.flatnonzero(judged.kind != "sure")
    worth = informativeness(judged.proba[doubtful], judged.novelty[doubtful])
    order = doubtful[rank(worth, judged.projected[doubtful])]
    places = {int(row): place for place, row in enumerate(order)}
    best = np.argsort(-judged.proba, axis=1, kind="stable")
    return [
        Entry(
            name=names[row],
            path=paths[row],
            place=places.get(row),
            kind=str(judged.kind[row]),
            scores=[(classes[k], float(judged.proba[row, k])) for k in best[row]],
            reason=judged.reasons[row],
            novelty=float(judged.novelty[row]),
            nearest=judged.nearest[row].tolist(),
        )
        for row in range(len(names))
    ]


def training_images(model: MicrographClassifier, folder: Path | None) -> list[TrainingImage]:
    """Return what a model learnt from, each with its file if it lies in the folder.

    A model file from elsewhere may name any path: only files inside the folder are ever shown.
    """
    known = model.training_
    root = None if folder is None else folder.resolve()
    return [
        TrainingImage(name, str(label), _inside(root, name))
        for name, label in zip(known.names, known.labels, strict=True)
    ]


def _inside(root: Path | None, name: str) -> Path | None:
    """Return the file of a name below a folder; of one from further up, what is left of it."""
    if root is None or not name or "\0" in name:
        return None
    parts = name.split("/")
    for start in range(max(1, len(parts) - 1)):  # with its own folder, the class, at least
        path = root.joinpath(*parts[start:]).resolve()
        if path.is_relative_to(root) and path.is_file():
            return path
    return None


def _encoded(encoder: HypercolumnVLAD, batch: list[Path]) -> NDArray[np.floating]:
    """Return vectors as `transform` does, also of a batch where all are skipped: an error there."""
    try:
        return encoder.transform(batch)
    except ImageReadError:
        reasons = [_unreadable(path) for path in batch]
        if encoder.on_error != "skip" or None in reasons:
            raise
    skipped = [
        SkippedImage(i, str(path), str(reason))
        for i, (path, reason) in enumerate(zip(batch, reasons, strict=True))
    ]
    warnings.warn(SkippedImagesWarning.about(skipped, len(batch)), stacklevel=2)
    return np.full((len(batch), 1), np.nan)


def _unreadable(path: Path) -> str | None:
    """Say why an image cannot be read; None if it can."""
    try:
        read_micrograph(path)
    except ImageReadError as error:
        return str(error)
    return None


def _warn_once(caught: Sequence[tuple[int, Any]], n_images: int) -> None:
    """Pass on what was warned of batch by batch, each once, and all images skipped in one."""
    skipped, others = list[SkippedImage](), dict[str, Any]()
    for start, message in caught:
        if isinstance(message, SkippedImagesWarning):
            skipped += [bad._replace(position=start + bad.position) for bad in message.skipped]
        else:
            others.setdefault(str(message), message)
    for message in others.values():
        warnings.warn(message, stacklevel=3)
    if skipped:
        warnings.warn(SkippedImagesWarning.about(skipped, n_images), stacklevel=3)


def _joined(model: MicrographClassifier, parts: Sequence[Judgement]) -> Judgement:
    if not parts:
        return judge_vectors(model, np.empty((0, model.boosting_.n_features_in_)))
    return Judgement(
        classes=model.classes_,
        proba=np.concatenate([part.proba for part in parts]),
        kind=np.concatenate([part.kind for part in parts]),
        reasons=[reason for part in parts for reason in part.reasons],
        novelty=np.concatenate([part.novelty for part in parts]),
        nearest=np.concatenate([part.nearest for part in parts]),
        projected=np.concatenate([part.projected for part in parts]),
        threshold=parts[0].threshold,
    )
