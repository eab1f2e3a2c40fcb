"""Labels, groups and weights that no estimator can use: one sentence, before any work."""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np
import pytest

from hypervlad import (
    AlignmentClassifier,
    BoostedSoftmaxClassifier,
    MicrographClassifier,
    PatchDefectScorer,
)
from hypervlad.evaluation.splits import check_column
from hypervlad.models import PatchCNNClassifier, TransferClassifier

LABELS = ["a", "b", "a", "b"]
IMAGES = [np.full((12, 12), i / 4, dtype=np.float32) for i in range(4)]
UNORDERED = {"str": "abab", "set": {*"abcd"}, "dict": {1: "a"}, "map": map(str, LABELS), "int": 4}
DATES = [datetime.datetime(2026, 1, i) for i in (1, 2, 1, 2)]


@pytest.fixture(params=["boosted", "images", "transfer", "patches", "defects", "alignment"])
def fit(request: Any, tiny_backbone: None) -> Any:
    """A function that fits one of the estimators."""
    estimators = {
        "boosted": BoostedSoftmaxClassifier(),
        "images": MicrographClassifier(),
        "transfer": TransferClassifier("tiny", weights="random", image_size=16),
        "patches": PatchCNNClassifier(),
        "defects": PatchDefectScorer(),
        "alignment": AlignmentClassifier(),
    }
    X = np.arange(12.0).reshape(4, 3) if request.param == "boosted" else IMAGES

    def fit(y: Any, **options: Any) -> None:
        estimators[request.param].fit(X, y, **options)

    fit.labels = {  # type: ignore[attr-defined]
        "defects": ["normal", "anomalous"] * 2,
        "alignment": ["aligned", "not aligned"] * 2,
    }.get(request.param, LABELS)
    return fit


@pytest.mark.parametrize("kind", UNORDERED)
def test_labels_and_groups_are_a_sequence(fit: Any, kind: str) -> None:
    with pytest.raises(ValueError, match=r"y must be a list, a tuple or an array .*, not a "):
        fit(UNORDERED[kind])
    with pytest.raises(ValueError, match=r"groups must be a list, a tuple or an array .*, not a "):
        fit(fit.labels, groups=UNORDERED[kind])


@pytest.mark.parametrize(
    "labels",
    [np.array([b"a", b"b"] * 2), DATES, np.array(DATES, dtype="M8[D]"), [1j, 2, 1j, 2]],
    ids=["bytes", "dates", "M8", "complex"],
)
def test_labels_are_of_types_that_can_be_saved(fit: Any, labels: Any) -> None:
    with pytest.raises(ValueError, match=r"y must be strings, integers|expected 'aligned'|label"):
        fit(labels)


@pytest.mark.parametrize("make", [BoostedSoftmaxClassifier, MicrographClassifier])
@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.ones((4, 1)), r"shape \(4, 1\)"),
        ([[1.0], [1.0], [1.0], [1.0]], "sample_weight"),
        (np.ones(4, dtype=complex), "sample_weight must be real numbers; got dtype"),
        ([1, 1j, 1, 1], "sample_weight must be real numbers; got 1j"),
        (np.array(["1"] * 4), "sample_weight must be real numbers"),
        ({1, 2, 3, 4}, "sample_weight must be a list"),
        (iter([1.0] * 4), "sample_weight must be a list"),
    ],
)
def test_weights_are_real_numbers(make: Any, weights: Any, message: str) -> None:
    X = np.arange(12.0).reshape(4, 3) if make is BoostedSoftmaxClassifier else IMAGES
    with pytest.raises(ValueError, match=message):
        make().fit(X, LABELS, sample_weight=weights)


def test_usable_columns_are_accepted() -> None:
    pandas = pytest.importorskip("pandas")
    for y in (LABELS, tuple(LABELS), np.array(LABELS), pandas.Series(LABELS), [1, 2.5], [True]):
        check_column("y", y, "labels")
    check_column("y", pandas.Series(LABELS, dtype="category"), "labels")
    check_column("groups", DATES)
    check_column("sample_weight", [1, 2.5, np.float32(3)], "weights")
