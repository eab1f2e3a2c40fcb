"""A folder of found particles: the outlines of each field, tables, and how they were made."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hypervlad.common.constraints import InstanceOf, check_points, check_value
from hypervlad.common.files import exclusive_lock, file_digest, parse_json
from hypervlad.common.progress import ProgressBar, announced
from hypervlad.common.tables import MODEL_SOURCE, PERSON_SOURCE, original_cell, write_table
from hypervlad.common.wording import counted, name_some, verb, warn_user
from hypervlad.images import ImageReadError
from hypervlad.images.files import find_as_named, path_parts
from hypervlad.images.options import check_read_options
from hypervlad.objects.counts import (
    Edges,
    Field,
    count_particles,
    edge_weights,
    particle_sizes,
)
from hypervlad.objects.export import write_outlines
from hypervlad.objects.measures import MEASURES, in_reading_order
from hypervlad.objects.measures import measure as measure_particles
from hypervlad.objects.outlines import read_outlines
from hypervlad.objects.particle import (
    NOT_A_PARTICLE,
    Outlines,
    Particle,
    check_same_size,
    cut_particles,
)
from hypervlad.objects.rules import match_rule

if TYPE_CHECKING:
    import pandas as pd

OUTLINES, REMOVED = "outlines", "removed"  # folders
RUN, FIELDS, PARTICLES, CONFUSION = "run.json", "fields.csv", "particles.csv", "confusion.csv"
OWN_FILES = (RUN, FIELDS, PARTICLES, CONFUSION)
LOCK = ".lock"
FORMATS = {"geojson": ".geojson", "roi": ".zip"}  # names of folders, and suffixes
FIELD_COLUMNS = (
    *("micrograph", "group", "sample", "particles", "height", "width", "pixel_size_nm"),
    *("annotated_px", "beside", "removed", "note", "image_digest", "outlines_digest"),
)

_NEEDED = ("micrograph", "height", "width", "pixel_size_nm", "outlines_digest")
_TEXT_COLUMNS = ("micrograph", "group", "sample", "class", "true", "note", "source")
_TEXTS = dict.fromkeys((*_TEXT_COLUMNS, "image_digest", "outlines_digest"), str)
_SAVE_AS_CSV = "; if a spreadsheet saved it, save it as CSV UTF-8, with commas and decimal points"
# An outline with these measures is the one that was measured before, whatever its number is now.
_SAME = ["area_px2", "top", "left", "centroid_row", "centroid_column"]
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
        Which rows of the table are not left out, no wrong outlines and meet the rule.
    groups : dict of (DataFrame, DataFrame)
        Counts and sizes of each group of fields, by its name; empty without groups.
    """

    counts: pd.DataFrame
    sizes: pd.DataFrame
    measure: str
    notes: list[str]
    is_counted: NDArray[np.bool_]
    groups: dict[str, tuple[pd.DataFrame, pd.DataFrame]]

    def cells(self) -> tuple[list[str], list[list[Any]]]:
        """Return the columns and rows of one table: counts, and sizes by number and by area.

        With groups, those of all fields are followed by those of each group.
        """
        import pandas as pd

        tables = []
        for name, (table, sizes) in ({"": (self.counts, self.sizes)} | self.groups).items():
            for by, ending in (("number", ""), ("area", "_by_area")):
                own = sizes[sizes["by"] == by].drop(columns=["by", "particles"])
                table = table.merge(own.set_index("class").add_suffix(ending), on="class")
            if self.groups:
                table.insert(0, "group", name)
            tables.append(table)
        table = pd.concat(tables)
        return list(table), as_cells(table)


class FoundFolder:
    """A folder that ``hypervlad particles find`` wrote.

    The outlines in it are the truth: they may be corrected in other programs, and are measured
    again by :meth:`update`, with which :meth:`count`, :meth:`classify` and :meth:`correct` begin.

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
    def field_table(self) -> pd.DataFrame:
        """One row per field: ``fields.csv``, as ``hypervlad particles find --help`` explains it."""
        table = read_table(self.path / FIELDS, _NEEDED)
        if strange := [str(name) for name in table["micrograph"] if not is_below(name)]:
            raise ValueError(f"{self.path / FIELDS}: no images are called {name_some(strange)}")
        return table.reindex(columns=list(dict.fromkeys([*FIELD_COLUMNS, *table])))

    @cached_property
    def fields(self) -> list[Field]:
        """All fields that were searched, also those without a particle."""
        try:
            return [
                Field(
                    row.micrograph,
                    (int(row.height), int(row.width)),
                    _known(row.pixel_size_nm),
                    _known(row.group),
                    _known(row.sample),
                    int(_known(row.annotated_px) or 0),
                )
                for row in self.field_table.itertuples()
            ]
        except (ValueError, TypeError) as error:
            raise ValueError(f"{self.path / FIELDS}: damaged ({error})") from error

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row per particle, as :func:`measure` returns it.

        Once they are classified, also ``class``, ``confidence`` and for each class ``p_CLASS``. A
        person may write 1 into ``left_out``: such a particle is not counted.
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
        """Return where the outlines of a field are: a.tif and a.png are two fields."""
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

    def update(
        self, *, begin: bool = False, formats: Sequence[str] = (), verbose: bool = False
    ) -> list[str]:
        """Measure all outlines that were changed, and write the tables if there are any.

        A particle whose outline is as it was keeps its class and what a person wrote beside it,
        also if another program has given it another number.

        Parameters
        ----------
        begin : bool, default=False
            Begin the table of particles if there is none. Otherwise, without it, finding was
            stopped, and that is an error.
        formats : sequence of {"geojson", "roi"}, default=()
            As for :func:`find_in_images`, besides those that the folder has.
        verbose : bool, default=False
            Show a progress bar.

        Returns
        -------
        list of str
            The fields that had been measured before.

        Warns
        -----
        UserWarning
            If particles that a person had left out or given a class have no such outlines any more.
        """
        with exclusive_lock(self.path / LOCK, self.path):
            if begin and not (self.path / PARTICLES).exists():
                write_table(self.path / PARTICLES, list(measure_particles([])), [])
            return self._update(formats, verbose)

    def _update(self, formats: Sequence[str] = (), verbose: bool = False) -> list[str]:
        import pandas as pd

        self._forget()
        fields = self.field_table
        digests = fields["micrograph"].map(self._digest)
        is_new = digests.notna() & (digests != fields["outlines_digest"])
        again = list(fields["micrograph"][is_new & fields["outlines_digest"].notna()])
        before, changed = self.table, fields["micrograph"][is_new].tolist()
        if not changed and not formats and len(fields) == fields["particles"].notna().sum():
            return []
        own, lost = [before[~before["micrograph"].isin(changed)]], dict[str, int]()
        is_given = self._is_left_out
        if "class" in before:
            is_given = is_given | (before["class"].notna() & ~self.is_by_model).to_numpy(bool)
        of_name = {field.micrograph: field for field in self.fields}
        for name in ProgressBar(changed, unit="image", disable=not verbose or None):
            field = of_name[name]
            outlines = self.outlines(name)
            check_same_size(outlines, np.empty(field.shape), name)
            outlines = replace(outlines, pixel_size=outlines.pixel_size or field.pixel_size)
            table = measure_particles(outlines.as_particles(name))
            old = before[before["micrograph"] == name].drop_duplicates(_SAME, keep=False)
            added = [column for column in old if column not in table]
            n_given = int(is_given[before["micrograph"] == name].sum())
            if len(old):
                own_given = is_given[old.index]
                is_kept = pd.MultiIndex.from_frame(old[_SAME]).isin(
                    pd.MultiIndex.from_frame(table[_SAME])
                )
                n_given -= int((own_given & is_kept).sum())
                table = table.merge(old[[*_SAME, *added]], on=_SAME, how="left")
            if n_given:
                lost[name] = n_given
            own.append(table)
            fields.loc[fields["micrograph"] == name, "pixel_size_nm"] = outlines.pixel_size
        table = pd.concat([each for each in own if len(each)] or own[:1])
        # From before they were read: what another program writes meanwhile is seen next time.
        fields["outlines_digest"] = digests.where(is_new, fields["outlines_digest"])
        self._write(table, formats, changed)
        if n_lost := sum(lost.values()):
            warn_user(
                f"{counted(n_lost, 'particle')} of {name_some(list(lost))} that a person left out "
                f"or gave a class {verb(n_lost, 'has', 'have')} no such outline any more: repeat "
                f"it in {self.path / PARTICLES} where outlines were changed"
            )
        return again

    def classify(
        self, classifier: Any, *, formats: Sequence[str] = (), verbose: bool = False
    ) -> None:
        """Classify all particles, after an :meth:`update`; the tables are written at the end.

        Parameters
        ----------
        classifier : fitted MicrographClassifier
            Or another estimator with ``classes_`` and ``predict_proba``.
        formats, verbose
            As for :meth:`update`.

        Raises
        ------
        ImageReadError
            If an image or outlines cannot be read, or differ in size.
        ValueError
            If a person has given classes, which would be lost.
        """
        classes = [str(label) for label in classifier.classes_]
        with exclusive_lock(self.path / LOCK, self.path):
            self._forget()
            self._check_replaceable()
            for field in self.fields:
                self.image(field.micrograph)  # raises before hours of work
            self._update()
            table = self.table.drop(columns=[f"p_{name}" for name in self.classes])
            table = table.drop(columns=["class", "confidence", "source"], errors="ignore")
            proba = np.full((len(table), len(classes)), np.nan)
            with announced(len(table)):
                bar = ProgressBar(self.fields, unit="image", disable=not verbose or None)
                for field in bar:
                    rows = np.flatnonzero(table["micrograph"] == field.micrograph)
                    cut = {each.label: each for each in self.particles(field.micrograph)}
                    own = [cut[number] for number in table["particle"].iloc[rows]]
                    if own:
                        proba[rows] = classifier.predict_proba(own)
            table["class"] = [classes[code] for code in proba.argmax(axis=1)]
            table["confidence"] = proba.max(axis=1, initial=0)
            for name, column in zip(classes, proba.T, strict=True):
                table[f"p_{name}"] = column
            # Never the matrix of another classifier beside these classes.
            (self.path / CONFUSION).unlink(missing_ok=True)
            self._write(table, formats)
            held_out = getattr(classifier, "held_out_", None)
            if held_out is not None:
                from sklearn.metrics import confusion_matrix  # not above: importing it takes long

                matrix = confusion_matrix(
                    held_out.codes, held_out.proba.argmax(axis=1), labels=range(len(classes))
                )
                lines = [[name, *row] for name, row in zip(classes, matrix.tolist(), strict=True)]
                write_table(self.path / CONFUSION, ["true", *classes], lines)

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
            self._update()
            table = self.table.copy()
            keys = list(zip(table["micrograph"], table["particle"], strict=True))
            wrong = {key for key, own in classes.items() if own == NOT_A_PARTICLE}
            has_classes = "class" in table and table["class"].notna().all()
            if not has_classes or {*classes} - {*keys} - wrong:
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
            n_removed = sum(self._remove(name, wrong) for name in self.field_table["micrograph"])
            self._write(table[~is_wrong])
            return int((is_given & ~is_wrong).sum()), n_removed

    def count(
        self,
        rule: str | None = None,
        *,
        edges: Edges = "weight",
        measure: str = "equivalent_diameter",
        corrected: bool = True,
        leave_out: Mapping[str, ArrayLike] | None = None,
    ) -> FoundCounts:
        """Count the particles of each class and return their sizes, with 95 % intervals.

        Outlines that were changed are measured again first. An image that is a copy of another is
        not counted, but in another group; the notes name it.

        Parameters
        ----------
        rule : str, optional
            Count only particles that meet it, see :func:`match_rule`. Wrong outlines ("not a
            particle") are never counted, unless this is a class of the classifier, nor are
            particles with a 1 in the column ``left_out``.
        edges : {"weight", "leave_out"}, default="weight"
            See :func:`edge_weights`.
        measure : str, default="equivalent_diameter"
            Column for sizes; without its unit, in nanometres if all pixel sizes are known.
        corrected : bool, default=True
            Correct counts for misclassification, if ``confusion.csv`` allows it.
        leave_out : mapping of array-like of shape (n, 2), optional
            Row and column of a pixel of each particle that counts no more, from now on, by image,
            such as :func:`hypervlad.fibres.read_left_out` reads them.

        Returns
        -------
        FoundCounts

        Raises
        ------
        ValueError
            As in :func:`count_particles`, :func:`particle_sizes` and :func:`match_rule`.

        Warns
        -----
        UserWarning
            If no particle is where one should be left out, and as for :meth:`update`.
        """
        given = {} if leave_out is None else leave_out
        check_value("leave_out", given, [InstanceOf(Mapping, "a dict of the points of images")])
        points = {name: check_points(f"leave_out[{name!r}]", own) for name, own in given.items()}
        changed = self.update()
        if points:
            self._leave_out(points)
        table, notes = self.table, self._notes()
        if changed:
            notes.append(
                f"{verb(len(changed), 'the outlines', 'outlines')} of {name_some(changed)} were "
                "changed after they were measured, and have been measured again"
            )
        copies, everywhere = self._copies("image_digest", "group"), self._copies("image_digest")
        if copies:
            notes.append(
                f"without {name_some(copies)}, {verb(len(copies), 'a copy', 'copies')} of other "
                "images" + " in the same group" * (everywhere != copies)
            )
        if between := [name for name in everywhere if name not in copies]:
            notes.append(
                f"all groups together are counted without {name_some(between)}, "
                f"{verb(len(between), 'a copy', 'copies')} of images in other groups"
            )
        fields = [field for field in self.fields if field.micrograph not in copies]
        is_out = self._is_left_out
        if n_out := int(is_out.sum()):
            notes.append(f"without {counted(n_out, 'particle')} that a person left out")
        is_counted = ~is_out & ~table["micrograph"].isin(copies).to_numpy(bool)
        unit = "nm" if all(field.pixel_size for field in fields) else "px"
        named = (measure, f"{measure}_{unit}", f"{measure}_{unit}2")
        column = next((name for name in named if name in MEASURES), None)
        if column is None:
            known = dict.fromkeys(re.sub("_(nm|px)2?$", "", name) for name in MEASURES)
            raise ValueError(f"no measure is called {measure!r}; there are {', '.join(known)}")
        classes = confusion = None
        if "class" in table:
            is_wrong = np.array(table["class"] == NOT_A_PARTICLE, bool)
            if NOT_A_PARTICLE not in self.classes and (
                n_wrong := int((is_counted & is_wrong).sum())
            ):
                notes.append(f"without {counted(n_wrong, 'wrong outline')}")
                is_counted &= ~is_wrong
        table = table[is_counted]
        if "class" in table and not self.classes and table["class"].isna().all():
            table = table.drop(columns="class")  # only wrong outlines were named
        if "class" in table:
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
                "images, or count each as one (--set edges=leave_out)"
            )

        def counted_in(
            chosen: Sequence[Field], own: pd.DataFrame
        ) -> tuple[pd.DataFrame, pd.DataFrame]:
            options: dict[str, Any] = {"classes": classes, "edges": edges}
            return (
                count_particles(own, chosen, confusion=confusion, **options),
                particle_sizes(own, chosen, measure=column, **options),
            )

        groups = {}
        for name in dict.fromkeys(field.group for field in fields if field.group):
            chosen = [field for field in fields if field.group == name]
            is_in = table["micrograph"].isin([field.micrograph for field in chosen])
            groups[name] = counted_in(chosen, table[is_in])
        fields = [field for field in fields if field.micrograph not in everywhere]
        is_once = ~table["micrograph"].isin(everywhere).to_numpy(bool)
        is_counted[is_counted] = is_once
        together = counted_in(fields, table[is_once])
        return FoundCounts(*together, column, notes, is_counted, groups)

    # --- internal ------------------------------------------------------------------------------

    def _check_replaceable(self) -> None:
        """Raise if the table has classes of a person, which would be written over."""
        if not (self.path / PARTICLES).exists() or "class" not in self.table:
            return
        is_own = self.table["class"].notna() & ~self.is_by_model & ~self._is_reviewed
        if n_own := int(is_own.sum()):
            raise ValueError(
                f"{self.path / PARTICLES}: a person gave {counted(n_own, 'class')}, which would be "
                "lost; rename the table, for example to labels.csv, which 'hypervlad train' reads"
            )
        if n_reviewed := int(self._is_reviewed.sum()):
            warn_user(
                f"{self.path / PARTICLES}: {counted(n_reviewed, 'class')} of a review "
                f"{verb(n_reviewed, 'is', 'are')} replaced; write them again with 'hypervlad "
                "review export'"
            )

    @property
    def _is_left_out(self) -> NDArray[np.bool_]:
        if "left_out" not in self.table:
            return np.zeros(len(self.table), bool)
        return np.asarray(self.table["left_out"].fillna(0) != 0, bool)

    def _leave_out(self, points: Mapping[str, NDArray[np.float64]]) -> None:
        with exclusive_lock(self.path / LOCK, self.path):
            table, missing = self.table.copy(), list[str]()
            names = {field.micrograph for field in self.fields}
            for name, own in points.items():
                outlines = self.outlines(name) if name in names else ()
                for row, column in np.rint(own).astype(int).tolist():
                    here = [each.label for each in outlines if each.holds(row, column)]
                    if not here:
                        missing.append(f"{name} at x {column}, y {row}")
                    is_it = (table["micrograph"] == name) & table["particle"].isin(here)
                    table.loc[is_it, "left_out"] = 1
            if missing:
                warn_user(f"no particle is there to leave out: {name_some(missing)}")
            self._write(table, changed=())

    def _copies(self, *columns: str) -> list[str]:
        """Return the images that agree with an earlier one in these columns."""
        known = self.field_table[self.field_table["image_digest"].notna()]
        return list(known["micrograph"][known.duplicated(list(columns))])

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
            new = next(path for path in self._removed_files(name) if not path.exists())
            write_outlines(new, outlines[is_wrong])
            write_outlines(self.outlines_file(name), outlines[~is_wrong])
            fields = self.field_table
            own, digests = fields["micrograph"] == name, fields["outlines_digest"]
            fields["outlines_digest"] = digests.mask(own, self._digest(name))
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
        names = self.field_table["micrograph"]
        if missing := [name for name in names if not self.outlines_file(name).exists()]:
            notes.append(f"no outlines of {name_some(missing)} are there any more")
        return notes

    def _write(
        self, table: pd.DataFrame, formats: Sequence[str] = (), changed: Sequence[str] | None = None
    ) -> None:
        """Write the tables, that of fields last: it says that the others are complete."""
        fields = self.field_table
        names = fields["micrograph"].tolist()
        place = {name: number for number, name in enumerate(names)}
        table = table[table["micrograph"].isin(place)]
        table = table.iloc[np.lexsort((table["particle"], table["micrograph"].map(place)))].copy()
        for column in ("group", "sample"):
            if fields[column].notna().any():
                table[column] = table["micrograph"].map(
                    dict(zip(names, fields[column], strict=True))
                )
        table["left_out"] = table["left_out"].fillna(0).astype(int) if "left_out" in table else 0
        table = in_reading_order(table)
        of_field = dict(list(table.groupby("micrograph")))
        for name in names if formats or changed is None else changed:
            if self.outlines_file(name).exists():
                self._write_formats(name, of_field.get(name, table[:0]), formats)
        write_table(self.path / PARTICLES, list(table), as_cells(table))
        fields["particles"] = [len(of_field.get(name, ())) for name in names]
        fields["removed"] = [self._n_removed(name) for name in names]
        write_table(self.path / FIELDS, list(fields), as_cells(fields))
        self._forget()

    def searched(self) -> dict[str, dict[str, Any]]:
        """Return the rows of ``fields.csv`` by their images, none if there is no such table yet."""
        if not (self.path / FIELDS).exists():
            return {}
        names, rows = self.field_table["micrograph"], as_cells(self.field_table)
        return {
            name: dict(zip(self.field_table, row, strict=True))
            for name, row in zip(names, rows, strict=True)
        }

    def write_fields(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write ``fields.csv``."""
        rows = list(rows)
        columns = dict.fromkeys([*FIELD_COLUMNS, *(name for row in rows for name in row)])
        cells = [[row.get(name) for name in columns] for row in rows]
        write_table(self.path / FIELDS, list(columns), cells)

    def _digest(self, name: str) -> str | None:
        file = self.outlines_file(name)
        return file_digest(file) if file.exists() else None

    def _removed_files(self, name: str) -> Iterator[Path]:
        return (self.path / REMOVED / f"{name}-{number}.tif" for number in itertools.count(1))

    def _n_removed(self, name: str) -> int:
        files = itertools.takewhile(Path.exists, self._removed_files(name))
        return sum(len(read_outlines(file)) for file in files)

    def _write_formats(self, name: str, table: pd.DataFrame, formats: Sequence[str]) -> None:
        """Write the outlines of a field in given formats, and those that the folder has."""
        for kind, suffix in FORMATS.items():
            if not (kind in formats or (self.path / kind).is_dir()):
                continue
            own: dict[str, Any] = {}
            if kind == "geojson":
                own = {"measures": table.drop(columns="particle")}
                own |= {"classes": table["class"].fillna("").tolist()} if "class" in table else {}
            write_outlines(self.path / kind / f"{name}{suffix}", self.outlines(name), **own)

    def _forget(self) -> None:
        """Read the tables again when they are needed: they may have been edited meanwhile."""
        for name in ("table", "fields", "field_table"):
            vars(self).pop(name, None)


def is_below(name: Any) -> bool:
    """Return whether the name of a field is a path below a folder."""
    return isinstance(name, str) and not os.path.isabs(name) and ".." not in path_parts(name)


def read_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Read a table that a person may have edited; a ValueError if it lacks columns or numbers."""
    import pandas as pd

    if not path.exists():
        raise ValueError(f"{path}: missing, as finding was stopped; continue it with --resume")
    try:
        table = pd.read_csv(path, dtype=_TEXTS, keep_default_na=False, na_values=[""])
        table.columns = table.columns.map(original_cell)
        if table.empty:  # the type of a column without cells is unknown
            table = table.astype({name: _TEXTS.get(name, float) for name in table})
        for name in _TEXTS.keys() & set(table):
            table[name] = table[name].map(original_cell, na_action="ignore")
    except (ValueError, LookupError) as error:
        raise ValueError(f"{path}: not a table ({error}){_SAVE_AS_CSV}") from error
    if lacking := [name for name in columns if name not in table]:
        raise ValueError(f"{path}: no column is called {name_some(lacking)}{_SAVE_AS_CSV}")
    for name in table:
        is_number = name in (*columns, "confidence", "left_out") or name.startswith("p_")
        if is_number and name not in _TEXTS and table[name].dtype.kind not in "biuf":
            raise ValueError(f"{path}: {name} has cells that are no numbers{_SAVE_AS_CSV}")
    return table


def as_cells(table: pd.DataFrame) -> list[list[Any]]:
    """Return the rows of a table, with None for what is unknown."""
    cells: list[list[Any]] = table.astype(object).where(table.notna(), None).to_numpy().tolist()
    return cells


def _known(value: Any) -> Any:
    """Return the value of a cell, or None."""
    return None if value is None or value != value else value
