"""Checks of the scorer's parameters, with messages that say what would be right."""

from __future__ import annotations

import math
import numbers
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hypervlad.boosting import BoostedSoftmaxClassifier
from hypervlad.classifier.validation import of_length
from hypervlad.encoder import HypercolumnVLAD
from hypervlad.encoder.parameters import check_choice, check_count
from hypervlad.metrics.patches import check_min_fraction, check_side
from hypervlad.splits import first_appearance_codes


def check_scorer(scorer: Any) -> None:
    """Raise a ValueError that names the first parameter that is unusable."""
    check_side("patch", scorer.patch)
    if scorer.stride is not None:
        check_side("stride", scorer.stride)
    check_choice("threshold", scorer.threshold, ("fpr", "patch_fpr", "f1"))
    fpr = scorer.fpr
    if isinstance(fpr, bool) or not isinstance(fpr, numbers.Real) or not 0 < float(fpr) < 1:
        raise ValueError(f"fpr is a share of images or windows, between 0 and 1; got {fpr!r}")
    check_count("n_words", scorer.n_words)
    check_count("tile_size", scorer.tile_size, 64)
    check_min_fraction(scorer.min_fraction)
    check_boosting(scorer.boosting)
    if scorer.encoder is not None:
        check_window_encoder(scorer.encoder, "defects are looked for")


def check_boosting(boosting: Any) -> None:
    """Raise a ValueError unless it is None or a learner with usable parameters."""
    if boosting is None:
        return
    if not isinstance(boosting, BoostedSoftmaxClassifier):
        raise ValueError(f"boosting must be a BoostedSoftmaxClassifier or None, not {boosting!r}")
    boosting.check_parameters()


def check_window_encoder(encoder: Any, what: str) -> None:
    """Raise a ValueError unless an encoder is one for windows; ``what`` is done at images' size."""
    if not isinstance(encoder, HypercolumnVLAD):
        raise ValueError(f"encoder must be a HypercolumnVLAD or None, not {encoder!r}")
    if encoder.image_size is not None:
        raise ValueError(
            f"the encoder resizes images to {encoder.image_size} pixels, but {what} at "
            "an image's own size: give HypercolumnVLAD(image_size=None, ...)"
        )
    if encoder.kmeans != "lloyd":
        raise ValueError(
            f"the encoder's kmeans must be 'lloyd' for windows, not {encoder.kmeans!r}"
        )
    if encoder.turns != 1:
        raise ValueError(f"the encoder's turns must be 1 for windows, not {encoder.turns}")


def check_not_masks(y: Any) -> None:
    """Raise a ValueError if labels are pictures."""
    if not isinstance(y, str | bytes) and y is not None and any(np.ndim(each) > 1 for each in y):
        raise ValueError("y is a label for each patch, but holds arrays: give masks as masks=")


def check_groups(groups: Any, n_images: int) -> NDArray[Any]:
    """Return the group of each image as numbers; each is its own without groups."""
    if groups is None:
        return np.arange(n_images)
    values = of_length("groups values", groups, n_images)
    return np.asarray(first_appearance_codes(values.tolist(), "groups"))


def check_threshold(value: Any) -> float:
    """Return a threshold as a float of single precision, as scores are."""
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value):
        raise ValueError(f"the threshold is a finite number, not {value!r}")
    return float(np.float32(value))
