"""What is found of alignment in many images, as files: maps, overlays, figures, tables."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from hypervlad.displays.alignment_found import AlignmentFound, AlignmentRecipe
from hypervlad.displays.alignment_table import (
    image_columns,
    image_row,
    region_columns,
    region_rows,
)
from hypervlad.displays.axis_colours import coloured, stretched
from hypervlad.displays.figures import save_png
from hypervlad.displays.orientation import OrientationDisplay
from hypervlad.displays.tables import table_as_bytes
from hypervlad.modelfile import replace_when_complete

MAPS, OVERLAYS, FIGURES = "maps", "overlays", "figures"
IMAGES_TABLE, REGIONS_TABLE = "alignment.csv", "regions.csv"


def write_alignment(
    out_dir: str | os.PathLike[str],
    recipe: AlignmentRecipe,
    images: Sequence[Any],
    names: Sequence[str],
    *,
    progress: bool = False,
) -> list[str]:
    """Find directions and alignment in images and write them; each file is complete or not there.

    - ``alignment.csv``: a line an image; ``regions.csv``: a line a region. Columns are named with
      their units: ``_deg``, ``_px``, and ``_nm``, ``_um2``, which are empty where the pixel size is
      not known.
    - ``maps/NAME.orientation.tif`` (radians, 0 to pi, counter-clockwise from the +x axis as seen)
      and ``maps/NAME.coherence.tif`` (0 to 1, 0 in the background): 32-bit floats.
    - ``maps/NAME.regions.tif``: the number of the region at each pixel, 0 outside of them: 16-bit
      integers. Maps know their pixel size as ImageJ writes it.
    - ``overlays/NAME.png``: the image at its own size, coloured by direction.
    - ``figures/NAME.png``: an `OrientationDisplay`.

    Parameters
    ----------
    out_dir : path
        Made if it is missing.
    recipe : AlignmentRecipe
    images : sequence of n paths or arrays
    names : sequence of n str
        What to call them, each differently: relative paths, with forward slashes.
    progress : bool, default=False
        Show a bar on stderr.

    Returns
    -------
    list of str
        Why images were left out: those that cannot be read, are flat or smaller than the window,
        or do not know the pixel size that a length needs. If none is left, no table is written.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from hypervlad import make_nanowire_images
    >>> from hypervlad.displays import AlignmentRecipe, write_alignment
    >>> images, _ = make_nanowire_images(1, size=96, random_state=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_alignment(folder, AlignmentRecipe(window=24), images, ["a"])
    ...     sorted(file.name for file in pathlib.Path(folder, "maps").iterdir())
    []
    ['a.coherence.tif', 'a.orientation.tif', 'a.regions.tif']
    """
    folder, bad = Path(out_dir), list[str]()
    folder.mkdir(parents=True, exist_ok=True)
    lines: list[list[Any]] = []
    regions: list[list[Any]] = []
    pairs = zip(images, names, strict=True)
    for image, name in tqdm(pairs, total=len(names), unit="image", disable=not progress or None):
        try:
            found = recipe.find(image)
        except ValueError as error:
            bad.append(str(error))
            continue
        _write_maps(folder / MAPS, name, found)
        _write_pictures(folder, name, found)
        lines.append(image_row(name, found, recipe))
        regions += region_rows(name, found)
    if lines:
        _write_table(folder / IMAGES_TABLE, image_columns(recipe), lines)
        _write_table(folder / REGIONS_TABLE, region_columns(), regions)
    return bad


def _write_maps(folder: Path, name: str, found: AlignmentFound) -> None:
    labels = found.aligned.labels
    size = found.orientation.pixel_size
    _write_tiff(folder / f"{name}.orientation.tif", found.orientation.orientation, size)
    _write_tiff(folder / f"{name}.coherence.tif", found.orientation.coherence, size)
    _write_tiff(folder / f"{name}.regions.tif", _as_integers(labels), size)


def _as_integers(labels: NDArray[np.int32]) -> NDArray[Any]:
    # ImageJ knows no 32-bit integers.
    return labels.astype(np.uint16 if labels.max(initial=0) < 2**16 else np.uint32)


def _write_tiff(path: Path, values: NDArray[Any], pixel_size: float | None) -> None:
    import tifffile

    options: dict[str, Any] = {"compression": "zlib", "predictor": False, "software": ""}
    if pixel_size is not None:
        options["resolution"] = (1 / pixel_size, 1 / pixel_size)  # pixels per nm
    if values.dtype != np.uint32:
        options |= {"imagej": True, "metadata": {} if pixel_size is None else {"unit": "nm"}}
    elif pixel_size is not None:
        options |= {"resolution": (1e7 / pixel_size,) * 2, "resolutionunit": "CENTIMETER"}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_when_complete(path, flush=False) as stream:
        tifffile.imwrite(stream, values, **options)


def _write_pictures(folder: Path, name: str, found: AlignmentFound) -> None:
    from PIL import Image

    directions = found.orientation
    overlay = coloured(stretched(found.pixels), directions.orientation, directions.coherence)
    path = folder / OVERLAYS / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_when_complete(path, flush=False) as stream:
        Image.fromarray(np.round(255 * overlay).astype(np.uint8)).save(stream, format="PNG")
    path = folder / FIGURES / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    display = OrientationDisplay.from_found(found, name=name)
    with replace_when_complete(path, flush=False) as stream:
        save_png(lambda ax: display.plot(ax=ax), stream)


def _write_table(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    with replace_when_complete(path) as stream:
        stream.write(table_as_bytes(header, [[_cell(value) for value in row] for row in rows]))


def _cell(value: Any) -> Any:
    """What is not known is empty; six digits are more than an angle or a share is good for."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    return f"{value:.6g}" if isinstance(value, float) else value
