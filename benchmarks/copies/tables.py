"""Tables of the benchmark of near copies, made from the stored results."""

from __future__ import annotations

from typing import Any

from benchmarks.common.tables import table, with_interval
from hypervlad.metrics import wilson_interval

Facts = dict[str, Any]


def found_table(results: list[Facts]) -> str:
    """Return recall and precision of each set with Wilson's intervals, for each search."""
    rows = []
    for name in results[0]["sets"]:
        for result in results:
            found = result["sets"][name]
            hits, planted = sum(found["found"].values()), sum(found["planted"].values())
            correct = hits + found["other"]
            rows.append(
                [
                    name,
                    f"{found['n_images']}",
                    result["search"],
                    f"{hits} of {planted}",
                    share_of(hits, planted),
                    f"{found['wrong']:,}",
                    share_of(correct, correct + found["wrong"]),
                    f"{found['other']}",
                    f"{found['largest_set']}",
                ]
            )
    heads = ["set", "images", "search", "copies found", "recall", "wrong pairs", "precision"]
    return table([*heads, "other pairs", "largest set"], rows)


def share_of(n: int, total: int) -> str:
    """Return a share with its 95 % interval, or a dash if there is nothing to share.

    Examples
    --------
    >>> share_of(46, 48), share_of(0, 0)
    ('0.958 [0.860, 0.988]', '–')
    """
    return with_interval(n / total, wilson_interval(n / total, total)) if total else "–"


def changes_table(results: list[Facts]) -> str:
    """Return the recall of each change over all sets with its interval, for each search."""
    rows = []
    for change in results[0]["sets"][next(iter(results[0]["sets"]))]["found"]:
        cells = []
        for result in results:
            sets = result["sets"].values()
            hits = sum(found["found"][change] for found in sets)
            planted = sum(found["planted"][change] for found in sets)
            cells.append(f"{hits} of {planted}: {share_of(hits, planted)}")
        rows.append([change, *cells])
    return table(["change", *(result["search"] for result in results)], rows)


def cost_table(results: list[Facts]) -> str:
    """Return the seconds that a check takes."""
    rows = [
        [cost["data"], f"{cost['n_images']:,}", result["search"], f"{cost['seconds']:.0f} s"]
        for result in results
        for cost in result["costs"]
    ]
    return table(["set", "images", "search", "processor time"], rows)
