from hypervlad.classify.answers import Classification, Explanation, Judgement, LabelIssue
from hypervlad.classify.boosting.classifier import BoostedSoftmaxClassifier
from hypervlad.classify.estimator import MicrographClassifier
from hypervlad.classify.fitting import NeverPredictedWarning, default_encoder
from hypervlad.classify.held_out import HeldOut, SureAnswers
from hypervlad.classify.training_images import TrainingImages
from hypervlad.defects.estimator import PatchDefectScorer, default_patch_encoder
from hypervlad.defects.findings import Finding, Region
from hypervlad.defects.limits import DetectionLimits
from hypervlad.fibres.alignment_classifier import AlignmentClassifier, default_alignment_encoder
from hypervlad.loading import load
from hypervlad.models import presets
from hypervlad.papers.patch_cnn import PatchCNNClassifier
from hypervlad.papers.transfer import TransferClassifier
from hypervlad.particles.segmenter import HeldOutSegmentation, HypercolumnSegmenter

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
