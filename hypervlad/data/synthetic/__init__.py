"""Synthetic electron micrographs with known truth, and defects that are added to any image."""

from hypervlad.data.synthetic.fibres import FIBRE_LOOKS, FibreTruth, make_fibre_images
from hypervlad.data.synthetic.image_defects import IMAGE_DEFECTS, add_defect
from hypervlad.data.synthetic.nanofibre import NANOFIBRE_DEFECTS, make_nanofibre_images
from hypervlad.data.synthetic.nanowires import (
    NanowireTruth,
    make_alignment_examples,
    make_nanowire_images,
)
from hypervlad.data.synthetic.particle_fields import ParticleFieldTruth, make_particle_fields
from hypervlad.data.synthetic.tem import (
    TEM_CLASSES,
    TEM_FINE_CLASSES,
    make_lattice_images,
    make_tem_images,
)

__all__ = [
    "FIBRE_LOOKS",
    "IMAGE_DEFECTS",
    "NANOFIBRE_DEFECTS",
    "TEM_CLASSES",
    "TEM_FINE_CLASSES",
    "FibreTruth",
    "NanowireTruth",
    "ParticleFieldTruth",
    "add_defect",
    "make_alignment_examples",
    "make_fibre_images",
    "make_lattice_images",
    "make_nanofibre_images",
    "make_nanowire_images",
    "make_particle_fields",
    "make_tem_images",
]
