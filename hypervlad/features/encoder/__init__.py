"""Images in, VLAD vectors out: the scikit-learn transformer."""

from hypervlad.features.encoder.encoding import EncodedImages
from hypervlad.features.encoder.estimator import HypercolumnVLAD
from hypervlad.features.encoder.loading import ImageInfo, ImageLoader, LoadedImage

__all__ = ["EncodedImages", "HypercolumnVLAD", "ImageInfo", "ImageLoader", "LoadedImage"]
