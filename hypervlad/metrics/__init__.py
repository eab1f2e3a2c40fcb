"""Scores: probabilities that say how sure they are, and maps that say where a defect is."""

from hypervlad.metrics.maps import (
    PixelTally,
    area_fraction_error,
    per_region_overlap,
    pixel_auroc,
    pixel_average_precision,
)
from hypervlad.metrics.patches import PatchConfusion, patch_confusion
from hypervlad.metrics.probabilities import (
    SelectiveAccuracy,
    calibration_error_range,
    expected_calibration_error,
    selective_accuracy_area,
    selective_accuracy_curve,
)

__all__ = [
    "PatchConfusion",
    "PixelTally",
    "SelectiveAccuracy",
    "area_fraction_error",
    "calibration_error_range",
    "expected_calibration_error",
    "patch_confusion",
    "per_region_overlap",
    "pixel_auroc",
    "pixel_average_precision",
    "selective_accuracy_area",
    "selective_accuracy_curve",
]
