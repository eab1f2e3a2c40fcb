"""The particles of many images found, and written into a folder: a run, stopped and resumed."""

from __future__ import annotations

import functools
import itertools
import json
import math
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hypervlad._version import __version__
from hypervlad.common.constraints import check_value
from hypervlad.common.files import exclusive_lock, json_text, new_folder
from hypervlad.common.progress import (
    ProgressBar,
    announced,
    by_reader,
    forget_doubt,
    joined_notes,
    note_doubt,
    noted,
)
from hypervlad.common.wording import counted, is_utf8, name_some, warn_user
from hypervlad.images import ImageReadError, PixelSizes, ReadOptions
from hypervlad.images.annotations import annotation_mask, words_of_annotations
from hypervlad.images.files import find_as_named, is_below, large_last
from hypervlad.images.options import PIXEL_SIZE, ROUNDING, check_read_options
from hypervlad.images.pixels import is_same_image
from hypervlad.images.reading import Micrograph, read_identity, read_named, relative_names
from hypervlad.images.sample import GIVEN_SIZE, annotations_of, note_found
from hypervlad.objects.detection import Detection, FindingRange
from hypervlad.objects.found_counts import note_of_uncounted
from hypervlad.objects.found_files import DETECTION, GONE, LOCK, RUN
from hypervlad.objects.found_folder import FoundFolder
from hypervlad.objects.found_outlines import EDITS
from hypervlad.objects.found_tables import write_detection
from hypervlad.objects.outline_names import outlines_among
from hypervlad.objects.outlines import read_outlines
from hypervlad.objects.particle import Outlines, check_same_size
from hypervlad.objects.results_folder import LEFT_OUT, write_record
from hypervlad.particles.polarity import SURE
from hypervlad.statistics.splits import check_groups

_MAX_NAME = 240  # bytes, of at most 255 with the suffixes of outlines
_MANY = 4  # images of one polarity for each of the other, before doubtful ones are taken as these
_WRITTEN, _N_TIMES = 3.0, 50  # seconds between tables of fields, and times those of writing one
_TAKEN = (
    "particles are {polarity} in most other images, so they are taken to be {polarity} in this "
    "image, too, which may be either, as its range does not say: look at the outlines"
)
_REPLACED = (
    "the image was replaced or changed after a person had corrected its outlines, which are kept, "
    "and measured; put it back, or delete its file in the folder outlines, and find again"
)


def find_in_images(
    path: str | os.PathLike[str],
    images: Sequence[str | os.PathLike[str]],
    outline: Callable[[Path], Any],
    *,
    root: str | os.PathLike[str],
    finder: Mapping[str, Any] | None = None,
    read_options: Mapping[str, Any] | ReadOptions | None = None,
    pixel_size: float | PixelSizes | None = None,
    groups: Sequence[Any] | None = None,
    samples: Sequence[Any] | None = None,
    detection: Detection | None = None,
    corrected: FoundFolder | None = None,
    formats: Sequence[str] = (),
    resume: bool = False,
    verbose: bool = False,
) -> tuple[FoundFolder, list[str]]:
    """Outline the particles of images, and write the outlines and tables of their measures.

    The outlines of each image are complete before those of the next are found, of large files last.
    Where an image
    shows the polarity of its particles too little, and at least four times as many have the other
    one, it is searched again with that: so says the table of fields, also after a stop.

    Parameters
    ----------
    path : path
        Folder to write, new or empty unless `resume`.
    images : sequence of n paths
    outline : callable
        From a path to outlines that do not overlap: :func:`find_particles`, or
        ``HypercolumnSegmenter.find_particles``. If they have a `polarity` and a `confidence`, as
        those of the former, it may be called with ``polarity=``, too.
    root : path
        Folder that contains all images, which are named by their paths below it.
    finder : mapping, optional
        What outlines depend on, such as parameters; values that JSON can store.
    read_options : dict or ReadOptions, optional
        How images are read, also by `outline`.
    pixel_size : float or PixelSizes, optional
        Nanometres per pixel of images whose file does not contain it, or of single files.
    groups, samples : sequence of n labels, optional
        By which counts are compared, and what the images are of: see :class:`Field`.
    detection : Detection, optional
        What `outline` misses and invents in other fields, such as
        ``HypercolumnSegmenter.detection_``: counts are corrected by it.
    corrected : FoundFolder, optional
        Of the same images, found before: outlines that people have corrected there are used as they
        are, and not found again.
    formats : sequence of {"coco", "geojson", "roi"}, default=()
        Further files of outlines: ``coco.json``, and for QuPath and ImageJ folders of these names.
        What is there is written anew whenever outlines have changed.
    resume : bool, default=False
        Keep the outlines that are in the folder, and find the others, with the same `finder` and
        `read_options`, and `pixel_size` if one was given. Those of single files are compared image
        by image. What was measured or written by a person stays, unless its outline was changed.
        All images are read: one that was changed is searched again, unless a person has corrected
        its outlines, and one that states another pixel size is measured again.
    verbose : bool, default=False
        Show a progress bar.

    Returns
    -------
    folder : FoundFolder
    left_out : list of str
        Why images or outlines that are in the folder could not be read, or differ in size; each
        begins with the file. What was measured before on such outlines stays.

    Raises
    ------
    ValueError
        If the folder has other files, or is of other images or another `finder`.

    Warns
    -----
    UserWarning
        If particles are in information bars, only some images have a pixel size, particles are
        bright in some and dark in others, or images of an earlier run are gone, or were changed
        after a person had corrected their outlines.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from hypervlad.particles import find_in_images, find_particles
    >>> with tempfile.TemporaryDirectory() as root:
    ...     image = pathlib.Path(root, "a.png")
    ...     _ = image.write_bytes(b"no image")
    ...     found, left_out = find_in_images(f"{root}/found", [image], find_particles, root=root)
    ...     found.path.name, len(left_out)
    ('found', 1)
    """
    check_value("pixel_size", pixel_size, PIXEL_SIZE)
    options = check_read_options(read_options)
    if isinstance(options.pixel_size, PixelSizes):
        pixel_size = pixel_size or options.pixel_size
    reading = replace(options, pixel_size=pixel_size or options.pixel_size)
    files = dict(zip(relative_names(images, root), map(Path, images), strict=True))
    labels = _labels(files, group=groups, sample=samples)
    if masks := outlines_among(list(files)):
        warn_user(
            f"{counted(len(masks), 'file')} left out, as they are outlines of other images by "
            f"their names: {name_some(masks)}"
        )
        files = {name: file for name, file in files.items() if name not in {*masks}}
    if outside := [str(file) for name, file in files.items() if not is_below(name)]:
        raise ValueError(
            f"root={os.fspath(root)!r} must contain all images, but not {name_some(outside)}"
        )
    run: dict[str, Any] = {"images": os.path.abspath(root), "finder": dict(finder or {})}
    run |= {"read_options": options.without_files()}
    if isinstance(pixel_size, PixelSizes):
        of_files = {name: pixel_size.of(file) for name, file in files.items()}
        run |= {"pixel_size": None, "pixel_sizes": {n: nm for n, nm in of_files.items() if nm}}
    else:
        run |= {"pixel_size": pixel_size, "pixel_sizes": {}}
    left_out, used, rows = list[str](), list[str](), dict[str, dict[str, Any]]()
    with new_folder(Path(path)):
        with exclusive_lock(Path(path, LOCK), path):
            folder = _started(Path(path), run, resume)
            if detection is not None:
                write_detection(folder.path / DETECTION, detection)
            before = folder.searched.rows()
            known = folder.gone.rows() | before
            is_there = {name: find_as_named(folder.images, name) is not None for name in known}
            rows = {name: row for name, row in known.items() if is_there[name]}
            if gone := [name for name in before if not is_there[name]]:
                warn_user(
                    f"{path}: {counted(len(gone), 'image')} no longer in {folder.images}, and not "
                    "counted; corrected outlines are kept, and what people wrote in the tables is "
                    f"in {' and '.join(GONE)}: repeat this once they are back: {name_some(gone)}"
                )
                for name in gone:
                    # To be measured again, and by its own scale, if it is another image then.
                    known[name] |= {"outlines_digest": None, "pixel_size_nm": None}
                    if folder.outline_files.is_as_found(name):  # not of another image of this name
                        folder.outlines_file(name).unlink(missing_ok=True)
                folder.gone.write(known.values())
            names = sorted({*rows, *files})
            drawn = folder.outline_files.corrected(folder.images, names) if resume else {}
            kept = dict[str, list[tuple[Path, str]]]()
            if corrected is not None:
                _check_same_images(corrected, folder)
                kept = corrected.corrected_files()
                drawn |= kept
                # The page keeps them when it takes over what is found here.
                what = by_reader("found anew", "kept, but not taken as true")
                for note in corrected.notes_of_edits(what):
                    warn_user(f"{corrected.path}: {note}")
            search = _Search(folder, rows, files, labels, outline, reading, pixel_size, drawn)
            due = 0.0
            with announced():
                order = large_last({name: files.get(name) for name in names})
                every = ProgressBar(order, unit="image", shown=verbose)
                for name in itertools.chain(every, search.taken_as_others()):
                    try:
                        by_person = search.add(name)
                    except ImageReadError as error:
                        left_out.append(str(error))  # an earlier row stays, as its particles do
                        continue
                    if by_person and name not in kept:
                        used.append(f"{name} ({by_person})")
                    if (began := time.monotonic()) > due:  # the page shows them
                        folder.searched.write(rows[each] for each in sorted(rows))
                        due = (now := time.monotonic()) + max(_WRITTEN, _N_TIMES * (now - began))
            if left_out:
                write_record(folder.path / RUN, run | {LEFT_OUT: left_out})
            if rows or gone:
                folder.searched.write(rows[name] for name in sorted(rows))
            if len(known) > len(before) or gone:
                folder.gone.write(row for name, row in known.items() if not is_there[name])
        if rows or gone:
            earlier = None if corrected is None else corrected.table
            folder.update(
                begin=True, earlier=earlier, formats=formats, on_error="skip", verbose=verbose
            )
            left_out += [why for why in folder.unreadable.values() if why not in left_out]
    if used:
        warn_user(
            f"the outlines of {counted(len(used), 'image')} were drawn or corrected by a person, "
            f"and are used: {name_some(used)}"
        )
    usual, rare = _by_polarity({name: row.get("polarity") for name, row in rows.items()})
    if rare:
        most, other = (rows[own[0]]["polarity"] for own in (usual, rare))
        shell = (
            f"give --polarity {most} (in Python, polarity={most!r}), and a new folder to write to"
        )
        warn_user(
            f"particles are {most} in {counted(len(usual), 'image')} and {other} in "
            f"{name_some(rare)}; look at these, or "
            + by_reader(shell, f"find again, with “{most}” chosen")
        )
    unknown = [name for name, row in rows.items() if not row["pixel_size_nm"]]
    if 0 < len(unknown) < len(rows):
        warn_user(note_of_uncounted(unknown))
    return FoundFolder(path), left_out


@dataclass(frozen=True, eq=False)
class _Search:
    """The rows of a folder's fields, and what those of images are added by."""

    folder: FoundFolder
    rows: dict[str, dict[str, Any]]
    files: Mapping[str, Path]
    labels: Mapping[str, dict[str, str]]
    outline: Callable[[Path], Any]
    reading: ReadOptions
    pixel_size: float | PixelSizes | None
    drawn: Mapping[str, list[tuple[Path, str]]]
    taken: dict[str, dict[str, str]] = field(default_factory=dict)  # the polarity of others

    def taken_as_others(self) -> Iterator[str]:
        """Yield the images to search again, which have another polarity than all rows together say.

        What an image shows itself stays in its row.
        """
        shown = {name: row.get("polarity_shown") or 0.0 for name, row in self.rows.items()}
        own = {name: "bright" if each > 0 else "dark" for name, each in shown.items() if each}
        usual, rare = _by_polarity(own)
        wanted = own.copy()
        if len(usual) >= _MANY * len(rare):
            wanted |= {name: own[usual[0]] for name in rare if abs(shown[name]) < SURE}
        for name, polarity in wanted.items():
            is_right = self.rows[name]["polarity"] == polarity
            if not (is_right or self._is_drawn(name)):
                self.taken[name] = {"polarity": polarity} if polarity != own[name] else {}
                row, said = self.rows[name], forget_doubt(name)
                yield name
                if self.rows[name] is row:  # it could not be searched again
                    note_doubt(name, said)

    def _is_drawn(self, name: str) -> bool:
        """Return whether a person has changed outlines, perhaps at a page that shows them now."""
        files, row = self.folder.outline_files, self.rows[name]
        is_known = row.get("corrected_in") or name in self.drawn or name in files.marks()
        return bool(is_known) or not files.is_as_found(name)

    def add(self, name: str) -> Path | None:
        """Find and write the outlines of an image that has none yet, and complete its row.

        Return the file if they were drawn by a person. An image that cannot be read is an
        ImageReadError.
        """
        file, image = self.folder.outlines_file(name), self.files.get(name)
        image, before = image or self.folder.image(name), self.rows.get(name)
        there = self.folder.outlines(name) if file.exists() and name not in self.taken else None
        is_replaced = False
        if there is not None and before is not None:
            digest, size = read_identity(image, self.reading, str(image))
            is_replaced = not is_same_image(digest, before.get("image_digest") or "")
            there = None if is_replaced and not self._is_drawn(name) else there
        by_person = self.drawn[name][0] if name in self.drawn and there is None else None
        notes = list[str]()
        if there is not None and before is not None:
            found = there
        else:
            with noted(name) as notes:
                outline = functools.partial(self.outline, **(taken := self.taken.get(name, {})))
                is_searched = self.folder.run["finder"].get("annotations") != "keep"
                given = name, image, there, outline, self.reading, by_person, is_searched
                found, own = _found_in(*given)
            if (is_replaced or name in self.taken) and self._is_drawn(name):  # meanwhile
                return None
            if taken:
                own["polarity_shown"] = self.rows[name]["polarity_shown"]
                found = replace(found, note=joined_notes([found.note, _TAKEN.format(**taken)]))
            self.rows[name], size = (before or {}) | own, own["pixel_size_nm"]
        row = self.rows[name] | self.labels.get(name, {})
        self.rows[name] = row
        is_other = self._set_pixel_size(row, name, size, (before or {}).get("pixel_size_nm"))
        is_given = bool(self.pixel_size) and row["pixel_size_nm"] == self.pixel_size
        has_bar = "scale bar" in (row.get("annotations") or "")
        # What was noted while its outlines were found was also said then.
        doubt = row.get("doubt") if there is not None else found.note
        known = notes if there is None else [joined_notes([row.get("note")], but=_REPLACED)]
        new = [GIVEN_SIZE] * (is_given and has_bar and GIVEN_SIZE not in known)
        new += [_REPLACED] * (is_replaced and there is not None)
        note_doubt(name, joined_notes(new if there is None else [doubt, *known, *new]))
        row["doubt"] = doubt or None
        row["note"] = joined_notes([*known, *new], but=doubt) or None
        if there is not None:
            self._write_pixel_size(row, name, there, is_other=is_other)
            return None
        note_found(name, found)
        row["particles"] = len(found)
        file.unlink(missing_ok=True)
        self.folder.searched.add(row)  # first: a field without outlines is searched again
        files, size = self.folder.outline_files, row["pixel_size_nm"]
        if by_person is None or not row["corrected_in"]:
            files.write_found(name, found, size)
            return None
        files.write(name, found, size)
        files.note_used(name, *by_person, found)
        return by_person[0]

    def _set_pixel_size(
        self, row: dict[str, Any], name: str, size: float | None, before: float | None
    ) -> bool:
        """Write the pixel size that an image states, or was given, into its row.

        Return whether it is another one than before.
        """
        run = self.folder.run
        listed = run["pixel_sizes"].get(name)
        if listed and size == self.pixel_size and math.isclose(before or listed, listed):
            size = listed  # a number is of the others
        size = size or listed or run["pixel_size"] or before
        is_other = not math.isclose(size or 0, before or 0, rel_tol=ROUNDING)
        row["pixel_size_nm"] = size if is_other else before
        if is_other:
            row["scale_bar_error"] = None
        if isinstance(self.pixel_size, PixelSizes):
            in_use = float(row["pixel_size_nm"] or 0)
            if share := self.pixel_size.error_of(self.files.get(name), in_use):
                row["scale_bar_error"] = share
        return is_other

    def _write_pixel_size(
        self, row: dict[str, Any], name: str, there: Outlines, *, is_other: bool
    ) -> None:
        """Write into a file of outlines the pixel size that it has not, or another one.

        It was given later, corrected, or lost in other programs. What a person has corrected since
        stays younger.
        """
        files, file = self.folder.outline_files, self.folder.outlines_file(name)
        if is_other and row.get("outlines_digest") == files.digest(name):
            row["outlines_digest"] = None  # to be measured again
        is_lacking = bool(row["pixel_size_nm"]) and (is_other or not there.pixel_size)
        if is_lacking and file.suffix == ".tif":
            times = file.stat()
            write = files.write_found if files.is_as_found(name) else files.write
            write(name, there, row["pixel_size_nm"])
            os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def _by_polarity(polarities: Mapping[str, str | None]) -> list[list[str]]:
    """Return the images whose particles have the polarity of most, and those of the other one."""
    found = ([name for name, each in polarities.items() if each == p] for p in ("bright", "dark"))
    return sorted(found, key=len, reverse=True)


def _labels(
    names: Mapping[str, Any], **labels: Sequence[Any] | None
) -> defaultdict[str, dict[str, str]]:
    """Return the group and the sample of each image, as far as they are given."""
    found = defaultdict[str, dict[str, str]](dict)
    for what, own in labels.items():
        if own is not None:
            check_groups(own, len(names))
            for name, label in zip(names, own, strict=True):
                found[name][what] = str(label)
    return found


def _started(path: Path, run: dict[str, Any], resume: bool) -> FoundFolder:
    """Write what a run is made with, or compare it with that of the run that is resumed."""
    # The app has its files, and results of other tasks, before anything is found.
    is_new = (path / EDITS).exists() and not (path / RUN).exists()
    if not is_new and any(not each.name.startswith(".") for each in path.iterdir()):
        if not resume:
            raise ValueError(
                f"{path} is not empty, and nothing is overwritten; write to a new folder, or "
                "continue what was begun there with --resume (in Python, resume=True)"
            )
        folder = FoundFolder(path)
        versions = [*str(folder.run.get("version", __version__)).split(" and "), __version__]
        run["version"] = " and ".join(dict.fromkeys(versions))
        # A pixel size may be given later, or once.
        size, rows = folder.run["pixel_size"], folder.searched.rows()
        if (number := run["pixel_size"]) and not size:  # of images that had one of a table, too
            listed = folder.run["pixel_sizes"].items()
            had = [name for name, nm in listed if rows.get(name, {}).get("pixel_size_nm") == nm]
            run["pixel_sizes"] = dict.fromkeys(had, number)
        run["pixel_size"] = number or size
        before = folder.run | {"images": str(folder.images)}
        before["pixel_size"] = before["pixel_size"] or run["pixel_size"]
        # Those of single files, too, and some may be new, or have had the size of all.
        had_it = {name for name, row in rows.items() if size and row["pixel_size_nm"] == size}
        before["pixel_sizes"] |= dict.fromkeys(run["pixel_sizes"].keys() & had_it, size)
        before["pixel_sizes"], run["pixel_sizes"] = (
            first["pixel_sizes"] | second["pixel_sizes"]
            for first, second in ((run, before), (before, run))
        )
        old, new = (_flat(json.loads(json_text(each))) for each in (before, run))
        if different := [
            f"{name} {old.get(name)!r}, not {new.get(name)!r}"
            for name in dict.fromkeys([*old, *new])
            if old.get(name) != new.get(name)
        ]:
            raise ValueError(
                f"{path} was made with {'; '.join(different)}; give the same, or a new folder"
            )
    write_record(path / RUN, run)
    return FoundFolder(path)


def _check_same_images(corrected: FoundFolder, folder: FoundFolder) -> None:
    if (corrected.path.resolve(), corrected.images) == (folder.path.resolve(), folder.images):
        raise ValueError(f"{corrected.path} is both written and read; write to a new folder")
    if corrected.images != folder.images:
        raise ValueError(
            f"{corrected.path} has particles of the images in {corrected.images}, not of those in "
            f"{folder.images}; give the folder in which these were found"
        )


def _flat(run: dict[str, Any]) -> dict[str, Any]:
    sizes = {f"pixel size of {name}": size for name, size in run["pixel_sizes"].items()}
    own = dict.fromkeys(("finder", "pixel_sizes", "version", LEFT_OUT))
    return {**run, **run["finder"], **sizes, **own}


def _found_in(
    name: str,
    image: Path,
    there: Outlines | None,
    outline: Callable[[Path], Any],
    options: ReadOptions,
    drawn: tuple[Path, str] | None,
    is_searched: bool,
) -> tuple[Outlines, dict[str, Any]]:
    """Return the outlines of a field, there, drawn by a person or found, and its row.

    Annotations of an image whose outlines were drawn are found if it `is_searched` for them.
    """
    if not is_utf8(name) or len(os.fsencode(image.name)) > _MAX_NAME:
        raise ImageReadError(
            f"{image}: its name is not UTF-8, or has more than {_MAX_NAME} bytes; rename it"
        )
    own: Micrograph | None = None
    if drawn is not None:
        own = read_named(image, options, str(image), with_bars=True, with_marks=True)
        try:
            found = read_outlines(drawn[0], shape=own.pixels.shape[:2], image=name)
            found = replace(found, annotations=annotations_of(own) if is_searched else [])
        except ImageReadError as error:
            if drawn[0].parent != image.parent:
                raise
            # Beside an image, other files may be called like it: of a microscope, for instance.
            warn_user(f"not used as corrected outlines: {error}")
            drawn = None
    if drawn is None:
        found = Outlines.of(outline(image), str(image)) if there is None else there
        # Files of outlines do not say where margins are; what these cut counts for none anyway.
        whole = [k for k, is_cut in enumerate(found.cut_off()) if not is_cut]
        found = replace(found[whole], n_beside=found.n_beside + len(found) - len(whole))
    # Read again, in 2 % of the time, as outlines may be found at other grey levels.
    own = own or read_named(image, options, str(image))
    check_same_size(found, own.pixels, str(image))
    found = replace(found, pixel_size=own.pixel_size)
    row: dict[str, Any] = {
        "micrograph": name,
        "height": found.shape[0],
        "width": found.shape[1],
        "pixel_size_nm": found.pixel_size,
        "image_digest": own.digest,
    }
    if there is None:  # a file of outlines has none of these
        factors: FindingRange | None = getattr(found, "finding_range", None)
        row |= factors._asdict() if factors else dict.fromkeys(FindingRange._fields)
        row["annotations"] = words_of_annotations(found.annotations) or None
        row["annotated_px"] = int(annotation_mask(found.annotations, found.shape).sum())
        row |= {"beside": found.n_beside, "corrected_in": None if drawn is None else drawn[0].name}
        row["polarity"] = polarity = getattr(found, "polarity", None)
        sure = round(max(getattr(found, "confidence", 0), 0.001), 3)  # 0 would show neither
        row["polarity_shown"] = polarity and (sure if polarity == "bright" else -sure)
    return found, row
