"""A new queue: sure answers of a model are its labels, doubtful images are ordered for a person."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hypervlad.app.database import Entry, QueueError, TrainingImage, check_free, make_queue
from hypervlad.app.particles import QueuedImage, queued_particles, queued_training
from hypervlad.classify.answers import SURE
from hypervlad.classify.estimator import MicrographClassifier
from hypervlad.common.wording import counted, name_some, warn_user
from hypervlad.folders.folder import load_image_folder
from hypervlad.images import SkippedImagesWarning
from hypervlad.images.errors import training_images_text
from hypervlad.images.files import is_zarr
from hypervlad.images.reading import relative_names
from hypervlad.objects.found_folder import FoundFolder
from hypervlad.objects.particle import NOT_A_PARTICLE

_CHUNK_SIZE = 256  # images whose vectors are in memory at a time
# Copies of images chosen before keep this share of their value, and so their order.
_MIN_VALUE_SHARE = 1e-3


@dataclass(frozen=True)
class NewQueue:
    """The numbers of images of a new queue.

    Attributes
    ----------
    n_sure : int
        Labelled by the model.
    n_doubtful : int
        To be labelled by a person.
    n_unreadable : int
        Left out.
    """

    n_sure: int
    n_doubtful: int
    n_unreadable: int


def start_queue(
    model: MicrographClassifier,
    images: Sequence[str | os.PathLike[str]] | FoundFolder,
    folder: str | os.PathLike[str],
    *,
    root: str | os.PathLike[str] | None = None,
    training: str | os.PathLike[str] | None = None,
    model_file: str | os.PathLike[str] | None = None,
    max_error: float = 0.05,
    progress: Callable[[int], Any] | None = None,
) -> NewQueue:
    """Label the images that a model is sure of, and queue the others for a person.

    Parameters
    ----------
    model : MicrographClassifier
        Fitted; with ``on_error="skip"`` in its encoder, unreadable images are left out.
    images : sequence of paths, or FoundFolder
        Files, which must stay where they are. Of a folder of found particles, its particles are
        queued, with a class for wrong outlines.
    folder : path
        For the queue; created if it does not exist.
    root : path, optional
        Images are named by their paths relative to it; by default the common folder of all.
    training : path, optional
        The folder, or the table of particles, that the model was trained on, to show the nearest
        training images.
    model_file : path, optional
        The model's file, for ``hypervlad review retrain``.
    max_error : float, default=0.05
        Accepted share of wrong answers among the sure ones.
    progress : callable, optional
        Called after each chunk of images with their number.

    Returns
    -------
    NewQueue

    Raises
    ------
    QueueError
        If the folder has a queue already, or no image can be read.
    ValueError
        If nothing was held out when the model was fitted, so that no answer can be sure.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from PIL import Image
    >>> from hypervlad import HypercolumnVLAD, MicrographClassifier, make_tem_images
    >>> from hypervlad.apps.review import start_queue
    >>> images, labels = make_tem_images(16, size=32, random_state=1)
    >>> images = [np.uint8(255 * image) for image in images]
    >>> encoder = HypercolumnVLAD(weights="random", image_size=32, n_codewords=4, sampling=900)
    >>> model = MicrographClassifier(encoder, random_state=0).fit(images, labels)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.fromarray(images[0] // 2).save(f"{folder}/a.png")
    ...     queue = start_queue(model, [f"{folder}/a.png"], f"{folder}/queue", max_error=0.9)
    >>> queue.n_sure + queue.n_doubtful
    1
    """
    check_free(Path(folder))
    model.check_calibrated(max_error=max_error)
    queued: Sequence[QueuedImage]
    if isinstance(images, FoundFolder):
        queued = queued_particles(images)
        names = list(map(str, queued))
    else:
        found = {os.path.realpath(image): image for image in reversed(list(images))}
        # A file given twice is one image.
        queued = [Path(os.path.abspath(image)) for image in reversed(found.values())]
        names = relative_names(queued, root)
    root = None if training is None else Path(training)
    known = training_images(model, root)
    entries, positions, is_known = judged_entries(
        model, names, queued, max_error=max_error, progress=progress
    )
    if not entries:
        raise QueueError(
            f"none of {counted(len(names), 'image')} could be read: there is nothing to queue"
        )
    if is_known.any():
        what = "particle" if isinstance(images, FoundFolder) else "image"
        text = training_images_text(int(is_known.sum()), len(entries), what)
        some = name_some([names[i] for i in positions[is_known]])
        warn_user(f"{text}, so they come last in the queue, if at all: {some}")
    facts = {"max_error": repr(max_error)} | model_facts(model, model_file)
    classes = [str(label) for label in model.classes_]
    if root is not None and all(image.image is None for image in known):
        warn_user(
            f"{root}: holds none of the {counted(len(known), 'image')} that the model was trained "
            f"on (such as {known[0].name}), so the page cannot show them"
        )
    more = [NOT_A_PARTICLE] if isinstance(images, FoundFolder) else []
    make_queue(Path(folder), classes, entries, known, facts, more)
    n_doubtful = sum(entry.place is not None for entry in entries)
    return NewQueue(len(entries) - n_doubtful, n_doubtful, len(names) - len(entries))


def model_facts(
    model: MicrographClassifier, model_file: str | os.PathLike[str] | None
) -> dict[str, str]:
    """Return what a queue keeps of its model: how it reads images, and its file if known."""
    reading = {"reading": json.dumps(model.encoder_.fitted_params_.read_options.without_files())}
    return reading if model_file is None else reading | {"model": os.path.abspath(model_file)}


def judged_entries(
    model: MicrographClassifier,
    names: Sequence[str],
    images: Sequence[QueuedImage],
    *,
    max_error: float,
    progress: Callable[[int], Any] | None = None,
) -> tuple[list[Entry], NDArray[np.intp], NDArray[np.bool_]]:
    """Judge images, and order them for labelling, the most informative first.

    Sure ones have no place; those that the model was trained on come last. Return the entries of
    the images that could be read, their positions, and which are training images. Warnings name the
    unreadable images, and what differs from all training images.
    """
    if not images:
        return [], np.empty(0, np.intp), np.empty(0, bool)
    found = model.classify(
        list(images), max_error=max_error, chunk_size=_CHUNK_SIZE, progress=progress
    )
    judged, positions = found.judgement, found.images.positions
    assert judged is not None
    if len(found.proba):
        found.warn()
    else:  # an error of callers, if at all
        warn_user(SkippedImagesWarning.about(found.images.skipped, len(images)))
    classes = [str(label) for label in model.classes_]
    doubtful = np.flatnonzero(judged.kind != SURE)
    worth = informativeness(judged.proba[doubtful], judged.novelty[doubtful])
    order = doubtful[rank(worth, judged.projected[doubtful])]
    order = order[np.argsort(found.in_training[order], kind="stable")]
    places = {int(row): place for place, row in enumerate(order)}
    best = np.argsort(-judged.proba, axis=1, kind="stable")
    entries = [
        Entry(
            name=names[position],
            image=images[position],
            place=places.get(row),
            kind=str(judged.kind[row]),
            scores=[(classes[k], float(judged.proba[row, k])) for k in best[row]],
            reason=judged.reasons[row],
            novelty=float(judged.novelty[row]),
            nearest=judged.nearest[row].tolist(),
        )
        for row, position in enumerate(positions.tolist())
    ]
    return entries, positions, found.in_training


def training_images(model: MicrographClassifier, folder: Path | None) -> list[TrainingImage]:
    """Return a model's training images, each with its file only if that lies inside the folder.

    Of a table instead of a folder, they are those that have the same names.
    """
    known = model.training_
    root = None if folder is None else folder.resolve()
    find: Callable[[str], QueuedImage | None] = partial(_inside, root)
    if root is not None and root.is_file():
        data = load_image_folder(root)
        images = queued_training(root, data)
        find = dict(zip(relative_names(data.images), images, strict=True)).get
    rows = zip(known.names, known.labels, strict=True)
    return [TrainingImage(name, str(label), find(name)) for name, label in rows]


def _inside(root: Path | None, name: str) -> Path | None:
    """Return the file of a training image in a folder, which may be a subfolder of the original."""
    if root is None or not name or "\0" in name:
        return None
    parts = name.split("/")
    for start in range(max(1, len(parts) - 1)):  # at least with the folder of its class
        path = root.joinpath(*parts[start:]).resolve()
        if path.is_relative_to(root) and (path.is_file() or is_zarr(path)):
            return path
    return None


# --- the order of the queue ---------------------------------------------------------------------


def informativeness(proba: ArrayLike, novelty: ArrayLike) -> NDArray[np.float64]:
    """Return how informative the label of each image is, before others are labelled.

    This is ``1 - margin * (1 - surprise)``, where the margin is the difference between the two
    largest probabilities (Settles, *Active Learning Literature Survey*, 2009, section 3.1), and the
    surprise is 0 at the usual distance from the training images and 1/2 at twice this distance.

    Parameters
    ----------
    proba : array-like of shape (n, n_classes)
        At least two classes.
    novelty : array-like of shape (n,)
        Distance to the nearest training images, divided by the usual one; may be infinite.

    Returns
    -------
    ndarray of shape (n,)
        In [0, 1].

    Raises
    ------
    ValueError
        If the shapes do not match, there are fewer than two classes, or a value is missing.

    Examples
    --------
    >>> informativeness([[1.0, 0.0], [0.5, 0.5], [1.0, 0.0]], [0.8, 0.8, 4.0]).tolist()
    [0.0, 1.0, 0.75]
    """
    table, far = np.asarray(proba, dtype=np.float64), np.asarray(novelty, dtype=np.float64)
    if table.ndim != 2 or table.shape[1] < 2 or far.shape != table.shape[:1]:
        raise ValueError(
            "expected probabilities (n, n_classes) of at least two classes and n novelties, got "
            f"shapes {table.shape} and {far.shape}"
        )
    if not np.isfinite(table).all() or np.isnan(far).any():
        raise ValueError("probabilities must be finite, novelties numbers; leave unread images out")
    highest = np.sort(table, axis=1)[:, -2:]
    margin = np.clip(highest[:, 1] - highest[:, 0], 0.0, 1.0)
    surprise = 1.0 - 1.0 / np.maximum(far, 1.0)
    return 1.0 - margin * (1.0 - surprise)


def rank(worth: ArrayLike, projected: ArrayLike) -> NDArray[np.intp]:
    """Order images so that each adds the most information to those before it.

    Greedy: the next image is the one with the largest ``worth * (1 - s ** 2)``, where ``s`` is its
    largest cosine similarity, after centring, to an image chosen before (0 if negative). This is
    maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998). Time grows with n² d.

    Parameters
    ----------
    worth : array-like of shape (n,)
        Not negative, as from `informativeness`.
    projected : array-like of shape (n, d)
        Vectors that images are compared by.

    Returns
    -------
    ndarray of int, shape (n,)
        Row numbers, the first to label first. Equal ones keep their order.

    Raises
    ------
    ValueError
        If the shapes do not match, or a value is negative or not finite.

    Examples
    --------
    >>> copies = [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]]
    >>> rank([1.0, 0.9, 0.5, 0.1], copies).tolist()
    [0, 2, 3, 1]
    """
    value, directions = _checked(worth, projected)
    floor = _MIN_VALUE_SHARE * value
    rows = np.arange(len(value))
    similarity = np.zeros(len(value), dtype=np.float32)
    order = np.empty(len(value), dtype=np.intp)
    waiting = np.ones(len(value), dtype=bool)
    for place in range(len(order)):
        gain = np.where(waiting, np.maximum(value * (1.0 - similarity**2), floor), -1.0)
        best = int(gain.argmax())
        order[place], waiting[best] = rows[best], False
        with np.errstate(invalid="ignore"):  # OpenBLAS may flag finite products (numpy#24067)
            np.maximum(similarity, directions @ directions[best], out=similarity)
        if 4 * waiting.sum() < 3 * len(waiting):  # drop the chosen rows, which only cost time
            rows, value, floor = rows[waiting], value[waiting], floor[waiting]
            similarity, directions = similarity[waiting], directions[waiting]
            waiting = np.ones(len(rows), dtype=bool)
    return order


def _checked(
    worth: ArrayLike, projected: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Return the worths, and unit vectors from the mean to the images; 0 for one at the mean."""
    value, points = np.asarray(worth, dtype=np.float64), np.array(projected, dtype=np.float32)
    if value.ndim != 1 or points.ndim != 2 or len(points) != len(value):
        raise ValueError(
            f"expected n worths and n rows to compare, got shapes {value.shape}, {points.shape}"
        )
    if not (np.isfinite(value).all() and np.isfinite(points).all()) or (value < 0).any():
        raise ValueError("worths must be finite and not negative, rows to compare finite")
    if not len(points):
        return value, points
    points -= points.mean(axis=0, dtype=np.float64).astype(np.float32)
    lengths = np.linalg.norm(points, axis=1, keepdims=True)
    largest = float(lengths.max())
    points /= np.where(lengths > 1e-5 * largest, lengths, np.inf)  # at the mean: similar to none
    return value, points
