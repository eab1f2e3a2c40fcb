"""The table of the labelling page's benchmark, made from what `review_load.py` stored."""

from __future__ import annotations

from typing import Any


def load_table(facts: dict[str, Any]) -> str:
    """Return what was lost, and how long a click took."""
    latency = facts["latency_ms"]
    rows = {
        "images in the queue": f"{facts['images']:,}",
        "to rank them, of 256 features; to write them": (
            f"{facts['seconds_to_start']['rank']} s; {facts['seconds_to_start']['write']} s"
        ),
        "labels acknowledged": (
            f"{facts['acknowledged']:,} in {facts['seconds']:.0f} s, by two windows"
        ),
        "kills of the server": str(facts["kills"]),
        "attempts without an answer, sent again": str(facts["sent_again"]),
        "labels lost, wrong, twice": f"{facts['lost']}, {facts['wrong']}, {facts['twice']}",
        "time of a click, median; 90 %; 99 %; longest": "; ".join(
            f"{latency[share]:.0f} ms" for share in ("50%", "90%", "99%", "100%")
        ),
    }
    return "\n".join(
        ["| | |", "|---|---|", *(f"| {name} | {fact} |" for name, fact in rows.items())]
    )
