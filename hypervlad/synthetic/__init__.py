"""Synthetic electron micrographs with known truth: nanotubes, nanofibre mats, nanowires."""

from hypervlad.synthetic.nanofibre import NANOFIBRE_DEFECTS, make_nanofibre_images
from hypervlad.synthetic.nanowires import (
    NanowireTruth,
    make_alignment_examples,
    make_nanowire_images,
)
from hypervlad.synthetic.tem import TEM_CLASSES, TEM_FINE_CLASSES, make_tem_images

__all__ = [
    "NANOFIBRE_DEFECTS",
    "TEM_CLASSES",
    "TEM_FINE_CLASSES",
    "NanowireTruth",
    "make_alignment_examples",
    "make_nanofibre_images",
    "make_nanowire_images",
    "make_tem_images",
]
