"""Directions of fibres, wires and tubes, and the aligned fraction of an image."""

from hypervlad.fibres.alignment import (
    AlignedFraction,
    AlignmentModel,
    aligned_fraction,
    aligned_fraction_of_map,
)
from hypervlad.fibres.axial import (
    AxialStatistics,
    Interval,
    axial_difference,
    axial_statistics,
)
from hypervlad.fibres.image_alignment import AlignmentRecipe, AlignmentResult
from hypervlad.fibres.orientation import LocalOrientation, local_orientation
from hypervlad.fibres.regions import AlignedRegion

__all__ = [
    "AlignedFraction",
    "AlignedRegion",
    "AlignmentModel",
    "AlignmentRecipe",
    "AlignmentResult",
    "AxialStatistics",
    "Interval",
    "LocalOrientation",
    "aligned_fraction",
    "aligned_fraction_of_map",
    "axial_difference",
    "axial_statistics",
    "local_orientation",
]
