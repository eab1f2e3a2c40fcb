"""Figures, in scikit-learn's manner, and the report folder that they go into.

A display is made by ``XDisplay.from_predictions(...)`` (or ``from_estimator``), which plots at
once, or by its constructor and `plot`. Without `ax` it makes a pyplot figure; with `ax` it leaves
pyplot alone.

Everything public is imported on first use: directions of fibres are shown without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hypervlad.displays.alignment_files import write_alignment
    from hypervlad.displays.alignment_found import AlignmentFound, AlignmentRecipe
    from hypervlad.displays.axis_colours import direction_colours
    from hypervlad.displays.classified_page import write_classified_page
    from hypervlad.displays.codeword_map import CodewordMapDisplay, word_colours
    from hypervlad.displays.codeword_patches import CodewordPatchesDisplay
    from hypervlad.displays.confusion import ConfusionDisplay
    from hypervlad.displays.contact_sheet import ContactSheetDisplay
    from hypervlad.displays.defect_evaluation import DefectEvaluation, evaluate_defects
    from hypervlad.displays.defect_files import write_findings
    from hypervlad.displays.defect_map import DefectMapDisplay
    from hypervlad.displays.defect_report import write_defect_report
    from hypervlad.displays.evaluation import (
        ClassScores,
        Evaluation,
        accuracy_interval,
        wilson_interval,
    )
    from hypervlad.displays.evidence import EvidenceDisplay
    from hypervlad.displays.facts import library_versions, model_facts
    from hypervlad.displays.figures import save_png
    from hypervlad.displays.orientation import OrientationDisplay
    from hypervlad.displays.patch_confusion import PatchConfusionDisplay
    from hypervlad.displays.patch_network import PatchNetworkDisplay
    from hypervlad.displays.predictions import predictions_as_bytes, write_predictions
    from hypervlad.displays.reliability import ReliabilityDisplay
    from hypervlad.displays.report import report_on_model, write_report
    from hypervlad.displays.selective_accuracy import SelectiveAccuracyDisplay
    from hypervlad.displays.training_curves import TrainingCurvesDisplay

__all__ = [
    "AlignmentFound",
    "AlignmentRecipe",
    "ClassScores",
    "CodewordMapDisplay",
    "CodewordPatchesDisplay",
    "ConfusionDisplay",
    "ContactSheetDisplay",
    "DefectEvaluation",
    "DefectMapDisplay",
    "Evaluation",
    "EvidenceDisplay",
    "OrientationDisplay",
    "PatchConfusionDisplay",
    "PatchNetworkDisplay",
    "ReliabilityDisplay",
    "SelectiveAccuracyDisplay",
    "TrainingCurvesDisplay",
    "accuracy_interval",
    "direction_colours",
    "evaluate_defects",
    "library_versions",
    "model_facts",
    "predictions_as_bytes",
    "report_on_model",
    "save_png",
    "wilson_interval",
    "word_colours",
    "write_alignment",
    "write_classified_page",
    "write_defect_report",
    "write_findings",
    "write_predictions",
    "write_report",
]

_ROOM_OF = {
    "AlignmentFound": "alignment_found",
    "AlignmentRecipe": "alignment_found",
    "ClassScores": "evaluation",
    "CodewordMapDisplay": "codeword_map",
    "CodewordPatchesDisplay": "codeword_patches",
    "ConfusionDisplay": "confusion",
    "ContactSheetDisplay": "contact_sheet",
    "DefectEvaluation": "defect_evaluation",
    "DefectMapDisplay": "defect_map",
    "Evaluation": "evaluation",
    "EvidenceDisplay": "evidence",
    "OrientationDisplay": "orientation",
    "PatchConfusionDisplay": "patch_confusion",
    "PatchNetworkDisplay": "patch_network",
    "ReliabilityDisplay": "reliability",
    "SelectiveAccuracyDisplay": "selective_accuracy",
    "TrainingCurvesDisplay": "training_curves",
    "accuracy_interval": "evaluation",
    "direction_colours": "axis_colours",
    "evaluate_defects": "defect_evaluation",
    "library_versions": "facts",
    "model_facts": "facts",
    "predictions_as_bytes": "predictions",
    "report_on_model": "report",
    "save_png": "figures",
    "wilson_interval": "evaluation",
    "word_colours": "codeword_map",
    "write_alignment": "alignment_files",
    "write_classified_page": "classified_page",
    "write_defect_report": "defect_report",
    "write_findings": "defect_files",
    "write_predictions": "predictions",
    "write_report": "report",
}


def __getattr__(name: str) -> Any:
    if name in _ROOM_OF:
        return getattr(importlib.import_module(f"hypervlad.displays.{_ROOM_OF[name]}"), name)
    raise AttributeError(f"module 'hypervlad.displays' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
