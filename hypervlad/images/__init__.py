"""Reading micrographs of any format: images, masks, pixel sizes and digests."""

from hypervlad.images.banner import find_banner
from hypervlad.images.errors import (
    ImageReadError,
    PartlyReadWarning,
    SkippedImage,
    SkippedImagesWarning,
    TrainingImagesWarning,
    UnknownPixelSizeWarning,
)
from hypervlad.images.files import IMAGE_SUFFIXES, find_images
from hypervlad.images.masks import find_masks, read_mask
from hypervlad.images.micrograph import Micrograph
from hypervlad.images.options import ReadOptions
from hypervlad.images.pixels import ImageDigests
from hypervlad.images.reading import (
    check_image_list,
    read_image,
    read_micrograph,
    read_micrographs,
)

__all__ = [
    "IMAGE_SUFFIXES",
    "ImageDigests",
    "ImageReadError",
    "Micrograph",
    "PartlyReadWarning",
    "ReadOptions",
    "SkippedImage",
    "SkippedImagesWarning",
    "TrainingImagesWarning",
    "UnknownPixelSizeWarning",
    "check_image_list",
    "find_banner",
    "find_images",
    "find_masks",
    "read_image",
    "read_mask",
    "read_micrograph",
    "read_micrographs",
]
