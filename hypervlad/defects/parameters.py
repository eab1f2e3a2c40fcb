"""Checks of the scorer's parameters, with messages that say what would be right."""

from __future__ import annotations

import math
import numbers
from typing import Any

import numpy as np

from hypervlad.boosting import BoostedSoftmaxClassifier
from hypervlad.encoder.parameters import check_choice, check_count
from hypervlad.metrics.patches import check_min_fraction, check_side
from hypervlad.windows.vectors import check_window_encoder


def check_scorer(scorer: Any) -> None:
    """Raise a ValueError that names the first parameter that is unusable."""
    check_side("patch", scorer.patch)
    if scorer.stride is not None:
        check_side("stride", scorer.stride)
    check_choice("threshold", scorer.threshold, ("fpr", "patch_fpr", "f1"))
    fpr = scorer.fpr
    if isinstance(fpr, bool) or not isinstance(fpr, numbers.Real) or not 0 < float(fpr) < 1:
        raise ValueError(f"fpr is a share of images or windows, between 0 and 1; got {fpr!r}")
    check_count("n_codewords", scorer.n_codewords)
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


def check_threshold(value: Any) -> float:
    """Return a threshold as a float of single precision, as scores are."""
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value):
        raise ValueError(f"the threshold is a finite number, not {value!r}")
    return float(np.float32(value))
