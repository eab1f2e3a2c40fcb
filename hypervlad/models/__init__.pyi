from . import presets
from .alignment import AlignmentClassifier, default_alignment_encoder
from .baselines import PatchCNNClassifier, TransferClassifier
from .boosting import BoostedSoftmaxClassifier
from .classifier import (
    Classification,
    Explanation,
    HeldOut,
    Judgement,
    LabelIssue,
    MicrographClassifier,
    NeverPredictedWarning,
    SureAnswers,
    TrainingImages,
    default_encoder,
)
from .defects import DetectionLimits, Finding, PatchDefectScorer, Region, default_patch_encoder
from .loading import load
from .segmentation import HeldOutSegmentation, HypercolumnSegmenter

__all__ = [
    "AlignmentClassifier",
    "BoostedSoftmaxClassifier",
    "Classification",
    "DetectionLimits",
    "Explanation",
    "Finding",
    "HeldOut",
    "HeldOutSegmentation",
    "HypercolumnSegmenter",
    "Judgement",
    "LabelIssue",
    "MicrographClassifier",
    "NeverPredictedWarning",
    "PatchCNNClassifier",
    "PatchDefectScorer",
    "Region",
    "SureAnswers",
    "TrainingImages",
    "TransferClassifier",
    "default_alignment_encoder",
    "default_encoder",
    "default_patch_encoder",
    "load",
    "presets",
]
