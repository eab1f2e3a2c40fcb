from . import fibres, presets
from ._version import __version__ as __version__
from .alignment import AlignmentClassifier
from .backbones import register_backbone
from .boosting import BoostedSoftmaxClassifier
from .classifier import MicrographClassifier, default_encoder
from .datasets import check_image_folder, load_image_folder
from .defects import PatchDefectScorer, default_patch_encoder
from .encoder import HypercolumnVLAD
from .extraction import extract_features, load_features, plan_extraction
from .images import ImageReadError, Micrograph, read_image, read_micrograph
from .modelfile import ModelFileError
from .models import load
from .synthetic import (
    make_lattice_images,
    make_nanofibre_images,
    make_nanowire_images,
    make_tem_images,
)

__all__ = [
    "AlignmentClassifier",
    "BoostedSoftmaxClassifier",
    "HypercolumnVLAD",
    "ImageReadError",
    "Micrograph",
    "MicrographClassifier",
    "ModelFileError",
    "PatchDefectScorer",
    "__version__",
    "check_image_folder",
    "default_encoder",
    "default_patch_encoder",
    "extract_features",
    "fibres",
    "load",
    "load_features",
    "load_image_folder",
    "make_lattice_images",
    "make_nanofibre_images",
    "make_nanowire_images",
    "make_tem_images",
    "plan_extraction",
    "presets",
    "read_image",
    "read_micrograph",
    "register_backbone",
]
