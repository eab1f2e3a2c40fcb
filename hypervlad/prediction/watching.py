"""Classifying the images of folders as they appear."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypervlad.classifier import Classification
from hypervlad.images import ImageReadError, SkippedImage, find_images
from hypervlad.prediction.table import GrowingTable, absolute_name

INTERVAL = 1.0  # seconds between two polls of the folders
SETTLED = 3.0  # seconds for which a file does not change before it is read
_RETRY = 60.0  # seconds after which a failure is tried again, and each time twice as many
_MAX_BATCH = 16  # images whose lines are written together
_NAP = 0.1  # seconds after which a request to stop is noticed
_IDLE = 5  # a poll of the folders may take a sixth of the time, on a slow network

Stamp = tuple[int, int]


@dataclass
class _NewImage:
    """An image that is not in the table.

    Attributes
    ----------
    stamp : (int, int)
        Size and time of the file.
    due : float
        When to classify it, unless it changes before.
    n_failed : int
        How often that failed.
    skipped : SkippedImage or None
        Why it could not be read.
    """

    file: Path
    stamp: Stamp
    due: float
    n_failed: int = 0
    skipped: SkippedImage | None = None

    def postpone(self, skipped: SkippedImage | None) -> None:
        self.due = time.monotonic() + _RETRY * 2**self.n_failed
        self.n_failed += 1
        self.skipped = skipped


def watch_folders(
    classify: Callable[[list[Path]], Classification],
    process: Callable[[list[Path], Classification], Any],
    folders: Sequence[str | os.PathLike[str]],
    table: GrowingTable,
    stopped: Callable[[], bool],
    *,
    unreadable: Callable[[SkippedImage], Any] | None = None,
    interval: float = INTERVAL,
    settled: float = SETTLED,
) -> list[SkippedImage]:
    """Classify each image of folders once, also those that appear later, until ``stopped()``.

    The folders are polled, which also works on network drives. A file is read when its size and
    time have not changed for a while; one that was created with its final size and is filled
    slowly, without a new time, is read too early. What fails is tried again when the file has
    changed, and after a minute, later ones longer: a drive may have failed.

    Parameters
    ----------
    classify : callable
        Returns the `Classification` of some files, with ``on_error="skip"``.
    process : callable
        Called with these files and their `Classification`, to add lines to the table. Files whose
        lines it does not add are tried again.
    folders : sequence of path
        With their sub-folders. One that is missing for a while, such as a network drive, is empty.
    table : GrowingTable
        Images in it are not classified again.
    stopped : callable
        Whether to stop; images that are being classified are finished and written before.
    unreadable : callable, optional
        Called once for each file that cannot be read.
    interval : float, default=1
        Seconds between two polls, at least; more if a poll takes long.
    settled : float, default=3
        Seconds for which a file must not change, in at least two polls.

    Returns
    -------
    list of SkippedImage
        Those that could not be read, as they were last.
    """
    new: dict[str, _NewImage] = {}
    while True:
        started = time.monotonic()
        new = _new_images(folders, table.paths, new, settled)
        now = time.monotonic()
        ready = [image for image in new.values() if image.stamp[0] and image.due <= started]
        for start in range(0, len(ready), _MAX_BATCH):
            if stopped():
                break
            batch, found = _classify_unchanged(classify, ready[start : start + _MAX_BATCH])
            if found is None:
                continue
            process([image.file for image in batch], found)
            skipped = {each.position: each for each in found.images.skipped}
            for position, image in enumerate(batch):
                if absolute_name(image.file) in table.paths:
                    image.skipped = None
                    continue
                reason = skipped.get(position)
                if reason is not None and not image.n_failed and unreadable is not None:
                    unreadable(reason)
                image.postpone(reason)
        table.write()
        if _wait(max(interval, _IDLE * (now - started)), stopped):
            return [image.skipped for image in new.values() if image.skipped is not None]


def _new_images(
    folders: Sequence[str | os.PathLike[str]],
    known: Collection[str],
    before: dict[str, _NewImage],
    settled: float,
) -> dict[str, _NewImage]:
    """Return the images of folders that are not known, by absolute path."""
    found: dict[str, _NewImage] = {}
    for folder in folders:
        try:
            files = find_images(folder)
        except (ImageReadError, OSError):  # empty, or not there for now
            continue
        for file in files:
            name = absolute_name(file)
            stamp = None if name in known else _stamp_of(file)
            if stamp is None:
                continue
            last = before.get(name)
            if last is None or last.stamp != stamp:
                last = _NewImage(file, stamp, time.monotonic() + settled)
            found[name] = last
    return found


def _stamp_of(file: Path) -> Stamp | None:
    """Return size and time of a file; None if it is gone."""
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _classify_unchanged(
    classify: Callable[[list[Path]], Classification], images: list[_NewImage]
) -> tuple[list[_NewImage], Classification | None]:
    """Classify files, without those that changed in the meantime: they are read again later."""
    while images:
        found = classify([image.file for image in images])
        same = [image for image in images if _stamp_of(image.file) == image.stamp]
        if len(same) == len(images):
            return images, found
        images = same
    return [], None


def _wait(seconds: float, stopped: Callable[[], bool]) -> bool:
    """Wait, unless stopped; return whether stopped."""
    end = time.monotonic() + seconds
    while not stopped():
        left = end - time.monotonic()
        if left <= 0:
            return False
        time.sleep(min(_NAP, left))
    return True
