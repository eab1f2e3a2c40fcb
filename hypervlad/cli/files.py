"""Where commands read and write: checked outputs, models, images, their names, groups and masks."""

from __future__ import annotations

import fnmatch
import glob
import itertools
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypervlad.cli.messages import echo, say
from hypervlad.common.files import check_writable, replace_when_complete
from hypervlad.common.modelfile import ModelFileError, read_model
from hypervlad.common.wording import counted, name_some, verb

if TYPE_CHECKING:
    from hypervlad.classify.estimator import MicrographClassifier
    from hypervlad.features.encoder import HypercolumnVLAD
    from hypervlad.images import PixelSizes
    from hypervlad.objects.found_folder import FoundFolder

# --- outputs ----------------------------------------------------------------------------------


def check_file(path: Path, *inputs: str | Path | None) -> None:
    """Raise if a file cannot be written, or is an input: of a folder, only images count."""
    check_writable(path)
    existing = next((parent for parent in path.absolute().parents if parent.exists()), None)
    if existing is None:
        raise ValueError(
            f"{path}: {path.absolute().anchor} does not exist; choose another location."
        )
    if not existing.is_dir():
        raise ValueError(f"{path}: {existing} is a file, not a folder; choose another location.")
    if not os.access(existing, os.W_OK):
        raise ValueError(f"{existing}: no permission to write here; choose another folder.")
    if path.exists() and any(_is_read(path, each) for each in inputs if each is not None):
        raise ValueError(f"{path} is read by this command; give the result another name.")


def check_model(path: Path, *inputs: str | Path | None) -> None:
    """Do the same for a model, which replaces only another model."""
    check_file(path, *inputs)
    if path.is_file():
        try:
            read_model(path)
        except ValueError as error:
            raise ValueError(f"{path} exists and is not a model; give another name.") from error


def _is_read(path: Path, given: str | Path) -> bool:
    from hypervlad.images.files import IMAGE_SUFFIXES, list_matches

    if os.path.isdir(given):
        is_image = path.suffix.lower() in IMAGE_SUFFIXES
        return is_image and Path(given).resolve() in path.resolve().parents
    files = [given] if os.path.exists(given) else list_matches(str(given))
    return any(os.path.samefile(path, file) for file in filter(os.path.exists, files))


def check_page(page: Path | None, table: Path | None, *inputs: str | Path | None) -> None:
    if page is None:
        return
    if page.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"--page {page}: the name must end in .html for browsers to open it.")
    if table is not None and page.resolve() == table.resolve():
        raise ValueError(f"{page}: page and table cannot be the same file; give two names.")
    check_file(page, *inputs)


def check_apart(output: Path, folder: Path) -> None:
    """Raise if results would lie in an image folder, where the next training would read them."""
    if folder.resolve() in (output.resolve(), *output.resolve().parents):
        raise ValueError(
            f"{output} is inside the image folder {folder}; write the results to another folder."
        )


def check_report(folder: Path, images: Path | None) -> None:
    from hypervlad.classify.evaluation_page import check_report_folder

    if images is not None:
        check_apart(folder, images)
    check_file(folder / "index.html")
    check_report_folder(folder)


def write_or_print(table: bytes, output: Path | None) -> None:
    if output is None:
        echo(table, nl=False)
        return
    with replace_when_complete(output) as stream:
        stream.write(table)


def check_sorted(folders: Iterable[Path], paths: Sequence[str]) -> None:
    """Raise if a folder for copies overlaps one that is read: copies would be read as images."""
    for path in filter(os.path.isdir, paths):
        read = Path(path).resolve()
        for folder in folders:
            written = folder.resolve()
            if written == read or written in read.parents or read in written.parents:
                raise ValueError(
                    f"copies into {folder} would lie among the images of {path}; choose another "
                    "folder for --sort-into."
                )


def check_folders(output: Path, paths: Sequence[str]) -> None:
    """Raise if the next run with the same paths would read the results as images."""
    for path in paths:
        if os.path.isdir(path):
            check_apart(output, Path(path))
        elif os.path.exists(path) or glob.has_magic(path):
            _check_pattern(output, path)
    if output.exists() and not output.is_dir():
        raise ValueError(f"{output} is a file; give a folder, which is created if needed.")


def _check_pattern(output: Path, path: str) -> None:
    from hypervlad.images.files import list_matches

    found = [path] if os.path.exists(path) else list_matches(path)
    for each in found:
        if output.resolve() in Path(each).resolve().parents:
            raise ValueError(
                f"{each} is in {output}, the folder of the results; choose another folder."
            )
    if not os.path.exists(path) and _matches_inside(path, Path(os.path.abspath(output))):
        raise ValueError(
            f"{path} would also match pictures in {output}; write the results to another folder."
        )


def _matches_inside(pattern: str, folder: Path) -> bool:
    parts = Path(os.path.abspath(pattern)).parts
    for part, name in zip(parts, folder.parts, strict=False):
        if part == "**":
            return True
        if not fnmatch.fnmatch(name, part):
            return False
    return len(parts) >= len(folder.parts) + 2


# --- models and caches ------------------------------------------------------------------------


def load_classifier(
    path: Path,
    weights: str | None,
    *,
    device: str = "auto",
    on_error: str = "raise",
    quiet: bool = True,
    cache: Path | None = None,
    pixel_size: float | PixelSizes | None = None,
) -> MicrographClassifier:
    from hypervlad.classify.estimator import MicrographClassifier

    model: MicrographClassifier = load_model(
        path, weights, MicrographClassifier, "hypervlad train", pixel_size
    )
    model.encoder_.set_params(
        device=device, on_error=on_error, verbose=not quiet, memory=_memory(cache)
    )
    return model


def load_encoder(
    path: Path,
    weights: str | None,
    *,
    device: str,
    cache: Path | None,
    pixel_size: float | PixelSizes | None,
) -> HypercolumnVLAD:
    from hypervlad.loading import load

    model = load(path, weights=weights, pixel_size=pixel_size)
    encoder: HypercolumnVLAD = getattr(model, "encoder_", model)
    encoder.set_params(device=device, memory=_memory(cache))
    return encoder


def load_model(
    path: Path,
    weights: str | None,
    kind: type[Any],
    command: str,
    pixel_size: float | PixelSizes | None = None,
) -> Any:
    """Load a model of one kind; for another kind, say which command writes the expected one."""
    from hypervlad.loading import load

    model = load(path, weights=weights, pixel_size=pixel_size)
    if not isinstance(model, kind):
        raise ModelFileError(
            f"{path} contains a {type(model).__name__}, but this command needs a model written by "
            f"'{command}'; in Python, hypervlad.load({str(path)!r}) loads it."
        )
    return model


def check_no_weights(weights: str | None) -> None:
    """Refuse weights where no model is given, which would use them."""
    if weights is not None:
        raise ValueError(
            f"--weights {weights} are those of a model's network, but no model was given; give the "
            "model, or leave them out"
        )


def own_pixel_size(
    number: float | None, table: Path | None, images: Sequence[Any] | None = None
) -> float | PixelSizes | None:
    """Return the pixel size of files that contain none: one for all, or those of a table."""
    if table is None:
        return number
    if number is not None:
        raise ValueError("--pixel-size and --pixel-sizes exclude each other: give only one.")
    from hypervlad.folders.pixel_sizes import load_pixel_sizes

    return load_pixel_sizes(table, images)


def check_cache(cache: Path | None) -> None:
    if cache is not None and cache.exists() and not cache.is_dir():
        raise ValueError(f"--cache {cache} is a file; give a folder, which is created if needed.")


def _memory(cache: Path | None) -> str | None:
    return None if cache is None else str(cache)


# --- images, their names, groups and masks ----------------------------------------------------


def images_in(paths: Sequence[str], quiet: bool, *used: str | Path | None) -> list[Path]:
    """Return the images of files, folders and patterns; see `say_ignored`."""
    from hypervlad.images import find_images

    if found := list(filter(_has_particles, paths)):
        raise ValueError(
            f"{found[0]}: a folder of found particles, whose outlines are no images; give the "
            "folder of the images"
        )
    say_ignored(quiet, paths, *used)
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


def labelled_images(
    folder: Path, groups: Path | None, quiet: bool, *used: str | Path | None
) -> Any:
    """Return the images, labels and groups of a folder or table; see `say_ignored`."""
    from hypervlad.folders.folder import load_image_folder

    data = load_image_folder(folder, groups)
    say_ignored(quiet, [folder], groups, *used)
    return data


def rows_of(data: Any, rows: Any) -> Any:
    """Return some of the images that `labelled_images` found, as it does."""
    from sklearn.utils import Bunch

    return Bunch(
        images=[data.images[row] for row in rows],
        target=data.target[rows],
        groups=None if data.groups is None else data.groups[rows],
        target_names=sorted(set(data.target[rows])),
        root=data.root,
    )


def say_ignored(quiet: bool, paths: Iterable[str | Path | None], *used: str | Path | None) -> None:
    """Report how many files of folders are no images, by kind."""
    from hypervlad.images.files import ignored_files

    given = [path for path in paths if path is not None]
    counts = ignored_files(given, [path for path in used if path is not None])
    if counts:
        listed = ", ".join(f"{n:,} {kind}" for kind, n in sorted(counts.items(), key=_most_first))
        say(quiet, f"ignored {counted(counts.total(), 'file')}: {listed}")


def _most_first(count: tuple[str, int]) -> tuple[int, str]:
    return -count[1], count[0]


def names_of(files: Sequence[Path], paths: Sequence[str]) -> list[str]:
    """Name images, in all tables and pages, by their paths below `folder_of` what was given."""
    from hypervlad.images.reading import relative_names

    return relative_names(files, folder_of(paths))


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


def groups_of(files: list[Path], table: Path, paths: list[str]) -> Any:
    """Return the group of each image, from a table that names images by their paths."""
    from hypervlad.folders.groups import load_groups

    if len(paths) > 1 or not os.path.isdir(paths[0]):
        raise ValueError(
            f"{table} names images by their paths below one folder: give only that folder"
        )
    return load_groups(files, Path(paths[0]), table)


def masks_of(
    files: list[Path], folder: Path, quiet: bool, others: str = "count as defect-free"
) -> list[Path | None]:
    """Return for each image its mask in a folder, or None, and say how many have one."""
    from hypervlad.images import find_masks
    from hypervlad.images.files import IMAGE_SUFFIXES, list_files

    masks = folder.resolve()
    inside = [file for file in files if masks in file.resolve().parents]
    if inside:
        raise ValueError(
            f"{inside[0]} is in the folder of masks, {folder}; give the folder of the images."
        )
    found = find_masks(files, folder)
    n_masks = len(files) - found.count(None)
    rest = f"; those without {others}" if n_masks < len(files) else ""
    say(quiet, f"masks: {n_masks:,} of {counted(len(files), 'image')} have one{rest}")
    used = {mask.resolve() for mask in found if mask is not None}
    unused = [
        file.as_posix()
        for file in map(Path, sorted(list_files(folder)))
        if file.suffix.lower() in IMAGE_SUFFIXES and file.resolve() not in used
    ]
    if unused:
        n = len(unused)
        fit = verb(n, "fits", "fit")
        echo(f"warning: {counted(n, 'mask')} {fit} no image: {name_some(unused)}", err=True)
    return found
