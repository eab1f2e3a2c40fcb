"""Reading micrographs of any format: images, masks, pixel sizes and digests."""

from hypervlad.images.annotations import Annotation, find_annotations
from hypervlad.images.banner import find_banner
from hypervlad.images.bar_lines import ScaleBar
from hypervlad.images.errors import (
    ImageReadError,
    PartlyReadWarning,
    SkippedImage,
    SkippedImagesWarning,
    TrainingImagesWarning,
    UnknownPixelSizeWarning,
)
from hypervlad.images.files import find_images
from hypervlad.images.masks import find_masks, read_mask
from hypervlad.images.options import PixelSizes, ReadOptions
from hypervlad.images.reading import Micrograph, read_image, read_micrograph, read_micrographs
from hypervlad.images.scale_bars import find_scale_bar

__all__ = [
    "Annotation",
    "ImageReadError",
    "Micrograph",
    "PartlyReadWarning",
    "PixelSizes",
    "ReadOptions",
    "ScaleBar",
    "SkippedImage",
    "SkippedImagesWarning",
    "TrainingImagesWarning",
    "UnknownPixelSizeWarning",
    "find_annotations",
    "find_banner",
    "find_images",
    "find_masks",
    "find_scale_bar",
    "read_image",
    "read_mask",
    "read_micrograph",
    "read_micrographs",
]
