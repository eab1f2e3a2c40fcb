"""Defects of many images as files (maps, masks, overlays, tables) and pages."""

from __future__ import annotations

import base64
import hashlib
import heapq
import io
import itertools
import math
import os
import reprlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hypervlad.common.files import new_folder
from hypervlad.common.progress import ProgressBar, announced
from hypervlad.common.tables import write_table
from hypervlad.common.wording import percent, warn_user
from hypervlad.defects.displays import DefectMapDisplay, PatchConfusionDisplay, outline
from hypervlad.defects.evaluation import DefectEvaluation, ImageResult
from hypervlad.defects.findings import Finding, Region
from hypervlad.defects.limits_display import DetectionLimitsDisplay
from hypervlad.defects.threshold_page import (
    FALSE_ALARMS,
    OTHERS,
    Outcome,
    ScoreChart,
    ScoredRow,
    ScoreGroup,
    by_score,
    held_out_group,
    threshold_warning,
    write_threshold_page,
)
from hypervlad.images import ImageReadError, Micrograph, read_micrograph
from hypervlad.images.files import encode_jpeg
from hypervlad.objects.particle import Outline
from hypervlad.pages.base import Display, save_png, thumbnail
from hypervlad.pages.colours import FOUND, as_rgb, stretch_contrast
from hypervlad.pages.files import (
    PageFigure,
    decimal,
    interval_text,
    is_below,
    number_text,
    scale_bar,
    significant,
    write_png,
    write_tiff,
)
from hypervlad.pages.lengths import length_text
from hypervlad.particles.displays import svg_path

_MAPS, _MASKS, _OVERLAYS = "maps", "masks", "overlays"
SCORES, REGIONS, PAGE = "scores.csv", "regions.csv", "report.html"
_SCORE_COLUMNS = (
    "path",
    "score",
    "highest",
    "highest_x",
    "highest_y",
    "threshold",
    "called",
    "area_fraction",
    "area_um2",
    "n_regions",
)
_REGION_COLUMNS = (
    "path",
    "region",
    "x",
    "y",
    "width",
    "height",
    "area",
    "diameter",
    "length",
    "breadth",
    "area_low",
    "area_high",
    "contrast",
    "score",
    "width_um",
    "height_um",
    "area_um2",
    "diameter_um",
    "length_um",
    "breadth_um",
    "area_low_um2",
    "area_high_um2",
)
# The page's pictures and its table of regions
_MAX_PICTURES, _MAX_OUTLINES = 48, 5_000_000  # images, and letters of all their outlines
_MAX_REGIONS = 500
_MIN_UM2 = 0.1  # smaller areas are in square nanometres
_SIDE, _MAP_SIDE = 800, 200  # pixels of the longer side: at most of an image, at least of a map
_QUALITY = 80
_MAP_PERCENTILES = (80, 99.8)  # of all maps: transparent and opaque
_MAP_COLOUR, _MAP_OPACITY, _MAP_LEVELS = (255, 0, 200), 0.6, 64


class FoundRegion(NamedTuple):
    """A region, its place among those of its image (from 1), and the image's place in the run."""

    image: int
    number: int
    region: Region
    pixel_size: float | None


class Picture(NamedTuple):
    """An image in base 64, its scores, reduced, and its regions: outlines, with a text."""

    image: int
    shape: tuple[int, int]
    jpeg: str
    scores: NDArray[np.float32]
    outlines: list[tuple[str, str]]
    bar: tuple[float, str] | None


class RegionRow(NamedTuple):
    """A region in the table; without a link if its image has no picture."""

    link: str | None
    image: str
    number: int
    cells: list[str]


@dataclass
class WrittenFindings:
    images: list[ScoredRow] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    n_in_training: int = 0
    _score_rows: list[list[Any]] = field(default_factory=list)
    highest_regions: list[FoundRegion] = field(default_factory=list)  # in order
    _region_rows: list[list[Any]] = field(default_factory=list)
    _pictures: list[tuple[float, int, Picture]] = field(default_factory=list)

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
        place, size = len(self.images), micrograph.pixel_size
        self.images.append(row)
        self.n_in_training += found.in_training
        self._score_rows.append(_score_row(name, found, size))
        regions = [
            FoundRegion(place, number, region, size)
            for number, region in enumerate(found.regions, start=1)
        ]
        self._region_rows += [_region_row(name, each) for each in regions]
        # Regions have masks, so not those of all images are kept.
        self.highest_regions = heapq.nlargest(
            _MAX_REGIONS, [*self.highest_regions, *regions], key=lambda each: each.region.score
        )
        if len(self._pictures) < _MAX_PICTURES or found.score > self._pictures[0][0]:
            picture = _picture(place, found, micrograph)
            heapq.heappush(self._pictures, (found.score, -place, picture))
        if len(self._pictures) > _MAX_PICTURES:
            heapq.heappop(self._pictures)

    def write_tables(self, folder: Path) -> None:
        write_table(folder / SCORES, _SCORE_COLUMNS, self._score_rows)
        write_table(folder / REGIONS, _REGION_COLUMNS, self._region_rows)

    def pictures(self) -> list[Picture]:
        """Return the images with the highest scores, in order: fewer if outlines are long."""
        ordered = [picture for *_, picture in sorted(self._pictures, reverse=True)]
        lengths = (sum(len(path) for path, _ in picture.outlines) for picture in ordered)
        return [
            picture
            for picture, total in zip(ordered, itertools.accumulate(lengths), strict=True)
            if total <= _MAX_OUTLINES
        ]


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
    - ``masks/NAME.png``: 255 in the regions of an image, else 0.
    - ``overlays/NAME.png``: the image, with outlines around its defective regions.
    - ``scores.csv``: one line per image; ``regions.csv``: one line per region, the worst of an
      image first. ``hypervlad defects score --help`` explains the columns.
    - ``report.html``: a page with the scores, on which the threshold can be moved, and with the
      regions of the 48 images with the highest scores, which can be corrected and saved as masks.

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
    area = _in_micrometres(found.area, pixel_size, 2)
    called = "anomalous" if found.is_defective else "normal"
    row, column = found.highest
    levels = [found.score, float(found.map[row, column]), column, row, found.threshold]
    return [name, *levels, called, found.area_fraction, area, len(found.regions)]


def _region_row(name: str, found: FoundRegion) -> list[Any]:
    own = found.region
    extent = [own.width, own.height, own.area, own.diameter, own.length, own.breadth]
    pixels = [*extent, *(own.area_interval or (None, None))]
    scaled = [
        _in_micrometres(value, found.pixel_size, power)
        for value, power in zip(pixels, (1, 1, 2, 1, 1, 1, 2, 2), strict=True)
    ]
    contrast = None if math.isnan(own.contrast) else own.contrast
    return [name, found.number, own.column, own.row, *pixels, contrast, own.score, *scaled]


def _in_micrometres(value: float | None, pixel_size: float | None, power: int) -> float | None:
    if value is None or pixel_size is None:
        return None
    return float(f"{(pixel_size / 1000) ** power * value:.6g}")


def _write_images(folder: Path, name: str, found: Finding, micrograph: Micrograph) -> None:
    overlay = as_rgb(micrograph.pixels)
    overlay[outline(found.mask)] = FOUND
    write_tiff(folder / _MAPS / f"{name}.tif", found.map, micrograph.pixel_size)
    write_png(folder / _MASKS / f"{name}.png", 255 * found.mask.astype(np.uint8))
    write_png(folder / _OVERLAYS / f"{name}.png", np.round(255 * overlay).astype(np.uint8))


def _picture(place: int, found: Finding, micrograph: Micrograph) -> Picture:
    # Many detectors use a small part of their range: unless stretched, their images are black.
    small = stretch_contrast(thumbnail(micrograph.pixels, _SIDE))
    jpeg = base64.b64encode(encode_jpeg(small, _SIDE, _QUALITY)).decode("ascii")
    height, width = found.map.shape
    pixel_size = micrograph.pixel_size
    outlines = []
    for number, each in enumerate(found.regions, start=1):
        box = each.row, each.column, each.row + each.height, each.column + each.width
        facts = f"peak {significant(each.score)}, {_area_texts(each, pixel_size)[0]}"
        outlines.append((svg_path(Outline(number, box, each.mask)), facts))
    bar = scale_bar(width, pixel_size)
    return Picture(place, (height, width), jpeg, _shrunk(found.map), outlines, bar)


def _shrunk(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Shrink a map (H, W) by the highest score of blocks, which cover it."""
    factor = max(1, max(scores.shape) // _MAP_SIDE)
    for axis, length in enumerate(scores.shape):
        n_blocks = -(-length // factor)
        scores = np.maximum.reduceat(scores, np.arange(n_blocks) * length // n_blocks, axis)
    return scores


def _write_findings_page(path: Path, scorer: Any, written: WrittenFindings) -> str | None:
    """Write the page of scored images; return its warning about the threshold, if any."""
    threshold, scores = scorer.threshold_, [image.score for image in written.images]
    called = Outcome("called anomalous", "found")
    chart = ScoreChart(
        [
            ScoreGroup.of("New images", scores, called, OTHERS),
            held_out_group(scorer),
        ],
        threshold,
    )
    warning = threshold_warning(scores, threshold)
    pictures, regions = written.pictures(), written.highest_regions
    limits = _map_limits(pictures, threshold)
    # The page's script names masks like these images, and keeps what is marked under the key.
    marked = [
        {"name": written.images[each.image].name, "height": each.shape[0], "width": each.shape[1]}
        for each in pictures
    ]
    content = repr((marked, [each.outlines for each in pictures]))
    key = hashlib.sha256(content.encode()).hexdigest()
    write_threshold_page(
        path,
        "findings.html",
        scorer,
        chart,
        *(["pictures", "findings"] if pictures else []),
        data={"key": key, "images": marked},
        title="Defects found",
        written=written,
        warning=warning,
        pictures=[
            (each, written.images[each.image], _layer(each.scores, *limits)) for each in pictures
        ],
        map_scale=(
            *(f"{end:.2g}".replace("-", "−") for end in limits),
            _layer(np.linspace(*limits, 64)[None], *limits),
        ),
        regions=_table_of_regions(regions, pictures, written.images),
        limits=_embedded(DetectionLimitsDisplay(scorer.limits_)) if len(scorer.limits_) else None,
        are_measured=any(each.region.area_interval is not None for each in regions),
        images=by_score(written.images),
    )
    return warning


def _map_limits(pictures: Sequence[Picture], threshold: float) -> tuple[float, float]:
    """Return the scores at which the layers of maps are transparent and opaque."""
    scores = np.concatenate([*(each.scores.ravel() for each in pictures), [threshold]])
    low, high = np.percentile(scores, _MAP_PERCENTILES)
    low, high = min(low, threshold), max(high, threshold)
    return float(low), float(high) if high > low else float(low) + 1.0


def _layer(scores: NDArray[np.floating[Any]], low: float, high: float) -> str:
    """Return a PNG in base 64 of one colour, which is more opaque where scores are higher."""
    from PIL import Image

    levels = np.clip((scores - low) / (high - low), 0, 1) * (_MAP_LEVELS - 1)
    image = Image.fromarray(np.rint(levels).astype(np.uint8))
    image.putpalette(bytes(_MAP_COLOUR * _MAP_LEVELS))
    opacity = np.linspace(0, 255 * _MAP_OPACITY, _MAP_LEVELS).astype(np.uint8).tobytes()
    stream = io.BytesIO()
    image.save(stream, "PNG", transparency=opacity, optimize=True)
    return base64.b64encode(stream.getvalue()).decode("ascii")


def _table_of_regions(
    regions: Iterable[FoundRegion], pictures: Iterable[Picture], images: Sequence[ScoredRow]
) -> list[RegionRow]:
    places = {picture.image: place for place, picture in enumerate(pictures)}
    rows = []
    for each in regions:
        shown, own = places.get(each.image), each.region
        link = None if shown is None else f"r{shown}-{each.number}"
        contrast = "–" if math.isnan(own.contrast) else f"{100 * own.contrast:+.2g} %"
        extent = [_length_text(side, each.pixel_size) for side in (own.length, own.breadth)]
        areas = _area_texts(own, each.pixel_size)
        cells = [significant(own.score), *areas, *extent, contrast.replace("-", "−")]
        rows.append(RegionRow(link, images[each.image].name, each.number, cells))
    return rows


def _area_texts(region: Region, pixel_size: float | None) -> list[str]:
    """Return the area of a region, with its interval if that is known, and its diameter."""
    interval = region.area_interval
    below = "below " if interval and interval[0] == 0 else ""
    area = interval[1] if interval and below else region.area
    unit, size = "px²", 1.0
    if pixel_size is not None:
        size, unit = pixel_size**2, "nm²"
        if area * size >= _MIN_UM2 * 1e6:
            size, unit = size / 1e6, "µm²"
    text = f"{below}{number_text(size * area)} {unit}"
    if interval and not below:
        text += f" ({interval_text(size * interval[0], size * interval[1])})"
    diameter = math.sqrt(4 * area / math.pi)
    return [text, below + _length_text(diameter, pixel_size)]


def _length_text(pixels: float, pixel_size: float | None) -> str:
    return f"{number_text(pixels)} px" if pixel_size is None else length_text(pixel_size * pixels)


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
    write_threshold_page(
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
        images=by_score(_evaluated_row(image) for image in result.images),
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
        ScoreGroup.of("Defect-free images", defect_free, FALSE_ALARMS, OTHERS),
        held_out_group(scorer),
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
