"""What folders of diameters and of alignment say, for a paper."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from hypervlad.common.progress import by_reader
from hypervlad.common.wording import counted, name_some, note_of_copies, note_of_unscaled, verb
from hypervlad.fibres.alignment import DEFAULT_METHOD, EXCESS
from hypervlad.fibres.alignment_page import FIGURES, MAPS
from hypervlad.fibres.alignment_page import TABLES as ALIGNMENT_TABLES
from hypervlad.fibres.diameter_groups import ALL_IMAGES
from hypervlad.fibres.diameter_tables import (
    GROUPS_TABLE,
    IMAGES_TABLE,
    PLACES_TABLE,
    RATIOS_TABLE,
)
from hypervlad.objects.results_folder import GroupedImages, Row, made_with, read_results, read_rows
from hypervlad.pages import paper, parts
from hypervlad.pages.base import evenly_spaced
from hypervlad.pages.numbers import interval_text, number_text
from hypervlad.pages.paper import Result
from hypervlad.statistics.groups import Interval, Ratio, Sample, widened, with_error

_NO_SIZE = "Not all images state their pixel size; {}"
_NO_SAMPLES = "It is not known which images are of one sample"
_SHARE = f"Of visible length, not by number, which 2022/C 229/01 asks for; {paper.OF_SHARE}"
_OF_MEDIAN = "Geometric mean of the medians of {}s, with Student's interval of how much they differ"
_OF_IMAGE = "Median of one image, with the interval of that image"
_NO_LENGTHS = (
    "Fibres are not followed to their ends; hypervlad.fibres.find_fibres outlines single ones"
)
_BINS = np.linspace(-90, 90, 37)  # degrees
_OF_IMAGES = {  # columns
    "fraction": ("aligned fraction of the area with fibres", 100, "%"),
    "fibre_fraction": ("aligned fraction of fibre pixels", 100, "%"),
    "order_parameter": ("order parameter, 1 if parallel", 1, ""),
    "spread_deg": ("angular spread", 1, "°"),
    "fibre_share": ("share of fibre pixels", 100, "%"),
}
_USELESS = 0.99  # of what is possible: an interval that says nothing
_MAX_SPREAD = 90  # degrees between two axes, at most
_SAME_WINDOW = 1.1  # times: sides of windows in nm, which are rounded to pixels
_MAX_FIGURES = 24
_HEADER = "Image", "Aligned area, %", "Mean direction, °", "Order parameter", "Spread, °"
_ABOUT_IMAGES = (
    "In brackets: 95 % intervals, from how much the parts of an image differ and how far "
    "directions can be measured. Directions are counter-clockwise from the horizontal, from 0 to "
    "180°: an interval may go from 175 to 5, and is 0 to 180 where any direction is possible."
)


def diameters_report(folder: Path, weight: str | None) -> paper.Report:
    """Describe diameters: all pooled, and the means of medians of ``groups.csv``."""
    paper.check_weight(weight, "length")
    of_images, of_places = read_results(folder / IMAGES_TABLE, folder / PLACES_TABLE)
    images = {row["path"]: row for row in of_images}
    groups = list(read_rows(folder / GROUPS_TABLE, "shared_error"))  # newest column
    if not groups:
        raise ValueError(f"{folder}: no image has diameters; {IMAGES_TABLE} says why (reason)")
    unit = "nm" if any("median_nm" in each for each in groups) else "px"
    bar_error = max(float(row.get("scale_bar_error") or 0) for row in of_images)
    of_image = defaultdict[str, list[Row]](list)
    for row in of_places:
        if row["left_out"] == "0" and row[f"diameter_{unit}"]:
            of_image[row["path"]].append(row)
    # In a group, as in groups.csv
    copies = GroupedImages.of(row for path, row in images.items() if path in of_image).copies
    rows = [row for path, own in of_image.items() if path not in copies for row in own]
    scale = paper.pixel_sizes_text(float(row["pixel_size_nm"] or 0) for row in images.values())
    histograms, results = list[paper.Histogram](), list[Result]()
    errors = [float(group["shared_error"]) for group in groups]
    for group, shared_error in zip(groups, errors, strict=True):
        error = math.hypot(shared_error, bar_error)
        name = "" if group["group"] == ALL_IMAGES else group["group"]
        own = [row for row in rows if name in ("", images[row["path"]]["group"])]
        if len(own) != int(group["places"]):
            raise ValueError(
                f"{folder / GROUPS_TABLE}: of {group['places']} places, while {PLACES_TABLE} has "
                f"{len(own)}; repeat the command that wrote both, without what is to be left out"
            )
        values = np.array([float(row[f"diameter_{unit}"]) for row in own])
        sizes = np.array([float(images[row["path"]]["pixel_size_nm"] or 1) for row in own])
        weights = np.array([float(row["length_px"]) for row in own]) * sizes
        n_samples = len({images[row["path"]]["sample"] for row in own} - {""})
        of, key = ("sample",) * 2 if group["interval_of"] == "samples" else ("image", "path")
        units = np.array([images[row["path"]][key] for row in own])
        fibres = np.array([f"{row['path']}\n{row['fibre']}" for row in own])
        sample = Sample(values, weights, units, within=fibres)
        ends = (f"median{end}_{unit}" for end in ("_low", "", "_high"))
        low, best, high = (float(group[end] or "nan") for end in ends)
        means = best, *with_error(low, best, high, bar_error)
        n_images = int(group["images"])
        counts = f"{counted(int(group['places']), 'place')}, {counted(n_images, 'image')}"
        of_median = _OF_IMAGE if group["interval_of"] == "image" else _OF_MEDIAN.format(of)
        drawn = paper.Histogram(name, sample, counts, of, error, thing="place")
        histograms.append(drawn)
        results += [
            Result("images with diameters", n_images, group=name),
            Result("samples", n_samples or None, source=_NO_SAMPLES * (not n_samples), group=name),
            *drawn.results("diameter", unit),
            Result.of(f"median, mean of {of}s", means, unit, of_median, name),
        ]
        if unit == "nm":
            thin = paper.share_below(sample, 100, error)
            results.append(Result.of("thinner than 100 nm", thin, "%", _SHARE, name))
    ratios = list[Ratio]()
    for row in read_rows(folder / RATIOS_TABLE, "over"):
        value, *reach = (float(row[name] or "nan") for name in ("ratio", "ratio_low", "ratio_high"))
        ratios.append(Ratio(row["group"], row["over"], value, Interval(*reach)))
    no_size = _NO_SIZE.format(paper.give_sizes())
    results += [
        *Result.ratios({"median diameters": ratios}),
        *([] if unit == "nm" else [Result("thinner than 100 nm", None, source=no_size)]),
        Result("fibres by NIOSH 7402", None, source=_NO_LENGTHS),
        Result("pixel size", scale, source="" if scale else no_size),
    ]
    caption = f"Diameters of fibres at {counted(len(rows), 'place')}, weighted by visible length."
    made, how = made_with(folder / IMAGES_TABLE), ""
    version = f" {made['version']}" if made else ""
    if "network" in made:
        how = f" (network {made['network']}, {made['polarity']} polarity)"
    kept = made.get("annotations") == "keep"
    n_out = sum(int(row["left_out"]) for row in images.values())
    n_measured = sum(row["places"] != "0" for row in images.values())
    factors = [f for row in images.values() if (f := float(row.get("enlarged", 1))) > 1]
    of = " and ".join(dict.fromkeys(f"{each.unit}s" for each in histograms))
    shared = " to ".join(dict.fromkeys(f"{100 * k:.2g}" for k in (min(errors), max(errors))))
    methods = [
        f"The diameters of fibres in {n_measured} of {counted(len(images), 'image')} were measured "
        f"with hypervlad{version} from the brightness across them{how}, where both edges of a "
        "fibre are visible, and weighted by visible length.",
        f"{counted(len(factors), 'image')}, which a program had enlarged up to "
        f"{max(factors, default=1):.3g} times, {verb(len(factors), 'was', 'were')} measured at the "
        "original sampling." * bool(factors),
        paper.annotations_text(kept, any(row["annotations"] for row in images.values())),
        f"A person left out {counted(n_out, 'place')}." * bool(n_out),
        f"Quantiles are of all places together, with 95 % intervals from how much {of} differ (R. "
        f"S. Woodruff, J. Am. Stat. Assoc. 47, 1952) and an error of {shared} % that all "
        "images of a group may share.",
        paper.scale_text(scale, bar_error),
    ]
    without = {name: row["reason"] for name, row in images.items() if not row[f"median_{unit}"]}
    notes = [f"no diameters in {name}: {reason}" for name, reason in without.items() if reason]
    notes += paper.notes_of(made, images.values())
    unscaled = [name for name, reason in without.items() if not reason]
    notes += [note_of_copies(copies, "other images in the same group")] * bool(copies)
    notes += [note_of_unscaled(unscaled, f"be in a group; {paper.give_sizes()}")] * bool(unscaled)
    shown = paper.Figure("fibre diameter", unit, "visible length", histograms, caption)
    return paper.Report("Fibre diameters", [shown], results, methods, notes=notes)


def alignment_report(folder: Path, weight: str | None) -> paper.Report:
    """Describe alignment: means of images, and directions of all fibre pixels."""
    paper.check_weight(weight, "number")
    every, _ = read_results(*(folder / name for name in ALIGNMENT_TABLES))
    grouped, shares = GroupedImages.of(every), np.zeros(len(_BINS) - 1)
    rows, results = grouped.rows[""], list[Result]()
    for name, each in grouped.rows.items():
        results += [Result("images", len(each), group=name), *_means(each, name)]
    with_fibres = [row for row in rows if row["mean_direction_deg"]]
    for row in with_fibres:
        kinds = "orientation", "coherence"  # 0 in the background
        maps = [tifffile.imread(folder / MAPS / f"{row['path']}.{kind}.tif") for kind in kinds]
        away = np.rad2deg(maps[0][maps[1] > 0]) - float(row["mean_direction_deg"])
        counts = np.histogram((away + 90) % 180 - 90, _BINS)[0]
        shares += counts / max(1, counts.sum())
    size = paper.pixel_sizes_text(float(row["pixel_size_nm"] or 0) for row in rows)
    results.append(
        Result("pixel size", size, source="" if size else _NO_SIZE.format(paper.give_sizes()))
    )
    made = made_with(folder / ALIGNMENT_TABLES[0])
    version, kept = f" {made['version']}" if made else "", made.get("annotations") == "keep"
    model = f" (SHA-256 {made['model'][:12]})" if "model" in made else ""
    of = f"{counted(len(with_fibres), 'image')}, each with the same weight"
    drawn = paper.Histogram(
        "", replace(Sample.of((_BINS[:-1] + _BINS[1:]) / 2), weights=shares), of
    )
    caption = f"Directions of fibre pixels from the mean direction of their image; {of}."
    # In pixels, lengths in nm differ between images of two magnifications.
    names = "sigma_px", "window_px", "tolerance_deg"
    sigma, window, tolerance = (" or ".join(dict.fromkeys(row[n] for row in rows)) for n in names)
    rule = f"where the spread of directions is below {tolerance}°"
    if rows[0]["method"] != DEFAULT_METHOD:
        rule = f"where a trained model says so{model}"
    methods = [
        f"Directions of fibres in {counted(len(with_fibres), 'image')} were measured with hypervlad"
        f"{version} by the structure tensor (Gaussian of {sigma} pixels; pixel size "
        f"{size or 'not known'}). Windows of {window} pixels count as aligned {rule}. "
        "Means of images have Student's 95 % intervals, from how much images differ and how far "
        "directions can be measured.",
        paper.annotations_text(kept, any(row["annotations"] for row in rows)),
    ]
    none = [row["path"] for row in rows if not row["mean_direction_deg"]]
    notes = grouped.notes + [f"no fibres in {name_some(none)}"] * bool(none) + _on_windows(rows)
    notes += paper.notes_of(made, rows)
    label = "direction from the mean of its image"
    shown = paper.Figure(label, "°", "fibre pixels", [drawn], caption, _BINS.tolist())
    images = _image_by_image(folder, every)
    return paper.Report("Alignment of fibres", [shown], results, methods, None, notes, images)


def _on_windows(rows: Sequence[Row]) -> list[str]:
    """Return what fractions of images of several magnifications cannot say."""
    sides = [float(row["window_nm"]) for row in rows if row["fraction"] and row["window_nm"]]
    if not sides or max(sides) <= _SAME_WINDOW * min(sides):
        return []
    how = by_reader("repeat with --window, in nm", "give the window in nm, and start again")
    ends = " to ".join(map(number_text, (min(sides), max(sides))))
    return [
        f"windows are {ends} nm wide, as images have several magnifications; aligned fractions "
        f"depend on that, so that images cannot be compared: {how}"
    ]


def _means(rows: Sequence[Row], group: str = "") -> list[Result]:
    """Return the means of what was measured of images, all or those of a group."""
    results = list[Result]()
    for column, (text, scale, unit) in _OF_IMAGES.items():
        known = scale * np.array([float(row[column]) for row in rows if row[column]])
        most = {"%": 100, "": 1}.get(unit, np.inf)
        if known.sum() > len(known) * most / 2:  # the smaller part is about log-normal
            ends = [most - each for each in Sample.of(most - known).mean()]
            ends[1:] = ends[:0:-1]
        else:
            ends = np.clip(Sample.of(known).mean(), 0, most).tolist()
        ends[1:] = _as_measured(column, ends, scale, rows)
        most = _MAX_SPREAD if unit == "°" else most
        if np.fmin(ends[2], most) - np.fmax(ends[1], 0) > _USELESS * most:
            ends[1:] = math.nan, math.nan
        elif unit == "°":
            ends[2] = _possible(ends[2])
        results.append(Result.of(f"{text}, mean", ends, unit, paper.OF_MEAN, group))
    return results


def _image_by_image(folder: Path, rows: Sequence[Row]) -> list[parts.Part]:
    """Return a table of images, and the figures that were written of them."""

    def cell(row: Row, column: str, scale: float = 1) -> tuple[str, float | None]:
        stem = column.removesuffix("_deg")
        names = (column.replace(stem, stem + end) for end in ("", "_low", "_high"))
        best, low, high = (round(scale * float(row.get(name) or "nan"), 2) for name in names)
        if math.isnan(best):
            return "–", None
        if stem == "spread":
            high = _possible(high)
            if math.isnan(_possible(best)):
                return f"above {_MAX_SPREAD}", best
        interval = "" if low != low and high != high else f" ({interval_text(low, high)})"
        return number_text(best) + interval, best

    table = [
        [
            row["path"],
            cell(row, "fraction", 100),
            cell(row, "mean_direction_deg"),
            cell(row, "order_parameter"),
            cell(row, "spread_deg"),
        ]
        for row in rows
    ]
    drawn = [row["path"] for row in rows if (folder / FIGURES / f"{row['path']}.png").is_file()]
    figures = list[parts.Figure]()
    for n in evenly_spaced(len(drawn), _MAX_FIGURES):
        with Image.open(folder / FIGURES / f"{drawn[n]}.png", formats=["PNG"]) as stored:
            pixels = np.asarray(stored.convert("RGB")) / 255
        height, width = pixels.shape[:2]
        jpeg = f"data:image/jpeg;base64,{parts.jpeg_text(pixels, width)}"
        figures.append(parts.Figure(jpeg, drawn[n], "", width, height))
    some = f" Figures: {len(figures)} of {counted(len(drawn), 'image')}, evenly spaced."
    sheet = parts.Sheet.of("Images", _HEADER, table, file="alignment.csv")
    return [_ABOUT_IMAGES + some * (len(figures) < len(drawn)), sheet, *figures]


def _possible(spread: float) -> float:
    """Return an upper end in degrees, NaN if it is open: no axes are further apart."""
    return spread if spread <= _MAX_SPREAD else math.nan


def _as_measured(
    column: str, found: Sequence[float], scale: float, rows: Sequence[Row]
) -> tuple[float, float]:
    """Widen the interval of a mean by what all images may share: how directions are measured."""
    best, low, high = found
    if column == "order_parameter":
        return low, min(high * math.exp(2 * EXCESS), 1.0)
    if column == "spread_deg":
        return math.sqrt(max(low**2 - math.degrees(1) ** 2 * EXCESS, 0.0)), high
    names = "fraction", "fraction_least", "fraction_most"
    known = [[float(row.get(n) or "nan") for n in names] for row in rows if row["fraction"]]
    if column not in ("fraction", "fibre_fraction") or not known:
        return low, high
    below, above = np.diff(np.mean(known, axis=0)[[1, 0, 2]]).tolist()
    share = best / scale
    ends = share, low / scale, high / scale
    low, high = widened(ends, share - below, share + above)
    return scale * low, scale * high
