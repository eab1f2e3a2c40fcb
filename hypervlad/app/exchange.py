"""``Exchange``: all that was found in a folder, exchanged for what is found anew, and back."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import sqlite3
from pathlib import Path
from typing import Any

from hypervlad.app.corrections import MODEL, Corrections
from hypervlad.app.database import QueueError, StaleError, write_facts
from hypervlad.app.packing import shapes_of
from hypervlad.common.files import exclusive_lock, parse_json
from hypervlad.objects.found_files import LOCK, OWN_FILES, RUN, UNWRITTEN
from hypervlad.objects.found_folder import FoundFolder
from hypervlad.objects.found_outlines import EDITS
from hypervlad.objects.measures import measure as measure_particles

_OWN_FOLDERS = "outlines", "replaced", "removed", "geojson", "roi"


class Exchange(Corrections):
    """Corrections in a folder that gets other outlines, as a whole, also if it is killed meanwhile.

    What a person has edited stays, and what was found before is kept in a folder of its own.
    """

    def earlier_folders(self) -> list[dict[str, Any]]:
        """Return the folders of what was found before, the latest last, as `exchange` noted."""
        known: list[dict[str, Any]] = parse_json(self.fact("earlier") or "[]")
        return known

    def earlier_polygons(self, image: int) -> dict[str, Any]:
        """Return the outlines that an image had before others were found, as `shown` does."""
        if not (known := self.earlier_folders()):
            raise QueueError("nothing was found before")
        name = self._field(image).micrograph
        outlines = FoundFolder(self.folder / known[-1]["folder"]).outlines(name)
        return {"outlines": shapes_of(outlines), "message": "the outlines before are dashed"}

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
        with self._asking, self._writing:
            earlier, outgoing = self.earlier_folders(), self.free_name()
            earlier = earlier[:-1] if note is None else [*earlier, note | {"folder": outgoing}]
            if not (incoming / RUN).exists():
                raise StaleError(f"{incoming.name} has been taken back already")
            with self.writing():
                self._take_all_others()
            facts = [incoming.relative_to(self.folder).as_posix(), outgoing, earlier, "out"]
            self.set_facts(exchange=json.dumps(facts))
            self.recover()
            self.take_images()

    def begin_anew(self, target: Path) -> list[str]:
        """Move what was found in some images away; what a person did stays, for the next search.

        Return the images that were corrected in other programs only, whose outlines stay as edits.
        """
        with self._asking, self._writing:
            theirs = self._corrected_elsewhere() if self.is_found else []
            with self.writing():  # first: a kill leaves files as they are known then
                self._take_all_others()
                for row in self.rows("SELECT * FROM images"):
                    if os.fsdecode(row["name"]) in theirs:
                        self._begin(row)
                        self._set(row["id"], version=1)
                    self._renew(self._row(row["id"]), False, "")
                self._note_others()
            move_results(self.folder, target)
            self._is_found = False
        return theirs

    def free_name(self, kind: str = "earlier") -> str:
        """Return the name of a new folder for what was found earlier."""
        names = (f"{kind}-{number}" for number in itertools.count(1))
        return next(name for name in names if not (self.folder / name).exists())

    def recover(self) -> None:
        """Complete an exchange that a kill has interrupted."""
        if not (known := self.fact("exchange")):
            return
        incoming, outgoing, earlier, phase = parse_json(known)
        source, target = self.folder / incoming, self.folder / outgoing
        lock = exclusive_lock(self.folder / LOCK, self.folder)
        with self._asking, self._writing, lock, self._reading:
            (self.folder / UNWRITTEN).touch()  # until `write_all`
            if phase == "out":
                move_results(self.folder, target)
                self.set_facts(exchange=json.dumps([incoming, outgoing, earlier, "in"]))
            move_results(source, self.folder)
            fields = FoundFolder(self.folder).field_table.set_index("micrograph")
            with self.writing():
                for row in self.rows("SELECT * FROM images"):
                    if (name := os.fsdecode(row["name"])) in fields.index:
                        is_ours = isinstance(fields["corrected_in"][name], str)
                        self._renew(row, is_ours, self.found.outline_files.digest(name) or "")
                self._note_others(exchange="", earlier=json.dumps(earlier))
            with contextlib.suppress(OSError):
                source.rmdir()

    # --- internal -------------------------------------------------------------------------------

    def _corrected_elsewhere(self) -> list[str]:
        """Use files of other programs; return the images that nobody touched here but there."""
        found = self.found
        files, fields = found.outline_files, found.by_name
        with exclusive_lock(self.folder / LOCK, self.folder):
            unknown = dict.fromkeys(fields)
            _, failed = files.take_corrected(found.images, fields, unknown, measure_particles([]))
        if failed:  # nothing was moved
            raise QueueError(str(next(iter(failed.values()))))
        touched = self.rows("SELECT name FROM images WHERE version")
        others = fields.keys() - {os.fsdecode(row["name"]) for row in touched}
        there = filter(files.digest, sorted(others))
        return [each for each in there if not files.is_as_found(each)]

    def _take_all_others(self) -> None:
        """Note, of images that were edited here, what other programs have saved since."""
        for row in self.rows("SELECT id, name FROM images WHERE version"):
            if os.fsdecode(row["name"]) in self.found.by_name:
                self._take_others(row["id"])

    def _note_others(self, **facts: str) -> None:
        """Let windows open their image anew, and store facts, in a transaction of the caller."""
        facts["generation"] = str(1 + int(self.fact("generation") or 0))
        write_facts(self.connection, facts)

    def _renew(self, row: sqlite3.Row, is_ours: bool, digest: str) -> None:
        """Keep an image that was ever edited or marked, to be written again; forget others."""
        self._set(row["id"], is_ours=is_ours, digest=digest, noted=None)
        if row["version"]:
            self._set(row["id"], written=-1)
            return
        for table in ("outlines", "edits"):
            self.execute(f"DELETE FROM {table} WHERE image = ?", row["id"])
        (free,) = self.execute("SELECT MAX(id) + 1 FROM images").fetchone()
        self._set(row["id"], written=0, version=0, content="", done=None, id=free)


def move_results(source: Path, target: Path) -> None:
    """Move what finding, learning and correcting have written; again after a kill, the rest."""
    target.mkdir(exist_ok=True)
    for name in (*OWN_FILES, *_OWN_FOLDERS, MODEL):
        if name != EDITS and (source / name).exists():
            os.replace(source / name, target / name)
