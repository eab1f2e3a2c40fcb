"""The records of a queue: what models write, what people do, and what the page shows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Outcome = Literal["kept", "late", "nothing"]


class QueueError(ValueError):
    """A queue cannot be created, opened or used; the message says why and what to do."""


class UnknownError(QueueError):
    """There is no such image, or no such category, in the queue."""


@dataclass(frozen=True)
class Entry:
    """An image of a new queue, as a model judged it.

    Attributes
    ----------
    name : str
        The path as given, for tables and for the page.
    path : Path
        Absolute path.
    place : int or None
        In the queue, from 0; None if the model was sure.
    kind : {"sure", "ambiguous", "out_of_distribution"}
    scores : list of (str, float)
        The most probable categories, most probable first.
    reason : str
        Why a person should look at it.
    novelty : float
    nearest : list of int
        Rows of training images, nearest first.
    """

    name: str
    path: Path
    place: int | None
    kind: str
    scores: list[tuple[str, float]]
    reason: str
    novelty: float
    nearest: list[int]


@dataclass(frozen=True)
class TrainingImage:
    """A training image of the model: its name, its category, and its file if known."""

    name: str
    label: str
    path: Path | None


@dataclass(frozen=True)
class LabelledImage:
    """An image of a queue with its labels so far.

    Attributes
    ----------
    item : int
    name : str
    path : Path
    predicted : str
        Category predicted by the last model, before a person labelled the image.
    confidence : float
        Of the prediction.
    doubtful : bool
        Whether the image is, or was, in the queue.
    label : str or None
        Of a person.
    skipped : bool
        Whether a person has skipped it.
    """

    item: int
    name: str
    path: Path
    predicted: str
    confidence: float
    doubtful: bool
    label: str | None
    skipped: bool = False


@dataclass(frozen=True)
class GivenLabel:
    """The label of an image, by the model or by a person, as the page of labels shows it.

    Attributes
    ----------
    id : int
    name : str
    category : int
        The label: that of a person if there is one, otherwise the model's.
    predicted : int
        Category predicted by the model.
    confidence : float
        Of the prediction.
    by : {"model", "person"}
    event : int or None
        The last event of the image; None if there was none.
    time : float or None
        Of that event, in seconds since 1970.
    """

    id: int
    name: str
    category: int
    predicted: int
    confidence: float
    by: Literal["model", "person"]
    event: int | None
    time: float | None


@dataclass(frozen=True)
class LabelPage:
    """Some of the labelled images of a queue.

    Attributes
    ----------
    labels : list of GivenLabel
    total : int
        Number of images with the requested label and source.
    counts : list of (int, int)
        Categories with their numbers of images from the requested source.
    """

    labels: list[GivenLabel]
    total: int
    counts: list[tuple[int, int]]


@dataclass(frozen=True)
class Correction:
    """The result of changing labels, or of undoing that.

    Attributes
    ----------
    outcome : {"kept", "late", "nothing"}
        "kept": at least one label was changed.
    message : str
        What was changed, and what was not.
    """

    outcome: Outcome
    message: str


@dataclass(frozen=True)
class Category:
    """A category of images; `origin` is "model" or "person"."""

    id: int
    name: str
    origin: str


@dataclass(frozen=True)
class Neighbour:
    """One of the training images nearest to an item."""

    row: int
    name: str
    label: str
    has_picture: bool


@dataclass(frozen=True)
class Item:
    """An image of the queue, with all that the page shows of it.

    Attributes
    ----------
    id : int
    name : str
    kind : str
    reason : str
    novelty : float
    scores : list of (int, float)
        Categories by their ids, most probable first.
    nearest : list of Neighbour
    """

    id: int
    name: str
    kind: str
    reason: str
    novelty: float
    scores: list[tuple[int, float]]
    nearest: list[Neighbour]


@dataclass(frozen=True)
class Progress:
    """Numbers of images in each state.

    Attributes
    ----------
    labelled : int
        By people.
    skipped : int
    waiting : int
        In the queue, without a label yet.
    elsewhere : int
        Of these, those leased by other windows.
    by_model : int
        Not in the queue: labelled by the model.
    """

    labelled: int
    skipped: int
    waiting: int
    elsewhere: int
    by_model: int


@dataclass(frozen=True)
class Answer:
    """The result of a click, and the images to label next.

    Attributes
    ----------
    outcome : {"kept", "late", "nothing"}
        "kept": it took effect; "late": another window was first, and the click is in the log only;
        "nothing": there was nothing to do, or to undo.
    message : str
        The same in words; empty if the click took effect.
    item : int or None
        The image of the click.
    items : list of Item
        All images that this window has leased now, most informative first.
    progress : Progress
    """

    outcome: Outcome
    message: str
    item: int | None
    items: list[Item]
    progress: Progress
