from hypervlad.datasets.defects import IMAGE_DEFECTS, add_defect
from hypervlad.datasets.fibres import FIBRE_LOOKS, FibreTruth, make_fibre_images
from hypervlad.datasets.particles import ParticleFieldTruth, make_particle_fields
from hypervlad.datasets.tem import TEM_CLASSES, make_tem_images
from hypervlad.extraction.extract import Extraction, extract_features
from hypervlad.extraction.table import FeatureFileError, load_features
from hypervlad.folders.check import check_image_folder, compare_image_folders
from hypervlad.folders.folder import load_image_folder
from hypervlad.folders.groups import ImageFolderError, ImageFolderWarning
from hypervlad.folders.pixel_sizes import load_pixel_sizes
from hypervlad.folders.report import BadFile, CopySet, FolderComparison, FolderReport

__all__ = [
    "FIBRE_LOOKS",
    "IMAGE_DEFECTS",
    "TEM_CLASSES",
    "BadFile",
    "CopySet",
    "Extraction",
    "FeatureFileError",
    "FibreTruth",
    "FolderComparison",
    "FolderReport",
    "ImageFolderError",
    "ImageFolderWarning",
    "ParticleFieldTruth",
    "add_defect",
    "check_image_folder",
    "compare_image_folders",
    "extract_features",
    "load_features",
    "load_image_folder",
    "load_pixel_sizes",
    "make_fibre_images",
    "make_particle_fields",
    "make_tem_images",
]
