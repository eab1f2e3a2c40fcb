"""Training rows with weights and groups, and the formulas of margins that all parts share.

A row of weight three is the same evidence as three copies of it. Copies are therefore joined
before anything is split: they cannot end on both sides of a split, and weights, repetitions and
the order of the rows do not change the model.

A margin is a class's score before the softmax. Margins of several classes have the shape (n,
n_classes). Two classes have one column, the log odds of the second, as in scikit-learn and
xgboost.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, log_softmax, softmax

from hypervlad.splits import first_appearance_codes

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]


@dataclass(frozen=True)
class TrainingRows:
    """Distinct rows: class codes, positive weights and group codes, each (m,).

    Their features are the rows `at`, (m,), of `source`, (n, p), the matrix given to ``fit``: a
    second copy of wide vectors may not fit into memory.
    """

    source: NDArray[np.floating]
    at: IntArray
    codes: IntArray
    weight: FloatArray
    groups: IntArray

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def X(self) -> NDArray[np.floating]:  # noqa: N802
        """Features, (m, p): a new copy at each access."""
        return self.source[self.at]

    def take(self, rows: IntArray) -> TrainingRows:
        """Return only these rows."""
        return TrainingRows(
            self.source, self.at[rows], self.codes[rows], self.weight[rows], self.groups[rows]
        )

    def with_columns(self, columns: IntArray | slice | None) -> TrainingRows:
        """Return the rows with only these columns of X; all if None."""
        if columns is None:
            return self
        narrow = self.source[:, columns][self.at]
        return TrainingRows(narrow, np.arange(len(self)), self.codes, self.weight, self.groups)

    def groups_of_class(self) -> list[int]:
        """Return the number of groups in which each class appears."""
        pairs = np.unique(np.column_stack([self.codes, self.groups]), axis=0)
        return np.bincount(pairs[:, 0]).tolist()


def training_rows(
    X: NDArray[np.floating],
    y: NDArray[Any],
    weight: FloatArray,
    groups: ArrayLike | None,
    class_weight: Mapping[Any, float] | str | None,
) -> tuple[NDArray[Any], TrainingRows]:
    """Return the sorted labels with positive weight, and the distinct rows with codes of these.

    ValueError if only one class has positive weight.
    """
    positive = weight > 0
    classes = np.unique(y[positive])
    if len(classes) < 2:
        raise ValueError(
            "This classifier needs samples of at least 2 classes; got only one class with "
            f"positive weight: {classes.tolist()}."
        )
    codes = np.zeros(len(y), dtype=np.intp)
    codes[positive] = np.searchsorted(classes, y[positive])
    weight = weight * class_weights(class_weight, classes, codes, weight)[codes]
    return classes, distinct_rows(X, codes, weight, groups)


def warn_of_small_classes(rows: TrainingRows, classes: NDArray[Any]) -> None:
    """Warn once of classes with one or two groups; the warning points at the caller's caller."""
    small = [
        f"{label!r} ({n})"
        for label, n in zip(classes.tolist(), rows.groups_of_class(), strict=True)
        if n <= 2
    ]
    if small:
        warnings.warn(
            "Classes with only one or two different samples or groups: "
            f"{', '.join(small)}. They can hardly be held out, so their probabilities are guesses. "
            "Add samples from other specimens.",
            UserWarning,
            stacklevel=3,
        )


def class_weights(
    class_weight: Mapping[Any, float] | str | None,
    classes: NDArray[Any],
    codes: IntArray,
    weight: FloatArray,
) -> FloatArray:
    """Return the weight of each class; "balanced" makes the classes' summed weights equal."""
    if class_weight is None:
        return np.ones(len(classes))
    if isinstance(class_weight, str):
        share = np.bincount(codes, weights=weight, minlength=len(classes))
        return share.sum() / (len(classes) * share)
    labels = classes.tolist()
    unknown = [label for label in class_weight if label not in labels]
    if unknown:
        raise ValueError(
            f"class_weight names labels that are not in y: {unknown}; the classes are {labels}."
        )
    return np.array([float(class_weight.get(label, 1.0)) for label in labels])


def distinct_rows(
    X: NDArray[np.floating], codes: IntArray, weight: FloatArray, groups: ArrayLike | None
) -> TrainingRows:
    """Join equal rows of one class and group, drop those without weight, sort by content.

    The weights returned have mean 1, so that no penalty or prior depends on their unit. Without
    `groups`, equal feature vectors form a group, whatever their labels.
    """
    if groups is None:
        group_codes = np.zeros(len(codes), dtype=np.intp)
    else:
        group_codes = first_appearance_codes(groups, "groups")
        if len(group_codes) != len(codes):
            raise ValueError(f"X has {len(codes)} rows but groups has {len(group_codes)}.")
    kept = np.flatnonzero(weight > 0)
    digests = _row_digests(X, kept)
    order = np.lexsort((group_codes[kept], codes[kept], digests))
    kept, digests = kept[order], digests[order]
    new_vector = np.append(True, digests[1:] != digests[:-1])
    new_row = new_vector.copy()
    for key in (codes, group_codes):
        new_row[1:] |= key[kept[1:]] != key[kept[:-1]]
    starts = np.flatnonzero(new_row)
    group_of_kept = np.cumsum(new_vector) - 1 if groups is None else group_codes[kept]
    joined_weight = np.add.reduceat(weight[kept], starts)
    return TrainingRows(
        source=X,
        at=kept[starts],
        codes=codes[kept[starts]],
        weight=joined_weight / joined_weight.mean(),
        groups=group_of_kept[starts].astype(np.intp),
    )


def _row_digests(X: NDArray[np.floating], rows: IntArray) -> NDArray[np.bytes_]:
    # float64, so that float32 and float64 input of equal values sort alike; + 0.0 turns -0.0 into
    # 0.0.
    digests = [
        hashlib.blake2b((X[row].astype(np.float64) + 0.0).tobytes(), digest_size=16).hexdigest()
        for row in rows
    ]
    return np.array(digests, dtype="S32")


def n_margins(n_classes: int) -> int:
    """Return the number of columns of the margins of so many classes."""
    return 1 if n_classes == 2 else n_classes


def probabilities(margins: FloatArray) -> FloatArray:
    """Return class probabilities of shape (n, n_classes)."""
    if margins.shape[1] == 1:
        # Both from expit: 1 - p would lose the digits of a small p.
        return np.hstack([expit(-margins), expit(margins)])
    return softmax(margins, axis=1)


def log_losses(margins: FloatArray, codes: IntArray) -> FloatArray:
    """Return the negative log probability of each row's own class, shape (n,)."""
    if margins.shape[1] == 1:
        sign = np.where(codes == 1, 1.0, -1.0)
        return np.logaddexp(0.0, -sign * margins[:, 0])
    return -log_softmax(margins, axis=1)[np.arange(len(codes)), codes]


def prior_margins(codes: IntArray, weight: FloatArray, n_classes: int) -> FloatArray:
    """Return the log of the classes' weighted shares as one row of margins, shape (n_margins,)."""
    log_prior = np.log(np.bincount(codes, weights=weight, minlength=n_classes) / weight.sum())
    return log_prior[1:] - log_prior[0] if n_classes == 2 else log_prior
