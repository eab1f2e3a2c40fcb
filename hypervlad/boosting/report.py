"""What a fit came to, in one line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hypervlad.boosting.classifier import BoostedSoftmaxClassifier


def in_words(model: BoostedSoftmaxClassifier, n_rows: int) -> str:
    """What was chosen, and what trees gained on the hold-out."""
    parts = [f"learnt from {n_rows} distinct rows of {len(model.classes_)} classes"]
    if model.C_ is not None and model.view_weights_ is not None:
        weights = _listed(model.view_weights_, ".2f")
        parts.append(f"linear models: C {_listed(model.C_, 'g')}, weights {weights}")
    helped = "" if model.n_estimators_ else " (more would not have helped)"
    parts.append(f"{model.n_estimators_} rounds of trees{helped}")
    if model.tree_gain_ is not None:
        gain, error = model.tree_gain_, model.tree_gain_error_
        parts.append(f"what trees gain in log-loss on a hold-out: {gain:+.4f} +- {error:.4f}")
    return "boosted softmax: " + "; ".join(parts)


def _listed(values: Sequence[float], style: str) -> str:
    return ", ".join(f"{value:{style}}" for value in values)
