"""A new queue: the model's sure answers set apart, the doubtful images in the order to look."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypervlad.classifier import MicrographClassifier
from hypervlad.review.filling import make_queue
from hypervlad.review.judging import entries_of, judge_images, training_images
from hypervlad.review.records import QueueError
from hypervlad.review.schema import check_free


@dataclass(frozen=True)
class Started:
    """How many images a new queue has.

    Attributes
    ----------
    n_sure : int
        Labelled by the model.
    n_doubtful : int
        Waiting for a person.
    n_unreadable : int
        Left out.
    """

    n_sure: int
    n_doubtful: int
    n_unreadable: int


def start_queue(
    model: MicrographClassifier,
    images: Sequence[str | os.PathLike[str]],
    folder: str | os.PathLike[str],
    *,
    training: str | os.PathLike[str] | None = None,
    model_file: str | os.PathLike[str] | None = None,
    max_error: float = 0.05,
    advance: Callable[[int], Any] = lambda _: None,
) -> Started:
    """Let a model label the images that it is sure of, and queue the others for a person.

    Parameters
    ----------
    model : MicrographClassifier
        Fitted, with ``on_error="skip"`` in its encoder if some images may be unreadable.
    images : sequence of paths
        Files, which must stay where they are.
    folder : path
        Where the queue goes; made if need be.
    training : path, optional
        The folder that the model was trained on, so that nearest training images can be shown.
    model_file : path, optional
        Where the model is stored, for `retrain`.
    max_error : float, default=0.05
        Share of the sure answers that may be wrong.
    advance : callable
        Called after each batch with its number of images.

    Returns
    -------
    Started

    Raises
    ------
    QueueError
        If the folder holds a queue already, or no image could be read.
    ValueError
        If nothing was held out when the model was fitted, so that no answer can be sure.
    """
    place = Path(folder)
    check_free(place)
    model.check_calibrated(max_error=max_error)
    found = {Path(os.path.realpath(image)): os.fspath(image) for image in reversed(list(images))}
    names = list(reversed(found.values()))  # a file given twice is one image
    paths = [Path(os.path.abspath(name)) for name in names]
    judged, positions = judge_images(model, paths, max_error=max_error, progress=advance)
    if not len(positions):
        raise QueueError(f"none of {len(names)} images could be read: there is nothing to queue")
    read = positions.tolist()
    entries = entries_of(model, judged, [names[i] for i in read], [paths[i] for i in read])
    facts = {"max_error": repr(max_error)}
    if model_file is not None:
        facts["model"] = os.path.abspath(model_file)
    root = None if training is None else Path(training)
    classes = [str(label) for label in model.classes_]
    known = training_images(model, root)
    if root is not None and all(image.path is None for image in known):
        warnings.warn(
            f"{root}: holds none of the {len(known)} images that the model was trained on (such as "
            f"{known[0].name}), so none can be shown beside the others",
            UserWarning,
            stacklevel=2,
        )
    make_queue(place, classes, entries, known, facts)
    n_doubtful = sum(entry.place is not None for entry in entries)
    return Started(len(entries) - n_doubtful, n_doubtful, len(names) - len(read))
