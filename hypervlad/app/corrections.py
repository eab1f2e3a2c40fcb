"""``Corrections``: what people change in the outlines of a folder of found particles."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from hypervlad.app.database import (
    Database,
    QueueError,
    StaleError,
    UnknownError,
    created,
    reporting_damage,
    shown_name,
)
from hypervlad.app.packing import CORRECTIONS, packed, shapes_of, unpacked
from hypervlad.app.store import checked_name
from hypervlad.app.strokes import Change
from hypervlad.common.files import exclusive_lock, parse_json
from hypervlad.common.progress import joined_notes
from hypervlad.common.wording import warn_user
from hypervlad.images import ReadOptions
from hypervlad.images.files import file_stamp
from hypervlad.objects.fields import Field
from hypervlad.objects.found_files import FIELDS, LOCK, PARTICLES, UNWRITTEN
from hypervlad.objects.found_folder import FoundFolder
from hypervlad.objects.found_outlines import digest_of
from hypervlad.objects.measures import measure as measure_particles
from hypervlad.objects.particle import NOT_A_PARTICLE, Outline, Outlines

MODEL = "model.hvlad"
_ALL_PASSED = "all outlines were looked at, or are in images that are done: the next round begins"
_NONE_RANKED = "outlines are measured when all images were searched: look at them one by one"
_SAID = ["note", "doubt"]  # columns of what was said of an image when particles were found
_UNSEARCHED = {"n": 0, "is_edited": False, "is_done": False, "words": "not searched yet"}
_STALE = (
    "this image has been changed in another window or program. It is shown as it is now, without "
    "this edit: repeat it if it is still needed"
)
_RETRY = 4.0  # seconds after which files that could not be written are tried again
_LISTED = (
    "SELECT *, CASE WHEN version THEN (SELECT COUNT(*) FROM outlines WHERE image = images.id) "
    "END AS n FROM images ORDER BY name"
)
_PENDING = "written < version OR done IS NOT noted"


class Corrections(Database):
    """The outlines of a folder of found particles, as people correct them.

    An edit is on disk when it is answered. A thread then writes it into the folder's own files,
    which ``hypervlad particles count`` and ``train`` read. All edits can be undone. What another
    program saves there is one more edit.

    Parameters
    ----------
    folder : path
        That ``hypervlad particles find`` wrote, or will write. A ValueError if it is damaged.
    """

    kind = CORRECTIONS

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._stamps, path = list[Any](), Path(folder)
        self._doubts: tuple[Any, Any] = None, None
        self._tables: tuple[Any, dict[str, Any], dict[str, Any], list[str]] = (None, {}, {}, [])
        #: Why edits cannot be written into the folder's files; "" if they can.
        self.note = ""
        self._reading, self._writing = threading.RLock(), threading.RLock()
        self._asking = threading.RLock()  # before the others: an exchange waits for an answer
        self._changed, self._is_closed = threading.Event(), False
        self._placed = 0  # the image whose file is being replaced, of which no digest is known
        self._read: tuple[tuple[str, str | None], Outlines] = ("", None), Outlines((0, 0), ())
        with exclusive_lock(path / LOCK, path):
            if not (path / CORRECTIONS.file).exists():
                with created(path, CORRECTIONS):
                    pass
        super().__init__(path)
        self.recover()
        self._is_found, self._unsearched = False, frozenset[str]()
        if self.is_found:
            self.take_images()
        self._writer = threading.Thread(target=self._write_on, daemon=True)
        self._writer.start()

    def recover(self) -> None:
        """Complete, in subclasses, what a kill has interrupted, before anything is read."""

    @property
    def is_found(self) -> bool:
        """Whether particles were found in any image: it can be corrected while others wait."""
        self._is_found = self._is_found or (self.folder / FIELDS).exists()
        return self._is_found

    @property
    def is_complete(self) -> bool:
        """Whether all images were searched."""
        return (self.folder / PARTICLES).exists()

    def take_images(self) -> None:
        """Take over images in which particles were found since, and measure what was changed."""
        if self.is_complete:
            FoundFolder(self.folder).update(on_error="skip")
        self._add_images(self.found.by_name)
        self.write_all()

    def close(self) -> None:
        """Write what is not in the folder yet, and close all connections."""
        self._is_closed = True
        self._changed.set()
        self._writer.join()
        if note := self.write_all():
            warn_user(f"{note}; they are written when the folder is opened again")
        super().close()

    @property
    def found(self) -> FoundFolder:
        """The folder; its tables are read again when another program has changed them."""
        with self._reading:
            stamps = [file_stamp(self.folder / name) for name in (FIELDS, PARTICLES)]
            if stamps != self._stamps:
                self._found, self._stamps = FoundFolder(self.folder), stamps
                if stamps[-1] is None:  # others wait, and it is written when all are found
                    self._found.table = measure_particles([])
            return self._found

    def read_options(self) -> ReadOptions:
        """Return how images were read when particles were found."""
        return self.found.read_options

    def image_of(self, image: int) -> Path:
        """Return the file of an image."""
        return self.found.image(self._field(image).micrograph)

    def images(self) -> list[dict[str, Any]]:
        """Return what the list of images shows of each."""
        with self._asking:
            found, n_found, confidence, _ = self._of_tables()
            rows = self.rows(_LISTED)
        fields = found.by_name if found else {}
        unsearched = set[str]() if self.is_complete else self._unsearched
        listed = list[dict[str, Any]]()
        for row in rows:
            each = {"id": row["id"], "name": shown_name(row["name"])}
            if (name := os.fsdecode(row["name"])) in n_found:
                is_done = fields[name].by_person if row["done"] is None else bool(row["done"])
                n = n_found[name] if row["n"] is None else row["n"]
                each |= {"version": _version(row), "n": n, "is_edited": row["place"] > 0}
                listed.append(each | {"is_done": is_done, "confidence": confidence.get(name)})
            elif name in unsearched:
                listed.append(each | _UNSEARCHED | {"version": -1 if found else 0})
        return listed

    def _of_tables(self) -> tuple[FoundFolder | None, dict[str, Any], dict[str, Any], list[str]]:
        """Return what pages ask for again and again, read once: numbers, confidences, classes."""
        if not self.is_found:
            return None, {}, {}, []
        found = self.found
        if self._tables[0] is not found:
            fields = found.field_table.set_index("micrograph")
            n_found = fields["particles"].fillna(0).astype(int)  # NaN if they were found just now
            sure = found.table.reindex(columns=["micrograph", "confidence"]).groupby("micrograph")
            # Without a classifier, of the number: the fewest of the most that there may be.
            ends = fields.reindex(columns=["number_low", "number_high"]).astype(float)
            share = ends["number_low"] / ends["number_high"]
            confidence = sure["confidence"].mean().combine_first(share).dropna()
            own = sorted(set(found.table["class"].dropna())) if "class" in found.table else []
            self._add_images(found.by_name)
            self._tables = found, n_found.to_dict(), confidence.to_dict(), [*found.classes, *own]
        return self._tables

    def classes(self) -> list[str]:
        """Return the classes that outlines can get: those of the folder, and those added here."""
        rows = self.rows("SELECT name FROM classes ORDER BY id")
        found = dict.fromkeys([*self._of_tables()[3], *(row["name"] for row in rows)])
        return [each for each in found if each != NOT_A_PARTICLE]

    def doubtful(self, passed: list[Any]) -> dict[str, Any]:
        """Return the most doubtful outline of images that are not done, but those that are passed.

        These are texts, image and label. What a person has drawn or named is not doubtful.
        """
        from hypervlad.particles.doubt import doubtful_outlines  # not above: it takes long

        if self._doubts[0] is not self.found:
            self._doubts = self.found, doubtful_outlines(self.found.table)
        rows = {os.fsdecode(row["name"]): row for row in self.rows("SELECT * FROM images")}
        as_found = {name: self._as_found(row) for name, row in rows.items()}
        known, left = {*map(str, passed)}, list[tuple[int, int, str]]()
        for name, label, is_left_out, why in self._doubts[1]:
            labels = as_found.get(name, set())
            if is_left_out == 1 or not (labels is None or label in labels):
                continue
            if f"{rows[name]['id']} {label}" not in known:
                left.append((rows[name]["id"], int(label), why))
        image, label, why = left[0] if left else (0, 0, "")
        none = _ALL_PASSED if self.is_complete else _NONE_RANKED
        words = f"{why}; {len(left) - 1:,} more" if left else none
        return {"image": image, "label": label, "message": words}

    def _as_found(self, row: sqlite3.Row) -> set[int] | None:
        """Return the outlines of an image that nobody has changed; None if these are all."""
        if os.fsdecode(row["name"]) not in self.found.by_name or self._is_done(row):
            return set()
        if not row["version"]:
            return None
        there = self.rows("SELECT label FROM outlines WHERE image = ?", row["id"])
        query = "SELECT added FROM edits WHERE image = ? AND number <= ?"
        edits = self.rows(query, row["id"], row["place"])
        drawn = {unpacked(text).label for each in edits for text in parse_json(each["added"])}
        return {each["label"] for each in there} - drawn

    def add_class(self, name: str) -> dict[str, Any]:
        """Add a class, and return its name and its number."""
        checked = checked_name(name)
        with self.writing():
            self.execute("INSERT INTO classes (name) VALUES (?) ON CONFLICT DO NOTHING", checked)
        return {"id": 1 + self.classes().index(checked), "name": checked}

    def shown(self, image: int) -> dict[str, Any]:
        """Return an image with all of its outlines."""
        with self._asking, self.writing():
            self._take_others(image)
            found, field = self._shown(image, ""), self._field(image)
        height, width = field.shape
        known: dict[str, Any] = {"height": height, "width": width}
        known["pixel_size"] = field.pixel_size
        if not (self._row(image)["version"] or found["is_done"]):  # else it is no more doubtful
            table = self.found.field_table.set_index("micrograph").reindex(columns=_SAID)
            known["message"] = joined_notes(table.loc[field.micrograph].dropna())
        return found | known | {"name": field.micrograph}

    def outlines_of(self, image: int) -> tuple[int, Outlines]:
        """Return the version of an image, as in `images`, and its outlines."""
        with self._asking, self.writing():
            self._take_others(image)
            row = self._row(image)
            return _version(row), self._outlines(row)

    def edit(
        self, click: str, image: int, version: int, change: Callable[[Outlines], Change | None]
    ) -> dict[str, Any]:
        """Change the outlines of an image; return what a window must show anew.

        An edit is sent again under the same name, `click`, without a further effect. A StaleError
        if the image has another `version`, which is as in `images`. `change` is as `change_of` of
        `hypervlad.app.strokes`, whose ValueError becomes a QueueError; None if it is too late.
        """

        def use(row: sqlite3.Row) -> Change:
            try:
                done = change(self._outlines(row))
            except ValueError as error:
                raise QueueError(str(error)) from error
            if done is None:
                raise StaleError(_STALE)
            self._add(row, done)
            return done

        return self._clicked(click, image, version, use)

    def undo(
        self, click: str, image: int, version: int, *, is_redo: bool = False
    ) -> dict[str, Any]:
        """Undo the last edit of an image, or redo the last that was undone; see `edit`."""

        def use(row: sqlite3.Row) -> Change:
            number = row["place"] + is_redo
            step = self.row("SELECT * FROM edits WHERE image = ? AND number = ?", image, number)
            if step is None:
                raise QueueError(f"there is nothing to {'redo' if is_redo else 'undo'} here")
            with reporting_damage(f"edit {number}", self.kind):
                texts = [parse_json(step[name]) for name in ("removed", "added")]
                gone, back = ([*map(unpacked, own)] for own in texts[:: 1 if is_redo else -1])
            text = f"{'redone' if is_redo else 'undone'}: {step['message']}"
            self._replace(row, done := Change(gone, back, text), number - (not is_redo))
            return done

        return self._clicked(click, image, version, use)

    def mark(self, click: str, image: int, version: int, *, is_done: bool) -> dict[str, Any]:
        """Mark an image, whose outlines are all right, as done, or not; edits leave the mark."""

        def use(row: sqlite3.Row) -> Change:
            if is_done and not row["version"]:
                self._begin(row)  # the mark is of these outlines, whatever is found later
                self._set(row["id"], version=1, written=1)
            self._set(row["id"], done=is_done)
            return Change([], [], f"this image is {'' if is_done else 'not '}done")

        return self._clicked(click, image, version, use)

    def write_all(self) -> str:
        """Write all that is not in the folder yet; return why some is not, which is `note`."""
        note = ""
        with self._writing:
            try:
                for image in self._unwritten():
                    self._write(image)
                with self.writing():
                    if self.is_found and not self._unwritten():
                        (self.folder / UNWRITTEN).unlink(missing_ok=True)
            except Exception as error:  # the page reports it; the writer tries again
                note = f"the edits are kept, but not yet in the files of outlines: {error}"
            self._placed, self.note = 0, note
        return note

    # --- internal ------------------------------------------------------------------------------

    def _write_on(self) -> None:
        """Write files after edits: of several in one image, only the newest outlines."""
        while not self._is_closed:
            self._changed.wait(_RETRY if self.note else None)
            self._changed.clear()
            self.write_all()

    def _unwritten(self) -> list[int]:
        """Return images with edits to be written; those of images that are gone stay unwritten."""
        # In another order each time, so that an image that cannot be written holds up no other.
        rows = self.rows(f"SELECT id, name FROM images WHERE {_PENDING} ORDER BY random()")
        known = self.found.by_name if rows and self.is_found else {}
        return [row["id"] for row in rows if os.fsdecode(row["name"]) in known]

    def _add_images(self, names: Iterable[str]) -> None:
        """Add images that there are since the folder was opened."""
        added = "INSERT INTO images (name) VALUES (?) ON CONFLICT DO NOTHING"
        with self.writing():
            self.connection.executemany(added, [(os.fsencode(name),) for name in names])

    def _clicked(
        self, click: str, image: int, version: int, use: Callable[[sqlite3.Row], Change]
    ) -> dict[str, Any]:
        with self._asking, self.writing():
            known = self.row("SELECT message FROM clicks WHERE click = ?", click)
            if known is not None:
                return self._shown(image, known["message"])
            self._take_others(image)
            row = self._row(image)
            if _version(row) != version:
                raise StaleError(_STALE)
            done = use(row)
            self.execute("INSERT INTO clicks VALUES (?, ?)", click, done.message)
            shown = self._shown(image, done.message, done)
            (self.folder / UNWRITTEN).touch()  # before it is committed
        self._changed.set()
        return shown

    def _row(self, image: int) -> sqlite3.Row:
        if (row := self.row("SELECT * FROM images WHERE id = ?", image)) is None:
            raise UnknownError(f"there is no image {image}")
        return row

    def _field(self, image: int) -> Field:
        name = os.fsdecode(self._row(image)["name"])
        if (field := self.found.by_name.get(name)) is None:
            raise UnknownError(f"{name} is no longer in {self.folder}")
        return field

    def _is_done(self, row: sqlite3.Row) -> bool:
        """Return whether an image is done; as the folder has it if nobody touched it here."""
        return self._field(row["id"]).by_person if row["done"] is None else bool(row["done"])

    def _set(self, image: int, **values: object) -> None:
        names = ", ".join(f"{name} = ?" for name in values)
        self.execute(f"UPDATE images SET {names} WHERE id = ?", *values.values(), image)

    def _outlines(self, row: sqlite3.Row) -> Outlines:
        """Return the outlines of an image: as edited, or as they are in the folder."""
        field = self._field(row["id"])
        if not row["version"]:
            return self._in_folder(field.micrograph)
        rows = self.rows("SELECT outline FROM outlines WHERE image = ? ORDER BY label", row["id"])
        with reporting_damage(field.micrograph, self.kind):
            return Outlines(field.shape, tuple(unpacked(each["outline"]) for each in rows))

    def _in_folder(self, name: str) -> Outlines:
        """Read the outlines of the folder's file, which takes seconds of large images, once."""
        with self._reading:
            key = name, self.found.outline_files.digest(name)  # another program may save them
            if self._read[0] != key:
                self._read = key, self.found.outlines(name)
            return self._read[1]

    def _take_others(self, image: int) -> None:
        """Note as an edit what another program has saved in place of what was written here."""
        row, name = self._row(image), self._field(image).micrograph
        files = self.found.outline_files
        if (digest := files.digest(name)) in (None, row["digest"]) or image == self._placed:
            return
        if not row["version"]:  # no window can edit outlines that it has not shown
            self._set(image, digest=digest)
            return
        theirs = self._in_folder(name)
        if (content := digest_of(theirs)) == row["content"]:  # with a scale, for instance
            self._set(image, digest=digest)
            return
        if not row["is_ours"] and files.is_as_found(name):  # anew: what a person did stays
            self._set(image, digest=digest, content=content, written=-1)
            return
        gone = self._outlines(row).outlines
        self._add(row, Change(gone, theirs.outlines, "changed by another program"))
        own = {"written": row["version"] + 1, "is_ours": False, "digest": digest}
        self._set(image, **own, content=content)

    def _add(self, row: sqlite3.Row, change: Change) -> None:
        """Add an edit, in place of those that were undone."""
        image, number = row["id"], row["place"] + 1
        if not row["version"]:
            self._begin(row)
        self.execute("DELETE FROM edits WHERE image = ? AND number >= ?", image, number)
        texts = [json.dumps([*map(packed, own)]) for own in (change.removed, change.added)]
        values = [image, number, self.now(), *texts, change.message]
        self.execute("INSERT INTO edits VALUES (?, ?, ?, ?, ?, ?)", *values)
        self._replace(row, change, number)

    def _begin(self, row: sqlite3.Row) -> None:
        """Take over the outlines of an image that is edited or marked for the first time."""
        name = os.fsdecode(row["name"])
        files, outlines = self.found.outline_files, self._in_folder(name)
        is_done = self._is_done(row)
        if not is_done:  # a search that goes on leaves it alone
            with contextlib.suppress(OSError):  # the writer repeats it, and says why
                files.note_mark(name, is_done=False)
        known = {"digest": files.digest(name), "content": digest_of(outlines)}
        self._set(row["id"], **known, done=is_done)
        self._insert(row["id"], outlines)

    def _replace(self, row: sqlite3.Row, change: Change, place: int) -> None:
        self.connection.executemany(
            "DELETE FROM outlines WHERE image = ? AND label = ?",
            [(row["id"], each.label) for each in change.removed],
        )
        self._insert(row["id"], change.added)
        self._set(row["id"], version=row["version"] + 1, place=place)

    def _insert(self, image: int, outlines: Iterable[Outline]) -> None:
        rows = [(image, each.label, packed(each)) for each in outlines]
        self.connection.executemany("INSERT INTO outlines VALUES (?, ?, ?)", rows)

    def _shown(self, image: int, message: str, change: Change | None = None) -> dict[str, Any]:
        """Return what a window shows anew: all outlines of an image, or those of a change."""
        row = self._row(image)
        query = "SELECT COALESCE(MAX(number), 0) FROM edits WHERE image = ?"
        (last,) = self.execute(query, image).fetchone()
        outlines = self._outlines(row) if change is None else change.added
        return {
            "version": _version(row),
            "message": message,
            "is_whole": change is None,
            "removed": [each.label for each in change.removed] if change else [],
            "outlines": self._polygons(os.fsdecode(row["name"]), outlines),
            "can_undo": row["place"] > 0,
            "can_redo": row["place"] < last,
            "is_done": self._is_done(row),
        }

    def _polygons(self, name: str, outlines: Iterable[Outline]) -> list[dict[str, Any]]:
        """Return polygons and classes; a classifier's, of outlines that it has classified."""
        table, known = self.found.table, dict[tuple[int, ...], str]()
        if "class" in table:
            own = table[(table["micrograph"] == name) & table["class"].notna()]
            columns = ("particle", "top", "left", "area_px2")
            cells = zip(*(own[each].astype(int) for each in columns), strict=True)
            known = dict(zip(cells, own["class"], strict=True))
        return shapes_of(outlines, known)

    def _write(self, image: int) -> None:
        with exclusive_lock(self.folder / LOCK, self.folder):
            with self.writing():
                self._take_others(image)
                row, field = self._row(image), self._field(image)
                is_new = row["written"] < row["version"]
                outlines = self._outlines(row) if is_new else Outlines((0, 0), ())
            files, name, is_done = self.found.outline_files, field.micrograph, bool(row["done"])
            # A kill may come at any moment: no file may pass for done, or for another program's.
            self._set(image, noted=None)
            if (is_marked := row["done"] != row["noted"]) and not is_done:
                files.note_mark(name, is_done=False)
            if is_new:
                if not row["is_ours"]:
                    files.keep_replaced(name)
                self._set(image, content=digest_of(outlines))
                self._placed = image
                files.write(name, outlines, field.pixel_size)
                self._set(image, written=row["version"], is_ours=True, digest=files.digest(name))
            if is_marked and is_done:
                files.note_mark(name, is_done=True)
            self._set(image, noted=row["done"])


def _version(row: sqlite3.Row) -> int:
    """Return by what a window knows outlines: untouched ones of the folder by their digest."""
    return int(row["version"] or int(row["digest"][:12] or "0", 16))
