"""``Finding``: a folder of images in which particles are found, learnt and counted."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from hypervlad.app.corrections import MODEL
from hypervlad.app.database import QueueError
from hypervlad.app.exchange import Exchange
from hypervlad.app.groups import Groups
from hypervlad.app.networks import Networks
from hypervlad.app.packing import shapes_of
from hypervlad.app.previews import Part, part_in_view, read_opened
from hypervlad.app.results import RESULTS, files_in, write_archive
from hypervlad.app.runner import Runner
from hypervlad.app.scales import Scales, is_elsewhere
from hypervlad.app.tasks import ARCHIVES
from hypervlad.common.files import refuse_link
from hypervlad.common.progress import joined_notes, noted
from hypervlad.common.tables import write_table
from hypervlad.common.wording import counted, name_some, printable
from hypervlad.images import ImageReadError, ReadOptions, find_images, read_image
from hypervlad.images.annotations import words_of_annotations
from hypervlad.images.files import file_stamp, large_last
from hypervlad.images.pixels import is_same_image
from hypervlad.images.reading import relative_names
from hypervlad.images.sample import read_sample
from hypervlad.objects.detection import MIN_AREA
from hypervlad.objects.found_files import FIELDS, PARTICLES, RUN
from hypervlad.objects.found_folder import FoundFolder
from hypervlad.objects.particle import cropped

_READING = "page", "channel", "banner", "scaling", "percentiles", "max_pixels"
_LEAST_AREA = re.compile(r"(?<![\w/.-])min_area(?![\w/-]|\.\w)")  # no part of a file's name
_LAYER = re.compile(r"--set layer=\w+ \(in Python, layer='\w+'\)")
_REPLACED = (
    "the file was replaced after particles were found in it, and the outlines are those of the old "
    "image: put that back, or save the new one under another name"
)
_LEARN = "correct some images, and let it learn from these"


class Finding(Exchange):
    """A folder of images, in which commands of hypervlad find particles.

    Parameters
    ----------
    folder : path
        Of found particles, or to become one.
    images : path, optional
        Folder of the images, by default that in which particles were found.
    """

    def __init__(
        self, folder: str | os.PathLike[str], images: str | os.PathLike[str] | None = None
    ) -> None:
        path = Path(os.path.abspath(folder))
        given = None if images is None else Path(os.path.abspath(images))
        # Raises if there are none, before a folder is made.
        found = [] if given is None else find_images(given)
        path.mkdir(exist_ok=True)
        super().__init__(path)
        noted = None if (path / RUN).exists() else self.fact("images") or given
        self._root = Path(noted) if noted else FoundFolder(path).images
        if given not in (None, self._root):
            raise ValueError(
                f"{path} has results of the images in {self._root}; give another --output"
            )
        self.set_facts(images=str(self._root))
        if not (found or self.is_found):
            found = find_images(self._root)
        #: The pixel sizes of all images.
        self.scales = Scales(self, self._root, self._usual_sizes(), self._in_words)
        #: The groups of images, by which results are compared.
        self.groups = Groups(self, self._known("group"))
        self._files, self._names = list[Path](), list[str]()
        self._take_files(found) if found else self._add_files(self._root)
        self.scales.look_at(self._files)
        self._list_unsearched()
        #: What a person has started.
        self.runner = Runner(self, self._asking, self._in_words, self._pixels)
        self._sizes, self._size_options = dict[str, float](), list[str | Path]()  # of the task
        self._networks = Networks()

    def read_options(self) -> ReadOptions:
        is_there = (self.folder / RUN).exists()
        return super().read_options() if is_there else ReadOptions(page=0)

    def image_of(self, image: int) -> Path:
        name = os.fsdecode(self._row(image)["name"])
        return self._root / name if name in self._unsearched else super().image_of(image)

    def images(self) -> list[dict[str, Any]]:
        listed, is_found = super().images(), self.is_found
        for each in listed:
            if "words" in each:
                about = self.scales.about(each["name"])
                each |= about if about["error"] or not is_found else {}
        return listed

    def shown(self, image: int) -> dict[str, Any]:
        self._networks.load_soon()
        if self._is_ready(image):
            found = super().shown(image)
            notes = self._note_of_replaced(image), found.get("message")
            return found | {"message": self._in_words(joined_notes(notes))}
        path = self.image_of(image)
        try:
            height, width = read_opened(path, self.read_options()).pixels.shape[:2]
        except ImageReadError as error:
            raise ImageReadError(self._in_words(error)) from error
        shown: dict[str, Any] = {"message": "", "is_whole": True, "removed": []}
        shown |= {"version": -1, "message": "not searched yet"} if self.is_found else {"version": 0}
        (name,) = relative_names([path], self._root)
        shown |= {"outlines": [], "can_undo": False, "can_redo": False, "name": printable(name)}
        return shown | {"height": height, "width": width, "pixel_size": self.scales.size_of(name)}

    def _note_of_replaced(self, image: int) -> str:
        """Return what a person should know if the file is another one than was searched."""
        table = self.found.field_table.set_index("micrograph")
        before = table["image_digest"][os.fsdecode(self._row(image)["name"])]
        with contextlib.suppress(ImageReadError):  # the page reports it in place of the image
            path = self.image_of(image)
            now = _digest_of(path, file_stamp(path), self.read_options())
            is_same = not isinstance(before, str) or is_same_image(now, before)
            return "" if is_same else _REPLACED
        return ""

    def preview(self, image: int, polarity: str, min_area: int, middle: str) -> dict[str, Any]:
        """Find the particles of one image, or of the part in view, and return them as `shown` does.

        `middle` is as for `part_in_view`.
        """
        finder: dict[str, Any] = {"polarity": polarity, "min_area": min_area}
        if layer := self._run_before()["finder"].get("layer"):
            finder["layer"] = layer
        try:
            path = self.image_of(image)
            part = self._part_of(path, middle)
            found = self._networks.preview(path, part, finder, self.read_options())
        except ValueError as error:
            raise QueueError(self._in_words(error)) from error
        return found | {"message": self._in_words(found["message"])}

    def _part_of(self, path: Path, middle: str) -> Part | None:
        """Return the part of an image that is in view; see `part_in_view`."""
        (name,) = relative_names([path], self._root)
        shape = self.scales.shape_of(name) or read_image(path, page=0).shape
        return part_in_view(shape, middle)

    def prepare(self, image: int) -> None:
        """Read an image for `grow`, before a click."""
        self._networks.prepare(self.image_of(image), self.read_options())

    def grow(self, click: str, image: int, version: int, stroke: list[Any]) -> dict[str, Any]:
        """Let a particle grow where a stroke begins; see `edit`.

        Nothing else waits for that: outlines that are changed meanwhile stay.
        """
        (now, outlines), done = self.outlines_of(image), None
        path, options = self.image_of(image), self.read_options()
        try:
            if now == version:
                done = self._networks.grow(path, options, stroke, outlines)
        except ValueError as error:
            raise QueueError(self._in_words(error)) from error
        return self.edit(click, image, version, lambda _: done)

    def left_out(self, image: int) -> dict[str, Any]:
        """Return what finding leaves out of an image, as it is no sample, as polygons."""
        path, finder = self.image_of(image), self._run_before()["finder"]
        own: Any = {"annotations": finder.get("annotations", "leave_out")}
        own |= {"auto": "auto"} if "model" in finder else {}
        try:
            with noted(path.name):
                sample = read_sample(path, read_options=self.read_options(), **own)
        except ImageReadError as error:
            raise QueueError(self._in_words(error)) from error
        outline = cropped(~sample.mask)
        words = words_of_annotations(sample.annotations)
        message = f"left out, as it is no sample: {words}" if words else "nothing is left out here"
        return {"outlines": shapes_of([outline] if outline else []), "message": message}

    def files(self) -> list[Path]:
        """Return the images of the folder; new ones get the next numbers."""
        self._add_files(self._root)
        self.scales.look_at(self._files)  # others may have been replaced
        return self._files

    def own_names(self) -> list[str]:
        """Return the names of the images of the folder, without those from elsewhere."""
        return [name for name in self._names if not is_elsewhere(name)]

    def _add_files(self, place: str | Path) -> None:
        """Add the new images of a folder, or of a table with the columns path and label."""
        with contextlib.suppress(ValueError, OSError):  # the folder may have been moved
            if str(place).endswith(".csv"):
                from hypervlad.folders.folder import load_image_folder  # not above: it takes long

                place = load_image_folder(place).images
            self._take_files(find_images(place))

    def _take_files(self, files: Iterable[Path]) -> None:
        known = set(self._files)
        new = [each for each in files if each not in known]
        self._files += new
        self._names += relative_names(new, self._root)

    def is_current(self) -> bool:
        """Return whether the results of particles are of the outlines as they are now."""
        return bool(made := self.fact("results")) and made == self._stamp()

    # --- internal -------------------------------------------------------------------------------

    def _is_ready(self, image: int) -> bool:
        """Return whether an image was searched; while others are, an open page may be early."""
        if not self.is_found or self.is_complete:
            return self.is_found
        name = os.fsdecode(self._row(image)["name"])
        return name in self.found.by_name and self.found.outlines_file(name).exists()

    def _list_unsearched(self) -> None:
        """List the images of the folder, too, until particles were looked for in all of them."""
        self._unsearched = frozenset([] if self.is_complete else self.own_names())
        self._add_images(sorted(self._unsearched))

    def _in_words(self, message: object) -> str:
        """Return a message, with files and choices named as the page names them."""
        message = str(message).replace("say so by the polarity", "say so with “Particles are”")
        text = _LEAST_AREA.sub("“Least area”", _LAYER.sub(_LEARN, message))
        for folder in sorted((self.folder, self._root), key=lambda each: -len(each.parts)):
            text = text.replace(f"{folder}{os.sep}", "").replace(str(folder), folder.name)
        return printable(text)

    def _pixels(self) -> list[int]:
        """Return how many pixels each image has, in the order of the task that is running.

        Nothing until all were looked at.
        """
        names = [] if self.scales.summary()["is_reading"] else self.own_names()
        if self.runner.task["kind"] in ("find", "learn"):
            names = large_last({name: self._root / name for name in sorted(names)})
        shapes = (self.scales.shape_of(each) or (1,) for each in names)
        return [math.prod(shape) for shape in shapes]

    def _run(self, *arguments: str | Path) -> None:
        """Run a command of hypervlad; a QueueError with its last lines if it fails."""
        with self._writing:  # the command has the folder for itself
            if note := self.write_all():  # what it reads
                raise QueueError(note)
            self.runner.run(*arguments)

    def _find(self, polarity: str, min_area: int) -> Iterator[str]:
        yield "Finding particles"
        self._report_contradictions()
        self._note_groups()
        run = self._run_before()
        is_other = choices_of(run["finder"]) != {"polarity": polarity, "min_area": min_area}
        number = run["pixel_size"]  # as it was given in a shell, for all images
        others = self._names if number else self._sizes_before()
        is_other |= self._are_sizes_other(self._sizes, others)
        if is_other and not self.is_complete and run["finder"]:  # of a run that was stopped
            if theirs := self.begin_anew(self.folder / self.free_name(".stopped")):
                kept = f"kept as corrected in other programs: {name_some(theirs)}"
                self.runner.report(f"note: {kept}; mark as done what has all outlines right")
            run = self._run_before()
        self.files()
        self._list_unsearched()
        given: list[str | Path] = []
        model = [self.folder / MODEL] if polarity == "model" else []
        if model and not model[0].exists():
            raise QueueError(f"{MODEL} is missing: learn again, or find bright or dark ones")
        if not model:
            given += [f"--polarity={polarity}", *self._reading_options()]
            if layer := run["finder"].get("layer"):  # as the shell was asked for
                given += ["--set", f"layer={layer}"]
        if "min_area" in run["finder"] or min_area != MIN_AREA:
            given += ["--set", f"min_area={min_area}"]
        given += self._given_before()
        if is_other and self.is_complete:
            folder = self._next_folder(polarity, min_area, self._sizes)
            yield from self._find_anew(folder, model, [*given, *self._size_options])
            return
        is_one = number and not is_other
        given += ["--pixel-size", str(number)] if is_one else self._size_options
        target = "-o", self.folder, "--resume"
        self._run("particles", "find", *model, self._root, *target, *given, "--on-error", "skip")
        self.take_images()

    def _learn(self, n_epochs: int) -> Iterator[str]:
        yield "Measuring corrections"
        with self._writing:
            found = FoundFolder(self.folder)
            files = found.corrected_files()
        if not files:
            raise QueueError(
                "no image is done yet: correct all outlines of one or more, and mark it"
            )
        folder = self._next_folder(n_epochs, self._sizes)
        if not (model := folder / MODEL).exists():
            yield f"Learning from {counted(len(files), 'image')}"
            least = choices_of(found.run["finder"])["min_area"]
            options: list[str | Path] = ["--set", f"n_epochs={n_epochs}"]
            options += ["--set", f"min_area={least}"]
            options += [*self._reading_options(), *self._size_options]
            paths = self._root, self.folder, "-o", model, "--on-error", "skip"
            self._run("particles", "train", *paths, *options)
        yield from self._find_anew(folder, [model], [*self._given_before(), *self._size_options])

    def _find_anew(self, folder: Path, model: list[Path], given: list[str | Path]) -> Iterator[str]:
        """Find particles in all images but those that are done or edited, and take them over."""
        yield "Finding particles anew"
        new = folder / "found"
        target = "-o", new, "--resume", "--corrected", self.folder
        command = "particles", "find", *model, self._root, *target, *given, "--on-error", "skip"
        self._run(*command)
        if unlike := self._keep_unlike(new):
            lines = self.runner.task["lines"]
            self._run(*command)
            self.runner.task["lines"] = lines  # why these were left out
            self.runner.report(f"note: {name_some(unlike)}: the outlines stay as they were")
        if model:
            shutil.copyfile(model[0], new / MODEL)
        yield "Taking them over"
        tables = [FoundFolder(each).field_table for each in (self.folder, new)]
        numbers = [own.set_index("micrograph")["particles"].fillna(0) for own in tables]
        before, after = (own.astype(int).to_dict() for own in numbers)
        touched = self.rows("SELECT name FROM images WHERE version")
        kept = {os.fsdecode(row["name"]) for row in touched}
        if gone := sorted(before.keys() - after.keys()):
            raise QueueError(
                f"{name_some(gone)}: not in {self._root} any more, or not readable, and what was "
                "found there would be lost: put them back, or move them out of the results too"
            )
        changes = [[name, before.get(name, 0), n] for name, n in after.items() if name not in kept]
        note = {"changes": changes, "lines": self.runner.task["lines"], "n_kept": len(kept)}
        self.exchange(new, note)
        shutil.rmtree(folder, ignore_errors=True)

    def _keep_unlike(self, new: Path) -> list[str]:
        """Give outlines to images that are there, but not as a model needs them; return these."""
        fields, found = self.found.by_name, FoundFolder(new)
        gone = sorted(fields.keys() - found.by_name.keys())
        unlike = [name for name in gone if (self._root / name).exists()]
        for name in unlike:
            outlines = self.found.outlines(name)
            found.outline_files.write_found(name, outlines, fields[name].pixel_size)
        return unlike

    def _next_folder(self, *choices: object) -> Path:
        """Return where particles are found anew: after a stop, with the same corrections, again."""
        with self._writing:
            files = FoundFolder(self.folder).corrected_files()
        digests = {name: digest for name, ((_, digest),) in files.items()}
        key = hashlib.sha256(json.dumps([digests, *choices]).encode()).hexdigest()[:16]
        folder = self.folder / f".next-{key}"
        for other in self.folder.glob(".next-*"):
            if other != folder:
                shutil.rmtree(other, ignore_errors=True)
        folder.mkdir(exist_ok=True)
        return folder

    def _run_before(self) -> dict[str, Any]:
        """Return what a run here was made with, which may have been stopped."""
        is_there = (self.folder / RUN).exists()
        return FoundFolder(self.folder).run if is_there else {"finder": {}, "pixel_size": None}

    def _make_results(self) -> Iterator[str]:
        yield "Counting particles"
        self.write_all()
        self._note_groups()
        self.runner.report(*self.groups.note(self.own_names()))
        folder, stamp = self.folder / RESULTS, self._stamp()
        refuse_link(folder)
        folder.mkdir(exist_ok=True)
        self.set_facts(results="")
        counts, report = folder / "counts.csv", folder / "report"
        written = "-o", counts, "--page", folder / "particles.html"
        formats = [f"--format={each}" for each in ("coco", *ARCHIVES) if each != "outlines"]
        self._run("particles", "count", self.folder, *written, *formats, "--on-error", "skip")
        yield "Writing the report"
        self._run("report", self.folder, "-o", report, "--on-error", "skip")
        for kind, name in ARCHIVES.items():
            write_archive(folder / name, files_in(self.folder / kind), self.folder)
        tables = counts, report / "results.csv", self.folder / PARTICLES, self.folder / FIELDS
        (workbook := folder / "tables.xlsx").unlink(missing_ok=True)
        try:
            self._run("workbook", *tables, "-o", workbook)
        except QueueError as error:  # such as a cell that is too long; all else is there
            self.runner.report(error)
        self.set_facts(results=stamp)

    def _stamp(self) -> str:
        """Return what changes with each edit, and whenever other particles are found."""
        found = self.execute("SELECT id, version, done FROM images ORDER BY id")
        files = [self.folder / RUN, *files_in(self.folder / "outlines")]
        stamp = [[*map(tuple, found.fetchall())], [str(file_stamp(file)) for file in files]]
        stamp.append(sorted(self.groups.named().items()))
        return hashlib.sha256(json.dumps(stamp).encode()).hexdigest()

    def _reading_options(self) -> list[str]:
        """Return the options by which images were read, where they differ from the usual ones."""
        if not (self.folder / RUN).exists():
            return []
        used, usual = FoundFolder(self.folder).read_options, ReadOptions()
        values = {name: getattr(used, name) for name in _READING}
        own = {name: value for name, value in values.items() if value != getattr(usual, name)}
        return [word for name in own for word in ("--set", f"{name}={own[name]}")]

    def _typed_path(self, text: str) -> str:
        """Return the absolute path of a file or folder that a person has typed, if any."""
        if not (text := text.strip().strip('"')):
            return ""
        path = Path(os.path.abspath(self._root / Path(text).expanduser()))
        if not path.exists():
            raise QueueError(f"{path}: no such file or folder; type the full path")
        return str(path)

    def _given_before(self) -> list[str | Path]:
        """Return the options with which particles were found; groups and samples are in tables."""
        groups, _ = self.groups.table(self.own_names())
        given: list[str | Path] = [f"--groups={groups}"] if groups else []
        if not (self.folder / RUN).exists():
            return given
        found = FoundFolder(self.folder)
        if found.run["finder"].get("annotations") == "keep":
            given.append("--keep-annotations")
        given += [f"--format={kind}" for kind in found.outline_files.formats()]
        if known := self._known("sample"):
            names = relative_names(find_images(self._root), self._root)
            rows = [[each, known.get(each, "none")] for each in names]  # also of one that is new
            write_table(self.folder / ".sample.csv", ["path", "sample"], rows)
            given += ["--samples", self.folder / ".sample.csv"]
        return given

    def _known(self, column: str) -> dict[str, str]:
        """Return what the table of fields has of images, by their names."""
        if not (self.folder / FIELDS).exists():
            return {}
        table = FoundFolder(self.folder).field_table.set_index("micrograph")
        known: dict[str, str] = table[column].dropna().astype(str).to_dict()
        return known

    def _note_groups(self) -> None:
        """Write the groups of images into the table of fields."""
        if (self.folder / FIELDS).exists():
            with self._writing:
                known = FoundFolder(self.folder).searched
                rows = known.rows().items()
                known.write(row | {"group": self.groups.of(name)} for name, row in rows)

    def _sizes_before(self) -> dict[str, float]:
        """Return the pixel sizes with which particles were found, as they were given."""
        run = self._run_before()
        number = run["pixel_size"]
        known = self.found.by_name if number and self.is_found else {}
        of_all = {name: number for name, each in known.items() if each.pixel_size == number}
        return of_all | dict(run.get("pixel_sizes") or {})

    def _usual_sizes(self) -> dict[str, list[float | None]]:
        """Return the sizes of before, with how precise they are: an error of a bar of 1 pixel."""
        known = self.found.by_name if self.is_found else {}
        shares = {name: each.scale_bar_error for name, each in known.items()}
        return {
            name: [size, 1.0, share / 2] if (share := shares.get(name)) else [size, None, None]
            for name, size in self._sizes_before().items()
        }

    def _are_sizes_other(self, sizes: Mapping[str, float], names: Iterable[str]) -> bool:
        """Return whether images have other sizes than those with which particles were found."""
        before = self._sizes_before()
        return any(sizes.get(name) != before.get(name) for name in names)

    def _report_contradictions(self) -> None:
        self.runner.report(*(f"warning: {each}" for each in self.scales.contradictions()))


@functools.lru_cache(4096)
def _digest_of(path: Path, stamp: tuple[int, int] | None, options: ReadOptions) -> str:
    return read_opened(path, options).digest


def choices_of(finder: dict[str, Any]) -> dict[str, Any]:
    """Return how particles were found as a person chooses it."""
    polarity = "model" if "model" in finder else finder.get("polarity", "auto")
    return {"polarity": polarity, "min_area": finder.get("min_area", MIN_AREA)}
