"""Tables of the defects benchmarks, made from the stored results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.common.results import Facts
from benchmarks.common.tables import mean_and_deviation, table
from hypervlad.data import IMAGE_DEFECTS

_COLUMNS = {
    "image_auroc": "image AUROC",
    "pixel_auroc": "pixel AUROC",
    "pixel_average_precision": "pixel AP",
    "pro": "PRO",
    "best_patch_f1": "best patch F1",
    "patch_f1": "patch F1 at its own threshold",
}
_BY_KIND = {
    "image_auroc": "Image AUROC",
    "at_5_percent": "Share of images found at 5 % false alarms",
    "pixel_ap": "Pixel average precision",
    "pixel_auroc": "Pixel AUROC",
    "pro": "PRO",
}


def defects_section(results: Sequence[Facts]) -> str:
    """Return one table per surface: mean and standard deviation over the splits."""
    return "\n\n".join(_table(result) for result in results)


def front_table(results: Sequence[Facts]) -> str:
    """Return image and pixel AUROC, methods x surfaces."""
    named = [{row["method"]: row for row in result["rows"]} for result in results]
    methods = list(dict.fromkeys(method for rows in named for method in rows))
    heads = [result["surface"].replace("_", " ") for result in results]
    lines = []
    for method in methods:
        cells = [
            " / ".join(
                f"{np.mean(rows[method][kind]):.3f}" for kind in ("image_auroc", "pixel_auroc")
            )
            if method in rows
            else "–"
            for rows in named
        ]
        lines.append([method, *cells])
    return table(["image / pixel AUROC", *heads], lines)


def _table(result: Facts) -> str:
    rows = result["rows"]
    n_splits = len(rows[0]["image_auroc"])
    head = (
        f"**{result['surface']}** ({result['n_images']} images, {result['n_defective']} with "
        f"defects; {n_splits} splits)"
    )
    lines = [
        [
            row["method"],
            *(mean_and_deviation(row.get(name)) for name in _COLUMNS),
            f"{np.mean(row['ms']):.1f} ms",
            _size(float(np.mean(row["bytes"]))),
        ]
        for row in rows
    ]
    return f"{head}\n\n{table(['method', *_COLUMNS.values(), 'time', 'kept'], lines)}"


def _size(n_bytes: float) -> str:
    return f"{n_bytes / 1e6:.1f} MB" if n_bytes >= 1e5 else f"{n_bytes / 1e3:.0f} kB"


def mean_and_worst(by_kind: Mapping[str, Sequence[float]]) -> tuple[float, float]:
    """Return the mean and the lowest of the kinds' means over splits.

    Examples
    --------
    >>> mean_and_worst({"scratch": [0.75, 1.0], "stain": [0.5, 0.75]})
    (0.75, 0.625)
    """
    means = [_mean(values) for values in by_kind.values()]
    return float(np.mean(means)), float(np.min(means))


def kinds_section(results: Sequence[Facts]) -> str:
    """Return a table of all surfaces, and for each one those of methods x kinds of defects."""
    parts = []
    if len(results) > 1:
        parts += [_surfaces_table(results), _surfaces_table(results, "pixel_ap")]
    return "\n\n".join([*parts, *map(_kinds_of_a_surface, results)])


def _surfaces_table(results: Sequence[Facts], name: str = "image_auroc") -> str:
    """Return the mean score by surface, and how much lower than ours it is on average."""
    is_of_images = name == "image_auroc"
    of_surface = [{row["method"]: row for row in rows_of_most_images(each)} for each in results]
    lines = []
    for method in dict.fromkeys(method for rows in of_surface for method in rows):
        rows = [rows.get(method) for rows in of_surface]
        of_row = [
            None
            if not row or "differences" not in row
            else (row["differences"]["mean"] if is_of_images else row["difference_of_pixel_ap"])
            for row in rows
        ]
        cells = [
            "–"
            if row is None
            else _share(mean_and_worst(row[name])[0]) + (_mark(gap) if gap else "")
            for row, gap in zip(rows, of_row, strict=True)
        ]
        gaps = [gap for gap in of_row if gap]
        gap = _with_interval(mean_of_independent(gaps)) if len(gaps) == len(results) else "–"
        lines.append([method, *cells, gap])
    names = [result["surface"].replace("_", " ") for result in results]
    title = f"Mean {_BY_KIND[name][0].lower()}{_BY_KIND[name][1:]} over kinds"
    first = lines[0][0]
    return f"{title}:\n\n" + table(["method", *names, f"{first} minus this method"], lines)


def mean_of_independent(differences: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of independent differences and its 95 % interval, as if they were normal.

    Examples
    --------
    >>> gap = {"value": 0.1, "low": 0.04, "high": 0.16}
    >>> found = mean_of_independent([gap] * 4)
    >>> {name: round(value, 3) for name, value in found.items()}
    {'value': 0.1, 'low': 0.07, 'high': 0.13}
    """
    value = float(np.mean([each["value"] for each in differences]))
    halves = [(each["high"] - each["low"]) / 2 for each in differences]
    half = float(np.sqrt(np.sum(np.square(halves)))) / len(halves)
    return {"value": value, "low": value - half, "high": value + half}


def rows_of_most_images(result: Facts) -> list[Facts]:
    most = max(row["n_train"] for row in result["rows"])
    return [row for row in result["rows"] if row["n_train"] == most]


def _kinds_of_a_surface(result: Facts) -> str:
    rows = rows_of_most_images(result)
    most = rows[0]["n_train"]
    has_own = not set(rows[0]["image_auroc"]) <= set(IMAGE_DEFECTS)
    parts = [
        f"**{result['surface'].replace('_', ' ')}** ({most} images to learn from, "
        f"{result['n_test']} defect-free ones to test, {result['n_splits']} splits). "
        f"{_shortfalls(rows)}",
        *(
            f"{title}:\n\n{_kinds_table(rows, name)}"
            for name, title in _BY_KIND.items()
            if name in rows[0] and (has_own or name == "image_auroc")
        ),
    ]
    if not has_own:
        return "\n\n".join(parts)
    called = [row for row in rows if "called" in row]
    if called:
        parts.append(f"Share of images called defective:\n\n{_called_table(called)}")
    parts.append(_alarm_sentence(result["false_alarms"]))
    if most != min(row["n_train"] for row in result["rows"]):
        parts.append(f"Fewer images to learn from, image AUROC:\n\n{_sizes_table(result['rows'])}")
    return "\n\n".join(parts)


def _shortfalls(rows: list[Facts]) -> str:
    """Say where the first method is worse than the best of the others, the worst first."""
    ours, *rivals = rows
    gaps = []
    for kind, values in ours["image_auroc"].items():
        best = max(rivals, key=lambda row: _mean(row["image_auroc"][kind]), default=ours)
        theirs, own = _mean(best["image_auroc"][kind]), _mean(values)
        if theirs > own:
            gaps.append((own - theirs, f"{kind} ({own:.3f}, {best['method']} {theirs:.3f})"))
    worst = min(ours["image_auroc"], key=lambda kind: _mean(ours["image_auroc"][kind]))
    lower = ", ".join(text for _, text in sorted(gaps)) or "no kind"
    return (
        f"{ours['method']} is worst at {worst}, and lower than the best other method at: {lower}."
    )


def _kinds_table(rows: list[Facts], name: str) -> str:
    kinds = list(rows[0][name])
    lines = []
    for row in rows:
        marks = {
            kind: _mark(row["differences"].get(kind))
            for kind in (*kinds, "mean")
            if name == "image_auroc" and "differences" in row
        }
        cells = [_share(_mean(row[name][kind])) + marks.get(kind, "") for kind in kinds]
        mean, worst = mean_and_worst(row[name])
        lines.append([row["method"], *cells, _share(mean) + marks.get("mean", ""), _share(worst)])
    return table(["method", *kinds, "mean", "worst"], lines)


def _mark(difference: dict[str, float]) -> str:
    """Mark a method that is better or worse than ours, if the interval excludes 0."""
    if difference["high"] < 0:
        return " ▲"
    return " ▼" if difference["low"] > 0 else ""


def _called_table(rows: list[Facts]) -> str:
    lines = []
    for row in rows:
        *found, false = (_mean(values) for values in row["called"].values())
        cells = [*found, float(np.mean(found)), min(found), false]
        lines.append([row["method"], *map(_share, cells)])
    *kinds, _ = rows[0]["called"]
    return table(["method", *kinds, "mean", "worst", "defect-free (false alarms)"], lines)


def _alarm_sentence(alarms: Facts) -> str:
    return (
        f"False alarms requested: {alarms['fpr']:.0%}; observed: {alarms['share']:.1%} (95 % "
        f"interval {alarms['low']:.1%} to {alarms['high']:.1%}) of {alarms['n_specimens']} unused "
        f"images, in {alarms['n_splits']} splits with {alarms['n_train']} images to learn from."
    )


def _sizes_table(rows: list[Facts]) -> str:
    sizes = sorted({row["n_train"] for row in rows})
    methods = dict.fromkeys(row["method"] for row in rows)
    scores = {(row["method"], row["n_train"]): mean_and_worst(row["image_auroc"]) for row in rows}
    heads = [f"{size} images: {name}" for size in sizes for name in ("mean", "worst")]
    lines = [
        [method, *(_share(score) for size in sizes for score in scores[method, size])]
        for method in methods
    ]
    return table(["method", *heads], lines)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def _share(value: float) -> str:
    return f"{value:.3f}"


def _with_interval(difference: dict[str, float]) -> str:
    return f"{difference['value']:+.3f} ({difference['low']:+.3f} to {difference['high']:+.3f})"
