"""Copies of classified images, in one folder per class."""

from __future__ import annotations

import contextlib
import filecmp
import itertools
import os
import re
import secrets
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypervlad.classify.answers import AMBIGUOUS, OUT_OF_DISTRIBUTION, Classification
from hypervlad.classify.predictions import kinds_of
from hypervlad.common.files import move_to_new_name, new_folder, refuse_link
from hypervlad.common.limits import MAX_NAME
from hypervlad.common.wording import counted, name_some, verb
from hypervlad.images.files import folded, is_below, may_be_sidecar, sidecars

UNSURE, UNLIKE_TRAINING = "unsure", "unlike_training"
_MAX_BYTES = 200  # of a folder's name; file systems allow 255
# What Windows does not allow, and the sign that begins an escape here. A dot hides a folder.
_NOT_ALLOWED = re.compile(r'[<>:"/\\|?*%\x00-\x1f\x7f\ud800-\udfff]|\A[. ]|[. ]\Z')
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|\Z)", re.IGNORECASE)


@dataclass
class SortedImages:
    """Numbers of copies in each folder; ``elsewhere`` are copies of another model or run."""

    counts: Counter[str] = field(default_factory=Counter)
    n_present: int = 0
    renamed: list[Path] = field(default_factory=list)
    elsewhere: list[Path] = field(default_factory=list)
    failed: dict[Path, str] = field(default_factory=dict)


class ImageSorter:
    """Copies images into one folder per class; no file is ever replaced or removed.

    Where another file has the name, the copy gets a number.
    """

    def __init__(self, folder: str | os.PathLike[str], classes: Sequence[Any]) -> None:
        self.folder = Path(folder)
        names = folder_names([str(label) for label in classes])
        self.folder_of = dict(zip([str(label) for label in classes], names, strict=True))
        self.done = SortedImages()

    @property
    def folders(self) -> list[Path]:
        return [self.folder / name for name in (*self.folder_of.values(), UNSURE, UNLIKE_TRAINING)]

    def add(self, files: Sequence[Path], names: Sequence[str], found: Classification) -> list[int]:
        """Copy images; return the rows of `found` that are copied; failures are in ``done``."""
        labels = list(self.folder_of)
        special = {AMBIGUOUS: UNSURE, OUT_OF_DISTRIBUTION: UNLIKE_TRAINING}
        copied = []
        kinds, codes = kinds_of(found), found.proba.argmax(axis=1).tolist()
        for row, position in enumerate(found.images.positions.tolist()):
            chosen = special.get(kinds[row], self.folder_of[labels[codes[row]]])
            try:
                self._copy(files[position], chosen, names[position])
            except OSError as error:
                place = str(error.filename or files[position])
                where = "" if place == str(files[position]) else f"{place}: "
                self.done.failed[files[position]] = f"{where}{error.strerror or error}"
            else:
                self.done.failed.pop(files[position], None)
                copied.append(row)
        return copied

    def lines(self) -> list[str]:
        """Return what was done, in sentences; what is wrong begins with "warning"."""
        done, n_images = self.done, self.done.counts.total()
        listed = ", ".join(f"{name} {n}" for name, n in sorted(done.counts.items()))
        present = f"; {done.n_present} there before" if done.n_present else ""
        lines = [f"sorted into {self.folder}: {counted(n_images, 'image')} ({listed}){present}"]
        if done.renamed:
            lines.append(
                f"{counted(len(done.renamed), 'copy')} with a number in the name, because there is "
                f"another file of the name, such as {done.renamed[0]}"
            )
        if n := len(done.elsewhere):
            lines.append(
                f"warning: {counted(n, 'image')} {verb(n, 'lies', 'lie')} in another folder too, "
                "from an earlier run; delete what is no longer true: "
                f"{name_some([str(file) for file in done.elsewhere])}"
            )
        if n := len(done.failed):
            failed = name_some([f"{file} ({reason})" for file, reason in done.failed.items()])
            lines.append(f"warning: {counted(n, 'image')} could not be copied: {failed}")
        return lines

    def _copy(self, file: Path, chosen: str, name: str) -> None:
        below = Path(name) if is_below(name) else Path(Path(name).name)
        target = self.folder / chosen / below
        copy, is_new = copy_to_free_name(file, target)
        self.done.counts[chosen] += 1
        self.done.n_present += not is_new
        if copy != target:
            self.done.renamed.append(copy)
        for folder in self.folders:
            other = folder / below
            with contextlib.suppress(OSError):
                if other != target and other.is_file() and filecmp.cmp(file, other, shallow=False):
                    self.done.elsewhere.append(other)


def folder_names(classes: Sequence[str]) -> list[str]:
    """Return a name for each class's folder that every file system allows, such as ``a%2Fb``."""
    taken = {UNSURE, UNLIKE_TRAINING}
    names = []
    for label in classes:
        name = _NOT_ALLOWED.sub(_escaped, label) or "empty"
        if _DEVICES.match(name):
            name = f"%{ord(name[0]):02X}{name[1:]}"
        name = name.encode()[:_MAX_BYTES].decode(errors="ignore").rstrip(". ")
        numbered = (name if k == 1 else f"{name}-{k}" for k in itertools.count(1))
        free = next(each for each in numbered if folded(each) not in taken)
        taken.add(folded(free))
        names.append(free)
    return names


def _escaped(found: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in found[0].encode("utf-8", "surrogatepass"))


def copy_to_free_name(file: str | os.PathLike[str], target: Path) -> tuple[Path, bool]:
    """Copy a file, with its times, to a free name; return it, and False if a copy was there.

    Files beside an image that may describe it are copied, too.
    """
    with new_folder(target.parent):
        for path in numbered_names(target):
            if os.path.lexists(path):
                if path.is_file() and filecmp.cmp(file, path, shallow=False):
                    return path, False
                continue
            refuse_link(target.parent)
            try:
                _copy_to_new_name(file, path)
            except FileExistsError:  # made just now
                continue
            for beside, copied in zip(sidecars(file), sidecars(path), strict=False):
                if may_be_sidecar(beside):
                    with contextlib.suppress(FileExistsError):
                        _copy_to_new_name(beside, Path(copied))
            return path, True
    raise AssertionError("numbers do not end")


def _copy_to_new_name(file: str | os.PathLike[str], path: Path) -> None:
    if os.path.isdir(file):
        raise OSError("a folder, as of OME-Zarr, which is not copied; copy it yourself")
    draft = path.parent / f".{secrets.token_hex(8)}.tmp"
    try:
        shutil.copyfile(file, draft)  # without permissions: a draft that is read-only stays
        times = os.stat(file)
        os.utime(draft, ns=(times.st_atime_ns, times.st_mtime_ns))
        move_to_new_name(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def numbered_names(path: Path) -> Iterator[Path]:
    """Yield a path, then with 2, 3 and so on at the end of its name, which is cut if too long."""
    yield path
    for number in itertools.count(2):
        end = f"-{number}{path.suffix}"
        stem = os.fsencode(path.stem)[: MAX_NAME - len(os.fsencode(end))]
        yield path.with_name(stem.decode(errors="ignore") + end)
