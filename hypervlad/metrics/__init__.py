"""Scores of predicted probabilities, evaluations of classifiers, scores of defect maps."""

from hypervlad.metrics.defects import DefectEvaluation, evaluate_defects, gap_between_modes
from hypervlad.metrics.evaluation import ClassScores, Evaluation
from hypervlad.metrics.intervals import (
    accuracy_interval,
    balanced_accuracy_interval,
    wilson_interval,
)
from hypervlad.metrics.maps import PixelTally, area_fraction_error
from hypervlad.metrics.patches import PatchConfusion, patch_confusion
from hypervlad.metrics.probabilities import (
    ReliabilityBins,
    SelectiveAccuracy,
    calibration_error_range,
    expected_calibration_error,
    reliability_bins,
    selective_accuracy_area,
    selective_accuracy_curve,
)

__all__ = [
    "ClassScores",
    "DefectEvaluation",
    "Evaluation",
    "PatchConfusion",
    "PixelTally",
    "ReliabilityBins",
    "SelectiveAccuracy",
    "accuracy_interval",
    "area_fraction_error",
    "balanced_accuracy_interval",
    "calibration_error_range",
    "evaluate_defects",
    "expected_calibration_error",
    "gap_between_modes",
    "patch_confusion",
    "reliability_bins",
    "selective_accuracy_area",
    "selective_accuracy_curve",
    "wilson_interval",
]
