"""Tables of the accuracy benchmarks, made from the stored results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.common.tables import table

LAYOUT = 3  # of the stored results
DEFAULT = "hypervlad, default"
LUO2021 = ("luo2021", "luo2021, every pixel")
Facts = dict[str, Any]


def accuracy_section(facts: Facts) -> str:
    """Return all tables of one network."""
    folds = ", ".join(f"{name} {s['folds']}" for name, s in facts["sets"].items())
    return "\n\n".join(
        [
            f"**{facts['backbone']}** ({_repeats(facts)} x grouped folds: {folds}; "
            f"first seed {facts['seed']}){_fewer_repeats(facts)}{_origins(facts)}{_missing(facts)}",
            score_table(facts),
            "\n".join(f"- {line}" for line in verdicts(facts)),
            *_paragraph(
                "What the default gains on logistic regression on its own vectors (± one paired "
                "standard error, groups resampled; more than two standard errors: *):",
                claims(facts["rows"]),
            ),
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


def verdicts(facts: Facts) -> list[str]:
    """Compare the default with the best method of each data set, and report its calibration."""
    lines = []
    for row in facts["rows"]:
        if row["method"] != DEFAULT:
            continue
        parts = [
            _standing(row["accuracy_against"]["best"], "accuracy"),
            _standing(row["log_loss_against"]["best"], "log-loss"),
        ]
        calibration = row["calibration"]
        low, high = calibration["range"]
        side = "not above" if calibration["inside"] else "above"
        parts.append(
            f"calibration error {calibration['error']:.3f}, {side} the range of perfect "
            f"calibration [{low:.3f}, {high:.3f}]"
        )
        lines.append(f"{row['data']}: the default's {'; '.join(parts)}.")
    return lines


def claims(rows: Sequence[Facts]) -> list[str]:
    """Return what the default gains over logistic regression on its own vectors."""
    names = {
        "default vectors + logistic regression": "plain",
        "default vectors + temperature-scaled logistic regression": "temperature-scaled",
    }
    return [
        f"{row['data']}, {names[row['method']]}: "
        f"{_gain(row['accuracy_against']['default'], 'accuracy')}; "
        f"{_gain(row['log_loss_against']['default'], 'log-loss')}."
        for row in rows
        if row["method"] in names and "default" in row["accuracy_against"]
    ]


def _gain(against: Facts, kind: str) -> str:
    """Return what the default gains: what the row's method loses against it."""
    gain, error = 0.0 - against["gain"], against["error"]
    more = abs(gain) > 2 * error + 1e-12
    return f"{kind} {gain:+.3f} ± {error:.3f}{' *' if more else ''}"


def _paragraph(head: str, lines: Sequence[str]) -> list[str]:
    return [head, "\n".join(f"- {line}" for line in lines)] if lines else []


def _standing(against: Facts, kind: str) -> str:
    if against["method"] == DEFAULT:
        return f"{kind} is the best"
    gap = f"{-against['gain']:.3f} ± {against['error']:.3f} behind {against['method']}"
    inside = "within" if against["within_two_errors"] else "more than"
    return f"{kind} is {gap}, {inside} two paired standard errors"


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


def _missing(facts: Facts) -> str:
    missing = [title for title in LUO2021 if title not in _methods(facts)]
    return f". Not measured yet: {'; '.join(missing)}" if missing else ""


def _repeats(facts: Facts) -> int:
    return max(row["repeats"] for row in facts["rows"])


def _fewer_repeats(facts: Facts) -> str:
    """Return which methods were repeated less often than the others."""
    few = {r["method"]: r["repeats"] for r in facts["rows"] if r["repeats"] < _repeats(facts)}
    return f". Of {'; '.join(f'{m}: {n} x' for m, n in few.items())}" if few else ""


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
