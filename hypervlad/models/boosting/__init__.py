"""A softmax classifier that boosts trees from cross-fitted linear margins, based on xgboost."""

from hypervlad.models.boosting.classifier import BoostedSoftmaxClassifier

__all__ = ["BoostedSoftmaxClassifier"]
