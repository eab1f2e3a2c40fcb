from hypervlad.datasets.fibres import FIBRE_LOOKS, FibreTruth, make_fibre_images
from hypervlad.datasets.image_defects import IMAGE_DEFECTS, add_defect
from hypervlad.datasets.nanofibre import NANOFIBRE_DEFECTS, make_nanofibre_images
from hypervlad.datasets.nanowires import (
    NanowireTruth,
    make_alignment_examples,
    make_nanowire_images,
)
from hypervlad.datasets.particle_fields import ParticleFieldTruth, make_particle_fields
from hypervlad.datasets.tem import (
    TEM_CLASSES,
    TEM_FINE_CLASSES,
    make_lattice_images,
    make_tem_images,
)
from hypervlad.extraction.extract import Extraction, Plan, extract_features, plan_extraction
from hypervlad.extraction.table import FeatureFileError, load_features
from hypervlad.folders.check import check_image_folder, compare_image_folders
from hypervlad.folders.folder import load_image_folder, load_patch_folder, write_patch_folder
from hypervlad.folders.groups import ImageFolderError, ImageFolderWarning
from hypervlad.folders.pixel_sizes import load_pixel_sizes
from hypervlad.folders.report import BadFile, CopySet, FolderComparison, FolderReport

__all__ = [
    "FIBRE_LOOKS",
    "IMAGE_DEFECTS",
    "NANOFIBRE_DEFECTS",
    "TEM_CLASSES",
    "TEM_FINE_CLASSES",
    "BadFile",
    "CopySet",
    "Extraction",
    "FeatureFileError",
    "FibreTruth",
    "FolderComparison",
    "FolderReport",
    "ImageFolderError",
    "ImageFolderWarning",
    "NanowireTruth",
    "ParticleFieldTruth",
    "Plan",
    "add_defect",
    "check_image_folder",
    "compare_image_folders",
    "extract_features",
    "load_features",
    "load_image_folder",
    "load_patch_folder",
    "load_pixel_sizes",
    "make_alignment_examples",
    "make_fibre_images",
    "make_lattice_images",
    "make_nanofibre_images",
    "make_nanowire_images",
    "make_particle_fields",
    "make_tem_images",
    "plan_extraction",
    "write_patch_folder",
]
