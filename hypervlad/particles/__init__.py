"""Particles of micrographs: outlines, found or read, particles as images, measures, counts."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
