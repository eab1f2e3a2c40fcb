"""How good a model is, and how sure: splits by group, metrics with intervals, conformal limits."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
