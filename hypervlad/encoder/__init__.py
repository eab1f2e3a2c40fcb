"""Images in, VLAD vectors out: the scikit-learn transformer."""

from hypervlad.encoder.encoding import EncodedImages
from hypervlad.encoder.estimator import HypercolumnVLAD
from hypervlad.encoder.loading import ImageInfo, ImageLoader, LoadedImage

__all__ = ["EncodedImages", "HypercolumnVLAD", "ImageInfo", "ImageLoader", "LoadedImage"]
