"""Checks, before any work, that results can be written, and will not be read as images."""

from __future__ import annotations

import fnmatch
import glob
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from hypervlad.common.files import check_writable
from hypervlad.common.modelfile import read_model
from hypervlad.common.workbooks import check_workbook


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
        raise ValueError(f"{existing}: no permission to write; write elsewhere, with --output.")
    if path.exists() and any(_is_read(path, each) for each in inputs if each is not None):
        raise ValueError(f"{path} is read by this command; give the result another name.")


def check_table(path: Path, *inputs: str | Path | None) -> None:
    """Do the same for a table, which may be a workbook."""
    check_file(path, *inputs)
    check_workbook(path)


def check_model(path: Path, *inputs: str | Path | None) -> None:
    """Do the same for a model, which replaces only another model."""
    check_file(path, *inputs)
    if path.is_file():
        try:
            read_model(path, header_only=True)
        except ValueError as error:
            raise ValueError(f"{path} exists and is not a model; give another name.") from error


def _is_read(path: Path, given: str | Path) -> bool:
    from hypervlad.images.files import IMAGE_SUFFIXES, list_matches  # not above: it loads scipy

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
            f"{output} is inside the image folder {folder}; write the results elsewhere."
        )


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


def check_folders(
    output: Path, paths: Sequence[str], *used: str | Path | None, tables: Iterable[str] = ()
) -> None:
    """Raise if the next run with the same paths would read the results as images.

    Nor may `tables` of the folder, which are written, be files that are `used`.
    """
    for path in paths:
        if os.path.isdir(path):
            check_apart(output, Path(path))
        elif os.path.exists(path) or glob.has_magic(path):
            _check_pattern(output, path)
    if output.exists() and not output.is_dir():
        raise ValueError(f"{output} is a file; give a folder, which is created if needed.")
    for table in tables:
        check_file(output / table, *used)


def _check_pattern(output: Path, path: str) -> None:
    from hypervlad.images.files import list_matches

    found = [path] if os.path.exists(path) else list_matches(path)
    for each in found:
        if output.resolve() in Path(each).resolve().parents:
            raise ValueError(
                f"{each} is in {output}, the folder of the results; write them elsewhere."
            )
    if not os.path.exists(path) and _matches_inside(path, Path(os.path.abspath(output))):
        raise ValueError(
            f"{path} would also match pictures in {output}; write the results elsewhere."
        )


def _matches_inside(pattern: str, folder: Path) -> bool:
    parts = Path(os.path.abspath(pattern)).parts
    for part, name in zip(parts, folder.parts, strict=False):
        if part == "**":
            return True
        if not fnmatch.fnmatch(name, part):
            return False
    return len(parts) >= len(folder.parts) + 2
