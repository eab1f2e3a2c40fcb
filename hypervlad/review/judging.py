"""Judging images with a model, and putting them into the order of a queue."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hypervlad.classifier import SURE, Judgement, MicrographClassifier
from hypervlad.images import SkippedImagesWarning
from hypervlad.review.ranking import informativeness, rank
from hypervlad.review.records import Entry, TrainingImage

_CHUNK_SIZE = 256  # images whose vectors are in memory at a time


def judge_images(
    model: MicrographClassifier,
    images: Sequence[Path],
    *,
    max_error: float = 0.05,
    progress: Callable[[int], Any] | None = None,
    chunk_size: int = _CHUNK_SIZE,
) -> tuple[Judgement, NDArray[np.intp]]:
    """Judge images with limited memory.

    Parameters
    ----------
    model : MicrographClassifier
        Fitted; unreadable images are left out if its encoder has ``on_error="skip"``.
    images : sequence of n Path
    max_error : float, default=0.05
        Accepted share of wrong answers among the sure ones.
    progress : callable, optional
        Called after each chunk with its number of images.
    chunk_size : int, default=256
        Images whose vectors are in memory at a time.

    Returns
    -------
    judgement : Judgement
        Of the images that could be read.
    positions : ndarray of int, shape (n_read,)
        Of these images.

    Warns
    -----
    SkippedImagesWarning
        Once, of all images that could not be read.
    """
    if not images:
        empty = np.empty((0, model.training_.n_features), dtype=np.float32)
        return model.judge_vectors(empty, max_error), np.empty(0, dtype=np.intp)
    found = model.classify(
        list(images), max_error=max_error, chunk_size=chunk_size, progress=progress
    )
    assert found.judgement is not None
    if len(found.proba):
        found.images.warn()
    else:  # callers decide what no readable image means
        skipped = found.images.skipped
        warnings.warn(SkippedImagesWarning.about(skipped, len(images)), stacklevel=2)
    return found.judgement, found.images.positions


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
    doubtful = np.flatnonzero(judged.kind != SURE)
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
