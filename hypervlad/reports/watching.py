"""Classifying images as they appear in folders, with a table that grows line by line."""

from __future__ import annotations

import csv
import io
import os
import time
import warnings
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from hypervlad.classifier import Classification
from hypervlad.files import refuse_links, replace_when_complete
from hypervlad.images import ImageReadError, SkippedImage, find_images
from hypervlad.reports.predictions import (
    prediction_columns,
    prediction_header,
    predictions_as_bytes,
)
from hypervlad.tables import original_cell, table_as_bytes

INTERVAL = 1.0  # seconds between two polls of the folders
_RETRY = 60.0  # seconds after which an unreadable file is read again, and each time twice as many
_MAX_BATCH = 16  # images whose lines are written together
_MAX_BREAKS = 2  # in a path; what has more is not one incomplete line
_NAP = 0.1  # seconds after which a request to stop is noticed
_IDLE = 5  # a poll of the folders may take a sixth of the time, on a slow network

Stamp = tuple[int, int]


class GrowingTable:
    """A table of predictions to which lines are added, also in a later run.

    Parameters
    ----------
    path : Path
        Made with a header if it is missing or empty, also if it is removed in the meantime. An
        incomplete last line, of a run that was killed, is removed.
    classes : sequence of n_classes labels
    has_sets, is_judged : bool
        Whether images are classified with a coverage, with an error.

    Attributes
    ----------
    paths : set of str
        The absolute paths of all images in the table.

    Raises
    ------
    ValueError
        If the file is another table, or a quotation mark in it has no partner.
    OSError
        If it is a link, or cannot be written.

    Warns
    -----
    UserWarning
        When lines cannot be written for now.
    """

    def __init__(
        self, path: Path, classes: Sequence[Any], *, has_sets: bool, is_judged: bool
    ) -> None:
        refuse_links(path)
        self.path, self.classes = path, list(classes)
        header = prediction_header(classes, has_sets=has_sets, is_judged=is_judged)
        kept = path.read_bytes() if path.exists() else b""
        complete = kept[: complete_length(kept)]
        if kept.count(b"\n", len(complete)) > _MAX_BREAKS:
            line = complete.count(b"\n") + 1
            raise ValueError(
                f"{path}: a quotation mark in line {line} or below it has no partner; correct it, "
                "or give another name."
            )
        rows = _rows_of(complete)
        if kept and (not rows or rows[0] != header):
            raise ValueError(
                f"{path} is another table: its columns are not those of this model with these "
                "options; give another name, or the options of the run that is to be continued."
            )
        if len(complete) < len(kept):
            os.truncate(path, len(complete))
        self.paths = {absolute_name(row[0]) for row in rows[1:] if row}
        self._header = table_as_bytes(header, [])
        self._waiting = b""
        self._is_late = False
        self.write()

    @property
    def is_written(self) -> bool:
        """Whether all lines are in the file."""
        return not self._waiting

    def add(self, names: Sequence[str], found: Classification) -> None:
        """Add the lines of images that were read."""
        lines = predictions_as_bytes(
            names, found.proba, self.classes, columns=prediction_columns(found, self.classes)
        )
        self._waiting += lines[complete_length(lines, n_lines=1) :]  # without the header
        self.paths.update(map(absolute_name, names))
        self.write()

    def write(self) -> None:
        """Write what has not been written, unless another program keeps the file to itself."""
        is_new = not self.path.exists() or not self.path.stat().st_size
        if not self._waiting and not is_new:
            return
        try:
            with open(self.path, "ab") as stream:
                stream.write(self._header * is_new + self._waiting)
                stream.flush()
                os.fsync(stream.fileno())
        except PermissionError:
            if not self.path.exists():
                raise
            if not self._is_late:  # a spreadsheet on Windows has it open, for example
                warnings.warn(
                    f"{self.path} cannot be written now; its lines are written when it can",
                    UserWarning,
                    stacklevel=2,
                )
            self._is_late = True
            return
        self._waiting, self._is_late = b"", False

    def save_waiting(self, path: Path) -> None:
        """Write the lines that are not in the table to another one."""
        with replace_when_complete(path) as stream:
            stream.write(self._header + self._waiting)


@dataclass
class WatchedImages:
    """What a run of `watch_folders` did.

    Attributes
    ----------
    n_classified : int
    unreadable : dict of str to SkippedImage
        Images that could not be read as they were last, by absolute path.
    """

    n_classified: int = 0
    unreadable: dict[str, SkippedImage] = field(default_factory=dict)


def watch_folders(
    classify: Callable[[list[Path]], Classification],
    folders: Sequence[str | os.PathLike[str]],
    table: GrowingTable,
    stopped: Callable[[], bool],
    *,
    interval: float = INTERVAL,
    classified: Callable[[list[Path], Classification], Any] | None = None,
    unreadable: Callable[[SkippedImage], Any] | None = None,
) -> WatchedImages:
    """Classify each image of folders once, also those that appear later, until ``stopped()``.

    The folders are polled, which also works on network drives. A file is read when its size and
    time were the same in two polls. If it cannot be read, it is read again when it has changed, and
    after a minute, later ones longer: a drive may have failed. Images in the table are not
    classified again.

    Parameters
    ----------
    classify : callable
        Returns the `Classification` of some files, with ``on_error="skip"``.
    folders : sequence of path
        With their sub-folders. One that is missing for a while, such as a network drive, is empty.
    table : GrowingTable
    stopped : callable
        Whether to stop; images that are being classified are finished and written before.
    interval : float, default=1
        Seconds between two polls, at least; more if a poll takes long.
    classified, unreadable : callable, optional
        Called with the files and the `Classification` before lines are added to the table, so that
        a run that is interrupted in between does the work again, and for each unreadable image.

    Returns
    -------
    WatchedImages
    """
    done = WatchedImages()
    before: dict[str, Stamp] = {}
    failed: dict[str, _Failure] = {}
    while True:
        started = time.monotonic()
        files = _waiting_files(folders, table.paths)
        stamps = {name: stamp for name, file in files.items() if (stamp := _stamp_of(file))}
        duration = time.monotonic() - started
        ready = [
            name
            for name, stamp in stamps.items()
            if stamp[0]
            and before.get(name) == stamp
            and not (name in failed and failed[name].is_recent(stamp, started))
        ]
        before = stamps
        for start in range(0, len(ready), _MAX_BATCH):
            if stopped():
                break
            batch = [files[name] for name in ready[start : start + _MAX_BATCH]]
            batch, found = _classify_unchanged(classify, batch, stamps)
            if found is None:
                continue
            read = [batch[position] for position in found.images.positions]
            if read and classified is not None:
                classified(batch, found)
            table.add([os.path.abspath(file) for file in read], found)
            done.n_classified += len(read)
            for file in read:
                done.unreadable.pop(absolute_name(file), None)
            for image in found.images.skipped:
                name = absolute_name(batch[image.position])
                last = failed.get(name)
                is_known = last is not None and last.stamp == stamps[name]
                wait = 2 * last.wait if last is not None and is_known else _RETRY
                failed[name] = _Failure(stamps[name], time.monotonic(), wait)
                done.unreadable[name] = image
                if unreadable is not None and not is_known:
                    unreadable(image)
        table.write()
        if _wait(max(interval, _IDLE * duration), stopped):
            table.write()
            return done


class _Failure(NamedTuple):
    """When a file could not be read, as it was then, and how long to wait."""

    stamp: Stamp
    time: float
    wait: float

    def is_recent(self, stamp: Stamp, now: float) -> bool:
        return stamp == self.stamp and now < self.time + self.wait


def _waiting_files(
    folders: Sequence[str | os.PathLike[str]], known: Collection[str]
) -> dict[str, Path]:
    """Return the images of folders that are not known, by absolute path."""
    found: dict[str, Path] = {}
    for folder in folders:
        try:
            files = find_images(folder)
        except (ImageReadError, OSError):  # empty, or not there for now
            continue
        found |= {name: file for file in files if (name := absolute_name(file)) not in known}
    return found


def _stamp_of(file: Path) -> Stamp | None:
    """Return size and time of a file; None if it is gone."""
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _classify_unchanged(
    classify: Callable[[list[Path]], Classification], files: list[Path], stamps: dict[str, Stamp]
) -> tuple[list[Path], Classification | None]:
    """Classify files, without those that changed in the meantime: they are read again later."""
    while files:
        found = classify(files)
        same = [file for file in files if _stamp_of(file) == stamps[absolute_name(file)]]
        if len(same) == len(files):
            return files, found
        files = same
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


def absolute_name(file: str | os.PathLike[str]) -> str:
    """Return a path by which a file is recognised, however it was given."""
    return os.path.normcase(os.path.abspath(file))


def complete_length(table: bytes, n_lines: int | None = None) -> int:
    r"""Return the length of the complete lines at the beginning of a CSV file.

    Parameters
    ----------
    table : bytes
    n_lines : int, optional
        Only that many lines.

    Examples
    --------
    >>> complete_length(b'path,label\n"a\nb.png",SEM\n"c\n'), complete_length(b"a\nb\n", n_lines=1)
    (25, 2)
    """
    length, position, n_found = 0, 0, 0
    quotes = 0
    while n_found != n_lines and (end := table.find(b"\n", position)) >= 0:
        quotes += table.count(b'"', position, end)
        position = end + 1
        if quotes % 2 == 0:  # otherwise the line break is within a cell
            length, n_found = position, n_found + 1
    return length


def _rows_of(table: bytes) -> list[list[str]]:
    text = io.StringIO(table.decode("utf-8-sig", "surrogateescape"), newline="")
    try:
        return [[original_cell(cell) for cell in row] for row in csv.reader(text, strict=True)]
    except csv.Error:
        return []
