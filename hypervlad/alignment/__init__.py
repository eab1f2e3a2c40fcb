"""The learned aligned fraction: windows of an image told aligned or not by what they look like."""

from hypervlad.alignment.estimator import AlignmentClassifier, default_alignment_encoder

__all__ = ["AlignmentClassifier", "default_alignment_encoder"]
