"""How good a model is, and how sure: splits by group, metrics with intervals, conformal limits."""

from hypervlad.common.faces import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
