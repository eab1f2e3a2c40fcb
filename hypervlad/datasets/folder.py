"""Labelled images from a folder with one sub-folder per class."""

from __future__ import annotations

import os
import warnings

import numpy as np
from sklearn.utils import Bunch

from hypervlad.datasets._layout import (
    FolderLayout,
    ImageFolderWarning,
    check_classes,
    name_some,
    scan_folder,
)
from hypervlad.datasets.groups import load_groups


def load_image_folder(
    dir: str | os.PathLike[str], groups: str | os.PathLike[str] | None = None
) -> Bunch:
    """List the labelled images of a folder: each sub-folder is a class.

    Nothing is opened: the images are paths, which the estimators read when they need them.
    Folders inside a class folder belong to that class. Masks (``*_mask.*``), hidden files and
    files that are no images by their suffix are left out.

    Parameters
    ----------
    dir : path
        Folder with at least two sub-folders that hold images.
    groups : path, optional
        CSV file with the columns ``path`` and ``group``: images of one group (crops of one
        micrograph, frames of one sample) must never be split between training and test. A path may
        be the end of the image's path, such as ``class/name.tif``; each image needs one line.

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
        A ValueError: folder missing or empty, images of fewer than two classes, or a file of
        groups that does not fit the images one to one.

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
    return Bunch(
        images=[str(file) for file in layout.files],
        target=np.array(layout.labels),
        groups=None if groups is None else load_groups(layout.files, layout.root, groups),
        target_names=sorted(set(layout.labels)),
        root=str(layout.root),
    )


def _warn_left_out(layout: FolderLayout) -> None:
    if layout.empty_classes:
        warnings.warn(
            f"{layout.root}: no images in the sub-folder(s) {name_some(layout.empty_classes)}; "
            "there will be no such class.",
            ImageFolderWarning,
            stacklevel=3,
        )
    if layout.loose:
        names = name_some([file.name for file in layout.loose])
        warnings.warn(
            f"{layout.root}: {len(layout.loose)} image(s) beside the class folders are left out "
            f"({names}); move them into the folder of their class.",
            ImageFolderWarning,
            stacklevel=3,
        )
