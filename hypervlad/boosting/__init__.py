"""A softmax classifier that boosts trees from cross-fitted linear margins, with xgboost beneath."""

from hypervlad.boosting.classifier import BoostedSoftmaxClassifier

__all__ = ["BoostedSoftmaxClassifier"]
