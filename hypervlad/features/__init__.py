"""From pixels to vectors: networks and their hypercolumns, codebooks, VLAD, windows.

The path of an image: ``loading`` reads it, ``registry`` resizes it, ``network`` gives maps of
features, ``hypercolumns`` stacks them, ``codebook`` learns their codewords, and ``vlad`` sums their
residuals. :class:`HypercolumnVLAD`, in ``encoder``, is all of this as a scikit-learn transformer.
"""

from hypervlad.common.faces import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
