"""Labelled folders of images and their checks; folders of patches; synthetic images and defects."""

from hypervlad.data.folders.check import check_image_folder, compare_image_folders
from hypervlad.data.folders.folder import load_image_folder
from hypervlad.data.folders.groups import ImageFolderError, ImageFolderWarning
from hypervlad.data.folders.patch_folder import load_patch_folder, write_patch_folder
from hypervlad.data.folders.report import BadFile, CopySet, FolderComparison, FolderReport
from hypervlad.data.synthetic import (
    IMAGE_DEFECTS,
    NANOFIBRE_DEFECTS,
    TEM_CLASSES,
    TEM_FINE_CLASSES,
    NanowireTruth,
    add_defect,
    make_alignment_examples,
    make_lattice_images,
    make_nanofibre_images,
    make_nanowire_images,
    make_tem_images,
)

__all__ = [
    "IMAGE_DEFECTS",
    "NANOFIBRE_DEFECTS",
    "TEM_CLASSES",
    "TEM_FINE_CLASSES",
    "BadFile",
    "CopySet",
    "FolderComparison",
    "FolderReport",
    "ImageFolderError",
    "ImageFolderWarning",
    "NanowireTruth",
    "add_defect",
    "check_image_folder",
    "compare_image_folders",
    "load_image_folder",
    "load_patch_folder",
    "make_alignment_examples",
    "make_lattice_images",
    "make_nanofibre_images",
    "make_nanowire_images",
    "make_tem_images",
    "write_patch_folder",
]
