"""The page of fibre diameters: histograms, groups, and pictures with cross lines to check."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hypervlad.common.tables import table_as_bytes
from hypervlad.common.wording import counted, printable
from hypervlad.fibres import FibreDiameters, FolderDiameters, GroupDiameters, Interval, cross_lines
from hypervlad.fibres.contrast import Values
from hypervlad.fibres.diameters import without_places
from hypervlad.images import ReadOptions
from hypervlad.images.files import encode_jpeg
from hypervlad.images.reading import read_named
from hypervlad.pages.base import thumbnail
from hypervlad.pages.colours import stretch_contrast
from hypervlad.pages.files import (
    as_script,
    interval_text,
    number_text,
    scale_bar,
    thousands,
    write_page,
)

_MAX_PICTURES, _SIDE, _QUALITY = 24, 800, 80  # pixels of the longer side, at least
_REFUSALS = {
    "outside the mask": "on a scale bar or its label",
    "no whole fibre": "no fibre with both edges visible: crossings, neighbours, gaps, hidden sides",
    "not resolved": "thinner than the image resolves",
    "uncertain": "too uncertain, such as because of noise",
}
_PROFILES = {
    "flat": "even across",
    "rims": "strongest at their rims",
    "round": "weaker towards their edges",
    "transmission": "as in transmission",
}


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
    unreadable: Sequence[str],
) -> None:
    """Write the page; it is one file that works offline, with pictures of at most 24 images."""
    groups = () if compared is None else compared.groups
    unit = groups[0].places.unit if groups else "px"
    spaced = np.linspace(0, len(measured) - 1, min(len(measured), _MAX_PICTURES))
    shown = spaced.round().astype(int).tolist()
    has_samples = any(group.n_samples < group.n_images for group in groups)
    refused = Counter[str]()
    for image in measured:
        refused.update(image.found.refused)
    ratios = [
        [
            f"{one} over {other}",
            number_text(ratio),
            interval_text(between.low, between.high),
            _verdict(between),
        ]
        for one, other, ratio, between in (compared.ratios() if compared else ())
    ]
    write_page(
        path,
        "diameters.html",
        "pictures.css",
        "threshold.css",
        "diameters.css",
        "pictures.js",
        "diameters.js",
        title="Fibre diameters",
        unit=unit,
        numbers=(
            {f"median diameter in {unit}": number_text(groups[0].median)}
            if len(groups) == 1
            else {}
        )
        | {
            "images measured": thousands(sum(len(each.kept.diameters) > 0 for each in measured)),
            "places measured": thousands(sum(len(each.kept.diameters) for each in measured)),
            "places left out by hand": thousands(sum(each.is_left_out.sum() for each in measured)),
            "images without diameters": thousands(
                sum(not len(each.kept.diameters) for each in measured)
            ),
        },
        groups=groups,
        group_rows=[_group_row(group, has_samples) for group in groups],
        has_samples=has_samples,
        unknown=[
            each.name for each in measured if len(each.found.diameters) and each.found.unit != unit
        ],
        kinds={
            group.name: kinds_text(group.places.modes, unit)
            for group in groups
            if len(group.places.modes) > 1
        },
        ratios=ratios,
        pictures=[_picture(number, measured[number], options) for number in shown],
        n_images=len(measured),
        refused=[(_REFUSALS.get(name, name), thousands(n)) for name, n in refused.most_common()],
        image_rows=[_image_row(each) for each in measured],
        unreadable=unreadable,
        data=as_script(_data(measured, compared, unit, set(shown))),
    )


def _verdict(ratio: Interval) -> str:
    if np.isnan(ratio.low):
        return "two samples of each are needed"
    return "no difference shown" if ratio.low <= 1 <= ratio.high else "they differ"


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


def _image_row(image: MeasuredImage) -> list[str]:
    found = image.kept
    if not len(found.diameters):
        return [image.name, "–", "–", "0", found.reason or ""]
    return [
        image.name,
        f"{number_text(found.median)} {found.unit}",
        interval_text(found.interval.low, found.interval.high),
        thousands(len(found.diameters)),
        f"{found.polarity} fibres, {_PROFILES.get(found.profile or '', found.profile)}",
    ]


def _picture(number: int, image: MeasuredImage, options: ReadOptions) -> dict[str, Any]:
    pixels = read_named(image.source, options, image.name, with_digest=False).pixels
    small = thumbnail(stretch_contrast(pixels), _SIDE)
    factor = pixels.shape[0] // small.shape[0]
    return {
        "number": number,
        "name": image.name,
        "jpeg": base64.b64encode(encode_jpeg(small, 2 * _SIDE, _QUALITY)).decode("ascii"),
        "width": small.shape[1],
        "height": small.shape[0],
        "box": f"-0.5 -0.5 {factor * small.shape[1]} {factor * small.shape[0]}",
        "bar": scale_bar(pixels.shape[1], image.pixel_size),
        "row": _image_row(image),
        "n": len(image.kept.diameters),
    }


def _data(
    measured: Sequence[MeasuredImage],
    compared: FolderDiameters | None,
    unit: str,
    shown: Collection[int],
) -> dict[str, Any]:
    """Return what the script draws and computes with."""
    groups = () if compared is None else compared.groups
    names = [group.name for group in groups]
    images = []
    for number, image in enumerate(measured):
        found, group = image.found, None
        has_lines = number in shown or image.is_left_out.any()
        if len(found.diameters) and found.unit == unit and names:
            group = 0 if image.group is None else names.index(str(image.group))
        by_sample = group is not None and groups[group].interval_of == "samples"
        images.append(
            {
                "cell": table_as_bytes([printable(image.name)], []).decode().rstrip("\n"),
                "group": group,
                "part": str(image.sample) if by_sample else image.name,
                "unit": found.unit,
                "left_out": np.flatnonzero(image.is_left_out).tolist(),
                "ends": np.round(cross_lines(found, image.pixel_size), 2).tolist()
                if has_lines
                else [],
                "diameters": [float(f"{each:.5g}") for each in found.diameters],
                "weights": [float(f"{each:.5g}") for each in found.weights],
                "fibres": found.fibres.tolist() if has_lines else [],
            }
        )
    return {
        "unit": unit,
        "images": images,
        "modes": [group.places.modes[:, 0].tolist() for group in groups],
    }
