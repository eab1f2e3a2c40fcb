"""The base of estimators whose X is a list of images."""

from hypervlad.base import ImageEstimator as ImageListEstimator

__all__ = ["ImageListEstimator"]
