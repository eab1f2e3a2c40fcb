"""Directions of fibres, wires and tubes, and the aligned fraction of an image."""

from hypervlad.common.faces import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
