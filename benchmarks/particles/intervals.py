"""Do intervals of counts and sizes contain what hand outlines say, in fields that were not learnt?

    python -m benchmarks.particles.intervals --data ../shared/data/particles

Models learn ten of the fields and measure sets of the others, corrected by their own held-out
fields, and without that. `find_particles` learns none, and its intervals are from what is doubtful.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.common.checkpoints import load_or_run
from benchmarks.common.program import add_network, new_parser, parse
from benchmarks.common.results import RESULTS, Facts, origin, save_result
from benchmarks.common.tables import table
from benchmarks.particles.fields import OutlinedFields
from hypervlad import HypercolumnSegmenter
from hypervlad.objects.detection import MIN_AREA
from hypervlad.particles import (
    Detection,
    Field,
    count_particles,
    cut_particles,
    find_particles,
    measure,
    particle_sizes,
)

N_LEARNT, N_SETS = 10, 15  # of the fields by each model; sets of each number of fields
SIZES = (2, 5, 10)
QUANTITIES = ("D10", "D50", "D90", "number")
MEASURES = ["equivalent_diameter_px", "area_px2", "touches_edge", "top", "bottom", "left", "right"]


def outlined(fields: OutlinedFields, seed: int, options: Any) -> dict[str, Any]:
    """Train on ten fields; return the detection, and measures of true and found particles."""
    learnt, others = np.split(
        np.random.default_rng(seed).permutation(len(fields.paths)), [N_LEARNT]
    )
    model = HypercolumnSegmenter(options.backbone, weights=options.weights, random_state=seed)
    model.fit([fields.paths[i] for i in learnt], [fields.labels(i) for i in learnt])
    detection = model.detection_
    measured = [compared(fields, i, model.predict([fields.paths[i]])[0]) for i in others]
    known = {"pairs": detection.pairs.tolist(), "unit": detection.unit}
    return {"detection": known | {"n_fields": detection.n_fields}, "fields": measured}


def compared(fields: OutlinedFields, i: int, found: Any) -> Facts:
    """Return the measures of true and found particles of a field, and how sure these are."""
    range_ = getattr(found, "finding_range", None)
    own = {"name": str(i), "shape": fields.image(i).shape, "range": range_}
    for kind, labels in (("true", fields.labels(i)), ("found", np.asarray(found))):
        table = measure(cut_particles(fields.image(i), labels))
        table = table[table["area_px2"] >= MIN_AREA]  # smaller ones are strays
        own[kind] = table[MEASURES].to_dict("list")
    return own


def answers(chosen: Sequence[Facts], kind: str, detection: Detection | None) -> np.ndarray:
    """Return value, lower and upper end, (4, 3), of the quantities in some fields."""
    fields = [
        Field(each["name"], tuple(each["shape"]), finding_range=each.get("range"))
        for each in chosen
    ]
    tables = [
        pd.DataFrame(each[kind]).assign(
            micrograph=own.micrograph, field_height=own.shape[0], field_width=own.shape[1]
        )
        for each, own in zip(chosen, fields, strict=True)
    ]
    found = pd.concat(tables, ignore_index=True)
    sizes = particle_sizes(found, fields, measure=MEASURES[0], detection=detection).iloc[0]
    counts = count_particles(found, fields, detection=detection).iloc[-1]
    names = ("d10", "d50", "d90")
    rows = [[sizes[f"{name}{end}"] for end in ("", "_low", "_high")] for name in names]
    return np.array([*rows, counts[["count", "low", "high"]]], np.float64)


def coverage(name: str, models: Sequence[Facts]) -> list[Facts]:
    """Return rows of how often intervals hold, and of the mean error, of each quantity."""
    rows, is_trained = [], "detection" in models[0]
    title = "HypercolumnSegmenter" if is_trained else "find_particles"
    for n, is_corrected in itertools.product(SIZES, (False, True) if is_trained else (False,)):
        rng, drawn = np.random.default_rng(n), []
        for model in models:
            fields, detection = model["fields"], None
            if is_corrected:
                known = model["detection"]
                detection = Detection(np.array(known["pairs"]), known["unit"], known["n_fields"])
            for _ in range(N_SETS if n < len(fields) else 1):
                chosen = [fields[k] for k in rng.permutation(len(fields))[:n]]
                truth = answers(chosen, "true", None)[:, 0]
                value, low, high = answers(chosen, "found", detection).T
                # An open end, which is NaN, contains everything.
                drawn.append([~((low > truth) | (high < truth)), value / truth - 1])
        held, error = np.mean(np.array(drawn, np.float64), axis=0).tolist()
        row = {"data": name.upper(), "method": title, "models": len(models) * is_trained, "n": n}
        row |= {"is_corrected": is_corrected}
        rows.append(row | {"held": held, "error": error})
    return rows


def intervals_table(result: Facts) -> str:
    """Return how often intervals hold, beside the mean error."""
    lines = []
    for row in result["rows"]:
        pairs = zip(row["held"], row["error"], strict=True)
        cells = [f"{100 * held:.0f} % ({100 * error:+.0f} %)" for held, error in pairs]
        corrected = "yes" if row["is_corrected"] else "no"
        lines.append([row["data"], row["method"], str(row["n"]), corrected, *cells])
    return table(["images", "method", "fields", "corrected", *QUANTITIES], lines)


def main(argv: Sequence[str] | None = None) -> None:
    out = RESULTS / "particles" / "intervals.json"
    parser = new_parser(__doc__, out, checkpoints="particles", threads=2)
    parser.add_argument("--data", type=Path, required=True, help="folder of the folders of images")
    parser.add_argument("--sets", nargs="+", default=["sem", "tsem"])
    parser.add_argument("--models", type=int, default=6)
    add_network(parser)
    options = parse(parser, argv)
    rows = []
    for name in options.sets:
        fields, models = OutlinedFields.load(options.data / name), []
        for seed in range(options.models):
            settings = {"digest": fields.digest, "backbone": options.backbone, "seed": seed}
            path = options.checkpoints / name / f"intervals-{seed}.json"
            run = functools.partial(outlined, fields, seed, options)
            models.append(load_or_run(path, settings, run))
        found = [find_particles(fields.paths[i]) for i in range(len(fields.paths))]
        untrained = [compared(fields, i, own) for i, own in enumerate(found)]
        # As many sets as of six models.
        rows += coverage(name, [{"fields": untrained}] * 6)
        rows += coverage(name, models) if models else []
    save_result(options.out, {"rows": rows, "origin": origin()})
    print(intervals_table({"rows": rows}))


if __name__ == "__main__":
    main()
