"""Tables of the benchmark of near copies, made from the stored results."""

from __future__ import annotations

from typing import Any

from benchmarks.common.tables import table

Facts = dict[str, Any]


def found_table(results: list[Facts]) -> str:
    """Return recall and precision of each set, for each state of the search."""
    rows = []
    for name in results[0]["sets"]:
        for result in results:
            found = result["sets"][name]
            hits, planted = sum(found["found"].values()), sum(found["planted"].values())
            correct = hits + found["other"]
            share = correct / max(correct + found["wrong"], 1)
            rows.append(
                [
                    name,
                    f"{found['n_images']}",
                    result["search"],
                    f"{hits} of {planted}",
                    f"{hits / planted:.3f}",
                    f"{found['wrong']:,}",
                    f"{share:.3f}",
                    f"{found['other']}",
                    f"{found['largest_set']}",
                ]
            )
    heads = ["set", "images", "search", "copies found", "recall", "wrong pairs", "precision"]
    return table([*heads, "other pairs", "largest set"], rows)


def changes_table(results: list[Facts]) -> str:
    """Return the recall of each change over all sets, for each state of the search."""
    rows = []
    for change in results[0]["sets"][next(iter(results[0]["sets"]))]["found"]:
        cells = []
        for result in results:
            sets = result["sets"].values()
            hits = sum(found["found"][change] for found in sets)
            cells.append(f"{hits} of {sum(found['planted'][change] for found in sets)}")
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
