"""Which files have the outlines of which images, by their names."""

from __future__ import annotations

import contextlib
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from hypervlad.images.errors import ImageReadError
from hypervlad.images.files import IMAGE_SUFFIXES, composed, list_files, path_parts
from hypervlad.images.masks import all_of_name, choose_by_name
from hypervlad.objects.polygon_files import open_json

_CP_OUTLINES = "_cp_outlines.txt"  # of cellpose; other texts are of microscopes
_SUFFIXES = IMAGE_SUFFIXES | {".npy", ".zip", ".roi", ".json", ".geojson"}
_MARK = re.compile(
    "[-_. ](cp_masks|cp_outlines|masks?|gt|labels?|ground_?truth|seg|segmentation|outlines?|rois?|"
    "roiset|objects?|object identities)$",
    re.IGNORECASE,
)


def find_outlines(
    images: Sequence[str | os.PathLike[str]],
    folder: str | os.PathLike[str],
    root: str | os.PathLike[str] | None = None,
) -> list[Path | None]:
    """Find the outlines of each image in a folder.

    Parameters
    ----------
    images : sequence of n paths
    folder : path
        One file for all images, such as COCO, or a folder of what :func:`read_outlines` reads,
        named by the rules of :func:`hypervlad.images.find_masks`, also with endings such as
        ``_cp_masks`` (cellpose), ``_Object Identities`` (ilastik) and ``_labels``. A folder of
        masks is named like its image. The images may lie in the same folder.
    root : path, optional
        Folder that contains the images: names of folders above it are not compared.

    Returns
    -------
    list of n Path or None
        None for an image without outlines. ``read_outlines(path, image=image)`` reads each, also
        from a COCO file of several images.

    Raises
    ------
    ImageReadError
        As :func:`hypervlad.images.find_masks`.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from hypervlad.particles import find_outlines
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     pathlib.Path(folder, "a_cp_masks.png").touch()
    ...     [path and path.name for path in find_outlines(["images/a.tif", "images/b.tif"], folder)]
    ['a_cp_masks.png', None]
    """
    folder = Path(folder)
    if folder.is_file() and len(images) == 1:
        return [folder]
    if not folder.exists():
        raise ImageReadError(f"{folder}: no such folder of outlines, or file")
    of_folder = [folder] if folder.is_file() else map(Path, list_files(folder))
    folder = folder.parent if folder.is_file() else folder
    own = {os.path.abspath(image) for image in images}
    files = [f for f in of_folder if is_of_outlines(f) and os.path.abspath(f) not in own]
    of_name, file_of = _by_name(files, folder)
    for parent in {file.parent for file in files} - {folder}:
        of_name[composed(parent.relative_to(folder).as_posix())].append(parent)
    chosen = choose_by_name(images, folder, of_name, root, "segmentation")
    return [None if path is None else file_of.get(path, path) for path in chosen]


def is_of_outlines(file: Path) -> bool:
    """Return whether a file has a suffix of what `read_outlines` reads."""
    return file.suffix.lower() in _SUFFIXES or file.name.lower().endswith(_CP_OUTLINES)


def is_marked(file: Path) -> bool:
    """Return whether a file is of outlines by its name, and no image."""
    return file.suffix.lower() in _SUFFIXES - IMAGE_SUFFIXES or bool(_MARK.search(file.stem))


def outlines_among(names: Sequence[str]) -> list[str]:
    """Return the images that are called like outlines of others: a_cp_masks.png beside a.tif."""
    marked = [name for name in names if _MARK.search(PurePosixPath(name).stem)]
    others = {*names} - {*marked}
    others |= {PurePosixPath(name).with_suffix("").as_posix() for name in others}
    of_image = (_MARK.sub("", PurePosixPath(name).with_suffix("").as_posix()) for name in marked)
    return [name for name, own in zip(marked, of_image, strict=True) if own in others]


def outlines_of_fields(
    names: Iterable[str], files: Iterable[Path], folder: Path
) -> dict[str, list[Path]]:
    """Return the files of outlines below a folder by the fields whose names they have.

    Names of fields are those of images below their folder: ``b/a.zip`` is of ``b/a.png``, and so is
    ``a.zip``, unless there is another field ``a.png``. An `ImageReadError` for a file of two.
    """
    of_name, file_of = _by_name(list(files), folder)
    found = {name: all_of_name(Path(os.sep, name), of_name) for name in names}
    owners = defaultdict[Path, list[str]](list)
    for name, paths in found.items():
        for path in paths:
            owners[path].append(name)
    for path, own in owners.items():
        parent = path.relative_to(folder).parent
        listed = [name for name in own if path == file_of.get(path, folder) / name]
        chosen = listed or [name for name in own if Path(name).parent == parent] or own
        if len(chosen) > 1:
            mark = _MARK.search(path.stem)
            name = f"{Path(chosen[0]).name}{mark[0] if mark else ''}{path.suffix}"
            raise ImageReadError(
                f"{path}: outlines of {chosen[0]} or of {chosen[1]}? Call it {name}, with the "
                "suffix of the image"
            )
        for name in {*own} - {*chosen}:
            found[name] = [each for each in found[name] if each != path]
    return {name: [file_of.get(path, path) for path in paths] for name, paths in found.items()}


def _by_name(files: Sequence[Path], folder: Path) -> tuple[dict[str, list[Path]], dict[Path, Path]]:
    """Return files by names of images; images that one file lists, as if below it, and the file."""
    of_name, file_of = defaultdict[str, list[Path]](list), dict[Path, Path]()
    # Cellpose writes _seg.npy, which is not read, beside the file of masks.
    for file in sorted(files, key=lambda file: (file.name.endswith("_seg.npy"), file)):
        listed = images_listed(file)
        for name, entries in listed.items():
            places = [file.joinpath(*path_parts(entry["file_name"])) for entry in entries]
            of_name[name] += places
            file_of |= dict.fromkeys(places, file)
        stored = composed(file.relative_to(folder).with_suffix("").as_posix())
        for name in {} if listed else dict.fromkeys([stored, _MARK.sub("", stored)]):
            if not (file.name.endswith("_seg.npy") and name in of_name):
                of_name[name].append(file)
    return of_name, file_of


def images_listed(file: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the images that a file of several lists, by their names; else none."""
    with contextlib.suppress(OSError, ImageReadError, LookupError, TypeError, AttributeError):
        if file.suffix.lower() == ".json":
            return open_json(file, "").by_name
    return {}
