"""Are particles outlined? Beside random forests of pixels, and by the number of outlined images.

    python -m benchmarks.particles --data ../shared/data/particles

Folders with images/* and outlines/* are tested in four folds of images, and on some of these also
after learning from fewer images.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.common.program import add_network, new_parser, parse
from benchmarks.common.results import RESULTS, Facts, origin, save_result
from benchmarks.common.tables import table, with_interval
from benchmarks.particles.fields import N_FOLDS, OutlinedFields
from benchmarks.particles.methods import METHODS
from hypervlad.evaluation import OutlineTally

CURVE = (1, 3, 5)
SCORES = {
    "image_iou": "image IoU",
    "f1": "F1 at IoU 0.5",
    "number_ratio": "number, found by true",
    "diameter_ratio": "median diameter, found by true",
}


def measure(
    fields: OutlinedFields, title: str, n_train: int, n_folds: int, options: Any
) -> dict[str, Any]:
    """Return the scores of one method over the test images of some folds."""
    tally = OutlineTally()
    for fold in range(n_folds):
        for i, labels in fields.found(title, fold, n_train, options).items():
            tally.add(fields.labels(i), labels)
    scores, intervals = tally.scores(), tally.intervals()
    print(f"{fields.name}, {title}, {n_train} images: F1 {scores['f1']:.3f}", flush=True)
    row = {"data": fields.name.upper(), "method": title, "n_train": n_train, "scores": scores}
    return row | {"intervals": {name: intervals[name] for name in SCORES}}


def outlines_table(result: Facts) -> str:
    """Return the scores of all methods after learning from all images of the other folds."""
    lines = [
        [
            row["data"],
            row["method"],
            *(with_interval(row["scores"][name], row["intervals"][name], ".2f") for name in SCORES),
        ]
        for row in result["whole"]
    ]
    return table(["images", "method", *SCORES.values()], lines)


def curve_table(result: Facts) -> str:
    """Return F1 and image IoU by the number of images to learn from."""
    sizes = sorted({row["n_train"] for row in result["curve"]})
    cells: dict[tuple[str, str], list[str]] = {}
    for row in sorted(result["curve"], key=lambda row: row["n_train"]):
        cell = f"{row['scores']['f1']:.2f} / {row['scores']['image_iou']:.2f}"
        cells.setdefault((row["data"], row["method"]), []).append(cell)
    heads = [f"{n} image{'s' * (n > 1)}" for n in sizes]
    return table(["images", "method", *heads], [[*key, *own] for key, own in cells.items()])


def main(argv: Sequence[str] | None = None) -> None:
    out = RESULTS / "particles" / "outlines.json"
    parser = new_parser(__doc__, out, checkpoints="particles", threads=2)
    parser.add_argument("--data", type=Path, required=True, help="folder of the folders of images")
    parser.add_argument("--sets", nargs="+", default=["sem", "tsem"])
    parser.add_argument("--curve-folds", type=int, default=2, help="folds with fewer images")
    add_network(parser)
    options = parse(parser, argv)
    whole, curve = [], []
    for name in options.sets:
        fields = OutlinedFields.load(options.data / name)
        n_all = min(len(train) for train, _ in fields.folds())
        whole += [measure(fields, title, n_all, N_FOLDS, options) for title in METHODS]
        curve += [
            measure(fields, title, n, options.curve_folds, options)
            for title in list(METHODS)[1:]  # the first learns nothing
            for n in (*CURVE, n_all)
        ]
    result = {"whole": whole, "curve": curve, "curve_folds": options.curve_folds}
    save_result(options.out, result | {"origin": origin()})
    print(outlines_table(result), curve_table(result), sep="\n\n")


if __name__ == "__main__":
    main()
