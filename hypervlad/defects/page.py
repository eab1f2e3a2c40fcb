"""The pages of defects: what was found in new images, and how well defects are found."""

from __future__ import annotations

import heapq
import io
import itertools
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup
from numpy.typing import ArrayLike, NDArray

from hypervlad.common.progress import by_reader
from hypervlad.common.wording import capitalised, counted, note_of_copies, percent, verb
from hypervlad.defects.displays import DetectionLimitsDisplay, score_limits
from hypervlad.defects.evaluation import DefectEvaluation, MapWithMask, gap_between_modes
from hypervlad.defects.findings import Finding, Region
from hypervlad.defects.groups import groups_of, ratios_of
from hypervlad.defects.limits import area_unit
from hypervlad.images import Micrograph, read_image
from hypervlad.objects.particle import Outline
from hypervlad.objects.results_folder import GroupedImages, Row
from hypervlad.pages import parts
from hypervlad.pages.colours import stretch_contrast
from hypervlad.pages.facts import is_extrapolated, page_facts
from hypervlad.pages.numbers import (
    decimal,
    interval_text,
    length_text,
    number_text,
    significant,
    thousands,
)
from hypervlad.particles.displays import svg_path
from hypervlad.statistics.classification import intervals_of_highest
from hypervlad.statistics.groups import Ratio

# The page's pictures and its table of regions
_MAX_PICTURES, _MAX_OUTLINES = 48, 5_000_000  # images, and letters of all their outlines
_MAX_REGIONS = 500
_SIDE, _MAP_SIDE = 800, 200  # pixels of the longer side, at least: of an image, and of a map
_MAP_PERCENTILES = (80, 99.8)  # of all maps: transparent and opaque
_MAP_COLOUR, _MAP_OPACITY, _MAP_LEVELS = (255, 0, 200), 0.6, 64
_FALSE, _OTHERS = ("false alarms", "found"), ("others", "other")
_HIT, _MISSED = ("found", "hit"), ("missed", "missed")
_CALLS, _TRUTHS = ("anomalous", "normal"), ("defective", "defect-free")
_OF_SCORES = (
    "The score of an image combines the highest scores of large and small parts of it. The "
    "training images were scored by models that were not trained on them. Only their defect-free "
    "places count, so those that reach the threshold are false alarms."
)
_GUESS = "The threshold is extrapolated from too few images; it may be far too low or too high."
_HOW = Markup(
    "To correct the regions and train on them: click on a false alarm, here or in the table. To "
    "add a defect that was missed, press <em>Draw missed</em> and draw around it. Tick "
    "<em>Reviewed</em> where everything is right. Save the masks, and {}"
)
_TRAIN = Markup(
    "train: <code>hypervlad defects fit good/ new/ --masks masks.json -o better.hvlad</code>. An "
    "image without a mask counts as defect-free, so give only reviewed images and images without "
    "defects."
)
_ACTION = "Mark as false alarm"
_AT_PAGE = "find defects in all images again: the reviewed ones are learnt, too."
_IN_GROUP = "other images in the same group."
_OF_GROUPS = (
    "Area and regions are means of images. Intervals are from how much the images of a group "
    "differ: those of one sample say nothing about others."
)
_OF_REGIONS = (
    "The peak is the highest score of a region. Areas are those inside the outlines, and diameters "
    "those of circles of these areas. Length and breadth are the longest and the shortest extent. "
    "Contrast is the mean grey level inside minus that around, in per cent of the range from black "
    "to white as images are read, of which some images use little."
)
_OF_INTERVALS = (
    " In parentheses: between which areas the defect probably is, from synthetic defects on "
    "held-out training images with outlines as large; without a lower end where that is unknown. "
    "Of large defects, the outline may show a part only."
)


class ScoredImage(NamedTuple):
    name: str
    score: float
    is_called: bool
    cells: Sequence[parts.Cell]


class Picture(NamedTuple):
    """An image with its outlines, and its scores, reduced."""

    image: int  # its place
    field: parts.Field
    scores: NDArray[np.float32]


class FoundRegion(NamedTuple):
    image: int  # its place in the run
    number: int  # among the regions of its image, from 1
    region: Region
    pixel_size: float | None


@dataclass
class FindingsPage:
    """What the page shows of images that come one by one; few of them are kept.

    `left_out` has the reasons for images that were left out, `notes` what was warned of others.
    """

    images: list[ScoredImage] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)  # of ``scores.csv``
    left_out: list[str] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    n_in_training: int = 0
    n_regions: int = 0
    _regions: list[FoundRegion] = field(default_factory=list)  # those with the highest peaks
    _pictures: list[tuple[float, int, Picture]] = field(default_factory=list)

    def add(self, row: Row, found: Finding, micrograph: Micrograph) -> None:
        name, place, size = row["path"], len(self.images), micrograph.pixel_size
        share, n = found.area_fraction, len(found.regions)
        self.n_in_training += found.in_training
        cells = ((percent(share), share), (str(n), n))
        self.images.append(ScoredImage(name, found.score, found.is_defective, cells))
        self.rows.append(row)
        self.n_regions += n
        # Regions have masks, so not those of all images are kept.
        own = (FoundRegion(place, k, each, size) for k, each in enumerate(found.regions, start=1))
        self._regions = heapq.nlargest(
            _MAX_REGIONS, [*self._regions, *own], key=lambda each: each.region.score
        )
        if len(self._pictures) < _MAX_PICTURES or found.score > self._pictures[0][0]:
            picture = _found(place, name, found, micrograph)
            heapq.heappush(self._pictures, (found.score, -place, picture))
        if len(self._pictures) > _MAX_PICTURES:
            heapq.heappop(self._pictures)

    @property
    def n_scored(self) -> int:
        return len(self.images)

    @property
    def n_anomalous(self) -> int:
        return sum(image.is_called for image in self.images)

    def ratios(self) -> dict[str, list[Ratio]]:
        """Return by what factors groups differ, by what differs."""
        return ratios_of(groups_of(GroupedImages.of(self.rows)))

    def pictures(self) -> list[Picture]:
        """Return the images with the highest scores, in order: fewer if outlines are long."""
        ordered = [picture for *_, picture in sorted(self._pictures, reverse=True)]
        lengths = (sum(len(each.d) for each in picture.field.outlines) for picture in ordered)
        return [
            picture
            for picture, total in zip(ordered, itertools.accumulate(lengths), strict=True)
            if total <= _MAX_OUTLINES
        ]

    def write(self, path: Path, scorer: Any) -> str | None:
        """Write the page; return its warning about the threshold, if any."""
        threshold, scores = scorer.threshold_, [image.score for image in self.images]
        warning, pictures = _threshold_warning(scores, threshold), self.pictures()
        called = ("called anomalous", "found")
        title = "All images, also those of training" if self.n_in_training else "New images"
        groups = [parts.Group(title, scores, above=called, below=_OTHERS), _held_out(scorer)]
        n_called, n = self.n_anomalous, self.n_scored
        lead = (
            f"Of {counted(n, 'image')}, {n_called} {verb(n_called, 'is', 'are')} called anomalous, "
            f"with {counted(self.n_regions, 'defective region')}."
        )
        new = [row["called"] == "anomalous" for row in self.rows if not row.get("in_training")]
        is_are = verb(sum(new), "is", "are")
        known = f" Of the {counted(len(new), 'new image')}, {sum(new)} {is_are}."
        lead += known * bool(self.n_in_training)
        some = f"The {len(pictures)} images with the highest scores, of {thousands(n)}"
        reviewed = (f"of {len(pictures)} reviewed",) * 2
        content = [
            parts.Note(lead, "lead"),
            _too_good(self.n_in_training),
            parts.notes_of_images(self.notes),
            warning and parts.warning("Check the threshold", f"{warning}."),
            is_extrapolated(scorer) and parts.warning("A guess", _GUESS),
            parts.section("Scores and threshold", _OF_SCORES, _chart(groups, threshold)),
            _groups_section(GroupedImages.of(self.rows)),
            self._regions_section(pictures),
            parts.section(
                "Pictures",
                pictures
                and ("All images" if len(pictures) == n else some)
                + ", the highest scores first. Lines surround the regions that were found at a "
                f"threshold of {_text_of(threshold, groups)}. The contrast of each picture is "
                "stretched.",
                pictures and _HOW.format(by_reader(_TRAIN, _AT_PAGE)),
                pictures and _with_maps(pictures, threshold, action=_ACTION, is_drawn=True),
            ),
            parts.section("Image by image", _sheet(self.images, ["Defective area", "Regions"])),
            parts.section("Left out", self.left_out and parts.Items(self.left_out)),
            len(scorer.limits_) and _limits_section(scorer),
            _scorer_section(scorer),
        ]
        task = parts.Decisions("masks.json", "Save masks", reviewed, masks=True)
        parts.write_page(path, "Defects found", content, decisions=task if pictures else None)
        return warning

    def _regions_section(self, pictures: Sequence[Picture]) -> parts.Section | None:
        """Return the table of regions, if there are any, with links to their pictures."""
        if not self._regions:
            return None
        shown = {picture.image for picture in pictures}
        rows, marks = [], []
        largest = max(each.region.area * (each.pixel_size or 1.0) ** 2 for each in self._regions)
        for each in self._regions:
            own, size = each.region, each.pixel_size or 1.0
            extents = own.length, own.breadth
            lengths = [(_length_text(v, each.pixel_size), size * v) for v in extents]
            area, diameter = _area_texts(own, each.pixel_size, largest)
            contrast = "–" if math.isnan(own.contrast) else f"{100 * own.contrast:+.2g} %"
            marks.append(f"r{each.image}-{each.number}" if each.image in shown else "")
            name = f"{self.images[each.image].name}, region {each.number}"
            cells = [(significant(own.score), own.score), (area, own.area * size**2)]
            cells += [(diameter, own.diameter * size), *lengths]
            rows.append([name, *cells, (contrast.replace("-", "−"), own.contrast)])
        some = f"The {len(rows)} regions with the highest peaks; regions.csv has all. "
        are_measured = any(each.region.area_interval is not None for each in self._regions)
        header = ["Image, region", "Peak", "Area", "Diameter", "Length", "Breadth", "Contrast"]
        sheet = parts.Sheet.of(
            "Regions",
            header,
            rows,
            unit="region",
            orders=[("the highest peaks first", "Peak", True)],
            links=[f"#{mark}" if mark else "" for mark in marks],
            marks=marks,
            action=_ACTION,
            file="regions.csv",
        )
        some *= len(rows) < self.n_regions
        return parts.section("Regions", some + _OF_REGIONS + _OF_INTERVALS * are_measured, sheet)


def _groups_section(grouped: GroupedImages) -> parts.Section | None:
    """Return what groups have of defects, and how they differ; nothing without several groups."""
    rows, groups = [], groups_of(grouped)
    for name, own in groups.items():
        rows.append([name, thousands(own.n_images)])
        for (value, *ends), unit in ((own.called, " %"), (own.area, " %"), (own.regions, "")):
            rows[-1] += [number_text(value) + unit, interval_text(*ends)]
    header = ["Group", "Images"]
    for title in ("Called anomalous", "Defective area", "Regions per image"):
        header += [title, "95 % interval"]
    copies = grouped.copies and capitalised(note_of_copies(grouped.copies, _IN_GROUP))
    shown = parts.Table(header, rows), copies, _OF_GROUPS, *parts.ratios(ratios_of(groups))
    return parts.section("Groups", *shown) if rows else None


def _too_good(n_in_training: int) -> parts.Part:
    known = verb(n_in_training, "is a training image", "are training images")
    text = f"{n_in_training} of them {known} (the same pixels), whose scores are too low."
    return n_in_training and parts.warning("Too good", text)


def _limits_section(scorer: Any) -> parts.Section | None:
    return parts.section(
        "What may be missed",
        "Synthetic defects were put on copies of held-out training images. The lines show from "
        "which area on they are found, by contrast, at the threshold of training.",
        parts.Figure.of(
            DetectionLimitsDisplay(scorer.limits_),
            "Smallest area that is found, by contrast and kind of defect",
            "Lines: found 9 times in 10; dashed: half the time.",
        ),
    )


def _scorer_section(scorer: Any) -> parts.Section | None:
    return parts.section("The scorer", parts.Table((), page_facts(scorer).items()))


# --- thresholds ----------------------------------------------------------------------------------


def _held_out(scorer: Any) -> parts.Group:
    scores = scorer.held_out_.scores
    ends = intervals_of_highest(scores, scorer.held_out_.groups.tolist())
    return parts.Group("Training images, held out", scores, above=_FALSE, below=_OTHERS, ends=ends)


def _chart(groups: Sequence[parts.Group], threshold: float) -> parts.Chart:
    """Return histograms of scores, and a slider that covers all of them."""
    shown = [group for group in groups if len(np.asarray(group.values))]
    scores = np.concatenate([group.values for group in shown] or [[threshold]])
    lowest, highest = float(scores.min()), float(scores.max())
    span = highest - lowest
    if lowest - span <= threshold <= highest + span:  # else the scores would have no room
        lowest, highest = min(lowest, threshold), max(highest, threshold)
    step = 10.0 ** math.floor(math.log10((highest - lowest) / 100 or abs(highest) or 1.0))
    ends = math.ceil(lowest / step) - 1, math.floor(highest / step) + 1
    # Without the digits that only rounding errors have.
    low, high, step = (float(f"{value:.12g}") for value in (ends[0] * step, ends[1] * step, step))
    how = by_reader("run the command again with --threshold", "find defects again with Threshold:")
    limit = parts.Threshold(threshold, _text_of(threshold, groups), low, high, step, how)
    return parts.Chart("score", shown, limit)


def _text_of(threshold: float, groups: Sequence[parts.Group]) -> str:
    """Return at least four digits, and as many as call the same images anomalous."""
    scores = np.concatenate([group.values for group in groups])
    texts = (f"{threshold:.{n_digits}g}" for n_digits in range(4, 18))  # 17 are exact
    called = scores >= threshold
    return next(text for text in texts if np.array_equal(scores >= float(text), called))


def _threshold_warning(scores: ArrayLike, threshold: float) -> str | None:
    """Return a warning if scores are in two groups and the threshold does not separate them."""
    found = gap_between_modes(scores)
    if found is None or found[0] < threshold <= found[1]:
        return None
    low, high = found
    # The middle with as few digits, two or more, as keep it between both.
    texts = (f"{(low + high) / 2:.{digits}g}" for digits in range(2, 18))
    middle = next((text for text in texts if low < float(text) <= high), repr(high))
    return (
        f"the scores of these images form two groups, up to {low:.4g} and from {high:.4g}, but the "
        f"threshold, {threshold:.4g}, does not separate them; if the second group has the defects, "
        f"--threshold {middle} does"
    )


def _sheet(images: Sequence[ScoredImage], header: Sequence[str]) -> parts.Sheet:
    """Return images, the highest scores first; what they are called follows the threshold."""
    rows = [[each.name, (significant(each.score), each.score), *each.cells] for each in images]
    orders = [("the highest scores first", "Score", True)]
    columns = ["Image", "Score", *header]
    sheet = parts.Sheet.of("Images", columns, rows, orders=orders, file="scores.csv")
    called = [_CALLS[not each.is_called] for each in images]
    sheet.columns.insert(2, parts.Column("Called", called, options=_CALLS, follows="Score"))
    return sheet


# --- pictures ------------------------------------------------------------------------------------


def _found(place: int, name: str, found: Finding, micrograph: Micrograph) -> Picture:
    size, outlines = micrograph.pixel_size, []
    for number, each in enumerate(found.regions, start=1):
        facts = f"peak {significant(each.score)}, {_area_texts(each, size)[0]}"
        words = f"Region {number}: {facts}", "region", f"region {number}"
        outlines.append(parts.Outline(f"r{place}-{number}", svg_path(each), *words))
    call = Markup('<span class="call" data-score="{}" data-above="{}" data-below="{}">{}</span>')
    score, is_called = float(found.score), found.is_defective
    caption = Markup("score {}, {}, {}").format(
        significant(score),
        call.format(repr(score), *_CALLS, _CALLS[not is_called]),
        counted(len(outlines), "region"),
    )
    shown = {"caption": caption, "outlines": outlines, "pixel_size": size}
    return _picture(place, name, micrograph.pixels, found.map, **shown)


def _picture(
    place: int, name: str, pixels: NDArray[Any], scores: NDArray[np.float32], **shown: Any
) -> Picture:
    from skimage.measure import block_reduce  # not above: importing it takes long

    # Many detectors use a small part of their range: unless stretched, their images are black.
    stretched = stretch_contrast(pixels)
    field = parts.Field.of(stretched, side=_SIDE, id=f"image-{place}", name=name, **shown)
    # The highest score of each of the blocks that cover the map.
    factor = max(1, max(scores.shape) // _MAP_SIDE)
    small = block_reduce(scores, factor, np.max, cval=scores.min())
    return Picture(place, field, np.asarray(small))


def _with_maps(pictures: Sequence[Picture], threshold: float, **values: Any) -> parts.Pictures:
    """Return pictures with their maps of scores, all in one scale."""
    limits = score_limits([each.scores for each in pictures], threshold, _MAP_PERCENTILES)
    low, high = (f"{end:.2g}".replace("-", "−") for end in limits)
    scale = low, high, _layer(np.linspace(*limits, 64)[None], *limits)
    shown = [replace(each.field, layer=_layer(each.scores, *limits)) for each in pictures]
    return parts.Pictures(shown, scale=scale, **values)


def _layer(scores: NDArray[np.floating[Any]], low: float, high: float) -> str:
    """Return a PNG in base 64 of one colour, which is more opaque where scores are higher."""
    from PIL import Image

    levels = np.rint(np.clip((scores - low) / (high - low), 0, 1) * _MAP_LEVELS) / _MAP_LEVELS
    rgba = np.full((*scores.shape, 4), (*_MAP_COLOUR, 0), np.uint8)
    rgba[..., 3] = 255 * _MAP_OPACITY * levels
    stream = io.BytesIO()
    Image.fromarray(rgba).save(stream, "PNG", optimize=True)
    return parts.base64_text(stream.getvalue())


def _area_texts(region: Region, pixel_size: float | None, largest: float = 0.0) -> list[str]:
    """Return the area of a region, with its interval if that is known, and its diameter.

    The unit suits the `largest` area of a table, in nm² or else in pixels.
    """
    size, unit = area_unit(largest / (pixel_size or 1.0) ** 2 or region.area, pixel_size)
    text = f"{number_text(size * region.area)} {unit.replace('um', 'µm').replace('2', '²')}"
    if region.area_interval is not None:
        low, high = region.area_interval
        text += f" ({interval_text(size * low or math.nan, size * high)})"
    return [text, _length_text(region.diameter, pixel_size)]


def _length_text(pixels: float, pixel_size: float | None) -> str:
    return f"{number_text(pixels)} px" if pixel_size is None else length_text(pixel_size * pixels)


# --- the page of an evaluation --------------------------------------------------------------------


def write_defect_report(
    path: str | os.PathLike[str], scorer: Any, images: Sequence[Any], result: DefectEvaluation
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
    >>> from hypervlad import PatchDefectScorer, add_defect, default_patch_encoder
    >>> from hypervlad import make_fibre_images
    >>> from hypervlad.evaluation import evaluate_defects
    >>> from hypervlad.results import write_defect_report
    >>> good, _ = make_fibre_images(4, size=64, random_state=0)
    >>> encoder = default_patch_encoder(weights="random")
    >>> scorer = PatchDefectScorer(encoder, fpr=0.25, random_state=0).fit(good)
    >>> made = [add_defect(mat, "stain", random_state=0) for mat in good[:2]]
    >>> images, masks = [image for image, _ in made], [mask for _, mask in made]
    >>> result = evaluate_defects(scorer, images, masks, ["a", "b"])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_defect_report(f"{folder}/defects.html", scorer, images, result).name
    'defects.html'
    """
    path, threshold, total = Path(path), result.threshold, result.confusion
    n = len(result.images)
    n_defective = sum(image.is_defective for image in result.images)
    n_found = sum(image.is_called and image.is_defective for image in result.images)
    n_clean = sum(i.confusion.false_positives for i in result.images if not i.is_defective)
    lead = (
        f"Of {counted(n, 'image')}, {n_defective} {verb(n_defective, 'has', 'have')} defects, and "
        f"the scorer finds {n_found} of them. False alarms: {result.false_alarms()}. Of "
        f"{total.true_positives + total.false_negatives} defective patches it finds "
        f"{total.true_positives}, and it calls {counted(total.false_positives, 'other patch')} "
        f"defective, {n_clean} in images without defects and {total.false_positives - n_clean} in "
        "images with defects."
    )
    scores = {
        name: percent(value) if "area" in name or "patch" in name else decimal(value)
        for name, value in result.scores().items()
    }
    defective, others = (
        [each.score for each in result.images if each.is_defective == own] for own in (True, False)
    )
    groups = [
        parts.Group("Defective images", defective, above=_HIT, below=_MISSED),
        parts.Group("Defect-free images", others, above=_FALSE, below=_OTHERS),
    ]
    rows = []
    for each in result.images:
        shares, f1 = (each.true_fraction, each.found_fraction), each.confusion.f1
        cells = *((percent(share), share) for share in shares), (decimal(f1), f1)
        rows.append(ScoredImage(each.name, each.score, each.is_called, cells))
    sheet = _sheet(rows, ["Truly defective", "Found defective", "Patch F1"])
    truth = [_TRUTHS[not each.is_defective] for each in result.images]
    sheet.columns.insert(3, parts.Column("Mask", truth, options=_TRUTHS))
    read = asdict(scorer.encoder_.fitted_params_.read_options)
    worst = [
        _compared(k, each, read_image(images[each.position], **read))
        for k, each in enumerate(result.worst)
    ]
    left_out = f"{counted(len(result.left_out), 'more image')} left out, such as: "
    some = f"Shown are the {len(worst)} images with the most wrong patches."
    content = [
        parts.Note(lead, "lead"),
        *[left_out + each for each in result.left_out[:1]],
        *[capitalised(f"the figures are {note_of_copies(result.copies)}.")] * bool(result.copies),
        _too_good(result.n_in_training),
        parts.notes_of_images(result.notes),
        parts.Numbers(scores),
        parts.Note(
            "AUROC: how often a defective image (or pixel) scores higher than a defect-free one; "
            "0.5 is guessing. Per-region overlap: the mean share of a defect that is found, over "
            "thresholds with at most 30 % of false pixels. Areas, and patches of "
            f"{result.patch} x {result.patch} pixels, of which a tenth must be defective, are "
            f"counted at the threshold, {significant(threshold)}."
        ),
        parts.section(
            "Scores and threshold", _OF_SCORES, _chart([*groups, _held_out(scorer)], threshold)
        ),
        parts.section(
            "Maps and masks",
            "Light blue lines surround true defects; orange lines surround those found. All maps "
            "share one scale. "
            + (
                some if len(worst) < n else "All images are shown, those with the most wrong first."
            ),
            _with_maps(worst, threshold),
        ),
        parts.section(
            "Image by image",
            f"Areas and patches are those at a threshold of {_text_of(threshold, groups)}.",
            sheet,
        ),
        _scorer_section(scorer),
    ]
    parts.write_page(path, "How well defects are found", content)
    return path


def _compared(number: int, each: MapWithMask, pixels: NDArray[np.float32]) -> Picture:
    """Return an image with the outlines of true and of found defects."""
    outlines = []
    both = (each.mask, "True defect", "true"), (each.found, "Found defect", "found")
    for k, (mask, title, style) in enumerate(both):
        if mask.any():
            path = svg_path(Outline(1, (0, 0, *mask.shape), mask))
            outlines.append(parts.Outline(f"r{number}-{k}", path, title, style))
    return _picture(number, each.name, pixels, each.scores, caption="", outlines=outlines)
