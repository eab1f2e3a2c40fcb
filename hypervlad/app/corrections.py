"""``Corrections``: what people change in the outlines of a folder of found particles."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import sqlite3
import threading
import zlib
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from hypervlad.app.database import (
    Database,
    Kind,
    QueueError,
    StaleError,
    UnknownError,
    created,
    reporting_damage,
    shown_name,
    transaction,
    write_facts,
)
from hypervlad.app.store import checked_name
from hypervlad.app.strokes import Change
from hypervlad.common.files import LockedError, exclusive_lock, parse_json
from hypervlad.images import ReadOptions
from hypervlad.images.files import file_stamp
from hypervlad.objects.fields import Field
from hypervlad.objects.found_folder import (
    EDITS,
    FIELDS,
    LOCK,
    OWN_FILES,
    PARTICLES,
    FoundFolder,
)
from hypervlad.objects.found_outlines import digest_of
from hypervlad.objects.particle import NOT_A_PARTICLE, Outline, Outlines
from hypervlad.objects.shapes import trace_polygons

MODEL = "model.hvlad"
_OWN_FOLDERS = "outlines", "replaced", "removed", "geojson", "roi"
_TABLES = """
CREATE TABLE images (
    id INTEGER PRIMARY KEY,
    name BLOB NOT NULL UNIQUE,
    version INTEGER NOT NULL DEFAULT 0,  -- grows with each edit, undo and redo
    place INTEGER NOT NULL DEFAULT 0,  -- number of edits that are not undone
    written INTEGER NOT NULL DEFAULT 0,  -- version in the folder's file of outlines
    is_ours INTEGER NOT NULL DEFAULT 0,  -- whether that was written here
    digest TEXT NOT NULL DEFAULT ''  -- of that file
);
CREATE TABLE outlines (  -- of images with a version; others have those in the folder
    image INTEGER NOT NULL REFERENCES images, label INTEGER NOT NULL, outline TEXT NOT NULL,
    PRIMARY KEY (image, label)
) WITHOUT ROWID;
CREATE TABLE edits (
    image INTEGER NOT NULL REFERENCES images, number INTEGER NOT NULL, time REAL NOT NULL,
    removed TEXT NOT NULL, added TEXT NOT NULL, message TEXT NOT NULL,
    PRIMARY KEY (image, number)
) WITHOUT ROWID;
CREATE TABLE clicks (click TEXT PRIMARY KEY, message TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE classes (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
"""
CORRECTIONS = Kind(
    *("file of corrections", EDITS, 0x48564C45, 1, _TABLES),  # "HVLE"
    "open its folder with 'hypervlad app'",
    "the outlines in the folder are as they were written last: remove this file, and go on",
)


class Corrections(Database):
    """The outlines of a folder of found particles, as people correct them.

    An edit is on disk when it is answered, and then written into the folder's own files, which
    ``hypervlad particles count`` and ``train`` read. All edits can be undone. What another program
    saves there is one more edit.

    Parameters
    ----------
    folder : path
        That ``hypervlad particles find`` wrote, or will write. A ValueError if it is damaged.
    """

    kind = CORRECTIONS

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._stamps, path = list[Any](), Path(folder)
        self._writing = threading.RLock()
        self._read: tuple[tuple[str, str | None], Outlines] = ("", None), Outlines((0, 0), ())
        with exclusive_lock(path / LOCK, path):
            if not (path / CORRECTIONS.file).exists():
                with created(path, CORRECTIONS):
                    pass
        super().__init__(path)
        self._continue_exchange()
        self.is_found = False
        if (path / PARTICLES).exists():  # written when particles have been found in all images
            self.take_images()

    def take_images(self) -> None:
        """Take over images in which particles were found since, and measure what was changed."""
        FoundFolder(self.folder).update(on_error="skip")
        with transaction(self.connection):
            self.connection.executemany(
                "INSERT INTO images (name) VALUES (?) ON CONFLICT DO NOTHING",
                [(os.fsencode(field.micrograph),) for field in self.found.fields],
            )
        self.is_found = True
        self.write_all()

    @property
    def found(self) -> FoundFolder:
        """The folder; its tables are read again when another program has changed them."""
        with self._writing:
            stamps = [file_stamp(self.folder / name) for name in (FIELDS, PARTICLES)]
            if stamps != self._stamps:
                self._found, self._stamps = FoundFolder(self.folder), stamps
            return self._found

    def read_options(self) -> ReadOptions:
        """Return how images were read when particles were found."""
        return self.found.read_options

    def image_of(self, image: int) -> Path:
        """Return the file of an image."""
        return self.found.image(self._field(image).micrograph)

    def images(self) -> list[dict[str, Any]]:
        """Return what the list of images shows of each."""
        fields = self.found.field_table.set_index("micrograph")
        n_found = fields["particles"].fillna(0).astype(int)  # none yet of those found just now
        rows = self.connection.execute(
            "SELECT *, (SELECT COUNT(*) FROM outlines WHERE image = images.id) AS n FROM images "
            "ORDER BY name"
        ).fetchall()
        return [
            {
                "id": row["id"],
                "name": shown_name(row["name"]),
                "version": row["version"],
                "n": row["n"] if row["version"] else int(n_found[name]),
                "corrected": row["place"] > 0 or isinstance(fields["corrected_in"][name], str),
            }
            for row in rows
            if (name := os.fsdecode(row["name"])) in fields.index
        ]

    def classes(self) -> list[str]:
        """Return the classes that outlines can get: those of the folder, and those added here."""
        table = self.found.table
        own = sorted(set(table["class"].dropna())) if "class" in table else []
        rows = self.connection.execute("SELECT name FROM classes ORDER BY id").fetchall()
        found = dict.fromkeys([*self.found.classes, *own, *(row["name"] for row in rows)])
        return [each for each in found if each != NOT_A_PARTICLE]

    def add_class(self, name: str) -> str:
        """Add a class, and return its name."""
        checked = checked_name(name)
        with transaction(self.connection):
            self.connection.execute(
                "INSERT INTO classes (name) VALUES (?) ON CONFLICT DO NOTHING", [checked]
            )
        return checked

    def shown(self, image: int) -> dict[str, Any]:
        """Return an image with all of its outlines."""
        with transaction(self.connection):
            self._take_others(image)
            found, field = self._shown(image, ""), self._field(image)
        height, width = field.shape
        known = {"height": height, "width": width, "pixel_size": field.pixel_size}
        return found | known | {"name": field.micrograph}

    def edit(
        self, click: str, image: int, version: int, change: Callable[[Outlines], Change]
    ) -> dict[str, Any]:
        """Change the outlines of an image; return what a window must show anew.

        Parameters
        ----------
        click : str
            The name of the edit: sent again, it has no further effect.
        image, version : int
            As in `images`. A StaleError if another window or program has changed the image.
        change : callable
            `change_of` of `hypervlad.app.strokes`; its ValueError becomes a QueueError.
        """

        def use(row: sqlite3.Row) -> Change:
            try:
                done = change(self._outlines(row))
            except ValueError as error:
                raise QueueError(str(error)) from error
            self._add(row, done)
            return done

        return self._clicked(click, image, version, use)

    def undo(
        self, click: str, image: int, version: int, *, is_redo: bool = False
    ) -> dict[str, Any]:
        """Undo the last edit of an image, or redo the last that was undone; see `edit`."""

        def use(row: sqlite3.Row) -> Change:
            number = row["place"] + is_redo
            step = self.connection.execute(
                "SELECT * FROM edits WHERE image = ? AND number = ?", [image, number]
            ).fetchone()
            if step is None:
                raise QueueError(f"there is nothing to {'redo' if is_redo else 'undo'} here")
            with reporting_damage(f"edit {number}", self.kind):
                texts = [parse_json(step[name]) for name in ("removed", "added")]
                gone, back = ([*map(_unpacked, own)] for own in texts[:: 1 if is_redo else -1])
            text = f"{'redone' if is_redo else 'undone'}: {step['message']}"
            self._replace(row, done := Change(gone, back, text), number - (not is_redo))
            return done

        return self._clicked(click, image, version, use)

    def write_all(self) -> str:
        """Write all outlines that are not in the folder yet; return why some are not, or ""."""
        rows = self.connection.execute("SELECT id FROM images WHERE written < version").fetchall()
        try:
            for row in rows:
                self._write(row["id"])
        except (LockedError, OSError) as error:
            return f"the edits are kept, but not yet in the files of outlines: {error}"
        return ""

    def earlier_folders(self) -> list[dict[str, Any]]:
        """Return the folders of what was found before, the latest last, as `exchange` noted."""
        known: list[dict[str, Any]] = parse_json(self.fact("earlier") or "[]")
        return known

    def earlier_polygons(self, image: int) -> list[dict[str, Any]]:
        """Return the outlines that an image had before others were found, as `shown` does."""
        if not (known := self.earlier_folders()):
            raise QueueError("nothing was found before")
        name = self._field(image).micrograph
        return shapes_of(FoundFolder(self.folder / known[-1]["folder"]).outlines(name))

    def exchange(self, incoming: Path, note: dict[str, Any] | None = None) -> None:
        """Let the folder have what was found in another one, and keep its own in a new folder.

        Images that a person has edited stay as they are. Others get new numbers: no window can
        edit outlines that it has not shown. A kill in between is made good at the next start.

        Parameters
        ----------
        incoming : path
            A folder of found particles below this one, which is empty afterwards.
        note : dict, optional
            What `earlier_folders` shall return of the folder that is left. Without it, `incoming`
            was such a folder, and is none any more.
        """
        earlier, outgoing = self.earlier_folders(), self.free_name()
        earlier = earlier[:-1] if note is None else [*earlier, note | {"folder": outgoing}]
        with self._writing:
            facts = [incoming.relative_to(self.folder).as_posix(), outgoing, earlier, "out"]
            self.set_facts(exchange=json.dumps(facts))
            self._continue_exchange()
            self.take_images()

    def free_name(self, kind: str = "earlier") -> str:
        """Return the name of a new folder for what was found earlier."""
        names = (f"{kind}-{number}" for number in itertools.count(1))
        return next(name for name in names if not (self.folder / name).exists())

    # --- internal ------------------------------------------------------------------------------

    def _continue_exchange(self) -> None:
        if not (known := self.fact("exchange")):
            return
        incoming, outgoing, earlier, phase = parse_json(known)
        source, target = self.folder / incoming, self.folder / outgoing
        with self._writing, exclusive_lock(self.folder / LOCK, self.folder):
            if phase == "out":
                move_results(self.folder, target)
                self.set_facts(exchange=json.dumps([incoming, outgoing, earlier, "in"]))
            move_results(source, self.folder)
            fields = FoundFolder(self.folder).field_table.set_index("micrograph")
            with transaction(self.connection):
                for row in self.connection.execute("SELECT * FROM images").fetchall():
                    if (name := os.fsdecode(row["name"])) in fields.index:
                        is_ours = isinstance(fields["corrected_in"][name], str)
                        self._renew(row, is_ours, self.found.outline_files.digest(name) or "")
                n = 1 + int(self.fact("generation") or 0)
                facts = {"exchange": "", "earlier": json.dumps(earlier), "generation": str(n)}
                write_facts(self.connection, facts)
            with contextlib.suppress(OSError):
                source.rmdir()

    def _renew(self, row: sqlite3.Row, is_ours: bool, digest: str) -> None:
        """Keep the outlines of an edited image, to be written again; forget those of others."""
        if row["place"]:
            changes, values = "written = -1, is_ours = ?, digest = ?", [is_ours, digest]
        else:
            for table in ("outlines", "edits"):
                self.connection.execute(f"DELETE FROM {table} WHERE image = ?", [row["id"]])
            changes, values = "written = 0, is_ours = 0, digest = '', version = 0", []
            changes += ", id = (SELECT MAX(id) + 1 FROM images)"
        self.connection.execute(f"UPDATE images SET {changes} WHERE id = ?", [*values, row["id"]])

    def _clicked(
        self, click: str, image: int, version: int, use: Callable[[sqlite3.Row], Change]
    ) -> dict[str, Any]:
        with transaction(self.connection):
            known = self.connection.execute(
                "SELECT message FROM clicks WHERE click = ?", [click]
            ).fetchone()
            if known is not None:
                return self._shown(image, known["message"])
            self._take_others(image)
            row = self._row(image)
            if row["version"] != version:
                raise StaleError(
                    "this image has been changed in another window or program. It is shown as it "
                    "is now, without this edit: repeat it if it is still needed"
                )
            done = use(row)
            self.connection.execute("INSERT INTO clicks VALUES (?, ?)", [click, done.message])
            return self._shown(image, done.message, done)

    def _row(self, image: int) -> sqlite3.Row:
        row: sqlite3.Row | None = self.connection.execute(
            "SELECT * FROM images WHERE id = ?", [image]
        ).fetchone()
        if row is None:
            raise UnknownError(f"there is no image {image}")
        return row

    def _field(self, image: int) -> Field:
        name = os.fsdecode(self._row(image)["name"])
        for field in self.found.fields:
            if field.micrograph == name:
                return field
        raise UnknownError(f"{name} is no longer in {self.folder}")

    def _outlines(self, row: sqlite3.Row) -> Outlines:
        """Return the outlines of an image: as edited, or as they are in the folder."""
        field = self._field(row["id"])
        if not row["version"]:
            return self._in_folder(field.micrograph)
        rows = self.connection.execute(
            "SELECT outline FROM outlines WHERE image = ? ORDER BY label", [row["id"]]
        ).fetchall()
        with reporting_damage(field.micrograph, self.kind):
            return Outlines(field.shape, tuple(_unpacked(each["outline"]) for each in rows))

    def _in_folder(self, name: str) -> Outlines:
        """Read the outlines of the folder's file, which takes seconds of large images, once."""
        with self._writing:
            key = name, self.found.outline_files.digest(name)  # another program may save them
            if self._read[0] != key:
                self._read = key, self.found.outlines(name)
            return self._read[1]

    def _take_others(self, image: int) -> None:
        """Note as an edit what another program has saved in place of what was written here."""
        row, name = self._row(image), self._field(image).micrograph
        digest = self.found.outline_files.digest(name)
        if not row["version"] or digest in (None, row["digest"]):
            return
        mine, theirs = self._outlines(row), self._in_folder(name)
        if not (is_same := digest_of(mine) == digest_of(theirs)):
            self._add(row, Change(mine.outlines, theirs.outlines, "changed by another program"))
        self.connection.execute(
            "UPDATE images SET written = version, is_ours = ?, digest = ? WHERE id = ?",
            [is_same, digest, image],
        )

    def _add(self, row: sqlite3.Row, change: Change) -> None:
        """Add an edit, in place of those that were undone."""
        connection, image, number = self.connection, row["id"], row["place"] + 1
        if not row["version"]:
            name = os.fsdecode(row["name"])
            digest = self.found.outline_files.digest(name)
            connection.execute("UPDATE images SET digest = ? WHERE id = ?", [digest, image])
            self._insert(image, self._in_folder(name))
        connection.execute("DELETE FROM edits WHERE image = ? AND number >= ?", [image, number])
        texts = [json.dumps([*map(_packed, own)]) for own in (change.removed, change.added)]
        values = [image, number, self.now(), *texts, change.message]
        connection.execute("INSERT INTO edits VALUES (?, ?, ?, ?, ?, ?)", values)
        self._replace(row, change, number)

    def _replace(self, row: sqlite3.Row, change: Change, place: int) -> None:
        self.connection.executemany(
            "DELETE FROM outlines WHERE image = ? AND label = ?",
            [(row["id"], each.label) for each in change.removed],
        )
        self._insert(row["id"], change.added)
        self.connection.execute(
            "UPDATE images SET version = version + 1, place = ? WHERE id = ?", [place, row["id"]]
        )

    def _insert(self, image: int, outlines: Iterable[Outline]) -> None:
        rows = [(image, each.label, _packed(each)) for each in outlines]
        self.connection.executemany("INSERT INTO outlines VALUES (?, ?, ?)", rows)

    def _shown(self, image: int, message: str, change: Change | None = None) -> dict[str, Any]:
        """Return what a window shows anew: all outlines of an image, or those of a change."""
        row = self._row(image)
        (last,) = self.connection.execute(
            "SELECT COALESCE(MAX(number), 0) FROM edits WHERE image = ?", [image]
        ).fetchone()
        outlines = self._outlines(row) if change is None else change.added
        return {
            "version": row["version"],
            "message": message,
            "is_whole": change is None,
            "removed": [each.label for each in change.removed] if change else [],
            "outlines": self._polygons(os.fsdecode(row["name"]), outlines),
            "can_undo": row["place"] > 0,
            "can_redo": row["place"] < last,
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
        with self._writing, exclusive_lock(self.folder / LOCK, self.folder):
            with transaction(self.connection):
                self._take_others(image)
                row, field = self._row(image), self._field(image)
                outlines = self._outlines(row)
            files, name = self.found.outline_files, field.micrograph
            if not row["is_ours"]:
                files.keep_replaced(name)
            files.write(name, outlines, field.pixel_size)
            with transaction(self.connection):
                self.connection.execute(
                    "UPDATE images SET written = ?, is_ours = 1, digest = ? WHERE id = ?",
                    [row["version"], files.digest(name), image],
                )


def shapes_of(
    outlines: Iterable[Outline], classes: Mapping[tuple[int, ...], str] = MappingProxyType({})
) -> list[dict[str, Any]]:
    """Return polygons, areas and classes; `classes` are by label, top, left and area."""
    found = []
    for each in outlines:
        area = int(np.count_nonzero(each.mask))
        label = each.class_name or classes.get((each.label, *each.box[:2], area), "")
        rings = _rings(_packed(each))
        found.append({"label": each.label, "class": label, "area": area, "rings": rings})
    return found


def move_results(source: Path, target: Path) -> None:
    """Move what finding, learning and correcting have written; again after a kill, the rest."""
    target.mkdir(exist_ok=True)
    for name in (*OWN_FILES, *_OWN_FOLDERS, MODEL):
        if name != EDITS and (source / name).exists():
            os.replace(source / name, target / name)


def _packed(outline: Outline) -> str:
    bits = zlib.compress(np.packbits(outline.mask).tobytes(), 1)
    mask = base64.b64encode(bits).decode()
    return json.dumps([outline.label, *map(int, outline.box), outline.class_name, mask])


@lru_cache(1 << 13)
def _unpacked(text: str) -> Outline:
    """Return the outline of a cell; a ValueError if it is damaged."""
    label, top, left, bottom, right, class_name, bits = parse_json(text)
    shape = int(bottom - top), int(right - left)
    n_bytes = (shape[0] * shape[1] + 7) // 8
    unpacked = zlib.decompressobj().decompress(base64.b64decode(bits), n_bytes)
    if min(shape) < 1 or len(unpacked) != n_bytes:
        raise ValueError("no outline")
    flat = np.unpackbits(np.frombuffer(unpacked, np.uint8), count=shape[0] * shape[1])
    mask = flat.reshape(shape).astype(bool)
    return Outline(label, (top, left, bottom, right), mask, class_name=class_name)


@lru_cache(1 << 13)
def _rings(text: str) -> list[list[int]]:
    outline = _unpacked(text)
    polygons = trace_polygons(outline.mask, *outline.box[:2])
    return [ring.ravel().tolist() for rings in polygons for ring in rings]
