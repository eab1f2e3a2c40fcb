"""What is in a folder of found particles: images, tables, outlines, and how they were made."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hypervlad.common.progress import by_reader
from hypervlad.common.wording import counted, name_some
from hypervlad.images import ImageReadError
from hypervlad.images.files import find_as_named
from hypervlad.images.options import check_read_options
from hypervlad.objects import found_tables
from hypervlad.objects.detection import MIN_AREA, Detection
from hypervlad.objects.fields import Field
from hypervlad.objects.found_outlines import COCO, CORRECTIONS, EDITS, OutlineFiles
from hypervlad.objects.measures import measure as measure_particles
from hypervlad.objects.particle import Outlines, Particle, cut_particles
from hypervlad.objects.results_folder import read_record

if TYPE_CHECKING:
    import pandas as pd

RUN, FIELDS, PARTICLES, CONFUSION = "run.json", "fields.csv", "particles.csv", "confusion.csv"
DETECTION, GONE = "detection.csv", ("gone_fields.csv", "gone_particles.csv")
OWN_FILES = (
    *(RUN, FIELDS, "fields.jsonl", PARTICLES, CONFUSION, DETECTION, CORRECTIONS, EDITS, COCO),
    *GONE,
)
LOCK, UNWRITTEN = ".lock", ".unwritten"


class FoundFiles:
    """The files of a folder of found particles, which are read when they are needed."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path, self.unreadable = Path(path), dict[str, str]()
        #: The outlines of its fields, and those that people correct; see `OutlineFiles`.
        self.outline_files = OutlineFiles(self.path)
        #: The table of fields as it grows; see `FieldTable`.
        self.searched = found_tables.FieldTable(self.path / FIELDS)
        #: The tables of images that are gone, whose rows are used again when these are back.
        self.gone = found_tables.FieldTable(self.path / GONE[0])
        self.gone_particles = self.path / GONE[1]
        file = self.path / RUN
        try:
            run = read_record(file)
            self.images = Path(os.path.abspath(self.path / run["images"]))
            self.read_options = check_read_options(run["read_options"])
            own = {"finder": dict(run["finder"]), "pixel_sizes": dict(run.get("pixel_sizes", {}))}
            self.run: dict[str, Any] = run | own | {"pixel_size": run["pixel_size"]}
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ValueError(
                f"{self.path} is no folder of found particles (it has no {RUN}); give one that "
                "'hypervlad particles find' wrote"
            ) from error
        except (ValueError, TypeError, LookupError) as error:
            raise ValueError(f"{file}: damaged ({error}); find the particles again") from error

    @property
    def field_table(self) -> pd.DataFrame:
        """One row per field: ``fields.csv``, as ``hypervlad particles find --help`` explains it."""
        return self.searched.table

    @cached_property
    def fields(self) -> list[Field]:
        """All fields that were searched, also those without a particle."""
        return self.searched.fields()

    @cached_property
    def by_name(self) -> dict[str, Field]:
        """The fields by the names of their images."""
        return {field.micrograph: field for field in self.fields}

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row per particle, as :func:`measure` returns it.

        Once they are classified, also ``class``, ``confidence`` and for each class ``p_CLASS``. A
        person may write 1 into ``left_out``: such a particle is not counted.
        """
        table = found_tables.read_table(self.path / PARTICLES, list(measure_particles([])))
        if (is_repeated := table.duplicated(["micrograph", "particle"])).any():
            row = table[is_repeated].iloc[0]
            raise ValueError(
                f"{self.path / PARTICLES}: particle {row['particle']} of {row['micrograph']} has "
                "two lines; delete one"
            )
        return table

    @property
    def classes(self) -> list[str]:
        """The classes of the classifier, in the order of its probabilities; empty if none."""
        return found_tables.classes_of(self.table)

    @property
    def is_by_model(self) -> NDArray[np.bool_]:
        """Whether each particle has the class to which a classifier gave the highest probability.

        A person has given all other classes, and those of all sources but "model".
        """
        return found_tables.is_by_model(self.table)

    @property
    def confusion(self) -> NDArray[np.int64] | None:
        """The classifier's held-out numbers by true and predicted class; None if it held out none.

        In the order of `classes`.
        """
        return found_tables.read_confusion(self.path / CONFUSION, self.classes)

    @property
    def detection(self) -> Detection | None:
        """What finding misses and invents, as far as it is known; None if it is not.

        From ``detection.csv``, of the model's training, and fields here whose outlines a person has
        corrected, as those that were found are in ``replaced``; not of `unfinished` ones.
        """
        readable = [each for each in self.fields if each.micrograph not in self.unreadable]
        known = found_tables.read_detection(self.path / DETECTION)
        smallest = self.run["finder"].get("min_area", MIN_AREA)
        cut = found_tables.cut_off(self.table)
        here = self.outline_files.detection(readable, cut, smallest)
        if here is None or known is None or known.unit != here.unit:
            return here or known
        return known.joined(here)

    @property
    def unfinished(self) -> list[str]:
        """Fields whose outlines were edited in ``hypervlad app``, but not marked as done there.

        Not all of their outlines are true, so they are neither learnt nor compared with others.
        """
        marks, files = self.outline_files.marks(), self.outline_files
        own = [name for name in self.by_name if marks.get(name) is False]
        return [name for name in own if not files.is_as_found(name)]

    def image(self, micrograph: str) -> Path:
        """Return the file of an image; an ImageReadError if it is no longer there."""
        found = find_as_named(self.images, micrograph)
        if found is None:
            raise ImageReadError(
                f"{micrograph}: no such image in {self.images}; if the images were moved, write "
                f'their folder behind "images" in {self.path / RUN}'
            )
        return found

    def outlines_file(self, micrograph: str) -> Path:
        """Return where the outlines of a field are: a.tif and a.png are two fields."""
        return self.outline_files.path(micrograph)

    def outlines(self, micrograph: str) -> Outlines:
        """Read the outlines of a field; an ImageReadError if they are missing or damaged."""
        field = self.by_name.get(micrograph)
        return self.outline_files.read(micrograph, None if field is None else field.shape)

    def particles(self, micrograph: str) -> list[Particle]:
        """Cut the particles of a field out of its image; an ImageReadError if that fails."""
        field = self.by_name.get(micrograph)
        if field is None:
            raise ImageReadError(f"{micrograph}: no field of {self.path}")
        return cut_particles(
            self.image(micrograph),
            self.outlines(micrograph),
            pixel_size=field.pixel_size,
            read_options=self.read_options,
            name=micrograph,
        )

    def notes_of_edits(self, what: str) -> list[str]:
        """Return what must be known of edits that are not done, or not in the files yet."""
        notes, where = [], by_reader(" in 'hypervlad app'", "")
        if own := self.unfinished:
            notes.append(
                f"{what}, as not marked as done{where}: {counted(len(own), 'image')} with edits, "
                f"{name_some(own)}"
            )
        if (self.path / UNWRITTEN).exists():
            notes.append(
                "the last edits at the page are not in these files yet: "
                + by_reader(
                    "wait for 'hypervlad app', or start it if it was stopped, and repeat this",
                    "wait a moment, and repeat this",
                )
            )
        return notes

    def _forget(self) -> None:
        """Read the tables again when they are needed: they may have been edited meanwhile."""
        for name in ("table", "fields", "by_name"):
            vars(self).pop(name, None)
        self.searched.read_again()
