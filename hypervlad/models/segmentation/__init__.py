"""``HypercolumnSegmenter``: particles outlined by a small decoder of a frozen network's maps."""

from hypervlad.models.segmentation.estimator import HeldOutSegmentation, HypercolumnSegmenter

__all__ = ["HeldOutSegmentation", "HypercolumnSegmenter"]
