"""What is found of alignment in many images, as files: maps, overlays, figures, tables."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from hypervlad.displays.alignment_folder import (
    FIGURES,
    OVERLAYS,
    AlignmentFolder,
    map_files,
    picture_files,
)
from hypervlad.displays.alignment_found import AlignmentFound, AlignmentRecipe
from hypervlad.displays.axis_colours import coloured, stretched
from hypervlad.displays.figures import save_png
from hypervlad.displays.orientation import OrientationDisplay
from hypervlad.modelfile import replace_when_complete

_BAND = 128  # rows that are coloured at a time
_EFFORT = 1  # of 9: noise does not get smaller by more


def write_alignment(
    out_dir: str | os.PathLike[str],
    recipe: AlignmentRecipe,
    images: Sequence[Any],
    names: Sequence[str],
    *,
    figures: bool = True,
    progress: bool = False,
) -> list[str]:
    """Find directions and alignment in images and write them; each file is complete or not there.

    - ``alignment.csv``: a line an image; ``regions.csv``: a line a region. Columns are named with
      their units: ``_deg``, ``_px``, and ``_nm``, ``_um2``, which are empty where the pixel size is
      not known. ``window_px`` is what was asked for, ``window_width_px`` and ``window_height_px``
      the mean sides of the windows that fit into the image. ``fraction`` is of area,
      ``fibre_fraction`` of pixels where a direction is seen (``fibre_share`` of the image: fibres
      and a margin around them, no segmentation), ``expected_fraction`` the mean of a model's
      probabilities. Direction, order and spread of an image are of its pixels, noise and all; of a
      region, of its windows, without what noise adds. A model judges regardless of
      ``tolerance_deg``, which joins regions.
    - ``maps/NAME.orientation.tif`` (radians, 0 to pi, counter-clockwise from the +x axis as seen)
      and ``maps/NAME.coherence.tif`` (0 to 1, 0 in the background): 32-bit floats.
    - ``maps/NAME.regions.tif``: the number of the region at each pixel, 0 outside of them: 16-bit
      integers. Maps know their pixel size as ImageJ writes it.
    - ``overlays/NAME.png``: the image at its own size, coloured by direction.
    - ``figures/NAME.png``: an `OrientationDisplay`.

    The tables name the images whose files are there, also if something ends the run before its
    time. Results of an earlier run in this folder go when those of this one are complete.

    Parameters
    ----------
    out_dir : path
        Made if it is missing.
    recipe : AlignmentRecipe
    images : sequence of n paths or arrays
    names : sequence of n str
        What to call them, each differently: relative paths, with forward slashes.
    figures : bool, default=True
        Whether to make overlays and figures, which take most of the time.
    progress : bool, default=False
        Show a bar on stderr.

    Returns
    -------
    list of str
        Why images were left out: those that cannot be read, are flat or smaller than the window,
        or do not know the pixel size that a length needs. If none is left, no table is written.

    Raises
    ------
    ValueError
        If a table of such a name is in the folder that is none of an earlier run.

    Warns
    -----
    UserWarning
        If an earlier run had results of images that this one has not: they are removed.

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
    bad = list[str]()
    pairs = zip(images, names, strict=True)
    with AlignmentFolder(Path(out_dir), recipe) as results:
        for image, name in tqdm(
            pairs, total=len(names), unit="image", disable=not progress or None
        ):
            try:
                found = recipe.find(image)
            except ValueError as error:
                bad.append(str(error))
                continue
            files = _write_maps(results.folder, name, found)
            if figures:
                files += _write_pictures(results.folder, name, found)
            results.add(name, found, files)
    return bad


def _write_maps(folder: Path, name: str, found: AlignmentFound) -> list[Path]:
    paths, directions = map_files(folder, name), found.orientation
    for kind, values in (
        ("orientation", directions.orientation),
        ("coherence", directions.coherence),
        ("regions", _as_integers(found.aligned.labels)),
    ):
        _write_tiff(paths[kind], values, directions.pixel_size)
    return list(paths.values())


def _as_integers(labels: NDArray[np.int32]) -> NDArray[Any]:
    # ImageJ knows no 32-bit integers.
    return labels.astype(np.uint16 if labels.max(initial=0) < 2**16 else np.uint32)


def _write_tiff(path: Path, values: NDArray[Any], pixel_size: float | None) -> None:
    import tifffile

    options: dict[str, Any] = {
        "compression": "zlib",
        "compressionargs": {"level": _EFFORT},
        "predictor": False,
        "software": "",
    }
    if pixel_size is not None:
        options["resolution"] = (1 / pixel_size, 1 / pixel_size)  # pixels per nm
    if values.dtype != np.uint32:
        options |= {"imagej": True, "metadata": {} if pixel_size is None else {"unit": "nm"}}
    elif pixel_size is not None:
        options |= {"resolution": (1e7 / pixel_size,) * 2, "resolutionunit": "CENTIMETER"}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_when_complete(path, flush=False) as stream:
        tifffile.imwrite(stream, values, **options)


def _write_pictures(folder: Path, name: str, found: AlignmentFound) -> list[Path]:
    from PIL import Image

    paths = picture_files(folder, name)
    for path in paths.values():
        path.parent.mkdir(parents=True, exist_ok=True)
    with replace_when_complete(paths[OVERLAYS], flush=False) as stream:
        overlay = Image.fromarray(_overlay(found))
        overlay.save(stream, format="PNG", compress_level=_EFFORT)
    display = OrientationDisplay.from_found(found, name=name)
    with replace_when_complete(paths[FIGURES], flush=False) as stream:
        save_png(lambda ax: display.plot(ax=ax), stream)
    return list(paths.values())


def _overlay(found: AlignmentFound) -> NDArray[np.uint8]:
    """Colour an image by direction, a band at a time: what is between takes no memory."""
    grey, directions = stretched(found.pixels), found.orientation
    overlay = np.empty((*grey.shape, 3), np.uint8)
    for top in range(0, len(grey), _BAND):
        rows = slice(top, top + _BAND)
        band = coloured(grey[rows], directions.orientation[rows], directions.coherence[rows])
        overlay[rows] = np.rint(255 * band)
    return overlay
