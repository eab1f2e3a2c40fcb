"""``Project``: a folder of images with its results, and the commands that a person starts there."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypervlad.app.corrections import MODEL
from hypervlad.app.database import FILE, QueueError, StaleError, UnknownError
from hypervlad.app.finding import Finding, choices_of
from hypervlad.app.groups import folder_of
from hypervlad.app.previews import MAX_PREVIEWS, Part, write_part
from hypervlad.app.results import Results, files_in, write_archive
from hypervlad.app.scales import Proposal, is_elsewhere, typed_number
from hypervlad.app.store import Queue, checked_name
from hypervlad.app.tasks import COVERAGE, LEARN_AGAIN, TASKS, USUAL_FPR, Step, Task
from hypervlad.common.files import parse_json, refuse_link, replace_when_complete
from hypervlad.common.modelfile import read_model
from hypervlad.common.tables import write_table
from hypervlad.common.wording import counted, name_some, printable
from hypervlad.images import ImageReadError, ReadOptions, find_images, find_masks
from hypervlad.images.files import file_stamp
from hypervlad.images.reading import relative_names
from hypervlad.objects.outline_names import find_outlines

_ALL = "all.zip"
_NOT_ZIPPED = "maps", "queue", _ALL
_OTHER_IMAGES = "the folder has other images now: load the page again"
_FILES = "path", "groups"  # kinds of choices
_KEPT = "kept.json"  # what was said in a preview


class Project(Finding):
    """A folder of images with its results: found in, learnt from, counted, corrected, measured.

    All is done by commands of hypervlad, in processes of their own: one task at a time, which goes
    on after a stop or a kill where it was.
    """

    def __init__(
        self, folder: str | os.PathLike[str], images: str | os.PathLike[str] | None = None
    ) -> None:
        super().__init__(folder, images)
        #: What is in the folder.
        self.results = Results(self)
        self._queue: Queue | None = None

    def close(self) -> None:
        """Stop what is running, and close all connections."""
        self.runner.close()
        self.scales.close()
        self._close_queue()
        super().close()

    def state(self) -> dict[str, Any]:
        """Return what the page shows besides images: the task, choices, and what can be done."""
        known: dict[str, Any] = {"task": dict(self.runner.task)}  # what is done is in the rest
        kind = known["task"].get("kind", "").replace("learn_again", "classes")
        known["task_page"] = kind if kind in TASKS else ""
        known |= {"is_found": self.is_found, "generation": int(self.fact("generation") or 0)}
        run = self.found.run if self.is_found else self._run_before()
        known |= {"folder": str(self.folder), "finder": choices_of(run["finder"])}
        known["groups"] = {printable(each): own for each, own in self.groups.named().items()}
        known["has_earlier"] = (self.fact("earlier") or "[]") != "[]"
        read = self.scales.summary()
        words = [counted(len(self.own_names()), "image")]
        words += [f"{read['n_read']:,} looked at"] * read["is_reading"]
        words += [f"{read['n_without']:,} without a pixel size"] * bool(read["n_without"])
        words += [f"{read['n_wrong']:,} unreadable"] * bool(read["n_wrong"])
        known |= {"is_reading": read["is_reading"], "progress": " · ".join(words)}
        names = self.found.by_name if self.is_found else ()
        known["is_unmeasured"] = self._are_sizes_other(self.scales.given(), names)
        return known

    def title(self) -> str:
        """Return in words how the task is; "" if there is none."""
        known = self.runner.task
        kind, is_of_one = known.get("kind", ""), known.get("choices", {}).get("only")
        task = TASKS.get(kind)
        resumes = any("--resume" in step.command for step in (task.steps if task else ()))
        resumes |= kind == "find"
        resumes |= kind == "learn" and any(self.folder.glob(f".next-*/{MODEL}"))  # else not learnt
        done = {"find": "Particles are found.", "learn": "Learnt, and found anew: see “Changes”."}
        done["results"] = "The results are written."
        done["learn_again"] = "Learnt, and all images classified again."
        if task is not None:
            part = self.results.part
            words = f"preview of {part.words}" if part else "this is the preview"
            done[kind] = f"{task.title}: {words}." if is_of_one else task.done
        titles = {
            "running": f"{known.get('step')}…",
            "done": done.get(kind),
            "stopped": f"Stopped. “Continue” {'goes on there' if resumes else 'begins anew'}.",
            "failed": "This did not work",
        }
        return titles.get(known.get("state", "")) or ""

    def start(self, kind: str, choices: dict[str, Any]) -> None:
        """Start a task, "find", "learn", "results" or one of `TASKS`, with choices of a person.

        These are "polarity" and "min_area" of "find"; "n_epochs" of "learn"; of `TASKS`, those of
        the form, with "image", as `name_of` expects it, and "only", which is not empty if only this
        image is meant: where the middle of its view is, see `part_in_view`.
        """
        does: dict[str, Callable[..., Iterator[str]]]
        does = {"find": self._find, "learn": self._learn, "results": self._make_results}
        does |= {"learn_again": self._learn_again}
        does |= {each: partial(self._measure, task) for each, task in TASKS.items()}
        with self._asking:
            self.runner.check_idle()
            if choices.get("only"):
                self._check_learnt(TASKS[kind], choices)
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

    def values(self, kind: str) -> dict[str, Any]:
        """Return what the form of a task shows: the last choices."""
        known = self.runner.task.get("choices") if self.runner.task.get("kind") == kind else None
        known = known or self._made_with(kind)[0]
        task, saved = TASKS[kind], self.fact(f"saved of {kind}")
        usual = {each.name: each.values[0][0] if each.values else "" for each in task.choices}
        return {**usual, **known} | ({task.saved[0]: saved} if saved else {})

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

    # --- images, and what people mark them as ---------------------------------------------------

    def files(self) -> list[Path]:
        """Return the images of the folder, and those from which tasks learn, with their numbers."""
        for kind, task in TASKS.items():
            if given := self._made_with(kind)[0].get(task.given):
                self._add_files(given)
        return super().files()

    def file(self, number: int) -> Path:
        """Return one of `files`, which begin with 1."""
        if not 1 <= number <= len(self._files):
            raise UnknownError(f"there is no image {number}")
        return self._files[number - 1]

    def file_named(self, name: str) -> Path:
        """Return the image of this name."""
        return self.file(self._names.index(name) + 1 if name in self._names else 0)

    def listed_files(self, kind: str) -> list[dict[str, Any]]:
        """Return what the list of a task shows of each image: its number, name, size and mark."""
        self.files()
        marks = self.marks(kind)
        return [
            {"number": number, "name": printable(name), "mark": marks.get(name, "")}
            | self.scales.about(name)
            for number, name in enumerate(self._names, 1)
            if kind == "sizes" or not is_elsewhere(name)
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

    def give_group(self, images: str, group: str) -> str:
        """Name the group of images: a list in JSON, or "by folder", or all from a table."""
        names = self.own_names()
        if group.strip().endswith(".csv"):
            files = [self._root / name for name in names]
            said = self.groups.take(Path(self._typed_path(group)), files, names, self._root)
        elif images == "by folder":
            said = self.groups.give_folders(names)
        else:
            known = {printable(name): name for name in names}
            try:
                chosen = [known[each] for each in parse_json(images)]
            except (ValueError, LookupError, TypeError) as error:
                raise StaleError(_OTHER_IMAGES) from error
            said = self.groups.give(chosen, group)
        _, other = self.groups.table(names)
        return f"{said}; {other} is the table that was there before" if other else said

    def n_folders(self) -> int:
        """Return in how many folders the images are."""
        return len({folder_of(name) for name in self.own_names()})

    def name_of(self, image: str) -> str:
        """Return the name of an image of a page, which may be of before the server's last start."""
        number, _, shown = image.partition(":")
        path = self.file(int(number) if number.isdecimal() and len(number) < 10 else 0)
        (name,) = relative_names([path], self._root)
        if printable(name) != shown:
            raise StaleError(_OTHER_IMAGES)
        return name

    # --- internal -------------------------------------------------------------------------------

    def _measure(self, task: Task, only: str, image: str, **choices: Any) -> Iterator[str]:
        """Do a task with all images, or with `only` one that is looked at."""
        yield "Starting"
        self._report_contradictions()
        for each in task.choices:
            if each.kind == "path":
                choices[each.name] = self._typed_path(choices[each.name])
            elif each.kind == "number":
                choices[each.name] = typed_number(choices[each.name], each.label)
            elif each.kind == "groups":  # a preview compares none
                choices[each.name] = "" if only else self.groups.table(self.own_names())[0]
                if not only and task.mark is None:
                    self.runner.report(*self.groups.note(self.own_names()))
        if choices.get("model") and choices.get(task.given):  # which would be trained anew
            raise QueueError("give sorted images or a model, not both")
        with self._asking:  # what is marked from now on is not learnt
            marks = {} if task.mark is None else self.marks(task.kind)
            if not only:
                self.results.previewed = ""
                folder = self.results.folder_of(task.kind)
                refuse_link(folder)
                self._prepare(task, folder, choices, marks)
                self.set_facts(**{f"saved of {task.kind}": ""})
        model = choices.get("model") or self.folder / task.kind / MODEL
        if only:
            self._report_changes(task, choices, marks)
            yield from self._preview_with(task, image, only, Path(model), choices)
            return
        folder.mkdir(parents=True, exist_ok=True)
        fill = {"IMAGES": [self._root], "FOLDER": [folder], "MODEL": [model], "GROUPS": []}
        given = [choices[task.given]] if choices.get(task.given) else []
        if task.given and not given and not choices.get("model"):
            given = self._given_by_marks(task, folder, marks)
        if choices.get("masks"):
            given += self._with_masks(choices["masks"])
        steps = task.steps
        if "fpr" in choices:
            few = _said_of_few(given, float(choices["fpr"] or USUAL_FPR))
            steps = steps[0]._replace(words=steps[0].words + few), *steps[1:]
        fill |= {"GIVEN": given, "TRAINING": ["--training", *given] if given else []}
        if task.mark == "" and given:  # labels
            fill["GROUPS"] = self.groups.of_training(folder, given[0], self._root)
        yield from self._steps(task, steps, fill, choices)

    def _preview_with(
        self, task: Task, image: str, middle: str, model: Path, choices: dict[str, Any]
    ) -> Iterator[str]:
        """Do a task with one image, or with the part in view; what is kept is not done again."""
        name, number = self.name_of(image), int(image.partition(":")[0])
        path, size, part = self._root / name, self._sizes.get(name), None
        if not task.needs_all:
            with contextlib.suppress(ImageReadError):  # the command says why
                part = self._part_of(path, middle)
        files = path, model, *(each for each in choices.values() if os.path.isfile(str(each)))
        made_with = [name, part, size, choices, [file_stamp(each) for each in files]]
        folder = self.results.open_preview(task.kind, (number, name), part, made_with)
        kept, said = folder / _KEPT, self.runner.task["lines"]
        for each in (folder.parent.parent, folder.parent, folder):  # whose content is removed
            refuse_link(each)
        with contextlib.suppress(OSError, ValueError):  # there is none, or it is damaged
            self.runner.report(*parse_json(kept.read_text("utf-8")))
            for each in (folder, *folder.rglob("*")):  # used last, and to be shown again
                os.utime(each)
            return
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        with TemporaryDirectory(dir=folder.parent) as own:
            images = path
            if part is not None:
                images = write_part(path, part, Path(own), ReadOptions(page=0, pixel_size=size))
            if choices.get("leave_out"):
                choices = choices | {"leave_out": self._left_out_of(choices, name, part, Path(own))}
            fill = {"IMAGES": [images], "FOLDER": [folder], "MODEL": [model], "GIVEN": []}
            yield from self._steps(task, task.looks or task.steps[:1], fill, choices)
        new = [each for each in self.runner.task["lines"] if each not in said]
        with replace_when_complete(kept) as stream:
            stream.write(json.dumps(new).encode())
        # Also parts of images that were being looked at when the app was stopped.
        for old in sorted(folder.parent.iterdir(), key=os.path.getmtime)[:-MAX_PREVIEWS]:
            shutil.rmtree(old, ignore_errors=True)

    def _left_out_of(
        self, choices: dict[str, Any], name: str, part: Part | None, folder: Path
    ) -> str:
        """Return a table of what is left out of one image, which a command names without folders.

        Of a part it is none: that is measured at other places than the whole image.
        """
        from hypervlad.fibres.left_out import CHOICE, read_left_out  # not above: it takes long

        points = read_left_out(choices["leave_out"]).get(name)
        if points is None:
            return ""
        if part is not None:
            self.runner.report("note: places that you left out still count in previews of a part")
            return ""
        table = folder / "left_out.csv"
        write_table(table, CHOICE, [[Path(name).name, x, y] for y, x in points])
        return str(table)

    def _check_learnt(self, task: Task, choices: dict[str, Any]) -> None:
        """Raise a QueueError if one image is to be looked at with a model that there is not yet."""
        is_there = choices.get("model") or (self.folder / task.kind / MODEL).exists()
        if task.looks and not is_there:
            needs = f"{task.needs}; then “{task.button}” learns it"
            raise QueueError(f"nothing to preview yet, because there is no model: {needs}")

    def _report_changes(self, task: Task, choices: dict[str, Any], marks: dict[str, str]) -> None:
        """Warn if a model, with which one image is looked at, was trained with other choices."""
        if not task.looks or choices.get("model"):
            return
        made, before = self._made_with(task.kind)
        names = [task.given, *task.steps[0].takes.split()]
        is_other = any((made.get(name) or "") != (choices[name] or "") for name in names)
        is_other |= made.get("stamps") != self._files_learnt(task, choices, marks)
        if is_other or (marks != before and not choices[task.given]):
            words = f"other choices or marks than now; “{task.button}” trains it anew"
            self.runner.report(f"warning: the model was trained with {words}")

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
        fill: dict[str, list[Any]] = {"IMAGES": [self._root], "FOLDER": [folder]}
        groups = self.groups.of_training(folder, given, self._root, labels)
        fill |= {"MODEL": [folder / MODEL], "GIVEN": [given], "GROUPS": groups}
        yield from self._steps(task, LEARN_AGAIN, fill, choices)
        with self._asking:  # what was marked meanwhile is not learnt
            marks = _with_labels(self._typed_marks("classes"), before, labels)
            self._note_made("classes", choices, listed | labels, marks)

    def _prepare(
        self, task: Task, folder: Path, choices: dict[str, Any], marks: dict[str, str]
    ) -> None:
        """Rename results that were made with other choices, and note those of new ones."""
        made, before = self._made_with(task.kind)
        late = {each.name: "" for each in task.choices if each.is_late}
        choices = choices | {"pixel_sizes": self._sizes}
        stamps = {"stamps": self._files_learnt(task, choices, marks)}
        is_given = choices.get(task.given) or choices.get("model")
        is_other = made | late != choices | stamps | late or (marks != before and not is_given)
        if is_other or not folder.exists():
            self._close_queue()
            # First, for a kill: the marks have the labels of its queue, which is elsewhere then.
            self._note_made(task.kind, made | {"is_renamed": True}, marks, marks)
            if folder.exists() and any(folder.iterdir()):
                os.replace(folder, self.folder / (kept := self.free_name(task.kind)))
                self.runner.report(f"note: the results of before are in the folder {kept}")
        self._note_made(task.kind, choices, marks, marks)

    def _made_with(self, kind: str) -> tuple[dict[str, Any], dict[str, str]]:
        """Return the choices and marks with which the results of a task were made."""
        choices, marks = parse_json(self.fact(f"choices of {kind}") or "[{}, {}]")
        return choices, marks

    def _note_made(
        self, kind: str, choices: dict[str, Any], used: dict[str, str], marks: dict[str, str]
    ) -> None:
        """Note with which choices and marks results are made, and all marks that there are."""
        stamps = self._files_learnt(TASKS[kind], choices, used)
        made = json.dumps([choices | {"stamps": stamps}, used])
        self.set_facts(**{f"choices of {kind}": made, f"marks of {kind}": json.dumps(marks)})

    def _files_learnt(
        self, task: Task, choices: dict[str, Any], marks: dict[str, str]
    ) -> list[str]:
        """Return what changes with any file that a task learns from: given, or marked."""
        paths = [choices.get(e.name) for e in task.choices if e.kind in _FILES and not e.is_late]
        found = [Path(each) for each in paths if each]
        if not (choices.get(task.given) or choices.get("model")):
            found += [self._root / name for name in marks]
        files = ((top, files_in(top) if top.is_dir() else [top]) for top in found)
        own = [
            (each.relative_to(top), each.stat())
            for top, every in files
            for each in every
            if each.is_file()
        ]
        return [f"{name} {status.st_size} {status.st_mtime_ns}" for name, status in own]

    def _steps(
        self, task: Task, steps: Sequence[Step], fill: dict[str, list[Any]], choices: dict[str, Any]
    ) -> Iterator[str]:
        """Run commands of a task, and put what they have written into one file, too."""
        (images,), (folder,) = fill["IMAGES"], fill["FOLDER"]
        for step in steps:
            yield step.words
            is_made = bool(step.makes) and (folder / step.makes).exists()
            if is_made or ("GIVEN" in step.command and not fill["GIVEN"]):
                continue
            own = list[str | Path]()
            if "SETS" in step.command:
                fill = fill | {"SETS": _option_for_sets(*fill["MODEL"])}
            for word in step.command.split():
                own += fill.get(word, [word.replace("FOLDER", str(folder))])
            for choice in task.choices:
                value = choices.get(choice.name, "")
                is_usual = not value or (choice.values and value == choice.values[0][0])
                if choice.name in step.takes.split() and not is_usual:
                    own.append(choice.option.format(value))
            is_given = "GIVEN" in step.command and bool(choices.get(task.given))
            if "GIVEN" in step.command or "IMAGES" in step.command:
                place = Path(choices[task.given]) if is_given else images
                own += self._sizes_in(place.parent if place.suffix == ".csv" else place)
            before = self.runner.task["lines"]
            if step.may_fail and not step.makes:  # or those of before would stay if it fails
                written = Path(own[own.index("-o") + 1])
                files = (folder / name for each in task.files for name in (each[0], *each[3::2]))
                for file in files:
                    if file.is_relative_to(written):
                        file.unlink(missing_ok=True)
            try:
                self.runner.run(*own, "--on-error", "skip")
            except QueueError as error:
                if not step.may_fail:
                    raise
                self.runner.report(error)
                continue
            if step.may_fail:  # what it says is in what it has written
                self.runner.task["lines"] = before
        if folder.parent != self.folder:  # of one image
            return
        left_out = {folder / name for name in _NOT_ZIPPED}
        zipped = (each for each in files_in(folder) if left_out.isdisjoint([each, *each.parents]))
        write_archive(folder / _ALL, zipped, folder)

    def _sizes_in(self, place: Path) -> list[str | Path]:
        """Return the option with the sizes that people have given, if any is of an image there."""
        files = (Path(os.path.normpath(self._root / name)) for name in self._sizes)
        return self._size_options if any(file.is_relative_to(place) for file in files) else []

    def _given_by_marks(self, task: Task, folder: Path, marks: dict[str, str]) -> list[Path]:
        """Return what a task learns from: marked images, or a table of their classes."""
        if gone := sorted(name for name in marks if not (self._root / name).exists()):
            marks = {name: own for name, own in marks.items() if name not in {*gone}}
            self.runner.report(f"warning: not in the folder, so not learnt: {name_some(gone)}")
        if not marks:
            raise QueueError(task.needs)
        if task.mark:
            return [self._root / name for name in marks]
        rows = sorted([str(self._root / name), own] for name, own in marks.items())
        write_table(folder / "labels.csv", ["path", "label"], rows)
        return [folder / "labels.csv"]

    def _with_masks(self, masks: str) -> list[Path]:
        """Return the images that have a mask, also one without defects."""
        find: Callable[..., Sequence[Any]] = find_masks if os.path.isdir(masks) else find_outlines
        found = zip(self._files, find(self._files, masks), strict=True)
        return [file for file, mask in found if mask is not None]


def _said_of_few(given: Sequence[str | Path], rate: float) -> str:
    """Return, before minutes of learning, that its threshold will be a guess, if it will."""
    from hypervlad.statistics.conformal import n_groups_needed  # not above: it takes long

    with contextlib.suppress(ValueError, OSError):  # the command says why
        n, needed = len(find_images(given)), n_groups_needed(rate)
        if n < needed:
            return f" ({counted(n, 'image')}; {needed} are needed for {100 * rate:g} %)"
    return ""


def _option_for_sets(model: Path) -> list[str]:
    """Return the option for prediction sets, unless no images were held out to calibrate them."""
    fitted = read_model(model, header_only=True).header.get("fitted", {})
    return [f"--coverage={COVERAGE / 100}"] if fitted.get("held_out_") else []


def _with_labels(
    typed: dict[str, str], before: dict[str, str], labels: dict[str, str]
) -> dict[str, str]:
    """Return marks with labels of those that were not marked again since."""
    kept = {name: own for name, own in labels.items() if typed.get(name) == before.get(name)}
    return typed | kept
