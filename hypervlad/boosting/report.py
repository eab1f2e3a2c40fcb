"""What a fit came to, in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .classifier import BoostedSoftmaxClassifier


def in_words(model: BoostedSoftmaxClassifier, n_rows: int) -> str:
    """What was chosen, and what trees gained on the hold-out."""
    parts = [f"learnt from {n_rows} distinct rows of {len(model.classes_)} classes"]
    if model.C_ is not None and model.view_weights_ is not None:
        pairs = zip(model.C_, model.view_weights_, strict=True)
        parts += [f"C={C:g}, weight {weight:.2f}" for C, weight in pairs]
    helped = "" if model.n_estimators_ else " (more would not have helped)"
    parts.append(f"{model.n_estimators_} rounds of trees{helped}")
    if model.tree_gain_ is not None:
        parts.append(f"hold-out gain {model.tree_gain_:.4f} +- {model.tree_gain_error_:.4f}")
    return "boosted softmax: " + "; ".join(parts)
