"""A folder of found particles: the outlines of each field, tables, and how they were made."""

from __future__ import annotations

import itertools
import math
import os
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hypervlad.common.files import exclusive_lock, file_digest, parse_json
from hypervlad.common.progress import ProgressBar, announced
from hypervlad.common.tables import MODEL_SOURCE, PERSON_SOURCE, write_table
from hypervlad.common.wording import counted, name_some, verb, warn_user
from hypervlad.images import ImageReadError
from hypervlad.images.files import find_as_named
from hypervlad.images.options import check_read_options
from hypervlad.objects.counts import (
    Edges,
    Field,
    count_particles,
    edge_weights,
    particle_sizes,
)
from hypervlad.objects.export import write_outlines
from hypervlad.objects.measures import measure as measure_particles
from hypervlad.objects.outlines import read_outlines
from hypervlad.objects.particle import NOT_A_PARTICLE, Outlines, Particle, cut_particles
from hypervlad.objects.rules import match_rule
from hypervlad.objects.tables import (
    CONFUSION,
    FIELD_COLUMNS,
    FIELDS,
    LOCK,
    PARTICLES,
    REMOVED,
    RUN,
    as_cells,
    is_below,
    outlines_file,
    read_table,
    write_formats,
    write_tables,
)

if TYPE_CHECKING:
    import pandas as pd

_MAX_WEIGHT = 10  # of a particle, from which on a count may depend on it alone


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
        return list(table), as_cells(table)


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
    >>> from PIL import Image
    >>> from hypervlad.particles import FoundFolder, find_in_images, find_particles
    >>> with tempfile.TemporaryDirectory() as root:
    ...     image = pathlib.Path(root, "a.png")
    ...     Image.new("L", (80, 60)).save(image)
    ...     _ = find_in_images(f"{root}/found", [image], find_particles, root=root)
    ...     found = FoundFolder(f"{root}/found")
    ...     found.fields, len(found.table)
    ([Field(micrograph='a.png', shape=(60, 80), pixel_size=None)], 0)
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        file = self.path / RUN
        try:
            run = parse_json(file.read_bytes())
            self.images = Path(os.path.abspath(self.path / run["images"]))
            self.read_options = check_read_options(run["read_options"])
            own = {"finder": dict(run["finder"]), "pixel_size": run["pixel_size"]}
            own["pixel_sizes"] = dict(run.get("pixel_sizes", {}))
            self.run: dict[str, Any] = run | own
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
        table = read_table(self.path / FIELDS, FIELD_COLUMNS)
        if strange := [str(name) for name in table["micrograph"] if not is_below(name)]:
            raise ValueError(f"{self.path / FIELDS}: no images are called {name_some(strange)}")
        columns = (table[name] for name in FIELD_COLUMNS[:4])
        try:
            return [
                Field(name, (int(height), int(width)), None if math.isnan(size) else float(size))
                for name, height, width, size in zip(*columns, strict=True)
            ]
        except (ValueError, TypeError) as error:
            raise ValueError(f"{self.path / FIELDS}: damaged ({error})") from error

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row per particle, as :func:`measure` returns it.

        Once they are classified, also ``class``, ``confidence`` and for each class ``p_CLASS``.
        """
        table = read_table(self.path / PARTICLES, list(measure_particles([])))
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
    def confusion(self) -> NDArray[np.int64] | None:
        """The classifier's held-out numbers by true and predicted class; None if it held out none.

        In the order of `classes`.
        """
        if not (self.path / CONFUSION).exists():
            return None
        table = read_table(self.path / CONFUSION, ("true",))
        names = table["true"].tolist()
        if sorted(names) != sorted(self.classes) or sorted(table) != sorted(["true", *names]):
            raise ValueError(
                f"{self.path / CONFUSION}: not of the classes in {PARTICLES}; run 'hypervlad "
                "particles classify' again"
            )
        # A person may have moved columns of either table.
        matrix = table.set_index("true").loc[self.classes, self.classes]
        return np.asarray(matrix, np.int64)

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
        """Return where the outlines of a field are."""
        return outlines_file(self.path, micrograph)

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
        """Measure all outlines again and classify them; the tables are written at the end.

        Parameters
        ----------
        classifier : fitted MicrographClassifier
            Or another estimator with ``classes_`` and ``predict_proba``.
        formats : sequence of {"geojson", "roi"}, default=()
            As for :func:`find_in_images`, besides those that the folder has.
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
        with exclusive_lock(self.path / LOCK, self.path):
            self._forget()
            self.check_replaceable()
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
                    table = measure_particles(particles, labels)
                    table.insert(3, "confidence", proba.max(axis=1, initial=0))
                    for name, column in zip(classes, proba.T, strict=True):
                        table[f"p_{name}"] = column
                    tables.append(table)
                    write_formats(self.path, field.micrograph, table, formats)
            # Never the matrix of another classifier beside these classes.
            (self.path / CONFUSION).unlink(missing_ok=True)
            self._write(tables)
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

        Outlines that are removed are kept as ``removed/MICROGRAPH-1.tif``, later ones as ``-2``.

        Parameters
        ----------
        classes : mapping of str by (str, int)
            The class of a particle, by its micrograph and its number; of a wrong outline, "not a
            particle". One that is gone already is ignored.

        Returns
        -------
        n_classes, n_removed : int
            Particles with a class of `classes`, and removed outlines.

        Raises
        ------
        ValueError
            If particles are not classified yet, or outlines were changed since.
        """
        with exclusive_lock(self.path / LOCK, self.path):
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
            sources = [PERSON_SOURCE, MODEL_SOURCE]
            table["source"] = np.select([is_reviewed, self.is_by_model], sources, "")
            table.loc[is_given, "class"] = given[is_given]
            table.loc[is_given, "confidence"] = None
            kept = table[~is_wrong].sort_values("particle")  # a person may have sorted it
            of_field = dict(list(kept.groupby("micrograph")))
            tables = [of_field.get(name, kept[:0]) for name in names]
            n_removed = sum(self._remove(name, wrong) for name in names)
            for name, own in zip(names, tables, strict=True):
                write_formats(self.path, name, own)
            self._write(tables)
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
            Count only particles that meet it, see :func:`match_rule`. Wrong outlines ("not a
            particle") are never counted, unless this is a class of the classifier.
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
        measures = list(measure_particles([]).loc[:, "area_px2":"solidity"])
        unit = "nm" if all(field.pixel_size for field in fields) else "px"
        named = (measure, f"{measure}_{unit}", f"{measure}_{unit}2")
        column = next((name for name in named if name in measures), None)
        if column is None:
            known = dict.fromkeys(re.sub("_(nm|px)2?$", "", name) for name in measures)
            raise ValueError(f"no measure is called {measure!r}; there are {', '.join(known)}")
        classes = confusion = None
        if "class" in table:
            if NOT_A_PARTICLE not in self.classes:
                is_counted = np.array(table["class"] != NOT_A_PARTICLE, bool)
            if n_wrong := int((~is_counted).sum()):
                notes.append(f"without {counted(n_wrong, 'wrong outline')}")
            table = table[is_counted]
            classes = list(dict.fromkeys([*self.classes, *sorted(set(table["class"].dropna()))]))
            if n_own := int((is_counted & ~self.is_by_model).sum()):
                notes.append(
                    f"a person gave {counted(n_own, 'class')} of {len(table)}, so no count is "
                    "corrected for wrong classes of the others: do not compare these counts with "
                    "corrected ones"
                )
            elif self.confusion is None:
                notes.append(
                    f"not corrected for wrong classes, as there is no {CONFUSION}: the classifier "
                    "held out no particles, or 'hypervlad particles classify' was stopped"
                )
            elif rule is not None and re.search(r"\b(class|confidence|p_)", rule):
                notes.append("not corrected for wrong classes, as the rule chooses by the answers")
            elif corrected:
                confusion = self.confusion
                notes.append(
                    "counts are corrected for the classifier's mistakes with held-out particles, "
                    "sizes are not"
                )
        if rule is not None:
            is_met = match_rule(table, rule)
            table, is_counted[is_counted] = table[is_met], is_met
        if n_huge := int((edge_weights(table, edges) > _MAX_WEIGHT).sum()):
            notes.append(
                f"{counted(n_huge, 'particle')} nearly as large as the image "
                f"{verb(n_huge, 'counts', 'count')} for more than {_MAX_WEIGHT} each: take larger "
                "images, or count each as one (--edges leave_out)"
            )
        counts = count_particles(table, fields, classes=classes, confusion=confusion, edges=edges)
        sizes = particle_sizes(table, fields, measure=column, classes=classes, edges=edges)
        return FoundCounts(counts, sizes, column, notes, is_counted)

    def check_replaceable(self) -> None:
        """Raise if the table has classes or columns of a person, which would be written over."""
        if not (self.path / PARTICLES).exists():
            return
        known = {*measure_particles([]), "class", "confidence", "source"}
        harmless = ("p_", "Unnamed: ")  # of a class; by a spreadsheet or pandas
        what = []
        if own := [name for name in self.table if not (name in known or name.startswith(harmless))]:
            what.append(f"added {verb(len(own), 'the column', 'the columns')} {name_some(own)}")
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

    # --- internal ------------------------------------------------------------------------------

    @property
    def _is_reviewed(self) -> NDArray[np.bool_]:
        if "source" not in self.table:
            return np.zeros(len(self.table), bool)
        return np.asarray(self.table["source"] == PERSON_SOURCE, bool)

    def _remove(self, name: str, wrong: set[tuple[str, int]]) -> int:
        """Move wrong outlines into a new file of removed ones; return how many were there."""
        outlines = self.outlines(name)
        is_wrong = np.array([(name, outline.label) in wrong for outline in outlines], bool)
        if is_wrong.any():
            new = (self.path / REMOVED / f"{name}-{n}.tif" for n in itertools.count(1))
            write_outlines(next(path for path in new if not path.exists()), outlines[is_wrong])
            write_outlines(self.outlines_file(name), outlines[~is_wrong])
        return int(is_wrong.sum())

    def _notes(self) -> list[str]:
        notes = []
        if held_out := self.run["finder"].get("held_out"):
            notes.append(
                "no interval covers what the model missed, joined or split; when it was trained, "
                f"held out: {held_out}"
            )
        if not all(field.pixel_size for field in self.fields):
            notes.append(
                "the pixel size is unknown, so nothing is per area or in nanometres, and sizes of "
                "several images mean something only if these have one magnification; give it to "
                "'hypervlad particles find' with --resume --pixel-size NM"
            )
        if len(self.fields) < 2:
            notes.append("no intervals of counts and sizes, which take at least two fields")
        table = read_table(self.path / FIELDS, FIELD_COLUMNS)
        digests = dict(zip(table["micrograph"], table["outlines_digest"], strict=True))
        files = {name: self.outlines_file(name) for name in digests}
        if missing := [name for name, file in files.items() if not file.exists()]:
            notes.append(f"no outlines of {name_some(missing)} are there any more")
        if changed := [
            name
            for name, file in files.items()
            if file.exists() and file_digest(file) != digests[name]
        ]:
            notes.append(
                f"{verb(len(changed), 'the outlines', 'outlines')} of {name_some(changed)} were "
                "changed after they were measured: if you corrected them, run 'hypervlad particles "
                "classify' again, or find with --resume"
            )
        return notes

    def _write(self, tables: Sequence[pd.DataFrame]) -> None:
        write_tables(self.path, self.fields, tables)
        self._forget()

    def _forget(self) -> None:
        """Read the tables again when they are needed: they may have been edited meanwhile."""
        vars(self).pop("table", None)
        vars(self).pop("fields", None)
