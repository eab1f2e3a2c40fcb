"""Which files of a folder are images, and which class each belongs to."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from hypervlad.images import ImageReadError, find_images

N_NAMED = 5


class ImageFolderError(ValueError):
    """A folder, or its file of groups, that does not describe a labelled set of images."""


class ImageFolderWarning(UserWarning):
    """Something in a folder that is left out, and that its owner may have meant to be used."""


@dataclass(frozen=True)
class FolderLayout:
    """What lies in a folder of labelled images.

    Attributes
    ----------
    root : Path
    files : list of Path
        Images inside class folders, sorted by their path under ``root`` with forward slashes, so
        that the order is the same on every system.
    labels : list of str
        Name of the first folder below ``root``, for each image.
    loose : list of Path
        Images that lie directly in ``root``, and so have no class.
    empty_classes : list of str
        Folders below ``root`` without an image.
    """

    root: Path
    files: list[Path]
    labels: list[str]
    loose: list[Path]
    empty_classes: list[str]

    def relative(self, file: Path) -> str:
        """Path under ``root``, with forward slashes."""
        return file.relative_to(self.root).as_posix()


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
                f"{root}: {len(layout.loose)} images lie directly in this folder; expected one "
                "sub-folder per class with the images inside. Move them into sub-folders named "
                "after their classes."
            )
        where = f"its sub-folders {name_some(layout.empty_classes)}" if layout.empty_classes else ""
        raise ImageFolderError(
            f"{root}: no images in it{' or in ' + where if where else ''}; expected one sub-folder "
            "per class with the images inside."
        )
    classes = sorted(set(layout.labels))
    if len(classes) < 2:
        raise ImageFolderError(
            f"{root}: images of one class only ({classes[0]!r}); expected at least two sub-folders "
            "with images. If this is a single class of your data, give the folder above it."
        )


def name_some(names: list[str]) -> str:
    """The first few names, and how many more there are."""
    shown = ", ".join(names[:N_NAMED])
    return shown if len(names) <= N_NAMED else f"{shown} and {len(names) - N_NAMED} more"


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
            f"{root}: a file; expected a folder with one sub-folder of images per class."
        )
    return root
