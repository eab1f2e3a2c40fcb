"""Tables of the review benchmarks, made from the stored results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def load_table(facts: dict[str, Any]) -> str:
    """Return how many labels were lost, and how long a click took."""
    latency = facts["latency_ms"]
    rows = {
        "images in the queue": f"{facts['images']:,}",
        "ranking them (256 features); writing them": (
            f"{facts['seconds_to_start']['rank']} s; {facts['seconds_to_start']['write']} s"
        ),
        "labels acknowledged": (
            f"{facts['acknowledged']:,} in {facts['seconds']:.0f} s, by two windows"
        ),
        "kills of the server": str(facts["kills"]),
        "requests without an answer, sent again": str(facts["sent_again"]),
        "labels lost, wrong, twice": f"{facts['lost']}, {facts['wrong']}, {facts['twice']}",
        "time of a click, median; 90 %; 99 %; longest": "; ".join(
            f"{latency[share]:.0f} ms" for share in ("50%", "90%", "99%", "100%")
        ),
    }
    return "\n".join(
        ["| | |", "|---|---|", *(f"| {name} | {fact} |" for name, fact in rows.items())]
    )


def labelling_table(stored: dict[str, Any]) -> str:
    """Return the share of labels that each order needs, and accuracy; balanced accuracy."""
    shares = (0.2, 0.4, 0.6)
    lines = [
        "| set | order | labels needed | "
        + " | ".join(f"with {share:.0%}" for share in shares)
        + " | with all |",
        f"|{'---|' * (4 + len(shares))}",
    ]
    for name, found in stored["sets"].items():
        for order, curve in found["curves"].items():
            needed = found["needed"][order]
            cells = [name, order, "never up to 80 %" if needed is None else f"{needed:.0%}"]
            for share in shares:
                far = [abs(n - share * found["pool"]) for n in found["labels"]]
                cells.append(_scores(curve[far.index(min(far))]))
            cells.append(_scores(found["full"]))
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _scores(both: Sequence[float]) -> str:
    return "; ".join(f"{score:.3f}" for score in both)
