"""Defects of many images as files: maps, masks, overlays, tables and a page."""

from __future__ import annotations

import math
import os
import reprlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hypervlad.common.files import new_folder
from hypervlad.common.progress import ProgressBar, announced
from hypervlad.common.tables import write_table
from hypervlad.common.wording import warn_user
from hypervlad.defects.displays import outline
from hypervlad.defects.findings import Finding, Region
from hypervlad.defects.page import FindingsPage
from hypervlad.images import ImageReadError, Micrograph, read_micrograph
from hypervlad.pages.colours import FOUND, as_rgb
from hypervlad.pages.files import is_below, write_png, write_tiff

_MAPS, _MASKS, _OVERLAYS = "maps", "masks", "overlays"
TABLES = SCORES, REGIONS = "scores.csv", "regions.csv"
PAGE = "report.html"
_SCORE_COLUMNS = [
    *("path", "score", "highest", "highest_x", "highest_y", "threshold", "called"),
    *("area_fraction", "area_um2", "n_regions", "annotations", "annotation_share"),
]
_REGION_COLUMNS = [
    *("path", "region", "x", "y", "width", "height", "area", "diameter", "length", "breadth"),
    *("area_low", "area_high", "contrast", "score", "width_um", "height_um", "area_um2"),
    *("diameter_um", "length_um", "breadth_um", "area_low_um2", "area_high_um2"),
]


@dataclass
class WrittenFindings:
    """What was written: rows of the tables, and what the page shows."""

    page: FindingsPage = field(default_factory=FindingsPage)
    left_out: list[str] = field(default_factory=list)
    n_in_training: int = 0
    _score_rows: list[list[Any]] = field(default_factory=list)
    _region_rows: list[list[Any]] = field(default_factory=list)

    @property
    def n_scored(self) -> int:
        return len(self._score_rows)

    @property
    def n_anomalous(self) -> int:
        return sum(image.is_called for image in self.page.images)

    @property
    def n_regions(self) -> int:
        return len(self._region_rows)

    def add(self, name: str, found: Finding, micrograph: Micrograph) -> None:
        size = micrograph.pixel_size
        self.n_in_training += found.in_training
        self._score_rows.append(_score_row(name, found, micrograph))
        self._region_rows += [_region_row(name, each, size) for each in found.regions]
        self.page.add(name, found, micrograph)

    def write_tables(self, folder: Path) -> None:
        write_table(folder / SCORES, _SCORE_COLUMNS, self._score_rows)
        write_table(folder / REGIONS, _REGION_COLUMNS, self._region_rows)


def write_findings(
    out_dir: str | os.PathLike[str],
    scorer: Any,
    images: Sequence[Any],
    names: Sequence[str],
    *,
    progress: bool = False,
) -> WrittenFindings:
    """Score images and write maps, masks, overlays, tables and a page.

    - ``maps/NAME.tif``: the scores of all pixels, 32-bit floats.
    - ``masks/NAME.png``: 255 in the regions of an image, else 0.
    - ``overlays/NAME.png``: the image, with outlines around its defective regions.
    - ``scores.csv``: one line per image; ``regions.csv``: one line per region, the worst of an
      image first. ``hypervlad defects score --help`` explains the columns.
    - ``report.html``: a page with the scores, on which the threshold can be moved, and with the
      regions of the 48 images with the highest scores, which can be corrected and saved as masks.

    Tables and page list the images whose files are complete, also if the run is interrupted. It
    warns if the scores are in two groups that the threshold does not separate.

    Parameters
    ----------
    out_dir : path
        Made if it is missing.
    scorer : fitted PatchDefectScorer
    images, names, progress
        As for `write_alignment`.

    Returns
    -------
    WrittenFindings
        ``left_out`` has the reasons for images that cannot be read or are smaller than a patch.

    Raises
    ------
    ValueError
        If lengths differ, names are the same, or one is outside the folder.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from hypervlad import PatchDefectScorer, add_defect, default_patch_encoder
    >>> from hypervlad import make_fibre_images
    >>> from hypervlad.results import write_findings
    >>> good, _ = make_fibre_images(4, size=64, random_state=0)
    >>> encoder = default_patch_encoder(weights="random")
    >>> scorer = PatchDefectScorer(encoder, fpr=0.25, random_state=0).fit(good)
    >>> made = [add_defect(mat, "stain", random_state=0) for mat in good[:2]]
    >>> images, masks = [image for image, _ in made], [mask for _, mask in made]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     written = write_findings(folder, scorer, images, ["a.png", "b.png"])
    ...     sorted(path.name for path in pathlib.Path(folder).iterdir())
    ['maps', 'masks', 'overlays', 'regions.csv', 'report.html', 'scores.csv']
    """
    outside = [name for name in names if not is_below(name)]
    if outside or len(set(names)) < len(names):
        raise ValueError(
            "names must be different relative paths without '..'; got "
            f"{reprlib.repr(outside or names)}"
        )
    folder, written = Path(out_dir), WrittenFindings()
    options = asdict(scorer.encoder_.fitted_params_.read_options)
    pairs = zip(images, names, strict=True)
    bar = ProgressBar(pairs, total=len(names), unit="image", disable=not progress or None)
    with new_folder(folder):
        try:
            with announced(len(names)):
                for image, name in bar:
                    try:
                        found = scorer.find(image)
                        micrograph = read_micrograph(image, **options)
                    except ImageReadError as error:
                        written.left_out.append(str(error))
                        continue
                    _write_images(folder, name, found, micrograph)
                    written.add(name, found, micrograph)
        finally:
            # Not if the first image could not be written: the disk may be full.
            if written.n_scored or len(written.left_out) == len(names):
                written.write_tables(folder)
                warning = written.page.write(
                    folder / PAGE, scorer, written.left_out, written.n_in_training
                )
    if warning is not None:
        warn_user(warning)
    return written


def _score_row(name: str, found: Finding, micrograph: Micrograph) -> list[Any]:
    area = _in_micrometres(found.area, micrograph.pixel_size, 2)
    n_bar = int(micrograph.metadata.get("banner_rows", 0))  # all that scorers leave out
    bar = "an information bar" if n_bar else None, n_bar / (n_bar + len(micrograph.pixels))
    called = "anomalous" if found.is_defective else "normal"
    row, column = found.highest
    levels = [found.score, float(found.map[row, column]), column, row, found.threshold]
    return [name, *levels, called, found.area_fraction, area, len(found.regions), *bar]


def _region_row(name: str, own: Region, pixel_size: float | None) -> list[Any]:
    extent = [own.width, own.height, own.area, own.diameter, own.length, own.breadth]
    pixels = [*extent, *(own.area_interval or (None, None))]
    scaled = [
        _in_micrometres(value, pixel_size, power)
        for value, power in zip(pixels, (1, 1, 2, 1, 1, 1, 2, 2), strict=True)
    ]
    contrast = None if math.isnan(own.contrast) else own.contrast
    return [name, own.label, own.column, own.row, *pixels, contrast, own.score, *scaled]


def _in_micrometres(value: float | None, pixel_size: float | None, power: int) -> float | None:
    if value is None or pixel_size is None:
        return None
    return float(f"{(pixel_size / 1000) ** power * value:.6g}")


def _write_images(folder: Path, name: str, found: Finding, micrograph: Micrograph) -> None:
    overlay = as_rgb(micrograph.pixels)
    overlay[outline(found.mask)] = FOUND
    write_tiff(folder / _MAPS / f"{name}.tif", found.map, micrograph.pixel_size)
    write_png(folder / _MASKS / f"{name}.png", 255 * found.mask.astype(np.uint8))
    write_png(folder / _OVERLAYS / f"{name}.png", np.round(255 * overlay).astype(np.uint8))
