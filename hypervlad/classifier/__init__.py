"""From a list of images to classes with probabilities, why, and whether to rely on them."""

from hypervlad.classifier.estimator import MicrographClassifier, default_encoder
from hypervlad.classifier.explanation import Explanation
from hypervlad.classifier.judging import Judgement, judge_vectors
from hypervlad.classifier.suspects import LabelIssue
from hypervlad.classifier.training import TrainingImages

__all__ = [
    "Explanation",
    "Judgement",
    "LabelIssue",
    "MicrographClassifier",
    "TrainingImages",
    "default_encoder",
    "judge_vectors",
]
