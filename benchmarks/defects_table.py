"""The tables of defect maps, made from what the defects benchmarks stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

_COLUMNS = {
    "image_auroc": "image AUROC",
    "pixel_auroc": "pixel AUROC",
    "pixel_average_precision": "pixel AP",
    "pro": "PRO",
    "best_patch_f1": "best patch F1",
    "patch_f1": "patch F1 at its own threshold",
}


def defects_section(results: Sequence[dict[str, Any]]) -> str:
    """Return a table a surface: mean and standard deviation over the splits."""
    return "\n\n".join(_table(result) for result in results)


def front_table(results: Sequence[dict[str, Any]]) -> str:
    """Return image and pixel AUROC, methods x surfaces."""
    named = [{row["method"]: row for row in result["rows"]} for result in results]
    methods = list(dict.fromkeys(method for rows in named for method in rows))
    heads = [result["surface"].replace("_", " ") for result in results]
    lines = [f"| image / pixel AUROC | {' | '.join(heads)} |", f"|{'---|' * (len(heads) + 1)}"]
    for method in methods:
        cells = [
            " / ".join(
                f"{np.mean(rows[method][kind]):.3f}" for kind in ("image_auroc", "pixel_auroc")
            )
            if method in rows
            else "–"
            for rows in named
        ]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _both(row: dict[str, Any]) -> str:
    return " / ".join(f"{np.mean(row[kind]):.3f}" for kind in ("image_auroc", "pixel_auroc"))


def _table(result: dict[str, Any]) -> str:
    rows = result["rows"]
    n_splits = len(rows[0]["image_auroc"])
    lines = [
        f"**{result['surface']}** ({result['n_images']} images, {result['n_defective']} with "
        f"defects; {n_splits} splits)",
        "",
        f"| method | {' | '.join(_COLUMNS.values())} | network | the rest | of it, search | kept |",
        f"|{'---|' * (len(_COLUMNS) + 5)}",
    ]
    for row in rows:
        cells = [row["method"], *(_mean(row.get(name)) for name in _COLUMNS)]
        cells += [
            f"{np.mean(row[name]):.1f} ms" for name in ("network_ms", "other_ms", "search_ms")
        ]
        cells.append(_size(float(np.mean(row["bytes"]))))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _mean(values: list[float] | None) -> str:
    if values is None:
        return "–"
    spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{spread}"


def _size(n_bytes: float) -> str:
    return f"{n_bytes / 1e6:.1f} MB" if n_bytes >= 1e5 else f"{n_bytes / 1e3:.0f} kB"


def carrillo_table(result: dict[str, Any]) -> str:
    """Return patch accuracy and whole-image scores of each system."""
    height, width = result["size"]
    lines = [
        f"{result['images']} images of {width} x {height} pixels to cut patches from, "
        f"{result['new']} new ones; {len(next(iter(result['runs'].values())))} repeats",
        "",
        "| system | learnt from | 18 patches | 1,000 patches | 1,000 of other images "
        "| images learnt from: F1 | new images: precision | recall | F1 | best F1 "
        "| not divided by 255: F1 |",
        f"|{'---|' * 11}",
    ]
    for name, runs in result["runs"].items():
        cells = [name, _learnt(runs[0])]
        cells += [_mean(_present(runs, kind)) for kind in ("few", "many", "elsewhere")]
        cells.append(_mean(_present(runs, "learnt", "f1")))
        cells += [_mean(_present(runs, "new", kind)) for kind in ("precision", "recall", "f1")]
        cells.append(_mean(_present(runs, "best_f1")))
        cells.append(_mean(_present(runs, "undivided", "f1")))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _learnt(run: dict[str, Any]) -> str:
    if "n_train" not in run:
        return f"{run['n_images']} whole images"
    return " + ".join(f"{n:,} {kind}" for kind, n in run["n_train"].items())


def _present(runs: Sequence[dict[str, Any]], *keys: str) -> list[float] | None:
    """Return a figure of each run; None unless all have it."""
    values: list[Any] = []
    for run in runs:
        for key in keys:
            run = run.get(key) or {} if key != keys[-1] else run.get(key)
        values.append(run)
    return None if any(value is None for value in values) else values


def speed_table(result: dict[str, Any]) -> str:
    """Return what maps cost beside the network and beside passes over patches."""
    seconds = {name: np.array(values) for name, values in result["seconds"].items()}
    alone, folded = seconds["network alone"], seconds["the same, folded"]
    height, width = result["size"]
    lines = [
        f"The network alone over {width} x {height} pixels: {1000 * np.median(alone):.0f} ms, "
        f"{1000 * np.median(folded):.0f} ms with its batch normalisations folded away.",
        "",
        f"| map, windows every {result['stride']} px | time | of the network alone "
        "| of the same, folded | "
        + " | ".join(
            f"{name.removeprefix('patches ')}, {n:,} {where}"
            for name in seconds
            if name.startswith("patches")
            for where, n in result["patches"].items()
        )
        + " |",
        f"|{'---|' * 8}",
    ]
    for name in ("map, good images", "map, masks"):
        own = seconds[name]
        cells = [name.removeprefix("map, "), f"{1000 * np.median(own):.0f} ms"]
        cells += [f"{np.median(own / network):.2f} x" for network in (alone, folded)]
        cells += [
            f"{np.median(n * seconds[patches] / own):.0f} x as fast"
            for patches in seconds
            if patches.startswith("patches")
            for n in result["patches"].values()
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
