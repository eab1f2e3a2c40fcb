"""What a scorer finds in many images, as files: maps, overlays, tables."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from hypervlad.displays.defect_map import SEEN, in_colour, outline
from hypervlad.displays.facts import read_options_of
from hypervlad.displays.tables import table_as_bytes
from hypervlad.images import ImageReadError, read_image
from hypervlad.modelfile import replace_when_complete

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
    """Score images and write what is found; each file is complete or not there.

    - ``maps/NAME.tif``: the scores of all pixels, 32-bit floats.
    - ``overlays/NAME.png``: the image, with lines around what reaches the threshold.
    - ``scores.csv``: path, score (for ranking: the mean of the highest windows), highest (of all
      places), threshold, called (anomalous if the highest reaches the threshold), area_fraction
      (of the image that is defective), n_regions; a line an image.
    - ``regions.csv``: path, x, y, width, height (the box, pixels), area (pixels), score (the
      highest); a line a region, the worst of an image first.

    Parameters
    ----------
    out_dir : path
        Made if it is missing.
    scorer : fitted PatchDefectScorer
    images : sequence of n paths or arrays
    names : sequence of n str
        What to call them: relative paths, with forward slashes.
    progress : bool, default=False
        Show a bar on stderr.

    Returns
    -------
    list of str
        Why images were left out: those that cannot be read or are smaller than a patch.
    """
    folder, bad = Path(out_dir), list[str]()
    folder.mkdir(parents=True, exist_ok=True)
    scores: list[list[Any]] = []
    regions: list[list[Any]] = []
    options = read_options_of(scorer.encoder_)
    hidden = None if progress else True
    pairs = zip(images, names, strict=True)
    for image, name in tqdm(pairs, total=len(names), unit="image", disable=hidden):
        try:
            found = scorer.find(image)
        except ImageReadError as error:
            bad.append(str(error))
            continue
        _write_map(folder / _MAPS / f"{name}.tif", found.map)
        _write_overlay(folder / _OVERLAYS / f"{name}.png", read_image(image, **options), found)
        called = "anomalous" if found.is_defective else "normal"
        levels = [found.score, float(found.map.max()), found.threshold]
        scores.append([name, *levels, called, found.area_fraction, len(found.regions)])
        regions += [
            [name, each.column, each.row, each.width, each.height, each.area, each.score]
            for each in found.regions
        ]
    header = ["path", "score", "highest", "threshold", "called", "area_fraction", "n_regions"]
    _write_table(folder / SCORES, header, scores)
    header = ["path", "x", "y", "width", "height", "area", "score"]
    _write_table(folder / REGIONS, header, regions)
    return bad


def _write_map(path: Path, scores: np.ndarray) -> None:
    import tifffile

    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_when_complete(path) as stream:
        tifffile.imwrite(stream, scores, compression="zlib", predictor=False, software="")


def _write_overlay(path: Path, pixels: np.ndarray, found: Any) -> None:
    from PIL import Image

    picture = in_colour(pixels)
    picture[outline(found.map >= found.threshold)] = SEEN
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_when_complete(path) as stream:
        Image.fromarray(np.round(255 * picture).astype(np.uint8)).save(stream, format="PNG")


def _write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with replace_when_complete(path) as stream:
        stream.write(table_as_bytes(header, rows))
