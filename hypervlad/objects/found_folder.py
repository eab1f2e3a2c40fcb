"""A folder of found particles: measured, classified, corrected and counted."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hypervlad.common.constraints import InstanceOf, check_points, check_value
from hypervlad.common.files import exclusive_lock, file_digest
from hypervlad.common.progress import ProgressBar, announced, joined_notes, sentences_of
from hypervlad.common.tables import write_table
from hypervlad.common.wording import name_some, verb, warn_user
from hypervlad.images import ImageReadError
from hypervlad.images.annotations import EDGES, Annotation
from hypervlad.images.reading import SIZE_TOLERANCE, read_named
from hypervlad.images.sample import annotations_of
from hypervlad.objects import found_tables
from hypervlad.objects.fields import Edges
from hypervlad.objects.found_counts import FoundCounts, count_found
from hypervlad.objects.found_files import CONFUSION, FIELDS, LOCK, PARTICLES, FoundFiles
from hypervlad.objects.measures import measure as measure_particles
from hypervlad.objects.particle import (
    NOT_A_PARTICLE,
    Outlines,
    Particle,
    check_same_size,
    marked_outlines,
)
from hypervlad.objects.results_folder import LEFT_OUT

if TYPE_CHECKING:
    import pandas as pd


class FoundFolder(FoundFiles):
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
    unreadable : dict of str
        Why outlines could not be read by the last :meth:`update`, by their fields.

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
    ...     field = Image.new("L", (80, 60))
    ...     field.paste(200, (20, 20, 40, 40))
    ...     field.save(image)
    ...     _ = find_in_images(f"{root}/found", [image], find_particles, root=root)
    ...     found = FoundFolder(f"{root}/found")
    ...     found.fields, len(found.table)
    ([Field(micrograph='a.png', shape=(60, 80), pixel_size=None)], 1)
    """

    def __repr__(self) -> str:
        return f"FoundFolder({str(self.path)!r})"

    def _corrected(self) -> list[str]:
        """Measure what was changed; return the fields whose outlines are a person's."""
        self.update()
        names: list[str] = self.field_table.dropna(subset="corrected_in")["micrograph"].tolist()
        return names

    def corrected_outlines(self) -> dict[str, Outlines]:
        """Return the outlines that were changed after they were found, by absolute image paths.

        After an :meth:`update`, with those that a person has found to be right, but without
        `unfinished` ones, of which a warning tells. A ValueError if there are none.
        """
        names, notes = self._corrected(), self.notes_of_edits("not learnt")
        if not names:
            raise ValueError(
                f"{self.path}: no outlines were corrected since they were found; correct those of "
                "a few images, or give the folder of corrected ones"
                + "".join(f"; {note}" for note in notes)
            )
        for note in notes:
            warn_user(f"{self.path}: {note}")
        outlines = {name: self.outlines(name) for name in names}
        wrong = found_tables.wrong_outlines(self.table)
        for name, own in outlines.items():
            outlines[name] = own[~np.isin([each.label for each in own], wrong.pop(name, []))]
        if wrong:
            warn_user(
                f"{self.path}: outlines called {NOT_A_PARTICLE!r} in {name_some(list(wrong))} are "
                "not learnt: remove them there, and add what is missing, as images are learnt whole"
            )
        return {os.path.abspath(self.image(name)): own for name, own in outlines.items()}

    def corrected_files(self) -> dict[str, list[tuple[Path, str]]]:
        """Return the files of outlines that were changed, and their digests, after an `update`."""
        files = {name: self.outlines_file(name) for name in self._corrected()}
        return {name: [(file, file_digest(file))] for name, file in files.items()}

    def replace_outlines(self, micrograph: str, outlines: Outlines) -> None:
        """Write outlines that a person has corrected, and measure them; those before are kept."""
        with exclusive_lock(self.path / LOCK, self.path):
            field = self.by_name.get(micrograph)
            if field is None:
                raise ValueError(
                    f"{self.path}: {micrograph} is no longer there; save them elsewhere"
                )
            check_same_size(outlines, np.empty(field.shape), micrograph)
            self.outline_files.keep_replaced(micrograph)
            self.outline_files.write(micrograph, outlines, field.pixel_size)
            self._update()

    def update(
        self,
        *,
        begin: bool = False,
        earlier: pd.DataFrame | None = None,
        formats: Sequence[str] = (),
        on_error: Literal["raise", "skip"] = "raise",
        verbose: bool = False,
    ) -> list[str]:
        """Measure all outlines that were changed, and write the tables if there are any.

        A particle whose outline is as it was keeps its class and what a person wrote beside it,
        also if another program has given it another number.

        Parameters
        ----------
        begin : bool, default=False
            Begin the table of particles if there is none, and measure all outlines. Otherwise,
            without it, finding was stopped, and that is an error.
        earlier : DataFrame, optional
            The `table` of earlier outlines of these images, from which a table that is begun takes
            what people wrote beside particles that are outlined as they were.
        formats : sequence of {"coco", "geojson", "roi"}, default=()
            As for :func:`find_in_images`, besides those that the folder has.
        on_error : {"raise", "skip"}, default="raise"
            What is done if outlines are damaged or have another size than their image: with "skip",
            they are named in `unreadable`, and their particles stay as they were measured before.
        verbose : bool, default=False
            Show a progress bar.

        Returns
        -------
        list of str
            The fields that had been measured before.

        Warns
        -----
        UserWarning
            If particles that a person had left out or given a class have no such outlines any more,
            or if outlines state another pixel size than their image.
        """
        with exclusive_lock(self.path / LOCK, self.path):
            return self._update(formats, begin, earlier, on_error=on_error, verbose=verbose)

    def _update(
        self,
        formats: Sequence[str] = (),
        begin: bool = False,
        earlier: pd.DataFrame | None = None,
        *,
        on_error: str = "raise",
        verbose: bool = False,
    ) -> list[str]:
        self._forget()
        fields = self.field_table
        begin = begin and not (self.path / PARTICLES).exists()
        before = measure_particles([]) if begin else self.table
        measured = dict(zip(fields["micrograph"], fields["outlines_digest"], strict=True))
        corrected, failed = self.outline_files.take_corrected(
            self.images, self.by_name, measured, before
        )
        if failed and on_error == "raise":
            raise next(iter(failed.values()))
        self.unreadable = {name: str(error) for name, error in failed.items()}
        files = fields["micrograph"].map({name: file.name for name, file in corrected.items()})
        given = np.where(files.notna(), files, fields["corrected_in"])
        fields["corrected_in"] = given.astype(object)
        digests = fields["micrograph"].map(self.outline_files.digest)
        # All, if a person has deleted the table of particles.
        is_new = digests.notna() & (begin | (digests != fields["outlines_digest"]))
        has_correction = fields["corrected_in"].notna()
        is_again = is_new & (not begin) & fields["outlines_digest"].notna()
        chosen = fields["micrograph"][is_new & ~fields["micrograph"].isin(self.unreadable)]
        is_gone, gone = ~before["micrograph"].isin(fields["micrograph"]), before[:0]
        try:
            gone = found_tables.read_gone(self.gone_particles, before)
        except ValueError as error:
            if is_gone.any() or not chosen.isin(before["micrograph"]).all():
                raise
            warn_user(f"not needed now, so left as it is: {error}")
        known = found_tables.joined([before if earlier is None or not begin else earlier, gone])
        old = dict(list(known.groupby("micrograph")))
        tables, lost, others = dict[str, Any](), dict[str, int](), list[str]()
        for row, name in ProgressBar(
            chosen.items(), total=len(chosen), unit="image", shown=verbose
        ):
            try:
                outlines = self.outlines(name)
                check_same_size(outlines, np.empty(self.by_name[name].shape), name)
                is_ours = self.outline_files.is_as_found(name)  # with a pixel size, for instance
                edges = [] if is_ours else self._edges_of(name, str(fields["annotations"][row]))
            except ImageReadError as error:
                if on_error == "raise":
                    raise
                self.unreadable[name] = str(error)
                continue
            size = self._pixel_size_of(name, outlines)
            if size and abs((outlines.pixel_size or size) / size - 1) > SIZE_TOLERANCE:
                others.append(f"{name} ({outlines.pixel_size:.4g}, not {size:.4g})")
            whole = replace(outlines, pixel_size=size, annotations=edges)
            tables[name], lost[name] = found_tables.measured(whole, name, old.get(name))
            fields.loc[row, "pixel_size_nm"] = size
            if is_again[row] and not (has_correction[row] or is_ours):
                fields.loc[row, "corrected_in"] = self.outlines_file(name).name
        is_done = fields["micrograph"].isin(tables)
        # From before they were read: what another program writes meanwhile is seen next time.
        fields["outlines_digest"] = digests.where(is_done, fields["outlines_digest"])
        marks, is_marked_anew = self.outline_files.marks(), False
        for row, name in fields["micrograph"].items():
            if name in marks and marks[name] != isinstance(fields["corrected_in"][row], str):
                file = self.outlines_file(name).name if marks[name] else None
                fields.loc[row, "corrected_in"], is_marked_anew = file, True
        is_changed = begin or tables or formats or corrected or is_marked_anew
        if is_changed or is_gone.any() or fields["particles"].isna().any():
            own = [before[~before["micrograph"].isin(tables)], *tables.values()]
            gone = found_tables.joined([gone, before[is_gone]])
            is_back = gone["micrograph"].isin([name for name in tables if not lost[name]])
            if is_gone.any():  # first: what people wrote is always in one of the tables
                write_table(self.gone_particles, list(gone), found_tables.as_cells(gone))
            self._write(found_tables.joined(own), formats, list(tables))
            if is_back.any():
                gone = gone[~is_back]
                write_table(self.gone_particles, list(gone), found_tables.as_cells(gone))
        found_tables.warn_of_changes(self.path / PARTICLES, lost, others)
        return [name for name in fields["micrograph"][is_again] if name in tables]

    def classify(self, classifier: Any, *, verbose: bool = False) -> None:
        """Classify all particles, after an :meth:`update`; the tables are written at the end.

        Particles with which the classifier was trained keep the class that they were given then,
        and have the source "training", or "training (review)" if a model had been unsure of them;
        their probabilities are held-out ones. A particle is
        another one once its outline has changed.

        Parameters
        ----------
        classifier : fitted MicrographClassifier
            Or another estimator with ``classes_`` and ``predict_proba``.
        verbose : bool, default=False
            Show a progress bar.

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
            if (self.path / PARTICLES).exists():
                found_tables.check_replaceable(self.path / PARTICLES, self.table)
            for field in self.fields:
                self.image(field.micrograph)  # raises before hours of work
            self._update()
            table = self.table
            proba = np.full((len(table), len(classes)), np.nan)
            known = found_tables.training_labels(classifier)
            given = np.full((2, len(table)), "", "O")
            rows_of = table.groupby("micrograph").indices
            with announced():
                for field in ProgressBar(self.fields, unit="image", shown=verbose):
                    rows = rows_of.get(field.micrograph, [])
                    cut = {each.label: each for each in self.particles(field.micrograph)}
                    numbers = table["particle"].iloc[rows].tolist()
                    if not cut.keys() >= {*numbers}:
                        raise ImageReadError(
                            f"{self.outlines_file(field.micrograph)}: changed while particles were "
                            "classified; repeat the command"
                        )
                    new = dict[int, Particle]()
                    for row, number in zip(rows, numbers, strict=True):
                        if own := known and known.get(cut[number].as_micrograph().digest):
                            *given[:, row], proba[row] = own
                        else:
                            new[row] = cut[number]
                    if new:
                        proba[[*new]] = classifier.predict_proba([*new.values()])
            # Never the matrix of another classifier beside these classes.
            (self.path / CONFUSION).unlink(missing_ok=True)
            answered = found_tables.with_answers(table, classes, proba, given)
            self._write(answered)
            found_tables.warn_of_replaced(self.path / PARTICLES, table, answered)
            found_tables.write_confusion(self.path / CONFUSION, classes, classifier)

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
            table = self.table
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
            n_removed, fields, files = 0, self.field_table, self.outline_files
            for row, name in fields["micrograph"].items():
                own = [number for of_field, number in wrong if of_field == name]
                if own and (n := files.remove(name, self.outlines(name), own)):
                    fields.loc[row, "outlines_digest"] = files.digest(name)
                    n_removed += n
            self._write(found_tables.with_review(table, given)[~is_wrong])
            return int((is_given & ~is_wrong).sum()), n_removed

    def count(
        self,
        rule: str | None = None,
        *,
        edges: Edges = "weight",
        measure: str = "equivalent_diameter",
        corrected: bool = True,
        pixel_size_error: float = 0.0,
        leave_out: Mapping[str, ArrayLike] | None = None,
        on_error: Literal["raise", "skip"] = "raise",
    ) -> FoundCounts:
        """Count the particles of each class and return their sizes, with 95 % intervals.

        Outlines that were changed are measured again first. Notes name images that do not count:
        copies, but in another group, and those without a pixel size where others have one.

        Parameters
        ----------
        rule : str, optional
            Count only particles that meet it, see :func:`match_rule`. Wrong outlines ("not a
            particle") are never counted, unless this is a class of the classifier, nor are
            particles with a 1 in the column ``left_out``.
        edges : {"weight", "leave_out"}, default="weight"
            See :func:`edge_weights`.
        measure : str, default="equivalent_diameter"
            Column for sizes; without its unit, in nanometres if a pixel size is known.
        corrected : bool, default=True
            Correct counts for misclassification, if ``confusion.csv`` allows it, and counts and
            sizes for what finding misses and invents, if `detection` is known.
        pixel_size_error : float, default=0.0
            As in :func:`particle_sizes`.
        leave_out : mapping of array-like of shape (n, 2), optional
            Row and column of a pixel of each particle that counts no more, from now on, by image,
            such as :func:`hypervlad.fibres.read_left_out` reads them.
        on_error : {"raise", "skip"}, default="raise"
            With "skip", fields whose outlines cannot be read are not counted; the notes name them.

        Returns
        -------
        FoundCounts

        Raises
        ------
        ImageReadError
            If outlines are damaged, or have another size than their image; or if those of an image
            with a margin or an information bar were changed, and it is gone.
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
        changed = self.update(on_error=on_error)
        if points:
            self._leave_out(points)
        fields = [field for field in self.fields if field.micrograph not in self.unreadable]
        found = count_found(
            self.table,
            self.field_table,
            fields,
            confusion=self.confusion if self.classes else None,
            rule=rule,
            edges=edges,
            measure=measure,
            corrected=corrected,
            detection=self.detection if corrected else None,
            pixel_size_error=pixel_size_error,
        )
        said = self.field_table.set_index("micrograph")[["note", "doubt"]].astype(object).fillna("")
        # What was doubtful of found outlines is not of those that a person corrected.
        said.loc[[field.micrograph for field in fields if field.by_person], "doubt"] = ""
        of_fields = {field.micrograph: joined_notes(said.loc[field.micrograph]) for field in fields}
        noted = [f"noted while finding: {sentence}" for sentence in sentences_of(of_fields)]
        return found._replace(notes=[*self._notes(changed), *found.notes, *noted])

    # --- internal ------------------------------------------------------------------------------

    def _pixel_size_of(self, name: str, outlines: Outlines) -> float | None:
        """Return the pixel size of an image; that of its outlines counts if it has none."""
        own, known = outlines.pixel_size, self.by_name[name].pixel_size
        if not own or not known or math.isclose(own, known):
            return own or known
        # What the table has may be of earlier outlines.
        given = self.run["pixel_sizes"].get(name) or self.run["pixel_size"]
        options = replace(self.read_options, pixel_size=given or self.read_options.pixel_size)
        try:
            return read_named(self.image(name), options, name).pixel_size or own
        except ImageReadError:  # it is gone
            return known

    def _edges_of(self, name: str, annotations: str) -> list[Annotation]:
        """Find the margins and information bars of an image again, if `annotations` name any.

        No particle that finding left is cut by them, but people outline these, too.
        """
        if not any(kind in annotations for kind in EDGES):
            return []
        image, options = self.image(name), self.read_options
        own = read_named(image, options, name, with_digest=False, with_bars=True, with_marks=True)
        return annotations_of(own, only_edges=True)

    def _leave_out(self, points: Mapping[str, NDArray[np.float64]]) -> None:
        with exclusive_lock(self.path / LOCK, self.path):
            table, names = self.table.copy(), {field.micrograph for field in self.fields}
            for name, own in points.items():
                outlines = self.outlines(name) if name in names else Outlines((0, 0), ())
                chosen = [each.label for each in outlines[marked_outlines(outlines, own, name)]]
                is_it = (table["micrograph"] == name) & table["particle"].isin(chosen)
                table.loc[is_it, "left_out"] = 1
            self._write(table, changed=())

    def _notes(self, changed: Sequence[str]) -> list[str]:
        notes = []
        names = self.field_table["micrograph"]
        if missing := [name for name in names if not self.outlines_file(name).exists()]:
            notes.append(f"no outlines of {name_some(missing)} are there any more")
        notes += [f"left out while finding: {why}" for why in self.run.get(LEFT_OUT, ())]
        if self.unreadable:
            reasons = "; ".join(self.unreadable.values())
            notes.append(f"not counted as they cannot be read: {reasons}")
        notes += self.notes_of_edits("outlines that a person drew count like found ones")
        if changed:
            notes.append(
                f"{verb(len(changed), 'the outlines', 'outlines')} of {name_some(changed)} were "
                "changed after they were measured, and have been measured again"
            )
        return notes

    def _write(
        self, table: pd.DataFrame, formats: Sequence[str] = (), changed: Sequence[str] | None = None
    ) -> None:
        """Write the tables, that of fields last: it says that the others are complete."""
        fields = self.field_table
        names, table = fields["micrograph"].tolist(), found_tables.in_order(table, fields)
        of_field = dict(list(table.groupby("micrograph")))
        there = [name for name in names if self.outlines_file(name).exists()]
        there = [name for name in there if name not in self.unreadable]
        anew = there if formats or changed is None else [n for n in there if n in changed]
        self.outline_files.write_formats(
            lambda name: (self.outlines(name), of_field.get(name, table[:0])), anew, there, formats
        )
        write_table(self.path / PARTICLES, list(table), found_tables.as_cells(table))
        fields["particles"] = [len(of_field.get(name, ())) for name in names]
        n_removed = self.outline_files.n_removed
        fields["removed"] = [n_removed(name, self.by_name[name].shape) for name in names]
        write_table(self.path / FIELDS, list(fields), found_tables.as_cells(fields))
        self._forget()
