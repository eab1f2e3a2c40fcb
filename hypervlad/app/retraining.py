"""A new model from training images and people's labels, and its comparison with the old one."""

from __future__ import annotations

import os
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from scipy.stats import binomtest
from sklearn.base import clone
from sklearn.utils import Bunch

from hypervlad.app.creation import judged_entries, model_facts
from hypervlad.app.database import QueueError, TrainingImage, update_queue
from hypervlad.app.particles import QueuedImage, QueuedParticle
from hypervlad.app.store import LabelledImage, Queue
from hypervlad.classify.estimator import MicrographClassifier
from hypervlad.classify.training_images import TrainingImages
from hypervlad.common.progress import by_reader
from hypervlad.common.wording import counted, percent, verb, warn_user
from hypervlad.folders.groups import GroupRow, match_groups, read_group_rows
from hypervlad.images.files import path_parts
from hypervlad.images.reading import image_name, relative_names
from hypervlad.objects.particle import NOT_A_PARTICLE

_SIGNIFICANCE = 0.05
_MIN_COMPARED = 6  # images: with fewer, no difference is significant


@dataclass(frozen=True)
class Material:
    """The images to train a new model on; those that people labelled come last.

    `predicted` is the prediction in the queue for uncertain images that a person labelled. It is
    None for others, also for corrected sure ones: the old model was wrong on all of these.
    `n_known` images that people labelled were training images before; the others are `chosen`.
    """

    images: list[QueuedImage | str]
    labels: NDArray[Any]
    groups: NDArray[Any]
    by_person: NDArray[np.bool_]
    chosen: NDArray[np.bool_]
    wrong_outlines: list[str]
    predicted: list[str | None]
    n_known: int


@dataclass(frozen=True)
class Comparison:
    """The accuracies of two models on the same images, which people labelled.

    `n_labelled` leaves out corrected sure images. Accuracies, those before of the predictions in
    the queue, are on the `n_compared` that could be held out; NaN if there are none. `p_value` is
    that of McNemar's exact test, as if images were independent. `n_known` labelled images were
    training images before.
    """

    n_labelled: int
    n_compared: int
    before: float
    after: float
    balanced_before: float
    balanced_after: float
    p_value: float
    new_categories: list[str]
    n_known: int

    def lines(self) -> list[str]:
        """Return what a person should know of it, in sentences."""
        if not self.n_labelled:
            return [
                "accuracy: not compared, because the manual labels are corrections of sure "
                "answers, where the old model was wrong"
            ]
        asked = counted(self.n_labelled, "manually labelled image")
        if not self.n_compared:
            return [f"accuracy: unknown, because none of the {asked} was held out"]
        lines = [
            f"accuracy on {self.n_compared} of {asked} (the uncertain ones): "
            f"{percent(self.before)} when queued, {percent(self.after)} now, held out",
            f"balanced accuracy: {percent(self.balanced_before)} when queued, "
            f"{percent(self.balanced_after)} now, the mean of their classes",
        ]
        if self.n_compared < _MIN_COMPARED:
            lines.append("(so few images do not show which model is better)")
        elif self.p_value > _SIGNIFICANCE:
            lines.append("(the difference may be due to chance)")
        if others := self.n_labelled - self.n_compared:
            lines.append(f"({others} could not be held out: too few images of the class)")
        if n := self.n_known:
            lines.append(
                f"({counted(n, 'labelled image')} {verb(n, 'was a', 'were')} training "
                f"{verb(n, 'image', 'images')} before, which favours the old model)"
            )
        lines.append(
            "(they were chosen because the old model was uncertain, which favours the new one by a "
            "few points; for a fair comparison use hypervlad evaluate on other images)"
        )
        if self.new_categories:
            lines.append(f"new classes: {', '.join(self.new_categories)}")
        return lines


def gather(
    queue: Queue, data: Bunch, *, groups: str | Path | None, model: MicrographClassifier
) -> Material:
    """Collect the training images (from `load_image_folder`) and those that people labelled.

    Particles in `data` are those of `queued_training`, and wrong outlines are left out. Groups come
    from the table `groups`, otherwise from `model`; see `groups_from_table` and `groups_of_model`.
    """
    labelled = [image for image in queue.images() if image.label is not None]
    by_people = [image for image in labelled if not image.is_wrong_outline]
    if len(by_people) < len(labelled):
        n_wrong = counted(len(labelled) - len(by_people), "outline")
        warn_user(f"{queue.folder}: {n_wrong} called {NOT_A_PARTICLE!r} left out")
    if not by_people:
        raise QueueError(
            f"{queue.folder}: no image is labelled by a person yet; "
            + by_reader("label some with 'hypervlad app'", "label uncertain images first")
        )
    added = [image.image for image in by_people]
    # Also those that are no longer in the folder, but may be in others.
    wrong = [*data.get("wrong_outlines", ()), *(getattr(model, "wrong_outlines_", None) or ())]
    for each in labelled:
        if each.is_wrong_outline and each.is_there and isinstance(each.image, QueuedParticle):
            wrong.append(each.image.as_micrograph().digest)
    own = data.get("chosen", np.zeros(len(data.images), bool))
    known = dict(zip(map(_identity, data.images), own.tolist(), strict=True))
    in_queue = set(map(_identity, added))
    kept = [i for i, image in enumerate(data.images) if _identity(image) not in in_queue]
    of_training = [data.images[i] for i in kept]
    if groups is not None:
        names = groups_from_table(of_training, data.root, added, groups)
    else:
        names = groups_of_model(model.training_, data.images, kept, added)
    labels = [*(str(data.target[i]) for i in kept), *(image.label for image in by_people)]
    predicted: list[str | None] = [None] * len(kept)
    predicted += [image.predicted if image.doubtful else None for image in by_people]
    return Material(
        images=[*of_training, *(str(i) if isinstance(i, Path) else i for i in added)],
        labels=np.array(labels),
        groups=names,
        by_person=np.arange(len(labels)) >= len(kept),
        chosen=np.array([known.get(_identity(each), True) for each in (*of_training, *added)]),
        wrong_outlines=list(dict.fromkeys(wrong)),
        predicted=predicted,
        n_known=len(data.images) - len(kept),
    )


def _identity(image: QueuedImage | str) -> tuple[Path, str]:
    return _file(image).resolve(), image.outline if isinstance(image, QueuedParticle) else ""


def _file(image: QueuedImage | str) -> Path:
    """Return the file of an image, or of the micrograph of a particle: its group by default."""
    return Path(image.micrograph if isinstance(image, QueuedParticle) else image)


def refit(model: MicrographClassifier, material: Material) -> MicrographClassifier:
    """Fit a copy of a model, with the same parameters, on new material."""
    new: MicrographClassifier = clone(model)
    groups = material.groups.tolist()
    carried = model.encoder_.network_state_
    if carried is None:
        return new.fit(material.images, material.labels.tolist(), groups=groups)
    with tempfile.TemporaryDirectory() as folder:  # the original file may not be on this computer
        path = Path(folder) / "weights.safetensors"
        save_file({name: np.ascontiguousarray(own) for name, own in carried.items()}, path)
        new.set_params(encoder__weights=str(path))
        new.fit(material.images, material.labels.tolist(), groups=groups)
    new.set_params(encoder__weights=model.encoder_.weights)
    new.encoder_.set_params(weights=model.encoder_.weights)
    new.encoder_.network_state_ = carried
    return new


def compare(
    model: MicrographClassifier, old_classes: Sequence[Any], material: Material
) -> Comparison:
    """Compare the predictions in the queue with held-out predictions of a model of the material.

    Only the codebook, which does not use the classes, was fitted on the held-out images too.
    """
    answers = held_out_labels(model, material)
    asked = np.array([label is not None for label in material.predicted])
    tested = np.array([answer is not None for answer in answers]) & asked
    truth = material.labels[tested]
    before, after = (
        np.array(labels, dtype=object)[tested] == truth for labels in (material.predicted, answers)
    )
    n_gained, n_changed = int(np.sum(after & ~before)), int(np.sum(after != before))
    known = {str(label) for label in old_classes}
    return Comparison(
        n_labelled=int(asked.sum()),
        n_compared=len(before),
        before=float(before.mean()) if len(before) else float("nan"),
        after=float(after.mean()) if len(after) else float("nan"),
        balanced_before=_mean_recall(before, truth),
        balanced_after=_mean_recall(after, truth),
        p_value=float(binomtest(n_gained, n_changed).pvalue) if n_changed else 1.0,
        new_categories=sorted(set(material.labels.tolist()) - known),
        n_known=material.n_known,
    )


def _mean_recall(right: NDArray[np.bool_], truth: NDArray[Any]) -> float:
    recalls = [right[truth == label].mean() for label in np.unique(truth)]
    return float(np.mean(recalls)) if recalls else float("nan")


def held_out_labels(model: MicrographClassifier, material: Material) -> list[str | None]:
    """Return the held-out predictions of the images that people labelled; None for others."""
    answers: list[str | None] = [None] * len(material.images)
    if model.held_out_ is None:
        return answers
    labels = model.classes_[model.held_out_.proba.argmax(axis=1)].tolist()
    positions = model.training_.positions[model.held_out_.rows].tolist()
    for position, label in zip(positions, labels, strict=True):
        if material.by_person[position]:
            answers[position] = str(label)
    return answers


def requeue(
    queue: Queue,
    model: MicrographClassifier,
    material: Material,
    model_file: str | Path,
    *,
    write: bool,
    progress: Callable[[int], Any] | None,
) -> str:
    """Judge the images without a person's label by a new model, and with `write` update the queue.

    Return in words how many of them are doubtful, before and after. The encoder of the model needs
    ``on_error="skip"``.
    """
    images = remaining(queue)
    max_error = float(queue.fact("max_error", "0.05") or 0.05)
    names, queued = [image.name for image in images], [image.image for image in images]
    options: Any = {"max_error": max_error, "progress": progress}
    entries, *_ = judged_entries(model, names, queued, **options)
    in_doubt = {entry.image for entry in entries if entry.place is not None}
    unread = set(queued) - {entry.image for entry in entries}
    if write:
        update_queue(
            queue.connection,
            [str(label) for label in model.classes_],
            entries,
            _with_files(model, material),
            model_facts(model, model_file),
        )
    before = sum(image.doubtful for image in images)
    after = sum(
        image.image in in_doubt
        or image.skipped
        or (image.doubtful and image.image in unread)  # as before
        for image in images
    )
    of = f"{counted(len(images), 'image')} without a manual label"
    return f"uncertain among {of}: {before} before, {after} now"


def remaining(queue: Queue) -> list[LabelledImage]:
    """Return the images of a queue that no person has labelled."""
    return [image for image in queue.images() if image.label is None]


def _with_files(model: MicrographClassifier, material: Material) -> list[TrainingImage]:
    known = model.training_
    images = [
        image if isinstance(image, QueuedParticle) else Path(image).absolute()
        for image in material.images
    ]
    rows = zip(known.names, known.labels, known.positions.tolist(), strict=True)
    return [TrainingImage(name, str(label), images[position]) for name, label, position in rows]


def groups_from_table(
    training: Sequence[QueuedImage | str],
    root: str | os.PathLike[str],
    added: Sequence[QueuedImage],
    table: str | os.PathLike[str],
) -> NDArray[np.str_]:
    """Return the groups of training images, then those of images from a queue (`added`).

    The table needs a line for each training image, a path under `root`. An image from a queue is
    found by the end of its path; without a line it is its own group. Particles have the groups of
    their micrographs.
    """
    rows = read_group_rows(table)
    files = dict.fromkeys(map(_file, training))
    new = [file for file in dict.fromkeys(map(_file, added)) if file not in files]
    found = [_longest_end(path, rows) for path in new]
    of_added = {id(row) for row in found if row is not None}
    ends = {path_parts(os.fspath(path))[-1] for path in files}
    # Lines of images of the queue need no training image.
    kept = [
        row
        for row in rows
        if id(row) not in of_added or any(parts[-1] in ends for parts in row.ends)
    ]
    own = match_groups(list(files), Path(root), kept, table)
    of_file = dict(zip(files, own.tolist(), strict=True))
    for path, row in zip(new, found, strict=True):
        of_file[path] = _own_group(path) if row is None else row.group
    return np.array([of_file[_file(image)] for image in (*training, *added)])


def groups_of_model(
    known: TrainingImages,
    training: Sequence[QueuedImage | str],
    kept: Sequence[int],
    added: Sequence[QueuedImage],
) -> NDArray[np.str_]:
    """Return groups as `groups_from_table`, for training images those that a model knows.

    `known` are the model's images, recognised by name among those of the folder (`training`), of
    which the result has those at the positions `kept`. Other images are their own groups, and so
    are other micrographs of particles.
    """
    codes = _codes_of(known, training)
    of_file = {
        _file(image).resolve(): f"group {code} of the model"
        for image, code in zip(training, codes, strict=True)
        if code is not None
    }
    n_known = len(codes) - codes.count(None)
    is_grouped = len(np.unique(known.groups)) < len(known)
    if is_grouped and 2 * n_known < len(training):
        warn_user(
            f"the model was trained with groups, and of {len(training)} training images only "
            f"{n_known} are known to it by their paths; each of the others is its own group: "
            "give a table of groups"
        )
    files = map(_file, [*(training[i] for i in kept), *added])
    return np.array([of_file.get(file.resolve(), _own_group(file)) for file in files])


def _codes_of(known: TrainingImages, training: Sequence[QueuedImage | str]) -> list[int | None]:
    """Return the group of each image that a model has, found by equal ends of the paths."""
    by_name: dict[str, list[tuple[tuple[str, ...], int]]] = defaultdict(list)
    for name, code in zip(known.names, known.groups.tolist(), strict=True):
        if name:
            by_name[path_parts(name)[-1]].append((path_parts(name), code))
    found: list[int | None] = []
    for image, below in zip(training, relative_names(training), strict=True):
        name = Path(image_name(image)).absolute().as_posix()
        whole, short = path_parts(name), path_parts(below)
        fitting = [
            code
            for parts, code in by_name[whole[-1]]
            if whole[-len(parts) :] == parts or parts[-len(short) :] == short
        ]
        found.append(fitting[0] if len(set(fitting)) == 1 else None)
    return found


def _own_group(path: Path) -> str:
    return f"group of {path} alone"


def _longest_end(path: Path, rows: Sequence[GroupRow]) -> GroupRow | None:
    """Return the line whose path is the longest end of an image's path, if there is one."""
    whole = path_parts(path.as_posix())
    fitting = [
        (len(parts), row) for row in rows for parts in row.ends if whole[-len(parts) :] == parts
    ]
    return max(fitting, key=lambda pair: pair[0], default=(0, None))[1]
