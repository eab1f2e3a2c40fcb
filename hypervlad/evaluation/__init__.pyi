from hypervlad.defects.evaluation import DefectEvaluation as DefectEvaluation
from hypervlad.defects.evaluation import PatchConfusion as PatchConfusion
from hypervlad.defects.evaluation import PixelTally as PixelTally
from hypervlad.defects.evaluation import evaluate_defects as evaluate_defects
from hypervlad.defects.evaluation import gap_between_modes as gap_between_modes
from hypervlad.defects.evaluation import patch_confusion as patch_confusion
from hypervlad.statistics.classification import ClassScores as ClassScores
from hypervlad.statistics.classification import Evaluation as Evaluation
from hypervlad.statistics.classification import accuracy_interval as accuracy_interval
from hypervlad.statistics.classification import (
    balanced_accuracy_interval as balanced_accuracy_interval,
)
from hypervlad.statistics.conformal import Calibration as Calibration
from hypervlad.statistics.conformal import confidence_for_error as confidence_for_error
from hypervlad.statistics.conformal import groups_for_error as groups_for_error
from hypervlad.statistics.conformal import prediction_sets as prediction_sets
from hypervlad.statistics.groups import wilson_interval as wilson_interval
from hypervlad.statistics.outlines import OutlineTally as OutlineTally
from hypervlad.statistics.outlines import matched_labels as matched_labels
from hypervlad.statistics.probabilities import ReliabilityBins as ReliabilityBins
from hypervlad.statistics.probabilities import SelectiveAccuracy as SelectiveAccuracy
from hypervlad.statistics.probabilities import calibration_error_range as calibration_error_range
from hypervlad.statistics.probabilities import (
    expected_calibration_error as expected_calibration_error,
)
from hypervlad.statistics.probabilities import reliability_bins as reliability_bins
from hypervlad.statistics.probabilities import selective_accuracy_curve as selective_accuracy_curve
from hypervlad.statistics.splits import group_folds as group_folds
from hypervlad.statistics.splits import holdout_split as holdout_split
