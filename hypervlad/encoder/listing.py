"""What scikit-learn is told of estimators whose X is a list of images."""

from __future__ import annotations

from typing import Any

from sklearn.base import BaseEstimator


class ImageListEstimator(BaseEstimator):
    """An estimator that takes a list of paths and arrays, and no table of numbers."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        return tags
