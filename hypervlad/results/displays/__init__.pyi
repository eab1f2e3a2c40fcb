from .base import save_png
from .codeword_map import CodewordMapDisplay
from .codeword_patches import CodewordPatchesDisplay
from .contact_sheet import ContactSheetDisplay
from .defects import DefectMapDisplay, PatchConfusionDisplay
from .evaluation import ConfusionDisplay, ReliabilityDisplay, SelectiveAccuracyDisplay
from .evidence import EvidenceDisplay
from .networks import PatchNetworkDisplay, TrainingCurvesDisplay
from .orientation import OrientationDisplay

__all__ = [
    "CodewordMapDisplay",
    "CodewordPatchesDisplay",
    "ConfusionDisplay",
    "ContactSheetDisplay",
    "DefectMapDisplay",
    "EvidenceDisplay",
    "OrientationDisplay",
    "PatchConfusionDisplay",
    "PatchNetworkDisplay",
    "ReliabilityDisplay",
    "SelectiveAccuracyDisplay",
    "TrainingCurvesDisplay",
    "save_png",
]
