"""Classifying images as they appear in folders, with a table that grows line by line."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypervlad.classify.answers import Classification
from hypervlad.classify.predictions import (
    prediction_columns,
    prediction_header,
    predictions_as_bytes,
)
from hypervlad.classify.sorting import ImageSorter, numbered_names
from hypervlad.common.files import exclusive_lock, new_folder, refuse_links, replace_when_complete
from hypervlad.common.progress import Sentence
from hypervlad.common.tables import read_separated, separator, table_as_bytes
from hypervlad.common.wording import counted, percent, warn_user
from hypervlad.images import ImageReadError, PixelSizes, SkippedImage, find_images
from hypervlad.images.files import file_stamp
from hypervlad.images.reading import relative_names

if TYPE_CHECKING:
    from hypervlad.classify.estimator import MicrographClassifier

_INTERVAL = 1.0  # seconds between two polls of the folders, at least
_N_SETTLED = 3  # intervals for which a file must not change before it is read
_EMPTY = 60.0  # seconds for which an empty file counts as still being written
_RETRY = 60.0  # seconds after which a failure is tried again, and each time twice as many
_MAX_RETRY = 3600.0
_MAX_BATCH = 16  # images whose lines are written together
_NAP = 0.1  # seconds after which a request to stop is noticed
_IDLE = 5  # a poll of the folders may take a sixth of the time, on a slow network
Stamp = tuple[int, int]  # size and time of a file


class GrowingTable:
    """A table of predictions to which lines are added, also in a later run.

    All lines are of the folder, model (a digest) and options that `settings_file` keeps; others are
    a ValueError. The table is replaced by a longer one, so that it never ends in a part of a line.
    """

    def __init__(
        self,
        path: Path,
        classes: Sequence[Any],
        *,
        folder: Path,
        model: str,
        pixel_size: float | PixelSizes | None = None,
        coverage: float | None,
        max_error: float | None,
    ) -> None:
        refuse_links(path)
        self.path, self.folder, self.classes, self.n_added = path, folder, list(classes), 0
        self._waiting, self._problem = b"", ""
        self._columns = prediction_header(
            classes, has_sets=coverage is not None, is_judged=max_error is not None
        )
        self._header, self._separator = table_as_bytes(self._columns, []), separator()
        is_new = not (path.exists() and path.stat().st_size)
        settings = {
            "folder": ascii(absolute_name(folder)),  # a name may have a line break
            "model": model,
            "pixel_size": pixel_size,
            "coverage": coverage,
            "max_error": max_error,
            "separator": self._separator,
        }
        self._check_settings(settings, is_new=is_new)
        if is_new:
            self._append(b"")
        self.paths = {absolute_name(folder / name) for name in self._names()}

    def _check_settings(self, settings: dict[str, Any], *, is_new: bool) -> None:
        file = settings_file(self.path)
        lines = {name: f"{name}: {value}" for name, value in settings.items()}
        if is_new:
            with replace_when_complete(file) as stream:
                stream.write("\n".join([*lines.values(), ""]).encode())
        elif not file.exists():
            raise ValueError(
                f"{self.path} exists, but not {file.name}, in which --watch keeps the folder, the "
                "model and the options of a table; give another name."
            )
        else:
            kept = file.read_text("utf-8", "replace").splitlines()
            if other := [name for name, line in lines.items() if line not in kept]:
                raise ValueError(
                    f"{self.path} was made with another {' and '.join(other)} (see {file.name}); "
                    "give another name, or the same folder, model and options."
                )

    def _names(self) -> list[str]:
        """Return the first cells of the rows of the table, if it is as this class writes it."""
        n_columns = len(self._columns)
        _, lines = read_separated(self.path, strict=True)
        header = lines[0][1] if lines else []
        wrong = [number for number, row in lines if len(row) != n_columns]
        if header != self._columns:
            wrong = [1]
        if wrong:
            raise ValueError(
                f"{self.path}: line {wrong[0]} does not have the {n_columns} columns of this "
                f"table, separated by {self._separator!r}; correct it, or give another name."
            )
        return [row[0] for _, row in lines[1:]]

    def add(self, files: Sequence[Path], found: Classification, rows: Sequence[int]) -> None:
        columns = {
            name: [values[row] for row in rows]
            for name, values in prediction_columns(found, self.classes).items()
        }
        names = relative_names(files, self.folder)
        lines = predictions_as_bytes(names, found.proba[rows], self.classes, columns=columns)
        self._waiting += lines.removeprefix(self._header)
        self.paths.update(map(absolute_name, files))
        self.n_added += len(rows)
        self.write()

    def write(self) -> None:
        if not self._waiting:
            return
        try:
            self._append(self._waiting)
        except OSError as error:
            is_first, self._problem = not self._problem, error.strerror or str(error)
            if isinstance(error, PermissionError):  # a spreadsheet on Windows
                self._problem += ", perhaps because another program has it open"
            if is_first:
                warn_user(
                    f"{self.path} cannot be written now ({self._problem}); new lines are written "
                    "as soon as it can be"
                )
        else:
            self._waiting, self._problem = b"", ""

    def close(self) -> None:
        """Write the lines that wait; if that fails, write them to a new table and raise OSError."""
        self.write()
        if not self._waiting:
            return
        names = numbered_names(self.path.with_stem(f"{self.path.stem}-unsaved"))
        unsaved = next(path for path in names if not os.path.lexists(path))
        missing = f"the lines that are missing in it are in {unsaved}"
        try:
            with replace_when_complete(unsaved) as stream:
                stream.write(self._header + self._waiting)
        except OSError:
            missing = "the next run classifies the images that are missing in it"
        raise OSError(f"{self.path} could not be written ({self._problem}); {missing}.")

    def _append(self, lines: bytes) -> None:
        """Write all of these lines, or none, behind what people have made of the table."""
        kept = (self.path.read_bytes() if self.path.exists() else b"") or self._header
        # An editor may have removed the last line break.
        end = b"" if kept.endswith(b"\n") else b"\n"
        with replace_when_complete(self.path) as stream:
            stream.write(kept + end + lines)


def settings_file(table: Path) -> Path:
    """Return the file beside a growing table that has its folder, model and options."""
    return table.with_name(f"_{table.name}.settings.txt")


@dataclass
class _NewImage:
    file: Path
    stamp: Stamp
    due: float
    is_there: bool = True
    n_failed: int = 0
    skipped: SkippedImage | None = None


def watch_folders(
    classify: Callable[[list[Path]], Classification],
    folders: Sequence[str | os.PathLike[str]],
    table: GrowingTable,
    stopped: Callable[[], bool],
    *,
    classified: Callable[[list[Path], Classification], Sequence[int]],
    unreadable: Callable[[SkippedImage], Any],
) -> list[SkippedImage]:
    """Classify each image of folders once, also those that appear later, until ``stopped()``.

    A file is read when it has not changed for three polls of the folders, an empty one after a
    minute. What fails is tried again when the file has changed, and at growing intervals.

    `classified` is called before lines are added, so that an interrupted run does the work again;
    it returns the rows whose lines to add. `unreadable` is called once for each image, unless it
    changes. Returns the images that could not be read when last tried.
    """
    new: dict[str, _NewImage] = {}
    while True:
        started = time.monotonic()
        new = _new_images(folders, table.paths, new)
        duration = time.monotonic() - started
        ready = [image for image in new.values() if image.is_there and image.due <= started]
        for start in range(0, len(ready), _MAX_BATCH):
            if stopped():
                break
            batch, found = _classify_unchanged(classify, ready[start : start + _MAX_BATCH])
            if found is None:
                continue
            files, positions = [image.file for image in batch], found.images.positions
            rows = classified(files, found)
            table.add([files[positions[row]] for row in rows], found, rows)
            reasons = {each.position: each for each in found.images.skipped}
            for position, image in enumerate(batch):
                if absolute_name(image.file) in table.paths:
                    del new[absolute_name(image.file)]
                    continue
                reason = reasons.get(position)
                if reason is not None and image.skipped is None:
                    unreadable(reason)
                image.due = time.monotonic() + min(_RETRY * 2.0**image.n_failed, _MAX_RETRY)
                image.n_failed, image.skipped = image.n_failed + 1, reason
        table.write()
        if _wait(max(_INTERVAL, _IDLE * duration), stopped):
            return [image.skipped for image in new.values() if image.is_there and image.skipped]


def classify_as_they_appear(
    classifier: MicrographClassifier,
    folders: Sequence[str],
    output: Path,
    *,
    root: Path,
    model: str,
    coverage: float | None,
    max_error: float | None,
    sorter: ImageSorter | None,
    say: Callable[[str], Any],
    warn: Callable[[str], Any],
) -> tuple[int, list[SkippedImage]]:
    """Classify images of folders below `root` until Ctrl-C; return how many, and unreadable ones.

    `model` is the digest of its file. Each answer is passed to `say`, what is wrong to `warn`.
    """
    classifier.check_calibrated(coverage=coverage, max_error=max_error)
    classes, warned = classifier.classes_.tolist(), set[Sentence]()

    def classify(files: list[Path]) -> Classification:
        return classifier.classify(files, coverage=coverage, max_error=max_error)

    def classified(files: list[Path], found: Classification) -> Sequence[int]:
        replace(found.images, skipped=()).warn()  # `unreadable` reports those
        for sentence, facts in found.doubts.items():
            if sentence not in warned:
                later = "the column note has those of later images"
                warn(f"{sentence(facts)}; {later}")
        warned.update(found.doubts)
        rows: Sequence[int] = range(len(found.proba))
        if sorter is not None:
            failed = set(sorter.done.failed)
            rows = sorter.add(files, relative_names(files, root), found)
            for file, reason in sorter.done.failed.items():
                if file not in failed:
                    warn(f"{file} could not be copied: {reason}")
        for row in rows:
            label, proba = classes[found.proba[row].argmax()], found.proba[row].max()
            kind = "blank" if found.images.is_blank[row] else "unlike all training images"
            notes = [kind] if found.unlike_training[row] else []
            notes += ["a training image"] if found.in_training[row] else []
            note = f" ({', '.join(notes)})" if notes else ""
            say(f"{files[found.images.positions[row]]}: {label}, {percent(proba)}{note}")
        return rows

    def unreadable(image: SkippedImage) -> None:
        warn(f"{image.name}: {image.reason.removeprefix(f'{image.name}: ')}")

    lock = output.with_name(f".{output.name}.lock")
    with new_folder(output.parent), exclusive_lock(lock, output), _stop_on_signals() as stopped:
        table = GrowingTable(
            output,
            classes,
            folder=root,
            model=model,
            pixel_size=classifier.encoder_.fitted_params_.read_options.pixel_size,
            coverage=coverage,
            max_error=max_error,
        )
        if table.paths:
            say(f"{counted(len(table.paths), 'image')} already in {output}")
        say(f"watching {', '.join(folders)}; press Ctrl-C to stop")
        try:
            bad = watch_folders(
                classify, folders, table, stopped, classified=classified, unreadable=unreadable
            )
        finally:
            table.close()
    return table.n_added, bad


@contextlib.contextmanager
def _stop_on_signals() -> Iterator[Callable[[], bool]]:
    """Turn Ctrl-C and SIGTERM into a request to stop; a second Ctrl-C stops at once."""
    requests = list[int]()

    def request(number: int, _frame: Any) -> None:
        if requests:
            raise KeyboardInterrupt
        requests.append(number)

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, request) for number in numbers]
    try:
        yield lambda: bool(requests)
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _new_images(
    folders: Sequence[str | os.PathLike[str]], known: Collection[str], before: dict[str, _NewImage]
) -> dict[str, _NewImage]:
    now = time.monotonic()
    # One that failed is kept while its folder is away, so that it is not reported again.
    found = {name: replace(last, is_there=False) for name, last in before.items() if last.n_failed}
    for folder in folders:
        try:
            files = find_images(folder)
        except (ImageReadError, OSError):  # empty, or not there for now
            continue
        for file in files:
            name = absolute_name(file)
            stamp = None if name in known else file_stamp(file)
            if stamp is not None:
                wait = _N_SETTLED * _INTERVAL if stamp[0] else _EMPTY
                new = _NewImage(file, stamp, now + wait)
                last = before.get(name, new)
                found[name] = replace(last, is_there=True) if last.stamp == stamp else new
    return found


def _classify_unchanged(
    classify: Callable[[list[Path]], Classification], images: list[_NewImage]
) -> tuple[list[_NewImage], Classification | None]:
    while images:
        found = classify([image.file for image in images])
        same = [image for image in images if file_stamp(image.file) == image.stamp]
        if len(same) == len(images):
            return images, found
        images = same
    return [], None


def _wait(seconds: float, stopped: Callable[[], bool]) -> bool:
    end = time.monotonic() + seconds
    while not stopped():
        left = end - time.monotonic()
        if left <= 0:
            return False
        time.sleep(min(_NAP, left))
    return True


def absolute_name(file: str | os.PathLike[str]) -> str:
    """Return the path by which a file is recognised."""
    return os.path.normcase(os.path.abspath(file))
