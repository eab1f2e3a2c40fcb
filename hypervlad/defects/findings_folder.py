"""Defects of many images as files: maps, masks, overlays, tables and a page."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from hypervlad.common.wording import warn_user
from hypervlad.defects.displays import outline
from hypervlad.defects.findings import Finding, Region
from hypervlad.defects.page import FindingsPage
from hypervlad.images import ImageReadError, Micrograph, read_micrograph
from hypervlad.images.annotations import Annotation, words_of_annotations
from hypervlad.images.resampling import by_rows
from hypervlad.objects.results_folder import ResultsFolder, Row, scaled, write_png, write_tiff
from hypervlad.pages.colours import FOUND, as_rgb
from hypervlad.pages.facts import is_extrapolated
from hypervlad.statistics.splits import check_groups

_PICTURES = {"maps": ".tif", "masks": ".png", "overlays": ".png"}
TABLES = "scores.csv", "regions.csv"
PAGE = "report.html"
_SCORE_COLUMNS = [
    *("path", "score", "highest", "highest_x", "highest_y", "threshold", "called"),
    *("area_fraction", "area_um2", "n_regions", "annotations", "annotation_share", "image_digest"),
]
_REGION_COLUMNS = [
    *("path", "region", "x", "y", "width", "height", "area", "diameter", "length", "breadth"),
    *("area_low", "area_high", "contrast_of_range", "score", "width_um", "height_um"),
    *("area_um2", "diameter_um", "length_um", "breadth_um", "area_low_um2", "area_high_um2"),
]


def write_findings(
    out_dir: str | os.PathLike[str],
    scorer: Any,
    images: Sequence[Any],
    names: Sequence[str],
    *,
    groups: Sequence[Any] | None = None,
    made_with: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> FindingsPage:
    """Score images and write maps, masks, overlays, tables and a page.

    - ``maps/NAME.tif``: the scores of all pixels, 32-bit floats.
    - ``masks/NAME.png``: 255 in the regions of an image, else 0.
    - ``overlays/NAME.png``: the image, with outlines around its defective regions.
    - ``scores.csv``: one line per image; ``regions.csv``: one line per region, the worst of an
      image first. ``hypervlad defects score --help`` explains the columns.
    - ``report.html``: a page with the scores, on which the threshold can be moved, and with the
      regions of the 48 images with the highest scores, which can be corrected and saved as masks.
    - ``scores.json``: the version of hypervlad, the threshold, the rule by which training chose it,
      and how images are read.

    Tables and page list the images whose files are complete, also if the run is interrupted. What
    only an earlier run in this folder had is removed at the end. It warns if the scores are in two
    groups that the threshold does not separate.

    Parameters
    ----------
    out_dir : path
        Made if it is missing.
    scorer : fitted PatchDefectScorer
    images, names, groups, made_with, progress
        As for `write_alignment`; groups are a column of ``scores.csv``, and compared on the page.

    Returns
    -------
    FindingsPage
        ``n_scored``, ``n_anomalous``, ``n_regions``, ``n_in_training``, and in ``left_out`` the
        reasons for images that cannot be read or are smaller than a patch.

    Raises
    ------
    ValueError
        If lengths differ, names are the same, one is outside the folder, or this has such a table
        that is not of an earlier run.

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
    ['maps', 'masks', 'overlays', 'regions.csv', 'report.html', 'scores.csv', 'scores.json']
    """
    folder, page, warning = Path(out_dir), FindingsPage(), None
    group_of = dict[str, dict[str, str]]()  # the further cell of each image
    if groups is not None:
        check_groups(groups, len(names))
        group_of = {name: {"group": str(own)} for name, own in zip(names, groups, strict=True)}
    options = scorer.encoder_.fitted_params_.read_options
    made = {"threshold": scorer.threshold_, "rule": scorer.threshold_rule_, "fpr": scorer.fpr}
    made |= {"annotations": scorer.annotations, "extrapolated": is_extrapolated(scorer)}
    made |= {"read_options": options.without_files()} | dict(made_with or {})

    def find(image: Any) -> tuple[Finding, Micrograph]:
        return scorer.find(image), read_micrograph(image, **asdict(options))

    def files_of(name: str) -> list[Path]:
        return [folder / kind / f"{name}{suffix}" for kind, suffix in _PICTURES.items()]

    tables, unread = (*TABLES, _REGION_COLUMNS), ImageReadError
    with ResultsFolder.growing(folder, tables, files_of, made, names=names) as results:
        page.left_out, page.notes = results.left_out, results.notes
        try:
            measured = results.measured(find, images, names, unread=unread, progress=progress)
            for name, (found, micrograph) in measured:
                _write_images(files_of(name), found, micrograph)
                size = micrograph.pixel_size
                regions = [_region_row(name, each, size) for each in found.regions]
                row = {**_score_row(name, found, micrograph), **group_of.get(name, {})}
                row |= {"in_training": "yes"} if found.in_training else {}
                results.add(name, row, regions, files_of(name))
                page.add(row, found, micrograph)
        finally:
            # Not if the first image could not be written: the disk may be full.
            if page.images or len(page.left_out) == len(names):
                warning = page.write(folder / PAGE, scorer)
    if warning is not None:
        warn_user(warning)
    return page


def _score_row(name: str, found: Finding, micrograph: Micrograph) -> Row:
    area = _in_micrometres(found.area, micrograph.pixel_size, 2)
    n_bar, (height, width) = int(micrograph.metadata.get("banner_rows", 0)), found.map.shape
    bar = [Annotation("information bar", (height, 0, height + n_bar, width))] * bool(n_bar)
    share = (n_bar + found.annotation_share * height) / (n_bar + height)
    last = words_of_annotations([*found.annotations, *bar]) or None, share, found.digest
    called = "anomalous" if found.is_defective else "normal"
    y, x = found.highest
    levels = [found.score, float(found.map[y, x]), x, y, found.threshold]
    cells = [name, *levels, called, found.area_fraction, area, len(found.regions), *last]
    return _exactly(_SCORE_COLUMNS, cells)


def _region_row(name: str, own: Region, pixel_size: float | None) -> Row:
    extent = [own.width, own.height, own.area, own.diameter, own.length, own.breadth]
    pixels = [*extent, *(own.area_interval or (None, None))]
    powers = zip(pixels, (1, 1, 2, 1, 1, 1, 2, 2), strict=True)
    scaled = [_in_micrometres(value, pixel_size, power) for value, power in powers]
    contrast = None if math.isnan(own.contrast) else own.contrast
    cells = [name, own.label, own.column, own.row, *pixels, contrast, own.score, *scaled]
    return _exactly(_REGION_COLUMNS, cells)


def _exactly(columns: Sequence[str], cells: Sequence[Any]) -> Row:
    """Return a row with all digits, as scores are compared with thresholds."""
    texts = [None if value is None else str(value) for value in cells]
    return dict(zip(columns, texts, strict=True))


def _in_micrometres(value: float | None, pixel_size: float | None, power: int) -> float | None:
    found = scaled(value, pixel_size, power, 1000)
    return None if found is None else float(f"{found:.6g}")


def _write_images(files: Sequence[Path], found: Finding, micrograph: Micrograph) -> None:
    map_, mask, overlay = files
    write_tiff(map_, found.map, micrograph.pixel_size)
    write_png(mask, 255 * found.mask.astype(np.uint8))
    picture = by_rows(lambda rows: np.round(255 * as_rgb(rows)).astype(np.uint8), micrograph.pixels)
    picture[outline(found.mask)] = np.round(255 * np.array(FOUND))
    write_png(overlay, picture)
