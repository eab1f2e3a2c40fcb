"""Folders of labelled images: one sub-folder per class; what a folder or a table lists."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hypervlad.datasets.groups import (
    ImageFolderError,
    ImageFolderWarning,
    load_groups,
)
from hypervlad.images import ImageReadError, find_images
from hypervlad.images.files import composed, is_left_out, parts_below
from hypervlad.user_warnings import warn_user
from hypervlad.wording import counted, name_some, verb


@dataclass
class FolderLayout:
    """The labelled images of a folder, or of a table.

    Attributes
    ----------
    root : Path
    files : list of Path
        Images inside class folders, sorted by their path under ``root`` with forward slashes, so
        that the order is the same on every system.
    labels : list of str
        Name of the first folder below ``root``, for each image, in composed Unicode.
    loose : list of Path
        Images directly in ``root``, which have no class.
    empty_classes : list of str
        Folders below ``root`` without an image.
    table : Path or None
        The table, in the folder ``root``, that names images and labels; None for a folder.
    groups : list of str or None
        The group of each image, if the table has groups.
    by_model : list of bool or None
        Whether a model gave the label of each image; None for a folder.
    """

    root: Path
    files: list[Path]
    labels: list[str]
    loose: list[Path]
    empty_classes: list[str]
    table: Path | None = None
    groups: list[str] | None = None
    by_model: list[bool] | None = None

    def relative(self, file: Path) -> str:
        """Return a file's path under ``root``, with forward slashes."""
        return "/".join(parts_below(file, self.root))

    def load_groups(self, groups: str | os.PathLike[str] | None) -> NDArray[np.str_] | None:
        """Return the group of each image, from a file of groups or from the table of labels.

        Raises
        ------
        ImageFolderError
            If both give groups, or the file does not match the images.
        """
        if self.groups is None:
            return None if groups is None else load_groups(self.files, self.root, groups)
        if groups is not None:
            raise ImageFolderError(
                f"{self.table}: has a column of groups, and so has {os.fspath(groups)}; give only "
                "one of them."
            )
        return np.array(self.groups)


def scan_folder(directory: str | os.PathLike[str]) -> FolderLayout:
    """List the images of a folder by class, without opening any.

    Raises
    ------
    ImageFolderError
        If ``directory`` is not an existing folder.
    """
    root = _existing_folder(directory)
    try:
        found = find_images(root)
    except ImageReadError:
        found = []
    found.sort(key=lambda file: file.relative_to(root).as_posix())
    parts = [file.relative_to(root).parts for file in found]
    files = [file for file, part in zip(found, parts, strict=True) if len(part) > 1]
    labels = [composed(part[0]) for part in parts if len(part) > 1]
    folders = [p.name for p in root.iterdir() if os.path.isdir(p) and not is_left_out(p.name)]
    class_folders = map(composed, folders)
    return FolderLayout(
        root=root,
        files=files,
        labels=labels,
        loose=[file for file, part in zip(found, parts, strict=True) if len(part) == 1],
        empty_classes=sorted(set(class_folders) - set(labels)),
    )


def check_classes(layout: FolderLayout) -> None:
    """Raise `ImageFolderError` unless there are images of two classes."""
    root = layout.root
    for link, name in _links_to_classes(layout):
        raise ImageFolderError(
            f"{root}: the class {link} is a link into the folder of the class {name}, so the same "
            "images would be in two classes. Decide which class is right, and remove the link."
        )
    if not layout.files:
        if layout.loose:
            raise ImageFolderError(
                f"{root}: {counted(len(layout.loose), 'image')} "
                f"{verb(len(layout.loose), 'lies', 'lie')} directly in this folder; expected one "
                "sub-folder per class with the images inside. Move images into sub-folders named "
                "after their classes."
            )
        where = f"its sub-folders {name_some(layout.empty_classes)}" if layout.empty_classes else ""
        raise ImageFolderError(
            f"{root}: no images in it{' or in ' + where if where else ''}; expected one sub-folder "
            "per class with the images inside."
        )
    classes = sorted(set(layout.labels))
    if len(classes) < 2 and layout.table is not None:
        raise ImageFolderError(
            f"{layout.table}: images of one class only ({classes[0]!r}); expected at least two "
            "labels."
        )
    if len(classes) < 2:
        raise ImageFolderError(
            f"{root}: images of one class only ({classes[0]!r}); expected at least two sub-folders "
            "with images. If this is a single class of your data, give the folder above it."
        )


def _links_to_classes(layout: FolderLayout) -> Iterator[tuple[str, str]]:
    """Yield the class folders that are links into another class folder, and that one's name."""
    if layout.table is not None or not layout.empty_classes:
        return
    folders = [path for path in sorted(layout.root.iterdir()) if path.is_dir()]
    of_others = [path for path in folders if composed(path.name) not in layout.empty_classes]
    for link in folders:
        if composed(link.name) in layout.empty_classes:
            target = Path(os.path.realpath(link))
            for other in of_others:
                if Path(os.path.realpath(other)) in (target, *target.parents):
                    yield link.name, other.name


def names_in_several_forms(layout: FolderLayout) -> list[str]:
    """Return the paths of files and folders that exist in several Unicode forms, sorted."""
    spellings = defaultdict(set)
    for file in layout.files:
        parts = parts_below(file, layout.root)
        for n in range(1, len(parts) + 1):
            spellings[composed("/".join(parts[:n]))].add("/".join(parts[:n]))
    return sorted(name for name, stored in spellings.items() if len(stored) > 1)


def alike_classes(labels: Iterable[str]) -> list[str]:
    """Return the classes that differ from another one only in upper and lower case, sorted."""
    spellings = defaultdict(list)
    for name in sorted(set(labels)):
        spellings[name.casefold()].append(name)
    return [name for names in spellings.values() if len(names) > 1 for name in names]


def _existing_folder(directory: str | os.PathLike[str]) -> Path:
    if not isinstance(directory, (str, os.PathLike)):
        raise ImageFolderError(
            f"expected the path of a folder or a table of images, got {type(directory).__name__}."
        )
    if isinstance(directory, str) and not directory.strip():
        raise ImageFolderError("'': an empty path; give the folder that holds the class folders.")
    root = Path(directory).expanduser()
    if not root.exists():
        raise ImageFolderError(f"{root}: no such folder or table (looked in {Path.cwd()}).")
    return root


def warn_of_oddities(layout: FolderLayout) -> None:
    """Warn of folders without images, images without a class, and classes of almost one name."""
    alike = alike_classes(layout.labels)
    if alike:
        warn_user(
            f"{layout.table or layout.root}: the classes {name_some(alike)} differ only in upper "
            "and lower case, and are separate classes; spell them alike if they are one.",
            ImageFolderWarning,
        )
    same = names_in_several_forms(layout)
    if same:
        warn_user(
            f"{layout.table or layout.root}: stored in several Unicode forms: {name_some(same)}. "
            "macOS writes accents in another way than other systems. Folders of one name are one "
            "class; check whether their images are copies.",
            ImageFolderWarning,
        )
    if layout.empty_classes:
        warn_user(
            f"{layout.root}: no images in "
            f"{verb(len(layout.empty_classes), 'the sub-folder', 'these sub-folders')} "
            f"{name_some(layout.empty_classes)}; "
            "there will be no such class.",
            ImageFolderWarning,
        )
    if layout.loose:
        names = name_some([file.name for file in layout.loose])
        warn_user(
            f"{layout.root}: {counted(len(layout.loose), 'image')} beside the class folders left "
            f"out ({names}); move each into the folder of its class.",
            ImageFolderWarning,
        )
