"""Checks of a patch classifier's parameters and labels, with messages that say what is right."""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.multiclass import check_classification_targets

from hypervlad.encoder.parameters import check_count
from hypervlad.windows import ANOMALOUS, NORMAL


def check_network(model: Any) -> None:
    """Raise a ValueError that names the first parameter that is unusable."""
    for name in ("filters", "kernel_sizes"):
        values = getattr(model, name)
        if isinstance(values, str) or not isinstance(values, list | tuple) or not values:
            raise ValueError(f"{name} is a tuple, a number for each convolution; got {values!r}")
        for value in values:
            check_count(name, value)
    if len(model.filters) != len(model.kernel_sizes):
        raise ValueError(
            f"filters and kernel_sizes go together, one for each convolution; got "
            f"{len(model.filters)} and {len(model.kernel_sizes)}"
        )
    for name in ("n_dense", "batch_size", "max_epochs", "patience"):
        check_count(name, getattr(model, name))
    check_number("learning_rate", model.learning_rate, above=0.0)
    check_number("shear", model.shear, at_least=0.0)
    for name in ("dropout", "zoom"):
        check_number(name, getattr(model, name), at_least=0.0, below=1.0)
    check_number("validation_fraction", model.validation_fraction, above=0.0, below=1.0)


def check_two_classes(labels: NDArray[Any], known: NDArray[Any] | None = None) -> NDArray[Any]:
    """Return the two sorted classes; with ``known`` these, of which labels may be one only."""
    check_classification_targets(labels)
    classes = np.unique(labels)
    if known is not None:
        unknown = sorted(set(classes.tolist()) - set(known.tolist()))
        if unknown:
            raise ValueError(
                f"the validation labels {unknown} are not among those learnt, {known.tolist()}"
            )
        return known
    if len(classes) != 2:
        counted = "one class" if len(classes) == 1 else f"{len(classes)} classes"
        raise ValueError(
            f"Only binary classification is supported: the labels (y) are of {counted}, "
            f"{classes.tolist()[:5]}; expected two, such as 'anomalous' and 'normal'"
        )
    return classes


def defective_class(classes: NDArray[Any]) -> int:
    """Return which of the two classes is the defective one: "anomalous", not "normal", or 1.

    Raises
    ------
    ValueError
        If none is known to be.
    """
    names = classes.tolist()
    if ANOMALOUS in names:
        return names.index(ANOMALOUS)
    if NORMAL in names:
        return 1 - names.index(NORMAL)
    if names == [0, 1]:  # False and True, too
        return 1
    raise ValueError(
        f"the classes are {names}, and none is known to be the defective one: call it "
        f"{ANOMALOUS!r}, or the other {NORMAL!r}, or use 0 and 1"
    )


def check_number(
    name: str,
    value: Any,
    *,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
) -> None:
    """Raise unless a value is a number within its bounds."""
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    bounds = [
        ("above", above, lambda limit: value > limit),
        ("at least", at_least, lambda limit: value >= limit),
        ("below", below, lambda limit: value < limit),
        ("at most", at_most, lambda limit: value <= limit),
    ]
    given = [(word, limit, holds) for word, limit, holds in bounds if limit is not None]
    if not is_number or not all(holds(limit) for _, limit, holds in given):
        expected = " and ".join(f"{word} {limit:g}" for word, limit, _ in given)
        raise ValueError(f"{name} is a number {expected}; got {value!r}")
