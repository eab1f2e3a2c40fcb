"""Write the tables of the pages from the stored results; no figure is typed by hand.

python -m benchmarks.tables            # rewrite the tables
python -m benchmarks.tables --check    # fail if a page differs from the results
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.accuracy import tables as accuracy
from benchmarks.accuracy.curve import curve_section
from benchmarks.alignment import __main__ as alignment
from benchmarks.common.results import BENCHMARKS, RESULTS, Facts, load_result, measured_line
from benchmarks.common.tables import table, times, with_tables
from benchmarks.defects import tables as defects
from benchmarks.defects.wide import wide_table
from benchmarks.fibres import __main__ as fibres
from benchmarks.fibres import pores, singles
from benchmarks.particles import __main__ as outlines
from benchmarks.particles import classes, corrections, cost, edges, faults, intervals, looks
from benchmarks.scale_bars import __main__ as scale_bars
from benchmarks.speed import gpu
from benchmarks.speed import tables as speed
from benchmarks.uncertainty.tables import front_sentence, uncertainty_table

ROOT = BENCHMARKS.parent


def of_one(
    path: str, text: Callable[[Facts], str], *, labelled: bool = True, part: str = ""
) -> str:
    """Return the table of one stored result or part of it, with the state of the code."""
    facts = load_result(RESULTS / path)
    facts = facts[part] if part else facts
    return f"{text(facts)}\n\n{measured_line(facts)}" if labelled else text(facts)


def of_all(pattern: str, text: Callable[[list[Facts]], str], *, labelled: bool = True) -> str:
    """Return the table of all stored results whose path matches a pattern."""
    results = [load_result(path) for path in sorted(RESULTS.glob(pattern))]
    return f"{text(results)}\n\n{measured_line(*results)}" if labelled else text(results)


def front_figures() -> str:
    """Return what the README shows: six figures beside the usual alternatives."""
    means = {
        row["method"]: row
        for row in load_result(RESULTS / "accuracy" / "accuracy_mobilenet_v2.json")["means"]
    }
    default, plain = means[accuracy.DEFAULT], means["last layer pooled + logistic regression"]
    scaled = means["default vectors + temperature-scaled logistic regression"]
    surface = load_result(RESULTS / "defects" / "defects_magnetic_tile.json")
    found, located = (
        {row["method"]: np.mean(row[name]) for row in surface["rows"]}
        for name in ("image_auroc", "pixel_average_precision")
    )
    kinds = load_result(RESULTS / "defects" / "kinds_magnetic_tile.json")
    worst = {
        row["method"]: defects.mean_and_worst(row["image_auroc"])[1]
        for row in defects.rows_of_most_images(kinds)
    }
    ms = load_result(RESULTS / "speed" / "encoding_cpu.json")["rows"][0]["ms"]
    rows = [
        (
            "accuracy, mean of three real sets",
            f"{default['accuracy']:.3f}",
            f"{plain['accuracy']:.3f}",
            "logistic regression on the same network's averages",
        ),
        (
            "log-loss, the same",
            f"{default['log_loss']:.3f}",
            f"{plain['log_loss']:.3f}",
            f"on hypervlad's vectors, with a temperature: accuracy {scaled['accuracy']:.3f}, "
            f"log-loss {scaled['log_loss']:.3f}",
        ),
        (
            "defects of magnetic tiles, image AUROC",
            f"{found['hypervlad, good images']:.3f}",
            f"{found['PatchCore']:.3f}",
            "PatchCore on the same network",
        ),
        (
            "where they are, pixel average precision",
            f"{located['hypervlad, good images']:.3f}",
            f"{located['PatchCore']:.3f}",
            "PatchCore",
        ),
        (
            "the worst of nine kinds of defects there, image AUROC",
            f"{worst['hypervlad']:.3f}",
            f"{worst['PatchCore']:.3f}",
            "PatchCore; 0.5 is chance",
        ),
        (
            "every pixel of a 224 px image, in passes of the network",
            times(ms, "image", "network"),
            times(ms, "naive", "network"),
            "all channels enlarged to all pixels",
        ),
    ]
    return table(["", "hypervlad", "the usual alternative", ""], rows)


def pages() -> dict[Path, dict[str, str]]:
    """Return every table by its page and name."""
    encoding = "speed/encoding_cpu.json"
    return {
        ROOT / "README.md": {"figures": front_figures()},
        ROOT / "docs" / "benchmarks" / "scaling.md": {
            "cost": of_one("speed/extraction_cpu.json", speed.cost_table),
        },
        BENCHMARKS / "speed" / "README.md": {
            "in-short": of_one(encoding, lambda f: speed.front_sentence(f["rows"]), labelled=False),
            "speed": of_one(encoding, lambda facts: speed.speed_table(facts["rows"])),
            "fast": of_one(encoding, lambda facts: speed.fast_table(facts["rows"])),
            "calls": of_one(encoding, lambda f: speed.calls_table(f["ms"]), part="calls"),
            "memory": of_one(encoding, lambda facts: speed.memory_table(facts["rows"])),
            "first-minutes": of_one("speed/first_minutes.json", speed.first_minutes_table),
            "large-images": of_one("speed/large_images.json", speed.large_images_table),
            "fitting": of_one("speed/fitting.json", speed.fitting_table),
            "gpu-networks": of_one("speed/gpu.json", gpu.networks_table),
            "gpu-fit": of_one("speed/gpu.json", speed.fitting_table, part="fit"),
            "gpu-tasks": of_one("speed/gpu.json", gpu.tasks_table),
            "scale": of_one("speed/extraction_cpu.json", speed.scale_section),
        },
        BENCHMARKS / "accuracy" / "README.md": {
            "compare": of_one(
                "accuracy/accuracy_mobilenet_v2.json", accuracy.front_table, labelled=False
            ),
            "accuracy": of_all(
                "accuracy/accuracy_*.json", accuracy.accuracy_tables, labelled=False
            ),
            "curve": of_one("accuracy/curve.json", curve_section),
        },
        BENCHMARKS / "uncertainty" / "README.md": {
            "sets": of_one("uncertainty/uncertainty.json", front_sentence, labelled=False),
            "uncertainty": of_one("uncertainty/uncertainty.json", uncertainty_table),
        },
        BENCHMARKS / "defects" / "README.md": {
            "found": of_all("defects/defects_*.json", defects.front_table, labelled=False),
            "defects": of_all("defects/defects_*.json", defects.defects_section),
            "kinds": of_all("defects/kinds_*.json", defects.kinds_section),
            "wide": of_all("defects/wide_*.json", wide_table),
        },
        BENCHMARKS / "scale_bars" / "README.md": {
            "scale-bars": of_one("scale_bars/scale_bars.json", scale_bars.found_table),
            "scale-bars-invented": of_one(
                "scale_bars/scale_bars.json", scale_bars.invented_table, labelled=False
            ),
            "annotations": of_one("scale_bars/annotations.json", scale_bars.annotations_table),
            "scale-bars-labels": of_one(
                "scale_bars/scale_bars.json", scale_bars.labels_table, labelled=False
            ),
        },
        BENCHMARKS / "fibres" / "README.md": {
            "fibres": of_one("fibres/fibres.json", fibres.factor_table),
            "fibres-unresolved": of_one(
                "fibres/fibres.json", fibres.unresolved_table, labelled=False
            ),
            "fibres-kinds": of_one("fibres/fibres.json", fibres.kinds_table, labelled=False),
            "fibres-views": of_one("fibres/fibres.json", fibres.views_table, labelled=False),
            "fibres-singles": of_one("fibres/singles.json", singles.singles_table),
            "fibres-confidence": of_one(
                "fibres/singles.json", singles.confidence_table, labelled=False
            ),
            "fibres-textures": of_one(
                "fibres/singles.json", singles.textures_table, labelled=False
            ),
            "fibres-pores": of_one("fibres/pores.json", pores.pores_table),
        },
        BENCHMARKS / "alignment" / "README.md": {
            "alignment": of_one("alignment/alignment.json", alignment.alignment_table),
        },
        BENCHMARKS / "particles" / "README.md": {
            "outlines": of_one("particles/outlines.json", outlines.outlines_table),
            "outlines-curve": of_one(
                "particles/outlines.json", outlines.curve_table, labelled=False
            ),
            "intervals": of_one("particles/intervals.json", intervals.intervals_table),
            "looks": of_one("particles/looks.json", looks.looks_table),
            "corrections": of_one("particles/corrections.json", corrections.corrections_table),
            "cost": of_one("particles/cost.json", cost.cost_table),
            "edges": of_one("particles/edges.json", edges.edges_table),
            "faults": of_one("particles/faults.json", faults.faults_table),
            "faults-learnt": of_one("particles/faults_learnt.json", faults.learnt_table),
            "particle-classes": of_one("particles/classes.json", classes.classes_table),
        },
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail on a difference")
    check = parser.parse_args(argv).check
    stale = []
    for page, tables in pages().items():
        before = page.read_text(encoding="utf-8")
        try:
            after = with_tables(before, tables)
        except ValueError as error:
            sys.exit(f"{page.relative_to(ROOT)}: {error}")
        if before != after:
            stale.append(page.relative_to(ROOT).as_posix())
            if not check:
                page.write_text(after, encoding="utf-8", newline="\n")
    if check and stale:
        sys.exit(f"stale tables in {', '.join(stale)}: run python -m benchmarks.tables")


if __name__ == "__main__":
    main()
