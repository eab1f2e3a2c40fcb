"""What is fitted and saved: classifiers, defect scorers, presets of papers, and their loader."""

from hypervlad.common.faces import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
