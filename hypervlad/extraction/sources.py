"""The images of an extraction: a folder, a list or a stream, cut into tasks."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from hypervlad.encoder.parallel import absolute_path
from hypervlad.images import ImageReadError, check_image_list, find_images
from hypervlad.images.files import composed
from hypervlad.wording import counted

#: Size in bytes and modification time (ns) of a file; None for an array or a missing file.
Stamp: TypeAlias = tuple[int | None, int | None]


@dataclass(frozen=True)
class Item:
    """One image of a source.

    Attributes
    ----------
    image : path or array
    path : str or None
        Its name in the table: relative, with forward slashes; None for an array.
    label : str or None
    """

    image: Any
    path: str | None
    label: str | None

    def stamp(self) -> Stamp:
        """Return the file's size and modification time, as they are now."""
        if self.path is None:
            return None, None
        try:
            status = os.stat(self.image)
        except (OSError, ValueError):
            return None, None
        return status.st_size, status.st_mtime_ns


@dataclass(frozen=True)
class Task:
    """Images that are encoded together, with the position of the first one."""

    number: int
    start: int
    items: list[Item]

    def numbered(self) -> Iterator[tuple[int, Any]]:
        """Yield positions and images."""
        return ((position, item.image) for position, item in enumerate(self.items, self.start))

    def with_absolute_paths(self) -> Task:
        """Return the task with paths that another process finds too."""
        return replace(self, items=[replace(i, image=absolute_path(i.image)) for i in self.items])


@dataclass
class Source:
    """Images in their order.

    Attributes
    ----------
    items : iterable of Item
    n_images : int or None
        None for a stream, whose length is unknown.
    """

    items: Iterable[Item]
    n_images: int | None

    def listed(self) -> list[Item]:
        """Return all images; not for a stream, because all would be in memory."""
        self.items = list(self.items)
        return self.items

    def tasks(self, size: int) -> Iterator[Task]:
        """Cut the images into tasks of this many."""
        items = iter(self.items)
        for number in itertools.count():
            some = list(itertools.islice(items, size))
            if not some:
                return
            yield Task(number, number * size, some)


def open_source(
    images: Any,
    root: str | os.PathLike[str] | None,
    labels: Iterable[str | None] | None,
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
) -> Source:
    """Return the images of a folder, a list or a stream.

    Raises
    ------
    ImageReadError
        If there are none.
    ValueError
        If a path lies outside ``root``, or there are not as many labels as images.
    """
    if isinstance(images, str | os.PathLike) and os.path.isdir(images):
        return _of_folder(Path(images), root, labels, include, exclude)
    if isinstance(images, str | os.PathLike) and not os.path.exists(images):
        raise ImageReadError(
            f"{os.fspath(images)}: no such folder; check the path for typing errors"
        )
    if include or exclude:
        raise ValueError("include and exclude select files of a folder; give a folder")
    streamed = isinstance(images, Iterable) and not isinstance(images, Sized)
    listed = images if streamed else check_image_list(images)
    n_images = None if streamed else len(listed)
    if labels is not None and n_images is not None:
        labels = list(labels)
        if len(labels) != n_images:
            raise ValueError(
                f"there are {counted(n_images, 'image')} and {counted(len(labels), 'label')}"
            )
    base = None if root is None else Path(root)
    items = _items(listed, base, labels)
    return Source(items if streamed else list(items), n_images)  # errors in a list come at once


def _of_folder(
    folder: Path,
    root: str | os.PathLike[str] | None,
    labels: Iterable[str | None] | None,
    include: str | Sequence[str],
    exclude: str | Sequence[str],
) -> Source:
    """Return a folder's images; the label of each is the first folder below that it is in."""
    if labels is not None:
        raise ValueError("the labels of a folder's images are its sub-folders; give a list of both")
    base = folder if root is None else Path(root)
    files = find_images(folder, include=include, exclude=exclude)
    inside = [file.relative_to(folder).parts for file in files]
    named = [composed(parts[0]) if len(parts) > 1 else None for parts in inside]
    return Source(_items(files, base, named), len(files))


def _items(
    images: Iterable[Any], root: Path | None, labels: Iterable[str | None] | None
) -> Iterator[Item]:
    named = itertools.repeat(None) if labels is None else iter(labels)
    for image in images:
        try:
            label = next(named)
        except StopIteration:
            raise ValueError("the labels ended before the images did") from None
        is_path = isinstance(image, str | os.PathLike)
        path = _relative(Path(image), root) if is_path else None
        yield Item(image, path, None if label is None else str(label))


def _relative(path: Path, root: Path | None) -> str:
    return escape_bytes(_below(path, root))


def escape_bytes(text: str) -> str:
    """Escape the bytes of a file's name that are not text, which a table cannot hold."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _below(path: Path, root: Path | None) -> str:
    if root is None:
        if path.is_absolute():
            raise ValueError(
                f"{path} is absolute, and a table of features holds no absolute paths; give "
                "root=, the folder that paths are relative to"
            )
        return path.as_posix()
    inside, base = os.path.abspath(path), os.path.join(os.path.abspath(root), "")
    if not os.path.normcase(inside).startswith(os.path.normcase(base)):
        raise ValueError(f"{path} is not in root={os.fspath(root)!r}")
    return inside[len(base) :].replace(os.sep, "/")
