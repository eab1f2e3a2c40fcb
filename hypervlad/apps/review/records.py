"""The records of a queue: what models write, what people do, and what the page shows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

# "kept": the click took effect; "late": another window was first, and the click is in the log
# only; "nothing": there was nothing to do, or to undo.
Outcome = Literal["kept", "late", "nothing"]


class QueueError(ValueError):
    """A queue cannot be created, opened or used; the message says why and what to do."""


class UnknownError(QueueError):
    """There is no such image, or no such category, in the queue."""


@dataclass(frozen=True)
class Entry:
    """An image of a new queue, as a model judged it.

    `place` is that in the queue, from 0; None if the model was sure. `kind` is "sure", "ambiguous"
    or "out_of_distribution". The most probable categories and the rows of the nearest training
    images come first.
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
    """An image with its prediction and label; `doubtful`: it is or was in the queue."""

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
    """The label of an image, and its last event, if any, with the time in seconds since 1970."""

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
    """Some labelled images of a queue, their total number, and the number of each category."""

    labels: list[GivenLabel]
    total: int
    counts: list[tuple[int, int]]


@dataclass(frozen=True)
class Correction:
    """The result of changing labels: "kept" if at least one was changed, and what was changed."""

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
    """An image of the queue, with all that the page shows of it; `scores` has category ids."""

    id: int
    name: str
    kind: str
    reason: str
    novelty: float
    scores: list[tuple[int, float]]
    nearest: list[Neighbour]


@dataclass(frozen=True)
class Progress:
    """Numbers of images: `elsewhere` are leased by other windows, `by_model` not in the queue."""

    labelled: int
    skipped: int
    waiting: int
    elsewhere: int
    by_model: int


class ClickResult(NamedTuple):
    """The outcome of a click, in words unless it took effect, and the image that was clicked."""

    outcome: Outcome
    message: str
    item: int | None


@dataclass(frozen=True)
class Answer:
    """The result of a click, and all images that the window has leased now, in order."""

    outcome: Outcome
    message: str
    item: int | None
    items: list[Item]
    progress: Progress
