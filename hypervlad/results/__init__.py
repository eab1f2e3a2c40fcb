"""Results to look at: figures in the manner of scikit-learn's displays, pages, tables, maps."""

from hypervlad.common.faces import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
