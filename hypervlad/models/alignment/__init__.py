"""The learned aligned fraction: a classifier of windows with aligned fibres."""

from hypervlad.models.alignment.estimator import AlignmentClassifier, default_alignment_encoder

__all__ = ["AlignmentClassifier", "default_alignment_encoder"]
