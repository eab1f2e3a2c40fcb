from hypervlad import data, evaluation, features, fibres, images, models, particles, results
from hypervlad._version import __version__ as __version__
from hypervlad.classify.boosting.classifier import BoostedSoftmaxClassifier
from hypervlad.classify.estimator import MicrographClassifier
from hypervlad.classify.fitting import default_encoder
from hypervlad.common.modelfile import ModelFileError
from hypervlad.datasets.defects import add_defect
from hypervlad.datasets.fibres import make_fibre_images
from hypervlad.datasets.particles import make_particle_fields
from hypervlad.datasets.tem import make_tem_images
from hypervlad.defects.estimator import PatchDefectScorer, default_patch_encoder
from hypervlad.extraction.extract import extract_features
from hypervlad.extraction.table import load_features
from hypervlad.features.encoder import HypercolumnVLAD
from hypervlad.features.registry import register_backbone
from hypervlad.fibres.alignment_classifier import AlignmentClassifier
from hypervlad.folders.check import check_image_folder
from hypervlad.folders.folder import load_image_folder
from hypervlad.images.errors import ImageReadError
from hypervlad.images.reading import Micrograph, read_image, read_micrograph
from hypervlad.loading import load
from hypervlad.models import presets
from hypervlad.particles.segmenter import HypercolumnSegmenter

__all__ = [
    "AlignmentClassifier",
    "BoostedSoftmaxClassifier",
    "HypercolumnSegmenter",
    "HypercolumnVLAD",
    "ImageReadError",
    "Micrograph",
    "MicrographClassifier",
    "ModelFileError",
    "PatchDefectScorer",
    "__version__",
    "add_defect",
    "check_image_folder",
    "data",
    "default_encoder",
    "default_patch_encoder",
    "evaluation",
    "extract_features",
    "features",
    "fibres",
    "images",
    "load",
    "load_features",
    "load_image_folder",
    "make_fibre_images",
    "make_particle_fields",
    "make_tem_images",
    "models",
    "particles",
    "presets",
    "read_image",
    "read_micrograph",
    "register_backbone",
    "results",
]
