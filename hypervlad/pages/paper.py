"""What goes into a paper: figures, a table of results, sentences of methods, and a page of them."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from markupsafe import Markup
from numpy.typing import ArrayLike

from hypervlad.common.files import new_folder, replace_when_complete
from hypervlad.common.progress import by_reader, sentences_of
from hypervlad.common.wording import capitalised
from hypervlad.objects.results_folder import LEFT_OUT, write_rows
from hypervlad.pages import parts
from hypervlad.pages.base import literal, shorten
from hypervlad.pages.colours import DARK
from hypervlad.pages.numbers import interval_text, number_text, round_length
from hypervlad.statistics.groups import (
    Ratio,
    Sample,
    Values,
    groups_needed,
    opened,
    student_factor,
    with_error,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

PAGE, TABLE, METHODS, BUDGET = "report.html", "results.csv", "methods.txt", "budget.csv"
NOT_KNOWN = "not known"
PRECISION = 0.05  # of a median, for which it is said how many images it takes
_FIGURES = "figure", "figure-2"
_FORMATS: dict[str, list[str]] = {"svg": ["Date"], "pdf": ["CreationDate"], "png": []}
OF_QUANTILES = "Quantiles with intervals: R. S. Woodruff, J. Am. Stat. Assoc. 47, 1952"
OF_SHARE = "E. B. Wilson, J. Am. Stat. Assoc. 22, 1927, for as many as would vary like these images"
OF_MEAN = "Mean with Student's interval: jackknife, B. Efron and C. Stein, Ann. Stat. 9, 1981"
_OF_RATIO = "Intervals of all pairs hold together; one that contains 1 shows no difference"
_NO_ENDS = math.nan, math.nan
_NEEDED = (
    "As ISO 13322-1:2014 asks for particles, but from the interval of the median, if more {}s{} "
    "differ as these do"
)
_COMMON = "All values may be wrong together by {:.3g} %, which more {}s do not reduce"
_OF_BUDGET = (
    "Standard uncertainties: intervals reach about two of them to each side, more if images are "
    "few. Combined is the root of the sum of their squares. Counts of 0 have an upper end only."
)
_INCH, _WIDTH, _HEIGHT, _LINE, _DPI = 25.4, 85, 52, 3.4, 600  # mm: a column of a journal
_CSS_WIDTH = 510
# Okabe and Ito's colours, each with another line, as a print may be grey.
_COLOURS = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#000000", "#56b4e9"
_LINES: tuple[Any, ...] = ("-", "--", ":", "-.", (0, (6, 1, 1, 1, 1, 1)), (0, (1, 0.7)))
_FILL, _STRIP = "#a6c8e0", 0.07  # height of an interval
_STYLE: Any = dict.fromkeys(("font.size", "xtick.labelsize", "ytick.labelsize"), 7)
_STYLE |= dict.fromkeys(("axes.linewidth", "xtick.major.width", "ytick.major.width"), 0.6)
_STYLE |= {"svg.fonttype": "none", "svg.hashsalt": "hypervlad", "pdf.fonttype": 42}
_STYLE |= {"legend.frameon": False}
_FONTS = "Arial", "Helvetica", "Liberation Sans", "DejaVu Sans"
_BINS, _MIN_DRAWN = (6, 25), 10  # bins, to about 2.5 times as many; fewer values are strokes
_ROUNDED = 1e-9  # of the distance between edges of bins
_LONGEST_NAME = 30  # letters, which fit into the width
_MIN_GROUPS = 3  # of which more can tell how much they differ
_DECADE = 10  # between the percentiles 1 and 99, from which on an axis is logarithmic


class Result(NamedTuple):
    """A line of the table; `source` says by which definition, or why a value is not known."""

    quantity: str
    value: Any  # a number, a text, or None if it is not known
    low: float = math.nan
    high: float = math.nan
    unit: str = ""
    source: str = ""
    group: str = ""

    @classmethod
    def of(
        cls,
        quantity: str,
        ends: Iterable[Any],
        unit: str = "",
        source: str = "",
        group: str = "",
        why: str = "images are too few for how much they differ, or alike",
    ) -> Self:
        """Return the line of a value with its interval, which no share, length or number leaves.

        If there is no interval, `why` says what is wrong with the images.
        """
        value, low, high = np.clip([*map(float, ends)], 0, 100 if unit == "%" else None).tolist()
        if math.isnan(low) and math.isnan(high):
            source += f"; no interval: {why}" * (value == value)
        return cls(quantity, value, low, high, unit, source, group)

    @classmethod
    def ratios(cls, of: Mapping[str, Iterable[Ratio]]) -> list[Self]:
        """Return the lines of how groups differ, by what differs; none where one has none."""
        lines = list[Self]()
        for what, ratios in of.items():
            for each in (ratio for ratio in ratios if ratio.is_of_both):
                ends = each.value, each.interval.low, each.interval.high
                pair = f"{each.one} over {each.other}"
                lines.append(cls.of(f"ratio of {what}", ends, "", _OF_RATIO, pair, each.verdict))
        return lines

    @property
    def shown(self) -> Any:
        """The value, unless it is None or NaN."""
        return NOT_KNOWN if self.value is None or self.value != self.value else self.value

    @property
    def text(self) -> str:
        if isinstance(self.shown, float):
            return f"{number_text(self.shown)} {self.unit}".rstrip()
        return f"{self.shown:,}" if isinstance(self.shown, int) else str(self.shown)


def known_ends(ends: Iterable[float], below: float) -> tuple[float, float, float]:
    """Return a size with its interval: no end that few images cannot tell, or `below` a size."""
    best, low, high = ends
    if math.isclose(low, high) or high > _DECADE * best or low < best / _DECADE:
        return best, *_NO_ENDS
    low, high = map(float, opened(low, high, below))
    return best, low, high


@dataclass(frozen=True, eq=False)
class Histogram:
    """Values of one group, of `counts` such as "521 particles, 6 fields".

    Those of a `unit`, an image or a sample, are not independent; without, values are only drawn.
    All may be wrong together by a share `error`, or by those below and above, which intervals
    contain. Nothing is known `below` a size, as most are missed. `thing` is what is counted.
    """

    name: str
    sample: Sample
    counts: str
    unit: str = ""
    error: ArrayLike = 0.0
    below: float = 0.0
    thing: str = "particle"

    @property
    def is_described(self) -> bool:
        return bool(self.unit and len(self.sample.values))

    @cached_property
    def quantiles(self) -> Values:
        """D10, D50 and D90, then their ends, (3, 3), without those that few images cannot tell."""
        best, low, high, *_ = self.sample.quantiles([0.1, 0.5, 0.9])
        ends = np.array([best, *with_error(low, best, high, self.error)])
        return np.array([known_ends(each, self.below) for each in ends.T]).T

    @property
    def why_no_interval(self) -> str:
        """What may be wrong with the images: too few, too unlike, or one has most of the values."""
        weights, values = self.sample.weights, self.sample.values
        groups, codes = np.unique(self.sample.groups, return_inverse=True)
        unit = self.unit or "image"
        if len(groups) < _MIN_GROUPS or np.ptp(values) == 0 or not weights.sum() > 0:
            return f"{unit}s are too few, or alike"
        share = np.bincount(codes, weights).max() / weights.sum()
        if share > 0.5:
            so = f"one {unit} counts for {100 * share:.0f} % of the {self.thing}s"
        else:
            so = f"{unit}s are too few for how much they differ, or {self.thing}s alike"
        return f"{so}: measure more {unit}s, and name groups if samples differ"

    @cached_property
    def moments(self) -> tuple[float, float]:
        """Mean and standard deviation."""
        values, weights = self.sample.values, self.sample.weights
        if not len(values):
            return math.nan, math.nan
        mean = float(np.average(values, weights=weights))
        return mean, math.sqrt(np.average((values - mean) ** 2, weights=weights))

    def results(self, label: str, unit: str) -> list[Result]:
        """Return the lines of quantiles, mean, and how many images a precise median takes."""
        lines, (mean, deviation) = list[Result](), self.moments
        ends, why = self.quantiles, self.why_no_interval
        for name, each in zip(("D10", "median (D50)", "D90"), ends.T.tolist(), strict=True):
            lines.append(Result.of(f"{label}, {name}", each, unit, OF_QUANTILES, self.name, why))
        _, low, high = self.sample.mean()
        interval = map(float, with_error(low, mean, high, self.error))
        of_mean, n = known_ends((mean, *interval), self.below), self.sample.n_groups
        lines.append(Result.of(f"{label}, mean", of_mean, unit, OF_MEAN, self.name, why))
        own: dict[str, Any] = {"unit": unit, "source": "Of single values", "group": self.name}
        lines.append(Result(f"{label}, standard deviation", deviation, **own))
        needed, why = math.nan, "Takes an interval of the median"
        middle, low, high = ends[:, 1]
        # Without what is common to all values, which more images do not reduce.
        commons, wanted = np.log1p(np.broadcast_to(self.error, 2)), math.log1p(PRECISION)
        common = float(commons.max())
        if n < _MIN_GROUPS:
            why = f"Takes at least three {self.unit}s"
        elif common >= wanted:
            why = _COMMON.format(100 * math.expm1(common), self.unit)
        elif low > 0 and math.isfinite(high):
            sides = np.square(np.log([middle / low, high / middle]))
            reach = float(np.sqrt(np.maximum(sides - commons**2, 0)).mean())
            rest = math.sqrt(wanted**2 - common**2)
            needed = groups_needed(n, reach / student_factor(n), rest)
            by_hand = ", and images outlined by hand," * bool(len(self.sample.others))
            why = _NEEDED.format(self.unit, by_hand)
        more = len(self.sample.values) / max(n, 1)
        for name, each in ((self.unit, 1.0), (self.thing, more)):
            number = None if math.isnan(needed) else math.ceil(needed * each)
            text = f"{name}s needed for a median within {100 * PRECISION:g} %"
            lines.append(Result(text, number, source=why, group=self.name))
        return lines


class Figure(NamedTuple):
    """Histograms of one quantity over each other, shares of `what` in per cent; many are rows."""

    label: str
    unit: str
    what: str
    histograms: Sequence[Histogram]
    caption: str
    bins: Sequence[float] | None = None
    limit: tuple[float, str] | None = None  # a line at an edge of bins, and its name

    @property
    def is_of_rows(self) -> bool:
        """Whether each has a row of its own, as more over each other could not be distinguished."""
        return len(self.histograms) > len(_COLOURS)

    @property
    def whole_caption(self) -> str:
        """The caption, with what lines, bands and names are."""
        drawn = [each for each in self.histograms if each.is_described]
        has_bands = any(np.isfinite(each.quantiles[1:, 1]).any() for each in drawn)
        if self.is_of_rows:
            bands = "; bands: their 95 % intervals" * has_bands
            lines = f" Lines: percentiles 10 to 90; dots: medians{bands}."
            named = [each for each in self.histograms if each.name]
            return self.caption + lines + _order(f"{e.name}, n = {e.counts}" for e in named)
        lines = "Lines: medians" if len(drawn) > 1 else "Line: median"
        if has_bands:
            lines = "Line and band: median and its 95 % interval"
            if len(drawn) > 1:
                lines = "Lines and bands: medians and their 95 % intervals"
        lines = f" {lines}. Also given: mean ± standard deviation." * bool(drawn)
        return self.caption + lines + _order(each.name for each in self.histograms)


class Bars(NamedTuple):
    """Of one group, of `counts` such as "40 images", values in per cent with the ends of each."""

    name: str
    values: Sequence[Sequence[float]]
    counts: str


class BarFigure(NamedTuple):
    """Shares with these names, in per cent: bars of each group beside each other."""

    label: str
    names: Sequence[str]
    groups: Sequence[Bars]
    caption: str

    @property
    def whole_caption(self) -> str:
        names = _order(each.name for each in self.groups)
        return f"{self.caption} Lines: 95 % intervals.{names}"


def _order(names: Iterable[str]) -> str:
    listed = "; ".join(filter(None, names))
    return f" From above: {listed}." * bool(listed)


@dataclass
class Report:
    """What a folder of results says: at most two figures, and sentences that a paper may print.

    `budget` is as `FoundCounts.budget`; `notes` must be known, but are not for print. `images` are
    the parts of the page about single images.
    """

    title: str
    figures: Sequence[Figure | BarFigure]
    results: Sequence[Result]
    methods: Sequence[str]
    budget: pd.DataFrame | None = None
    notes: Sequence[str] = ()
    images: Sequence[parts.Part] = ()


def notes_of(made: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return why a run left images out, and what the column ``note`` says of others.

    Older results have neither.
    """
    notes = {row["path"]: row.get("note") or "" for row in rows}
    left_out = [f"left out: {why}" for why in made.get(LEFT_OUT, ())]
    return [*left_out, *(f"noted: {sentence}" for sentence in sentences_of(notes))]


def give_sizes() -> str:
    """Return how to give the pixel sizes of images that state none."""
    return by_reader("repeat with --pixel-size NM or CSV", "give their sizes, and start again")


def pixel_sizes_text(sizes: Iterable[float | None]) -> str | None:
    """Return "2.5 nm" or "2.5 to 4 nm"; None if one is unknown (None, 0 or NaN)."""
    known = [each or math.nan for each in sizes] or [math.nan]
    ends = dict.fromkeys(f"{each:.4g}" for each in (min(known), max(known)))
    return None if np.isnan(known).any() else f"{' to '.join(ends)} nm"


def annotations_text(is_kept: bool, is_any: bool) -> str:
    """Return the sentence on what was left out of images."""
    how = "looked for, and none was found" if not (is_kept or is_any) else "left out"
    return f"Information bars, scale bars and letters were {'not ' * is_kept}{how}."


def share_below(sample: Sample, limit: float, error: ArrayLike = 0.0) -> Values:
    """Return the share from 1 to `limit`, and its interval, in per cent; see `Sample.share`.

    All values may be wrong together by a share `error`, or by those below and above.
    """
    smaller, larger = np.broadcast_to(error, 2)
    shares = [
        sample.share((sample.values >= 1) & (sample.values <= limit * by))
        for by in (1, 1 / (1 + larger), 1 + smaller)
    ]
    moved = [each[0] - shares[0][0] for each in shares]
    return 100 * np.add(shares[0], moved)  # whose line ends at 0 and 100 %


def scale_text(size: str | None, error: float = 0.0) -> str:
    """Return the sentence on whether intervals contain an error of the pixel size."""
    of = f" of {100 * error:.3g} %" * bool(error)
    return f"They {'do not ' * (not error)}contain an error of the pixel size{of}." * bool(size)


def check_weight(weight: str | None, *allowed: str) -> str:
    """Return by what is weighted, by default the first; a ValueError if it is not allowed."""
    if weight not in (None, *allowed):
        raise ValueError(f"--weight {weight}: these results have only {' and '.join(allowed)}")
    return weight or allowed[0]


def budget_section(budget: pd.DataFrame, *more: parts.Part) -> parts.Section | None:
    """Return the section of a page that says what uncertainties come from; see `Report`."""
    names = {"count": "Count", "per_um2": "Per µm²", "d10": "D10", "d50": "D50", "d90": "D90"}
    sources = sorted(budget["source"].unique(), key=lambda each: each.startswith("combined"))
    lines = dict[str, dict[str, str]]()
    for quantity, source, share in budget.itertuples(index=False):
        text = NOT_KNOWN if math.isnan(share) else f"{number_text(float(f'{share:.2g}'))} %"
        lines.setdefault(quantity, dict.fromkeys(sources, "none"))[source] = text
    rows = []
    for quantity, texts in lines.items():
        name, *of = quantity.split(" of ", 1)
        rows.append([" of ".join([names[name], *of]), *texts.values()])
    table = parts.Table(["Quantity", *(each.capitalize() for each in sources)], rows)
    return parts.section("Sources of uncertainty", _OF_BUDGET, table, *more)


# --- figures -------------------------------------------------------------------------------------


def _draw(ax: Axes, shown: Figure) -> None:
    edges, several, highest = _set_axis(ax, shown), len(shown.histograms) > 1, 0.0
    for k, each in enumerate(shown.histograms):
        colour, line = _COLOURS[k], _LINES[k]
        values, mark = each.sample.values, colour if several else _COLOURS[1]
        median, label = _texts_of(each, shown.unit)
        if several and median:  # which has the colour of its histogram
            median, label = "", f"{median}\n{label}"
        label = f"{literal(shorten(each.name, _LONGEST_NAME))}:\n{label}" if each.name else label
        if len(values) < _MIN_DRAWN:
            look: dict[str, Any] = {"color": colour, "markersize": 7, "clip_on": False}
            look |= {"transform": ax.get_xaxis_transform(), "label": label}
            ax.plot(values, np.full(len(values), (k + 0.5) * _STRIP), "|", **look)
        else:
            counts, _ = np.histogram(values, edges, weights=each.sample.weights)
            shares = 100 * counts / (counts.sum() or 1)
            highest = max(highest, float(shares.max()))
            look = {"fill": not several, "facecolor": _FILL, "linestyle": line, "clip_on": False}
            ax.stairs(shares, edges, edgecolor=colour, linewidth=1, label=label, **look)
        if not each.is_described:
            continue
        # Intervals are strips above the histograms, and so hide nothing.
        bottom, top = 1 - (k + 0.7) * _STRIP, 1 - k * _STRIP
        middle, *interval = each.quantiles[:, 1].tolist()
        if not np.isnan(interval).all():
            low, high = np.where(np.isnan(interval), edges[[0, -1]], interval)
            look = {"color": mark, "alpha": 0.4, "linewidth": 0, "gid": f"interval-{k + 1}"}
            ax.axvspan(low, high, bottom, top, **look)
        look = {"color": mark, "linewidth": 1.2, "gid": f"median-{k + 1}", "label": median or None}
        ax.axvline(middle, bottom if several else 0, top, **look)
    n_strips = sum(each.is_described for each in shown.histograms)
    room = 0.95 - _STRIP * (n_strips + 0.5) * bool(n_strips)
    ax.set_ylim(0, highest / max(room, 0.3) or 1)
    ax.set_ylabel(f"{shown.what.capitalize()} (%)")
    ax.yaxis.set_visible(highest > 0)  # not for strokes alone
    ax.spines["left"].set_visible(highest > 0)


def _draw_rows(ax: Axes, shown: Figure) -> None:
    edges, names = _set_axis(ax, shown), [each.name for each in shown.histograms]
    for k, each in enumerate(shown.histograms):
        if not len(each.sample.values):
            continue
        low, middle, high = each.sample.quantiles([0.1, 0.5, 0.9])[0].tolist()
        ax.hlines(k, low, high, color=_COLOURS[0], linewidth=1, gid=f"range-{k + 1}")
        ax.plot(middle, k, "o", color=_COLOURS[0], markersize=3, gid=f"median-{k + 1}")
        interval = each.quantiles[1:, 1] if each.is_described else np.full(2, np.nan)
        if not np.isnan(interval).all():
            ends = np.where(np.isnan(interval), edges[[0, -1]], interval)
            look: dict[str, Any] = {"color": _FILL, "solid_capstyle": "butt", "zorder": 1}
            ax.plot(ends, [k, k], linewidth=5, gid=f"interval-{k + 1}", **look)
    _name_rows(ax, names)


def _name_rows(ax: Axes, names: Sequence[str]) -> None:
    """Name rows, the first of which is above."""
    ax.set_yticks(range(len(names)), [literal(shorten(name, _LONGEST_NAME)) for name in names])
    ax.set_ylim(len(names) - 0.5, -0.5)


def _texts_of(each: Histogram, unit: str) -> tuple[str, str]:
    """Return the median in words, "" if there is none, and of what the histogram is."""
    if not each.is_described:
        return "", each.counts
    middle, low, high = each.quantiles[:, 1].tolist()
    interval = f" (95 %: {interval_text(low, high)})" * (low == low or high == high)
    mean, deviation = each.moments
    digits = max(0, 1 - math.floor(math.log10(deviation))) if deviation > 0 else 1
    spread = f"mean {mean:,.{digits}f} ± {deviation:,.{digits}f} {unit}"
    return f"median {number_text(middle)} {unit}{interval}", f"{spread}\nn = {each.counts}"


def _set_axis(ax: Axes, shown: Figure) -> Values:
    """Set the axes, and return the edges of bins: at round numbers, or at a limit."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    values = np.concatenate([each.sample.values for each in shown.histograms])
    edges: Any = shown.bins
    is_log = False
    if edges is None:
        values = values if len(values) else np.array([0.0, 1.0])
        values = np.append(values, shown.limit[0]) if shown.limit else values
        low, high = np.quantile(values, [0.01, 0.99])
        is_log = bool(values.min() > 0 and high > _DECADE * low)
        values = np.log10(values) if is_log else values
        low, high = values.min(), values.max()
        n = np.clip(1.4 * len(values) ** (1 / 3), *_BINS)
        step = 1 / math.ceil(n / (high - low)) if is_log else 0
        step = step or round_length((high - low or abs(high) or 1) / n)
        at = values[-1] if shown.limit else 0
        first, last = (low - at) / step - _ROUNDED, (high - at) / step + _ROUNDED
        edges = at + step * np.arange(math.floor(first), math.ceil(last) + 1)
        edges = 10**edges if is_log else edges
    if is_log:
        ax.set_xscale("log")
        steps = (1, 2, 5) if edges[-1] / edges[0] < 200 else (1,)
        ax.xaxis.set_major_locator(LogLocator(subs=steps, numticks=20))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        ax.xaxis.set_minor_formatter(NullFormatter())
    elif shown.bins is not None:
        ax.set_xticks(edges[:: len(edges) // 6])
    ax.set_xlim(edges[0], edges[-1])
    if shown.limit:
        at, label = shown.limit
        ax.axvline(at, color=DARK, linestyle=(0, (3, 2)), linewidth=0.8, label=label)
    ax.set_xlabel(f"{capitalised(shown.label)} ({shown.unit})".removesuffix(" ()"))
    ax.spines[["top", "right"]].set_visible(False)
    return np.asarray(edges, np.float64)


def _draw_bars(ax: Axes, shown: BarFigure) -> None:
    thickness = 0.8 / len(shown.groups)
    for k, each in enumerate(shown.groups):
        values, low, high = np.array(each.values, np.float64).reshape(-1, 3).T
        at = np.arange(len(values)) + (k + 0.5) * thickness - 0.4
        label = f"{literal(shorten(each.name, _LONGEST_NAME))}: " * bool(each.name)
        colour = _COLOURS[k % len(_COLOURS)]
        look: dict[str, Any] = {"facecolor": f"{colour}60", "edgecolor": colour, "linewidth": 1}
        ax.barh(at, values, 0.9 * thickness, label=f"{label}n = {each.counts}", **look)
        known = ~np.isnan(low)
        ax.hlines(at[known], low[known], high[known], color=DARK, linewidth=1)
    _name_rows(ax, shown.names)
    ax.set_xlim(0, None)
    ax.set_xlabel(f"{capitalised(shown.label)} (%)")
    ax.spines[["top", "right"]].set_visible(False)


def _drawn(shown: Figure | BarFigure) -> tuple[float, dict[str, bytes]]:
    """Return height over width, and a figure as SVG with texts, PDF with fonts, and PNG."""
    import matplotlib
    from matplotlib.figure import Figure as Canvas
    from matplotlib.font_manager import get_font_names

    files, known = dict[str, bytes](), {*get_font_names()}
    with matplotlib.rc_context({**_STYLE, "font.family": [e for e in _FONTS if e in known]}):
        figure = Canvas(layout="constrained", facecolor="white")
        ax = figure.add_subplot()
        n_bars = 0
        if isinstance(shown, Figure) and shown.is_of_rows:
            _draw_rows(ax, shown)
            n_bars = len(shown.histograms) + 4
        elif isinstance(shown, Figure):
            _draw(ax, shown)
        else:
            _draw_bars(ax, shown)
            n_bars = len(shown.names) * (len(shown.groups) + 1)
        labels = ax.get_legend_handles_labels()[1]
        height = max(_HEIGHT, _LINE * n_bars) + _LINE * sum(text.count("\n") + 1 for text in labels)
        figure.set_size_inches(_WIDTH / _INCH, height / _INCH)
        if labels:
            figure.legend(loc="outside upper left", borderaxespad=0.2)
        for kind, undated in _FORMATS.items():
            stream = io.BytesIO()
            figure.savefig(stream, format=kind, dpi=_DPI, metadata=dict.fromkeys(undated))
            files[kind] = stream.getvalue()
    return height / _WIDTH, files


# --- files ---------------------------------------------------------------------------------------


def write_report(folder: Path, report: Report) -> Path:
    """Write the figures, the table, the methods and the page of a report; return the page."""
    content, methods = list[parts.Part](), " ".join(filter(None, report.methods))
    with new_folder(folder):
        for name in (BUDGET, *(f"{_FIGURES[1]}.{kind}" for kind in _FORMATS)):
            (folder / name).unlink(missing_ok=True)  # of an earlier report, which has more
        for stem, shown in zip(_FIGURES, report.figures, strict=False):
            ratio, files = _drawn(shown)
            for kind, data in files.items():
                with replace_when_complete(folder / f"{stem}.{kind}") as stream:
                    stream.write(data)
            source = f"data:image/png;base64,{parts.base64_text(files['png'])}"
            size = _CSS_WIDTH, round(_CSS_WIDTH * ratio)
            content.append(parts.Figure(source, shown.label, shown.whole_caption, *size))
            content.append(_links(*(f"{stem}.{kind}" for kind in files)))
        lines = [each._asdict() | {"value": each.shown} for each in report.results]
        write_rows(folder / TABLE, ("group",), lines)
        captions = [f"Figure: {each.whole_caption}" for each in report.figures]
        with replace_when_complete(folder / METHODS) as stream:
            stream.write("\n\n".join([methods, *captions, ""]).encode())
        sources = list(dict.fromkeys(filter(None, (each.source for each in report.results))))
        rows = [
            [
                f"{each.group}: {each.quantity}".removeprefix(": "),
                each.text,
                interval_text(each.low, each.high),
                f"[{sources.index(each.source) + 1}]" if each.source else "",
            ]
            for each in report.results
        ]
        table = parts.Table(["", "Value", "95 % interval", "Source"], rows)
        cited = parts.Items([f"[{k}] {text}" for k, text in enumerate(sources, start=1)], "soft")
        content.append(parts.section("Results", table, cited, _links(TABLE)))
        content.append(parts.section("Image by image", *report.images))
        if report.budget is not None:
            write_rows(folder / BUDGET, (), report.budget.to_dict("records"))
            content.append(budget_section(report.budget, _links(BUDGET)))
        notes = [f"{capitalised(note)}." for note in report.notes]
        content.append(parts.section("Methods", methods, _links(METHODS)))
        content.append(parts.section("Notes", notes and parts.Items(notes)))
        parts.write_page(folder / PAGE, report.title, content)
    return folder / PAGE


def _links(*names: str) -> Markup:
    return Markup(" ").join(Markup('<a href="{0}">{0}</a>').format(each) for each in names)
