"""Tables in Markdown, and their places in pages."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table with a line of headings.

    Examples
    --------
    >>> print(table(["method", "score"], [["ours", "0.9"]]))
    | method | score |
    |---|---|
    | ours | 0.9 |
    """
    rule = "|---" * len(heads) + "|"
    return "\n".join([f"| {' | '.join(heads)} |", rule, *(f"| {' | '.join(r)} |" for r in rows)])


def with_interval(value: float, interval: Sequence[float], spec: str = ".3f") -> str:
    """Return a value and its interval, in one format.

    Examples
    --------
    >>> with_interval(0.5, (0.25, 0.75)), with_interval(0.01, (-0.02, 0.04), "+.2f")
    ('0.500 [0.250, 0.750]', '+0.01 [-0.02, +0.04]')
    """
    low, high = interval
    return f"{value:{spec}} [{low:{spec}}, {high:{spec}}]"


def times(values: Mapping[str, Sequence[float]], numerator: str, denominator: str) -> str:
    """Return the median over rounds of the ratio within a round, or a dash if there is none.

    Examples
    --------
    >>> times({"ours": [2.0, 6.0, 3.0], "network": [1.0, 2.0, 2.0]}, "ours", "network")
    '2.00 x'
    """
    if numerator not in values:
        return "–"
    pairs = zip(values[numerator], values[denominator], strict=True)
    return f"{statistics.median([a / b for a, b in pairs]):.2f} x"


def mean_and_deviation(values: Sequence[float] | None) -> str:
    """Return the mean and, of two values or more, their standard deviation; a dash of none.

    Examples
    --------
    >>> mean_and_deviation([0.25, 0.75]), mean_and_deviation([0.25]), mean_and_deviation(None)
    ('0.500 ± 0.354', '0.250', '–')
    """
    if values is None:
        return "–"
    deviation = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.3f}{deviation}"


def with_tables(text: str, tables: Mapping[str, str]) -> str:
    """Replace the text between <!-- name:begin --> and <!-- name:end -->, for each table.

    Raises
    ------
    ValueError
        If a page has no place, or more than one, for a table.
    """
    for name, content in tables.items():
        begin, end = f"<!-- {name}:begin -->\n", f"<!-- {name}:end -->"
        if text.count(begin) != 1 or text.count(end) != 1:
            raise ValueError(f"expected one place for the table {name!r}, {begin.strip()} to {end}")
        head, rest = text.split(begin)
        text = f"{head}{begin}{content}\n{end}{rest.split(end)[1]}"
    return text
