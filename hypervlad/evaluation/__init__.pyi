from hypervlad.defects.evaluation import (
    DefectEvaluation,
    PatchConfusion,
    PixelTally,
    area_fraction_error,
    evaluate_defects,
    gap_between_modes,
    patch_confusion,
)
from hypervlad.statistics.classification import (
    ClassScores,
    Evaluation,
    accuracy_interval,
    balanced_accuracy_interval,
)
from hypervlad.statistics.conformal import (
    Calibration,
    confidence_for_error,
    groups_for_error,
    prediction_sets,
)
from hypervlad.statistics.groups import wilson_interval
from hypervlad.statistics.outlines import OutlineTally, matched_labels
from hypervlad.statistics.probabilities import (
    ReliabilityBins,
    SelectiveAccuracy,
    calibration_error_range,
    expected_calibration_error,
    reliability_bins,
    selective_accuracy_curve,
)
from hypervlad.statistics.splits import group_folds, holdout_split

__all__ = [
    "Calibration",
    "ClassScores",
    "DefectEvaluation",
    "Evaluation",
    "OutlineTally",
    "PatchConfusion",
    "PixelTally",
    "ReliabilityBins",
    "SelectiveAccuracy",
    "accuracy_interval",
    "area_fraction_error",
    "balanced_accuracy_interval",
    "calibration_error_range",
    "confidence_for_error",
    "evaluate_defects",
    "expected_calibration_error",
    "gap_between_modes",
    "group_folds",
    "groups_for_error",
    "holdout_split",
    "matched_labels",
    "patch_confusion",
    "prediction_sets",
    "reliability_bins",
    "selective_accuracy_curve",
    "wilson_interval",
]
