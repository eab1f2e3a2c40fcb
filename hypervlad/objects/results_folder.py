"""Folders of results: how they were made, and tables that grow image by image."""

from __future__ import annotations

import contextlib
import math
import os
import reprlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import compress
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from hypervlad._version import __version__
from hypervlad.common.files import (
    exclusive_lock,
    json_text,
    new_folder,
    parse_json,
    replace_when_complete,
)
from hypervlad.common.limits import MAX_NAME
from hypervlad.common.progress import ProgressBar, announced, joined_notes, noted
from hypervlad.common.tables import (
    TEXT_COLUMNS,
    Journal,
    number_in_table,
    read_separated,
    write_table,
)
from hypervlad.common.wording import counted, name_some, note_of_copies, warn_user
from hypervlad.images.files import folded, is_below
from hypervlad.images.pixels import are_copies
from hypervlad.images.sample import errors_of

T = TypeVar("T")
_OTHERS = "images of another run"
NO_GROUP = "no group"  # of images beside those that have one
LEFT_OUT = "left out"  # why the last run left images out, by sentences
Row: TypeAlias = Mapping[str, Any]
#: The names of two tables, with one line and with any number of lines per image, and the columns of
#: the second, which may have no lines.
Tables: TypeAlias = tuple[str, str, Sequence[str]]


def write_record(path: Path, made: Mapping[str, Any]) -> None:
    """Write how results are made, by which version of hypervlad unless that is given."""
    with replace_when_complete(path) as stream:
        stream.write(json_text({"version": __version__, **made}, indent=1))


def read_record(path: Path) -> dict[str, Any]:
    """Return what `write_record` wrote; a ValueError if it is damaged."""
    made = parse_json(path.read_bytes())
    if not isinstance(made, dict):
        raise ValueError("no names with values")
    return made


def made_with(table: Path, *needed: str) -> dict[str, Any]:
    """Return how the results of a table were made; nothing, unless `needed`, if it is missing."""
    path = table.with_suffix(".json")
    try:
        made = read_record(path) if needed or path.is_file() else {}
        made |= {name: made[name] for name in needed}
    except (ValueError, TypeError, LookupError, FileNotFoundError) as error:
        why = "missing" if isinstance(error, FileNotFoundError) else f"damaged ({error})"
        raise ValueError(f"{path}: {why}; repeat the run that wrote {table.name}") from error
    if n_others := made.get(_OTHERS):
        warn_user(
            f"{table}: {counted(n_others, 'image')} of another run, maybe with other options, as "
            "the last one was stopped: repeat it"
        )
    return made


_UNKNOWN_COPIES = (
    "copies of an image count as images of their own, as the table of an earlier version does not "
    "tell them; repeat the command that made it"
)


class GroupedImages(NamedTuple):
    """Lines of a table of all images, by "", and of each group if there are several.

    Of the copies of an image, which the column image_digest tells, one counts in each group, and
    one in all. `copies` are the others in a group, `copies_between` those in several groups.
    """

    rows: Mapping[str, Sequence[Row]]
    copies: Sequence[str]
    copies_between: Sequence[str]
    is_known: bool  # whether the table tells copies

    @classmethod
    def of(cls, rows: Iterable[Row]) -> Self:
        rows = list(rows)
        paths, groups, digests = (
            [row.get(each) or "" for row in rows] for each in ("path", "group", "image_digest")
        )
        groups = [each or NO_GROUP for each in groups]
        twice, in_group = are_copies(digests), are_copies(digests, groups)
        found, names = {"": [*compress(rows, ~twice)]}, sorted({*groups})
        for name in names if len(names) > 1 else ():
            found[name] = [*compress(rows, ~in_group & [each == name for each in groups])]
        copies, between = compress(paths, in_group), compress(paths, twice & ~in_group)
        is_known = all("image_digest" in row for row in rows)
        return cls(found, [*copies], [*between], is_known)

    @property
    def notes(self) -> list[str]:
        """What a report says of copies."""
        same = f"other images{' in the same group' * bool(self.copies_between)}"
        notes = [note_of_copies(self.copies, same)] * bool(self.copies)
        only = note_of_copies(self.copies_between, "images in other groups")
        notes += [f"all groups together are counted {only}"] * bool(self.copies_between)
        return notes + [_UNKNOWN_COPIES] * (not self.is_known)


class ResultsFolder:
    """A folder to which the results of images are added one by one; see :meth:`growing`.

    Both of its tables have a column ``path``, that of images also ``note``: what is warned of while
    the image is measured. `files_of` returns the files that a run may have written for an image of
    this name. How the results are `made` is written beside the table of images, into a file of its
    name that ends in .json. ValueError if the folder has such a table that is not of an earlier
    run.
    """

    def __init__(
        self,
        folder: Path,
        tables: Tables,
        files_of: Callable[[str], Iterable[Path]],
        made: Mapping[str, Any],
    ) -> None:
        self._folder, self._files_of = folder, files_of
        self._made = {"version": __version__, **made}
        self._images_table, self._details_table = folder / tables[0], folder / tables[1]
        self._columns, self._journal = tables[2], Journal(self._images_table)
        #: Why images were left out.
        self.left_out: list[str] = []
        #: What was warned of images, by their names.
        self.notes: dict[str, str] = {}
        self._replaced: list[Path] = []
        # The line of each image, and its lines of the second table, as text.
        self._own: dict[str, tuple[Row, Sequence[Row]]] = {}
        self._earlier: dict[str, tuple[Row, Sequence[Row]]] = {}
        details = defaultdict[str, list[Row]](list)
        for row in read_rows(self._images_table):
            self._earlier[row["path"]] = row, details[row["path"]]
        for row in read_rows(self._details_table):
            if not self._earlier:
                raise _foreign(self._details_table)
            details[row["path"]].append(row)
        # Begun by how the images were made that follow.
        killed = self._journal.read(lambda line: (dict(line[0]), list(map(dict, line[1]))))
        if of_run := {row["path"]: (row, lines) for row, lines in killed[1:]}:
            n_others = len(self._earlier.keys() - of_run.keys())
            self._earlier |= of_run
            self._write_tables(killed[0][0], n_others)
        self._journal.remove()

    @classmethod
    @contextlib.contextmanager
    def growing(cls, folder: Path, *given: Any, names: Sequence[str]) -> Iterator[Self]:
        """Open a folder, which is made if it is missing, for a run of one process.

        A ValueError unless `names` of images are different paths in the folder.

        However the block ends, the tables are complete, and so they are at the beginning of the
        next run if the process is killed. If the block ends without an error, the results that only
        an earlier run had are removed.
        """
        outside = [name for name in names if not is_below(name)]
        if outside or len(set(names)) < len(names):
            raise ValueError(
                "names must be different relative paths without '..'; got "
                f"{reprlib.repr(outside or names)}"
            )
        lock = exclusive_lock(folder / ".lock", folder)
        with new_folder(folder), lock, announced():
            results = cls(folder, *given)
            stale = list[str]()
            try:
                yield results
                stale += [name for name in results._earlier if name not in results._own]
            finally:
                if results._own:
                    for name in stale:
                        del results._earlier[name]
                    results._write_tables(results._made, len(results._earlier))
                    results._remove_all(stale)
                    report_removed(results._replaced)

    def measured(
        self,
        measure: Callable[[Any], T],
        images: Iterable[Any],
        names: Sequence[str],
        *,
        unread: type[Exception] = ValueError,
        progress: bool = False,
    ) -> Iterator[tuple[str, T]]:
        """Yield the name of each image, and what is measured in it, unless that raises `unread`."""
        pairs = zip(images, names, strict=True)
        for image, name in ProgressBar(pairs, total=len(names), unit="image", shown=progress):
            if any(len(os.fsencode(path.name)) > MAX_NAME for path in self._files_of(name)):
                self.left_out.append(
                    f"{name}: names of files of its results would have more than {MAX_NAME} bytes; "
                    "rename it"
                )
                continue
            try:
                with errors_of(name), noted(name) as notes:
                    found = measure(image)
            except unread as error:
                # Who reads it knows the folder, and pages may be passed on.
                _, is_named, why = str(error).partition(f"{Path('/', name)}: ")
                self.left_out.append(f"{name}: {why}" if is_named else str(error))
                continue
            self.notes |= {name: joined_notes(notes)} if notes else {}
            yield name, found

    def earlier(self, name: str) -> tuple[Row, Sequence[Row]] | None:
        """Return the lines of an image that an earlier run has written, as text, if it has."""
        return self._earlier.get(name)

    def add(self, name: str, row: Row, details: Iterable[Row], files: Collection[Path]) -> None:
        """Add the lines of an image; `files` are those that were written for it."""
        if not self._own:
            self._journal.add([self._made, []])
        row = {**row, "note": self.notes.get(name)}
        line = {column: _text(value) for column, value in row.items()}
        lines = [{column: _text(each[column]) for column in self._columns} for each in details]
        self._journal.add([line, lines])
        self._own[name] = line, lines
        if self._earlier.pop(name, None) is not None:
            # What an earlier run made of this image, with other options.
            self._replaced += self._remove(p for p in self._files_of(name) if p not in files)

    def _write_tables(self, made: Mapping[str, Any], n_others: int) -> None:
        rows = [*self._own.values(), *self._earlier.values()]
        write_rows(self._images_table, (), [row for row, _ in rows])
        write_rows(self._details_table, self._columns, [each for _, own in rows for each in own])
        facts = {_OTHERS: n_others, LEFT_OUT: self.left_out}
        known = {name: fact for name, fact in facts.items() if fact}
        write_record(self._images_table.with_suffix(".json"), {**made, **known})
        self._journal.remove()

    def _remove_all(self, names: Sequence[str]) -> None:
        # On a file system that does not distinguish A and a, the files are those of this run.
        own = {folded(name) for name in self._own}
        # The names are from a table, which may have been edited.
        gone = [name for name in names if is_below(name) and folded(name) not in own]
        self._remove(path for name in gone for path in self._files_of(name))
        if gone:
            many = f"{counted(len(gone), 'image')}, such as " if len(gone) > 1 else ""
            warn_user(f"{self._folder}: removed the results of an earlier run for {many}{gone[0]}")

    def _remove(self, paths: Iterable[Path]) -> list[Path]:
        """Remove those files that exist, with folders that are empty then, and return them."""
        found = [path for path in paths if path.is_file()]
        for path in found:
            path.unlink()
            folder = path.parent
            while folder != self._folder and not any(folder.iterdir()):
                folder.rmdir()
                folder = folder.parent
        return found


def read_results(images: Path, details: Path) -> tuple[list[Row], list[Row]]:
    """Return the lines of a table of images, and those of a table of what is in them.

    A ValueError if there are no images, or if a person has deleted some from only one of them.
    """
    rows, own = list[Row](read_rows(images)), list[Row](read_rows(details))
    if not rows:
        raise ValueError(f"{images}: it lists no image; repeat the command that wrote it")
    known = {row["path"] for row in rows}
    if absent := list(dict.fromkeys(row["path"] for row in own if row["path"] not in known)):
        raise ValueError(
            f"{details}: has lines of {name_some(absent)}, of which {images.name} has none; repeat "
            "the command that wrote both, without what is to be left out"
        )
    return rows, own


def report_removed(paths: Sequence[Path]) -> None:
    """Warn that files of an earlier run, which this run would not have made, are gone."""
    if paths:
        warn_user(
            f"removed {counted(len(paths), 'file')} of an earlier run with other options: "
            f"{name_some(list(map(str, paths)))}"
        )


def read_rows(path: Path, key: str = "path") -> Iterator[dict[str, str]]:
    """Yield the lines of a table, as text; without a file none, without `key` an error."""
    if not path.is_file():
        return
    try:
        separator, found = read_separated(path, strict=True)
    except ValueError as error:
        raise _foreign(path) from error
    (_, header), *lines = found or [(0, [])]
    for _, cells in lines:
        row = dict.fromkeys(header, "") | dict(zip(header, cells, strict=False))
        if not row.get(key):
            raise _foreign(path)
        for name in row.keys() - TEXT_COLUMNS:
            row[name] = number_in_table(row[name], separator)
        yield row


def _foreign(path: Path) -> ValueError:
    return ValueError(
        f"{path} is not a table of an earlier run, or damaged; restore it, or write to a new folder"
    )


def write_rows(path: Path, columns: Iterable[str], rows: Sequence[Row]) -> None:
    """Write a table of these columns and of all others of the rows."""
    header = dict.fromkeys([*columns, *(column for row in rows for column in row)])
    write_table(path, list(header), [[_text(row.get(each)) for each in header] for row in rows])


def scaled(pixels: float | None, size: float | None, power: int = 1, unit: float = 1) -> Any:
    """Return a length or area of pixels in units of this many nm; None if it is unknown."""
    return None if pixels is None or size is None else pixels * (size / unit) ** power


def _text(value: Any) -> str:
    """Format a value: empty if unknown, and with six digits, more than any value is precise to."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


# --- maps as TIFF, masks as PNG -------------------------------------------------------------------


def write_tiff(
    path: Path,
    values: NDArray[Any],
    pixel_size: float | None,
    *,
    flush: bool = True,
    level: int | None = None,
) -> None:
    """Write a map as compressed TIFF, which ImageJ reads with its pixel size, in nanometres.

    `level` is from 1 (fast) to 9 (small). With `flush`, the file is on the disk at the end.
    """
    import tifffile

    extra: dict[str, Any] = {} if level is None else {"compressionargs": {"level": level}}
    if pixel_size is not None:
        extra["resolution"] = (1 / pixel_size, 1 / pixel_size)  # pixels per nm
    if values.dtype != np.uint32:  # ImageJ has no 32-bit integers
        extra |= {"imagej": True, "metadata": {} if pixel_size is None else {"unit": "nm"}}
    elif pixel_size is not None:
        extra |= {"resolution": (1e7 / pixel_size,) * 2, "resolutionunit": "CENTIMETER"}
    with replace_when_complete(path, flush=flush) as stream:
        tifffile.imwrite(stream, values, compression="zlib", predictor=False, software="", **extra)


def write_png(path: Path, values: NDArray[np.uint8], *, flush: bool = True, level: int = 6) -> None:
    """Write an image as PNG; `flush` and `level` are as for `write_tiff`."""
    from PIL import Image

    with replace_when_complete(path, flush=flush) as stream:
        Image.fromarray(values).save(stream, format="PNG", compress_level=level)
