"""Labelled folders, synthetic micrographs, and a check of a folder before anybody trains on it."""

from hypervlad.datasets.tem import TEM_CLASSES, TEM_FINE_CLASSES, make_tem_images

__all__ = ["TEM_CLASSES", "TEM_FINE_CLASSES", "make_tem_images"]
