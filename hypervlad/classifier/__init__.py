"""From a list of images to classes with probabilities, and why."""

from hypervlad.classifier.estimator import MicrographClassifier, default_encoder
from hypervlad.classifier.explanation import Explanation

__all__ = ["Explanation", "MicrographClassifier", "default_encoder"]
