"""Particles of micrographs: outlines, found or read, particles as images, measures, counts."""

from hypervlad.common.faces import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
