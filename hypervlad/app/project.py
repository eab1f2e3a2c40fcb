"""``Project``: a folder of images with its results, and the commands that a person starts there."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import importlib
import io
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote
from zipfile import ZIP_DEFLATED, ZipFile

from hypervlad.app.corrections import MODEL, Corrections, move_results, shapes_of
from hypervlad.app.database import FILE, QueueError, StaleError, UnknownError
from hypervlad.app.runner import Runner
from hypervlad.app.scales import Proposal, Scales, typed_number
from hypervlad.app.store import Queue, checked_name
from hypervlad.app.tasks import LEARN_AGAIN, PARTICLE_FILES, TASKS, Choice, Step, Task
from hypervlad.common.files import parse_json, refuse_link, replace_when_complete
from hypervlad.common.tables import table_as_bytes, write_table
from hypervlad.common.wording import counted, name_some, printable
from hypervlad.images import ImageReadError, ReadOptions, find_images, find_masks, read_image
from hypervlad.images.files import file_stamp, is_below, path_parts
from hypervlad.images.reading import relative_names
from hypervlad.objects.detection import MIN_AREA
from hypervlad.objects.found_folder import FIELDS, PARTICLES, RUN, FoundFolder
from hypervlad.objects.outlines import find_outlines

RESULTS = "results"
_PREVIEW = ".preview"
_MAX_FIGURES = 30  # of which the page lists each
_NOT_ZIPPED = "maps", "queue"
_READING = "page", "channel", "banner", "scaling", "percentiles", "max_pixels"


class Project(Corrections):
    """A folder of images with its results: found in, learnt from, counted, corrected, measured.

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
        #: The pixel sizes of all images.
        self.scales = Scales(self, self._root, self._usual_sizes(), self._in_words)
        self._files, self._names = list[Path](), list[str]()
        self.files()
        #: What a person has started.
        self.runner = Runner(self, self._asking, self._in_words)
        self._sizes, self._size_options = dict[str, float](), list[str | Path]()  # of the task
        self._previewing = threading.Lock()
        #: The task of which one image, `_previewed`, was looked at last, rather than all measured.
        self.previewed, self._previewed = "", ""
        self._queue: Queue | None = None
        if not self.is_found:  # a preview shall not wait for it
            finding = "hypervlad.particles.finding"
            threading.Thread(target=importlib.import_module, args=[finding], daemon=True).start()

    def close(self) -> None:
        """Stop what is running, and close all connections."""
        self.runner.close()
        self.scales.close()
        self._close_queue()
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
        usual: dict[str, Any] = {"version": 0, "n": 0, "is_edited": False, "is_done": False}
        return [
            usual | {"id": number, "name": printable(name)} | self.scales.about(name)
            for number, name in enumerate(self._names[: len(self._unsearched)], 1)
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
        (name,) = relative_names([path], self._root)
        shown |= {"outlines": [], "can_undo": False, "can_redo": False, "name": printable(name)}
        size = self.scales.size_of(name)
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

    # --- tasks ----------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return what the page shows besides images: the task, choices, and what can be done."""
        known: dict[str, Any] = {"task": dict(self.runner.task)}  # what is done is in the rest
        known |= {"is_found": self.is_found, "generation": int(self.fact("generation") or 0)}
        known["folder"] = str(self.folder)
        run = self.found.run if self.is_found else self._run_before()
        known["finder"] = _choices(run["finder"])
        known["has_earlier"] = (self.fact("earlier") or "[]") != "[]"
        known |= self._progress()
        known["is_unmeasured"] = self.is_found and self._are_sizes_other(self.found.by_name)
        return known

    def _progress(self) -> dict[str, Any]:
        """Return what the page says of images before anything is found."""
        known = self.scales.summary()
        words = [counted(sum(not self._is_elsewhere(name) for name in self._names), "image")]
        words += [f"{known['n_read']:,} looked at"] * known["is_reading"]
        words += [f"{known['n_without']:,} without a pixel size"] * bool(known["n_without"])
        words += [f"{known['n_wrong']:,} unreadable"] * bool(known["n_wrong"])
        return {"is_reading": known["is_reading"], "progress": " · ".join(words)}

    def title(self) -> str:
        """Return in words how the task is; "" if there is none."""
        known = self.runner.task
        kind, is_of_one = known.get("kind", ""), known.get("choices", {}).get("only")
        task = TASKS.get(kind)
        resumes = task is None or any("--resume" in step.command for step in task.steps)
        done = {
            "find": "Particles are found.",
            "learn": "Learnt, and particles found anew.",
            "results": "The results are written.",
            "learn_again": "Learnt, and all images classified again.",
        }
        titles = {
            "running": f"{known.get('step')}…",
            "done": done.get(kind)
            or (task and (f"{task.title}: this is the preview." if is_of_one else task.done)),
            "stopped": f"Stopped. {'What is done is kept.' if resumes else 'It begins anew.'}",
            "failed": "This did not work",
        }
        return titles.get(known.get("state", "")) or ""

    def is_current(self) -> bool:
        """Return whether the results of particles are of the outlines as they are now."""
        return bool(made := self.fact("results")) and made == self._stamp()

    def start(self, kind: str, choices: dict[str, Any]) -> None:
        """Start a task, "find", "learn", "results" or one of `TASKS`, with choices of a person.

        Parameters
        ----------
        kind : str
        choices : dict
            Of "find", "polarity" and "min_area"; of "learn", "n_epochs"; of `TASKS`, those of the
            form, with "image", as `file` expects it, and "only", which is not empty if only this
            image is meant.
        """
        does: dict[str, Callable[..., Iterator[str]]]
        does = {"find": self._find, "learn": self._learn, "results": self._make_results}
        does |= {"learn_again": self._learn_again}
        does |= {each: partial(self._measure, task) for each, task in TASKS.items()}
        with self._asking:
            self.runner.check_idle()
            self._sizes, table = self.scales.as_now()
            self._size_options = ["--pixel-size", table] if table else []
            self.runner.start(kind, choices, does[kind])

    def take_back(self, folder: str) -> None:
        """Restore what was found before the last exchange, in the last of `earlier_folders`."""
        with self._asking:  # a second click waits, and is too late
            self.runner.check_idle()
            if [each["folder"] for each in self.earlier_folders()][-1:] != [folder]:
                raise StaleError("this has been taken back already")
            self.exchange(self.folder / folder)
            self.runner.forget()

    def results_shown(self, kind: str) -> str:
        """Return where results of a task are: as its kind, or "preview/KIND" of one image."""
        return f"preview/{kind}" if self.previewed == kind else kind

    def _folder_of(self, place: str) -> Path:
        return self.folder / place.replace("preview/", f"{_PREVIEW}/")

    def result_file(self, place: str, name: str) -> Path | None:
        """Return a file of results; None if there is none, or behind a link."""
        folder = self._folder_of(place)
        is_table = place == RESULTS and name in (PARTICLES, FIELDS) and folder.is_dir()
        path = (self.folder if is_table else folder).joinpath(*path_parts(name))
        own = [path, *path.parents]
        above = own[: own.index(self.folder)] if is_below(name) else own
        is_hidden = any(part.startswith(".") for part in path_parts(name))
        if is_hidden or not is_below(name) or any(each.is_symlink() for each in above):
            return None
        return path if path.is_file() else None

    def listed_results(self, place: str) -> list[tuple[list[tuple[str, str]], str]]:
        """Return the results that are there: links, as names and titles, and what is in them."""
        task, folder = TASKS.get(place.split("/")[-1]), self._folder_of(place)
        found = list[tuple[list[tuple[str, str]], str]]()
        for name, title, about, *others in PARTICLE_FILES if task is None else task.files:
            if "*" in name:
                every = sorted(each.relative_to(folder).as_posix() for each in folder.glob(name))
                found += [([(each, each)], "") for each in every[:_MAX_FIGURES]]
                if len(every) > _MAX_FIGURES:
                    found.append(([], f"and {len(every) - _MAX_FIGURES:,} more in the folder"))
                continue
            pairs = [(name, title), *zip(others[::2], others[1::2], strict=True)]
            if links := [each for each in pairs if self.result_file(place, each[0])]:
                found.append((links, about))
        return found

    def page_of(self, place: str) -> str:
        """Return the page of results, which changes when they do; "" if there is none."""
        task, folder = TASKS[place.split("/")[-1]], self._folder_of(place)
        name, mark, anchor = (task.page if place == task.kind else task.preview).partition("#")
        if (page := next(iter(sorted(folder.glob(name))), None)) is None:
            return ""
        path = quote(f"{place}/{page.relative_to(folder).as_posix()}")
        return f"{path}?{page.stat().st_mtime_ns}{mark}{anchor}"

    def keep(self, kind: str, text: str) -> Path:
        """Keep what a person has saved on the page of results; return its file."""
        if not (name := TASKS[kind].saved[1]):
            raise UnknownError(f"nothing is kept of {kind}")
        path = self.folder / f"{kind}_{name}"
        before = path.read_text("utf-8") if path.exists() else ""
        if name.endswith(".json"):
            text = _with_other_masks(text, before)
        elif self.previewed == kind:  # of one image, so those of the others stay
            text = _with_other_rows(text, before, self._previewed)
        with replace_when_complete(path) as stream:
            stream.write(text.encode("utf-8"))
        self.set_facts(**{f"saved of {kind}": str(path)})  # until it is used
        return path

    def values(self, kind: str) -> dict[str, Any]:
        """Return what the form of a task shows: the last choices."""
        known = self.runner.task.get("choices") if self.runner.task.get("kind") == kind else None
        known = known or self._made_with(kind)[0]
        usual = {
            each.name: each.values[0][0] if each.values else "" for each in TASKS[kind].choices
        }
        saved = self.fact(f"saved of {kind}")
        return {**usual, **known} | ({TASKS[kind].saved[0]: saved} if saved else {})

    def queue(self) -> Queue | None:
        """Return the queue of uncertain images, if classifying has made one."""
        with self._asking:
            path = self.folder / "classes" / "queue"
            if self._queue is None and (path / FILE).exists():
                self._queue = Queue(path)
            return self._queue

    def _close_queue(self) -> None:
        with self._asking:
            if self._queue is not None:
                self._queue.close()
            self._queue = None

    # --- images of other tasks ------------------------------------------------------------------

    def files(self) -> list[Path]:
        """Return the images of the folder; new ones get the next numbers."""
        given = [self._made_with(kind)[0].get(task.given) for kind, task in TASKS.items()]
        for place in [self._root, *filter(None, given)]:
            with contextlib.suppress(ValueError, OSError):  # the folder may have been moved
                known, found = set(self._files), _images_at(place)
                new = [each for each in found if each not in known]
                self._files += new
                self._names += relative_names(new, self._root)
        self.scales.look_at(self._files)  # others may have been replaced
        return self._files

    def _is_elsewhere(self, name: str) -> bool:
        """Return whether an image is in another folder, from which a task learns."""
        return name.startswith("../") or os.path.isabs(name)

    def file(self, number: int) -> Path:
        """Return one of `files`, which begin with 1."""
        if not 1 <= number <= len(self._files):
            raise UnknownError(f"there is no image {number}")
        return self._files[number - 1]

    def listed_files(self, kind: str) -> list[dict[str, Any]]:
        """Return what the list of a task shows of each image: its number, name, size and mark."""
        self.files()
        marks = self.marks(kind)
        return [
            {"number": number, "name": printable(name), "mark": marks.get(name, "")}
            | self.scales.about(name)
            for number, name in enumerate(self._names, 1)
            if kind == "sizes" or not self._is_elsewhere(name)
        ]

    def abouts(self) -> dict[int, dict[str, Any]]:
        """Return what `Scales` knows about each of `files`, by its number."""
        return {number: self.scales.about(name) for number, name in enumerate(self._names, 1)}

    def proposals(self) -> list[Proposal]:
        """Return the pixel sizes that bars say, with images as `name_of` expects them."""
        numbers = {name: number for number, name in enumerate(self._names, 1)}
        return [
            each._replace(image=f"{numbers[each.image]}:{printable(each.image)}")
            for each in self.scales.proposals()
        ]

    def marks(self, kind: str) -> dict[str, str]:
        """Return what people have marked images as for a task, by their names.

        What they have labelled in the queue counts, too, unless it was marked again since.
        """
        labels = self._queue_labels() if kind == "classes" else {}
        return _with_labels(self._typed_marks(kind), self._made_with(kind)[1], labels)

    def _queue_labels(self) -> dict[str, str]:
        """Return the labels of the queue, unless images or a model were given, by names."""
        choices, _ = self._made_with("classes")
        queue = None if choices.get("source") or choices.get("model") else self.queue()
        labelled = [each for each in queue.images() if each.label] if queue else []
        names = relative_names([each.image for each in labelled], self._root)
        return {name: each.label or "" for name, each in zip(names, labelled, strict=True)}

    def _typed_marks(self, kind: str) -> dict[str, str]:
        known: dict[str, str] = parse_json(self.fact(f"marks of {kind}") or "{}")
        return known

    def mark_file(self, kind: str, image: str, word: str) -> None:
        """Mark an image, "NUMBER:NAME", for a task; "" takes the mark away."""
        name, word = self.name_of(image), word.strip()
        with self._asking:
            marks = {each: own for each, own in self._typed_marks(kind).items() if each != name}
            marks |= {name: checked_name(word)} if word else {}
            self.set_facts(**{f"marks of {kind}": json.dumps(marks)})

    def name_of(self, image: str) -> str:
        """Return the name of an image of a page, which may be of before the server's last start."""
        number, _, shown = image.partition(":")
        path = self.file(int(number) if number.isdecimal() and len(number) < 10 else 0)
        (name,) = relative_names([path], self._root)
        if printable(name) != shown:
            raise StaleError("the folder has other images now: load the page again")
        return name

    # --- internal -------------------------------------------------------------------------------

    def _in_words(self, message: object) -> str:
        """Return a message, with files named as the page names them."""
        text = str(message)
        for folder in sorted((self.folder, self._root), key=lambda each: -len(each.parts)):
            text = text.replace(f"{folder}{os.sep}", "").replace(str(folder), folder.name)
        return printable(text)

    def _run(self, *arguments: str | Path) -> None:
        """Run a command of hypervlad; a QueueError with its last lines if it fails."""
        with self._writing:  # the command has the folder for itself
            if note := self.write_all():  # what it reads
                raise QueueError(note)
            self.runner.run(*arguments)

    def _find(self, polarity: str, min_area: int) -> Iterator[str]:
        yield "Finding particles"
        self._tell_contradictions()
        run = self._run_before()
        is_other = _choices(run["finder"]) != {"polarity": polarity, "min_area": min_area}
        number = run["pixel_size"]  # as it was given in a shell, for all images
        is_other |= self._are_sizes_other(self._names if number else self._sizes_before())
        if is_other and not self.is_found and run["finder"]:  # of a run that was stopped
            move_results(self.folder, self.folder / self.free_name(".stopped"))
            run = self._run_before()
        given: list[str | Path] = []
        model = [self.folder / MODEL] if polarity == "model" else []
        if model and not model[0].exists():
            raise QueueError(f"{MODEL} is missing: learn again, or find bright or dark ones")
        if not model:
            given += [f"--polarity={polarity}", *self._reading_options()]
        if "min_area" in run["finder"] or min_area != MIN_AREA:
            given += ["--set", f"min_area={min_area}"]
        given += self._given_before()
        if is_other and self.is_found:
            folder = self._next_folder(polarity, min_area, self._sizes)
            yield from self._find_anew(folder, model, [*given, *self._size_options])
            return
        is_one = number and not is_other
        given += ["--pixel-size", str(number)] if is_one else self._size_options
        target = "-o", self.folder, "--resume"
        self._run("particles", "find", *model, self._root, *target, *given, "--on-error", "skip")
        self.take_images()

    def _measure(self, task: Task, only: str, image: str, **choices: Any) -> Iterator[str]:
        """Do a task with all images, or with `only` one that is looked at."""
        yield "Starting"
        self._tell_contradictions()
        images = self._root / self.name_of(image) if only else self._root
        for each in task.choices:
            if each.kind == "path":
                choices[each.name] = self._typed_path(choices[each.name])
            elif each.kind == "number":
                choices[each.name] = typed_number(choices[each.name], each.label)
        if choices.get("model") and choices.get(task.given):  # which would be trained anew
            raise QueueError("give sorted images or a model, not both")
        self.previewed, self._previewed = (task.kind, self.name_of(image)) if only else ("", "")
        folder = self._folder_of(self.results_shown(task.kind))
        refuse_link(folder)
        if only:
            shutil.rmtree(folder, ignore_errors=True)
        with self._asking:  # what is marked from now on is not learnt
            marks = {} if task.mark is None else self.marks(task.kind)
            if not only:
                self._prepare(task, folder, choices, marks)
                self.set_facts(**{f"saved of {task.kind}": ""})
        folder.mkdir(parents=True, exist_ok=True)
        model = choices.get("model") or folder / "model.hvlad"
        given = [choices[task.given]] if choices.get(task.given) else []
        if task.given and not given and not choices.get("model"):
            given = self._given_by_marks(task, folder, marks)
        if choices.get("masks"):
            given += self._with_masks(choices["masks"])
        fill = {"IMAGES": [images], "MODEL": [model], "GIVEN": given}
        yield from self._steps(task, task.steps[: 1 if only else None], folder, fill, choices)

    def _learn_again(self) -> Iterator[str]:
        """Train the classes anew with the labels of people, and classify all images again."""
        yield "Starting"
        task, folder = TASKS["classes"], self.folder / "classes"
        choices, before = self._made_with("classes")
        if self.queue() is None or choices.get("model"):
            raise QueueError("learning needs the training images: classify without a given model")
        labels = self._queue_labels()
        marks = _with_labels(self._typed_marks("classes"), before, labels)
        listed = {each: own for each, own in marks.items() if each in before or each not in labels}
        given = choices.get("source") or self._given_by_marks(task, folder, listed)[0]
        fill = {"IMAGES": [self._root], "MODEL": [folder / "model.hvlad"], "GIVEN": [given]}
        yield from self._steps(task, LEARN_AGAIN, folder, fill, choices)
        with self._asking:  # what was marked meanwhile is not learnt
            marks = _with_labels(self._typed_marks("classes"), before, labels)
            self._note_made("classes", choices, listed | labels, marks)

    def _prepare(
        self, task: Task, folder: Path, choices: dict[str, Any], marks: dict[str, str]
    ) -> None:
        """Rename results that were made with other choices, and note those of new ones."""
        made, before = self._made_with(task.kind)
        late = {each.name: "" for each in task.choices if each.is_late}
        paths = [choices[e.name] for e in task.choices if e.kind == "path" and not e.is_late]
        stamps = [str(file_stamp(each)) for each in paths if os.path.isfile(each)]
        choices = choices | {"pixel_sizes": self._sizes, "stamps": stamps}
        is_given = choices.get(task.given) or choices.get("model")
        if (
            made | late != choices | late
            or (marks != before and not is_given)
            or not folder.exists()
        ):
            self._close_queue()
            # First, for a kill: the marks have the labels of its queue, which is elsewhere then.
            self._note_made(task.kind, made | {"is_renamed": True}, marks, marks)
            if folder.exists() and any(folder.iterdir()):
                os.replace(folder, self.folder / self.free_name(task.kind))
        self._note_made(task.kind, choices, marks, marks)

    def _made_with(self, kind: str) -> tuple[dict[str, Any], dict[str, str]]:
        """Return the choices and marks with which the results of a task were made."""
        choices, marks = parse_json(self.fact(f"choices of {kind}") or "[{}, {}]")
        return choices, marks

    def _note_made(
        self, kind: str, choices: dict[str, Any], used: dict[str, str], marks: dict[str, str]
    ) -> None:
        """Note with which choices and marks results are made, and all marks that there are."""
        made = json.dumps([choices, used])
        self.set_facts(**{f"choices of {kind}": made, f"marks of {kind}": json.dumps(marks)})

    def _steps(
        self,
        task: Task,
        steps: Sequence[Step],
        folder: Path,
        fill: dict[str, list[Any]],
        choices: dict[str, Any],
    ) -> Iterator[str]:
        """Run commands of a task, and put what they have written into one file, too."""
        (images,) = fill["IMAGES"]
        for step in steps:
            yield step.words
            is_made = bool(step.makes) and (folder / step.makes).exists()
            if is_made or ("GIVEN" in step.command and not fill["GIVEN"]):
                continue
            own = list[str | Path]()
            for word in step.command.split():
                own += fill.get(word, [word.replace("FOLDER", str(folder))])
            for choice in task.choices:
                if choice.name in step.takes.split():
                    own += self._options(choice, choices.get(choice.name, ""))
            is_given = "GIVEN" in step.command and bool(choices.get(task.given))
            if ("IMAGES" in step.command or "GIVEN" in step.command) and any(
                self._is_elsewhere(name) is is_given and images in (self._root, self._root / name)
                for name in self._sizes
            ):
                own += self._size_options
            before = self.runner.task["lines"]
            try:
                self.runner.run(*own, "--on-error", "skip")
            except QueueError as error:
                if not step.may_fail:
                    raise
                told = [*before, *self.runner.task["lines"], self._in_words(error)]
                before = [*dict.fromkeys(told)]
            if step.may_fail:  # what else it says is in what it has written
                self.runner.task["lines"] = before
        if folder.parent != self.folder:
            return  # of one image
        whole = folder / "all.zip"
        with replace_when_complete(whole) as stream, ZipFile(stream, "w", ZIP_DEFLATED) as kept:
            for file in sorted(folder.rglob("[!.]*")):
                name = file.relative_to(folder)
                if file.is_file() and name.parts[0] not in (*_NOT_ZIPPED, whole.name):
                    kept.write(file, name)

    def _given_by_marks(self, task: Task, folder: Path, marks: dict[str, str]) -> list[Path]:
        """Return what a task learns from: marked images, or a table of their classes."""
        if gone := sorted(name for name in marks if not (self._root / name).exists()):
            marks = {name: own for name, own in marks.items() if name not in {*gone}}
            told = f"warning: not in the folder any more, so not learnt: {name_some(gone)}"
            self.runner.task["lines"] = [*self.runner.task["lines"], told]
        if not marks:
            raise QueueError(task.needs)
        if task.mark:
            return [self._root / name for name in marks]
        rows = [[str(self._root / name), word] for name, word in sorted(marks.items())]
        write_table(folder / "labels.csv", ["path", "label"], rows)
        return [folder / "labels.csv"]

    def _with_masks(self, masks: str) -> list[Path]:
        """Return the images that have a mask, also one without defects."""
        find: Callable[..., Sequence[Any]] = find_masks if os.path.isdir(masks) else find_outlines
        found = zip(self._files, find(self._files, masks), strict=True)
        return [file for file, mask in found if mask is not None]

    def _options(self, choice: Choice, value: Any) -> list[str | Path]:
        """Return a choice as an option of a command; none if it is the usual one."""
        is_usual = not value or (choice.values and value == choice.values[0][0])
        return [] if is_usual else [choice.option.format(value)]

    def _typed_path(self, text: str) -> str:
        """Return the absolute path of a file or folder that a person has typed, if any."""
        if not (text := text.strip().strip('"')):
            return ""
        path = Path(os.path.abspath(self._root / Path(text).expanduser()))
        if not path.exists():
            raise QueueError(f"{path}: no such file or folder; type the full path")
        return str(path)

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
            least = _choices(found.run["finder"])["min_area"]
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
        note = {"changes": changes, "lines": self.runner.task["lines"], "n_kept": len(kept)}
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

    def _given_before(self) -> list[str | Path]:
        """Return the options with which particles were found; some are in tables."""
        if not (self.folder / RUN).exists():
            return []
        found, given = FoundFolder(self.folder), list[str | Path]()
        if found.run["finder"].get("annotations") == "keep":
            given.append("--keep-annotations")
        for kind in ("geojson", "roi"):
            given += ["--format", kind] if (self.folder / kind).is_dir() else []
        for column in ("group", "sample") if (self.folder / FIELDS).exists() else ():
            known = found.field_table.set_index("micrograph")[column].dropna().to_dict()
            names = relative_names(find_images(self._root), self._root) if known else []
            if known:  # every image needs a line, also one that is new
                rows = [[each, known.get(each, "none")] for each in names]
                given += self._as_table(f"--{column}s", column, rows)
        return given

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

    def _are_sizes_other(self, names: Iterable[str]) -> bool:
        """Return whether images have other sizes than those with which particles were found."""
        before = self._sizes_before()
        return any(self._sizes.get(name) != before.get(name) for name in names)

    def _tell_contradictions(self) -> None:
        told = [f"warning: {each}" for each in self.scales.contradictions()]
        self.runner.task["lines"] = [*self.runner.task["lines"], *told]

    def _as_table(self, option: str, column: str, rows: list[list[Any]]) -> list[str | Path]:
        write_table(self.folder / f".{column}.csv", ["path", column], rows)
        return [option, self.folder / f".{column}.csv"]


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


def _images_at(place: str | Path) -> list[Path]:
    """Return the images of a folder, or of a table with the columns path and label."""
    if not str(place).endswith(".csv"):
        return find_images(place)
    from hypervlad.folders.folder import load_image_folder  # not above: it takes seconds

    return [*map(Path, load_image_folder(place).images)]


def _choices(finder: dict[str, Any]) -> dict[str, Any]:
    """Return how particles were found as a person chooses it."""
    polarity = "model" if "model" in finder else finder.get("polarity", "auto")
    return {"polarity": polarity, "min_area": finder.get("min_area", MIN_AREA)}


def _with_labels(
    typed: dict[str, str], before: dict[str, str], labels: dict[str, str]
) -> dict[str, str]:
    """Return marks with labels of those that were not marked again since."""
    return typed | {
        name: label for name, label in labels.items() if typed.get(name) == before.get(name)
    }
