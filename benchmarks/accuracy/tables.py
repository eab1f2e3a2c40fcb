"""Tables of the accuracy benchmark, made from the stored results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
    heads = [
        f"{name} ({s['n']} images, {s['n_groups']} groups)" for name, s in facts["sets"].items()
    ]

    def cell(row: Facts, others: Sequence[Facts]) -> str:
        return _score_cell(
            row,
            _best([each["accuracy"] for each in others], max),
            _best([each["log_loss"] for each in others], min),
        )

    return table(["method", *heads], _lines(facts, _by_set(facts), cell))


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

    def cell(row: Facts, _: Sequence[Facts]) -> str:
        times = f"{row['fit_seconds']:.0f} + {row['predict_seconds']:.0f} s"
        return f"{row['balanced_accuracy']:.3f}, {times}"

    return table(["method", *facts["sets"]], _lines(facts, _by_set(facts), cell))


def front_table(facts: Facts) -> str:
    """Return accuracy / balanced accuracy / log-loss, methods x data sets and mean."""
    columns = _by_set(facts) | {"mean": facts["means"]}
    scores = {"accuracy": max, "balanced_accuracy": max, "log_loss": min}

    def cell(row: Facts, others: Sequence[Facts]) -> str:
        return " / ".join(
            _bold(row[name], _best([each[name] for each in others], choose))
            for name, choose in scores.items()
        )

    heads = [f"accuracy / balanced / log-loss, {facts['backbone']}", *columns]
    return table(heads, _lines(facts, columns, cell))


def _by_set(facts: Facts) -> dict[str, list[Facts]]:
    return {name: [row for row in facts["rows"] if row["data"] == name] for name in facts["sets"]}


def _lines(
    facts: Facts,
    columns: Mapping[str, Sequence[Facts]],
    cell: Callable[[Facts, Sequence[Facts]], str],
) -> list[list[str]]:
    """Return a line for each method, with the cell of its row in each column, or a dash."""
    found = [{row["method"]: cell(row, rows) for row in rows} for rows in columns.values()]
    methods = dict.fromkeys(row["method"] for row in facts["rows"])
    return [[method, *(cells.get(method, "–") for cells in found)] for method in methods]


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


def _best(values: Sequence[float], choose: Any) -> str:
    return f"{choose(values):.3f}" if values else ""


def _bold(value: float, best: str) -> str:
    text = f"{value:.3f}"
    return f"**{text}**" if text == best else text
