"""``Scales``: pixel sizes of a project's images, by their files, by scale bars, and by people."""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from hashlib import sha256
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from hypervlad._version import __version__
from hypervlad.app.database import Database, QueueError
from hypervlad.common.files import move_to_new_name, parse_json, replace_when_complete
from hypervlad.common.tables import table_as_bytes
from hypervlad.common.wording import counted, name_some
from hypervlad.folders.pixel_sizes import BAR
from hypervlad.images import ImageReadError, ReadOptions
from hypervlad.images.files import file_stamp
from hypervlad.images.metadata import AmbiguousLengthError, are_plausible, nanometres_of
from hypervlad.images.reading import SIZE_TOLERANCE, relative_names
from hypervlad.pages.numbers import number_text

if TYPE_CHECKING:
    from hypervlad.images.scale_labels import LabelReader

#: The table of the sizes that people have given, which commands read.
SIZES = "pixel_sizes.csv"
_CAN_READ = find_spec("rapidocr") is not None  # labels: the extra ocr
_NUMBER = re.compile(r"-?(\d+|\d*\.\d+)")
_THOUSANDS = re.compile(r"[1-9]\d{0,2},\d{3}")  # or a number with three decimals
_MIN_MEASURED = 10  # pixels between two ends that a person has clicked on
_CLICK_ERROR = 1.0  # pixels of the screen, of that length
_SHOWN = 900  # pixels of the screen, in which an image is seen at once
_SAME = 1.0  # pixels by which the lengths of one bar differ from image to image
_KEPT = 100  # images that are read between two notes of it
_MAX_WAITED = 5.0  # seconds, for the last of them
_MAX_UNDONE = 100
_MAX_SHARE = 100.0  # of the width: images may be high
_MAX_TEXT = 80
_MAX_LISTED = 8  # contradictions
_WHOSE = "image", "new", "alike", "shape"
_TYPED, _BY_BAR, _BY_LABEL, _BY_HAND = "given", "scale bar", "read", "by hand"
_WORDS = {_TYPED: "typed", _BY_BAR: "by its bar", _BY_LABEL: "by its bar", _BY_HAND: "by hand"}


class _Look(NamedTuple):
    """What was read of an image: its size, shape, bar (length, error, box) and its label."""

    stamp: str
    error: str = ""
    shape: Sequence[int] = (1, 1)
    stated: float | None = None
    bar: Sequence[float] = ()
    label: str = ""
    proposed: float | None = None
    remark: str = ""

    def is_alike(self, other: _Look) -> bool:
        """Return whether another image shows the same bar, or none as well."""
        if not (self.bar and other.bar):
            return not (self.bar or other.bar)
        # A label that was not read may differ between images of two shapes.
        one, two = (
            (each.label, each.proposed is None, each.proposed is None and [*each.shape])
            for each in (self, other)
        )
        return one == two and abs(self.bar[0] - other.bar[0]) <= _SAME


class Proposal(NamedTuple):
    """Images without a pixel size that show the same bar, or none: one of them, and how many."""

    image: str
    n: int
    bar: float | None
    label: str
    size: float | None
    remark: str


class Scales:
    """The pixel sizes of the images of a folder.

    Images are read in a thread. What a person gives is kept in the database, so that it can be
    undone, and in a table that commands read.

    Parameters
    ----------
    database : Database
        In the folder of the results.
    root : path
        Folder of the images, from which their names begin.
    usual : mapping from name to (size, length and error of a bar)
        Sizes that were given, in a shell, before a person has given any here.
    in_words : callable
        From an error to what the page says.
    """

    def __init__(
        self,
        database: Database,
        root: Path,
        usual: Mapping[str, Sequence[float | None]],
        in_words: Callable[[object], str],
    ) -> None:
        self._database, self._root, self._in_words = database, root, in_words
        self._guard = threading.RLock()
        self._waiting, self._notes = list[Path](), list[str]()
        self._thread: threading.Thread | None = None
        known = parse_json(database.fact("looks") or "{}")
        self._kept = {name: _Look(*values) for name, values in known.items()}
        self._looks = dict[str, _Look]()
        sizes = database.fact("sizes")
        #: By name: the size in nm, what it is by, and the length and error of the bar.
        self._given: dict[str, list[Any]] = parse_json(sizes or "{}")
        if sizes is None and usual:
            self._put({name: [size, _TYPED, *bar] for name, (size, *bar) in usual.items()}, [])
        elif sizes:
            with contextlib.suppress(QueueError):  # said before a command reads the table
                self._write()  # after a kill

    # --- reading ---------------------------------------------------------------------------------

    def look_at(self, files: Iterable[Path]) -> None:
        """Read images beside the page."""
        with self._guard:
            self._waiting = [*dict.fromkeys([*self._waiting, *files])]
            if self._waiting and not self._is_reading():
                self._thread = threading.Thread(target=self._look_on, daemon=True)
                self._thread.start()

    def _is_reading(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def close(self) -> None:
        """Read no more, and keep what was read."""
        with self._guard:
            self._waiting, thread = [], self._thread
        if thread is not None:
            thread.join(_MAX_WAITED)

    def _look_on(self) -> None:
        n_read = 0
        while True:
            with self._guard:
                if not self._waiting:
                    self._thread = None
                file = self._waiting.pop(0) if self._waiting else None
            if n_read and (file is None or n_read >= _KEPT):
                self._database.set_facts(looks=json.dumps(self._kept | self._looks))
                n_read = 0
            if file is None:
                return
            (name,) = relative_names([file], self._root)
            stamp = f"{file_stamp(file)} {__version__} {_CAN_READ}"
            look = self._looks.get(name) or self._kept.get(name)
            if look is None or look.stamp != stamp or look.error:
                try:
                    look = self._look(file, name, stamp)
                except Exception as error:  # else the others would never be read
                    look = _Look(stamp, self._in_words(error))
                n_read += 1
            self._looks[name] = look

    def _look(self, file: Path, name: str, stamp: str) -> _Look:
        from hypervlad.folders.scale_page import find_scales  # not above: importing it takes long

        read_label = self._read_label if _CAN_READ else None
        options = ReadOptions(page=0)
        found = find_scales([file], names=[name], read_label=read_label, read_options=options)
        each = next(found)
        if isinstance(each, ImageReadError):
            return _Look(stamp, self._in_words(each))
        bar = [each.bar.length, each.bar.error, *each.bar.box] if each.bar else []
        remark = each.remark.replace(": give it as --scale-bar", "")
        if each.proposed or not remark.startswith(("contradiction", "scale bars", "the label")):
            remark = ""
        known = each.stated, bar, each.label, each.proposed, remark
        return _Look(stamp, "", [*each.shape], *known)  # as those that were kept

    def _read_label(self, *of_bar: Any) -> str:
        return self._label_reader(*of_bar)

    @cached_property
    def _label_reader(self) -> LabelReader:
        from hypervlad.images.scale_labels import new_label_reader

        return new_label_reader()  # at the first bar: it takes seconds

    # --- what is known ---------------------------------------------------------------------------

    def size_of(self, name: str) -> float | None:
        """Return the pixel size of an image, in nm: what its file states counts first."""
        look = self._looks.get(name)
        given = self._given.get(name, [None])[0]
        return (look and look.stated) or given

    def shape_of(self, name: str) -> Sequence[int] | None:
        """Return height and width of an image; None if it has not been read yet, or cannot be."""
        look = self._looks.get(name)
        return look.shape if look is not None and not look.error else None

    def given(self) -> dict[str, float]:
        """Return the sizes that people have given, by the names of images."""
        return {name: values[0] for name, values in self._given.items()}

    def about(self, name: str) -> dict[str, Any]:
        """Return what the list and the page of an image say: in words, its error, bar and label."""
        look, given = self._looks.get(name), self._given.get(name)
        stated = look.stated if look else None
        words = "" if look is None else "no pixel size"
        if look and look.error:
            words = "unreadable"
        elif stated:
            words = f"{stated:.4g} nm per pixel"
        elif given:
            words = f"{given[0]:.4g} nm per pixel, {_WORDS[given[1]]}"
        elif look and look.bar:
            label = f"{look.label}?" if look.label else "not read"
            words = f"bar of {look.bar[0]:.4g} px: {label}"
        found: dict[str, Any] = {"words": words, "error": look.error if look else ""}
        found["width"] = look.shape[1] if look else 1
        if look and look.bar:
            (height, width), (top, left, bottom, right) = look.shape, look.bar[2:]
            found["bar"] = [left / width, top / height, right / width, bottom / height]
            found["length"], found["label"] = look.bar[0], look.label if look.proposed else ""
        found["note"] = self._contradiction(name) or (look.remark if look else "")
        return found

    def _contradiction(self, name: str) -> str:
        look = self._looks.get(name)
        size, source, length, _ = self._given.get(name, [0, "", None, None])
        if look is None or look.error or look.stated or not size:
            return ""
        if not look.proposed:  # only another image under this name can have another bar
            is_of_bar = source in (_BY_BAR, _BY_LABEL)
            now = look.bar[0] if look.bar else 0
            if not is_of_bar or abs(now - length) <= 2 * _SAME:
                return ""
            bars = f"the scale bar was {length:.4g} px long when its size was given"
            return f"contradiction: {bars}, and is {f'{now:.4g} px' if now else 'gone'} now"
        tolerance = max(SIZE_TOLERANCE, 2 * look.bar[1] / look.bar[0])
        if abs(look.proposed / size - 1) <= tolerance:
            return ""
        by_bar = f"{number_text(look.proposed)} nm per pixel by the scale bar ({look.label})"
        return f"contradiction: {by_bar}, {number_text(size)} as given"

    def contradictions(self) -> list[str]:
        """Return notes of a table by others, and of images whose size does not fit to their bar."""
        names = dict[str, list[str]]()
        for name, look in sorted(dict(self._looks).items()):
            note = self._contradiction(name) or look.remark
            if note.startswith("contradiction"):
                names.setdefault(note, []).append(name)
        notes = sorted(names, key=lambda note: -len(names[note]))
        lines = [f"{name_some(names[note])}: {note}" for note in notes[:_MAX_LISTED]]
        n_others = sum(len(names[note]) for note in notes[_MAX_LISTED:])
        lines += [f"{counted(n_others, 'other image')}: contradictions"] * bool(n_others)
        return self._notes + lines

    def proposals(self) -> list[Proposal]:
        """Return the images without a pixel size, by the bar that they show, the most first."""
        groups = list[list[str]]()
        near = defaultdict[tuple[str, float], list[list[str]]](list)  # by labels and lengths
        for name, look in dict(self._looks).items():
            if look.error or self.size_of(name):
                continue
            cell = look.bar[0] // _SAME if look.bar else 0
            own = (
                each
                for other in (cell - 1, cell, cell + 1)
                for each in near.get((look.label, other), ())
                if self._looks[each[0]].is_alike(look)
            )
            if (group := next(own, None)) is None:
                groups.append([name])
                near[look.label, cell].append(groups[-1])
            else:
                group.append(name)
        found = []
        for names in sorted(groups, key=lambda each: (not self._looks[each[0]].bar, -len(each))):
            look, length = self._looks[names[0]], self._length(names)
            size = look.proposed and look.proposed * look.bar[0] / (length or 1)
            found.append(Proposal(names[0], len(names), length, look.label, size, look.remark))
        return found

    def _length(self, names: Iterable[str]) -> float | None:
        """Return the length of the bar that images show, more precise than that of one of them."""
        lengths = [self._looks[name].bar[0] for name in names if self._looks[name].bar]
        return median(lengths) if lengths else None

    def summary(self) -> dict[str, Any]:
        """Return numbers of images: all, read, with a size by the file or given, and unreadable."""
        looks = {name: look for name, look in dict(self._looks).items() if not is_elsewhere(name)}
        stated = sum(bool(look.stated) for look in looks.values())
        given = sum(name in self._given and not looks[name].stated for name in looks)
        wrong = sum(bool(look.error) for look in looks.values())
        known: dict[str, Any] = {"is_reading": self._is_reading()}
        known |= {"n_read": len(looks), "n_stated": stated, "n_given": given, "n_wrong": wrong}
        return known | {"n_without": len(looks) - stated - given - wrong}

    # --- what people do --------------------------------------------------------------------------

    def give(self, name: str, share: str, length: str, to: str) -> str:
        """Set the pixel size of images; return a message that says how many have which.

        Parameters
        ----------
        name : str
            An image.
        share : str
            Distance of two places that say a length, as a share of the image's width; "" for the
            ends of its scale bar, or without one for the sides of a pixel.
        length : str
            What it is, with a unit: "500 nm"; "" for what was read beside the bar.
        to : {"image", "new", "alike", "shape"}
            Whose size this is: of the image, of all that show the same bar, without or with those
            that have one, or of all of its shape.
        """
        with self._guard:
            _check_whose(to)
            if (look := self._looks.get(name)) is None or look.error:
                raise QueueError(f"{name}: not read yet, or not readable")
            if look.stated:
                raise QueueError(f"{name}: its file states {look.stated:.4g} nm per pixel")
            names = [each for each in dict(self._looks) if self._is_meant(each, name, to)]
            bar = list(look.bar[:2])
            if bar and to in ("new", "alike"):
                bar[0] = self._length(names) or bar[0]
                bars = (self._looks[each].bar for each in names)
                bar[1] = max([bar[1], *(abs(own[0] - bar[0]) for own in bars if own)])
            source = _BY_BAR if length and length != look.label else _BY_LABEL
            if share:
                if to == "alike" and not bar:
                    raise QueueError("no bar is found in this image, so none is the same")
                width = look.shape[1]
                error = _CLICK_ERROR * max(1, width / _SHOWN)  # of a part that is enlarged, less
                bar, source = [_share(share) * width, error], _BY_HAND
                if bar[0] < _MIN_MEASURED:
                    raise QueueError("click on both ends of the bar: these are too close together")
            elif not bar:
                bar, source = [1.0, 0.0], _TYPED
                if length and not re.search("[^\\d., ]", length):
                    length = f"{typed_number(length, 'Pixel size')} nm"
            size = _nanometres(length or (look.label if look.proposed else "")) / bar[0]
            if not are_plausible((size, size)):
                raise QueueError(f"{size:.3g} nm per pixel: no pixel size of a microscope")
            values = [float(f"{size:.6g}"), source, *([None] * 2 if source == _TYPED else bar)]
            self._change(dict.fromkeys(names, values))
        return f"{counted(len(names), 'image')}: {size:.4g} nm per pixel"

    def _is_meant(self, name: str, of: str, to: str) -> bool:
        look, own = self._looks[name], self._looks[of]
        if look.stated or look.error:
            return False
        of_same = {"shape": look.shape == own.shape, "image": False}.get(to, look.is_alike(own))
        return name == of or (of_same and not (to == "new" and name in self._given))

    def take_back(self, name: str, to: str) -> str:
        """Let images have no size again that was given; see `give`."""
        with self._guard:
            _check_whose(to)
            own = [each for each in self._given if each in self._looks]
            names = [each for each in own if name in self._looks and self._is_meant(each, name, to)]
            if not names:
                raise QueueError(f"{name}: no pixel size was given")
            self._change(dict.fromkeys(names))
        return f"{counted(len(names), 'image')} without a pixel size"

    def undo(self) -> str:
        """Undo what was given, or taken back, last."""
        with self._guard:
            if not (undone := self._undoable()):
                raise QueueError("there is nothing to undo")
            self._put(undone[-1], undone[:-1])
        return f"undone: {counted(len(undone[-1]), 'image')} as before"

    def _undoable(self) -> list[dict[str, list[Any] | None]]:
        return list(parse_json(self._database.fact("undo of sizes") or "[]"))

    def can_undo(self) -> bool:
        return bool(self._undoable())

    def _change(self, values: Mapping[str, list[Any] | None]) -> None:
        before = {name: self._given.get(name) for name in values}
        self._put(values, [*self._undoable(), before][-_MAX_UNDONE:])

    def _put(self, values: Mapping[str, list[Any] | None], undoable: list[Any]) -> None:
        given = {**self._given, **values}
        self._given = {name: own for name, own in given.items() if own is not None}
        facts = {"sizes": json.dumps(self._given), "undo of sizes": json.dumps(undoable)}
        self._database.set_facts(**facts)
        self._write()

    def _write(self) -> None:
        """Write the table, of the images that are there; one by others gets another name."""
        table = self._database.folder / SIZES
        files = {self._root / name: values for name, values in sorted(self._given.items())}
        rows = [[file, *values] for file, values in files.items() if file.exists()]
        names = relative_names([row[0] for row in rows], self._database.folder)
        lines = [[name, *row[1:]] for name, row in zip(names, rows, strict=True)]
        content = table_as_bytes(["path", "pixel_size", "source", *BAR], lines) if rows else b""
        if other := write_own(self._database, table, content):
            self._notes.append(f"{SIZES} was not written here, so not used: now {other}")

    def as_now(self) -> tuple[dict[str, float], Path | None]:
        """Return the sizes that people have given, and a table of them, None if there are none.

        It is a copy, for a task, whose commands read it one by one: what people change meanwhile
        counts from the next task on.
        """
        table = self._database.folder / SIZES
        with self._guard:
            if self._given:
                self._write()  # images may be gone
            if not self._given or not table.exists():
                return self.given(), None
            own = table.with_name(f".{SIZES}")
            with replace_when_complete(own) as stream:
                stream.write(table.read_bytes())
            return self.given(), own


def write_own(database: Database, table: Path, content: bytes) -> str:
    """Write a table that people make on the page, or remove it if it is empty.

    One by others gets another name, which is returned.
    """
    fact, other = f"digest of {table.name}", ""
    try:
        before = table.read_bytes() if table.exists() else b""
        if before == content:
            return ""
        if before and sha256(before).hexdigest() != database.fact(fact):
            others = (table.with_stem(f"{table.stem}-{n}") for n in count(2))
            move_to_new_name(table, free := next(each for each in others if not each.exists()))
            other = free.name
        # First, for a kill: then an own table would be kept under another name, at worst.
        database.set_facts(**{fact: sha256(content).hexdigest()})
        if content:
            with replace_when_complete(table) as stream:
                stream.write(content)
        else:
            table.unlink(missing_ok=True)
    except OSError as error:  # on Windows, where another program has opened it
        raise QueueError(
            f"what you gave is kept, but {table.name} cannot be written "
            f"({error.strerror or error}): close it in other programs"
        ) from error
    return other


def is_elsewhere(name: str) -> bool:
    """Return whether an image is in another folder, from which a task learns."""
    return name.startswith("../") or os.path.isabs(name)


def typed_number(text: str, label: str) -> str:
    """Return a number that a person has typed, with a point, or ""; a QueueError if it is none."""
    text = text.strip()
    if _THOUSANDS.fullmatch(text):
        raise QueueError(f"{label}: {text!r} could be two numbers; write it with a point")
    text = text.replace(",", ".")
    if text and not _NUMBER.fullmatch(text):
        raise QueueError(f"{label}: expected a number without a unit, such as 0.5; got {text!r}")
    return text


def _check_whose(to: str) -> None:
    if to not in _WHOSE:
        raise QueueError(f"{to!r}: expected one of {', '.join(_WHOSE)}")


def _share(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 <= (share := float(text)) <= _MAX_SHARE:
            return share
    raise QueueError(f"{text[:_MAX_TEXT]!r}: no distance in an image")


def _nanometres(text: str) -> float:
    text = text[:_MAX_TEXT]
    try:
        nm = nanometres_of(text)
    except AmbiguousLengthError as error:
        raise QueueError(str(error)) from None
    if nm is None:
        raise QueueError(f"expected a length with its unit, such as 500 nm or 2 µm; got {text!r}")
    return nm
