"""``Results``: what is in the folder of a project, and what people save on its pages."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from urllib.parse import quote

from hypervlad.app.database import Database, QueueError, StaleError, UnknownError
from hypervlad.app.tasks import PARTICLE_FILES, TASKS
from hypervlad.common.files import LinkError, parse_json, refuse_link, replace_when_complete
from hypervlad.common.limits import MAX_OUTLINES_VALUES
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

    def keep(self, kind: str, text: str, page: str) -> Path:
        """Keep what a person has saved on a page of results, if it is the last; return its file."""
        if not (name := TASKS[kind].saved[1]):
            raise UnknownError(f"nothing is kept of {kind}")
        path, place = self._database.folder / f"{kind}_{name}", self.place_of(kind)
        with_others: Callable[[str, str], str] = _with_other_masks
        if name.endswith(".csv"):
            with_others = partial(_with_other_rows, image="" if place == kind else self.image)
        if not page or page != self.page(place):
            raise StaleError("there are other results now: open their page anew, and save there")
        try:
            refuse_link(path)
            alone = with_others(text, "")
        except (LinkError, ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
            raise QueueError(f"{path.name}: not what the page saves ({error!r})") from error
        try:
            text = with_others(text, path.read_text("utf-8") if path.exists() else "")
        except (ValueError, LookupError, TypeError, AttributeError, csv.Error):
            text = alone
            os.replace(path, path.with_name(f"{path.name}.damaged"))
        with replace_when_complete(path) as stream:
            stream.write(text.encode("utf-8"))
        self._database.set_facts(**{f"saved of {kind}": str(path)})  # until it is used
        return path


def _with_other_rows(text: str, before: str, image: str) -> str:
    """Return a table of what is left out; of one image, with the rows of others from before."""
    from hypervlad.fibres.left_out import CHOICE  # not above: importing it takes long

    header, *rows = csv.reader(io.StringIO(text))
    if header != [*CHOICE] or any(len(row) != len(CHOICE) for row in rows):
        raise ValueError(f"expected a table with the columns {', '.join(CHOICE)}")
    if not image:
        return text
    old = [row for row in csv.reader(io.StringIO(before)) if row not in (header, [])]
    others = [row for row in old if row[0] != image]
    return table_as_bytes(header, [*others, *([image, *cells] for _, *cells in rows)]).decode()


def _with_other_masks(text: str, before: str) -> str:
    """Return masks of images (COCO), with those of images that the page does not show."""
    one = parse_json(text, MAX_OUTLINES_VALUES)
    other = parse_json(before or '{"images": [], "annotations": []}', MAX_OUTLINES_VALUES)
    n_new, shown = len(one["images"]), {each["file_name"] for each in one["images"]}
    shown.update(one.pop("info", {}).get("shown", []))
    ids = {each["id"]: each for each in other["images"] if each["file_name"] not in shown}
    new = {number: n_new + place for place, number in enumerate(ids)}
    one["images"] += [ids[number] | {"id": new[number]} for number in ids]
    masks = [each for each in other["annotations"] if each["image_id"] in ids]
    masks = [each | {"image_id": new[each["image_id"]]} for each in masks]
    masks = [*one["annotations"], *masks]
    one["annotations"] = [each | {"id": number} for number, each in enumerate(masks, 1)]
    return json.dumps(one)
