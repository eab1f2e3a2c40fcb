from .codeword_map import CodewordMapDisplay
from .codeword_patches import CodewordPatchesDisplay
from .colours import codeword_colours, direction_colours
from .confusion import ConfusionDisplay
from .contact_sheet import ContactSheetDisplay
from .defect_map import DefectMapDisplay
from .evidence import EvidenceDisplay
from .figures import save_png
from .orientation import OrientationDisplay
from .patch_confusion import PatchConfusionDisplay
from .patch_network import PatchNetworkDisplay
from .reliability import ReliabilityDisplay
from .selective_accuracy import SelectiveAccuracyDisplay
from .training_curves import TrainingCurvesDisplay

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
    "codeword_colours",
    "direction_colours",
    "save_png",
]
