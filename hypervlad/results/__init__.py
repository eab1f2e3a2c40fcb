"""Results to look at: figures in the manner of scikit-learn's displays, pages, tables, maps."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
