"""Folders of images with labels, checks of them, synthetic images, features of whole folders."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
