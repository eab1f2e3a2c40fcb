"""What passes between the queue, the page and those who fill and empty the queue."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Outcome = Literal["kept", "late", "nothing"]


class QueueError(ValueError):
    """A queue cannot be made, opened or used so; the message says why and what to do."""


class UnknownError(QueueError):
    """There is no such image, or no such category, in the queue."""


@dataclass(frozen=True)
class Entry:
    """An image as a model judged it.

    Attributes
    ----------
    name : str
        The path as the person gave it, for tables and for the page.
    path : Path
        Absolute.
    place : int or None
        In the queue, from 0; None where the model was sure.
    kind : {"sure", "ambiguous", "out_of_distribution"}
    scores : list of (str, float)
        The most probable categories, most probable first.
    reason : str
        Why a person should look, in words.
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
    """An image that the model learnt from: its name, category, and file where it is known."""

    name: str
    label: str
    path: Path | None


@dataclass(frozen=True)
class Labelled:
    """An image and what is known of it by now.

    Attributes
    ----------
    item : int
    name : str
    path : Path
    said : str
        What the model said that judged it last, before a person labelled it.
    confidence : float
        The model's, in what it said.
    doubtful : bool
        Whether it is, or was, in the queue.
    label : str or None
        A person's.
    skipped : bool
        Whether a person has put it aside.
    """

    item: int
    name: str
    path: Path
    said: str
    confidence: float
    doubtful: bool
    label: str | None
    skipped: bool = False


@dataclass(frozen=True)
class Category:
    """A category that images may be of; `origin` is "model" or "person"."""

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
    """An image of the queue, with all that a person needs to see.

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
    """How far the queue is worked off, in images.

    Attributes
    ----------
    labelled : int
        By a person.
    skipped : int
    waiting : int
        In the queue, not looked at yet.
    elsewhere : int
        Of these, those in the hands of other windows.
    by_model : int
        Not in the queue: the model was sure.
    """

    labelled: int
    skipped: int
    waiting: int
    elsewhere: int
    by_model: int


@dataclass(frozen=True)
class Answer:
    """What became of a click, and what there is to do next.

    Attributes
    ----------
    outcome : {"kept", "late", "nothing"}
        Whether it took effect; "late": another window was first, and the click is in the log only;
        "nothing": there was nothing to do, or to undo.
    told : str
        The same in words; empty where all went as wished.
    item : int or None
        The image that the click was about.
    items : list of Item
        All that this window has in hand now, most informative first.
    progress : Progress
    """

    outcome: Outcome
    told: str
    item: int | None
    items: list[Item]
    progress: Progress
