"""From a list of images to classes with probabilities."""

from hypervlad.classifier.estimator import MicrographClassifier, default_encoder

__all__ = ["MicrographClassifier", "default_encoder"]
