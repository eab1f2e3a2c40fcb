"""The codebook: what is learnt from a pool of hypercolumns, as plain arrays.

Each layer is centred, scaled and, if asked, projected on its principal components; K-means then
finds the visual words, either in the stacked space of all layers or in each layer's own.
"""

from hypervlad.codebook.arrays import Codebook, LayerProjection, check_kind
from hypervlad.codebook.learning import learn_codebook
from hypervlad.codebook.pool import HypercolumnPool
from hypervlad.codebook.streaming import StreamedCodewords

__all__ = [
    "Codebook",
    "HypercolumnPool",
    "LayerProjection",
    "StreamedCodewords",
    "check_kind",
    "learn_codebook",
]
