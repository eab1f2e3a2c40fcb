"""The page of found particles: counts, sizes, outlines to check, and fields with outlines."""

from __future__ import annotations

import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from hypervlad.common.progress import by_reader
from hypervlad.common.wording import capitalised, counted, name_some, percent, warn_user
from hypervlad.common.workbooks import name_and_unit
from hypervlad.images import ImageReadError
from hypervlad.images.reading import read_named
from hypervlad.objects.detection import Detection
from hypervlad.objects.fields import Field
from hypervlad.objects.found_counts import FoundCounts, whole_text
from hypervlad.objects.found_folder import FoundFolder
from hypervlad.objects.particle import check_same_size
from hypervlad.pages import parts
from hypervlad.pages.base import evenly_spaced, shorten
from hypervlad.pages.colours import CLASS_COLOURS, stretch_contrast
from hypervlad.pages.numbers import interval_text, length_text, number_text, share_of, thousands
from hypervlad.pages.paper import budget_section
from hypervlad.particles.displays import svg_path

if TYPE_CHECKING:
    import pandas as pd

_MAX_FIELDS, _MAX_OUTLINES = 24, 50_000  # of the pictures, in all
_FIELD_SIDE, _CROP_SIDE = 800, 160  # pixels of the longer side, at least
_NO_CLASS = "no class"
_LINES = ("solid", "dashed", "dotted")
# Particles to check
_N_UNCERTAIN, _N_EXTREME = 24, 12
_SURROUNDINGS, _MIN_CROP = 1.8, 32  # side of a crop over that of the box; in pixels
_MAX_LETTERS = 40  # of the name of its field
_OF_COUNTS = parts.Note(
    "Particles that touch an edge are outlined but not counted. By default, the others count for a "
    "little more than one, so that numbers per area are unbiased. Intervals contain the variation "
    "between images, and what finding misses and invents, as far as it is known."
)
REPORT = "figures, a table and methods for a paper: hypervlad report"
_OF_DETECTION = (
    "In images whose true outlines are known, and which the model had not learnt. Each particle "
    "counts for the true number of those of its size over the found one."
)
_OF_SIZES = parts.Note(
    "Half of the particles (by number) or of their area (by area) have at most the size D50."
)

Box = tuple[int, int, int, int]


def write_particles_page(
    path: str | os.PathLike[str], folder: FoundFolder, *, counts: FoundCounts | None = None
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
    notes += [] if counts is None else counts.notes
    galleries = _galleries(table)
    wanted = {row for *_, own in galleries for row in own}
    pictured, crops, unreadable = _pictures(folder, labels, names, wanted)
    if unreadable:
        warn_user(
            f"{counted(len(unreadable), 'image')} without a picture on {path}: "
            f"{name_some(unreadable)}"
        )
    checks: list[parts.Part] = []
    for title, words, own in galleries:
        shown = parts.Pictures([crops[row] for row in own if row in crops], is_main=False)
        checks += [Markup("<strong>{}.</strong> {}").format(title, words), shown]
    switches = [(name, _style(name, names), thousands(labels.count(name))) for name in columns]
    some = f"{len(pictured)} of {counted(len(fields), 'image')}, evenly spaced; the table has all. "
    some *= len(pictured) < len(fields)
    numbers = Counter(zip(table["micrograph"], labels, strict=True))
    totals = table["micrograph"].value_counts()
    rows = [
        [name, *((str(n), n) for n in (totals.get(name, 0), *(numbers[name, o] for o in columns)))]
        for name in (field.micrograph for field in fields)
    ]
    header = ["Image", "Particles", *columns]
    numbers_shown = {
        "particles outlined": thousands(len(table)),
        "touch an edge": thousands(int(table["touches_edge"].to_numpy(bool).sum())),
        "images searched": thousands(len(fields)),
        "images without particles": thousands(len(fields) - table["micrograph"].nunique()),
    }
    content = [
        parts.Numbers(numbers_shown),
        parts.Items([f"{capitalised(note)}." for note in notes]),
        *([] if counts is None else _of_counts(counts, names)),
        parts.section("Outlines to check", *(checks or ["There are none."])),
        parts.section(
            "Images",
            f"{some}Point at an outline for the number of its particle.",
            parts.Items(unreadable, "warning"),
            parts.Pictures(pictured, switches=switches),
        ),
        parts.section(
            "Image by image",
            parts.Sheet.of("Images", header, rows, unit="image", file="fields.csv"),
        ),
    ]
    parts.write_page(path, "Particles found", content)
    return path


def _of_counts(counts: FoundCounts, names: Sequence[str]) -> list[parts.Part]:
    """Return the sections of counts and sizes; in histograms, particles have their weights."""
    import pandas as pd

    sizes, own, (measure, unit) = counts.sizes, counts.particles[""], name_and_unit(counts.measure)
    measure = measure.replace("_", " ") + f" in {unit}" * bool(unit)
    is_shown, shown = own.is_measured(counts.measure), own.sample(counts.measure)
    labels = own.table["class"] if "class" in own.table else np.full(len(own.table), _NO_CLASS)
    of_class = {name: np.asarray(labels == name)[is_shown] for name in names}
    chart = parts.Chart(
        measure,
        [
            parts.Group(
                name if "class" in own.table else "",
                shown.values[is_own],
                shown.weights[is_own].round(4),
                f"{counted(int(is_own.sum()), 'particle')}, which count for "
                f"{number_text(shown.weights[is_own].sum())}",
                style=_style(name, names),
            )
            for name, is_own in of_class.items()
        ],
    )
    words = counts.correction and f" are {counts.correction}."
    # The page of the app writes that report itself.
    how = by_reader(f"{capitalised(REPORT)} FOLDER -o DIR.", "")
    of_report = parts.Note(how) if how else None
    interval = "95 % interval"
    header = ["Class", "Outlined", "Count", interval, "Per µm²", interval]
    of_sizes = ["Class", "Particles", "D10", interval, "D50", interval, "D90", interval]
    rows, titles = count_rows(counts.counts), sizes["class"] + ", by " + sizes["by"]
    for name, (numbers, of_group) in counts.groups.items():
        rows += [[f"{name}: {row[0]}", *row[1:]] for row in count_rows(numbers)]
        titles = pd.concat([titles, f"{name}: " + of_group["class"] + ", by " + of_group["by"]])
        sizes = pd.concat([sizes, of_group])
    return [
        parts.section(
            "Counts", words and f"Counts{words}", parts.Table(header, rows), _OF_COUNTS, of_report
        ),
        parts.section(
            "Sizes",
            f"The {measure} of particles that touch no edge."
            + (words and f" Bars, D10, D50 and D90{words}"),
            chart,
            parts.Table(of_sizes, _rows(sizes, titles, "d10", "d50", "d90")),
            _OF_SIZES,
        ),
        parts.section("How groups differ", *parts.ratios(counts.ratios())),
        *_of_detection(own.detection),
        budget_section(counts.budget),
    ]


def _of_detection(detection: Detection | None) -> list[parts.Part]:
    """Return what share of particles is found, by size, where their true outlines are known."""
    if detection is None:
        return []
    rows = [
        [
            number_text(row.diameter),
            thousands(row.true),
            share_of(row.found, row.true),
            number_text(row.weight),
        ]
        for row in detection.by_size().itertuples()
    ]
    header = [f"Diameter ({detection.unit})", "Outlined by hand", "Found", "Each counts for"]
    return [parts.section("What is found, by size", _OF_DETECTION, parts.Table(header, rows))]


# --- pictures ------------------------------------------------------------------------------------


def _galleries(table: pd.DataFrame) -> list[tuple[str, str, list[int]]]:
    """Return titles, words, and rows of the table: particles to check."""
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
        galleries.append((title, words, rows.tolist()))
    return [each for each in galleries if each[2]]


def _pictures(
    folder: FoundFolder, labels: Sequence[str], names: Sequence[str], wanted: set[int]
) -> tuple[list[parts.Field], dict[int, parts.Field], list[str]]:
    """Return pictures of fields, crops by row of the table, and why some cannot be made."""
    fields, table = folder.fields, folder.table
    pictured, crops, unreadable = list[parts.Field](), dict[int, parts.Field](), list[str]()
    n_most = max(1, _MAX_OUTLINES * len(fields) // max(1, len(table)))
    shown = set(evenly_spaced(len(fields), min(_MAX_FIELDS, n_most)))
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
        pixels, drawn = stretch_contrast(image.pixels), list[parts.Outline]()
        for outline in outlines:
            found = rows.get(outline.label)  # none if it was drawn after the table was written
            if not is_shown and found not in wanted:
                continue
            label = _NO_CLASS if found is None else labels[found]
            text = "not in the table" if found is None else texts[found]
            words = f"{label}, {text}" if label != _NO_CLASS else text
            own = parts.Outline(
                f"p{number}-{outline.label}",
                svg_path(outline),
                f"Particle {outline.label}: {words}",
                _style(label, names),
            )
            drawn.append(own)
            if found not in wanted:
                continue
            particle = f"particle {outline.label}"
            if is_shown:
                particle = Markup('<a href="#{}">{}</a>').format(own.id, particle)
            caption = Markup("{}<br>{} of {}").format(words, particle, shorten(name, _MAX_LETTERS))
            crops[found] = parts.Field.of(
                pixels,
                side=_CROP_SIDE,
                part=_around(outline.box, field.shape),
                id=f"crop-{found}",
                name=name,
                caption=caption,
                outlines=[own],
            )
        if is_shown:
            pictured.append(
                parts.Field.of(
                    pixels,
                    side=_FIELD_SIDE,
                    pixel_size=field.pixel_size,
                    id=f"field-{number}",
                    name=name,
                    caption=_facts(field, len(outlines)),
                    outlines=drawn,
                )
            )
    return pictured, crops, unreadable


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
    texts = (f"{number_text(px)} px" if math.isnan(nm) else length_text(nm) for nm, px in sizes)
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


# --- tables --------------------------------------------------------------------------------------


def count_rows(counts: pd.DataFrame) -> list[list[str]]:
    table = counts.rename(columns={"low": "count_low", "high": "count_high"})
    return _rows(table, table["class"], "count", "per_um2")


def summary_line(found: FoundCounts) -> str:
    """Return the median size in one line, with its interval, and of how many particles it is."""
    sizes = found.sizes[found.sizes["by"] == "number"].iloc[-1]
    counts, unit = found.counts.iloc[-1], name_and_unit(found.measure)[1]
    whole = whole_text(int(sizes["particles"]), int(counts["particles"]))
    own = found.particles[""]
    interval = interval_text(sizes["d50_low"], sizes["d50_high"])
    of = f"{whole} in {counted(len(own.fields), 'image')}"
    line = f"D50 {number_text(sizes['d50'])} {unit}, 95 % {interval}, from {of}"
    if (known := own.detection) is None:
        return "; ".join(filter(None, [line, found.correction]))
    limit = known.mostly_missed_below()
    missed = "" if limit is None else f"; below {limit:.3g} {known.unit} most are missed"
    return line + missed


def count_lines(counts: pd.DataFrame, sizes: pd.DataFrame, measure: str) -> list[str]:
    """Return counts and sizes by number as a table in plain text."""
    unit = name_and_unit(measure)[1]
    header = ["class", "particles", "count", "95 %", "per um2", "95 %"]
    rows = [[*header, f"D10 ({unit})", f"D50 ({unit})", "95 %", f"D90 ({unit})"]]
    sizes = sizes[sizes["by"] == "number"].set_index("class")
    for row in count_rows(counts):
        d10, d50, *ends, d90 = sizes.loc[row[0], ["d10", "d50", "d50_low", "d50_high", "d90"]]
        rows.append(
            [*row, number_text(d10), number_text(d50), interval_text(*ends), number_text(d90)]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _rows(table: pd.DataFrame, titles: Iterable[str], *columns: str) -> list[list[str]]:
    rows = []
    for title, row in zip(titles, table.to_dict("records"), strict=True):
        rows.append([title, thousands(row["particles"])])
        for name in columns:
            interval = interval_text(row[f"{name}_low"], row[f"{name}_high"])
            rows[-1] += [number_text(row[name]), interval]
    return rows
