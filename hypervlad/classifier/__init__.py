"""From a list of images to classes with probabilities, explanations and reliability."""

from hypervlad.classifier.assessment import (
    AMBIGUOUS,
    OUT_OF_DISTRIBUTION,
    SURE,
    UNREADABLE,
    Classification,
    Judgement,
    LabelIssue,
)
from hypervlad.classifier.estimator import MicrographClassifier, default_encoder
from hypervlad.classifier.explanation import Explanation
from hypervlad.classifier.fitting import NeverPredictedWarning
from hypervlad.classifier.held_out import HeldOut, SureAnswers
from hypervlad.classifier.novelty import ImageFormats, TrainingImages
from hypervlad.images import TrainingImagesWarning

__all__ = [
    "AMBIGUOUS",
    "OUT_OF_DISTRIBUTION",
    "SURE",
    "UNREADABLE",
    "Classification",
    "Explanation",
    "HeldOut",
    "ImageFormats",
    "Judgement",
    "LabelIssue",
    "MicrographClassifier",
    "NeverPredictedWarning",
    "SureAnswers",
    "TrainingImages",
    "TrainingImagesWarning",
    "default_encoder",
]
