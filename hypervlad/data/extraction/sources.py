"""The images of an extraction: a folder, a list or a stream, cut into tasks."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from hypervlad.features.encoder import LoadedImage
from hypervlad.features.encoder.parallel import absolute_path
from hypervlad.images import ImageReadError, SkippedImage, find_images
from hypervlad.images.files import composed
from hypervlad.images.reading import check_image_list

_DIGEST = re.compile("[0-9a-f]{64}")

#: Size in bytes and modification time (ns) of a file; None for an array or a missing file.
Stamp: TypeAlias = tuple[int | None, int | None]


@dataclass(frozen=True)
class Item:
    """One image; its path in the table is relative, with forward slashes; None for an array."""

    image: Any
    path: str | None
    label: str | None

    def stamp(self) -> Stamp:
        if self.path is None:
            return None, None
        try:
            status = os.stat(self.image)
        except (OSError, ValueError):
            return None, None
        return status.st_size, status.st_mtime_ns


@dataclass(frozen=True)
class SourceRecord:
    """One image as it was when it was read, or why it could not be read.

    Up to ``pixel_size``, the fields are columns of the table of features. ``name`` is that in
    errors; ``size`` (bytes) and ``time`` (ns) are those of a file before it was read.
    """

    path: str | None
    label: str | None
    digest: str | None
    height: int | None
    width: int | None
    channels: int | None
    pixel_size: float | None
    name: str | None
    reason: str | None
    size: int | None
    time: int | None

    @classmethod
    def of(cls, item: Item, image: LoadedImage | SkippedImage, stamp: Stamp) -> SourceRecord:
        path, label = item.path, item.label
        if isinstance(image, SkippedImage):
            name, reason = escape_bytes(image.name), escape_bytes(image.reason)
            return cls(path, label, None, None, None, None, None, name, reason, *stamp)
        info = image.info
        height, width = info.shape[:2]
        channels = 1 if len(info.shape) == 2 else info.shape[2]
        image_facts = info.digest, height, width, channels, info.pixel_size
        return cls(path, label, *image_facts, None, None, *stamp)

    @classmethod
    def checked(cls, *values: Any) -> SourceRecord:
        """Return the record with these values; raise if another program has written others."""
        record = cls(*values)
        for each in (record.path, record.label, record.digest, record.name, record.reason):
            if each is not None:
                str.encode(each)  # raises for what is no text, or none that a table can hold
        for number, most in (
            (record.height, 2**31),
            (record.width, 2**31),
            (record.channels, 2**7),
            (record.size, 2**63),
            (record.time, 2**63),
        ):
            if number is not None and not (type(number) is int and -most <= number < most):
                raise ValueError(f"{number!r} is no such number")
        if record.digest is None:
            is_sound = record.name is not None and record.reason is not None
        else:
            sides = record.height, record.width, record.channels
            pixel_size = 1.0 if record.pixel_size is None else record.pixel_size
            is_sound = (
                _DIGEST.fullmatch(record.digest) is not None
                and record.name is record.reason is None
                and all(side is not None and side > 0 for side in sides)
                and type(pixel_size) is float
                and pixel_size > 0
            )
        if not is_sound:
            raise ValueError("neither an image nor the reason why there is none")
        return record


@dataclass(frozen=True)
class Task:
    """Images that are encoded together, with the position of the first one."""

    number: int
    start: int
    items: list[Item]

    def numbered(self) -> Iterator[tuple[int, Any]]:
        return ((position, item.image) for position, item in enumerate(self.items, self.start))

    def with_absolute_paths(self) -> Task:
        """Return the task with paths that another process finds too."""
        return replace(self, items=[replace(i, image=absolute_path(i.image)) for i in self.items])


@dataclass
class Source:
    """Images in their order; how many there are is None for a stream."""

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
    root: str | os.PathLike[str] | None = None,
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
) -> Source:
    """Return the images of a folder, a list or a stream; raise if there are none."""
    base = None if root is None else Path(root)
    if isinstance(images, str | os.PathLike) and os.path.isdir(images):
        return _of_folder(Path(images), base, include, exclude)
    if isinstance(images, str | os.PathLike) and not os.path.exists(images):
        raise ImageReadError(
            f"{os.fspath(images)}: no such folder; check the path for typing errors"
        )
    if include or exclude:
        raise ValueError("include and exclude select files of a folder; give a folder")
    if isinstance(images, Iterable) and not isinstance(images, Sized):
        return Source((_item(image, base) for image in images), None)
    items = [_item(image, base) for image in check_image_list(images)]
    return Source(items, len(items))


def _of_folder(
    folder: Path, root: Path | None, include: str | Sequence[str], exclude: str | Sequence[str]
) -> Source:
    """Return a folder's images; the label of each is the first folder below that it is in."""
    items = []
    for file in find_images(folder, include=include, exclude=exclude):
        first, *more = file.relative_to(folder).parts
        items.append(_item(file, root or folder, composed(first) if more else None))
    return Source(items, len(items))


def _item(image: Any, root: Path | None, label: str | None = None) -> Item:
    is_path = isinstance(image, str | os.PathLike)
    return Item(image, escape_bytes(_below(Path(image), root)) if is_path else None, label)


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
