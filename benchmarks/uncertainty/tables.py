"""Tables of the uncertainty benchmark, made from the stored results."""

from __future__ import annotations

from typing import Any

_ROWS = {
    "accuracy": "accuracy",
    "calibration error": "calibration_error",
    "sets after a plain fit: coverage of new groups": "cross_coverage",
    "… of images": "cross_coverage_of_images",
    "… classes in a set": "cross_size",
    "sets with held-out groups: coverage of new groups": "split_coverage",
    "… of images ": "split_coverage_of_images",
    "… classes in a set ": "split_size",
    "accuracy on the 70 % most confident": "selective_accuracy",
    "area under the selective-accuracy curve": "selective_area",
}


def uncertainty_table(stored: dict[str, Any]) -> str:
    """Return means over splits with their 95 % intervals, a column for each set."""
    sets = stored["sets"]
    lines = [f"| {stored['splits']} splits | {' | '.join(sets)} |", f"|---|{'---|' * len(sets)}"]
    for title, name in _ROWS.items():
        cells = [_with_interval(found[name]) for found in sets.values()]
        lines.append(f"| {title.strip()} | {' | '.join(cells)} |")
    cells = [_caught(found["errors_caught"]) for found in sets.values()]
    title = "of all errors, among the first 30 %: queue; weighted; smallest margin; at best"
    lines.append(f"| {title} | {' | '.join(cells)} |")
    for share in next(iter(sets.values()))["sure"]:
        cells = [_sure(found["sure"][share]) for found in sets.values()]
        lines.append(
            f"| sure answers, at most {float(share):.0%} wrong requested | {' | '.join(cells)} |"
        )
    few = f"({stored['few']} splits)"
    cells = [_unseen(found["unseen"]) for found in sets.values()]
    lines.append(
        f"| an unseen class: AUROC of novelty; of confidence {few} | {' | '.join(cells)} |"
    )
    cells = [_reported(found["unseen"]) for found in sets.values()]
    title = "… reported as out of distribution, of its images; of other new images"
    lines.append(f"| {title} | {' | '.join(cells)} |")
    cells = [_changed(found["changed"]) for found in sets.values()]
    title = f"{stored['changed']:.0%} of labels changed: found; changed among suspects {few}"
    lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def front_sentence(stored: dict[str, Any]) -> str:
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


def _caught(found: dict[str, float]) -> str:
    return "; ".join(f"{found[name]:.0%}" for name in ("queue", "weighted", "margin", "best"))


def _sure(found: dict[str, float]) -> str:
    if not found["share"]:
        return "none"
    return f"{found['share']:.0%}, {found['error']:.1%} wrong"


def _unseen(found: dict[str, float] | None) -> str:
    return "–" if found is None else f"{found['auroc']:.3f}; {found['auroc_of_confidence']:.3f}"


def _reported(found: dict[str, float] | None) -> str:
    if found is None:
        return "–"
    return f"{found['unseen_reported']:.0%}; {found['others_reported']:.1%}"


def _changed(found: dict[str, float]) -> str:
    return f"{found['recall']:.0%}; {found['precision']:.0%}"
