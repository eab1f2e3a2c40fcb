"""The particles of many images found, and written into a folder: a run, stopped and resumed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hypervlad.common.constraints import check_value
from hypervlad.common.files import exclusive_lock, new_folder, replace_when_complete
from hypervlad.common.progress import ProgressBar, announced
from hypervlad.common.wording import counted, is_utf8, name_some, warn_user
from hypervlad.images import ImageReadError, PixelSizes, ReadOptions
from hypervlad.images.annotations import note_annotations
from hypervlad.images.options import PIXEL_SIZE, check_read_options
from hypervlad.images.reading import read_named, relative_names
from hypervlad.objects.counts import Field
from hypervlad.objects.export import write_outlines
from hypervlad.objects.found_folder import FoundFolder
from hypervlad.objects.measures import measure
from hypervlad.objects.outlines import read_outlines
from hypervlad.objects.particle import Outlines, Particle, check_same_size
from hypervlad.objects.tables import (
    CONFUSION,
    FIELDS,
    LOCK,
    RUN,
    is_below,
    write_formats,
    write_tables,
)

if TYPE_CHECKING:
    import pandas as pd

_MAX_NAME = 240  # bytes, of at most 255 with the suffixes of outlines


def find_in_images(
    path: str | os.PathLike[str],
    images: Sequence[str | os.PathLike[str]],
    outline: Callable[[Path], Any],
    *,
    root: str | os.PathLike[str],
    finder: Mapping[str, Any] | None = None,
    read_options: Mapping[str, Any] | ReadOptions | None = None,
    pixel_size: float | PixelSizes | None = None,
    formats: Sequence[str] = (),
    resume: bool = False,
    verbose: bool = False,
) -> tuple[FoundFolder, list[str]]:
    """Outline the particles of images, and write the outlines and tables of their measures.

    The outlines of each image are complete before those of the next are found; the tables are
    written at the end.

    Parameters
    ----------
    path : path
        Folder to write, new or empty unless `resume`.
    images : sequence of n paths
    outline : callable
        From a path to outlines that do not overlap: :func:`find_particles`, or
        ``HypercolumnSegmenter.predict``.
    root : path
        Folder that contains all images, which are named by their paths below it.
    finder : mapping, optional
        What outlines depend on, such as parameters; values that JSON can store.
    read_options : dict or ReadOptions, optional
        How images are read, also by `outline`.
    pixel_size : float or PixelSizes, optional
        Nanometres per pixel of images whose file does not contain it, or of single files.
    formats : sequence of {"geojson", "roi"}, default=()
        Further files of outlines for QuPath and ImageJ, in folders of these names.
    resume : bool, default=False
        Keep the outlines that are in the folder, and find the others, with the same `finder` and
        `read_options`, and `pixel_size` if one was given. Those of single files are compared image
        by image. All are measured again, without classes.
    verbose : bool, default=False
        Show a progress bar.

    Returns
    -------
    folder : FoundFolder
    left_out : list of str
        Why images could not be read or have outlines of another size; each begins with the image.

    Raises
    ------
    ValueError
        If the folder has other files, or is of other images or another `finder`.

    Warns
    -----
    UserWarning
        If particles are in information bars, or only some images have a pixel size.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from hypervlad.particles import find_in_images, find_particles
    >>> with tempfile.TemporaryDirectory() as root:
    ...     image = pathlib.Path(root, "a.png")
    ...     _ = image.write_bytes(b"no image")
    ...     found, left_out = find_in_images(f"{root}/found", [image], find_particles, root=root)
    ...     found.path.name, len(left_out)
    ('found', 1)
    """
    check_value("pixel_size", pixel_size, PIXEL_SIZE)
    options = check_read_options(read_options)
    if isinstance(options.pixel_size, PixelSizes):
        pixel_size = pixel_size or options.pixel_size
    reading = replace(options, pixel_size=pixel_size or options.pixel_size)
    files = dict(zip(relative_names(images, root), map(Path, images), strict=True))
    if outside := [str(file) for name, file in files.items() if not is_below(name)]:
        raise ValueError(
            f"root={os.fspath(root)!r} must contain all images, but not {name_some(outside)}"
        )
    run: dict[str, Any] = {"images": os.path.abspath(root), "finder": dict(finder or {})}
    run |= {"read_options": options.without_files()}
    if isinstance(pixel_size, PixelSizes):
        of_files = {name: pixel_size.of(file) for name, file in files.items()}
        run |= {"pixel_size": None, "pixel_sizes": {n: nm for n, nm in of_files.items() if nm}}
    else:
        run |= {"pixel_size": pixel_size, "pixel_sizes": {}}
    with new_folder(Path(path)), exclusive_lock(Path(path, LOCK), path):
        folder = _started(Path(path), run, resume)
        has_fields = (folder.path / FIELDS).exists()
        sizes = {each.micrograph: each.pixel_size for each in folder.fields} if has_fields else {}
        names = sorted({*sizes, *files})
        done = {name for name in names if folder.outlines_file(name).exists()}
        fields, left_out = list[Field](), list[str]()
        tables: list[pd.DataFrame] = []
        bar = ProgressBar(names, unit="image", disable=not verbose or None)
        with announced(len(names) - len(done)):
            for name in bar:
                file = folder.outlines_file(name)
                given = folder.run["pixel_sizes"].get(name) or folder.run["pixel_size"]
                size = sizes.get(name) or given
                try:
                    if name not in done:
                        image = files.get(name) or folder.image(name)
                        found = _outlined(name, image, outline, reading)
                        write_outlines(file, found, pixel_size=found.pixel_size or size)
                    outlines = read_outlines(file)
                    if size and not outlines.pixel_size:  # given later, or lost in other programs
                        write_outlines(file, outlines, pixel_size=size)
                        outlines = read_outlines(file)
                except ImageReadError as error:
                    left_out.append(str(error))
                    continue
                place = name, outlines.shape, outlines.pixel_size
                particles = [  # measured without their image
                    Particle(o.label, o.box, o.mask, o.mask.astype(np.float32), *place)
                    for o in outlines
                ]
                fields.append(Field(*place))
                tables.append(measure(particles))
                write_formats(folder.path, name, tables[-1], formats)
        if fields:
            (folder.path / CONFUSION).unlink(missing_ok=True)
            write_tables(folder.path, fields, tables)
    _warn_of_sizes(fields)
    return FoundFolder(path), left_out


def _started(path: Path, run: dict[str, Any], resume: bool) -> FoundFolder:
    """Write what a run is made with, or compare it with that of the run that is resumed."""
    run = json.loads(json.dumps(run))
    if any(not each.name.startswith(".") for each in path.iterdir()):
        if not resume:
            raise ValueError(
                f"{path} is not empty, and nothing is overwritten; give another folder, or "
                "continue what was begun there with --resume"
            )
        folder = FoundFolder(path)
        folder.check_replaceable()
        # A pixel size may be given later, or once.
        run["pixel_size"] = run["pixel_size"] or folder.run["pixel_size"]
        before = folder.run | {"images": str(folder.images)}
        before["pixel_size"] = before["pixel_size"] or run["pixel_size"]
        # Those of single files, too, and some may be new.
        before["pixel_sizes"], run["pixel_sizes"] = (
            first["pixel_sizes"] | second["pixel_sizes"]
            for first, second in ((run, before), (before, run))
        )
        old, new = (_flat(each) for each in (before, run))
        if different := [
            f"{name} {old.get(name)!r}, not {new.get(name)!r}"
            for name in dict.fromkeys([*old, *new])
            if old.get(name) != new.get(name)
        ]:
            raise ValueError(
                f"{path} was made with {'; '.join(different)}; give the same, or another folder"
            )
    with replace_when_complete(path / RUN) as stream:
        stream.write(json.dumps(run, indent=1).encode())
    return FoundFolder(path)


def _flat(run: dict[str, Any]) -> dict[str, Any]:
    sizes = {f"pixel size of {name}": size for name, size in run["pixel_sizes"].items()}
    return {**run, **run["finder"], **sizes, "finder": None, "pixel_sizes": None}


def _outlined(
    name: str, image: Path, outline: Callable[[Path], Any], options: ReadOptions
) -> Outlines:
    """Return the outlines of an image, with its pixel size; say what was left out, if known."""
    if not is_utf8(name) or len(os.fsencode(image.name)) > _MAX_NAME:
        raise ImageReadError(
            f"{image}: its name is not UTF-8, or has more than {_MAX_NAME} bytes; rename it"
        )
    outlined = outline(image)
    found = Outlines.of(outlined, str(image))
    # Read again, in 2 % of the time, as outlines may be found at other grey levels.
    own = read_named(image, options, str(image), with_digest=False)
    check_same_size(found, own.pixels, str(image))
    left_out = getattr(outlined, "annotations", []), getattr(outlined, "n_beside", 0)
    note_annotations(name, *left_out, "particle")
    return replace(found, pixel_size=own.pixel_size)


def _warn_of_sizes(fields: Sequence[Field]) -> None:
    unknown = [field.micrograph for field in fields if not field.pixel_size]
    if 0 < len(unknown) < len(fields):
        warn_user(
            f"the pixel size of {counted(len(unknown), 'image')} is unknown, {name_some(unknown)}, "
            "while the others have one: they cannot be counted together; give it with --resume "
            "--pixel-size NM or --pixel-sizes CSV"
        )
