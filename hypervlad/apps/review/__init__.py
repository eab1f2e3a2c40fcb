"""Label the images that a model is unsure of, on a local page, and train with the labels.

The page itself needs Flask and waitress (``pip install "hypervlad[review]"``) but no model: PyTorch
is imported only where images are classified.
"""

from hypervlad.common.faces import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
