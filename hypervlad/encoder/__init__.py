"""Images in, VLAD vectors out: the scikit-learn transformer."""

from hypervlad.encoder.estimator import HypercolumnVLAD

__all__ = ["HypercolumnVLAD"]
