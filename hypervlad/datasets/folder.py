"""Folders of labelled images: one sub-folder per class."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import Bunch

from hypervlad.datasets.groups import (
    ImageFolderError,
    ImageFolderWarning,
    load_groups,
    parts_below,
)
from hypervlad.images import ImageReadError, find_images
from hypervlad.wording import counted, name_some, verb


def load_image_folder(
    dir: str | os.PathLike[str], groups: str | os.PathLike[str] | None = None
) -> Bunch:
    """List the labelled images of a folder: each sub-folder is a class.

    No image is opened: the result holds paths, which the estimators read when they need them.
    Folders inside a class folder belong to that class. Masks (``*_mask.*``), hidden files and
    files without the suffix of an image are ignored.

    Parameters
    ----------
    dir : path
        Folder with at least two sub-folders that hold images.
    groups : path, optional
        CSV file with the columns ``path`` and ``group``: images of one group (crops of one
        micrograph, frames of one sample) must never be split between training and test. A path may
        be the end of an image's path, such as ``class/name.tif``; each image needs one line.

    Returns
    -------
    Bunch
        ``images`` : list of n str, sorted, the same order on every system.
        ``target`` : array of shape (n,), str, the class of each image.
        ``groups`` : array of shape (n,), str, or None.
        ``target_names`` : list of the classes, sorted.
        ``root`` : str, the folder.

    Raises
    ------
    ImageFolderError
        A ValueError: the folder is missing or empty, has images of fewer than two classes, or the
        file of groups does not match the images one to one.

    See Also
    --------
    load_image_table : labels from a table.

    Warns
    -----
    ImageFolderWarning
        If a class folder holds no images, or images lie beside the class folders.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from hypervlad.datasets import load_image_folder
    >>> with tempfile.TemporaryDirectory() as root:
    ...     for name in ("fiber/1.png", "matrix/1.png", "matrix/1_mask.png"):
    ...         file = pathlib.Path(root, name)
    ...         file.parent.mkdir(exist_ok=True)
    ...         file.touch()
    ...     data = load_image_folder(root)
    >>> data.target.tolist(), data.groups
    (['fiber', 'matrix'], None)
    """
    layout = scan_folder(dir)
    check_classes(layout)
    _warn_left_out(layout)
    return labelled_images(layout, groups)


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
        Name of the first folder below ``root``, for each image.
    loose : list of Path
        Images directly in ``root``, which have no class.
    empty_classes : list of str
        Folders below ``root`` without an image.
    table : Path or None
        The table, in the folder ``root``, that names images and labels; None for a folder.
    groups : list of str or None
        The group of each image, if the table has groups.
    """

    root: Path
    files: list[Path]
    labels: list[str]
    loose: list[Path]
    empty_classes: list[str]
    table: Path | None = None
    groups: list[str] | None = None

    def relative(self, file: Path) -> str:
        """Return a file's path under ``root``, with forward slashes."""
        return "/".join(parts_below(file, self.root))


def labelled_images(layout: FolderLayout, groups: str | os.PathLike[str] | None) -> Bunch:
    """Return the images of a folder or a table with their labels and groups."""
    return Bunch(
        images=[str(file) for file in layout.files],
        target=np.array(layout.labels),
        groups=groups_of(layout, groups),
        target_names=sorted(set(layout.labels)),
        root=str(layout.root),
    )


def groups_of(
    layout: FolderLayout, groups: str | os.PathLike[str] | None
) -> NDArray[np.str_] | None:
    """Return the group of each image, from a file of groups or from the table of labels.

    Raises
    ------
    ImageFolderError
        If both give groups, or the file does not match the images.
    """
    if layout.groups is None:
        return None if groups is None else load_groups(layout.files, layout.root, groups)
    if groups is not None:
        raise ImageFolderError(
            f"{layout.table}: has a column of groups, and so has {os.fspath(groups)}; give only "
            "one of them."
        )
    return np.array(layout.groups)


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
    labels = [part[0] for part in parts if len(part) > 1]
    class_folders = [p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")]
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


def _existing_folder(directory: str | os.PathLike[str]) -> Path:
    if not isinstance(directory, (str, os.PathLike)):
        raise ImageFolderError(
            f"expected the path of a folder of images, got {type(directory).__name__}."
        )
    if isinstance(directory, str) and not directory.strip():
        raise ImageFolderError("'': an empty path; give the folder that holds the class folders.")
    root = Path(directory).expanduser()
    if not root.exists():
        raise ImageFolderError(f"{root}: no such folder (looked in {Path.cwd()}).")
    if not root.is_dir():
        raise ImageFolderError(
            f"{root}: a file; expected a folder with one sub-folder of images per class "
            "(load_image_table reads a table of labels)."
        )
    return root


def _warn_left_out(layout: FolderLayout) -> None:
    if layout.empty_classes:
        warnings.warn(
            f"{layout.root}: no images in "
            f"{verb(len(layout.empty_classes), 'the sub-folder', 'these sub-folders')} "
            f"{name_some(layout.empty_classes)}; "
            "there will be no such class.",
            ImageFolderWarning,
            stacklevel=3,
        )
    if layout.loose:
        names = name_some([file.name for file in layout.loose])
        warnings.warn(
            f"{layout.root}: {counted(len(layout.loose), 'image')} beside the class folders left "
            f"out ({names}); move each into the folder of its class.",
            ImageFolderWarning,
            stacklevel=3,
        )
