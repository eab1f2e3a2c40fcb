"""Directions of fibres, wires and tubes, and the aligned fraction of an image."""

from hypervlad.fibres.alignment import (
    AlignedFraction,
    AlignmentModel,
    AlignmentRecipe,
    AlignmentResult,
    aligned_fraction,
    aligned_fraction_of_map,
)
from hypervlad.fibres.axial import AxialStatistics, Interval, axial_difference, axial_statistics
from hypervlad.fibres.diameter_groups import FolderDiameters, GroupDiameters, compare_groups
from hypervlad.fibres.diameters import FibreDiameters, cross_lines, diameter_map, fibre_diameters
from hypervlad.fibres.left_out import read_left_out
from hypervlad.fibres.orientation import LocalOrientation, local_orientation
from hypervlad.fibres.pores import Pores, find_pores
from hypervlad.fibres.regions import AlignedRegion
from hypervlad.fibres.singles import find_fibres

__all__ = [
    "AlignedFraction",
    "AlignedRegion",
    "AlignmentModel",
    "AlignmentRecipe",
    "AlignmentResult",
    "AxialStatistics",
    "FibreDiameters",
    "FolderDiameters",
    "GroupDiameters",
    "Interval",
    "LocalOrientation",
    "Pores",
    "aligned_fraction",
    "aligned_fraction_of_map",
    "axial_difference",
    "axial_statistics",
    "compare_groups",
    "cross_lines",
    "diameter_map",
    "fibre_diameters",
    "find_fibres",
    "find_pores",
    "local_orientation",
    "read_left_out",
]
