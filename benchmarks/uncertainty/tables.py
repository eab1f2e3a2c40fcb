"""The tables of doubt and of labelling, made from what `doubt.py` and `labelling.py` stored."""

from __future__ import annotations

from typing import Any

_ROWS = {
    "accuracy": "accuracy",
    "calibration error": "calibration_error",
    "sets after a plain fit: coverage of new groups": "cross_coverage",
    "… of images": "cross_coverage_of_images",
    "… classes in a set": "cross_size",
    "sets with groups set apart: coverage of new groups": "split_coverage",
    "… of images ": "split_coverage_of_images",
    "… classes in a set ": "split_size",
    "accuracy on the surer 70 %": "selective_accuracy",
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
    title = "of all errors, those among the first 30 %: the queue's; drawn; least margin; at best"
    lines.append(f"| {title} | {' | '.join(cells)} |")
    for share in next(iter(sets.values()))["sure"]:
        cells = [_sure(found["sure"][share]) for found in sets.values()]
        lines.append(f"| sure answers, asked {float(share):.0%} wrong | {' | '.join(cells)} |")
    few = f"({stored['few']} splits)"
    cells = [_strangers(found["strangers"]) for found in sets.values()]
    lines.append(
        f"| a class never seen: AUROC of novelty; of confidence {few} | {' | '.join(cells)} |"
    )
    cells = [_called(found["strangers"]) for found in sets.values()]
    lines.append(f'| … called "unknown", of it; of other new images | {" | ".join(cells)} |')
    cells = [_flipped(found["flipped"]) for found in sets.values()]
    title = f"{stored['flipped']:.0%} of labels made wrong: found; right among suspects {few}"
    lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def front_sentence(stored: dict[str, Any]) -> str:
    """Return how far doubt is to be relied on, in short."""
    sets = stored["sets"].values()

    def shares(name: str) -> str:
        return _listed([f"{100 * found[name][0]:.0f}" for found in sets])

    sizes = _listed([f"{found['cross_size'][0]:.1f}" for found in sets])
    return (
        f"On {stored['splits']} splits each of {_listed(list(stored['sets']))}, with groups new to "
        f"the model, sets asked to hold the true class of {stored['coverage']:.0%} did of "
        f"{shares('cross_coverage')} % (of such groups; of their images "
        f"{shares('cross_coverage_of_images')} %), with {sizes} classes; the surest 70 % of the "
        f"answers were right in {shares('selective_accuracy')} %, all answers in "
        f"{shares('accuracy')} %."
    )


def _listed(words: list[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}" if words[1:] else words[0]


def _with_interval(values: list[float]) -> str:
    mean, low, high = values
    if 0 <= mean <= 1:  # a share: its interval ends where shares do
        low, high = max(low, 0.0), min(high, 1.0)
    return f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def _caught(found: dict[str, float]) -> str:
    return "; ".join(f"{found[name]:.0%}" for name in ("queue", "drawn", "margin", "best"))


def _sure(found: dict[str, float]) -> str:
    if not found["share"]:
        return "none"
    return f"{found['share']:.0%}, {found['error']:.1%} wrong"


def _strangers(found: dict[str, float] | None) -> str:
    return "–" if found is None else f"{found['auroc']:.3f}; {found['auroc_of_confidence']:.3f}"


def _called(found: dict[str, float] | None) -> str:
    if found is None:
        return "–"
    return f"{found['strangers_called_unknown']:.0%}; {found['others_called_unknown']:.1%}"


def _flipped(found: dict[str, float]) -> str:
    return f"{found['recall']:.0%}; {found['precision']:.0%}"
