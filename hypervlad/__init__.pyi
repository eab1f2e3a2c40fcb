from hypervlad import data as data
from hypervlad import evaluation as evaluation
from hypervlad import features as features
from hypervlad import fibres as fibres
from hypervlad import images as images
from hypervlad import models as models
from hypervlad import particles as particles
from hypervlad import results as results
from hypervlad._version import __version__ as __version__
from hypervlad.classify.boosting.classifier import (
    BoostedSoftmaxClassifier as BoostedSoftmaxClassifier,
)
from hypervlad.classify.estimator import MicrographClassifier as MicrographClassifier
from hypervlad.classify.fitting import default_encoder as default_encoder
from hypervlad.common.modelfile import ModelFileError as ModelFileError
from hypervlad.datasets.defects import add_defect as add_defect
from hypervlad.datasets.fibres import make_fibre_images as make_fibre_images
from hypervlad.datasets.particles import make_particle_fields as make_particle_fields
from hypervlad.datasets.tem import make_tem_images as make_tem_images
from hypervlad.defects.estimator import PatchDefectScorer as PatchDefectScorer
from hypervlad.defects.estimator import default_patch_encoder as default_patch_encoder
from hypervlad.extraction.extract import extract_features as extract_features
from hypervlad.extraction.table import load_features as load_features
from hypervlad.features.encoder import HypercolumnVLAD as HypercolumnVLAD
from hypervlad.features.registry import register_backbone as register_backbone
from hypervlad.fibres.alignment_classifier import AlignmentClassifier as AlignmentClassifier
from hypervlad.folders.check import check_image_folder as check_image_folder
from hypervlad.folders.folder import load_image_folder as load_image_folder
from hypervlad.images.errors import ImageReadError as ImageReadError
from hypervlad.images.reading import Micrograph as Micrograph
from hypervlad.images.reading import read_image as read_image
from hypervlad.images.reading import read_micrograph as read_micrograph
from hypervlad.loading import load as load
from hypervlad.models import presets as presets
from hypervlad.particles.segmenter import HypercolumnSegmenter as HypercolumnSegmenter
