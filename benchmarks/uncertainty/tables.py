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
