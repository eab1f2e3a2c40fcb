"""What a page of classified images knows of each: plain values, safe inside HTML."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from hypervlad.classifier import Judgement, TrainingImages
from hypervlad.displays.page import printable
from hypervlad.displays.predictions import Predictions

_DIGITS = 6  # of a probability
_NOVELTY_DIGITS = 4


def data_of(
    classes: Sequence[Any],
    training: TrainingImages,
    found: Predictions,
    names: Sequence[str],
    links: Sequence[str],
) -> dict[str, Any]:
    """Gather what a page needs, image by image.

    Parameters
    ----------
    classes : sequence of n_classes labels
    training : TrainingImages
        Of the model.
    found : Predictions
        Of m images that could be read.
    names, links : sequence of m str
        What to call each image, and where a browser finds it ("" for nowhere).

    Returns
    -------
    dict
        ``classes``, ``names``, ``links``, ``said`` (positions among the classes) and ``proba``
        (rows, to six digits); where they were asked for ``possible``, and ``kinds``, ``reasons``,
        ``novelty``, ``nearest`` (rows of ``training``: the name and label of each image named).
    """
    data: dict[str, Any] = {
        "classes": [printable(label) for label in classes],
        "names": [printable(name) for name in names],
        "links": list(links),
        "said": found.proba.argmax(axis=1).tolist(),
        "proba": np.round(found.proba.astype(np.float64), _DIGITS).tolist(),
    }
    if found.possible is not None:
        data["possible"] = [[printable(name) for name in names] for names in found.possible]
    if found.judged is not None:
        data |= _judged(found.judged, training)
    return data


def _judged(judged: Judgement, training: TrainingImages) -> dict[str, Any]:
    rows, places = np.unique(judged.nearest, return_inverse=True)
    return {
        "kinds": judged.kind.tolist(),
        "reasons": [printable(reason) for reason in judged.reasons],
        "novelty": np.round(judged.novelty, _NOVELTY_DIGITS).tolist(),
        "nearest": places.reshape(judged.nearest.shape).tolist(),
        "training": [
            [printable(training.names[row]), printable(training.labels[row])] for row in rows
        ],
    }


def as_script(data: Any) -> str:
    """Write plain values as JSON that no HTML parser takes for anything else.

    Examples
    --------
    >>> as_script(["</script>"])
    '["\\\\u003c/script>"]'
    """
    plain = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return plain.replace("<", "\\u003c")


def link_to(image: Any, folder: str | os.PathLike[str]) -> str:
    """Return the address of an image's file as seen from a folder; "" for an array.

    Names that are no valid text, which Linux allows, keep their bytes.

    Examples
    --------
    >>> link_to("/data/new/50% <a>.png", "/data/out")
    '../new/50%25%20%3Ca%3E.png'
    """
    if not isinstance(image, str | os.PathLike):
        return ""
    try:
        below = os.path.relpath(image, folder)
    except ValueError:  # another drive of Windows
        return Path(os.path.abspath(image)).as_uri()
    return quote(os.fsencode(below.replace(os.sep, "/")))


def most_doubtful(found: Predictions, n_most: int) -> NDArray[np.intp]:
    """Return the images, at most so many, that are most worth a look, in their own order.

    Those whose answer is not sure come before the others, and low confidences before high ones.
    """
    confidence = found.proba.max(axis=1, initial=0)
    is_sure = np.zeros(len(confidence)) if found.judged is None else found.judged.kind == "sure"
    return np.sort(np.lexsort((confidence, is_sure))[:n_most])
