"""The table of defect maps, made from what `defects.py` stored."""

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


def _table(result: dict[str, Any]) -> str:
    rows = result["rows"]
    n_splits = len(rows[0]["image_auroc"])
    lines = [
        f"**{result['surface']}** ({result['n_images']} images, {result['n_defective']} with "
        f"defects; {n_splits} splits)",
        "",
        f"| method | {' | '.join(_COLUMNS.values())} | network | the rest | kept |",
        f"|{'---|' * (len(_COLUMNS) + 4)}",
    ]
    for row in rows:
        cells = [row["method"], *(_mean(row.get(name)) for name in _COLUMNS)]
        cells += [f"{np.mean(row[name]):.1f} ms" for name in ("network_ms", "other_ms")]
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
