"""scikit-learn's own checks of all estimators."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.utils.estimator_checks import estimator_checks_generator
from support.rows import OnRows

from hypervlad import (
    AlignmentClassifier,
    BoostedSoftmaxClassifier,
    HypercolumnVLAD,
    MicrographClassifier,
    PatchDefectScorer,
)
from hypervlad.baselines import PatchCNNClassifier, TransferClassifier


class VLADOnRows(OnRows, HypercolumnVLAD):
    min_samples = 2


class ClassifierOnRows(OnRows, MicrographClassifier):
    pass


class TransferOnRows(OnRows, TransferClassifier):
    def _margins(self, images: Any) -> NDArray[np.float64]:
        """Rounded: kernels for other numbers of images differ by 1e-7; three digits seldom do."""
        return super()._margins(images).round(3)


class PatchCNNOnRows(OnRows, PatchCNNClassifier):
    def as_image(self, row: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return a patch that the row fills again and again."""
        return np.resize(expit(row), (12, 12))

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """Rounded: kernels for other numbers of patches differ in the last bits."""
        return super().decision_function(self.as_images(X)).round(5)


class DefectScorerOnRows(OnRows, PatchDefectScorer):
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
    """An estimator, the checks that it is expected to fail with reasons, a pattern of warnings."""

    name: str
    estimator: Any
    expected_failures: Mapping[str, str] = {}
    ignored_warning: str = ""


# One image per batch: some checks ask for more digits than batches of two sizes share.
SMALL: dict[str, Any] = {"weights": "random", "n_codewords": 2, "layer_components": 2}
WINDOWS = HypercolumnVLAD("tiny", taps=["1"], image_size=None, **SMALL)
WHOLE: dict[str, Any] = {"image_size": 8, "n_samples": 200, "batch_size": 1} | SMALL
TRANSFER: dict[str, Any] = {
    "weights": "random",
    "image_size": 8,
    "max_epochs": 1,
    "random_state": 0,
}
# The checks' data sets are small, with labels at random, and some rows have equal values.
FEW = "Classes with only one or two"
FEW_HELD_OUT = "fine-tuning is validated on"
NEVER = ".* never predicted for the"
BLANK = ".* blank, all pixels equal"

# Checks with several data sets or 300 rows.
MANY_IMAGES = {
    "check_classifiers_classes",
    "check_classifiers_train",
    "check_estimators_dtypes",
    "check_estimators_pickle",
    "check_positive_only_tag_during_fit",
    "check_transformer_data_not_an_array",
}

TABLE = [
    Row("encoder", VLADOnRows("tiny", normalize=None, **WHOLE)),
    Row("boosting", BoostedSoftmaxClassifier(n_jobs=1), {}, FEW),
    Row(
        "boosting without linear part",
        BoostedSoftmaxClassifier(init=None, n_estimators=30, n_jobs=1),
        {},
        FEW,
    ),
    Row(
        "classifier",
        ClassifierOnRows(
            HypercolumnVLAD("tiny", taps=["3"], codebook="joint", **WHOLE),
            boosting=BoostedSoftmaxClassifier(n_estimators=3, Cs=1.0),
        ),
        {
            "check_sample_weight_equivalence_on_dense_data": "the codebook is learnt from pixels "
            "without weights"
        },
        f"{FEW}|{NEVER}|{BLANK}",
    ),
    Row("transfer", TransferOnRows("tiny", **TRANSFER), {}, BLANK),
    Row(
        "fine-tuning",
        TransferOnRows("tiny", mode="finetune", **TRANSFER),
        {},
        f"{FEW_HELD_OUT}|{BLANK}",
    ),
    Row(
        "patch CNN",
        PatchCNNOnRows(
            filters=(2,), kernel_sizes=(3,), n_dense=4, max_epochs=2, batch_size=8, random_state=0
        ),
    ),
    Row(
        "defect scorer",
        DefectScorerOnRows(WINDOWS, patch=1, stride=1, n_codewords=2, random_state=0),
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
            name = values[1].func.__name__
            if name in MANY_IMAGES:
                marks.append(pytest.mark.slow)  # several models of 300 rows, one image per batch
            yield pytest.param(*values, marks=marks, id=f"{row.name}-{name}")


@pytest.mark.parametrize(("estimator", "check"), list(checks()))
def test_scikit_learns_checks(estimator: Any, check: Any) -> None:
    check(estimator)
