"""Tables of the uncertainty benchmark, made from the stored results."""

from __future__ import annotations

from benchmarks.common.results import Facts
from benchmarks.common.tables import table

_ROWS = {
    "accuracy": "accuracy",
    "calibration error": "calibration_error",
    "sets: coverage of new groups": "cross_coverage",
    "… of images": "cross_coverage_of_images",
    "… classes in a set": "cross_size",
    "accuracy on the 70 % most confident": "selective_accuracy",
}


def uncertainty_table(stored: Facts) -> str:
    """Return means over splits with their 95 % intervals, a column for each set."""
    sets = list(stored["sets"].values())
    rows = [
        [title.strip(), *(_with_interval(found[name]) for found in sets)]
        for title, name in _ROWS.items()
    ]
    for share in sets[0]["sure"]:
        title = f"sure answers, at most {float(share):.0%} wrong requested"
        rows.append([title, *(_sure(found["sure"][share]) for found in sets)])
    title = f"{stored['changed']:.0%} of labels changed: found; changed among suspects"
    title += f" ({stored['few']} splits)"
    rows.append([title, *(_changed(found["changed"]) for found in sets)])
    return table([f"{stored['splits']} splits", *stored["sets"]], rows)


def front_sentence(stored: Facts) -> str:
    """Return coverage, set sizes and selective accuracy as a sentence."""
    sets = stored["sets"].values()

    def shares(name: str) -> str:
        return _listed([f"{100 * found[name][0]:.0f}" for found in sets])

    sizes = _listed([f"{found['cross_size'][0]:.1f}" for found in sets])
    return (
        f"On {stored['splits']} splits each of {_listed(list(stored['sets']))}, sets requested at "
        f"{stored['coverage']:.0%} coverage achieved {shares('cross_coverage')} % on groups new to "
        f"the model ({shares('cross_coverage_of_images')} % on their images), with {sizes} classes "
        f"per set. The 70 % most confident answers were right in {shares('selective_accuracy')} % "
        f"of cases, all answers in {shares('accuracy')} %."
    )


def _listed(words: list[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}" if words[1:] else words[0]


def _with_interval(values: list[float]) -> str:
    mean, low, high = values
    if 0 <= mean <= 1:  # a share: its interval ends where shares do
        low, high = max(low, 0.0), min(high, 1.0)
    return f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def _sure(found: dict[str, float]) -> str:
    if not found["share"]:
        return "none"
    return f"{found['share']:.0%}, {found['error']:.1%} wrong"


def _changed(found: dict[str, float]) -> str:
    return f"{found['recall']:.0%}; {found['precision']:.0%}"


Rows = list[Facts]


def novelty_section(stored: Facts) -> str:
    """Return the tables of the methods, and of images of no class."""
    cells = stored["cells"]
    return f"{methods_table(cells)}\n\n{outside_table(cells)}"


def methods_table(cells: Rows) -> str:
    """Return how well each method finds the class left out; set by set, and over all sets."""
    sets = list(dict.fromkeys(cell["set"] for cell in cells))
    header = [
        "score",
        *(f"{name}: AUROC; reported; false alarms" for name in sets),
        "mean of the sets",
        "AUROC of the worst class",
        "most false alarms",
        "images of no class reported",
    ]
    rows = []
    for method in dict.fromkeys(cell["method"] for cell in cells):
        own = [cell for cell in cells if cell["method"] == method]
        by_set = [_means([cell for cell in own if cell["set"] == name]) for name in sets]
        worst = min(own, key=lambda cell: float(cell["auroc"]))
        alarms = max(cell["known_reported"] for cell in own)
        outside = _mean([_outside([c for c in own if c["set"] == name]) for name in sets])
        rows.append(
            [
                method,
                *(_found(*means) for means in by_set),
                _found(*(_mean([means[k] for means in by_set]) for k in range(3))),
                f"{worst['auroc']:.3f} ({worst['left_out']})",
                f"{alarms:.0%}",
                f"{outside:.0%}",
            ]
        )
    return table(header, rows)


def outside_table(cells: Rows, method: str = "hypervlad", other: str = "nearest three") -> str:
    """Return the shares reported of images of no class, by kind and set, of two methods."""
    sets = list(dict.fromkeys(cell["set"] for cell in cells))
    kinds = list(dict.fromkeys(kind for cell in cells for kind in cell["outside_reported"]))
    rows = []
    for kind in kinds:
        shown = [kind]
        for name in sets:
            values = [
                [
                    cell["outside_reported"][kind]
                    for cell in cells
                    if (cell["set"], cell["method"]) == (name, each)
                    and kind in cell["outside_reported"]
                ]
                for each in (method, other)
            ]
            shown.append("; ".join(f"{_mean(v):.0%}" for v in values) if values[0] else "–")
        rows.append(shown)
    heads = [f"reported by {method}; by {other}", *(f"model of {name}" for name in sets)]
    return table(heads, rows)


def _means(cells: Rows) -> list[float]:
    names = ("auroc", "unseen_reported", "known_reported")
    return [_mean([cell[name] for cell in cells]) for name in names]


def _outside(cells: Rows) -> float:
    return _mean([_mean(list(cell["outside_reported"].values())) for cell in cells])


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _found(auroc: float, unseen: float, known: float) -> str:
    return f"{auroc:.3f}; {unseen:.0%}; {known:.1%}"
