"""``Results``: what is in the folder of a project, and what people save on its pages."""

from __future__ import annotations

import contextlib
import csv
import functools
import hashlib
import io
import json
import math
import os
from collections import defaultdict
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from urllib.parse import quote
from zipfile import ZIP_DEFLATED, ZipFile

from hypervlad._version import __version__
from hypervlad.app.database import QueueError, StaleError, UnknownError
from hypervlad.app.exchange import Exchange
from hypervlad.app.previews import Line, Part
from hypervlad.app.tasks import COVERAGE, PARTICLE_FILES, PREDICTIONS, TASKS
from hypervlad.common.files import LinkError, parse_json, refuse_link, replace_when_complete
from hypervlad.common.limits import MAX_OUTLINES_VALUES
from hypervlad.common.tables import read_separated, table_as_bytes
from hypervlad.common.wording import counted, percent, printable, reason_of
from hypervlad.images.files import file_stamp, is_below, path_parts
from hypervlad.objects.found_files import FIELDS, PARTICLES
from hypervlad.objects.found_outlines import COCO
from hypervlad.objects.polygon_files import joined_coco
from hypervlad.objects.results_folder import read_rows

#: The folder of the results of particles.
RESULTS = "results"
_PREVIEW = ".preview"
_MAX_FIGURES = 30  # of which the page lists each
_LINES = "#5ce1ff", "#ff6a13"  # as on the page of diameters: lines, and those that are left out
# What reading a file raises that is not what a page saves.
_DAMAGE = (ValueError, LookupError, TypeError, AttributeError, csv.Error)


class Results:
    """Files and pages that tasks have written, by the place of a task: its kind, or a preview's."""

    def __init__(self, database: Exchange) -> None:
        self._database = database  # in the folder of the results
        #: The task of which one image was looked at last, rather than all measured.
        self.previewed = ""
        #: The number and the name of that image.
        self.image = 0, ""
        #: The part of it that was looked at; None if all of it was.
        self.part: Part | None = None
        self._key = ""

    def open_preview(
        self, kind: str, image: tuple[int, str], part: Part | None, made_with: object
    ) -> Path:
        """Show the preview of an image from now on; return its folder, by what it is made with."""
        self.previewed, self.image, self.part = kind, image, part
        text = json.dumps([made_with, __version__], default=str)
        self._key = hashlib.sha256(text.encode()).hexdigest()[:16]
        return self.folder_of(self.place_of(kind))

    def place_of(self, kind: str) -> str:
        """Return where results of a task are: as its kind, or "preview/KIND" of one image."""
        return f"preview/{kind}" if self.previewed == kind else kind

    def folder_of(self, place: str) -> Path:
        """Return the folder of a place; of previews, that of the last."""
        kind = place.removeprefix("preview/")
        own = kind if kind == place else f"{_PREVIEW}/{kind}/{self._key}"
        return self._database.folder / own

    def file(self, place: str, name: str) -> Path | None:
        """Return a file of results; None if there is none, or behind a link."""
        folder = self.folder_of(place)
        is_table = place == RESULTS and name in (PARTICLES, FIELDS, COCO) and folder.is_dir()
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

    def measured_lines(self, name: str) -> list[tuple[Line, str]]:
        """Return the lines across fibres that were measured in an image, each with its colour."""
        path = self.file("diameters", "places.csv")
        if path is None or name not in (lines := _measured_lines(path, file_stamp(path))):
            raise UnknownError(f"no diameters were measured in {name}")
        return lines[name]

    def page(self, place: str) -> str:
        """Return the page of results, which changes when they do; "" if there is none."""
        task, folder = TASKS[place.split("/")[-1]], self.folder_of(place)
        name, mark, anchor = (task.page if place == task.kind else task.preview).partition("#")
        if (page := next(iter(sorted(folder.glob(name))), None)) is None:
            return ""
        path = quote(f"{place}/{page.relative_to(folder).as_posix()}")
        if page.suffix == ".csv":  # what it says is the caption of the image
            path = f"files/image/{self.image[0]}"
        return f"{path}?{page.stat().st_mtime_ns}{mark}{anchor}"

    def caption(self, place: str) -> list[str]:
        """Return what is said beside the picture of a preview: its image, and what was found."""
        kind, folder = place.split("/")[-1], self.folder_of(place)
        words = [printable(self.image[1])]
        words += [self.part.words] if self.part else []
        if place == kind or not self.page(place):
            return []
        # A command that was stopped has written only some of these files.
        with contextlib.suppress(OSError, *_DAMAGE):
            if kind == "classes":
                words += _class_words(_only_row(folder / PREDICTIONS))
            elif kind == "defects":
                row = _only_row(folder / "scores.csv")
                how = parse_json((folder / "scores.json").read_text("utf-8"))
                words += _score_words(row, is_guess=how["extrapolated"])
        return words

    def keep(self, kind: str, text: str, page: str) -> tuple[Path, str]:
        """Keep what a person has saved on a page of results, if it is the last.

        Return its file, and words about the file of before if that was damaged and is moved aside.
        """
        if not (name := TASKS[kind].saved[1]):
            raise UnknownError(f"nothing is kept of {kind}")
        path, place = self._database.folder / f"{kind}_{name}", self.place_of(kind)
        with_others = _with_other_rows if name.endswith(".csv") else _with_other_masks
        with_others = partial(with_others, image="" if place == kind else self.image[1])
        if place != kind and self.part:
            raise QueueError("this page shows a part of an image: save on that of all images")
        if not page or page != self.page(place):
            raise StaleError("there are other results now: open their page anew, and save there")
        try:
            refuse_link(path)
            alone = with_others(text, "")
        except LinkError as error:
            raise QueueError(str(error)) from error
        except _DAMAGE as error:
            raise QueueError(f"{path.name}: not what the page saves ({error!r})") from error
        damage = ""
        try:
            text = with_others(text, path.read_text("utf-8") if path.exists() else "")
        except _DAMAGE as error:
            text, aside = alone, self._database.free_name(f"{path.name}.damaged")
            os.replace(path, path.with_name(aside))
            damage = (
                f"{path.name} was damaged ({reason_of(error)}), and is now {aside}: your earlier "
                "marks are only in that file. Repair it, take an earlier copy, or mark them anew"
            )
        with replace_when_complete(path) as stream:
            stream.write(text.encode("utf-8"))
        self._database.set_facts(**{f"saved of {kind}": str(path)})  # until it is used
        return path, damage


def files_in(folder: Path) -> list[Path]:
    """Return the files in a folder and below, but those that are hidden."""
    return sorted(each for each in folder.rglob("[!.]*") if each.is_file())


def write_archive(path: Path, files: Iterable[Path], folder: Path) -> None:
    """Write files into a ZIP archive, complete or not at all, named by their paths in a folder."""
    with replace_when_complete(path) as stream, ZipFile(stream, "w", ZIP_DEFLATED) as archive:
        for file in files:
            archive.write(file, file.relative_to(folder))


@functools.lru_cache(1)
def _measured_lines(
    table: Path, stamp: tuple[int, int] | None
) -> dict[str, list[tuple[Line, str]]]:
    """Return the lines of each image, as `cross_lines` does; those that are left out stand out."""
    lines = defaultdict[str, list[tuple[Line, str]]](list)
    for row in read_rows(table):
        x, y, angle, width = (
            float(row[name]) for name in ("x_px", "y_px", "direction_deg", "diameter_px")
        )
        right, down = (width / 2 * turn(math.radians(angle)) for turn in (math.sin, math.cos))
        line = x - right, y - down, x + right, y + down
        lines[row["path"]].append((line, _LINES[row["left_out"] == "1"]))
    return dict(lines)


def _only_row(table: Path) -> dict[str, str]:
    (_, names), (_, cells) = read_separated(table)[1]
    return dict(zip(names, cells, strict=True))


def _class_words(row: dict[str, str]) -> list[str]:
    """Return in words what the table of classes says of one image."""
    words = [f"{row['label']}: {percent(float(row['confidence']))}"]
    if (possible := row.get("possible")) is not None:
        listed = possible.replace("|", ", ") or "none of those learnt"
        words.append(f"possible classes, with {COVERAGE} % coverage: {listed}")
    if row["unlike_training"] == "yes":
        words.append("unlike all images that were learnt: the probability means little")
    return words


def _score_words(row: dict[str, str], *, is_guess: bool) -> list[str]:
    """Return in words what the table of scores says of one image."""
    found = "no defects: the score is below the threshold"
    if row["called"] != "normal":
        regions = counted(int(row["n_regions"]), "defective region")
        found = f"{regions}, {percent(float(row['area_fraction']))} of the area"
    score, threshold = (f"{float(row[name]):.3g}" for name in ("score", "threshold"))
    guess = ", a guess from too few images without defects" if is_guess else ""
    return [found, f"score {score}, threshold {threshold}{guess}"]


def _with_other_rows(text: str, before: str, image: str) -> str:
    """Return a table of what is left out; of one image, with the rows of others from before."""
    from hypervlad.fibres.left_out import CHOICE  # not above: importing it takes long

    def rows_of(table: str) -> list[list[str]]:
        header, *rows = [row for row in csv.reader(io.StringIO(table)) if row]
        if header != [*CHOICE] or any(len(row) != len(CHOICE) for row in rows):
            raise ValueError(f"expected a table with the columns {', '.join(CHOICE)}")
        return rows

    rows, old = rows_of(text), rows_of(before) if before else []
    if not image:
        return text
    others = [row for row in old if row[0] != image]
    return table_as_bytes(CHOICE, [*others, *([image, *cells] for _, *cells in rows)]).decode()


def _with_other_masks(text: str, before: str, image: str) -> str:
    """Return masks of images (COCO), or of one, with those that the page does not show."""
    one = parse_json(text, MAX_OUTLINES_VALUES)
    one["images"] = [each | ({"file_name": image} if image else {}) for each in one["images"]]
    other = parse_json(before or '{"images": [], "annotations": []}', MAX_OUTLINES_VALUES)
    listed = one.get("info", {}).get("shown", [])
    shown = {image, *(each["file_name"] for each in one["images"]), *(listed * (not image))}
    other["images"] = [each for each in other["images"] if each["file_name"] not in shown]
    return json.dumps(joined_coco([one, other]))
