"""The rows that are learnt from: distinct, weighted, grouped; weights and shares of classes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hypervlad.common.wording import name_some, warn_user
from hypervlad.evaluation.splits import first_appearance_codes
from hypervlad.models.boosting.logistic import FloatArray, IntArray

_MAX_RATIO = 1e12  # of two weights or shares: sums of numbers further apart lose the smaller ones


@dataclass(frozen=True)
class TrainingRows:
    """Distinct rows: class codes, positive weights and group codes, each (m,).

    Their features are the rows `at`, (m,), of `source`, (n, p): not a second copy of wide vectors.
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
        return TrainingRows(
            self.source, self.at[rows], self.codes[rows], self.weight[rows], self.groups[rows]
        )

    def with_features(self, X: NDArray[np.floating]) -> TrainingRows:
        return replace(self, source=X, at=np.arange(len(self)))

    def reweighted(self, ratio: FloatArray) -> TrainingRows:
        """Multiply the weights by one number per class."""
        return replace(self, weight=self.weight * ratio[self.codes])

    def groups_of_class(self) -> list[int]:
        pairs = np.unique(np.column_stack([self.codes, self.groups]), axis=0)
        counts: list[int] = np.bincount(pairs[:, 0]).tolist()
        return counts


def training_rows(
    X: NDArray[np.floating],
    y: NDArray[Any],
    weight: FloatArray,
    groups: ArrayLike | None,
    class_weight: Mapping[Any, float] | str | None,
) -> tuple[NDArray[Any], TrainingRows]:
    """Return the sorted labels with positive weight, and the distinct rows with codes of these.

    ValueError if only one class has positive weight, or weights differ by a factor above 1e12.
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
    weight = scaled_to_one(weight, "sample_weight")
    weight = weight * class_weights(class_weight, classes, codes, weight)[codes]
    weight = scaled_to_one(weight, "sample_weight times class_weight")
    return classes, distinct_rows(X, codes, weight, groups)


def scaled_to_one(values: FloatArray, name: str) -> FloatArray:
    """Scale weights or shares to at most 1, so that no sum overflows; ValueError if far apart."""
    smallest, largest = values[values > 0].min(), values.max()
    if smallest < largest / _MAX_RATIO:
        raise ValueError(
            f"{name} must not differ by a factor above {_MAX_RATIO:g}; the values are from "
            f"{smallest:g} to {largest:g}."
        )
    scaled: FloatArray = np.ldexp(values, -np.frexp(largest)[1])  # exact, as a power of two
    return scaled


def _named(labels: Iterable[Any]) -> str:
    return name_some([repr(label) for label in labels]) or "none"


def warn_of_small_classes(rows: TrainingRows, classes: NDArray[Any]) -> None:
    """Warn once of classes with one or two groups; the warning points at the caller's caller."""
    small = [
        f"{label!r} ({n})"
        for label, n in zip(classes.tolist(), rows.groups_of_class(), strict=True)
        if n <= 2
    ]
    if small:
        warn_user(
            "Classes with only one or two different samples or groups: "
            f"{name_some(small)}. They can hardly be held out, so their probabilities are guesses. "
            "Add samples from other specimens.",
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
        balanced: FloatArray = share.sum() / (len(classes) * share)
        return balanced
    labels = classes.tolist()
    unknown = [label for label in class_weight if label not in labels]
    if unknown:
        raise ValueError(
            f"class_weight names labels that are not in y: {_named(unknown)}; the classes are "
            f"{_named(labels)}."
        )
    weights = np.array([float(class_weight.get(label, 1.0)) for label in labels])
    return scaled_to_one(weights, "class_weight")


def expected_shares(
    prior: Mapping[Any, float] | str, classes: NDArray[Any], shares: FloatArray
) -> FloatArray:
    if isinstance(prior, str):
        expected = shares ** {"training": 1.0, "sqrt": 0.5, "uniform": 0.0}[prior]
    else:
        labels = classes.tolist()
        unknown = [label for label in prior if label not in labels]
        missing = [label for label in labels if label not in prior]
        if unknown or missing:
            raise ValueError(
                f"prior must name every class: missing {_named(missing)}, unknown "
                f"{_named(unknown)}; the classes are {_named(labels)}."
            )
        expected = np.array([float(prior[label]) for label in labels])
        expected = scaled_to_one(expected, "prior")
    return np.asarray(expected / expected.sum())


def prior_ratio(
    prior: Mapping[Any, float] | str, classes: NDArray[Any], rows: TrainingRows
) -> FloatArray:
    """Return the expected share of each class divided by its (weighted) share of the rows."""
    shares = np.bincount(rows.codes, weights=rows.weight, minlength=len(classes)) / len(rows)
    return expected_shares(prior, classes, shares) / shares


def distinct_rows(
    X: NDArray[np.floating], codes: IntArray, weight: FloatArray, groups: ArrayLike | None
) -> TrainingRows:
    """Join equal rows of one class and group, drop those without weight, order them by content.

    The order depends neither on that of the rows given nor on their last digits, which vary with
    the batch size of a network. The weights have mean 1. Without `groups`, equal vectors form a
    group.
    """
    if groups is None:
        group_codes = np.zeros(len(codes), dtype=np.intp)
    else:
        group_codes = first_appearance_codes(groups, "groups")
        if len(group_codes) != len(codes):
            raise ValueError(f"X has {len(codes)} rows but groups has {len(group_codes)}.")
    kept = np.flatnonzero(weight > 0)
    digests, places = _row_digests(X, kept)
    order = np.lexsort((group_codes[kept], codes[kept], digests, places))
    kept, digests = kept[order], digests[order]
    new_vector = np.append(True, digests[1:] != digests[:-1])
    new_row = new_vector.copy()
    for key in (codes, group_codes):
        new_row[1:] |= key[kept[1:]] != key[kept[:-1]]
    starts = np.flatnonzero(new_row)
    group_of_kept = np.cumsum(new_vector) - 1 if groups is None else group_codes[kept]
    joined_weight = np.add.reduceat(weight[kept], starts)
    rows = TrainingRows(
        source=X,
        at=kept[starts],
        codes=codes[kept[starts]],
        weight=joined_weight / joined_weight.mean(),
        groups=group_of_kept[starts].astype(np.intp),
    )
    # Not sorted along the direction of `_row_digests`: the first rows are a random sample.
    return rows.take(np.random.default_rng(0).permutation(len(rows)))


def _row_digests(X: NDArray[np.floating], rows: IntArray) -> tuple[NDArray[np.bytes_], FloatArray]:
    """Return digests of rows of X, and their places along a random direction, which rounding hardly
    changes.
    """
    direction = np.random.default_rng(0).standard_normal(X.shape[1])
    digests: list[str] = []
    places: dict[str, float] = {}
    for row in rows:
        # float64, so that float32 and float64 input of equal values sort alike; + 0.0 turns -0.0
        # into 0.0.
        values = X[row].astype(np.float64) + 0.0
        digests.append(hashlib.blake2b(values.tobytes(), digest_size=16).hexdigest())
        places.setdefault(digests[-1], float(values @ direction))
    return np.array(digests, dtype="S32"), np.array([places[digest] for digest in digests])
