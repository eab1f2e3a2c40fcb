"""Write the tables of the pages from the stored results; no figure is typed by hand.

python -m benchmarks.tables            # rewrite the tables
python -m benchmarks.tables --check    # fail if a page differs from the results
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accuracy.curve import curve_section
from benchmarks.accuracy.rare import rare_section
from benchmarks.accuracy.tables import (
    DEFAULT,
    LAYOUT,
    accuracy_section,
)
from benchmarks.accuracy.tables import front_table as front_accuracy
from benchmarks.alignment import tables as alignment
from benchmarks.common.results import BENCHMARKS, RESULTS, load_result, measured_line
from benchmarks.common.tables import NOT_YET, table, times, with_tables
from benchmarks.copies.tables import changes_table, cost_table, found_table
from benchmarks.defects import tables as defects
from benchmarks.networks.accuracy import networks_table
from benchmarks.networks.agreement import agreement_table
from benchmarks.networks.cost import cost_table as cost_table_of_networks
from benchmarks.networks.defects import networks_defects_table
from benchmarks.papers import carrillo2020
from benchmarks.papers.luo2021.tables import experiment_table, stages_table
from benchmarks.papers.modarres2017.tables import comparison
from benchmarks.speed import tables as speed
from benchmarks.uncertainty.sure import sure_table
from benchmarks.uncertainty.tables import front_sentence, novelty_section, uncertainty_table

ROOT = BENCHMARKS.parent
ACCURACY_OF = ("mobilenet_v2", "vgg16")  # networks of the accuracy benchmark
Facts = dict[str, Any]


def of_one(path: str, table: Callable[[Facts], str], *, labelled: bool = True) -> str:
    """Return the table of one stored result, with the state of the code that it is of."""
    if not (RESULTS / path).exists():
        return NOT_YET
    facts = load_result(RESULTS / path)
    return f"{table(facts)}\n\n{measured_line(facts)}" if labelled else table(facts)


def of_all(pattern: str, table: Callable[[list[Facts]], str], *, labelled: bool = True) -> str:
    """Return the table of all stored results whose path matches a pattern."""
    results = [load_result(path) for path in sorted(RESULTS.glob(pattern))]
    if not results:
        return NOT_YET
    return f"{table(results)}\n\n{measured_line(*results)}" if labelled else table(results)


def accuracy_results() -> list[Facts]:
    """Return the stored results of the accuracy benchmark, the default network's first."""
    files = sorted(
        RESULTS.glob("accuracy/accuracy_*.json"), key=lambda f: ("mobilenet" not in f.name, f.name)
    )
    stored = [load_result(file) for file in files]
    for file, facts in zip(files, stored, strict=True):
        if facts.get("layout") != LAYOUT:
            sys.exit(
                f"{file.name} has another layout ({facts.get('layout')}, not {LAYOUT}): run "
                "`python -m benchmarks.accuracy` again, or remove the file"
            )
    return [_largest_first(facts) for facts in stored]


def _largest_first(facts: Facts) -> Facts:
    """Sort the data sets by size, whatever the order in which they were measured."""
    names = sorted(facts["sets"], key=lambda name: -facts["sets"][name]["n"])
    rows = sorted(facts["rows"], key=lambda row: names.index(row["data"]))
    return facts | {"sets": {name: facts["sets"][name] for name in names}, "rows": rows}


def accuracy_tables(stored: list[Facts]) -> str:
    """Return the tables of every network, each with the state of the code that it is of."""
    sections = [f"{accuracy_section(facts)}\n\n{measured_line(facts)}" for facts in stored]
    known = {facts["backbone"] for facts in stored}
    sections += [f"**{name}**: {NOT_YET.lower()}" for name in ACCURACY_OF if name not in known]
    return "\n\n".join(sections)


def front_figures() -> str:
    """Return what the README shows: five figures beside the usual alternatives."""
    paths = [
        RESULTS / "accuracy" / "accuracy_mobilenet_v2.json",
        RESULTS / "defects" / "defects_magnetic_tile.json",
        RESULTS / "defects" / "kinds_magnetic_tile.json",
        RESULTS / "speed" / "encoding_cpu.json",
    ]
    if not all(path.exists() for path in paths):
        return NOT_YET
    accuracy, surface, kinds, encoding = map(load_result, paths)
    means = {row["method"]: row for row in accuracy["means"]}
    default, plain = means[DEFAULT], means["last layer pooled + logistic regression"]
    scaled = means["default vectors + temperature-scaled logistic regression"]
    found = {row["method"]: row for row in surface["rows"]}
    most = max(row["n_train"] for row in kinds["rows"])
    worst = {
        row["method"]: defects.mean_and_worst(row["image_auroc"])[1]
        for row in kinds["rows"]
        if row["n_train"] == most
    }
    ms = encoding["rows"][0]["ms"]
    ours, patchcore = found["hypervlad, good images"], found["PatchCore"]
    return table(
        ["", "hypervlad", "the usual alternative", ""],
        [
            [
                "accuracy, mean of three real sets",
                f"{default['accuracy']:.3f}",
                f"{plain['accuracy']:.3f}",
                "logistic regression on the same network's averages",
            ],
            [
                "log-loss, the same",
                f"{default['log_loss']:.3f}",
                f"{plain['log_loss']:.3f}",
                f"on hypervlad's vectors, with a temperature: accuracy {scaled['accuracy']:.3f}, "
                f"log-loss {scaled['log_loss']:.3f}",
            ],
            [
                "defects of magnetic tiles, image AUROC",
                f"{np.mean(ours['image_auroc']):.3f}",
                f"{np.mean(patchcore['image_auroc']):.3f}",
                "PatchCore on the same network",
            ],
            [
                "the worst of nine kinds of defects there",
                f"{worst['hypervlad']:.3f}",
                f"{worst['PatchCore']:.3f}",
                "PatchCore; 0.5 is chance",
            ],
            [
                "every pixel of a 224 px image, in passes of the network",
                times(ms, "image", "network"),
                times(ms, "naive", "network"),
                "all channels enlarged to all pixels",
            ],
        ],
    )


def pages() -> dict[Path, dict[str, str]]:
    """Return every table by its page and name."""
    accuracy = accuracy_results()
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
            "memory": of_one(encoding, lambda facts: speed.memory_table(facts["rows"])),
            "first-minutes": of_one("speed/first_minutes.json", speed.first_minutes_table),
            "large-images": of_one("speed/large_images.json", speed.large_images_table),
            "fitting": of_one("speed/fitting.json", speed.fitting_table),
            "scale": of_one("speed/extraction_cpu.json", speed.scale_section),
        },
        BENCHMARKS / "accuracy" / "README.md": {
            "compare": front_accuracy(accuracy[0]) if accuracy else NOT_YET,
            "accuracy": accuracy_tables(accuracy),
            "curve": of_one("accuracy/curve.json", curve_section),
            "rare": of_one("accuracy/rare.json", rare_section),
        },
        BENCHMARKS / "uncertainty" / "README.md": {
            "sets": of_one("uncertainty/uncertainty.json", front_sentence, labelled=False),
            "uncertainty": of_one("uncertainty/uncertainty.json", uncertainty_table),
            "sure": of_one("uncertainty/sure.json", sure_table),
            "novelty": of_one("uncertainty/novelty.json", novelty_section),
        },
        BENCHMARKS / "defects" / "README.md": {
            "found": of_all("defects/defects_*.json", defects.front_table, labelled=False),
            "defects": of_all("defects/defects_*.json", defects.defects_section),
            "kinds": of_all("defects/kinds_*.json", defects.kinds_section),
            "unseen": of_all("defects/unseen_*.json", defects.unseen_section),
            "map-speed": of_one("defects/speed.json", defects.speed_table),
        },
        BENCHMARKS / "networks" / "README.md": {
            "networks": of_one("networks/accuracy.json", networks_table),
            "networks-defects": of_all("networks/variants_*.json", networks_defects_table),
            "networks-agreement": of_one("networks/agreement.json", agreement_table),
            "networks-cost": of_one("networks/cost.json", cost_table_of_networks),
        },
        BENCHMARKS / "copies" / "README.md": {
            "copies": of_all("copies/found_*.json", found_table),
            "copies-changes": of_all("copies/found_*.json", changes_table),
            "copies-cost": of_all("copies/cost_*.json", cost_table),
        },
        BENCHMARKS / "alignment" / "README.md": {
            "alignment": of_one("alignment/alignment.json", alignment.alignment_section),
            "alignment-hard": of_one("alignment/alignment.json", alignment.hard_section),
            "alignment-clean": of_one("alignment/alignment.json", alignment.clean_section),
            "alignment-speed": of_one("alignment/speed.json", alignment.speed_table),
        },
        BENCHMARKS / "papers" / "README.md": {
            "luo2021": of_all("papers/luo2021_*.json", experiment_table),
            "luo2021-stages": of_all("papers/luo2021_*.json", stages_table),
            "modarres2017": of_all("papers/modarres2017_*.json", comparison),
            "carrillo": of_one("papers/carrillo2020.json", carrillo2020.result_table),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail on a difference")
    check = parser.parse_args().check
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
