"""The table of predictions, one row per image, as CSV, and what is said of predictions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hypervlad.classify.answers import OUT_OF_DISTRIBUTION, Classification
from hypervlad.common.tables import table_as_bytes
from hypervlad.common.wording import name_some
from hypervlad.images.errors import training_images_text, unlike_training_text
from hypervlad.objects.found_tables import held_out_confusion
from hypervlad.objects.results_folder import LEFT_OUT
from hypervlad.pages.facts import learner_text

LIKE_TRAINING = "like_training"  # where no judgement was requested
_DECIMALS = 6  # of probabilities


def kinds_of(found: Classification) -> list[str]:
    """Return the kind of each prediction; if not judged, whether like the training images."""
    if found.judgement is not None:
        return list(found.judgement.kind.tolist())
    return [OUT_OF_DISTRIBUTION if unlike else LIKE_TRAINING for unlike in found.unlike_training]


def prediction_remarks(found: Classification, names: Sequence[str]) -> list[str]:
    sentences, n_images = [], len(found.proba)
    n_unlike = int(found.unlike_training.sum())
    n_blank = int((found.unlike_training & found.images.is_blank).sum())
    if n_unlike:
        blank = f" ({n_blank} blank)" if n_blank else ""
        sentences.append(
            f"{unlike_training_text(n_unlike, n_images)}{blank}: probabilities of such images "
            "mean little"
        )
    known = [name for name, is_known in zip(names, found.in_training, strict=True) if is_known]
    if known:
        sentences.append(f"{training_images_text(len(known), n_images)}: {name_some(known)}")
    return sentences


def prediction_notes(found: Classification, names: Sequence[str]) -> list[str]:
    """Return all that ``predict`` says of images that could be read: warnings and remarks."""
    warned = replace(found.images, skipped=()).messages
    return [*warned, *found.differences, *prediction_remarks(found, names)]


def prediction_columns(found: Classification, classes: Sequence[Any]) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {
        "unlike_training": ["yes" if unlike else "no" for unlike in found.unlike_training],
        "in_training": ["yes" if known else "no" for known in found.in_training],
        # Rounded, it is still above 1 where the image is unlike the others, and only there.
        "novelty": [
            max(round(value, 4), 1.0001) if value > 1 else round(value, 4)
            for value in found.novelty.tolist()
        ],
    }
    if found.sets is not None:
        # The names are separated by "|"; in a name, a backslash precedes it.
        columns["possible"] = [
            "|".join(re.sub(r"([\\|])", r"\\\1", name) for name in names)
            for names in possible_classes(found.sets, classes)
        ]
    if found.judgement is not None:
        columns["kind"] = found.judgement.kind.tolist()
        columns["reason"] = found.judgement.reasons
    digests = [info.digest for info in found.images.info]
    return columns | {"note": found.notes, "image_digest": digests}


def prediction_header(classes: Sequence[Any], *, has_sets: bool, is_judged: bool) -> list[str]:
    further = ["unlike_training", "in_training", "novelty"]
    further += ["possible"] if has_sets else []
    further += ["kind", "reason"] if is_judged else []
    further += ["note", "image_digest"]
    return ["path", "label", "confidence", *further, *(f"p_{name}" for name in classes)]


def prediction_record(model: Any, digest: str, left_out: Sequence[str] = ()) -> dict[str, Any]:
    """Return how predictions are made, which a report of their table needs."""
    accuracy = None
    if getattr(model, "held_out_", None) is not None:
        result = model.held_out_evaluation()
        accuracy = [result.accuracy, *result.interval]
    confusion, _ = held_out_confusion(model)
    return {
        "model": digest,
        "classes": [str(label) for label in model.classes_],
        "classifier": learner_text(model.boosting_).partition(";")[0],
        "training images": len(model.training_),
        "accuracy": accuracy,
        "confusion": None if confusion is None else confusion.tolist(),
        LEFT_OUT: list(left_out),
    }


def possible_classes(sets: NDArray[np.bool_], classes: Sequence[Any]) -> list[list[str]]:
    names = np.array([str(name) for name in classes], dtype=object)
    return [names[row].tolist() for row in sets]


def predictions_as_bytes(
    names: Sequence[str],
    proba: ArrayLike,
    classes: Sequence[Any],
    *,
    columns: Mapping[str, Sequence[Any]] | None = None,
) -> bytes:
    """Return ``path, label, confidence``, any further columns, and a ``p_CLASS`` for each class.

    The table is CSV in UTF-8; file names that are not valid text keep their bytes. Text that a
    spreadsheet would take for a formula begins with an apostrophe.

    Parameters
    ----------
    names : sequence of n str
        The path, or another name, of each image.
    proba : array-like of shape (n, n_classes)
        Written with six decimals.
    classes : sequence of n_classes labels
    columns : mapping of str to sequence of n values, optional
        Further columns.

    Returns
    -------
    bytes
        The content of the file.

    Examples
    --------
    >>> from hypervlad.results import predictions_as_bytes
    >>> predictions_as_bytes(["a.png"], [[0.25, 0.75]], ["SEM", "TEM"]).splitlines()[1]
    b'a.png,TEM,0.75,0.25,0.75'
    """
    table, columns = np.asarray(proba, dtype=np.float64), columns or {}
    header = ["path", "label", "confidence", *columns, *(f"p_{name}" for name in classes)]
    rows = []
    for index, name in enumerate(names):
        label, shown = classes[table[index].argmax()], table[index].round(_DECIMALS)
        further = (values[index] for values in columns.values())
        rows.append([name, label, shown.max(), *further, *shown])
    return table_as_bytes(header, rows)
