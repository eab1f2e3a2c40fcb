"""Tables of the accuracy benchmark, made from the stored results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.common.results import Facts, measured_line
from benchmarks.common.tables import table

DEFAULT = "hypervlad, default"


def accuracy_tables(stored: Sequence[Facts]) -> str:
    """Return the tables of every network, each with the state of the code that it is of."""
    return "\n\n".join(f"{accuracy_section(facts)}\n\n{measured_line(facts)}" for facts in stored)


def accuracy_section(facts: Facts) -> str:
    """Return all tables of one network."""
    folds = ", ".join(f"{name} {s['folds']}" for name, s in facts["sets"].items())
    repeats = max(row["repeats"] for row in facts["rows"])
    return "\n\n".join(
        [
            f"**{facts['backbone']}** ({repeats} x grouped folds: {folds}; first seed "
            f"{facts['seed']}){_origins(facts)}",
            score_table(facts),
            "Means over the data sets, and each method's difference from the default (± one "
            "paired standard error, groups resampled within each set):",
            mean_table(facts),
            "Balanced accuracy, and seconds of fit + prediction for all folds of one repeat:",
            time_table(facts),
        ]
    )


def score_table(facts: Facts) -> str:
    """Return accuracy, log-loss and calibration error, methods x data sets."""
    rows = {(row["data"], row["method"]): row for row in facts["rows"]}
    heads = [
        f"{name} ({s['n']} images, {s['n_groups']} groups)" for name, s in facts["sets"].items()
    ]
    best = {
        name: (
            _best([r["accuracy"] for (data, _), r in rows.items() if data == name], max),
            _best([r["log_loss"] for (data, _), r in rows.items() if data == name], min),
        )
        for name in facts["sets"]
    }
    lines = []
    for method in _methods(facts):
        cells = [method]
        for name in facts["sets"]:
            row = rows.get((name, method))
            cells.append("–" if row is None else _score_cell(row, *best[name]))
        lines.append(cells)
    return table(["method", *heads], lines)


def mean_table(facts: Facts) -> str:
    """Return means over the data sets with their differences from the default."""
    means = facts["means"]
    accuracy = _best([row["accuracy"] for row in means], max)
    loss = _best([row["log_loss"] for row in means], min)
    lines = [
        [
            row["method"],
            _bold(row["accuracy"], accuracy),
            _change(row, "accuracy", 1),
            f"{row['balanced_accuracy']:.3f}",
            _bold(row["log_loss"], loss),
            _change(row, "log_loss", -1),
        ]
        for row in means
    ]
    heads = ["method", "accuracy", "difference from the default", "balanced accuracy"]
    return table([*heads, "log-loss", "difference from the default"], lines)


def time_table(facts: Facts) -> str:
    """Return balanced accuracy, fit and predict seconds, methods x data sets."""
    rows = {(row["data"], row["method"]): row for row in facts["rows"]}
    lines = []
    for method in _methods(facts):
        cells = [method]
        for name in facts["sets"]:
            row = rows.get((name, method))
            cells.append("–")
            if row is not None:
                times = f"{row['fit_seconds']:.0f} + {row['predict_seconds']:.0f} s"
                cells[-1] = f"{row['balanced_accuracy']:.3f}, {times}"
        lines.append(cells)
    return table(["method", *facts["sets"]], lines)


def front_table(facts: Facts) -> str:
    """Return accuracy / balanced accuracy / log-loss, methods x data sets and mean."""
    rows = {(row["data"], row["method"]): row for row in facts["rows"]}
    columns = {name: {m: rows.get((name, m)) for m in _methods(facts)} for name in facts["sets"]}
    columns["mean"] = {row["method"]: row for row in facts["means"]}
    lines = []
    for method in _methods(facts):
        cells = [method]
        for by_method in columns.values():
            present = [row for row in by_method.values() if row]
            row = by_method.get(method)
            if not row:
                cells.append("–")
                continue
            accuracy = _best([r["accuracy"] for r in present], max)
            loss = _best([r["log_loss"] for r in present], min)
            balanced = _best([r["balanced_accuracy"] for r in present], max)
            texts = [
                _bold(row["accuracy"], accuracy),
                _bold(row["balanced_accuracy"], balanced),
                _bold(row["log_loss"], loss),
            ]
            cells.append(" / ".join(texts))
        lines.append(cells)
    return table([f"accuracy / balanced / log-loss, {facts['backbone']}", *columns], lines)


def _score_cell(row: Facts, best_accuracy: str, best_loss: str) -> str:
    low, high = row["accuracy_interval"]
    accuracy = _bold(row["accuracy"], best_accuracy)
    loss = _bold(row["log_loss"], best_loss)
    calibration = row["calibration"]
    return (
        f"{accuracy}{_behind(row, 'accuracy')} [{low:.3f}, {high:.3f}]; "
        f"{loss}{_behind(row, 'log_loss')}; "
        f"{calibration['error']:.3f}{'' if calibration['inside'] else ' ‡'}"
    )


def _behind(row: Facts, kind: str) -> str:
    return "" if row[f"{kind}_against"]["best"]["within_two_errors"] else " †"


def _change(row: Facts, kind: str, sign: int) -> str:
    against = row[f"{kind}_against"].get("default")
    if against is None or row["method"] == DEFAULT:
        return "–"
    return f"{sign * against['gain']:+.3f} ± {against['error']:.3f}"


def _origins(facts: Facts) -> str:
    """Return which methods were measured with other code or libraries than the first."""
    first = _same(facts["origins"][0])
    others = [r["method"] for r in facts["rows"] if _same(facts["origins"][r["origin"]]) != first]
    if not others:
        return ""
    return f". Measured with other code or libraries: {'; '.join(dict.fromkeys(others))}"


def _same(origin: Facts) -> tuple[Any, Any]:
    return origin["code"], origin["versions"]


def _methods(facts: Facts) -> list[str]:
    return list(dict.fromkeys(row["method"] for row in facts["rows"]))


def _best(values: Sequence[float], choose: Any) -> str:
    return f"{choose(values):.3f}" if values else ""


def _bold(value: float, best: str) -> str:
    text = f"{value:.3f}"
    return f"**{text}**" if text == best else text
