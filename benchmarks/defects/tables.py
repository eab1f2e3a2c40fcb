"""Tables of the defects benchmarks, made from the stored results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.common.tables import mean_and_deviation

_COLUMNS = {
    "image_auroc": "image AUROC",
    "pixel_auroc": "pixel AUROC",
    "pixel_average_precision": "pixel AP",
    "pro": "PRO",
    "best_patch_f1": "best patch F1",
    "patch_f1": "patch F1 at its own threshold",
}


def defects_section(results: Sequence[dict[str, Any]]) -> str:
    """Return one table per surface: mean and standard deviation over the splits."""
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
        cells = [row["method"], *(mean_and_deviation(row.get(name)) for name in _COLUMNS)]
        cells += [
            f"{np.mean(row[name]):.1f} ms" for name in ("network_ms", "other_ms", "search_ms")
        ]
        cells.append(_size(float(np.mean(row["bytes"]))))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _size(n_bytes: float) -> str:
    return f"{n_bytes / 1e6:.1f} MB" if n_bytes >= 1e5 else f"{n_bytes / 1e3:.0f} kB"


def speed_table(result: dict[str, Any]) -> str:
    """Return the times of maps relative to the network and to passes over patches."""
    seconds = {name: np.array(values) for name, values in result["seconds"].items()}
    alone, folded = seconds["network alone"], seconds["the same, folded"]
    height, width = result["size"]
    lines = [
        f"The network alone over {width} x {height} pixels: {1000 * np.median(alone):.0f} ms, "
        f"{1000 * np.median(folded):.0f} ms with its batch normalisations folded.",
        "",
        f"| map, windows every {result['stride']} px | time | relative to the network alone "
        "| to the same, folded | "
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
