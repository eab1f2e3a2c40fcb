"""Labelled folders of images and their checks; folders of patches."""

from hypervlad.data.folders.check import check_image_folder, compare_image_folders
from hypervlad.data.folders.folder import load_image_folder, load_patch_folder, write_patch_folder
from hypervlad.data.folders.groups import ImageFolderError, ImageFolderWarning
from hypervlad.data.folders.pixel_sizes import load_pixel_sizes
from hypervlad.data.folders.report import BadFile, CopySet, FolderComparison, FolderReport

__all__ = [
    "BadFile",
    "CopySet",
    "FolderComparison",
    "FolderReport",
    "ImageFolderError",
    "ImageFolderWarning",
    "check_image_folder",
    "compare_image_folders",
    "load_image_folder",
    "load_patch_folder",
    "load_pixel_sizes",
    "write_patch_folder",
]
