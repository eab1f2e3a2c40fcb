from hypervlad.classify.answers import Classification as Classification
from hypervlad.classify.answers import Explanation as Explanation
from hypervlad.classify.answers import Judgement as Judgement
from hypervlad.classify.answers import LabelIssue as LabelIssue
from hypervlad.classify.boosting.classifier import (
    BoostedSoftmaxClassifier as BoostedSoftmaxClassifier,
)
from hypervlad.classify.estimator import MicrographClassifier as MicrographClassifier
from hypervlad.classify.fitting import NeverPredictedWarning as NeverPredictedWarning
from hypervlad.classify.fitting import default_encoder as default_encoder
from hypervlad.classify.held_out import HeldOut as HeldOut
from hypervlad.classify.held_out import SureAnswers as SureAnswers
from hypervlad.classify.training_images import TrainingImages as TrainingImages
from hypervlad.defects.estimator import PatchDefectScorer as PatchDefectScorer
from hypervlad.defects.estimator import default_patch_encoder as default_patch_encoder
from hypervlad.defects.findings import Finding as Finding
from hypervlad.defects.findings import Region as Region
from hypervlad.defects.limits import DetectionLimits as DetectionLimits
from hypervlad.fibres.alignment_classifier import AlignmentClassifier as AlignmentClassifier
from hypervlad.fibres.alignment_classifier import (
    default_alignment_encoder as default_alignment_encoder,
)
from hypervlad.loading import load as load
from hypervlad.models import presets as presets
from hypervlad.papers.patch_cnn import PatchCNNClassifier as PatchCNNClassifier
from hypervlad.papers.transfer import TransferClassifier as TransferClassifier
from hypervlad.particles.segmenter import HeldOutSegmentation as HeldOutSegmentation
from hypervlad.particles.segmenter import HypercolumnSegmenter as HypercolumnSegmenter
