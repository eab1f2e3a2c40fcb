"""A folder of found particles: the outlines of each field, tables, and how they were made."""

from __future__ import annotations

import itertools
import json
import math
import os
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hypervlad.common.constraints import Number, check_value
from hypervlad.common.files import exclusive_lock, new_folder, parse_json, replace_when_complete
from hypervlad.common.progress import ProgressBar, announced
from hypervlad.common.tables import original_cell, write_table
from hypervlad.common.wording import counted, is_utf8, name_some, verb, warn_user
from hypervlad.images import ImageReadError, Micrograph, ReadOptions, read_micrograph
from hypervlad.images.files import find_as_named, path_parts
from hypervlad.images.options import check_read_options
from hypervlad.images.reading import read_named, relative_names, rows_of_banner
from hypervlad.particles.counts import (
    Edges,
    Field,
    count_particles,
    edge_weights,
    particle_sizes,
)
from hypervlad.particles.export import write_outlines
from hypervlad.particles.measures import measure as measure_particles
from hypervlad.particles.outlines import read_outlines
from hypervlad.particles.particle import (
    NOT_A_PARTICLE,
    Outlines,
    Particle,
    check_same_size,
    cut_particles,
)
from hypervlad.particles.rules import match_rule

if TYPE_CHECKING:
    import pandas as pd

OUTLINES, FIELDS, PARTICLES, CONFUSION, RUN, REMOVED = (
    *("outlines", "fields.csv", "particles.csv", "confusion.csv", "run.json", "removed"),
)
OWN_FILES = (RUN, FIELDS, PARTICLES, CONFUSION)
FORMATS = {"geojson": ".geojson", "roi": ".zip"}  # names of folders, and suffixes
_SAVE_AS_CSV = "; if a spreadsheet saved it, save it as CSV UTF-8, with commas and decimal points"
_LOCK = ".lock"
_MAX_WEIGHT = 10  # of a particle, from which on a count may depend on it alone
_MAX_NAME = 240  # bytes, of at most 255 with the suffixes of outlines
_FIELD_COLUMNS = ("micrograph", "height", "width", "pixel_size_nm", "particles")


class FoundCounts(NamedTuple):
    """Counts and sizes of the particles of a folder.

    Attributes
    ----------
    counts : DataFrame
        From :func:`count_particles`.
    sizes : DataFrame
        From :func:`particle_sizes`.
    measure : str
        Column of the table whose sizes these are.
    notes : list of str
        What is corrected, missing, or not corrected, and why.
    is_counted : ndarray of bool
        Which rows of the table are no wrong outlines and meet the rule.
    """

    counts: pd.DataFrame
    sizes: pd.DataFrame
    measure: str
    notes: list[str]
    is_counted: NDArray[np.bool_]

    def cells(self) -> tuple[list[str], list[list[Any]]]:
        """Return the columns and rows of one table: counts, and sizes by number and by area."""
        table = self.counts
        for by, ending in (("number", ""), ("area", "_by_area")):
            own = self.sizes[self.sizes["by"] == by].drop(columns=["by", "particles"])
            table = table.merge(own.set_index("class").add_suffix(ending), on="class")
        return list(table), _as_cells(table)


class FoundFolder:
    """A folder that ``hypervlad particles find`` wrote.

    The outlines in it are the truth: they may be corrected in other programs, and are measured
    again by :meth:`classify`.

    Parameters
    ----------
    path : path

    Attributes
    ----------
    path : Path
    images : Path
        Folder of the images, in ``run.json`` absolute or from this folder.
    read_options : ReadOptions
        How the images were read.

    Raises
    ------
    ValueError
        If it is not such a folder, or damaged.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> from PIL import Image
    >>> from hypervlad.particles import find_in_images, find_particles
    >>> pixels = np.full((60, 80), 40, np.uint8)
    >>> pixels[20:40, 30:50] = 200
    >>> with tempfile.TemporaryDirectory() as root:
    ...     image = pathlib.Path(root, "a.png")
    ...     Image.fromarray(pixels).save(image)
    ...     found, _ = find_in_images(
    ...         f"{root}/found", [image], find_particles, root=root, pixel_size=5.0
    ...     )
    ...     found.fields, len(found.table)
    ([Field(micrograph='a.png', shape=(60, 80), pixel_size=5.0)], 1)
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        file = self.path / RUN
        try:
            run = parse_json(file.read_bytes())
            self.images = Path(os.path.abspath(self.path / run["images"]))
            self.read_options = check_read_options(run["read_options"])
            self.run: dict[str, Any] = {**run, "finder": dict(run["finder"])}
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ValueError(
                f"{self.path} is no folder of found particles (it has no {RUN}); give one that "
                "'hypervlad particles find' wrote"
            ) from error
        except (ValueError, TypeError, LookupError) as error:
            raise ValueError(f"{file}: damaged ({error}); find the particles again") from error

    def __repr__(self) -> str:
        return f"FoundFolder({str(self.path)!r})"

    @cached_property
    def fields(self) -> list[Field]:
        """All fields that were searched, also those without a particle."""
        table = self._read(FIELDS, _FIELD_COLUMNS)
        if strange := [str(name) for name in table["micrograph"] if not _is_below(name)]:
            raise ValueError(f"{self.path / FIELDS}: no images are called {name_some(strange)}")
        sizes = table["pixel_size_nm"].astype(float)
        try:
            return [
                Field(name, (int(height), int(width)), None if math.isnan(size) else float(size))
                for name, height, width, size in zip(
                    table["micrograph"], table["height"], table["width"], sizes, strict=True
                )
            ]
        except (ValueError, TypeError) as error:
            raise ValueError(f"{self.path / FIELDS}: damaged ({error})") from error

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row per particle, as :func:`measure` returns it.

        Once they are classified, also ``class``, ``confidence`` and for each class ``p_CLASS``.
        """
        table = self._read(PARTICLES, list(measure_particles([])))
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
        return [name[2:] for name in self.table if name.startswith("p_")]

    @property
    def is_by_model(self) -> NDArray[np.bool_]:
        """Whether each particle has the class to which a classifier gave the highest probability.

        A person has given all other classes, and those of the source "person".
        """
        if not self.classes or "class" not in self.table:
            return np.zeros(len(self.table), bool)
        proba = self.table[[f"p_{name}" for name in self.classes]].to_numpy(np.float64)
        best = np.array(self.classes, object)[np.nan_to_num(proba, nan=-1).argmax(axis=1)]
        return np.asarray((self.table["class"] == best) & ~self._is_reviewed, bool)

    @property
    def confusion(self) -> tuple[list[str], NDArray[np.int64]] | None:
        """The classes, and the classifier's held-out numbers by true and predicted class.

        None without a classifier that held particles out.
        """
        if not (self.path / CONFUSION).exists():
            return None
        table = self._read(CONFUSION, ("true",))
        names = table["true"].tolist()
        if sorted(names) != sorted(self.classes) or sorted(table) != sorted(["true", *names]):
            raise ValueError(
                f"{self.path / CONFUSION}: not of the classes in {PARTICLES}; run 'hypervlad "
                "particles classify' again"
            )
        # A person may have moved columns of either table.
        matrix = table.set_index("true").loc[self.classes, self.classes]
        return self.classes, matrix.to_numpy(np.int64)

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
        # With the image's own suffix, as a.tif and a.png are two fields.
        return self.path / OUTLINES / f"{micrograph}.tif"

    def outlines(self, micrograph: str) -> Outlines:
        """Read the outlines of a field; an ImageReadError if they are missing or damaged."""
        return read_outlines(self.outlines_file(micrograph))

    def particles(self, micrograph: str) -> list[Particle]:
        """Cut the particles of a field out of its image; an ImageReadError if that fails."""
        field = next((each for each in self.fields if each.micrograph == micrograph), None)
        if field is None:
            raise ImageReadError(f"{micrograph}: no field of {self.path}")
        return cut_particles(
            self.image(micrograph),
            self.outlines(micrograph),
            pixel_size=field.pixel_size,
            read_options=self.read_options,
            name=micrograph,
        )

    def classify(
        self, classifier: Any, *, formats: Sequence[str] = (), verbose: bool = False
    ) -> None:
        """Classify all particles, and write ``particles.csv`` and ``confusion.csv`` again.

        Outlines are read and measured again. All is written at the end.

        Parameters
        ----------
        classifier : fitted MicrographClassifier
            Or another estimator with ``classes_`` and ``predict_proba``.
        formats : sequence of {"geojson", "roi"}, default=()
            As for :func:`find_in_images`; GeoJSON contains classes. Formats that the folder has are
            written again.
        verbose : bool, default=False
            Show a progress bar.

        Raises
        ------
        ImageReadError
            If an image or outlines cannot be read, or differ in size.
        ValueError
            If a person has given classes or added columns, which would be lost.
        """
        classes = [str(label) for label in classifier.classes_]
        with exclusive_lock(self.path / _LOCK, self.path):
            self._forget()
            self._check_nothing_own()
            for field in self.fields:
                self.image(field.micrograph)  # raises before hours of work
            tables = []
            with announced(len(self.table)):
                bar = ProgressBar(self.fields, unit="image", disable=not verbose or None)
                for field in bar:
                    particles = self.particles(field.micrograph)
                    proba = np.zeros((0, len(classes)))
                    if particles:
                        proba = np.asarray(classifier.predict_proba(particles))
                    labels = [classes[code] for code in proba.argmax(axis=1)]
                    table = measure_particles(particles, labels, proba.max(axis=1, initial=0))
                    for name, column in zip(classes, proba.T, strict=True):
                        table[f"p_{name}"] = column
                    tables.append(table)
                    self._write_formats(field.micrograph, formats, table)
            # Never the matrix of another classifier beside these classes.
            (self.path / CONFUSION).unlink(missing_ok=True)
            self._write_tables(self.fields, tables)
            held_out = getattr(classifier, "held_out_", None)
            if held_out is not None:
                from sklearn.metrics import confusion_matrix  # not above: importing it takes long

                matrix = confusion_matrix(
                    held_out.codes, held_out.proba.argmax(axis=1), labels=range(len(classes))
                )
                rows = [[name, *row] for name, row in zip(classes, matrix.tolist(), strict=True)]
                write_table(self.path / CONFUSION, ["true", *classes], rows)

    def correct(self, classes: Mapping[tuple[str, int], str]) -> tuple[int, int]:
        """Write classes that people gave into ``particles.csv``, and remove wrong outlines.

        Their source becomes "person"; other particles keep their class. Outlines that are removed
        are kept as ``removed/MICROGRAPH-1.tif``, those of the next time as ``-2.tif``.

        Parameters
        ----------
        classes : mapping of str by (str, int)
            The class of a particle, by its micrograph and its number; of a wrong outline, "not a
            particle". One that is gone already is ignored.

        Returns
        -------
        n_classes, n_removed : int
            Particles with a class of `classes`, and outlines that were removed.

        Raises
        ------
        ValueError
            If particles are not classified yet, or outlines were changed since.
        """
        with exclusive_lock(self.path / _LOCK, self.path):
            self._forget()
            table = self.table.copy()
            keys = list(zip(table["micrograph"], table["particle"], strict=True))
            names = [field.micrograph for field in self.fields]
            there = {(name, own.label) for name in names for own in self.outlines(name)}
            wrong = {key for key, own in classes.items() if own == NOT_A_PARTICLE}
            if "class" not in table or ({*classes, *keys} ^ there) - wrong:
                raise ValueError(
                    f"{self.path / PARTICLES}: not the table of all outlines with classes; run "
                    "'hypervlad particles classify', then repeat this command"
                )
            given = np.array([classes.get(key, "") for key in keys], object)
            is_given, is_wrong = given != "", given == NOT_A_PARTICLE
            is_reviewed = is_given | self._is_reviewed
            table["source"] = np.select([is_reviewed, self.is_by_model], ["person", "model"], "")
            table.loc[is_given, "class"] = given[is_given]
            table.loc[is_given, "confidence"] = None
            kept = table[~is_wrong].sort_values("particle")  # a person may have sorted it
            of_field = dict(list(kept.groupby("micrograph")))
            numbers = defaultdict[str, set[int]](set)
            for name, number in wrong:
                numbers[name].add(number)
            tables = [of_field.get(name, kept[:0]) for name in names]
            n_removed = 0
            for name, own in zip(names, tables, strict=True):
                if name in numbers:
                    n_removed += self._remove(name, numbers[name])
                self._write_formats(name, (), own)
            self._write_tables(self.fields, tables)
            return int((is_given & ~is_wrong).sum()), n_removed

    def count(
        self,
        rule: str | None = None,
        *,
        edges: Edges = "weight",
        measure: str = "equivalent_diameter",
        corrected: bool = True,
    ) -> FoundCounts:
        """Count the particles of each class and return their sizes, with 95 % intervals.

        Parameters
        ----------
        rule : str, optional
            Count only particles that meet it, see :func:`match_rule`. Wrong outlines, of the class
            "not a particle", are never counted, unless it is a class of the classifier.
        edges : {"weight", "leave_out"}, default="weight"
            See :func:`edge_weights`.
        measure : str, default="equivalent_diameter"
            Column for sizes; without its unit, in nanometres if all pixel sizes are known.
        corrected : bool, default=True
            Correct counts for misclassification, if ``confusion.csv`` allows it.

        Returns
        -------
        FoundCounts

        Raises
        ------
        ValueError
            As in :func:`count_particles`, :func:`particle_sizes` and :func:`match_rule`.
        """
        table, fields, notes = self.table, self.fields, self._notes()
        is_counted = np.ones(len(table), bool)
        is_scaled = all(field.pixel_size for field in fields)
        measures = list(measure_particles([]).loc[:, "area_px2":"solidity"])
        unit = "nm" if is_scaled else "px"
        named = (measure, f"{measure}_{unit}", f"{measure}_{unit}2")
        column = next((name for name in named if name in measures), None)
        if column is None:
            known = dict.fromkeys(re.sub("_(nm|px)2?$", "", name) for name in measures)
            raise ValueError(f"no measure is called {measure!r}; there are {', '.join(known)}")
        classes = confusion = None
        if "class" in table:
            unclassified = int(table["class"].isna().sum())
            if unclassified:
                raise ValueError(
                    f"{self.path / PARTICLES}: {counted(unclassified, 'particle')} without a "
                    "class; classify all, or remove the column class"
                )
            is_by_model = self.is_by_model
            if NOT_A_PARTICLE not in self.classes:
                is_counted = np.array(table["class"] != NOT_A_PARTICLE, bool)
            if not is_counted.all():
                notes.append(f"without {counted(int((~is_counted).sum()), 'wrong outline')}")
                table, is_by_model = table[is_counted], is_by_model[is_counted]
            classes = list(dict.fromkeys([*self.classes, *sorted(set(table["class"]))]))
            if not is_by_model.all():
                n_own = counted(int((~is_by_model).sum()), "class")
                notes.append(
                    f"a person gave {n_own} of {len(table)}, so no count is corrected for wrong "
                    "classes of the others: do not compare these counts with corrected ones"
                )
            elif self.confusion is None:
                notes.append(
                    f"not corrected for wrong classes, as there is no {CONFUSION}: the classifier "
                    "held out no particles, or 'hypervlad particles classify' was stopped"
                )
            elif rule is not None and re.search(r"\b(class|confidence|p_)", rule):
                notes.append("not corrected for wrong classes, as the rule chooses by the answers")
            elif corrected:
                confusion = self.confusion[1]
                notes.append(
                    "counts are corrected for the classifier's mistakes with held-out particles, "
                    "sizes are not"
                )
        if rule is not None:
            is_met = match_rule(table, rule)
            table, is_counted[is_counted] = table[is_met], is_met
        is_huge = edge_weights(table, edges) > _MAX_WEIGHT
        if is_huge.any():
            notes.append(
                f"{counted(int(is_huge.sum()), 'particle')} nearly as large as the image "
                f"{verb(int(is_huge.sum()), 'counts', 'count')} for more than {_MAX_WEIGHT} each: "
                "take larger images, or count each as one (--edges leave_out)"
            )
        counts = count_particles(table, fields, classes=classes, confusion=confusion, edges=edges)
        sizes = particle_sizes(table, fields, measure=column, classes=classes, edges=edges)
        return FoundCounts(counts, sizes, column, notes, is_counted)

    # --- internal ------------------------------------------------------------------------------

    @property
    def _is_reviewed(self) -> NDArray[np.bool_]:
        if "source" not in self.table:
            return np.zeros(len(self.table), bool)
        return np.asarray(self.table["source"] == "person", bool)

    def _remove(self, name: str, numbers: set[int]) -> int:
        """Move outlines into a new file of removed ones; return how many were there."""
        file, outlines = self.outlines_file(name), self.outlines(name)
        is_wrong = np.array([outline.label in numbers for outline in outlines], bool)
        if is_wrong.any():
            size = read_micrograph(file).pixel_size
            new = (self.path / REMOVED / f"{name}-{n}.tif" for n in itertools.count(1))
            aside = next(path for path in new if not path.exists())
            write_outlines(aside, outlines[is_wrong], pixel_size=size)
            write_outlines(file, outlines[~is_wrong], pixel_size=size)
        return int(is_wrong.sum())

    def _notes(self) -> list[str]:
        notes = []
        if not all(field.pixel_size for field in self.fields):
            notes.append(
                "the pixel size is unknown, so nothing is per area or in nanometres; give it to "
                "'hypervlad particles find' with --resume --pixel-size NM"
            )
        if len(self.fields) < 4:
            notes.append("no intervals of counts and sizes, which take at least four fields")
        written = (self.path / PARTICLES).stat().st_mtime
        files = [(each.micrograph, self.outlines_file(each.micrograph)) for each in self.fields]
        missing = [name for name, file in files if not file.exists()]
        if missing:
            notes.append(f"no outlines of {name_some(missing)} are there any more")
        changed = [name for name, file in files if file.exists() and file.stat().st_mtime > written]
        if changed:
            notes.append(
                f"{verb(len(changed), 'the outlines', 'outlines')} of {name_some(changed)} are "
                f"newer than {PARTICLES}: if you corrected them, run 'hypervlad particles "
                "classify' again, or find with --resume"
            )
        return notes

    def _read(self, name: str, columns: Sequence[str]) -> pd.DataFrame:
        import pandas as pd

        path = self.path / name
        if not path.exists():
            raise ValueError(f"{path}: missing, as finding was stopped; continue it with --resume")
        text = {"micrograph": str, "class": str, "true": str}
        try:
            table = pd.read_csv(path, dtype=text, keep_default_na=False, na_values=[""])
            table.columns = table.columns.map(original_cell)
            if table.empty:  # the type of a column without cells is unknown
                table = table.astype({column: text.get(column, float) for column in table})
            for column in text.keys() & set(table):
                table[column] = table[column].map(original_cell, na_action="ignore")
            lacking = [column for column in columns if column not in table]
        except (ValueError, LookupError) as error:
            raise ValueError(f"{path}: not a table ({error}){_SAVE_AS_CSV}") from error
        no_numbers = [
            column
            for column in table
            if (column in (*columns, "confidence") or column.startswith("p_"))
            and column not in text
            and table[column].dtype.kind not in "biuf"
        ]
        if no_numbers:
            raise ValueError(f"{path}: {no_numbers[0]} has cells that are no numbers{_SAVE_AS_CSV}")
        if lacking:
            raise ValueError(f"{path}: no column is called {name_some(lacking)}{_SAVE_AS_CSV}")
        return table

    def _check_nothing_own(self) -> None:
        """Raise if the table has classes or columns of a person, which would be written over."""
        if not (self.path / PARTICLES).exists():
            return
        known = {*measure_particles([]), "class", "confidence", "source"}
        harmless = ("p_", "Unnamed: ")  # of a class; by a spreadsheet or pandas
        own = [name for name in self.table if not (name in known or name.startswith(harmless))]
        what = (
            [f"added {verb(len(own), 'the column', 'the columns')} {name_some(own)}"] if own else []
        )
        if "class" in self.table:
            is_own = self.table["class"].notna() & ~self.is_by_model & ~self._is_reviewed
            if n_own := int(is_own.sum()):
                what.append(f"gave {counted(n_own, 'class')}")
        if what:
            raise ValueError(
                f"{self.path / PARTICLES}: a person {' and '.join(what)}, which would be "
                "lost; rename the table, for example to labels.csv, which 'hypervlad train' reads"
            )
        if n_reviewed := int(self._is_reviewed.sum()):
            warn_user(
                f"{self.path / PARTICLES}: {counted(n_reviewed, 'class')} of a review "
                f"{verb(n_reviewed, 'is', 'are')} replaced; write them again with 'hypervlad "
                "review export'"
            )

    def _measured(
        self, name: str, pixel_size: float | None, formats: Sequence[str]
    ) -> tuple[Field, pd.DataFrame]:
        """Measure the outlines of a field; a pixel size that the file lacks is added to it."""
        file, outlines = self.outlines_file(name), self.outlines(name)
        stored = read_micrograph(file).pixel_size
        if pixel_size and not stored:
            write_outlines(file, outlines, pixel_size=pixel_size)
            stored = read_micrograph(file).pixel_size
        field = Field(name, outlines.shape, stored)
        particles = [  # measured without an image
            Particle(o.mask.astype(np.float32), o.mask, o.box, o.label, name, field.shape, stored)
            for o in outlines
        ]
        table = measure_particles(particles)
        self._write_formats(name, formats, table)
        return field, table

    def _write_formats(self, name: str, formats: Sequence[str], table: pd.DataFrame) -> None:
        """Write the outlines of a field in given formats, and those that the folder has."""
        for kind in FORMATS:
            if not (kind in formats or (self.path / kind).is_dir()):
                continue
            file = self.path / kind / f"{name}{FORMATS[kind]}"
            own: dict[str, Any] = {}
            if kind == "geojson":
                own = {"measures": table.drop(columns=["particle"])}
                own |= {"classes": table["class"].tolist()} if "class" in table else {}
            write_outlines(file, self.outlines(name), **own)

    def _write_tables(self, fields: Sequence[Field], tables: Sequence[pd.DataFrame]) -> None:
        """Write the tables, that of fields last: it says that the others are complete."""
        import pandas as pd

        table = pd.concat(tables, ignore_index=True)
        write_table(self.path / PARTICLES, list(table), _as_cells(table))
        rows = [
            [field.micrograph, *field.shape, field.pixel_size, len(own)]
            for field, own in zip(fields, tables, strict=True)
        ]
        write_table(self.path / FIELDS, _FIELD_COLUMNS, rows)
        self._forget()

    def _forget(self) -> None:
        """Read the tables again when they are needed: they may have been edited meanwhile."""
        vars(self).pop("table", None)
        vars(self).pop("fields", None)


def find_in_images(
    path: str | os.PathLike[str],
    images: Sequence[str | os.PathLike[str]],
    outline: Callable[[Path], Any],
    *,
    root: str | os.PathLike[str],
    finder: Mapping[str, Any] | None = None,
    read_options: Mapping[str, Any] | ReadOptions | None = None,
    pixel_size: float | None = None,
    formats: Sequence[str] = (),
    resume: bool = False,
    verbose: bool = False,
) -> tuple[FoundFolder, list[str]]:
    """Outline the particles of images, and write the outlines and tables of their measures.

    The outlines of each image are complete in ``outlines/`` before those of the next are found;
    ``particles.csv`` and ``fields.csv`` are written at the end.

    Parameters
    ----------
    path : path
        Folder to write, new or empty unless `resume`.
    images : sequence of n paths
    outline : callable
        From a path to outlines that do not overlap, such as :func:`find_particles` or
        ``HypercolumnSegmenter.predict``.
    root : path
        Folder that contains all images, which are named by their paths below it.
    finder : mapping, optional
        What outlines depend on, such as parameters; values that JSON can store. A run that is
        resumed must have the same.
    read_options : dict or ReadOptions, optional
        How images are read, also by `outline`.
    pixel_size : float, optional
        Nanometres per pixel of images whose file does not contain it. A run that is resumed must
        have the same, or none before.
    formats : sequence of {"geojson", "roi"}, default=()
        Further files of outlines for QuPath and ImageJ, in folders of these names. A run that is
        resumed keeps those that it began with.
    resume : bool, default=False
        Keep the outlines that are in the folder, and find the others. All are measured again,
        without the classes of a classifier.
    verbose : bool, default=False
        Show a progress bar.

    Returns
    -------
    folder : FoundFolder
    left_out : list of str
        Why images could not be read or have outlines of another size; each begins with the image.

    Raises
    ------
    ValueError
        If the folder has other files, or is of other images or another `finder`.

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
    check_value("pixel_size", pixel_size, [None, Number(above=0, meaning="nanometres per pixel")])
    options = check_read_options(read_options)
    files = dict(zip(relative_names(images, root), map(Path, images), strict=True))
    if outside := [str(file) for name, file in files.items() if not _is_below(name)]:
        raise ValueError(
            f"root={os.fspath(root)!r} must contain all images, but not {name_some(outside)}"
        )
    run: dict[str, Any] = {"images": os.path.abspath(root), "finder": dict(finder or {})}
    run |= {"read_options": asdict(options), "pixel_size": pixel_size}
    with new_folder(Path(path)), exclusive_lock(Path(path, _LOCK), path):
        folder = _started(Path(path), run, resume)
        pixel_size = folder.run["pixel_size"]
        has_fields = (folder.path / FIELDS).exists()
        known = {field.micrograph: field for field in (folder.fields if has_fields else ())}
        names = sorted({*known, *files})
        done = {name for name in names if folder.outlines_file(name).exists()}
        found: list[tuple[Field, pd.DataFrame]] = []
        left_out, in_bars = list[str](), list[str]()
        bar = ProgressBar(names, unit="image", disable=not verbose or None)
        with announced(len(names) - len(done)):
            for name in bar:
                size = known[name].pixel_size if name in known else None
                try:
                    if name not in done:
                        image = files.get(name) or folder.image(name)
                        if not is_utf8(name) or len(os.fsencode(image.name)) > _MAX_NAME:
                            raise ImageReadError(
                                f"{image}: its name is not UTF-8, or has more than {_MAX_NAME} "
                                "bytes; rename it"
                            )
                        outlines = Outlines.of(outline(image), str(image))
                        own = read_named(image, options, str(image), with_digest=False)
                        check_same_size(outlines, own.pixels, str(image))
                        size = own.pixel_size or pixel_size
                        if options.banner == "keep" and _any_in_bar(outlines, own):
                            in_bars.append(name)
                        write_outlines(folder.outlines_file(name), outlines, pixel_size=size)
                    found.append(folder._measured(name, size or pixel_size, formats))
                except ImageReadError as error:
                    left_out.append(str(error))
        if found:
            (folder.path / CONFUSION).unlink(missing_ok=True)
            folder._write_tables(*zip(*found, strict=True))
    if in_bars:
        warn_user(
            f"particles were found in the information bar of {counted(len(in_bars), 'image')}, "
            f"{name_some(in_bars)}: in another folder, find them without it (--remove-banner, or "
            'read_options={"banner": "remove"})'
        )
    return folder, left_out


def _is_below(name: Any) -> bool:
    """Return whether the name of a field is a path below a folder."""
    return isinstance(name, str) and not os.path.isabs(name) and ".." not in path_parts(name)


def _any_in_bar(outlines: Outlines, image: Micrograph) -> bool:
    first = len(image.pixels) - rows_of_banner(image)
    return any(outline.box[0] >= first for outline in outlines)


def _started(path: Path, run: dict[str, Any], resume: bool) -> FoundFolder:
    """Write what a run is made with, or compare it with that of the run that is resumed."""
    run = json.loads(json.dumps(run))
    if any(not each.name.startswith(".") for each in path.iterdir()):
        if not resume:
            raise ValueError(
                f"{path} is not empty, and nothing is overwritten; give another folder, or "
                "continue what was begun there with --resume"
            )
        folder = FoundFolder(path)
        folder._check_nothing_own()
        size = folder.run.get("pixel_size")  # may be given later, or once
        run["pixel_size"] = run["pixel_size"] or size
        before, now = ({**each, **each.get("finder", {})} for each in (folder.run, run))
        before |= {
            "pixel_size": size or run["pixel_size"],
            "images": str(folder.images),
        }
        different = [
            f"{name} {before.get(name)!r}, not {now.get(name)!r}"
            for name in dict.fromkeys([*before, *now])
            if name != "finder" and before.get(name) != now.get(name)
        ]
        if different:
            raise ValueError(
                f"{path} was made with {'; '.join(different)}; give the same, or another folder"
            )
        if folder.run == run:
            return folder
    with replace_when_complete(path / RUN) as stream:
        stream.write(json.dumps(run, indent=1).encode())
    return FoundFolder(path)


def _as_cells(table: pd.DataFrame) -> list[list[Any]]:
    """Return the rows of a table, with None for what is unknown."""
    cells: list[list[Any]] = table.astype(object).where(table.notna(), None).to_numpy().tolist()
    return cells
