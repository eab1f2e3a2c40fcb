"""scikit-learn's own checks of all estimators."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.datasets import make_blobs
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator
from support.rows import OnRows

from hypervlad import (
    AlignmentClassifier,
    BoostedSoftmaxClassifier,
    HypercolumnVLAD,
    MicrographClassifier,
    PatchDefectScorer,
)
from hypervlad.models import PatchCNNClassifier, TransferClassifier


class VLADOnRows(OnRows, HypercolumnVLAD):
    min_samples = 2


class ClassifierOnRows(OnRows, MicrographClassifier):
    pass


class TransferOnRows(OnRows, TransferClassifier):
    """One image per batch: the checks want more digits than batches of two sizes share."""

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        return self._one_by_one(super().decision_function, X)

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        return self._one_by_one(super().predict_proba, X)

    def predict(self, X: Any) -> NDArray[Any]:
        return self._one_by_one(super().predict, X)

    def _one_by_one(self, method: Any, X: Any) -> NDArray[Any]:
        return np.concatenate([method([image]) for image in self.as_images(X)])


class PatchCNNOnRows(OnRows, PatchCNNClassifier):
    def as_image(self, row: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return a patch that the row fills again and again."""
        return np.resize(0.5 + np.arctan(row) / np.pi, (28, 28))


class DefectScorerOnRows(OnRows, PatchDefectScorer):
    def as_image(self, row: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return an image of a quarter of the pixels, which has a quarter of the windows."""
        return super().as_image(np.resize(row, max(2, len(row))))[::2, ::2]

    def predict(self, X: Any) -> NDArray[np.intp]:
        """As numbers: the checks subtract predictions of what is no classifier."""
        return np.where(super().predict(self.as_images(X)) == "anomalous", 1, 0)


class AlignmentOnRows(OnRows, AlignmentClassifier):
    def as_image(self, row: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return an image of four rows, none of it flat."""
        row = np.repeat(row, 4)
        return row + np.arange(4)[:, None] * (np.ptp(row) or 1)

    def as_labels(self, y: Any) -> list[bool]:
        return [bool(each) for each in y > np.mean(y)]

    def predict(self, X: Any) -> NDArray[np.float64]:
        return np.nan_to_num(super().predict(self.as_images(X)))

    def score(self, X: Any, y: Any) -> float:
        return float(np.mean((self.predict(X) > 0.5) == (y > np.mean(y))))


class Row(NamedTuple):
    """An estimator, the checks that it is expected to fail with reasons, a pattern of warnings.

    A dear one takes long: `make test-all` runs its checks.
    """

    name: str
    estimator: Any
    expected_failures: Mapping[str, str] = {}
    ignored_warning: str = ""
    is_dear: bool = False

    @property
    def learns(self) -> bool:
        return hasattr(self.estimator, "score")


SMALL: dict[str, Any] = {"weights": "random", "n_codewords": 2}
LEVELS = {"scaling": "dtype"}  # grey levels as they are: images may differ in nothing else
WINDOWS = HypercolumnVLAD("tiny", taps=["1"], image_size=None, **SMALL)
WHOLE: dict[str, Any] = {
    "image_size": 8,
    "batch_size": 1,  # some checks ask for more digits than batches of two sizes share
    "sampling": 200,
    "read_options": LEVELS,
} | SMALL
TRANSFER: dict[str, Any] = {
    "weights": "random",
    "image_size": 8,
    "max_epochs": 1,
    "read_options": LEVELS,
    "random_state": 0,
}
# The checks' data sets are small, with labels at random, and some rows have equal values.
FEW = "Classes with only one or two"
FEW_HELD_OUT = "fine-tuning is validated on"
BLANK = ".* blank, all pixels equal"

# Checks with several data sets or 300 rows.
MANY_IMAGES = {"check_classifiers_classes", "check_classifiers_train", "check_estimators_pickle"}
# Checks of how X is stored, and of negative values, which other checks have: each row becomes a
# new image in float64, whatever X was. `check_readonly_memmap_input` has labels in a file.
OF_TABLES = {
    "check_classifier_data_not_an_array",
    "check_dtype_object",
    "check_estimators_dtypes",
    "check_f_contiguous_array_estimator",
    "check_positive_only_tag_during_fit",
    "check_transformer_data_not_an_array",
}

TABLE = [
    Row("encoder", VLADOnRows("tiny", **WHOLE)),
    Row("boosting", BoostedSoftmaxClassifier(n_jobs=1), {}, FEW),
    Row(
        "classifier",
        ClassifierOnRows(
            HypercolumnVLAD("tiny", taps=["3"], blocks=("joint", "pooled"), **WHOLE),
            boosting=BoostedSoftmaxClassifier(n_estimators=0, Cs=1.0),
            calibration_size=0,
        ),
        {
            "check_sample_weight_equivalence_on_dense_data": "the codebook is learnt from pixels "
            "without weights"
        },
        f"{FEW}|{BLANK}",
    ),
    Row("transfer", TransferOnRows("tiny", **TRANSFER), {}, BLANK),
    Row(
        "fine-tuning",
        TransferOnRows("tiny", mode="finetune", **TRANSFER),
        {},
        f"{FEW_HELD_OUT}|{BLANK}",
        is_dear=True,  # each model is trained, with a validation
    ),
    Row(
        "patch CNN",
        PatchCNNOnRows(learning_rate=0.003, max_epochs=12, batch_size=8, random_state=0),
        is_dear=True,  # a few patches take as long as a batch of 4,096
    ),
    Row(
        "defect scorer",
        DefectScorerOnRows(WINDOWS, patch=1, n_references=2, random_state=0),
        is_dear=True,  # each model is compared with planted spots and turned copies
    ),
    Row(
        "alignment",
        AlignmentOnRows(
            WINDOWS,
            window=4,
            boosting=BoostedSoftmaxClassifier(n_estimators=2, Cs=1.0),
            random_state=0,
        ),
        {},
        FEW,
        is_dear=True,  # each image has many windows
    ),
]


def checks() -> Iterator[Any]:
    for row in TABLE:
        pairs = estimator_checks_generator(
            row.estimator, expected_failed_checks=dict(row.expected_failures), mark="xfail"
        )
        for pair in pairs:
            values, marks = getattr(pair, "values", pair), list(getattr(pair, "marks", ()))
            if row.ignored_warning:
                marks.append(
                    pytest.mark.filterwarnings(f"ignore:{row.ignored_warning}:UserWarning")
                )
            if row.is_dear:
                marks.append(pytest.mark.full)
            name, stored = values[1].func.__name__, "readonly_memmap" in values[1].keywords
            of_tables = name in OF_TABLES or (name == "check_classifiers_train" and stored)
            if of_tables and isinstance(row.estimator, OnRows):
                continue
            if name in MANY_IMAGES:
                if row.name == "fine-tuning":  # the class has a row above
                    continue
                marks.append(pytest.mark.full)  # several models of 300 rows, one image per batch
            yield pytest.param(*values, marks=marks, id=f"{row.name}-{name}")


@pytest.mark.parametrize(("estimator", "check"), list(checks()))
def test_scikit_learns_checks(estimator, check):
    check(estimator)


def blobs() -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Return what most of the checks of classifiers train on, of two classes."""
    X, y = make_blobs(n_samples=45, random_state=0, cluster_std=0.1)
    return StandardScaler().fit_transform(X)[y < 2], y[y < 2]


@pytest.mark.parametrize(
    "estimator",
    [pytest.param(row.estimator, id=row.name) for row in TABLE if row.learns and not row.is_dear],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_checks_see_estimators_that_have_learnt_something(estimator):
    """Of a model that has learnt nothing, the last digits of a processor decide the answers."""
    X, y = blobs()
    assert clone(estimator).fit(X, y).score(X, y) >= 0.9
