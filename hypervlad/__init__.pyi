from . import data, evaluation, features, fibres, images, models, particles, results
from ._version import __version__ as __version__
from .common.modelfile import ModelFileError
from .data.extraction import extract_features, load_features, plan_extraction
from .data.folders import check_image_folder, load_image_folder
from .data.synthetic import (
    make_lattice_images,
    make_nanofibre_images,
    make_nanowire_images,
    make_particle_fields,
    make_tem_images,
)
from .features.backbones import register_backbone
from .features.encoder import HypercolumnVLAD
from .images import ImageReadError, Micrograph, read_image, read_micrograph
from .models import presets
from .models.alignment import AlignmentClassifier
from .models.boosting import BoostedSoftmaxClassifier
from .models.classifier import MicrographClassifier, default_encoder
from .models.defects import PatchDefectScorer, default_patch_encoder
from .models.loading import load
from .models.segmentation import HypercolumnSegmenter

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
    "make_lattice_images",
    "make_nanofibre_images",
    "make_nanowire_images",
    "make_particle_fields",
    "make_tem_images",
    "models",
    "particles",
    "plan_extraction",
    "presets",
    "read_image",
    "read_micrograph",
    "register_backbone",
    "results",
]
