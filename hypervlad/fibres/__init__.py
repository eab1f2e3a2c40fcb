"""Directions of fibres, wires and tubes, and what share of an image is aligned."""

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
    axial_mean,
    axial_spread,
    axial_statistics,
    order_parameter,
)
from hypervlad.fibres.orientation import LocalOrientation, local_orientation
from hypervlad.fibres.regions import AlignedRegion

__all__ = [
    "AlignedFraction",
    "AlignedRegion",
    "AlignmentModel",
    "AxialStatistics",
    "Interval",
    "LocalOrientation",
    "aligned_fraction",
    "aligned_fraction_of_map",
    "axial_difference",
    "axial_mean",
    "axial_spread",
    "axial_statistics",
    "local_orientation",
    "order_parameter",
]
