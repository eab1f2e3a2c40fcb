"""Labelled images, from a folder with one sub-folder per class or from a table."""

from __future__ import annotations

import os

import numpy as np
from sklearn.utils import Bunch

from hypervlad.datasets.folder import FolderLayout, check_classes, scan_folder, warn_of_oddities
from hypervlad.datasets.label_table import scan_table


def load_image_folder(
    source: str | os.PathLike[str], groups: str | os.PathLike[str] | None = None
) -> Bunch:
    """List labelled images: those of a folder, whose sub-folders are the classes, or of a table.

    No image is opened: the result holds paths, which the estimators read when they need them.

    Parameters
    ----------
    source : path
        A folder with at least two sub-folders that hold images. Folders inside a class folder
        belong to that class. Masks (``*_mask.*``), hidden files and files without the suffix of an
        image are ignored.

        Or a CSV file with the columns ``path`` and ``label``, and optionally ``group``, in any
        order among others; separated by a comma, a semicolon or a tab. Paths are relative to the
        folder of the table. Of the table that ``hypervlad review export`` writes, with all its
        columns, ``file`` is used, which has complete paths.
    groups : path, optional
        CSV file with the columns ``path`` and ``group``: images of one group (crops of one
        micrograph, frames of one sample) must never be split between training and test. A path may
        be the end of an image's path, such as ``class/name.tif``; each image needs one line.

    Returns
    -------
    Bunch
        ``images`` : list of n str, sorted by their paths relative to ``root``, the same order on
        every system.
        ``target`` : array of shape (n,), str, the class of each image.
        ``groups`` : array of shape (n,), str, or None.
        ``by_model`` : array of shape (n,), bool, whether a model gave the label: the table has a
        column ``source``, as that of ``hypervlad review export``, and it is ``model``.
        ``target_names`` : list of the classes, sorted.
        ``root`` : str, the folder, or that of the table.

    Raises
    ------
    ImageFolderError
        A ValueError: folder or table are missing or empty; there are images of fewer than two
        classes; groups do not match the images one to one, or are in both tables; a table lacks a
        column, has a line without a path, a label or a group, names an image that does not exist,
        or gives one image two labels or groups.

    Warns
    -----
    ImageFolderWarning
        If a class folder holds no images, or images lie beside the class folders; if names of
        classes differ only in upper and lower case; if a table lists an image twice, with the same
        label, or its column of groups has another name, such as ``sample``.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from hypervlad.datasets import load_image_folder
    >>> with tempfile.TemporaryDirectory() as root:
    ...     for name in ("fiber/1.png", "matrix/1.png", "matrix/1_mask.png"):
    ...         file = pathlib.Path(root, name)
    ...         file.parent.mkdir(exist_ok=True)
    ...         file.touch()
    ...     folder = load_image_folder(root)
    ...     table = pathlib.Path(root, "labels.csv")
    ...     _ = table.write_text("path,label,group\\nmatrix/1.png,b,2\\nfiber/1.png,a,1\\n")
    ...     listed = load_image_folder(table)
    >>> folder.target.tolist(), folder.groups
    (['fiber', 'matrix'], None)
    >>> listed.target.tolist(), listed.groups.tolist()
    (['a', 'b'], ['1', '2'])
    """
    layout = scan_images(source)
    check_classes(layout)
    warn_of_oddities(layout)
    return Bunch(
        images=[str(file) for file in layout.files],
        target=np.array(layout.labels),
        groups=layout.load_groups(groups),
        by_model=np.array(layout.by_model or [False] * len(layout.files)),
        target_names=sorted(set(layout.labels)),
        root=str(layout.root),
    )


def scan_images(source: str | os.PathLike[str]) -> FolderLayout:
    """List the labelled images of a folder, or of a table if ``source`` is a file.

    Raises
    ------
    ImageFolderError
    """
    is_path = isinstance(source, str | os.PathLike)
    is_table = is_path and os.path.isfile(os.path.expanduser(source))
    return scan_table(source) if is_table else scan_folder(source)
