"""The tables of what `modarres2017.py` stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def comparison(results: Sequence[Mapping[str, Any]]) -> str:
    """Return, for each set of images, a table of the methods and what the best one did by class."""
    return "\n\n".join(_section(result) for result in results)


def _section(result: Mapping[str, Any]) -> str:
    kind = "**synthetic**; " if result["is_synthetic"] else ""
    best = max(result["rows"], key=lambda row: row["accuracy"])
    parts = [
        f"**{result['data']}** ({kind}{result['n']} images, {result['n_groups']} groups, "
        f"{len(result['classes'])} categories; {result['repeats']} x {result['folds']} grouped "
        "folds)",
        _methods(result["rows"], lambda row: row),
        f"By category, {best['method']}, which is right most often:",
        _classes(result["classes"], best),
    ]
    if result["second"] is not None:
        parts += [
            f"On a second test set, {result['second']['data']}:",
            _methods(result["rows"], lambda row: row["second"]),
        ]
    return "\n\n".join(parts)


def _methods(rows: Sequence[Mapping[str, Any]], scores_of: Any) -> str:
    lines = [
        "| method | accuracy | top-2 | balanced | log-loss | ECE | epochs | fit | an image |",
        f"|{'---|' * 9}",
    ]
    best = max(scores_of(row)["accuracy"] for row in rows)
    for row in rows:
        scores = scores_of(row)
        low, high = scores["accuracy_interval"]
        accuracy = f"{scores['accuracy']:.3f}"
        accuracy = f"**{accuracy}**" if scores["accuracy"] == best else accuracy
        cells = [row["method"], f"{accuracy} [{low:.3f}, {high:.3f}]"]
        cells += [
            f"{scores[name]:.3f}" for name in ("top2", "balanced_accuracy", "log_loss", "ece")
        ]
        cells += [_epochs(row)]
        cells += [f"{row['fit_seconds']:.0f} s", f"{row['ms']:.0f} ms"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _epochs(row: Mapping[str, Any]) -> str:
    """Return the epochs of a training, "of at most" how many, marked where it was cut short."""
    if not row["epochs"]:
        return "–"
    most = row["parameters"].get("max_epochs")
    if most is None:
        return f"{row['epochs']:.1f}"
    cut = "\\*" if row["epochs"] == most else ""
    return f"{row['epochs']:.1f} of {most}{cut}"


def _classes(names: Sequence[str], row: Mapping[str, Any]) -> str:
    """Return precision, recall, F1 and the confusion matrix, in shares of the true category."""
    lines = [
        f"| category | images | precision | recall | F1 | {' | '.join(f'→ {n}' for n in names)} |",
        f"|{'---|' * (5 + len(names))}",
    ]
    confusion = np.array(row["confusion"])
    for name, scores, told in zip(names, row["classes"], confusion, strict=True):
        cells = [name, f"{scores['n']:.0f}"]
        cells += [
            "–" if scores[kind] is None else f"{scores[kind]:.2f}"
            for kind in ("precision", "recall", "f1")
        ]
        cells += [f"{value / max(told.sum(), 1):.2f}" if value else "" for value in told.tolist()]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
