"""``Results``: what is in the folder of a project, and what people save on its pages."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from urllib.parse import quote

from hypervlad.app.database import Database, QueueError, UnknownError
from hypervlad.app.tasks import PARTICLE_FILES, TASKS
from hypervlad.common.files import parse_json, replace_when_complete
from hypervlad.common.tables import table_as_bytes
from hypervlad.images.files import is_below, path_parts
from hypervlad.objects.found_folder import FIELDS, PARTICLES

#: The folder of the results of particles.
RESULTS = "results"
_PREVIEW = ".preview"
_MAX_FIGURES = 30  # of which the page lists each


class Results:
    """Files and pages that tasks have written, by the place of a task: its kind, or a preview's."""

    def __init__(self, database: Database) -> None:
        self._database = database  # in the folder of the results
        #: The task of which one image was looked at last, rather than all measured, and its name.
        self.previewed, self.image = "", ""

    def place_of(self, kind: str) -> str:
        """Return where results of a task are: as its kind, or "preview/KIND" of one image."""
        return f"preview/{kind}" if self.previewed == kind else kind

    def folder_of(self, place: str) -> Path:
        """Return the folder of a place."""
        return self._database.folder / place.replace("preview/", f"{_PREVIEW}/")

    def file(self, place: str, name: str) -> Path | None:
        """Return a file of results; None if there is none, or behind a link."""
        folder = self.folder_of(place)
        is_table = place == RESULTS and name in (PARTICLES, FIELDS) and folder.is_dir()
        path = (self._database.folder if is_table else folder).joinpath(*path_parts(name))
        own = [path, *path.parents]
        above = own[: own.index(self._database.folder)] if is_below(name) else own
        is_hidden = any(part.startswith(".") for part in path_parts(name))
        if is_hidden or not is_below(name) or any(each.is_symlink() for each in above):
            return None
        return path if path.is_file() else None

    def listed(self, place: str) -> list[tuple[list[tuple[str, str]], str]]:
        """Return the results that are there: links, as names and titles, and what is in them."""
        task, folder = TASKS.get(place.split("/")[-1]), self.folder_of(place)
        found = list[tuple[list[tuple[str, str]], str]]()
        for name, title, about, *others in PARTICLE_FILES if task is None else task.files:
            if "*" in name:
                every = sorted(each.relative_to(folder).as_posix() for each in folder.glob(name))
                found += [([(each, each)], "") for each in every[:_MAX_FIGURES]]
                if len(every) > _MAX_FIGURES:
                    found.append(([], f"and {len(every) - _MAX_FIGURES:,} more in the folder"))
                continue
            pairs = [(name, title), *zip(others[::2], others[1::2], strict=True)]
            if links := [each for each in pairs if self.file(place, each[0])]:
                found.append((links, about))
        return found

    def page(self, place: str) -> str:
        """Return the page of results, which changes when they do; "" if there is none."""
        task, folder = TASKS[place.split("/")[-1]], self.folder_of(place)
        name, mark, anchor = (task.page if place == task.kind else task.preview).partition("#")
        if (page := next(iter(sorted(folder.glob(name))), None)) is None:
            return ""
        path = quote(f"{place}/{page.relative_to(folder).as_posix()}")
        return f"{path}?{page.stat().st_mtime_ns}{mark}{anchor}"

    def keep(self, kind: str, text: str) -> Path:
        """Keep what a person has saved on the page of results; return its file."""
        if not (name := TASKS[kind].saved[1]):
            raise UnknownError(f"nothing is kept of {kind}")
        path = self._database.folder / f"{kind}_{name}"
        before = path.read_text("utf-8") if path.exists() else ""
        try:
            if name.endswith(".json"):
                text = _with_other_masks(text, before)
            elif self.previewed == kind:  # of one image, so those of the others stay
                text = _with_other_rows(text, before, self.image)
        except (ValueError, KeyError, TypeError) as error:
            raise QueueError(f"this is not what the page saves ({error!r})") from error
        with replace_when_complete(path) as stream:
            stream.write(text.encode("utf-8"))
        self._database.set_facts(**{f"saved of {kind}": str(path)})  # until it is used
        return path


def _with_other_rows(text: str, before: str, name: str) -> str:
    """Return a table of what is left out of an image, with the rows of others from before."""
    header, *rows = csv.reader(io.StringIO(text))
    others = [
        row for row in csv.reader(io.StringIO(before)) if row not in (header, []) and row[0] != name
    ]
    return table_as_bytes(header, [*others, *([name, *cells] for _, *cells in rows)]).decode()


def _with_other_masks(text: str, before: str) -> str:
    """Return masks of images (COCO), with those of other images from before."""
    one, other = parse_json(text), parse_json(before or '{"images": [], "annotations": []}')
    names = {each["file_name"] for each in one["images"]}
    ids = {each["id"]: each for each in other["images"] if each["file_name"] not in names}
    new = {number: len(names) + place for place, number in enumerate(ids)}
    one["images"] += [ids[number] | {"id": new[number]} for number in ids]
    masks = [each for each in other["annotations"] if each["image_id"] in ids]
    masks = [each | {"image_id": new[each["image_id"]]} for each in masks]
    masks = [*one["annotations"], *masks]
    one["annotations"] = [each | {"id": number} for number, each in enumerate(masks, 1)]
    return json.dumps(one)
