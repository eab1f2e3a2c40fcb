"""From a list of images to classes with probabilities, explanations and reliability."""

from hypervlad.images import TrainingImagesWarning
from hypervlad.models.classifier.answers import (
    AMBIGUOUS,
    OUT_OF_DISTRIBUTION,
    SURE,
    UNREADABLE,
    Classification,
    Explanation,
    Judgement,
    LabelIssue,
)
from hypervlad.models.classifier.estimator import MicrographClassifier
from hypervlad.models.classifier.fitting import NeverPredictedWarning, default_encoder
from hypervlad.models.classifier.held_out import HeldOut, SureAnswers
from hypervlad.models.classifier.training_images import ImageFormats, TrainingImages

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
