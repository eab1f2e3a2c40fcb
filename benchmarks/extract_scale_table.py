"""Tables of the extraction benchmark, made from what `extract_scale.py` stored."""

from __future__ import annotations

import math
import statistics
from typing import Any

Facts = dict[str, Any]


def scale_section(facts: Facts) -> str:
    """Return the table and what is read off it."""
    return "\n\n".join([_table(facts), "\n".join(f"- {line}" for line in verdicts(facts))])


def verdicts(facts: Facts) -> list[str]:
    """Say whether time grows linearly, memory stays flat, and what everything costs."""
    bare = {name: statistics.median(values) for name, values in facts["bare"].items()}
    large = {name: statistics.median(values) for name, values in facts["large"].items()}
    small, most = min(_sizes(facts)), max(_sizes(facts))
    lines = []
    for way in _ways(facts):
        for state in ("cold", "cached"):
            growth = _peak(facts, most, way, state) / _peak(facts, small, way, state) - 1
            lines.append(
                f"{way}, {state}: time grows with the power {exponent(facts, way, state):.2f} of "
                f"the number of images; memory {growth:+.0%} from {small:,} to {most:,}."
            )
    rates = {way: _row(facts, most, way, "cold")["steady"] for way in _ways(facts)}
    first = rates["1 job"]
    lines.append(
        "Steady rates, without start-up, against one job of two threads: "
        + ", ".join(f"{way} {rate / first:.2f} x" for way, rate in rates.items())
        + "."
    )
    lines.append(
        f"Extraction of {facts['n_bare']} images takes "
        f"{bare['extraction'] / bare['bare loop']:.2f} x the bare loop *decode, resize, "
        f"encoder.transform*, and {bare['extraction'] / bare['network']:.2f} x the network's "
        "passes alone."
    )
    lines.append(
        f"{facts['n_large']} images of 1,024 px: from the cache, unchanged, "
        f"{large['cold'] / large['cached']:.0f} x as fast as cold "
        f"({1000 * large['cold'] / facts['n_large']:.1f} and "
        f"{1000 * large['cached'] / facts['n_large']:.2f} ms an image)."
    )
    lines.append(
        f"The file has {facts['bytes'] / 1000:.1f} kB an image, of {facts['features']:,} features."
    )
    return lines


def exponent(facts: Facts, way: str, state: str) -> float:
    """Return the slope of log(time) over log(images) by least squares, start-up left out."""
    points = []
    for n in _sizes(facts):
        row = _row(facts, n, way, state)
        points.append((math.log(n), math.log(row["seconds"] - row["first"])))
    x = statistics.fmean(p[0] for p in points)
    y = statistics.fmean(p[1] for p in points)
    return sum((a - x) * (b - y) for a, b in points) / sum((a - x) ** 2 for a, _ in points)


def _table(facts: Facts) -> str:
    head = ["way", "state", *(f"{n:,} images" for n in _sizes(facts)), "steady", "start-up", "peak"]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    most = max(_sizes(facts))
    for way in _ways(facts):
        for state in ("cold", "cached"):
            row = _row(facts, most, way, state)
            cells = [way, state]
            cells += [f"{_row(facts, n, way, state)['seconds']:.1f} s" for n in _sizes(facts)]
            cells += [f"{row['steady']:.0f} images/s", f"{row['before'] + row['first']:.1f} s"]
            peaks = f"{row['peak_mb']:.0f} MB"
            if row["peak_workers_mb"]:
                peaks += f" + {row['peak_workers_mb']:.0f} MB a worker"
            lines.append(f"| {' | '.join([*cells, peaks])} |")
    return "\n".join(lines)


def _peak(facts: Facts, n: int, way: str, state: str) -> float:
    row = _row(facts, n, way, state)
    peak: float = row["peak_mb"] + row["peak_workers_mb"]
    return peak


def _row(facts: Facts, n: int, way: str, state: str) -> dict[str, Any]:
    (row,) = [r for r in facts["rows"] if (r["n"], r["way"], r["state"]) == (n, way, state)]
    return row


def _sizes(facts: Facts) -> list[int]:
    return sorted({row["n"] for row in facts["rows"]})


def _ways(facts: Facts) -> list[str]:
    return list(dict.fromkeys(row["way"] for row in facts["rows"]))
