"""A line for each image, and for each region, of what is found of alignment."""

from __future__ import annotations

from typing import Any

import numpy as np

from hypervlad.displays.alignment_found import AlignmentFound, AlignmentRecipe
from hypervlad.fibres import AlignedFraction, AxialStatistics

_IMAGE = (
    "path",
    "fraction",
    "fibre_fraction",
    "expected_fraction",
    "mean_direction_deg",
    "order_parameter",
    "spread_deg",
    "n_regions",
    "largest_region_px2",
    "largest_region_um2",
    "fibre_share",
    "method",
    "window_px",
    "window_nm",
    "window_width_px",
    "window_height_px",
    "tolerance_deg",
    "sigma_px",
    "sigma_nm",
    "pixel_size_nm",
)
_INTERVALS = (
    "mean_direction_low_deg",
    "mean_direction_high_deg",
    "order_parameter_low",
    "order_parameter_high",
    "spread_low_deg",
    "spread_high_deg",
)
_REGION = (
    "path",
    "region",
    "area_px2",
    "area_um2",
    "fibre_area_px2",
    "fibre_area_um2",
    "mean_direction_deg",
    "order_parameter",
    "x_px",
    "y_px",
    "width_px",
    "height_px",
)


def image_columns(recipe: AlignmentRecipe) -> tuple[str, ...]:
    """Return the names of the columns of `image_row`: with intervals if there is a bootstrap."""
    return _IMAGE + (_INTERVALS if recipe.n_bootstrap else ())


def image_row(name: str, found: AlignmentFound, recipe: AlignmentRecipe) -> list[Any]:
    """Return the values of one image; None, NaN or infinity where there is none."""
    aligned, size = found.aligned, found.orientation.pixel_size
    largest = aligned.regions[0].area if aligned.regions else 0
    return [
        name,
        aligned.fraction,
        aligned.fibre_fraction,
        aligned.expected_fraction,
        *_statistics(found.statistics),
        len(aligned.regions),
        largest,
        _in_um2(largest, size),
        found.fibre_share,
        recipe.method_name,
        aligned.window,
        _in_nm(aligned.window, size),
        *window_sides(aligned),
        float(np.rad2deg(aligned.tolerance)),
        found.orientation.sigma,
        _in_nm(found.orientation.sigma, size),
        size,
        *(_intervals(found.statistics) if recipe.n_bootstrap else ()),
    ]


def window_sides(aligned: AlignedFraction) -> tuple[float, float]:
    """Return the mean width and height of the windows that an image was cut into, in pixels."""
    return float(np.diff(aligned.columns).mean()), float(np.diff(aligned.rows).mean())


def region_columns() -> tuple[str, ...]:
    """Return the names of the columns of `region_rows`."""
    return _REGION


def region_rows(name: str, found: AlignmentFound) -> list[list[Any]]:
    """Return the values of each region of an image, the largest first."""
    size = found.orientation.pixel_size
    rows = []
    for region in found.aligned.regions:
        top, left, bottom, right = region.box
        areas = region.area, region.fibre_area
        rows.append(
            [
                name,
                region.label,
                *(value for area in areas for value in (area, _in_um2(area, size))),
                _degrees(region.mean_angle),
                region.order,
                *(left, top, right - left, bottom - top),
            ]
        )
    return rows


def _statistics(found: AxialStatistics | None) -> list[float | None]:
    if found is None:
        return [None] * 3
    return [_degrees(found.mean), found.order, float(np.rad2deg(found.spread))]


def _intervals(found: AxialStatistics | None) -> list[float | None]:
    if found is None or found.mean_interval is None:
        return [None] * 6
    assert found.order_interval is not None  # all three come together
    assert found.spread_interval is not None
    mean, order, spread = found.mean_interval, found.order_interval, found.spread_interval
    angles = [float(np.rad2deg(each)) for each in (mean.low, mean.high, spread.low, spread.high)]
    return [*angles[:2], order.low, order.high, *angles[2:]]


def _degrees(angle: float) -> float:
    """Return an axis in degrees, below 180 when written with six digits too."""
    return float(np.round(np.rad2deg(angle), 3)) % 180


def _in_nm(pixels: float, pixel_size: float | None) -> float | None:
    return None if pixel_size is None else pixels * pixel_size


def _in_um2(pixels: float, pixel_size: float | None) -> float | None:
    return None if pixel_size is None else pixels * pixel_size**2 / 1e6
