"""Defects of many images as files (maps, masks, overlays, tables) and pages."""

from __future__ import annotations

import base64
import heapq
import io
import math
import os
import reprlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hypervlad.common.files import new_folder
from hypervlad.common.progress import ProgressBar, announced
from hypervlad.common.tables import write_table
from hypervlad.common.wording import percent, warn_user
from hypervlad.evaluation import DefectEvaluation, gap_between_modes
from hypervlad.evaluation.defects import ImageResult
from hypervlad.images import ImageReadError, Micrograph, read_micrograph
from hypervlad.images.files import encode_jpeg
from hypervlad.models.defects import Finding
from hypervlad.results.displays.base import Display, save_png, thumbnail
from hypervlad.results.displays.colours import FOUND, as_rgb
from hypervlad.results.displays.defects import DefectMapDisplay, PatchConfusionDisplay, outline
from hypervlad.results.reports.classified_page import as_script
from hypervlad.results.reports.facts import page_facts
from hypervlad.results.reports.files import (
    PageFigure,
    decimal,
    is_below,
    write_page,
    write_png,
    write_tiff,
)

_MAPS, _MASKS, _OVERLAYS = "maps", "masks", "overlays"
SCORES, REGIONS, PAGE = "scores.csv", "regions.csv", "report.html"
_SCORE_COLUMNS = (
    "path",
    "score",
    "highest",
    "threshold",
    "called",
    "area_fraction",
    "area_um2",
    "n_regions",
)
_REGION_COLUMNS = (
    "path",
    "x",
    "y",
    "width",
    "height",
    "area",
    "diameter",
    "score",
    "width_um",
    "height_um",
    "area_um2",
    "diameter_um",
)
_N_THUMBNAILS = 24
_THUMBNAIL_SIDE = 240  # pixels, of the longer side at least
_QUALITY = 80
# The chart of scores
_N_BINS = 40
_N_TICKS = 8  # at most, about
_STEPS_PER_TICK = 100  # of the slider


class Outcome(NamedTuple):
    """What images on one side of the threshold are called, and their colour (a CSS class)."""

    name: str
    style: str


_FALSE_ALARMS, _OTHERS = Outcome("false alarms", "found"), Outcome("others", "plain")


@dataclass
class WrittenFindings:
    images: list[ScoredRow] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    n_in_training: int = 0
    _score_rows: list[list[Any]] = field(default_factory=list)
    _region_rows: list[list[Any]] = field(default_factory=list)
    _thumbnails: list[tuple[float, int, str]] = field(default_factory=list)

    @property
    def n_scored(self) -> int:
        return len(self.images)

    @property
    def n_anomalous(self) -> int:
        return sum(image.is_called for image in self.images)

    @property
    def n_regions(self) -> int:
        return len(self._region_rows)

    def add(self, name: str, found: Finding, micrograph: Micrograph) -> None:
        cells = [percent(found.area_fraction), str(len(found.regions))]
        row = ScoredRow(name, found.score, found.is_defective, "anomalous", "normal", cells)
        size = micrograph.pixel_size
        self.images.append(row)
        self.n_in_training += found.in_training
        self._score_rows.append(_score_row(name, found, size))
        self._region_rows += _region_rows(name, found, size)
        if len(self._thumbnails) < _N_THUMBNAILS or found.score > self._thumbnails[0][0]:
            jpeg = _thumbnail(micrograph.pixels, found.mask)
            heapq.heappush(self._thumbnails, (found.score, -len(self.images), jpeg))
        if len(self._thumbnails) > _N_THUMBNAILS:
            heapq.heappop(self._thumbnails)

    def write_tables(self, folder: Path) -> None:
        write_table(folder / SCORES, _SCORE_COLUMNS, self._score_rows)
        write_table(folder / REGIONS, _REGION_COLUMNS, self._region_rows)

    def thumbnails(self) -> list[tuple[ScoredRow, str]]:
        ordered = sorted(self._thumbnails, reverse=True)
        return [(self.images[-number - 1], jpeg) for _, number, jpeg in ordered]


def write_findings(
    out_dir: str | os.PathLike[str],
    scorer: Any,
    images: Sequence[Any],
    names: Sequence[str],
    *,
    progress: bool = False,
) -> WrittenFindings:
    """Score images and write maps, masks, overlays, tables and a page.

    - ``maps/NAME.tif``: the scores of all pixels, 32-bit floats.
    - ``masks/NAME.png``: 255 where an image called anomalous reaches the threshold, else 0.
    - ``overlays/NAME.png``: the image, with outlines around its defective regions.
    - ``scores.csv``: one line per image; ``regions.csv``: one line per region, the worst of an
      image first. ``hypervlad defects score --help`` explains the columns.
    - ``report.html``: a page with the scores, on which the threshold can be moved.

    Tables and page list the images whose files are complete, also if the run is interrupted. It
    warns if the scores are in two groups that the threshold does not separate.

    Parameters
    ----------
    out_dir : path
        Made if it is missing.
    scorer : fitted PatchDefectScorer
    images, names, progress
        As for `write_alignment`.

    Returns
    -------
    WrittenFindings
        ``left_out`` has the reasons for images that cannot be read or are smaller than a patch.

    Raises
    ------
    ValueError
        If lengths differ, names are the same, or one is outside the folder.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from hypervlad import PatchDefectScorer, default_patch_encoder, make_nanofibre_images
    >>> from hypervlad.results import write_findings
    >>> good, _ = make_nanofibre_images(4, defective=0.0, size=64, random_state=0)
    >>> encoder = default_patch_encoder(weights="random")
    >>> scorer = PatchDefectScorer(encoder, fpr=0.25, random_state=0).fit(good)
    >>> images, masks = make_nanofibre_images(2, defective=1.0, size=64, random_state=1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     written = write_findings(folder, scorer, images, ["a.png", "b.png"])
    ...     sorted(path.name for path in pathlib.Path(folder).iterdir())
    ['maps', 'masks', 'overlays', 'regions.csv', 'report.html', 'scores.csv']
    """
    outside = [name for name in names if not is_below(name)]
    if outside or len(set(names)) < len(names):
        raise ValueError(
            "names must be different relative paths without '..'; got "
            f"{reprlib.repr(outside or names)}"
        )
    folder, written = Path(out_dir), WrittenFindings()
    options = asdict(scorer.encoder_.fitted_params_.read_options)
    pairs = zip(images, names, strict=True)
    bar = ProgressBar(pairs, total=len(names), unit="image", disable=not progress or None)
    with new_folder(folder):
        try:
            with announced(len(names)):
                for image, name in bar:
                    try:
                        found = scorer.find(image)
                        micrograph = read_micrograph(image, **options)
                    except ImageReadError as error:
                        written.left_out.append(str(error))
                        continue
                    _write_images(folder, name, found, micrograph)
                    written.add(name, found, micrograph)
        finally:
            # Not if the first image could not be written: the disk may be full.
            if written.n_scored or len(written.left_out) == len(names):
                written.write_tables(folder)
                warning = _write_findings_page(folder / PAGE, scorer, written)
    if warning is not None:
        warn_user(warning)
    return written


def _score_row(name: str, found: Finding, pixel_size: float | None) -> list[Any]:
    (area,) = _in_micrometres(pixel_size, areas=[found.area])
    called = "anomalous" if found.is_defective else "normal"
    levels = [found.score, float(found.map.max()), found.threshold]
    return [name, *levels, called, found.area_fraction, area, len(found.regions)]


def _region_rows(name: str, found: Finding, pixel_size: float | None) -> list[list[Any]]:
    rows: list[list[Any]] = []
    for each in found.regions:
        box = [each.column, each.row, each.width, each.height]
        width, height, diameter, area = _in_micrometres(
            pixel_size, lengths=[each.width, each.height, each.diameter], areas=[each.area]
        )
        pixels = [*box, each.area, each.diameter]
        rows.append([name, *pixels, each.score, width, height, area, diameter])
    return rows


def _in_micrometres(
    pixel_size: float | None, *, lengths: Sequence[float] = (), areas: Sequence[float] = ()
) -> list[float | None]:
    if pixel_size is None:
        return [None] * (len(lengths) + len(areas))
    side = pixel_size / 1000
    return [*(side * length for length in lengths), *(side**2 * area for area in areas)]


def _write_images(folder: Path, name: str, found: Finding, micrograph: Micrograph) -> None:
    overlay = as_rgb(micrograph.pixels)
    overlay[outline(found.mask)] = FOUND
    write_tiff(folder / _MAPS / f"{name}.tif", found.map, micrograph.pixel_size)
    write_png(folder / _MASKS / f"{name}.png", 255 * found.mask.astype(np.uint8))
    write_png(folder / _OVERLAYS / f"{name}.png", np.round(255 * overlay).astype(np.uint8))


def _thumbnail(pixels: NDArray[Any], mask: NDArray[np.bool_]) -> str:
    # The outlines are drawn last, to stay visible.
    small = as_rgb(thumbnail(pixels, _THUMBNAIL_SIDE))
    small[outline(thumbnail(mask, _THUMBNAIL_SIDE, np.max).astype(bool))] = FOUND
    return base64.b64encode(encode_jpeg(small, 2 * _THUMBNAIL_SIDE, _QUALITY)).decode("ascii")


def _write_findings_page(path: Path, scorer: Any, written: WrittenFindings) -> str | None:
    """Write the page of scored images; return its warning about the threshold, if any."""
    threshold, scores = scorer.threshold_, [image.score for image in written.images]
    called = Outcome("called anomalous", "found")
    chart = ScoreChart(
        [
            ScoreGroup.of("New images", scores, called, _OTHERS),
            _held_out_group(scorer),
        ],
        threshold,
    )
    warning = threshold_warning(scores, threshold)
    _write_page(
        path,
        "findings.html",
        scorer,
        chart,
        title="Defects found",
        written=written,
        warning=warning,
        thumbnails=written.thumbnails(),
        images=_by_score(written.images),
    )
    return warning


def _held_out_group(scorer: Any) -> ScoreGroup:
    scores = scorer.held_out_.scores
    return ScoreGroup.of("Training images, held out", scores, _FALSE_ALARMS, _OTHERS)


def _by_score(rows: Iterable[ScoredRow]) -> list[ScoredRow]:
    return sorted(rows, key=lambda row: -row.score)


def _write_page(path: Path, template: str, scorer: Any, chart: ScoreChart, **values: Any) -> None:
    write_page(
        path,
        template,
        "threshold",
        chart=chart,
        data=as_script(chart.data()),
        details=page_facts(scorer),
        **values,
    )


def write_defect_report(
    path: str | os.PathLike[str],
    scorer: Any,
    images: Sequence[Any],
    result: DefectEvaluation,
) -> Path:
    """Write a page on the evaluation of a scorer, on which the threshold can be moved.

    The page is one file that works offline.

    Parameters
    ----------
    path : path of an .html file
    scorer : fitted PatchDefectScorer
    images : sequence of n paths or arrays
        The images of `result`.
    result : DefectEvaluation
        See `hypervlad.evaluation.evaluate_defects`.

    Returns
    -------
    Path
        Where the page is.

    Examples
    --------
    >>> import tempfile
    >>> from hypervlad import PatchDefectScorer, default_patch_encoder, make_nanofibre_images
    >>> from hypervlad.evaluation import evaluate_defects
    >>> from hypervlad.results import write_defect_report
    >>> good, _ = make_nanofibre_images(4, defective=0.0, size=64, random_state=0)
    >>> encoder = default_patch_encoder(weights="random")
    >>> scorer = PatchDefectScorer(encoder, fpr=0.25, random_state=0).fit(good)
    >>> images, masks = make_nanofibre_images(2, defective=1.0, size=64, random_state=1)
    >>> result = evaluate_defects(scorer, images, masks, ["a", "b"])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_defect_report(f"{folder}/defects.html", scorer, images, result).name
    'defects.html'
    """
    path, worst = Path(path), result.worst
    shown = [images[each.position] for each in worst]
    masks, found = [each.mask for each in worst], [each.found for each in worst]
    common: dict[str, Any] = {
        "names": [each.name for each in worst],
        "read_options": scorer.encoder_.fitted_params_.read_options,
    }
    scores = [each.scores for each in worst]
    maps = DefectMapDisplay(shown, scores, found, result.threshold, masks=masks, **common)
    patches = PatchConfusionDisplay(shown, found, masks, patch=result.patch, **common)
    _write_page(
        path,
        "defects.html",
        scorer,
        ScoreChart(_evaluated_groups(result, scorer), result.threshold),
        title="How well defects are found",
        result=result,
        n_defective=sum(image.is_defective for image in result.images),
        n_found=sum(image.is_called and image.is_defective for image in result.images),
        n_false=sum(image.is_called and not image.is_defective for image in result.images),
        n_clean=sum(
            image.confusion.false_positives for image in result.images if not image.is_defective
        ),
        scores={
            name: percent(value) if "area" in name or "patch" in name else decimal(value)
            for name, value in result.scores().items()
        },
        maps=_embedded(maps),
        patches=_embedded(patches),
        images=_by_score(_evaluated_row(image) for image in result.images),
    )
    return path


def _evaluated_groups(result: DefectEvaluation, scorer: Any) -> list[ScoreGroup]:
    defective, defect_free = (
        [image.score for image in result.images if image.is_defective == kind]
        for kind in (True, False)
    )
    return [
        ScoreGroup.of(
            "Defective images", defective, Outcome("found", "hit"), Outcome("missed", "missed")
        ),
        ScoreGroup.of("Defect-free images", defect_free, _FALSE_ALARMS, _OTHERS),
        _held_out_group(scorer),
    ]


def _evaluated_row(image: ImageResult) -> ScoredRow:
    above, below = ("found", "missed") if image.is_defective else ("false alarm", "right")
    return ScoredRow(
        image.name,
        image.score,
        image.is_called,
        f"anomalous ({above})",
        f"normal ({below})",
        [percent(image.true_fraction), percent(image.found_fraction), decimal(image.confusion.f1)],
    )


def _embedded(display: Display) -> PageFigure:
    stream = io.BytesIO()
    size = save_png(display.plot, stream)
    source = f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
    return PageFigure.of(source, size, display)


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
