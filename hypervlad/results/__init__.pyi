from .displays.base import save_png
from .displays.codewords import CodewordMapDisplay, CodewordPatchesDisplay
from .displays.defects import DefectMapDisplay, PatchConfusionDisplay
from .displays.evaluation import (
    ConfusionDisplay,
    ContactSheetDisplay,
    ReliabilityDisplay,
    SelectiveAccuracyDisplay,
)
from .displays.evidence import EvidenceDisplay
from .displays.limits import DetectionLimitsDisplay
from .displays.networks import PatchNetworkDisplay, TrainingCurvesDisplay
from .displays.orientation import OrientationDisplay
from .displays.particles import ParticleDisplay
from .reports.alignment import write_alignment
from .reports.classified_page import write_classified_page
from .reports.defects import write_defect_report, write_findings
from .reports.diameters import write_diameters
from .reports.evaluation import report_on_held_out, report_on_model
from .reports.facts import model_facts
from .reports.particles import write_particles_page
from .reports.predictions import predictions_as_bytes

__all__ = [
    "CodewordMapDisplay",
    "CodewordPatchesDisplay",
    "ConfusionDisplay",
    "ContactSheetDisplay",
    "DefectMapDisplay",
    "DetectionLimitsDisplay",
    "EvidenceDisplay",
    "OrientationDisplay",
    "ParticleDisplay",
    "PatchConfusionDisplay",
    "PatchNetworkDisplay",
    "ReliabilityDisplay",
    "SelectiveAccuracyDisplay",
    "TrainingCurvesDisplay",
    "model_facts",
    "predictions_as_bytes",
    "report_on_held_out",
    "report_on_model",
    "save_png",
    "write_alignment",
    "write_classified_page",
    "write_defect_report",
    "write_diameters",
    "write_findings",
    "write_particles_page",
]
