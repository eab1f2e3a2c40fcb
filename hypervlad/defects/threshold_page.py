"""Pages on which a threshold can be moved: histograms of scores, images, and a warning."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hypervlad.defects.evaluation import gap_between_modes
from hypervlad.pages.facts import page_facts
from hypervlad.pages.files import as_script, write_page

_N_BINS = 40
_N_TICKS = 8  # at most, about
_STEPS_PER_TICK = 100  # of the slider


class Outcome(NamedTuple):
    """What images on one side of the threshold are called, and their colour (a CSS class)."""

    name: str
    style: str


FALSE_ALARMS, OTHERS = Outcome("false alarms", "found"), Outcome("others", "plain")


@dataclass(frozen=True)
class ScoreGroup:
    """Images in one histogram, and what they are called if they reach the threshold, and if not."""

    name: str
    scores: NDArray[np.float64]
    above: Outcome
    below: Outcome

    @classmethod
    def of(cls, name: str, scores: ArrayLike, above: Outcome, below: Outcome) -> ScoreGroup:
        return cls(name, np.asarray(scores, dtype=np.float64), above, below)

    def n_above(self, threshold: float) -> int:
        return int(np.count_nonzero(self.scores >= threshold))


class ScoredRow(NamedTuple):
    """An image in a table, where what it is called follows the threshold."""

    name: str
    score: float
    is_called: bool
    above: str
    below: str
    cells: Sequence[str]


class Bar(NamedTuple):
    """Left end and width in per cent of the chart, height in pixels, number of images."""

    left: float
    width: float
    height: float
    number: int


class ScoreChart:
    """Histograms of groups of images on a common axis, and a slider from ``low`` to ``high``.

    ``threshold_text`` has at least four digits, and as many as call the same images anomalous.
    """

    bar_pixels = 48  # height of the tallest bar of a group

    def __init__(self, groups: Sequence[ScoreGroup], threshold: float) -> None:
        self.groups = [group for group in groups if len(group.scores)]
        self.threshold, self.threshold_text = threshold, self._shortest_text(threshold)
        scores = np.concatenate([group.scores for group in self.groups] or [np.array([threshold])])
        lowest, highest = float(scores.min()), float(scores.max())
        span = highest - lowest
        if lowest - span <= threshold <= highest + span:  # else the scores would have no room
            lowest, highest = min(lowest, threshold), max(highest, threshold)
        self._tick = _round_step((highest - lowest) / _N_TICKS or abs(highest) or 1.0)
        self.step = self._tick / _STEPS_PER_TICK
        self.low = _multiple(math.ceil(lowest / self.step) - 1, self.step)
        self.high = _multiple(math.floor(highest / self.step) + 1, self.step)

    def _shortest_text(self, threshold: float) -> str:
        called = [group.n_above(threshold) for group in self.groups]
        texts = (f"{threshold:.{n_digits}g}" for n_digits in range(4, 18))  # 17 are exact
        return next(t for t in texts if [g.n_above(float(t)) for g in self.groups] == called)

    def position(self, score: float) -> float:
        """Return where a score is on the axis, in per cent, from 0 to 100."""
        share = (score - self.low) / (self.high - self.low)
        return round(100 * min(max(share, 0.0), 1.0), 3)

    def bars(self, group: ScoreGroup) -> list[Bar]:
        """Return the bars of a group, without empty ones; the threshold is at the edge of one."""
        width = (self.high - self.low) / _N_BINS
        one = self.threshold if self.low < self.threshold < self.high else self.low  # of the edges
        edges = one + width * (math.floor((self.low - one) / width) + np.arange(_N_BINS + 2))
        counts, _ = np.histogram(group.scores, edges)
        ends = [self.position(edge) for edge in edges.tolist()]
        pixels = self.bar_pixels / int(counts.max())
        bars = zip(counts.tolist(), ends, ends[1:], strict=False)
        return [Bar(a, b - a, round(pixels * n, 2), n) for n, a, b in bars if n]

    def ticks(self) -> list[tuple[float, str]]:
        first, last = math.ceil(self.low / self._tick), math.floor(self.high / self._tick)
        values = [_multiple(number, self._tick) for number in range(first, last + 1)]
        return [(self.position(value), f"{value:g}") for value in values]

    def data(self) -> dict[str, Any]:
        return {
            "threshold": self.threshold,
            "low": self.low,
            "high": self.high,
            "groups": [group.scores.tolist() for group in self.groups],
        }


def threshold_warning(scores: ArrayLike, threshold: float) -> str | None:
    """Return a warning if scores are in two groups and the threshold does not separate them."""
    found = gap_between_modes(scores)
    if found is None or found[0] < threshold <= found[1]:
        return None
    low, high = found
    return (
        f"the scores of these images form two groups, up to {low:.4g} and from {high:.4g}, but the "
        f"threshold, {threshold:.4g}, does not separate them; if the second group has the defects, "
        f"--threshold {_short_number_between(low, high)} does"
    )


def _short_number_between(low: float, high: float) -> str:
    """Return the middle with as few digits, two or more, as keep it between both."""
    texts = (f"{(low + high) / 2:.{digits}g}" for digits in range(2, 18))
    return next((text for text in texts if low < float(text) <= high), repr(high))


def _round_step(step: float) -> float:
    """Return 1, 2 or 5 times a power of ten, the next that is not smaller."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * (1 - 1e-9))


def _multiple(number: int, step: float) -> float:
    """Return a multiple of a step without the digits that only rounding errors have."""
    return float(f"{number * step:.12g}")


def held_out_group(scorer: Any) -> ScoreGroup:
    scores = scorer.held_out_.scores
    return ScoreGroup.of("Training images, held out", scores, FALSE_ALARMS, OTHERS)


def by_score(rows: Iterable[ScoredRow]) -> list[ScoredRow]:
    return sorted(rows, key=lambda row: -row.score)


def write_threshold_page(
    path: Path,
    template: str,
    scorer: Any,
    chart: ScoreChart,
    *parts: str,
    data: dict[str, Any] | None = None,
    **values: Any,
) -> None:
    write_page(
        path,
        template,
        *(f"{part}.{kind}" for part in ("threshold", *parts) for kind in ("css", "js")),
        chart=chart,
        data=as_script(chart.data() | (data or {})),
        details=page_facts(scorer),
        **values,
    )
