"""A new model from the training images and what persons said, and an honest comparison with before.

The comparison is made on images that persons labelled, which are the doubtful ones: its figures say
nothing about easy images. The new model's answers are those that its prediction sets rest on: of
copies of its learner, each fitted without a fold of groups, about that fold. Only the codebook,
which knows no classes, has seen all images.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from sklearn.base import clone
from sklearn.utils import Bunch

from hypervlad.classifier import MicrographClassifier
from hypervlad.review.filling import contents, refill_queue
from hypervlad.review.grouping import groups_kept, groups_of
from hypervlad.review.judging import entries_of, judge_images
from hypervlad.review.records import Labelled, QueueError, TrainingImage
from hypervlad.review.store import Queue


@dataclass(frozen=True)
class Material:
    """What a model is fitted on again; the persons' images come last.

    Attributes
    ----------
    images : list of n str
    labels : ndarray of shape (n,)
    groups : ndarray of shape (n,), or None
    by_person : ndarray of bool, shape (n,)
    said : list of n str or None
        What a model said of an image that a person labelled, when it put it into the queue.
    """

    images: list[str]
    labels: NDArray[Any]
    groups: NDArray[Any] | None
    by_person: NDArray[np.bool_]
    said: list[str | None]


@dataclass(frozen=True)
class Comparison:
    """How often two models were right on the same images, which persons labelled.

    Attributes
    ----------
    n_labelled : int
        Images that persons labelled.
    n_compared : int
        Those that could be held out: the others were needed to learn their category at all.
    before, after : float
        Accuracies on these; NaN if there are none. Before: what was said when they were queued.
    new_categories : list of str
        Those that the old model did not know; on their images it could not but be wrong.
    """

    n_labelled: int
    n_compared: int
    before: float
    after: float
    new_categories: list[str]


@dataclass(frozen=True)
class Remaining:
    """How many of the images without a person's label are doubtful, before and now."""

    n_images: int
    before: int
    after: int


def gather(
    queue: Queue,
    data: Bunch,
    *,
    groups: str | Path | None = None,
    model: MicrographClassifier | None = None,
    with_model_labels: bool = False,
) -> Material:
    """Put together what there is to learn from.

    Parameters
    ----------
    queue : Queue
    data : Bunch
        Training images, as from `load_image_folder`.
    groups : path, optional
        Table with the columns path and group: a line for each training image, and for images of the
        queue where they belong together or with training images; the others are each their own.
    model : MicrographClassifier, optional
        The model before. Without a table, training images keep the groups that it was fitted with.
    with_model_labels : bool, default=False
        Learn from what the model was sure of too. It then partly learns from itself.

    Returns
    -------
    Material

    Raises
    ------
    QueueError
        If no person has labelled an image yet.
    ImageFolderError
        If the groups do not fit.
    """
    known = contents(queue)
    persons = [image for image in known if image.label is not None]
    if not persons:
        raise QueueError(
            f"{queue.folder}: no image is labelled by a person yet; label some with "
            "'hypervlad review serve'"
        )
    sure = [image for image in known if image.label is None and not image.doubtful]
    added = [*(sure if with_model_labels else []), *persons]
    taken = {image.path.resolve() for image in added}
    kept = [i for i, image in enumerate(data.images) if Path(image).resolve() not in taken]
    of_training = [data.images[i] for i in kept]
    names = None
    if groups is not None:
        names = groups_of(of_training, data.root, [image.path for image in added], groups)
    elif model is not None:
        names = groups_kept(model.training_, data.images, kept, [image.path for image in added])
    labels = [*(str(data.target[i]) for i in kept), *(_label(image) for image in added)]
    by_person = np.zeros(len(labels), dtype=bool)
    by_person[len(labels) - len(persons) :] = True
    said = [None] * (len(labels) - len(persons)) + [image.said for image in persons]
    images = [*of_training, *(str(image.path) for image in added)]
    return Material(images, np.array(labels), names, by_person, said)


def fitted_again(model: MicrographClassifier, material: Material) -> MicrographClassifier:
    """Fit a copy of a model, with its own parameters, on new material."""
    new: MicrographClassifier = clone(model)
    groups = None if material.groups is None else material.groups.tolist()
    carried = getattr(model.encoder_, "backbone_state_", None)
    if carried is None:
        return new.fit(material.images, material.labels.tolist(), groups=groups)
    with tempfile.TemporaryDirectory() as folder:  # weights that need not be on this computer
        path = Path(folder) / "weights.safetensors"
        save_file({name: np.ascontiguousarray(own) for name, own in carried.items()}, path)
        new.set_params(encoder__weights=str(path))
        new.fit(material.images, material.labels.tolist(), groups=groups)
    new.set_params(encoder__weights=model.encoder_.weights)
    new.encoder_.set_params(weights=model.encoder_.weights)
    new.encoder_.backbone_state_ = carried
    return new


def compare(
    model: MicrographClassifier, old_classes: Sequence[Any], material: Material
) -> Comparison:
    """Compare what was said before with what the new model says of images held out.

    Parameters
    ----------
    model : MicrographClassifier
        Fitted on the material.
    old_classes : sequence of labels
        Those of the model before.
    material : Material

    Returns
    -------
    Comparison
    """
    answers = held_out_answers(model, material)
    tested = np.array([answer is not None for answer in answers]) & material.by_person
    truth = material.labels[tested].tolist()
    before = [material.said[row] for row in np.flatnonzero(tested)]
    after = [answers[row] for row in np.flatnonzero(tested)]
    known = {str(label) for label in old_classes}
    return Comparison(
        n_labelled=int(material.by_person.sum()),
        n_compared=len(truth),
        before=_accuracy(before, truth),
        after=_accuracy(after, truth),
        new_categories=sorted(set(material.labels.tolist()) - known),
    )


def held_out_answers(model: MicrographClassifier, material: Material) -> list[str | None]:
    """Return what a model's learners said in ``fit`` of images that they had not seen.

    Parameters
    ----------
    model : MicrographClassifier
        Fitted on the material.
    material : Material

    Returns
    -------
    list of n str or None
        None for images that were never held out, could not be read, or no person labelled.
    """
    answers: list[str | None] = [None] * len(material.images)
    if model.held_out_ is None:
        return answers
    labels = model.classes_[model.held_out_.proba.argmax(axis=1)].tolist()
    positions = model.training_.positions[model.held_out_.rows].tolist()
    for position, label in zip(positions, labels, strict=True):
        if material.by_person[position]:
            answers[position] = str(label)
    return answers


def requeue(
    queue: Queue,
    model: MicrographClassifier,
    material: Material,
    model_file: str | Path,
    *,
    write: bool = True,
    advance: Callable[[int], Any] = lambda _: None,
) -> Remaining:
    """Judge what no person has labelled by a new model, and put its answers into the queue.

    Parameters
    ----------
    queue : Queue
    model : MicrographClassifier
        Fitted, with ``on_error="skip"`` in its encoder.
    material : Material
        What it was fitted on.
    model_file : path
        Where it is stored.
    write : bool, default=True
        If not, all is only counted.
    advance : callable
        Called after each batch with its number of images.

    Returns
    -------
    Remaining
    """
    images = remaining(queue)
    max_error = float(queue.fact("max_error", "0.05") or 0.05)
    paths = [image.path for image in images]
    judged, positions = judge_images(model, paths, max_error=max_error, progress=advance)
    read = [images[i] for i in positions]
    entries = entries_of(
        model, judged, [image.name for image in read], [image.path for image in read]
    )
    in_doubt = {entry.path for entry in entries if entry.place is not None}
    unread = {image.path for image in images} - {image.path for image in read}
    if write:
        refill_queue(
            queue,
            [str(label) for label in model.classes_],
            entries,
            _with_files(model, material),
            {"model": str(Path(model_file).absolute())},
        )
    return Remaining(
        n_images=len(images),
        before=sum(image.doubtful for image in images),
        after=sum(
            image.path in in_doubt
            or image.skipped  # as a person said
            or (image.doubtful and image.path in unread)  # what it was
            for image in images
        ),
    )


def remaining(queue: Queue) -> list[Labelled]:
    """Return the images of a queue that no person has labelled."""
    return [image for image in contents(queue) if image.label is None]


def _with_files(model: MicrographClassifier, material: Material) -> list[TrainingImage]:
    """Return the images that a model has just learnt from, with the files that it read."""
    known = model.training_
    return [
        TrainingImage(name, str(label), Path(material.images[position]).absolute())
        for name, label, position in zip(
            known.names, known.labels, known.positions.tolist(), strict=True
        )
    ]


def _label(image: Labelled) -> str:
    return image.said if image.label is None else image.label


def _accuracy(said: Sequence[str | None], truth: Sequence[str]) -> float:
    if not truth:
        return float("nan")
    return float(np.mean([one == other for one, other in zip(said, truth, strict=True)]))
