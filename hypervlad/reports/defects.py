"""Defects of many images as files (maps, overlays, tables), and the page of an evaluation."""

from __future__ import annotations

import base64
import io
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from hypervlad.displays.colours import FOUND, as_rgb
from hypervlad.displays.defect_map import DefectMapDisplay, outline
from hypervlad.displays.figures import Display, save_png
from hypervlad.displays.image_grid import read_keywords
from hypervlad.displays.patch_confusion import PatchConfusionDisplay
from hypervlad.files import replace_when_complete
from hypervlad.images import ImageReadError, read_image
from hypervlad.metrics import DefectEvaluation
from hypervlad.reports.facts import model_facts, versions_text
from hypervlad.reports.html import (
    CSS_PIXELS_PER_INCH,
    asset,
    decimal,
    percent,
    render,
    significant,
)
from hypervlad.reports.maps import write_tiff
from hypervlad.tables import write_table

_MAPS, _OVERLAYS = "maps", "overlays"
SCORES, REGIONS = "scores.csv", "regions.csv"


def write_findings(
    out_dir: str | os.PathLike[str],
    scorer: Any,
    images: Sequence[Any],
    names: Sequence[str],
    *,
    progress: bool = False,
) -> list[str]:
    """Score images and write maps, overlays and tables; each file is complete or not there.

    - ``maps/NAME.tif``: the scores of all pixels, 32-bit floats.
    - ``overlays/NAME.png``: the image, with outlines around what reaches the threshold.
    - ``scores.csv``: path, score (for ranking: the mean of the highest windows), highest (of all
      pixels), threshold, called (anomalous if the highest reaches the threshold), area_fraction
      (share of the image that is defective), n_regions; one line per image.
    - ``regions.csv``: path, x, y, width, height (the box, pixels), area (pixels), score (the
      highest); one line per region, the worst of an image first.

    Parameters
    ----------
    out_dir : path
        Made if it is missing.
    scorer : fitted PatchDefectScorer
    images : sequence of n paths or arrays
    names : sequence of n str
        Names of the images: relative paths, with forward slashes.
    progress : bool, default=False
        Show a bar on stderr.

    Returns
    -------
    list of str
        The reason for each image left out: it cannot be read or is smaller than a patch.
    """
    folder, left_out = Path(out_dir), list[str]()
    folder.mkdir(parents=True, exist_ok=True)
    scores: list[list[Any]] = []
    regions: list[list[Any]] = []
    options = read_keywords(scorer.encoder_.fitted_params_.read_options)
    hidden = None if progress else True
    pairs = zip(images, names, strict=True)
    for image, name in tqdm(pairs, total=len(names), unit="image", disable=hidden):
        try:
            found = scorer.find(image)
        except ImageReadError as error:
            left_out.append(str(error))
            continue
        write_tiff(folder / _MAPS / f"{name}.tif", found.map)
        _write_overlay(folder / _OVERLAYS / f"{name}.png", read_image(image, **options), found)
        called = "anomalous" if found.is_defective else "normal"
        levels = [found.score, float(found.map.max()), found.threshold]
        scores.append([name, *levels, called, found.area_fraction, len(found.regions)])
        regions += [
            [name, each.column, each.row, each.width, each.height, each.area, each.score]
            for each in found.regions
        ]
    header = ["path", "score", "highest", "threshold", "called", "area_fraction", "n_regions"]
    write_table(folder / SCORES, header, scores)
    header = ["path", "x", "y", "width", "height", "area", "score"]
    write_table(folder / REGIONS, header, regions)
    return left_out


def _write_overlay(path: Path, pixels: np.ndarray, found: Any) -> None:
    from PIL import Image

    overlay = as_rgb(pixels)
    overlay[outline(found.map >= found.threshold)] = FOUND
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_when_complete(path) as stream:
        Image.fromarray(np.round(255 * overlay).astype(np.uint8)).save(stream, format="PNG")


def write_defect_report(
    path: str | os.PathLike[str], scorer: Any, images: Sequence[Any], result: DefectEvaluation
) -> Path:
    """Write a page on the evaluation of a scorer; it needs no network, scripts or other files.

    Parameters
    ----------
    path : path of an .html file
    scorer : fitted PatchDefectScorer
    images : sequence of n paths or arrays
        The images of ``result``.
    result : DefectEvaluation
    """
    path, worst = Path(path), result.worst
    shown = [images[each.position] for each in worst]
    masks = [each.mask for each in worst]
    maps = [each.scores for each in worst]
    common: dict[str, Any] = {
        "names": [each.name for each in worst],
        "read_options": scorer.encoder_.fitted_params_.read_options,
    }
    called = [scores >= np.float32(result.threshold) for scores in maps]
    page = render(
        "defects.html",
        title="How well defects are found",
        style=asset("page.css"),
        result=result,
        n_defective=sum(image.is_defective for image in result.images),
        n_found=sum(image.is_called and image.is_defective for image in result.images),
        n_false=sum(image.is_called and not image.is_defective for image in result.images),
        best_threshold=None if math.isnan(result.best_threshold) else result.best_threshold,
        scores={
            name: percent(value) if "area" in name or "patch" in name else decimal(value)
            for name, value in result.scores().items()
        },
        maps=_embedded(
            DefectMapDisplay(shown, maps, threshold=result.threshold, masks=masks, **common)
        ),
        patches=_embedded(
            PatchConfusionDisplay(shown, called, masks, patch=result.patch, **common)
        ),
        image_rows=[
            (
                image.name,
                significant(image.score),
                "anomalous" if image.is_called else "normal",
                percent(image.true_fraction),
                percent(image.found_fraction),
                decimal(image.confusion.f1),
            )
            for image in result.images
        ],
        details={**model_facts(scorer), "versions": versions_text()},
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_when_complete(path) as stream:
        stream.write("".join(page).encode("utf-8"))
    return path


class EmbeddedFigure(NamedTuple):
    """A figure as data URI, with its size in CSS pixels."""

    source: str
    width: int
    height: int


def _embedded(display: Display) -> EmbeddedFigure:
    stream = io.BytesIO()
    size = save_png(display.plot, stream)
    source = f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
    width, height = (round(side * CSS_PIXELS_PER_INCH) for side in size)
    return EmbeddedFigure(source, width, height)
