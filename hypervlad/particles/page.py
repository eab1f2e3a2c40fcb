"""The page of found particles: counts, sizes, outlines to check, and fields with outlines."""

from __future__ import annotations

import base64
import math
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hypervlad.common.wording import counted, name_some, percent, warn_user
from hypervlad.images import ImageReadError
from hypervlad.images.files import encode_jpeg
from hypervlad.images.reading import read_named
from hypervlad.objects.counts import Field, edge_weights
from hypervlad.objects.found_folder import FoundCounts, FoundFolder
from hypervlad.objects.particle import Outline, check_same_size
from hypervlad.pages.base import shorten, thumbnail
from hypervlad.pages.colours import CLASS_COLOURS, stretch_contrast
from hypervlad.pages.files import (
    interval_text,
    number_text,
    scale_bar,
    thousands,
    write_page,
)
from hypervlad.pages.lengths import length_text
from hypervlad.particles.displays import svg_path

if TYPE_CHECKING:
    import pandas as pd

_MAX_FIELDS, _MAX_OUTLINES = 24, 50_000  # of the pictures, in all
_FIELD_SIDE, _CROP_SIDE = 800, 160  # pixels of the longer side, at least
_QUALITY = 80
_NO_CLASS = "no class"
_LINES = ("solid", "dashed", "dotted")
# Particles to check
_N_UNCERTAIN, _N_EXTREME = 24, 12
_SURROUNDINGS, _MIN_CROP = 1.8, 32  # side of a crop over that of the box; in pixels
_MAX_LETTERS = 40  # of the name of its field
# Histograms of sizes
_MIN_BINS, _MAX_BINS, _BAR_PIXELS = 8, 30, 48
_MAX_TICKS = 8
_MIN_LOG_RATIO = 10  # of the largest and the smallest, for a logarithmic axis
_MAX_DIGITS_RATIO = 1000  # beyond it, only powers of ten have ticks

Box = tuple[int, int, int, int]
Drawn = tuple[Outline, str, str, str]  # with its style, class and size


class Shape(NamedTuple):
    """An outline: how it is drawn (CSS classes), and as a path of SVG in half pixels."""

    particle: int
    path: str
    style: str
    label: str
    facts: str


class Picture(NamedTuple):
    """An image in base 64, its size in pixels, and outlines over it."""

    jpeg: str
    width: int
    height: int
    shapes: list[Shape]


class PicturedField(NamedTuple):
    """A field; ``bar`` is the length of its scale bar in per cent of the width, and in words."""

    number: int
    name: str
    facts: str
    picture: Picture
    bar: tuple[float, str] | None


class Card(NamedTuple):
    """A particle to check, and the number of its field if that is pictured."""

    picture: Picture
    name: str
    field: int | None

    @property
    def short_name(self) -> str:
        return shorten(self.name, _MAX_LETTERS)


class SizeChart(NamedTuple):
    """Groups have a name, style, number and bars (left in per cent, height); ticks a text."""

    groups: list[tuple[str, str, int, list[tuple[float, float]]]]
    bar_width: float
    ticks: list[tuple[float, str]]


class Gallery(NamedTuple):
    """Particles to check, as rows of the table."""

    title: str
    words: str
    rows: list[int]


def write_particles_page(
    path: str | os.PathLike[str],
    folder: FoundFolder,
    *,
    counts: FoundCounts | None = None,
) -> Path:
    """Write a page of the particles in a folder: counts, sizes, outlines to check, and fields.

    The page is one file that works offline. It has pictures of at most 24 fields, and of fewer if
    they have thousands of particles; its tables list all.

    Parameters
    ----------
    path : path of an .html file
    folder : FoundFolder
        Its particles may have classes.
    counts : FoundCounts, optional
        By default those that ``folder.count()`` returns.

    Returns
    -------
    Path
        Where the page is.

    Raises
    ------
    ValueError
        If a table of the folder is damaged.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> from PIL import Image
    >>> from hypervlad.particles import find_in_images, find_particles
    >>> from hypervlad.results import write_particles_page
    >>> pixels = np.full((60, 80), 40, np.uint8)
    >>> pixels[20:40, 30:50] = 200
    >>> with tempfile.TemporaryDirectory() as root:
    ...     image = pathlib.Path(root, "a.png")
    ...     Image.fromarray(pixels).save(image)
    ...     found, _ = find_in_images(f"{root}/found", [image], find_particles, root=root)
    ...     write_particles_page(f"{root}/particles.html", found).name
    'particles.html'
    """
    if counts is None:
        folder.update()
    path, fields, table = Path(path), folder.fields, folder.table
    labels, has_classes = [_NO_CLASS] * len(table), "class" in table
    if has_classes:
        labels = table["class"].fillna(_NO_CLASS).tolist()
    names = list(dict.fromkeys([*folder.classes, *sorted(set(labels))]))
    columns = names if has_classes else []
    notes = list[str]()
    if counts is None:
        try:
            counts = folder.count()
        except ValueError as error:
            notes.append(f"no counts and sizes: {error}")
    of_counts: dict[str, Any] = dict.fromkeys(["count_rows", "size_rows", "measure", "chart"])
    if counts is not None:
        notes += counts.notes
        sizes, of_counts["measure"] = counts.sizes, _measure_text(counts.measure)
        of_counts["count_rows"] = count_rows(counts.counts)
        titles = sizes["class"] + ", by " + sizes["by"]
        of_counts["size_rows"] = _rows(sizes, titles, "d10", "d50", "d90")
        own = list(compress(labels, counts.is_counted))
        of_counts["chart"] = size_chart(table[counts.is_counted], counts.measure, own, names)
    galleries = _galleries(table)
    pictured, cards, unreadable = _pictures(folder, labels, names, galleries)
    if unreadable:
        warn_user(
            f"{counted(len(unreadable), 'field')} without a picture on {path}: "
            f"{name_some(unreadable)}"
        )
    numbers = Counter(zip(table["micrograph"], labels, strict=True))
    totals = table["micrograph"].value_counts()
    write_page(
        path,
        "particles.html",
        "pictures.css",
        "particles.css",
        "pictures.js",
        title="Particles found",
        numbers=_numbers(fields, table),
        notes=notes,
        legend=[(name, _style(name, names), labels.count(name)) for name in names],
        has_classes=has_classes,
        **of_counts,
        galleries=[(each, [cards[row] for row in each.rows if row in cards]) for each in galleries],
        pictured=pictured,
        unreadable=unreadable,
        field_header=["Field", "Particles", *columns],
        field_rows=[
            (name, totals.get(name, 0), *(numbers[name, label] for label in columns))
            for name in (field.micrograph for field in fields)
        ],
    )
    return path


# --- pictures ------------------------------------------------------------------------------------


def _galleries(table: pd.DataFrame) -> list[Gallery]:
    area, solidity = (table[name].to_numpy(np.float64) for name in ("area_px2", "solidity"))
    inside = ~table["touches_edge"].to_numpy(bool)
    n_extreme = min(_N_EXTREME, -(-len(table) // 4))
    several = "They may be several particles in one outline"
    found = [
        (n_extreme, np.where(inside, area, np.nan), "Smallest", "They may be noise."),
        (n_extreme, -area, "Largest", f"{several}, or background."),
        (n_extreme, solidity, "Least convex", f"{several}, or curved or branched."),
    ]
    if "confidence" in table:
        words = "The classifier gives their class the lowest probabilities."
        confidence = table["confidence"].to_numpy(np.float64)
        found.insert(0, (_N_UNCERTAIN, confidence, "Least certain classes", words))
    galleries = []
    for n, key, title, words in found:
        rows = np.argsort(key, kind="stable")[: min(n, np.isfinite(key).sum())]  # NaN last
        galleries.append(Gallery(title, words, rows.tolist()))
    return [gallery for gallery in galleries if gallery.rows]


def _pictures(
    folder: FoundFolder, labels: Sequence[str], names: Sequence[str], galleries: Sequence[Gallery]
) -> tuple[list[PicturedField], dict[int, Card], list[str]]:
    """Return pictures of fields, cards by row of the table, and why some cannot be made."""
    fields, table = folder.fields, folder.table
    pictured, cards, unreadable = list[PicturedField](), dict[int, Card](), list[str]()
    n_most = max(1, _MAX_OUTLINES * len(fields) // max(1, len(table)))
    spaced = np.linspace(0, len(fields) - 1, min(len(fields), _MAX_FIELDS, n_most))
    shown = set(spaced.round().astype(int).tolist())
    wanted = {row for gallery in galleries for row in gallery.rows}
    texts, rows_of = _descriptions(table), defaultdict[str, dict[int, int]](dict)
    for row, pair in enumerate(zip(table["micrograph"], table["particle"], strict=True)):
        rows_of[pair[0]][pair[1]] = row
    for number, field in enumerate(fields):
        name, rows, is_shown = field.micrograph, rows_of[field.micrograph], number in shown
        if not is_shown and wanted.isdisjoint(rows.values()):
            continue
        try:
            image = read_named(folder.image(name), folder.read_options, name, with_digest=False)
            outlines = folder.outlines(name)
            check_same_size(outlines, image.pixels, name)
        except ImageReadError as error:
            unreadable.append(str(error))
            continue
        pixels, drawn = stretch_contrast(image.pixels), list[Drawn]()
        for outline in outlines:
            found = rows.get(outline.label)  # none if it was drawn after the table was written
            label, text = (
                (_NO_CLASS, "not in the table") if found is None else (labels[found], texts[found])
            )
            drawn.append((outline, _style(label, names), label, text))
            if found in wanted:
                box = _around(outline.box, field.shape)
                picture = _picture(pixels, box, _CROP_SIDE, drawn[-1:])
                cards[found] = Card(picture, name, number if is_shown else None)
        if is_shown:
            picture = _picture(pixels, (0, 0, *field.shape), _FIELD_SIDE, drawn)
            facts = _facts(field, len(outlines))
            pictured.append(
                PicturedField(
                    number, name, facts, picture, scale_bar(field.shape[1], field.pixel_size)
                )
            )
    return pictured, cards, unreadable


def _facts(field: Field, n_particles: int) -> str:
    height, width = field.shape
    size = "" if field.pixel_size is None else f", {field.pixel_size:.4g} nm per pixel"
    return f"{counted(n_particles, 'particle')}, {width} x {height} pixels{size}"


def _style(name: str, names: Sequence[str]) -> str:
    turn, place = divmod([*names, name].index(name), len(CLASS_COLOURS))
    return f"k{place} {_LINES[turn % len(_LINES)]}"


def _descriptions(table: pd.DataFrame) -> list[str]:
    """Return the probability of the class of each particle, if there is one, and its size."""
    shares = [""] * len(table)
    if "confidence" in table:
        shares = [f"{percent(share)}, " for share in table["confidence"]]
    sizes = zip(table["equivalent_diameter_nm"], table["equivalent_diameter_px"], strict=True)
    texts = (f"{px:.3g} px" if math.isnan(nm) else length_text(nm) for nm, px in sizes)
    return [share + text for share, text in zip(shares, texts, strict=True)]


def _around(box: Box, shape: tuple[int, int]) -> Box:
    """Return a square around a box, moved into the field, or as much of it as fits."""
    side = max(_MIN_CROP, round(_SURROUNDINGS * max(box[2] - box[0], box[3] - box[1])))
    starts = [
        max(0, min((low + high - side) // 2, length - side))
        for low, high, length in zip(box[:2], box[2:], shape, strict=True)
    ]
    ends = [min(start + side, length) for start, length in zip(starts, shape, strict=True)]
    return starts[0], starts[1], ends[0], ends[1]


def _picture(pixels: NDArray[np.float32], box: Box, side: int, drawn: Sequence[Drawn]) -> Picture:
    """Shrink a box of a field to at least `side` pixels, and draw outlines over it."""
    top, left, bottom, right = box
    small = thumbnail(pixels[top:bottom, left:right], side)
    factor = max(1, min(max(bottom - top, right - left) // side, bottom - top, right - left))
    shapes = [
        Shape(outline.label, svg_path(_shrunk(outline, top, left, factor)), *words)
        for outline, *words in drawn
    ]
    jpeg = base64.b64encode(encode_jpeg(small, 2 * side, _QUALITY)).decode("ascii")
    return Picture(jpeg, small.shape[1], small.shape[0], shapes)


def _shrunk(outline: Outline, top: int, left: int, factor: int) -> Outline:
    """Return the blocks of pixels, counted from a corner, in which a particle has any."""
    from skimage.measure import block_reduce  # not above: importing it takes long

    row, above = divmod(outline.box[0] - top, factor)
    column, beside = divmod(outline.box[1] - left, factor)
    mask = block_reduce(np.pad(outline.mask, ((above, 0), (beside, 0))), factor, np.max)
    return Outline(outline.label, (row, column, row + len(mask), column + mask.shape[1]), mask)


# --- tables --------------------------------------------------------------------------------------


def _numbers(fields: Sequence[Field], table: pd.DataFrame) -> dict[str, str]:
    n_empty = len(fields) - table["micrograph"].nunique()
    return {
        "particles outlined": thousands(len(table)),
        "touch an edge": thousands(int(table["touches_edge"].to_numpy(bool).sum())),
        "fields searched": thousands(len(fields)),
        "fields without particles": thousands(n_empty),
    }


def count_rows(counts: pd.DataFrame) -> list[list[str]]:
    table = counts.rename(columns={"low": "count_low", "high": "count_high"})
    return _rows(table, table["class"], "count", "per_um2")


def _rows(table: pd.DataFrame, titles: Iterable[str], *columns: str) -> list[list[str]]:
    rows = []
    for title, row in zip(titles, table.to_dict("records"), strict=True):
        rows.append([title, thousands(row["particles"])])
        for name in columns:
            interval = interval_text(row[f"{name}_low"], row[f"{name}_high"])
            rows[-1] += [number_text(row[name]), interval]
    return rows


def size_chart(
    table: pd.DataFrame, measure: str, labels: Sequence[str], names: Sequence[str]
) -> SizeChart | None:
    """Return histograms of a measure; particles count as `edge_weights` says."""
    from matplotlib.ticker import Locator, LogLocator, MaxNLocator

    sizes, weights = table[measure].to_numpy(np.float64), edge_weights(table)
    is_shown = (weights > 0) & np.isfinite(sizes)
    if not is_shown.any():
        return None
    low, high = float(sizes[is_shown].min()), float(sizes[is_shown].max())
    if low == high:
        low, high = 0.9 * low, 1.1 * high
    is_log = low > 0 and high / low > _MIN_LOG_RATIO
    scaled = np.log if is_log else np.asarray
    n_bins = int(np.clip(2 * math.sqrt(is_shown.sum()), _MIN_BINS, _MAX_BINS))
    edges = np.linspace(scaled(low), scaled(high), n_bins + 1)
    locator: Locator = MaxNLocator(_MAX_TICKS, steps=[1, 2, 5, 10])
    if is_log:
        locator = LogLocator(subs=(1, 2, 5) if high / low < _MAX_DIGITS_RATIO else (1,))
    values = np.asarray(locator.tick_values(low, high))
    values = values[(values >= low) & (values <= high)]
    places = 100 * (scaled(values) - edges[0]) / (edges[-1] - edges[0])
    groups = []
    for name in names:
        own = is_shown & (np.array(labels) == name)
        # The ends of the axis may differ in the last digit from the sizes.
        clipped = np.clip(scaled(sizes[own]), edges[0], edges[-1])
        heights, _ = np.histogram(clipped, edges, weights=weights[own])
        heights *= _BAR_PIXELS / max(heights.max(), 1e-9)
        bars = [(100 * i / n_bins, round(height, 2)) for i, height in enumerate(heights) if height]
        groups.append((name, _style(name, names), int(own.sum()), bars))
    ticks = [(round(place, 3), f"{value:,g}") for place, value in zip(places, values, strict=True)]
    return SizeChart(groups, 100 / n_bins, ticks)


def _measure_text(measure: str) -> str:
    """Return "equivalent diameter in nm" for "equivalent_diameter_nm"."""
    text = re.sub("_(nm|px)(2?)$", lambda unit: f" in {unit[1]}{'²' * bool(unit[2])}", measure)
    return text.replace("_", " ")
