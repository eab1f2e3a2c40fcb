"""Folders of patches: train, validation and test, each with a folder per class."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.utils import Bunch

from hypervlad.common.tables import write_table
from hypervlad.common.wording import counted, name_some
from hypervlad.data.folders.folder import FolderLayout, scan_folder
from hypervlad.data.folders.groups import ImageFolderError, load_groups
from hypervlad.features.windows.patches import PARTS, PatchSet

_GROUPS = "groups.csv"


def write_patch_folder(parts: Mapping[str, PatchSet], dir: str | os.PathLike[str]) -> None:
    """Write patches as image files, ``part/class/image-number_row_column.png``.

    Patches of 8-bit images become PNG, others TIFF of 32-bit floats. ``groups.csv`` says which
    patches belong together.

    Parameters
    ----------
    parts : mapping from "train", "validation" and "test" to PatchSet
        As :func:`hypervlad.features.split_patches` returns them.
    dir : path
        A new or an empty folder.

    Raises
    ------
    ImageFolderError
        If the folder is not empty, or a part has another name.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from hypervlad.data import make_nanofibre_images, write_patch_folder
    >>> from hypervlad.features import cut_patches
    >>> patches = cut_patches(*make_nanofibre_images(2, defective=1.0, size=64, random_state=0))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_patch_folder({"train": patches}, f"{folder}/patches")
    ...     len(list(pathlib.Path(folder).rglob("*.tif"))) == len(patches)
    True
    """
    root = Path(dir).expanduser()
    unknown = sorted(set(parts) - set(PARTS))
    if unknown or "train" not in parts:
        given = name_some(sorted(parts)) or "none"
        raise ImageFolderError(
            f"expected the parts {', '.join(PARTS)}, of which {PARTS[0]} is required; got {given}."
        )
    if root.is_file() or (root.is_dir() and any(root.iterdir())):
        raise ImageFolderError(f"{root}: expected a new or an empty folder for the patches.")
    root.parent.mkdir(parents=True, exist_ok=True)
    # All or nothing: an incomplete folder would look complete, and without groups.
    with tempfile.TemporaryDirectory(dir=root.parent, prefix=f".{root.name}.") as scratch:
        whole = Path(scratch, "whole")
        _write_all(parts, whole)
        if root.is_dir():
            root.rmdir()
        os.replace(whole, root)


def load_patch_folder(dir: str | os.PathLike[str]) -> dict[str, Bunch]:
    """List the patches of a folder with the parts train, validation and test.

    No image is opened. In each part, a sub-folder is a class, usually "anomalous" and "normal".

    Parameters
    ----------
    dir : path
        With ``train`` at least, and optionally ``groups.csv`` (path, group).

    Returns
    -------
    parts : dict of Bunch
        For each existing part, ``images``: list of str, sorted; ``target``: array of str, the class
        of each; ``groups``: array of str, or None.

    Raises
    ------
    ImageFolderError
        If there is no part "train", a part holds no images or images outside of classes,
        ``groups.csv`` does not match, or a group has patches in two parts.

    Examples
    --------
    >>> import tempfile
    >>> from hypervlad.data import load_patch_folder, make_nanofibre_images, write_patch_folder
    >>> from hypervlad.features import cut_patches
    >>> patches = cut_patches(*make_nanofibre_images(2, defective=1.0, size=64, random_state=0))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_patch_folder({"train": patches}, f"{folder}/patches")
    ...     parts = load_patch_folder(f"{folder}/patches")
    >>> list(parts), len(parts["train"].images) == len(patches)
    (['train'], True)
    """
    root = Path(dir).expanduser()
    if root.is_dir() and not (root / "train").is_dir():
        raise ImageFolderError(
            f"{root}: no sub-folder 'train'; expected {', '.join(PARTS)}, with a folder for each "
            "class in them."
        )
    existing = [part for part in PARTS if part == "train" or (root / part).is_dir()]
    layouts = {part: scan_folder(root / part) for part in existing}
    for layout in layouts.values():
        _check_part(layout)
    table = root / _GROUPS
    files = [file for layout in layouts.values() for file in layout.files]
    groups = load_groups(files, root, table) if table.exists() else None
    parts, start = {}, 0
    for part, layout in layouts.items():
        stop = start + len(layout.files)
        parts[part] = Bunch(
            images=[str(file) for file in layout.files],
            target=np.array(layout.labels),
            groups=None if groups is None else groups[start:stop],
        )
        start = stop
    if groups is not None:
        _check_groups_disjoint(parts, table)
    return parts


def _write_all(parts: Mapping[str, PatchSet], root: Path) -> None:
    rows = []
    for part, patches in parts.items():
        for label in sorted(set(patches.labels.tolist())):
            (root / part / label).mkdir(parents=True)
        for i, pixels in enumerate(patches.pixels):
            stem = root / part / str(patches.labels[i]) / _stem(patches, i)
            file = _write(pixels, stem)
            rows.append((file.relative_to(root).as_posix(), patches.groups[i]))
    write_table(root / _GROUPS, ["path", "group"], rows)


def _stem(patches: PatchSet, i: int) -> str:
    number = int(patches.image_index[i])
    row, column = patches.positions[i]
    # Not hidden, and without characters that some systems do not allow in names.
    name = re.sub(r'[\\/:*?"<>|]', "_", patches.names[number]).lstrip(".")
    # The number distinguishes images with the same name in two folders.
    return f"{name}-{number}_{row}_{column}"


def _write(pixels: NDArray[np.float32], stem: Path) -> Path:
    eight_bit = np.rint(pixels * 255).astype(np.uint8)
    if np.array_equal(eight_bit.astype(np.float32) / np.float32(255), pixels):
        file = stem.with_name(f"{stem.name}.png")
        Image.fromarray(eight_bit).save(file)
        return file
    import tifffile  # slow to import, and seldom needed

    file = stem.with_name(f"{stem.name}.tif")
    tifffile.imwrite(file, pixels, photometric="rgb" if pixels.ndim == 3 else "minisblack")
    return file


def _check_part(layout: FolderLayout) -> None:
    if not layout.files or layout.loose:
        what = (
            f"{counted(len(layout.loose), 'image')} outside of them"
            if layout.loose
            else "no images"
        )
        raise ImageFolderError(
            f"{layout.root}: {what}; expected a folder for each class, such as 'anomalous' and "
            "'normal', with the patches inside."
        )


def _check_groups_disjoint(parts: Mapping[str, Bunch], table: Path) -> None:
    part_of: dict[str, str] = {}
    for part, data in parts.items():
        for group in sorted(set(data.groups.tolist())):
            if group in part_of:
                raise ImageFolderError(
                    f"{table}: patches of group {group!r} lie in {part_of[group]} and in {part}; "
                    "test data must not be used for training. Move them into one part."
                )
            part_of[group] = part
