"""The page of fibre diameters: histograms, groups, and pictures with cross lines to check."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from hypervlad.common.progress import by_reader
from hypervlad.common.wording import counted
from hypervlad.fibres import FibreDiameters, FolderDiameters, GroupDiameters, cross_lines
from hypervlad.fibres.contrast import Values
from hypervlad.fibres.diameters import without_places
from hypervlad.images import ReadOptions
from hypervlad.images.reading import image_name, read_named
from hypervlad.objects.results_folder import ResultsFolder
from hypervlad.pages import parts
from hypervlad.pages.base import evenly_spaced
from hypervlad.pages.colours import stretch_contrast
from hypervlad.pages.numbers import interval_text, number_text, thousands

_MAX_PICTURES, _SIDE = 24, 800  # pixels of the longer side, at least
_REFUSALS = {
    "outside the mask": "on a scale bar or its label",
    "no whole fibre": "no fibre with both edges visible: crossings, neighbours, gaps, hidden sides",
    "not resolved": "thinner than the image resolves",
    "side by side": "probably several parallel fibres that touch",
    "uncertain": "too uncertain, such as because of noise",
}
_PROFILES = {
    "flat": "even across",
    "rims": "strongest at their rims",
    "round": "weaker towards their edges",
    "transmission": "as in transmission",
}
_OF_GROUPS = (
    "The median is the geometric mean of the medians of the images, or of the samples if several "
    "images show one. Its interval is from how much these differ; of one image, it says nothing "
    "about others. Mean, standard deviation (SD), D10 and D90 are of all places, weighted by "
    "visible length."
)
_STALE = Markup(
    "All numbers are those before your changes. Save the places that you left out, and {}."
)
_AGAIN = Markup("run the command again with <code>--resume --leave-out choice.csv</code>")
_AGAIN_AT_PAGE = "measure all images again"


@dataclass(frozen=True, eq=False)
class MeasuredImage:
    """An image, the diameters of all its places, and which of them a person has left out."""

    name: str
    source: Any
    group: Any
    sample: Any
    found: FibreDiameters
    is_left_out: NDArray[np.bool_]

    @property
    def pixel_size(self) -> float | None:
        return self.found.pixel_size

    @cached_property
    def kept(self) -> FibreDiameters:
        return without_places(self.found, self.is_left_out) if len(self.is_left_out) else self.found

    @property
    def description(self) -> str:
        """Which fibres were measured, or why none."""
        found = self.kept
        if not len(found.diameters):
            return found.reason or ""
        return f"{found.polarity} fibres, {_PROFILES.get(found.profile or '', found.profile)}"


def kinds_text(modes: Values, unit: str) -> str:
    """Return "8.12 nm (48 %), 20.3 nm (52 %)"."""
    return ", ".join(
        f"{number_text(median)} {unit} ({100 * share:.0f} %)" for median, _, share in modes.tolist()
    )


def write_diameter_page(
    path: Path,
    measured: Sequence[MeasuredImage],
    compared: FolderDiameters | None,
    options: ReadOptions,
    results: ResultsFolder,
) -> None:
    """Write the page; it is one file that works offline, with pictures of at most 24 images."""
    groups = () if compared is None else compared.groups
    shown = evenly_spaced(len(measured), _MAX_PICTURES)
    left_out = [np.flatnonzero(each.is_left_out).tolist() for each in measured]
    n_without = sum(not len(each.kept.diameters) for each in measured)
    numbers = {
        "images measured": thousands(len(measured) - n_without),
        "places measured": thousands(sum(len(each.kept.diameters) for each in measured)),
        "places left out by hand": thousands(sum(map(len, left_out))),
        "images without diameters": thousands(n_without),
    }
    if len(groups) == 1:
        (group,) = groups
        ends = interval_text(group.interval.low, group.interval.high)
        of = counted(group.n_images, "image")
        name = f"{group.places.unit}: mean of the medians of {of}, 95 % interval {ends}"
        numbers = {name: number_text(group.median)} | numbers
    some = f"{len(shown)} of {counted(len(measured), 'image')}, evenly spaced. "
    header = ["Image", "Median", "95 % interval", "Places", "Measured as"]
    refused = sum((Counter(each.found.refused) for each in measured), Counter[str]())
    reasons = [(_REFUSALS.get(name, name), thousands(n)) for name, n in refused.most_common()]
    content: list[parts.Part] = [
        parts.Numbers(numbers),
        parts.Items(results.left_out, "warning"),
        parts.notes_of_images(results.notes),
        *([] if compared is None else _of_groups(measured, compared)),
        parts.section(
            "Places to check",
            some
            * (len(shown) < len(measured))
            + "Each line should end on the edges of a fibre. Click a wrong one to leave it out, "
            "and again to take it back; with Shift, all lines of its fibre.",
            parts.Pictures(
                [_field(n, measured[n], options) for n in shown],
                label="Cross lines",
                action="Leave out",
            ),
        ),
        parts.section(
            "Image by image",
            parts.Sheet.of(
                *("Images", header, list(map(_row, measured))),
                links=[f"#f{n}" * (n in shown) for n in range(len(measured))],
                file="diameters.csv",
            ),
        ),
        parts.section(
            "Not measured",
            reasons and "Places on fibres that were tried, and the first reason against them.",
            reasons and parts.Table(["Reason", "Places"], reasons),
        ),
    ]
    decisions = parts.Decisions(
        file="choice.csv",
        button="Save what is left out",
        words=("place left out", "places left out"),
        decided=[f"f{n}-{place}" for n, places in enumerate(left_out) for place in places],
        header="path,x_px,y_px",
        lines={
            f"f{n}": [each.name, *(f"{x:.2f},{y:.2f}" for y, x in each.found.positions.tolist())]
            for n, each in enumerate(measured)
            if n in shown or left_out[n]
        },
    )
    parts.write_page(path, "Fibre diameters", content, decisions=decisions)


def _of_groups(measured: Sequence[MeasuredImage], compared: FolderDiameters) -> list[parts.Part]:
    """Return the sections of histograms and groups."""
    groups = compared.groups
    unit = groups[0].places.unit
    kinds_of = [group.places.modes for group in groups]
    with_kinds = [modes[: len(modes) if len(modes) > 1 else 0] for modes in kinds_of]
    charted = [
        parts.Group(
            group.name,
            _short(group.places.diameters),
            _short(group.places.weights),
            f"median {number_text(group.median)} {unit}, "
            f"{counted(len(group.places.diameters), 'place')}",
            f"kinds: {kinds_text(modes, unit)}" if len(modes) else "",
            modes=[median for median, *_ in modes],
        )
        for group, modes in zip(groups, with_kinds, strict=True)
    ]
    has_samples = any(group.n_samples < group.n_images for group in groups)
    header = ["Group", "Images", *(["Samples"] if has_samples else []), "Places"]
    header += [f"Median in {unit}", "95 % interval", "Mean ± SD", "D10", "D90", "Half as wide with"]
    unknown = [each.name for each in measured if each.kept.unit != unit and len(each.kept.weights)]
    no_group = f"In no group, because the pixel size is unknown: {', '.join(unknown)}"
    kinds = " Dashed lines are kinds of fibres, with their shares of the length."
    return [
        parts.section(
            "Diameters",
            f"How many {unit} of the visible length of the fibres have which diameter."
            + kinds * any(group.modes for group in charted),
            parts.Chart(f"diameter in {unit}", charted),
        ),
        parts.section(
            "Groups",
            parts.Table(header, [_group_row(group, has_samples) for group in groups]),
            parts.Note(_OF_GROUPS),
            unknown and parts.Note(no_group, "warning"),
            *parts.ratios({"median": compared.ratios()}),
            parts.Note(_STALE.format(by_reader(_AGAIN, _AGAIN_AT_PAGE)), "warning stale"),
        ),
    ]


def _group_row(group: GroupDiameters, has_samples: bool) -> list[str]:
    halved, places = "–", group.places
    if group.n_to_halve is not None:
        unit = "sample" if group.interval_of == "samples" else "image"
        halved = f"{counted(group.n_to_halve, unit)} in all"
    return [
        group.name,
        thousands(group.n_images),
        *([thousands(group.n_samples)] if has_samples else []),
        thousands(len(places.diameters)),
        number_text(group.median),
        interval_text(group.interval.low, group.interval.high),
        f"{number_text(places.mean)} ± {number_text(places.standard_deviation)}",
        *(number_text(each) for each in places.percentiles([10, 90])),
        halved,
    ]


def _row(image: MeasuredImage) -> list[Any]:
    found = image.kept
    n_places = thousands(len(found.diameters)), len(found.diameters)
    if not len(found.diameters):
        return [image.name, ("–", None), "–", n_places, image.description]
    median = f"{number_text(found.median)} {found.unit}", found.median
    interval = interval_text(found.interval.low, found.interval.high)
    return [image.name, median, interval, n_places, image.description]


def _field(number: int, image: MeasuredImage, options: ReadOptions) -> parts.Field:
    found, kept, key = image.found, image.kept, f"f{number}"
    pixels = read_named(image.source, options, image_name(image.source), with_digest=False).pixels
    ends = np.round(2 * cross_lines(found, image.pixel_size) + 1, 2).tolist()  # in half pixels
    median = f"median {number_text(kept.median)} {kept.unit}, "
    places = f"{counted(len(kept.diameters), 'place')}; "
    outlines = [
        parts.Outline(
            f"{key}-{place}",
            f"M{x1:g} {y1:g}L{x2:g} {y2:g}",
            f"{number_text(found.diameters[place])} {found.unit}",
            name=f"place {place + 1}",
            fibre=int(found.fibres[place]),
        )
        for place, ((y1, x1), (y2, x2)) in enumerate(ends)
    ]
    return parts.Field.of(
        stretch_contrast(pixels),
        side=_SIDE,
        frame=(1024, 1024),
        pixel_size=image.pixel_size,
        id=key,
        name=image.name,
        caption=(median + places) * bool(len(kept.diameters)) + image.description,
        outlines=outlines,
        has_lines=True,
    )


def _short(values: Values) -> list[float]:
    return [float(f"{each:.5g}") for each in values]
