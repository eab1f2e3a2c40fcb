from hypervlad.classify.displays import (
    ConfusionDisplay,
    ContactSheetDisplay,
    ReliabilityDisplay,
)
from hypervlad.classify.evidence_display import EvidenceDisplay
from hypervlad.classify.page import write_classified_page
from hypervlad.classify.predictions import predictions_as_bytes
from hypervlad.classify.reports import report_on_held_out, report_on_model
from hypervlad.defects.displays import DefectMapDisplay, DetectionLimitsDisplay
from hypervlad.defects.findings_folder import write_findings
from hypervlad.defects.page import write_defect_report
from hypervlad.fibres.alignment_page import write_alignment
from hypervlad.fibres.diameter_tables import write_diameters
from hypervlad.fibres.orientation_display import OrientationDisplay
from hypervlad.pages.base import save_png
from hypervlad.pages.facts import model_facts
from hypervlad.particles.displays import ParticleDisplay
from hypervlad.particles.page import write_particles_page

__all__ = [
    "ConfusionDisplay",
    "ContactSheetDisplay",
    "DefectMapDisplay",
    "DetectionLimitsDisplay",
    "EvidenceDisplay",
    "OrientationDisplay",
    "ParticleDisplay",
    "ReliabilityDisplay",
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
