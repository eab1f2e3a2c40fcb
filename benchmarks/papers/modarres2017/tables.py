"""Tables of the 2017 experiment, made from the stored results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def comparison(results: Sequence[Mapping[str, Any]]) -> str:
    """Return, for each set of images, a table of the methods and one of the best by class."""
    return "\n\n".join(_section(result) for result in results)


def _section(result: Mapping[str, Any]) -> str:
    kind = "**synthetic**; " if result["is_synthetic"] else ""
    best = max(result["rows"], key=lambda row: row["accuracy"])
    parts = [
        f"**{result['data']}** ({kind}{result['n']} images, {result['n_groups']} groups, "
        f"{len(result['classes'])} categories; {result['repeats']} x {result['folds']} grouped "
        "folds)",
        _methods(result["rows"], lambda row: row),
        f"By category, for {best['method']}, the most accurate method:",
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
        "| method | accuracy | top-2 | balanced | log-loss | ECE | epochs | fit | per image |",
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
    """Return the epochs of a training and their maximum, marked if all folds reached it."""
    if not row["epochs"]:
        return "–"
    maximum = row["parameters"].get("max_epochs")
    if maximum is None:
        return f"{row['epochs']:.1f}"
    cut = "\\*" if row["epochs"] == maximum else ""
    return f"{row['epochs']:.1f} of {maximum}{cut}"


def _classes(names: Sequence[str], row: Mapping[str, Any]) -> str:
    """Return precision, recall, F1 and the confusion matrix as shares of the true category."""
    lines = [
        f"| category | images | precision | recall | F1 | {' | '.join(f'→ {n}' for n in names)} |",
        f"|{'---|' * (5 + len(names))}",
    ]
    confusion = np.array(row["confusion"])
    for name, scores, counts in zip(names, row["classes"], confusion, strict=True):
        cells = [name, f"{scores['n']:.0f}"]
        cells += [
            "–" if scores[kind] is None else f"{scores[kind]:.2f}"
            for kind in ("precision", "recall", "f1")
        ]
        cells += [
            f"{value / max(counts.sum(), 1):.2f}" if value else "" for value in counts.tolist()
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
