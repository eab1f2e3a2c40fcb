"""Tables of the 2021 experiment, made from the stored results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.papers.luo2021.methods import BASELINES, CLASSIFIERS
from benchmarks.papers.luo2021.stages import NETWORK, READING, STAGES


def experiment_table(results: list[dict[str, Any]]) -> str:
    """Return one row per method, split and size, after the row of the paper."""
    lines = [
        "| images | classes | split | method | accuracy | fit | fit, cached | predict, per image "
        "| cached | peak of memory |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        paper, n_classes = result["paper"], len(result["classes"])
        baseline = paper["baseline"]
        other = f"; its fc2 baseline {100 * baseline:.1f} %" if baseline else ""
        lines.append(
            f"| 5,323, the paper's own | {n_classes} | random | *the paper* "
            f"| *{100 * paper['accuracy']:.1f} %{other}* | *{paper['fit_hours']} h "
            f"({paper['fit_images']:,} images)* | | *{paper['image_seconds']} s* | | |"
        )
        lines += [_line(result, row) for row in result["rows"]]
    known = {row["method"] for result in results for row in result["rows"]}
    missing = [method for method in (*CLASSIFIERS, *BASELINES) if method not in known]
    if missing:
        lines += ["", f"Not measured yet: {', '.join(missing)}."]
    return "\n".join(lines)


def _line(result: dict[str, Any], row: dict[str, Any]) -> str:
    data = f"{row['n_images']:,} {'**synthetic**' if result['synthetic'] else result['data']}"
    accuracy = accuracy_in_words(row)
    peak = "–" if row["peak_mb"] is None else f"{row['peak_mb'] / 1000:.1f} GB"
    cells = [data, str(len(result["classes"])), row["split"], row["label"], accuracy]
    cells += [f"{duration(row['fit_seconds'])} ({row['n_train']:,} images)"]
    cells += [duration(row["cached_fit_seconds"]), f"{row['image_seconds']:.3f} s"]
    cells += [f"{row['cached_image_seconds']:.3f} s", peak]
    return f"| {' | '.join(cells)} |"


def stages_table(results: list[dict[str, Any]]) -> str:
    """Return the time of the stages of fit, without a cache."""
    rows = [(result, row) for result in results for row in result["rows"]]
    known = {stage for _, row in rows for stage in row["fit_stages"]}
    stages = [stage for stage in STAGES if stage in known]
    lines = [
        f"| method | training images | classes | {' | '.join(stages)} "
        "| after the network / network |",
        f"|---|---|---|{'---|' * (len(stages) + 1)}",
    ]
    for result, row in rows:
        if row["split"] != "random":
            continue
        cells = [row["label"], f"{row['n_train']:,}", str(len(result["classes"]))]
        for stage in stages:
            seconds = row["fit_stages"].get(stage)
            cells.append("–" if seconds is None else duration(seconds))
        network = row["fit_stages"][NETWORK]
        after = sum(row["fit_stages"].values()) - network - row["fit_stages"].get(READING, 0.0)
        cells.append(f"{after / network:.2f} x")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def accuracy_in_words(row: Mapping[str, Any]) -> str:
    """Return the accuracy with its interval and number of splits."""
    low, high = row["interval"]
    splits = f" ({len(row['seeds'])} splits)" if len(row["seeds"]) > 1 else ""
    return f"{100 * row['accuracy']:.1f} % [{100 * low:.1f}, {100 * high:.1f}]{splits}"


def duration(seconds: float) -> str:
    """Return a duration with a suitable unit."""
    if seconds < 99.5:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.2f} h"
