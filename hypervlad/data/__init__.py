"""Folders of images with labels, checks of them, synthetic images, features of whole folders."""

from hypervlad.common.faces import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
