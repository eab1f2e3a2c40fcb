"""Labelled particles: the table of a folder of found particles, with the classes of some."""

from __future__ import annotations

import itertools
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils import Bunch

from hypervlad.common.tables import CHOSEN_SOURCE, MODEL_SOURCE, NUMBER, PERSON_SOURCE
from hypervlad.common.wording import counted, name_some, warn_user
from hypervlad.folders.groups import (
    ImageFolderError,
    ImageFolderWarning,
    alike_classes,
    check_text,
    load_groups,
    read_cells,
)
from hypervlad.images.files import composed
from hypervlad.objects.particle import NOT_A_PARTICLE


class _LabelledRow(NamedTuple):
    line: int
    micrograph: str
    number: int
    label: str
    by_model: bool
    chosen: bool


def is_particle_table(source: Any) -> bool:
    if not (isinstance(source, str | os.PathLike) and os.path.isfile(os.path.expanduser(source))):
        return False
    (_, header), *_ = read_cells(Path(source).expanduser(), "path, label") or [(0, [])]
    return {"micrograph", "particle"} <= {cell.strip() for cell in header}


def labelled_particles(table: Path, groups: str | os.PathLike[str] | None) -> Bunch:
    """Cut out the particles that have a class in a table; see `load_image_folder`.

    Besides, `chosen` are those of a review, and `wrong_outlines` the digests of "not a particle".
    """
    from hypervlad.objects.found_files import PARTICLES, RUN  # not above: importing it takes long
    from hypervlad.objects.found_folder import FoundFolder

    if not (table.parent / RUN).exists():
        raise ImageFolderError(
            f"{table}: a table of particles must lie in their folder, beside {PARTICLES}"
        )
    rows, wrong = defaultdict[str, dict[int, _LabelledRow]](dict), defaultdict[str, set[int]](set)
    for row in _labelled_rows(table):
        if row.label == NOT_A_PARTICLE:
            wrong[row.micrograph].add(row.number)
            continue
        before = rows[row.micrograph].setdefault(row.number, row)
        if before.label != row.label:
            raise ImageFolderError(
                f"{table}: particle {row.number} of {row.micrograph} is {before.label} (line "
                f"{before.line}) and {row.label} (line {row.line}); delete the wrong line"
            )
    found, particles, chosen = FoundFolder(table.parent), [], list[_LabelledRow]()
    for name, own in sorted(rows.items()):
        file, cut = str(found.image(name)), {each.label: each for each in found.particles(name)}
        for number, row in sorted(own.items()):
            if number not in cut:
                raise ImageFolderError(
                    f"{table}, line {row.line}: no outline of {name} has the number {number}; "
                    "delete the line"
                )
            particles.append(replace(cut[number], micrograph=file))
            chosen.append(row)
    labels = [row.label for row in chosen]
    if alike := alike_classes(labels):
        warn_user(
            f"{table}: classes that differ only in capitals: {name_some(alike)}", ImageFolderWarning
        )
    if len(set(labels)) < 2:
        raise ImageFolderError(
            f"{table}: particles of {counted(len(set(labels)), 'class')}; expected two at least in "
            "the column class"
        )
    of_field = dict(zip(rows, rows, strict=True))
    if groups is not None:
        own_groups = load_groups([found.image(name) for name in rows], found.images, groups)
        of_field = dict(zip(rows, own_groups, strict=True))
    return Bunch(
        images=particles,
        target=np.array(labels),
        groups=np.array([of_field[row.micrograph] for row in chosen]),
        by_model=np.array([row.by_model for row in chosen]),
        chosen=np.array([row.chosen for row in chosen]),
        wrong_outlines=[
            own.as_micrograph().digest
            for name, numbers in wrong.items()
            for own in found.particles(name)
            if own.label in numbers
        ],
        target_names=sorted(set(labels)),
        root=str(found.images),
    )


def _labelled_rows(table: Path) -> Iterator[_LabelledRow]:
    """Yield the rows with a class; warn of the others, and of wrong outlines."""
    (_, header), *lines = read_cells(table, "path, label")
    names = [cell.strip() for cell in header]
    if "class" not in names:
        raise ImageFolderError(
            f"{table}: no column is called class; add it, and fill in the class of some particles"
        )
    left_out = Counter[str]()
    for line, cells in lines:
        cell = dict(itertools.zip_longest(names, cells[: len(names)], fillvalue=""))
        label = composed(cell["class"].strip())
        if not label or label.casefold() == NOT_A_PARTICLE:
            label = label.casefold()
            left_out[label] += 1
            if not label:
                continue
        check_text(table, line, label)
        # Pandas writes 1.0 where a cell of the column was empty.
        whole = re.fullmatch(r"(\d+)(\.0)?", cell["particle"].strip())
        if whole is None:
            raise ImageFolderError(f"{table}, line {line}: no particle {cell['particle']!r}")
        # Spreadsheets may write decimal commas; other text is no probability.
        texts = {key[2:]: text.replace(",", ".") for key, text in cell.items() if key[:2] == "p_"}
        proba = {key: float(text) for key, text in texts.items() if NUMBER.fullmatch(text)}
        by_model = bool(proba) and proba.get(label) == max(proba.values())
        if source := cell.get("source"):  # of a review
            by_model = source == MODEL_SOURCE
        chosen = source in (PERSON_SOURCE, CHOSEN_SOURCE)
        yield _LabelledRow(line, cell["micrograph"], int(whole[1]), label, by_model, chosen)
    for label, n in left_out.items():
        which = f"called {label!r}" if label else "without a class"
        warn_user(f"{table}: {counted(n, 'outline')} {which} left out", ImageFolderWarning)
