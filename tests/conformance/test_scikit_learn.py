"""scikit-learn's own checks of all estimators but the segmenter, whose targets are outlines.

Those of images are given rows by `support.rows`, which validates them: checks of bad rows test no
more than that.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pytest
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

    def decision_function(self, X):
        return self._one_by_one(super().decision_function, X)

    def predict_proba(self, X):
        return self._one_by_one(super().predict_proba, X)

    def predict(self, X):
        return self._one_by_one(super().predict, X)

    def _one_by_one(self, method, X):
        return np.concatenate([method([image]) for image in self.as_images(X)])


class PatchCNNOnRows(OnRows, PatchCNNClassifier):
    def as_image(self, row):
        """Return a patch that the row fills again and again."""
        return np.resize(0.5 + np.arctan(row) / np.pi, (28, 28))


class DefectScorerOnRows(OnRows, PatchDefectScorer):
    def as_image(self, row):
        """Return an image of a quarter of the pixels, which has a quarter of the windows."""
        return super().as_image(np.resize(row, max(2, len(row))))[::2, ::2]

    def predict(self, X):
        """As numbers: the checks subtract predictions of what is no classifier."""
        return np.where(super().predict(self.as_images(X)) == "anomalous", 1, 0)


class AlignmentOnRows(OnRows, AlignmentClassifier):
    def as_image(self, row):
        """Return an image of four rows, none of it flat."""
        row = np.repeat(row, 4)
        return row + np.arange(4)[:, None] * (np.ptp(row) or 1)

    def as_labels(self, y):
        return [bool(each) for each in y > np.mean(y)]

    def predict(self, X):
        return np.nan_to_num(super().predict(self.as_images(X)))

    def score(self, X, y):
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


SMALL = {"weights": "random", "n_codewords": 2}
LEVELS = {"scaling": "dtype"}  # grey levels as they are: images may differ in nothing else
WINDOWS = HypercolumnVLAD("tiny", taps=["1"], image_size=None, **SMALL)
WHOLE = {
    "image_size": 8,
    "batch_size": 1,  # some checks ask for more digits than batches of two sizes share
    "sampling": 200,
    "read_options": LEVELS,
} | SMALL
TRANSFER = {
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
            calibrate=False,
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
        is_dear=True,  # a few patches take as long as a batch of 1,024
    ),
    Row(
        "defect scorer",
        DefectScorerOnRows(WINDOWS, patch=1, random_state=0),
        is_dear=True,  # each model is compared with planted spots
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


def checks():
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
            if name in MANY_IMAGES and isinstance(row.estimator, OnRows):
                if row.name == "fine-tuning":  # the class has a row above
                    continue
                marks.append(pytest.mark.full)  # several models of 300 rows, one image per batch
            yield pytest.param(*values, marks=marks, id=f"{row.name}-{name}")


@pytest.mark.parametrize(("estimator", "check"), list(checks()))
def test_scikit_learns_checks(estimator, check):
    check(estimator)
