"""What commands read and write: models, images, their names, groups and masks, tables."""

from __future__ import annotations

import glob
import itertools
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypervlad.cli.messages import echo, say, warn
from hypervlad.cli.options import common
from hypervlad.common.files import replace_when_complete
from hypervlad.common.modelfile import ModelFileError
from hypervlad.common.tables import lines_of_table, separator
from hypervlad.common.wording import counted, name_some, verb
from hypervlad.common.workbooks import is_workbook, workbook_of
from hypervlad.folders.outputs import check_apart, check_file

if TYPE_CHECKING:
    from hypervlad.images import PixelSizes
    from hypervlad.objects.found_folder import FoundFolder

# --- results, models and caches -----------------------------------------------------------------


def check_report(folder: Path, images: Path | None = None) -> None:
    from hypervlad.classify.evaluation_page import check_report_folder

    if images is not None:
        check_apart(folder, images)
    check_file(folder / "index.html")
    check_report_folder(folder)


def write_or_print(table: bytes, output: Path | None) -> None:
    if output is None:
        echo(table, nl=False)
        return
    if is_workbook(output):
        lines = lines_of_table(table.decode("utf-8", "surrogateescape"), separator(), output)
        table = workbook_of([(output.stem, separator(), lines)])
    with replace_when_complete(output) as stream:
        stream.write(table)


def load_classifier(path: Path, **changes: Any) -> Any:
    """Load a classifier; `changes` are ``pixel_size``, ``cache``, and parameters of its encoder."""
    from hypervlad.classify.estimator import MicrographClassifier

    usual: dict[str, Any] = {"on_error": common().on_error.value, "verbose": common().verbose}
    return load_model(path, MicrographClassifier, "hypervlad train", **usual | changes)


def load_model(
    path: Path,
    kind: type[Any],
    command: str,
    *,
    pixel_size: float | PixelSizes | None = None,
    cache: Path | None = None,
    **changes: Any,
) -> Any:
    """Load a model of one kind; for another kind, say which command writes the expected one."""
    from hypervlad.loading import load

    check_cache(cache)
    model = load(path, pixel_size=pixel_size)
    if not isinstance(model, kind):
        raise ModelFileError(
            f"{path} contains a {type(model).__name__}, but this command needs a model written by "
            f"'{command}'; in Python, hypervlad.load({str(path)!r}) loads it."
        )
    encoder = getattr(model, "encoder_", model)
    changes |= {"device": common().device, "memory": None if cache is None else str(cache)}
    known = encoder.get_params(deep=False)
    encoder.set_params(**{name: value for name, value in changes.items() if name in known})
    return model


def own_pixel_size(
    given: str | None, images: Sequence[Any] | None = None
) -> float | PixelSizes | None:
    """Return the pixel size of files that contain none: one for all, or those of a table."""
    if given is None:
        return None
    try:
        return float(given)
    except ValueError:
        from hypervlad.folders.pixel_sizes import load_pixel_sizes

    if not os.path.exists(given):
        raise ValueError(
            f"--pixel-size {given}: neither a number, such as 2.5, nor a file; expected nanometres "
            "per pixel, or a CSV file with the columns path and pixel_size"
        )
    return load_pixel_sizes(given, images)


def check_cache(cache: Path | None) -> None:
    if cache is not None and cache.exists() and not cache.is_dir():
        raise ValueError(f"--cache {cache} is a file; give a folder, which is created if needed.")


# --- images, their names, groups and masks ----------------------------------------------------


def images_in(paths: Sequence[str], *used: str | Path | None) -> list[Path]:
    """Return the images of files, folders and patterns; see `say_ignored`."""
    from hypervlad.images import find_images

    if found := list(filter(_has_particles, paths)):
        raise ValueError(
            f"{found[0]}: a folder of found particles, whose outlines are no images; give the "
            "folder of the images"
        )
    say_ignored(paths, *used)
    return find_images(paths)


def found_folder(paths: Sequence[str]) -> FoundFolder | None:
    """Return the folder of found particles, if a path is one."""
    from hypervlad.objects.found_folder import FoundFolder

    found = list(filter(_has_particles, paths))
    if found and len(paths) > 1:
        raise ValueError(f"{found[0]}: a folder of found particles; give only this one")
    return FoundFolder(found[0]) if found else None


def _has_particles(folder: str | Path) -> bool:
    # The names are those of particles/tables.py, which takes long to import.
    return all(os.path.exists(os.path.join(folder, name)) for name in ("run.json", "outlines"))


def labelled_images(folder: Path, groups: Path | None, *used: str | Path | None) -> Any:
    """Return the images, labels and groups of a folder or table; see `say_ignored`."""
    from hypervlad.folders.folder import load_image_folder

    data = load_image_folder(folder, groups)
    say_ignored([folder], groups, *used)
    return data


def say_ignored(paths: Iterable[str | Path], *used: str | Path | None) -> None:
    """Report how many files of folders are no images, by kind."""
    from hypervlad.images.files import ignored_files

    if counts := ignored_files(list(paths), [path for path in used if path is not None]):
        most_first = sorted(counts.items(), key=lambda count: (-count[1], count[0]))
        listed = ", ".join(f"{n:,} {kind}" for kind, n in most_first)
        say(f"ignored {counted(counts.total(), 'file')}: {listed}")


def names_of(files: Sequence[Path], paths: Sequence[str]) -> list[str]:
    """Name images, in all tables and pages, by their paths below `folder_of` what was given.

    Files below the working folder have the paths that were given: x/a.png and y/a.png are two.
    """
    from hypervlad.images.files import is_below
    from hypervlad.images.reading import relative_names

    are_as_given = all(os.path.isfile(path) and is_below(path) for path in paths)
    return relative_names(files, Path.cwd() if are_as_given else folder_of(paths))


def folder_of(paths: Sequence[str]) -> Path | None:
    """Return the deepest folder that contains all that was given; None on several drives."""
    from hypervlad.images.files import is_zarr

    folders = []
    for path in map(os.path.abspath, paths):
        if os.path.isdir(path) and not is_zarr(path):
            folders.append(path)
        elif os.path.exists(path):
            folders.append(os.path.dirname(path))
        else:  # a pattern
            *above, _ = Path(path).parts
            fixed = itertools.takewhile(lambda part: not glob.has_magic(part), above)
            folders.append(os.path.join(*fixed))
    try:
        return Path(os.path.commonpath(folders))
    except ValueError:
        return None


def groups_of(
    files: list[Path], table: Path | None, paths: list[str], what: str = "group"
) -> list[str] | None:
    """Return the group, or sample, of each image, from a table of their paths, if it is given."""
    if table is None:
        return None
    from hypervlad.folders.groups import load_groups

    if len(paths) > 1 or not os.path.isdir(paths[0]):
        raise ValueError(
            f"{table} names images by their paths below one folder: give only that folder"
        )
    groups: list[str] = load_groups(files, Path(paths[0]), table, what).tolist()
    return groups


def masks_of(files: list[Path], masks: Path, *, needed: bool = False) -> list[Any]:
    """Return for each image its mask in a folder or a COCO file, or None; say how many have one.

    Images without one count as defect-free, or are left out if it is `needed`.
    """
    found, unused = (_stored_masks if masks.is_file() else _masks_in)(files, masks)
    n_masks = sum(mask is not None for mask in found)
    text = f"masks: {n_masks:,} of {counted(len(files), 'image')} have one"
    if n_masks == len(files) or not needed:
        say(text if n_masks == len(files) else f"{text}; those without count as defect-free")
    else:
        echo(f"{text}; those without are left out", err=True)
    if unused:
        n = len(unused)
        fit = verb(n, "fits", "fit")
        warn(f"{counted(n, 'mask')} {fit} no image: {name_some(unused)}")
    return found


def _masks_in(files: list[Path], folder: Path) -> tuple[list[Path | None], list[str]]:
    """Return the masks of images, and those in the folder that fit none."""
    from hypervlad.images import find_masks
    from hypervlad.images.files import IMAGE_SUFFIXES, list_files

    masks = folder.resolve()
    if inside := [file for file in files if masks in file.resolve().parents]:
        raise ValueError(
            f"{inside[0]} is in the folder of masks, {folder}; give the folder of the images."
        )
    found = find_masks(files, folder)
    used = {mask.resolve() for mask in found if mask is not None}
    stored = [each for each in map(Path, sorted(list_files(folder))) if each.resolve() not in used]
    return found, [each.as_posix() for each in stored if each.suffix.lower() in IMAGE_SUFFIXES]


def _stored_masks(files: list[Path], path: Path) -> tuple[list[Any], list[str]]:
    """Return the masks of images in a COCO file, and the names there that no image has."""
    from hypervlad.objects.outline_names import find_outlines
    from hypervlad.objects.outlines import read_outlines
    from hypervlad.objects.polygon_files import open_json

    if path.suffix.lower() != ".json":
        raise ValueError(f"{path}: give a folder of masks, or masks.json of a page of defects.")
    sources = find_outlines(files, path)
    listed, name = open_json(path, str(path)), str(path)
    found, used = list[Any](), set[str]()
    for image, source in zip(files, sources, strict=True):
        mask = None
        if source is not None:
            mask = read_outlines(source, image=image).label_image() > 0
            used.add(str(listed.entry_of(image, name).get("file_name")))
        found.append(mask)
    stored = (str(each.get("file_name")) for each in listed.images)
    return found, [each for each in stored if each not in used]
