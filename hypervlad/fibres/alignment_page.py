"""Directions and alignment of many images as files: maps, overlays, figures and tables."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hypervlad.common.files import replace_when_complete
from hypervlad.fibres import AlignmentRecipe, AlignmentResult, AxialStatistics
from hypervlad.fibres.orientation_display import OrientationDisplay
from hypervlad.images.annotations import words_of_annotations
from hypervlad.images.options import check_read_options
from hypervlad.objects.results_folder import ResultsFolder, Row, scaled, write_png, write_tiff
from hypervlad.pages.base import save_png
from hypervlad.pages.colours import stretch_contrast, tint_by_direction
from hypervlad.statistics.splits import check_groups

MAPS, OVERLAYS, FIGURES = "maps", "overlays", "figures"
TABLES = "alignment.csv", "regions.csv"
_BAND = 128  # rows that are coloured at a time
_COMPRESSION_LEVEL = 1  # of 9: noise does not get smaller at higher levels
_REGION_COLUMNS = (
    *("path", "region", "area_px2", "area_um2", "fibre_area_px2", "fibre_area_um2"),
    *("mean_direction_deg", "order_parameter", "x_px", "y_px", "width_px", "height_px"),
)


def write_alignment(
    out_dir: str | os.PathLike[str],
    recipe: AlignmentRecipe,
    images: Sequence[Any],
    names: Sequence[str],
    *,
    groups: Sequence[Any] | None = None,
    figures: bool = True,
    made_with: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> list[str]:
    """Measure directions and alignment in images, and write tables, maps and figures.

    - ``alignment.csv``: one line per image; ``regions.csv``: one line per region. ``hypervlad align
      --help`` explains the columns.
    - ``maps/NAME.orientation.tif`` (radians, 0 to pi, counter-clockwise from the +x axis),
      ``maps/NAME.coherence.tif`` (0 to 1, 0 in the background) and ``maps/NAME.regions.tif``
      (numbers of regions, 0 outside).
    - ``overlays/NAME.png``: the image coloured by direction; ``figures/NAME.png``: an
      `OrientationDisplay`.

    - ``alignment.json``: the version of hypervlad, and the parameters.

    The tables list the images whose files are complete, also if the run is interrupted. What only
    an earlier run in this folder had is removed at the end.

    Parameters
    ----------
    out_dir : path
        Made if it is missing.
    recipe : AlignmentRecipe
    images : sequence of n paths or arrays
    names : sequence of n str
        Different relative paths, with forward slashes.
    groups : sequence of n labels, optional
        What the report compares; a column of ``alignment.csv``.
    figures : bool, default=True
        Write overlays and figures, which take most of the time.
    made_with : mapping, optional
        What else ``alignment.json`` shall contain, such as the digest of the model's file.
    progress : bool, default=False
        Show a bar on stderr.

    Returns
    -------
    list of str
        The reason for each image left out: it cannot be read, is flat or smaller than the window,
        or its pixel size is unknown but needed. If none is left, no table is written.

    Raises
    ------
    ValueError
        If lengths differ, names are the same, one is outside the folder, or this has such a table
        that is not of an earlier run.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from hypervlad import make_fibre_images
    >>> from hypervlad.fibres import AlignmentRecipe
    >>> from hypervlad.results import write_alignment
    >>> images, _ = make_fibre_images(1, size=96, random_state=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_alignment(folder, AlignmentRecipe(window=24), images, ["a"])
    ...     sorted(file.name for file in pathlib.Path(folder, "maps").iterdir())
    []
    ['a.coherence.tif', 'a.orientation.tif', 'a.regions.tif']
    """
    folder, group_of = Path(out_dir), dict[str, Any]()
    if groups is not None:
        check_groups(groups, len(names))
        group_of = dict(zip(names, map(str, groups), strict=True))
    numbers = "window", "tolerance", "sigma", "annotations"
    made = {"method": recipe.method_name} | {name: getattr(recipe, name) for name in numbers}
    made |= {"read_options": check_read_options(recipe.read_options).without_files()}

    def files_of(name: str) -> list[Path]:
        maps = (f"{name}.{kind}.tif" for kind in ("orientation", "coherence", "regions"))
        drawn = (folder / kind / f"{name}.png" for kind in (OVERLAYS, FIGURES))
        return [*(folder / MAPS / file for file in maps), *drawn]

    tables, made = (*TABLES, _REGION_COLUMNS), made | dict(made_with or {})
    with ResultsFolder.growing(folder, tables, files_of, made, names=names) as results:
        for name, found in results.measured(recipe.find, images, names, progress=progress):
            files = files_of(name) if figures else files_of(name)[:3]
            _write_files(files, name, found)
            own = {"group": group_of[name]} if group_of else {}
            row = {**_image_row(name, found, recipe), **own}
            results.add(name, row, _region_rows(name, found), files)
    return results.left_out


def _write_files(paths: Sequence[Path], name: str, found: AlignmentResult) -> None:
    """Write three maps and, if their paths are given, the overlay and the figure."""
    directions, labels = found.orientation, found.aligned.labels
    # ImageJ has no 32-bit integers.
    numbers = labels.astype(np.uint16 if labels.max(initial=0) < 2**16 else np.uint32)
    maps, size = (directions.orientation, directions.coherence, numbers), directions.pixel_size
    for path, values in zip(paths[:3], maps, strict=True):
        write_tiff(path, values, size, flush=False, level=_COMPRESSION_LEVEL)
    if drawn := paths[3:]:
        write_png(drawn[0], _overlay(found), flush=False, level=_COMPRESSION_LEVEL)
        with replace_when_complete(drawn[1], flush=False) as stream:
            save_png(OrientationDisplay(found, name=name).plot, stream)


def _overlay(found: AlignmentResult) -> NDArray[np.uint8]:
    grey, directions = stretch_contrast(found.pixels), found.orientation
    overlay = np.empty((*grey.shape, 3), np.uint8)
    # Band by band, which takes little memory.
    for top in range(0, len(grey), _BAND):
        rows = slice(top, top + _BAND)
        angles, coherence = directions.orientation[rows], directions.coherence[rows]
        band = tint_by_direction(grey[rows], angles, coherence)
        overlay[rows] = np.rint(255 * band)
    return overlay


def _image_row(name: str, found: AlignmentResult, recipe: AlignmentRecipe) -> Row:
    aligned, statistics = found.aligned, found.statistics
    size, sigma = found.orientation.pixel_size, found.orientation.sigma
    largest = aligned.regions[0].area if aligned.regions else 0
    width, height = aligned.window_sides
    row = {
        "path": name,
        "fraction": aligned.fraction,
        "fraction_low": aligned.fraction_interval.low,
        "fraction_high": aligned.fraction_interval.high,
        "fraction_least": aligned.fraction_range.low,
        "fraction_most": aligned.fraction_range.high,
        "fibre_fraction": aligned.fibre_fraction,
        "expected_fraction": aligned.expected_fraction,
        "mean_direction_deg": None if statistics is None else _degrees(statistics.mean),
        "order_parameter": None if statistics is None else statistics.order,
        "spread_deg": None if statistics is None else float(np.rad2deg(statistics.spread)),
        "n_regions": len(aligned.regions),
        "largest_region_px2": largest,
        "largest_region_um2": scaled(largest, size, 2, 1000),
        "fibre_share": found.fibre_share,
        "annotations": words_of_annotations(found.annotations) or None,
        "annotation_share": 1 - float(found.sample.mean()),
        "method": recipe.method_name,
        "window_px": aligned.window,
        "window_nm": scaled(aligned.window, size),
        "window_width_px": width,
        "window_height_px": height,
        "tolerance_deg": float(np.rad2deg(aligned.tolerance)),
        "sigma_px": sigma,
        "sigma_nm": scaled(sigma, size),
        "pixel_size_nm": size,
        "image_digest": found.digest,
    }
    return row | _intervals(statistics)


def _region_rows(name: str, found: AlignmentResult) -> list[Row]:
    size, rows = found.orientation.pixel_size, list[Row]()
    for region in found.aligned.regions:
        top, left, bottom, right = region.box
        areas = region.area, region.fibre_area
        row = [
            name,
            region.label,
            *(value for area in areas for value in (area, scaled(area, size, 2, 1000))),
            _degrees(region.mean_angle),
            region.order,
            *(left, top, right - left, bottom - top),
        ]
        rows.append(dict(zip(_REGION_COLUMNS, row, strict=True)))
    return rows


def _intervals(found: AxialStatistics | None) -> dict[str, float | None]:
    values: list[float | None] = [None] * 6
    if found is not None and not np.isnan(found.mean_interval.low):
        mean, order, spread = found.mean_interval, found.order_interval, found.spread_interval
        # Directions are axes from 0 to 180 degrees: an interval may begin at 175 and end at 5.
        is_any = mean.high - mean.low > np.pi - 1e-6
        directions = [0.0, 180.0] if is_any else [_degrees(mean.low), _degrees(mean.high)]
        spreads = [float(np.rad2deg(each)) for each in (spread.low, spread.high)]
        values = [*directions, order.low, order.high, *spreads]
    names = ("mean_direction_{}_deg", "order_parameter_{}", "spread_{}_deg")
    columns = [name.format(end) for name in names for end in ("low", "high")]
    return dict(zip(columns, values, strict=True))


def _degrees(angle: float) -> float:
    """Return an axis in degrees, below 180 also when rounded to six digits."""
    return float(np.round(np.rad2deg(angle), 3)) % 180
