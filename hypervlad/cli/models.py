"""Models as the commands make and load them, and the places they write to."""

from __future__ import annotations

import fnmatch
import glob
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypervlad.modelfile import ModelFileError

if TYPE_CHECKING:
    from hypervlad.classifier import MicrographClassifier
    from hypervlad.encoder import HypercolumnVLAD


def new_classifier(seed: int, quiet: bool, **options: Any) -> MicrographClassifier:
    from hypervlad.classifier import MicrographClassifier, default_encoder

    given = {name: value for name, value in options.items() if value is not None}
    if "weights" in given:
        given["weights"] = absolute_weights(given["weights"])
    if "memory" in given:
        given["memory"] = str(given["memory"])
    encoder = default_encoder(**given, random_state=seed, verbose=not quiet)
    return MicrographClassifier(encoder, random_state=seed, verbose=not quiet)


def load_classifier(
    path: Path,
    weights: str | None,
    *,
    device: str,
    on_error: str,
    quiet: bool,
    cache: Path | None = None,
) -> MicrographClassifier:
    from hypervlad.classifier import MicrographClassifier

    model: MicrographClassifier = load_model(path, weights, MicrographClassifier, "hypervlad train")
    model.encoder_.set_params(
        device=device, on_error=on_error, verbose=not quiet, memory=_memory(cache)
    )
    return model


def load_model(path: Path, weights: str | None, kind: type[Any], maker: str) -> Any:
    """Load a model of one kind; of another, say which command writes such.

    Raises
    ------
    ModelFileError
    """
    from hypervlad.models import load

    model = load(path, weights=weights)
    if not isinstance(model, kind):
        raise ModelFileError(
            f"{path} holds a {type(model).__name__}, and this command wants what '{maker}' "
            f"writes; in Python, hypervlad.load({str(path)!r}) has the model."
        )
    return model


def absolute_weights(weights: str | None) -> str | None:
    """Make a path hold from other folders too: it goes into the model file."""
    return os.path.abspath(weights) if weights is not None and os.path.isfile(weights) else weights


def names_under(root: str | Path, images: Iterable[str | Path]) -> list[str]:
    """Name images by their paths below a folder, with forward slashes."""
    return [Path(image).relative_to(root).as_posix() for image in images]


def load_encoder(
    path: Path, weights: str | None, *, device: str, cache: Path | None
) -> HypercolumnVLAD:
    """Return the encoder of a model file, a classifier's too."""
    from hypervlad.models import load

    model = load(path, weights=weights)
    encoder: HypercolumnVLAD = getattr(model, "encoder_", model)
    return encoder.set_params(device=device, memory=_memory(cache))


def cut_down(cache: Path | None, size: str | None) -> None:
    """Keep a cache within a size."""
    from hypervlad.cache import CacheFolder, parse_size

    if cache is not None and size is not None and cache.is_dir() and any(cache.iterdir()):
        CacheFolder(cache).reduce(parse_size(size))


def check_cache(cache: Path | None, size: str | None) -> None:
    """Find out before hours of work that a cache's size is none, or there is no cache to cut."""
    from hypervlad.cache import parse_size

    if cache is not None and cache.exists() and not cache.is_dir():
        raise ValueError(f"--cache {cache}: a file; give a folder, which is made if need be.")
    if size is not None:
        parse_size(size)
        if cache is None:
            raise ValueError("--cache-size needs --cache, the folder that it is the size of.")


def _memory(cache: Path | None) -> str | None:
    return None if cache is None else str(cache)


def prepare_file(path: Path) -> None:
    """Find out before hours of work, not after, that a file cannot be written."""
    check_file(path)
    path.parent.mkdir(parents=True, exist_ok=True)


def check_file(path: Path) -> None:
    """Complain if a file cannot be written; nothing is made."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give the name of a file to write.")
    there = next((parent for parent in path.absolute().parents if parent.exists()), None)
    if there is None:
        raise ValueError(
            f"{path}: there is no {path.absolute().anchor} here; choose another place."
        )
    if not there.is_dir():
        raise ValueError(f"{path}: {there} is a file, not a folder; choose another place.")
    if not os.access(there, os.W_OK):
        raise ValueError(f"{there}: no permission to write here; choose another folder.")


def check_page(page: Path | None, table: Path | None) -> None:
    """Find out before hours of work that a page cannot be written."""
    if page is None:
        return
    if page.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"--page {page}: browsers want a name that ends in .html.")
    if table is not None and page.resolve() == table.resolve():
        raise ValueError(f"{page}: page and table cannot be one file; give two names.")
    prepare_file(page)


def check_apart(output: Path, folder: Path) -> None:
    """A report among the images would be a class of its own at the next training."""
    if folder.resolve() in (output.resolve(), *output.resolve().parents):
        raise ValueError(f"{output} lies in the image folder {folder}; put the report elsewhere.")


def root_of(paths: Sequence[str]) -> Path | None:
    """Return the folder that images lie under, if one was given and nothing else."""
    return Path(paths[0]) if len(paths) == 1 and os.path.isdir(paths[0]) else None


def names_of(files: Sequence[Path], paths: Sequence[str]) -> list[str]:
    """Name images by their paths below the folder, or below what they have in common."""
    root: Any = root_of(paths)
    if root is None:
        whole = [file.absolute() for file in files]
        root = os.path.commonpath([file.parent for file in whole])
        return names_under(root, whole)
    return names_under(root, files)


def check_folders(output: Path, paths: Sequence[str]) -> None:
    """Overlays among the images would be taken for such the next time."""
    for path in paths:
        if os.path.isdir(path):
            check_apart(output, Path(path))
        elif os.path.exists(path) or glob.has_magic(path):
            _check_beside(output, path)
    if output.exists() and not output.is_dir():
        raise ValueError(f"{output} is a file; give a folder, which is made if need be.")


def _check_beside(output: Path, path: str) -> None:
    """Complain of images that lie where results go, or a pattern that would find results."""
    found = [path] if os.path.exists(path) else glob.glob(path, recursive=True)
    own = output.resolve()
    for each in found:
        if own in Path(each).resolve().parents:
            raise ValueError(f"{each} lies in {output}, the folder of the results; choose another.")
    if not os.path.exists(path) and _reaches_into(path, Path(os.path.abspath(output))):
        raise ValueError(f"{path} would find pictures in {output} too; put the results elsewhere.")


def _reaches_into(pattern: str, folder: Path) -> bool:
    """Whether a pattern fits files in sub-folders of a folder."""
    parts = Path(os.path.abspath(pattern)).parts
    for part, name in zip(parts, folder.parts, strict=False):
        if part == "**":
            return True
        if not fnmatch.fnmatch(name, part):
            return False
    return len(parts) >= len(folder.parts) + 2


def groups_of(files: list[Path], table: Path, paths: list[str]) -> Any:
    """Return the group of each image, of a table that names them by their paths."""
    from hypervlad.datasets.groups import load_groups

    root = root_of(paths)
    if root is None:
        raise ValueError(f"{table} names images by their paths below one folder: give that folder")
    return load_groups(files, root, table)


def masks_of(files: list[Path], folder: Path, paths: list[str]) -> list[Path | None]:
    """Return the mask of each image in a folder, or None."""
    from hypervlad.images import find_masks

    masks = folder.resolve()
    inside = [file for file in files if masks in file.resolve().parents]
    if inside:
        raise ValueError(
            f"{inside[0]} lies in the folder of masks, {folder}; give the images' own folder."
        )
    return find_masks(files, folder, root_of(paths))
