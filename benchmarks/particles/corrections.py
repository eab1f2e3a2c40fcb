"""What do corrections of found outlines cost a person, and what are they worth?

    python -m benchmarks.particles.corrections --data ../shared/data/particles

A person corrects fields one after the other until their outlines are those drawn by hand, and
learns from them: the first has what `find_particles` found, later ones what the last model found.
Edits are those of the page, as few as its tools need.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.common.program import add_network, new_parser, parse
from benchmarks.common.results import RESULTS, Facts, origin, save_result
from benchmarks.common.tables import table
from benchmarks.particles.fields import OutlinedFields
from benchmarks.particles.methods import METHODS, SEGMENTER
from hypervlad.evaluation import OutlineTally

UNTRAINED = next(iter(METHODS))
CORRECTED = (0, 1, 2, 5, 10)  # fields, after which a person learns
# Seconds: to find a place and point there, and to press a key, are those of Card, Moran and Newell
# 1980 ("The keystroke-level model", Comm. ACM 23); a stroke around a particle is a guess.
CHOOSE, KEY, SPLIT, OUTLINE = 2.65, 0.28, 2.2, 8.0


class Edits(NamedTuple):
    """The number of edits of each kind, and of the outlines that are chosen to be joined."""

    deleted: int
    drawn: int
    redrawn: int
    split: int
    merged: int
    joined: int

    @property
    def clicks(self) -> int:
        return self.deleted + self.redrawn + self.split + self.joined

    @property
    def strokes(self) -> int:
        return self.drawn + self.redrawn + self.split

    @property
    def seconds(self) -> float:
        keys = self.deleted + self.merged + self.strokes
        outlines = OUTLINE * (self.drawn + self.redrawn)
        return CHOOSE * self.clicks + KEY * keys + SPLIT * self.split + outlines


def edits_of(found: np.ndarray, true: np.ndarray) -> Edits:
    """Return the edits that make found label images (H, W) true ones.

    What covers more than half of several true particles is split; what lies by more than half in
    one is joined, unless one of these is right (IoU above 0.5): then the others are deleted.
    """
    shape = found.max() + 1, true.max() + 1
    both = np.zeros(shape)
    np.add.at(both, (found.ravel(), true.ravel()), 1)
    sizes, true_sizes = both.sum(axis=1)[1:, None], both.sum(axis=0)[None, 1:]
    both = both[1:, 1:]
    is_right = both > 0.5 * (sizes + true_sizes - both)
    is_part, covers = both > 0.5 * sizes, both > 0.5 * true_sizes
    n_covered = covers.sum(axis=1)
    in_group = covers[n_covered > 1].any(axis=0)
    deleted = drawn = redrawn = merged = joined = 0
    for own in np.flatnonzero((true_sizes[0] > 0) & ~in_group):
        is_in = is_part[:, own]
        n_parts, n_around = int(is_in.sum()), int((covers[:, own] & ~is_in).sum())
        if is_right[:, own].any():
            deleted += int((is_in & ~is_right[:, own]).sum())
        elif n_parts > 1:
            merged, joined, deleted = merged + 1, joined + n_parts, deleted + n_around
        elif n_parts or n_around:
            redrawn, deleted = redrawn + 1, deleted + n_parts + n_around - 1
        else:
            drawn += 1
    is_alone = ~(is_right | is_part | covers).any(axis=1) & (sizes[:, 0] > 0)
    in_split = is_part[:, in_group] & ~covers[:, in_group]  # beside what is split
    deleted += int(is_alone.sum() + (in_split.any(axis=1) & (n_covered < 2)).sum())
    split = int((n_covered[n_covered > 1] - 1).sum())
    return Edits(deleted, drawn, redrawn, split, merged, joined)


def measure(fields: OutlinedFields, n_corrected: int, options: Any) -> Facts:
    """Return F1 of a model of so many fields, and the edits of each field that it searches."""
    title = SEGMENTER if n_corrected else UNTRAINED
    tally, edits, n_true = OutlineTally(), list[Edits](), list[int]()
    for fold in range(options.folds):
        for i, labels in fields.found(title, fold, n_corrected, options).items():
            true = fields.labels(i)
            tally.add(true, labels)
            edits.append(edits_of(labels, true))
            n_true.append(int(np.count_nonzero(np.bincount(true.ravel())[1:])))
    row = {"data": fields.name.upper(), "corrected": n_corrected, "f1": tally.scores()["f1"]}
    counts = dict(zip(Edits._fields, np.mean(edits, axis=0).tolist(), strict=True))
    each = [(own.clicks, own.strokes, own.seconds / 60) for own in edits]
    clicks, strokes, minutes = np.mean(each, axis=0).tolist()
    print(row, counts, flush=True)
    row |= {"clicks": clicks, "strokes": strokes, "minutes": minutes}
    outlining = float(np.mean(n_true)) * (OUTLINE + KEY) / 60
    return row | {"edits": counts, "outlining": outlining}


def corrections_table(result: Facts) -> str:
    """Return what fields cost until a model has learnt from them, and its F1 in other fields."""
    lines = []
    for name in dict.fromkeys(row["data"] for row in result["rows"]):
        rows = [row for row in result["rows"] if row["data"] == name]
        sums = np.zeros(4)
        for before, row in pairwise([None, *rows]):
            if before is not None:
                n = row["corrected"] - before["corrected"]
                own = (before[k] for k in ("clicks", "strokes", "minutes", "outlining"))
                sums += n * np.fromiter(own, float)
            figures = [f"{each:.0f}" for each in sums]
            lines.append([name, str(row["corrected"]), f"{row['f1']:.2f}", *figures])
    heads = ["images", "fields corrected", "F1 in others", "clicks", "strokes", "minutes"]
    return table([*heads, "minutes from nothing"], lines)


def main(argv: Sequence[str] | None = None) -> None:
    out = RESULTS / "particles" / "corrections.json"
    parser = new_parser(__doc__, out, checkpoints="particles", threads=2)
    parser.add_argument("--data", type=Path, required=True, help="folder of the folders of images")
    parser.add_argument("--sets", nargs="+", default=["sem", "tsem"])
    parser.add_argument("--folds", type=int, default=2)
    add_network(parser)
    options = parse(parser, argv)
    sets = [OutlinedFields.load(options.data / name) for name in options.sets]
    rows = [measure(fields, n, options) for fields in sets for n in CORRECTED]
    result = {"rows": rows, "origin": origin()}
    save_result(options.out, result)
    print(corrections_table(result))


if __name__ == "__main__":
    main()
