"""``Project``: a folder of images with its results, and the commands that a person starts there."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from hypervlad.app.corrections import MODEL, Corrections, move_results, shapes_of
from hypervlad.app.database import QueueError, StaleError, UnknownError
from hypervlad.common.files import parse_json, refuse_link, replace_when_complete
from hypervlad.common.progress import READ_BY_PROGRAM
from hypervlad.common.tables import write_table
from hypervlad.common.wording import counted, name_some, printable
from hypervlad.images import ImageReadError, ReadOptions, find_images, read_image, read_micrograph
from hypervlad.images.files import file_stamp
from hypervlad.images.reading import relative_names
from hypervlad.objects.detection import MIN_AREA
from hypervlad.objects.found_folder import FIELDS, PARTICLES, RUN, FoundFolder

RESULTS = "results"
_N_LINES = 12  # of a command, which the page shows if it fails
_BAR = re.compile(r"(\d+)/(\d+) \[[\d:]+<([\d:?]+)")  # as tqdm prints it
_SIZE = re.compile(r"\d*\.?\d+")
_READING = "page", "channel", "banner", "scaling", "percentiles", "max_pixels"


class _StoppedError(Exception):
    """A person has stopped a task."""


class Project(Corrections):
    """A folder of images with its results: found in, learnt from, counted and corrected.

    All is done by commands of hypervlad, in processes of their own: one task at a time, which goes
    on after a stop or a kill where it was.

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
        if given is not None:
            find_images(given)  # raises if there are none, before a folder is made
        path.mkdir(exist_ok=True)
        super().__init__(path)
        noted = None if (path / RUN).exists() else self.fact("images") or given
        self._root = Path(noted) if noted else FoundFolder(path).images
        if given not in (None, self._root):
            raise ValueError(
                f"{path} has results of the images in {self._root}; give another --output"
            )
        self.set_facts(images=str(self._root))
        self._unsearched = [] if self.is_found else find_images(self._root)
        self._read_facts: dict[int, dict[str, Any]] = {}
        self._task: dict[str, Any] = {}
        self._process: subprocess.Popen[str] | None = None
        self._thread: threading.Thread | None = None
        self._is_stopped, self._previewing = False, threading.Lock()
        if not self.is_found:
            threading.Thread(target=self._read_images, daemon=True).start()
        if known := parse_json(self.fact("task") or "null"):
            self._task = known | {"state": "stopped", "lines": [], "step": "Stopped"}

    def close(self) -> None:
        """Stop what is running, and close all connections."""
        self.stop()
        if self._thread is not None:
            self._thread.join()
        super().close()

    # --- images in which nothing is found yet --------------------------------------------------

    def read_options(self) -> ReadOptions:
        return super().read_options() if self.is_found else ReadOptions(page=0)

    def image_of(self, image: int) -> Path:
        if self.is_found:
            return super().image_of(image)
        if not 1 <= image <= len(self._unsearched):
            raise UnknownError(f"there is no image {image}")
        return self._unsearched[image - 1]

    def images(self) -> list[dict[str, Any]]:
        if self.is_found:
            return super().images()
        names = relative_names(self._unsearched, self._root)
        usual: dict[str, Any] = {"version": 0, "n": 0, "is_edited": False, "is_done": False}
        return [
            usual | {"id": number, "name": printable(name)} | self._read_facts.get(number, {})
            for number, name in enumerate(names, 1)
        ]

    def classes(self) -> list[str]:
        return super().classes() if self.is_found else []

    def shown(self, image: int) -> dict[str, Any]:
        if self.is_found:
            return super().shown(image)
        path = self.image_of(image)
        try:
            height, width = read_image(path, page=0).shape[:2]
        except ImageReadError as error:
            raise ImageReadError(self._in_words(error)) from error
        shown: dict[str, Any] = {"version": 0, "message": "", "is_whole": True, "removed": []}
        name = printable(relative_names([path], self._root)[0])
        shown |= {"outlines": [], "can_undo": False, "can_redo": False, "name": name}
        size = self._read_facts.get(image, {}).get("pixel_size")
        return shown | {"height": height, "width": width, "pixel_size": size}

    def preview(self, image: int, polarity: str, min_area: int) -> dict[str, Any]:
        """Find the particles of one image, and return them as `shown` does; nothing is kept."""
        from hypervlad.particles.finding import find_particles  # not above: it takes seconds

        if not self._previewing.acquire(blocking=False):
            raise StaleError("another preview is being made: wait for it")
        try:
            options: Any = {"polarity": polarity, "min_area": min_area}
            options["read_options"] = self.read_options()
            found = find_particles(self.image_of(image), **options)
        except ValueError as error:
            raise QueueError(self._in_words(error)) from error
        finally:
            self._previewing.release()
        note = f": {found.note}" if found.note else ""
        kind = f"{found.polarity} particle" if len(found) else "particle"
        words = f"{counted(len(found), kind)} found in this image{note}"
        return {"is_whole": True, "removed": [], "outlines": shapes_of(found), "message": words}

    def _read_images(self) -> None:
        """Read what the page lists of each image, and what a preview needs."""
        for number, path in enumerate(self._unsearched, 1):
            known: dict[str, Any] = {}
            try:
                known["pixel_size"] = read_micrograph(path, page=0).pixel_size
            except ImageReadError as error:
                known["error"] = self._in_words(error)
            self._read_facts[number] = known
        importlib.import_module("hypervlad.particles.finding")  # a preview shall not wait for it

    # --- tasks ----------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return what the page shows besides images: the task, choices, and what can be done."""
        known: dict[str, Any] = {"task": dict(self._task)}  # first: what is done is in the rest
        known |= {"is_found": self.is_found, "generation": int(self.fact("generation") or 0)}
        known["folder"] = str(self.folder)
        run = self._run_before()
        known["finder"] = _choices(run["finder"]) | {"pixel_size": run["pixel_size"] or 0}
        earlier = self.earlier_folders()
        known["earlier"] = earlier[-1] if earlier else None
        known["results"] = list(self.result_files())
        # The page cannot open results while a task runs, and asks often: files need no look then.
        of_results = self._task.get("state") != "running" and self.fact("results")
        known["is_current"] = bool(of_results) and of_results == self._stamp()
        return known

    def start(self, kind: str, choices: dict[str, Any]) -> None:
        """Start a task, "find", "learn" or "results", with choices of a person.

        Parameters
        ----------
        kind : str
        choices : dict
            Of "find", "polarity", "min_area" and "pixel_size", text, maybe empty; of "learn",
            "n_epochs".
        """
        does = {"find": self._find, "learn": self._learn, "results": self._make_results}
        with self._asking:  # one at a time
            if self._task.get("state") == "running":
                raise StaleError(f"{self._task['step']}: wait until it ends, or stop it")
            self.set_facts(task=json.dumps({"kind": kind, "choices": choices}))
            self._is_stopped = False
            self._task = {"kind": kind, "choices": choices, "state": "running", "lines": []}
            self._task |= {"step": "Starting", "done": 0, "total": 0, "left": ""}
        self._thread = threading.Thread(target=self._do, args=[does[kind], choices], daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the task, if there is one; what it has written stays, and is used later."""
        with self._guard:
            self._is_stopped = True
            if self._process is not None:
                self._process.terminate()

    def forget(self) -> None:
        """Show no more what the last task, which has ended, had to say."""
        with self._asking:
            if self._task.get("state") != "running":
                self.set_facts(task="null")
                self._task = {}

    def take_back(self, folder: str) -> None:
        """Restore what was found before the last exchange, in the last of `earlier_folders`."""
        with self._asking:  # a second click waits, and is too late
            if self._task.get("state") == "running":
                raise StaleError(f"{self._task['step']}: wait until it ends, or stop it")
            if [each["folder"] for each in self.earlier_folders()][-1:] != [folder]:
                raise StaleError("this has been taken back already")
            self.exchange(self.folder / folder)
            self.forget()

    def result_files(self) -> dict[str, Path]:
        """Return the files that the page gives to read, by their names."""
        root = self.folder / RESULTS
        if root.is_symlink():
            return {}
        files = (Path(parent, name) for parent, _, own in os.walk(root) for name in own)
        found = {file.relative_to(root).as_posix(): file for file in sorted(files)}
        if found:
            found |= {name: self.folder / name for name in (PARTICLES, FIELDS)}
        is_there = {name: file.is_file() and not file.is_symlink() for name, file in found.items()}
        return {name: file for name, file in found.items() if is_there[name]}

    # --- internal -------------------------------------------------------------------------------

    def _in_words(self, message: object) -> str:
        """Return a message, with files named as the page names them."""
        text = str(message)
        for folder in sorted((self.folder, self._root), key=lambda each: -len(each.parts)):
            text = text.replace(f"{folder}{os.sep}", "").replace(str(folder), folder.name)
        return printable(text)

    def _do(self, steps: Callable[..., Iterator[str]], choices: dict[str, Any]) -> None:
        """Do the steps of a task, each of which has words for the page."""
        ended = "done"
        try:
            for step in steps(**choices):
                self._task |= {"step": step, "done": 0, "total": 0, "left": ""}
            self.set_facts(task="null")
        except _StoppedError:
            ended = "stopped"
        except Exception as error:  # else the page would wait for ever: it shows why
            ended = "failed"
            self._task["lines"] = [*self._task["lines"], self._in_words(error)]
        finally:
            self._task["state"] = ended

    def _run(self, *arguments: str | Path) -> None:
        """Run a command of hypervlad; a QueueError with its last lines if it fails."""
        with self._writing:  # the command has the folder for itself
            if note := self.write_all():  # what it reads
                raise QueueError(note)
            self._run_alone(*arguments)

    def _run_alone(self, *arguments: str | Path) -> None:
        environment = os.environ | {READ_BY_PROGRAM: "1", "PYTHONIOENCODING": "utf-8:replace"}
        with self._guard:
            if self._is_stopped:
                raise _StoppedError
            process = self._process = subprocess.Popen(
                [sys.executable, "-u", "-m", "hypervlad", *map(str, arguments)],
                stdin=subprocess.PIPE,  # it ends when this process does
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="replace",
                env=environment,
            )
        last = deque[str](maxlen=_N_LINES)
        with process:
            assert process.stdout is not None
            for line in process.stdout:  # in text, a bar's carriage returns end lines, too
                if bar := _BAR.search(line):
                    done, total, left = bar.groups()
                    self._task |= {"done": int(done), "total": int(total), "left": left}
                elif words := self._in_words(line.strip()):
                    last.append(words)
                    is_told = words.startswith(("warning:", "held out:", "trained on", "note:"))
                    if is_told and words not in self._task["lines"]:
                        self._task["lines"] = [*self._task["lines"], words]
        with self._guard:
            self._process = None
            if self._is_stopped:
                raise _StoppedError
        if process.returncode:
            if errors := [each for each in last if each.startswith("error: ")]:
                raise QueueError(errors[-1].removeprefix("error: "))
            self._task["lines"] = list(last)
            name = " ".join(each for each in arguments[:2] if isinstance(each, str))
            raise QueueError(f"hypervlad {name} ended with code {process.returncode}")

    def _find(self, polarity: str, min_area: int, pixel_size: str) -> Iterator[str]:
        yield "Finding particles"
        pixel_size = pixel_size.strip().replace(",", ".")
        if pixel_size and not _SIZE.fullmatch(pixel_size):
            raise QueueError(f"pixel size: a number of nanometres, such as 2.5; got {pixel_size!r}")
        run = self._run_before()
        is_other = _choices(run["finder"]) != {"polarity": polarity, "min_area": min_area}
        is_other |= bool(pixel_size and run["pixel_size"] not in (None, float(pixel_size)))
        if is_other and not self.is_found and run["finder"]:  # of a run that was stopped
            move_results(self.folder, self.folder / self.free_name(".stopped"))
            run = self._run_before()
        given: list[str | Path] = [f"--pixel-size={pixel_size}"] if pixel_size else []
        model = [self.folder / MODEL] if polarity == "model" else []
        if model and not model[0].exists():
            raise QueueError(f"{MODEL} is missing: learn again, or find bright or dark ones")
        if not model:
            given += [f"--polarity={polarity}", *self._reading_options()]
        if "min_area" in run["finder"] or min_area != MIN_AREA:
            given += ["--set", f"min_area={min_area}"]
        given += self._given_before(without_size=bool(pixel_size))
        if is_other and self.is_found:
            yield from self._find_anew(
                self._next_folder(polarity, min_area, pixel_size), model, given
            )
            return
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
        folder = self._next_folder(n_epochs, found.run["pixel_size"], found.run["pixel_sizes"])
        if not (model := folder / MODEL).exists():
            yield f"Learning from {counted(len(files), 'image')}"
            least = _choices(found.run["finder"])["min_area"]
            options: list[str | Path] = ["--set", f"n_epochs={n_epochs}"]
            options += ["--set", f"min_area={least}"]
            options += [*self._reading_options(), *self._sizes_before()]
            paths = self._root, self.folder, "-o", model, "--on-error", "skip"
            self._run("particles", "train", *paths, *options)
        yield from self._find_anew(folder, [model], self._given_before())

    def _find_anew(self, folder: Path, model: list[Path], given: list[str | Path]) -> Iterator[str]:
        """Find particles in all images but those that are done or edited, and take them over."""
        yield "Finding particles anew"
        new = folder / "found"
        target = "-o", new, "--resume", "--corrected", self.folder
        self._run("particles", "find", *model, self._root, *target, *given, "--on-error", "skip")
        if model:
            shutil.copyfile(model[0], new / MODEL)
        yield "Taking them over"
        found = (
            FoundFolder(each).field_table.set_index("micrograph") for each in (self.folder, new)
        )
        before, after = (own["particles"].fillna(0).astype(int).to_dict() for own in found)
        kept = {each["name"] for each in super().images() if each["version"]}
        if gone := sorted(before.keys() - after.keys()):
            raise QueueError(
                f"{name_some(gone)}: not in {self._root} any more, or not readable, and what was "
                "found there would be lost: put them back, or move them out of the results too"
            )
        changes = [[name, before.get(name, 0), n] for name, n in after.items() if name not in kept]
        note = {"changes": changes, "lines": self._task["lines"], "n_kept": len(kept)}
        self.exchange(new, note)
        shutil.rmtree(folder, ignore_errors=True)

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
        folder, stamp = self.folder / RESULTS, self._stamp()
        refuse_link(folder)
        folder.mkdir(exist_ok=True)
        self.set_facts(results="")
        tables = "-o", folder / "counts.csv", "--page", folder / "particles.html"
        self._run("particles", "count", self.folder, *tables, "--on-error", "skip")
        yield "Writing the report"
        self._run("report", self.folder, "-o", folder / "report", "--on-error", "skip")
        with replace_when_complete(folder / "outlines.zip") as stream, ZipFile(stream, "w") as own:
            for file in self._outline_files():
                own.write(file, file.relative_to(self.folder))
        self.set_facts(results=stamp)

    def _outline_files(self) -> list[Path]:
        return sorted(p for p in (self.folder / "outlines").rglob("[!.]*") if p.is_file())

    def _stamp(self) -> str:
        """Return what changes with each edit, and whenever other particles are found."""
        found = self.connection.execute("SELECT id, version, done FROM images ORDER BY id")
        files = [self.folder / RUN, *self._outline_files()]
        stamp = [[*map(tuple, found.fetchall())], [str(file_stamp(file)) for file in files]]
        return hashlib.sha256(json.dumps(stamp).encode()).hexdigest()

    def _reading_options(self) -> list[str]:
        """Return the options by which images were read, where they differ from the usual ones."""
        if not (self.folder / RUN).exists():
            return []
        used, usual = FoundFolder(self.folder).read_options, ReadOptions()
        values = {name: getattr(used, name) for name in _READING}
        own = {name: value for name, value in values.items() if value != getattr(usual, name)}
        return [word for name in own for word in ("--set", f"{name}={own[name]}")]

    def _given_before(self, *, without_size: bool = False) -> list[str | Path]:
        """Return the options with which particles were found; some are in tables."""
        if not (self.folder / RUN).exists():
            return []
        found, given = FoundFolder(self.folder), list[str | Path]()
        if found.run["finder"].get("annotations") == "keep":
            given.append("--keep-annotations")
        for kind in ("geojson", "roi"):
            given += ["--format", kind] if (self.folder / kind).is_dir() else []
        given += [] if without_size else self._sizes_before()
        for column in ("group", "sample") if (self.folder / FIELDS).exists() else ():
            known = found.field_table.set_index("micrograph")[column].dropna().to_dict()
            names = relative_names(find_images(self._root), self._root) if known else []
            if known:  # every image needs a line, also one that is new
                rows = [[each, known.get(each, "none")] for each in names]
                given += [f"--{column}s", self._written(column, rows)]
        return given

    def _sizes_before(self) -> list[str | Path]:
        """Return the option with the pixel sizes that were typed; of single files, in a table."""
        found = FoundFolder(self.folder)
        if size := found.run["pixel_size"]:
            return ["--pixel-size", str(size)]
        rows = [[str(found.images / name), nm] for name, nm in found.run["pixel_sizes"].items()]
        return ["--pixel-size", self._written("pixel_size", rows)] if rows else []

    def _written(self, column: str, rows: list[list[Any]]) -> Path:
        """Return a table of what is known of images, which a command reads."""
        write_table(path := self.folder / f".{column}.csv", ["path", column], rows)
        return path


def _choices(finder: dict[str, Any]) -> dict[str, Any]:
    """Return how particles were found as a person chooses it."""
    polarity = "model" if "model" in finder else finder.get("polarity", "auto")
    return {"polarity": polarity, "min_area": finder.get("min_area", MIN_AREA)}
