"""Fibre diameters of many images as files: tables, a page, and regions for ImageJ."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hypervlad._version import __version__
from hypervlad.common.progress import by_reader, note_doubt
from hypervlad.common.wording import counted, name_some, note_of_unscaled, verb, warn_user
from hypervlad.fibres import FibreDiameters, FolderDiameters, Interval, compare_groups, cross_lines
from hypervlad.fibres.contrast import Values
from hypervlad.fibres.diameter_page import MeasuredImage, kinds_text, write_diameter_page
from hypervlad.fibres.diameters import Polarity, fibre_diameters
from hypervlad.fibres.left_out import marked_places, read_left_out
from hypervlad.fibres.profile_network import ProfileNetwork
from hypervlad.images import PixelSizes, ReadOptions
from hypervlad.images.annotations import words_of_annotations
from hypervlad.images.options import check_read_options
from hypervlad.images.pixels import is_same_image
from hypervlad.images.reading import image_name, read_identity
from hypervlad.images.sample import Annotations, note_found
from hypervlad.objects.results_folder import (
    ResultsFolder,
    Row,
    read_rows,
    report_removed,
    write_rows,
)
from hypervlad.statistics.groups import weighted_quantiles

IMAGES_TABLE, PLACES_TABLE = "diameters.csv", "places.csv"
GROUPS_TABLE, RATIOS_TABLE, PAGE = "groups.csv", "ratios.csv", "diameters.html"
GONE_TABLE = "gone_places.csv"  # that a person left out, of images that are gone
TABLES = (IMAGES_TABLE, PLACES_TABLE, GROUPS_TABLE, RATIOS_TABLE, GONE_TABLE)
REGIONS = "roi"
_PLACE_COLUMNS = (
    *("path", "place", "fibre", "x_px", "y_px", "direction_deg", "diameter_px", "diameter_nm"),
    *("error_px", "length_px", "left_out"),
)
_REFUSED = "refused_"
_ANNOTATIONS = ("annotations", "annotation_share")  # columns
_KEPT_COLUMNS = {  # without which an image is measured again
    *("settings", "places", "pixel_size_nm", "median_low_px", "median_high_px", "profile"),
    *("polarity", "blur_px", "enlarged", "reason", "note", "image_digest", *_ANNOTATIONS),
}


def write_diameters(
    out_dir: str | os.PathLike[str],
    images: Sequence[Any],
    names: Sequence[str],
    *,
    groups: Sequence[Any] | None = None,
    samples: Sequence[Any] | None = None,
    polarity: Polarity = "auto",
    annotations: Annotations = "leave_out",
    read_options: Mapping[str, Any] | ReadOptions | None = None,
    leave_out: str | os.PathLike[str] | None = None,
    regions: bool = False,
    resume: bool = False,
    progress: bool = False,
) -> tuple[FolderDiameters | None, list[str]]:
    """Measure the fibre diameters of images, and write tables and a page.

    - ``diameters.csv``, ``places.csv``, ``groups.csv``: one line per image, place and group;
      ``ratios.csv``: how groups differ. ``hypervlad diameters --help`` explains the columns.
    - ``diameters.json``: the version of hypervlad, the network, and the parameters.
    - ``diameters.html``: histograms, groups, and pictures with cross lines to check.
    - ``roi/NAME.zip``: the cross lines as regions for ImageJ.

    The tables list the images that were measured, also if the run is interrupted. What only an
    earlier run in this folder had is removed at the end.

    Parameters
    ----------
    out_dir : path
        Made if it is missing.
    images : sequence of n paths or arrays
    names : sequence of n str
        Different relative paths, with forward slashes.
    groups, samples : sequence of n labels, optional
        As in `compare_groups`.
    polarity : {"auto", "bright", "dark"}, default="auto"
        As in `fibre_diameters`.
    annotations : {"leave_out", "keep"}, default="leave_out"
        As in `fibre_diameters`.
    read_options : dict or ReadOptions, optional
        How images are read, and the pixel size of those that state none.
    leave_out : path of a .csv file or "none", optional
        Places that count no more, as the page saves them: path, x_px, y_px. By default those that
        the run that is resumed had left out; "none" takes them back.
    regions : bool, default=False
        Write the regions for ImageJ, which requires the extra `formats`.
    resume : bool, default=False
        Keep what an earlier run with the same options has measured in this folder, of images that
        have the same pixels and pixel size.
    progress : bool, default=False
        Show a bar on stderr.

    Returns
    -------
    groups : FolderDiameters or None
        None if no image has diameters.
    left_out : list of str
        Why images could not be read. If none is left, nothing is written.

    Raises
    ------
    ValueError
        If lengths differ, names are the same, one is outside the folder, `leave_out` is no such
        table, or the folder has a table of this name that is not of an earlier run.

    Warns
    -----
    UserWarning
        If only some images have a pixel size: the others are in no group.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from hypervlad.data import make_fibre_images
    >>> from hypervlad.results import write_diameters
    >>> images, _ = make_fibre_images(1, diameter=9, size=256, random_state=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     groups, left_out = write_diameters(folder, images, ["a"])
    ...     sorted(file.name for file in pathlib.Path(folder).iterdir())
    ['diameters.csv', 'diameters.html', 'diameters.json', 'groups.csv', 'places.csv']
    """
    options, folder = check_read_options(read_options), Path(out_dir)
    is_table = leave_out is not None and os.fspath(leave_out) != "none"
    refused_places: dict[str, Any] = read_left_out(leave_out) if leave_out and is_table else {}
    measured, replaced = list[MeasuredImage](), list[str]()
    marks = defaultdict[str, list[Row]](list)  # places that were left out before
    labels = [[None] * len(names) if each is None else each for each in (groups, samples)]

    def files_of(name: str) -> Iterator[Path]:
        yield folder / REGIONS / f"{name}.zip"

    network = ProfileNetwork.pretrained().digest
    kept = ", annotations kept" * (annotations == "keep")
    method = f"hypervlad {__version__}{kept}, network {network}"
    made: dict[str, Any] = {"network": network, "polarity": polarity, "annotations": annotations}
    made |= {"read_options": options.without_files()}

    def measure(given: Sequence[Any]) -> tuple[MeasuredImage, dict[str, Any]]:
        image, name, group, sample = given
        digest, size = read_identity(image, options, image_name(image))
        settings = f"{method}, {polarity}, {_options_of(image, options)}, {digest[:16]}, {size} nm"
        before = results.earlier(name) if resume else None
        of_annotations: Sequence[Any]
        if before is not None and _is_kept(*before, settings):
            found = _stored(*before)
            of_annotations = [before[0][column] for column in _ANNOTATIONS]
            note_doubt(name, before[0]["note"])
        else:
            found = fibre_diameters(
                image, polarity=polarity, annotations=annotations, read_options=options
            )
            found = replace(found, digest=digest)
            note_doubt(name, "" if found.reason else found.note)
            of_annotations = words_of_annotations(found.annotations) or None, found.annotation_share
        points = refused_places.pop(name, None)
        if any(not is_same_image(digest, each["image_digest"]) for each in marks[name]):
            replaced.append(name)
            points = None
        is_out = marked_places(found.positions, points, name)
        row = dict(zip(("settings", *_ANNOTATIONS), (settings, *of_annotations), strict=True))
        if isinstance(options.pixel_size, PixelSizes):
            row["scale_bar_error"] = options.pixel_size.error_of(image, found.pixel_size)
        return MeasuredImage(name, image, group, sample, found, is_out), row

    tables = IMAGES_TABLE, PLACES_TABLE, _PLACE_COLUMNS
    of_images = zip(images, names, *labels, strict=True)
    with ResultsFolder.growing(folder, tables, files_of, made, names=names) as results:
        if resume and (leave_out is None or is_table):
            before = {row["path"]: row for row in read_rows(folder / IMAGES_TABLE)}
            of_gone = (p for p in read_rows(folder / GONE_TABLE) if p["path"] not in before)
            given = {*names, *refused_places} if is_table else set[str]()
            for p in (*read_rows(folder / PLACES_TABLE), *of_gone):
                if _is_left_out(p) and p["path"] not in given:
                    known = before.get(p["path"], p).get("image_digest", "")
                    marks[p["path"]].append({**p, "image_digest": known})
        for name, own in marks.items():
            refused_places[name] = [(float(p["y_px"]), float(p["x_px"])) for p in own]
        for name, (each, row) in results.measured(measure, of_images, names, progress=progress):
            note_found(name, replace(each.kept, note=""))
            files = list(files_of(name)) if regions else []
            if regions:
                from hypervlad.objects.imagej import write_line_regions  # not above: it takes long

                write_line_regions(files[0], cross_lines(each.kept, each.pixel_size))
            results.add(name, _image_row(each) | row, _place_rows(each), files)
            measured.append(each)
        if not measured:
            return None, results.left_out
        gone = [place for name in refused_places for place in marks[name]]
        if gone or (folder / GONE_TABLE).exists():
            write_rows(folder / GONE_TABLE, _PLACE_COLUMNS, gone)
        if refused_places:
            once = "" if leave_out else ", and left out again by --resume once they are"
            warn_user(
                f"{leave_out or folder / GONE_TABLE}: {counted(len(refused_places), 'image')} "
                f"{verb(len(refused_places), 'is', 'are')} not among those measured{once}: "
                f"{name_some(list(refused_places))}"
            )
        if replaced:
            warn_user(
                f"{name_some(replaced)}: other pixels than when places were left out there, which "
                "are not left out again"
            )
        compared = _compared(measured, has_samples=samples is not None)
        _write_groups(folder, compared)
        write_diameter_page(folder / PAGE, measured, compared, options, results)
    return compared, results.left_out


def _options_of(image: Any, options: ReadOptions) -> ReadOptions:
    """Return the options with the size of this image in place of a table of sizes."""
    if isinstance(options.pixel_size, PixelSizes):
        return replace(options, pixel_size=options.pixel_size.of(image))
    return options


def _compared(measured: Sequence[MeasuredImage], *, has_samples: bool) -> FolderDiameters | None:
    give_sizes = by_reader("give --resume --pixel-size NM or CSV", "give their sizes")
    with_fibres = [each for each in measured if len(each.kept.diameters)]
    known = [each for each in with_fibres if each.kept.unit == "nm"]
    if known and len(known) < len(with_fibres):
        unknown = [each.name for each in with_fibres if each.kept.unit == "px"]
        warn_user(note_of_unscaled(unknown, f"be in a group; {give_sizes}"))
    used = known or with_fibres
    if not used:
        return None
    if not known and len(used) > 1:
        warn_user(
            "no pixel size is known, so diameters are in pixels: together they mean something only "
            f"if all images have one magnification; {give_sizes}"
        )
    return compare_groups(
        [each.kept for each in used],
        None if used[0].group is None else [each.group for each in used],
        [each.sample for each in used] if has_samples else None,
    )


# --- tables --------------------------------------------------------------------------------------


def _statistics(found: FibreDiameters, median: float, interval: Interval) -> dict[str, float]:
    d10, d90 = found.percentiles([10, 90])
    return {
        "median": median,
        "median_low": interval.low,
        "median_high": interval.high,
        "mean": found.mean,
        "standard_deviation": found.standard_deviation,
        "d10": float(d10),
        "d90": float(d90),
    }


def _image_row(image: MeasuredImage) -> dict[str, Any]:
    found, size = image.kept, image.pixel_size
    row: dict[str, Any] = {"path": image.name, "group": image.group, "sample": image.sample}
    for name, value in _statistics(found, found.median, found.interval).items():
        row |= {f"{name}_px": value / (size or 1.0), f"{name}_nm": value if size else None}
    return row | {
        "places": len(found.diameters),
        "left_out": int(image.is_left_out.sum()),
        "kinds": kinds_text(found.modes, found.unit),
        "profile": found.profile,
        "polarity": found.polarity,
        "blur_px": found.blur,
        "enlarged": found.enlarged,
        "pixel_size_nm": size,
        "reason": found.reason,
        "image_digest": found.digest,
        **{_REFUSED + name.replace(" ", "_"): n for name, n in found.refused.items()},
    }


def _place_rows(image: MeasuredImage) -> Iterator[Row]:
    found, size = image.found, image.pixel_size
    scale = size or 1.0
    degrees = np.rad2deg(found.directions)
    for i, (y, x) in enumerate(found.positions.tolist()):
        diameter = float(found.diameters[i])
        cells = (
            image.name,
            i + 1,
            int(found.fibres[i]),
            *(x, y, float(degrees[i])),
            *(diameter / scale, diameter if size else None),
            *(float(found.errors[i]) / scale, float(found.weights[i]) / scale),
            int(image.is_left_out[i]),
        )
        yield dict(zip(_PLACE_COLUMNS, cells, strict=True))


def _is_kept(row: Row, places: Sequence[Row], settings: str) -> bool:
    if not row.keys() >= _KEPT_COLUMNS or row["settings"] != settings:
        return False
    # If all places were left out, the table has no interval that could be taken back.
    return not places or (row["places"] != "0" and places[0].keys() >= {*_PLACE_COLUMNS})


def _is_left_out(place: Row) -> bool:
    return place.get("left_out", "") not in ("", "0")


def _stored(row: Row, places: Sequence[Row]) -> FibreDiameters:
    """Return the diameters that `_image_row` and `_place_rows` wrote."""

    def column(name: str) -> Values:
        return np.array([float(each[name]) for each in places])

    size = float(row["pixel_size_nm"]) if row["pixel_size_nm"] else None
    scale, kept = size or 1.0, column("left_out") == 0
    diameters, weights = scale * column("diameter_px"), scale * column("length_px")
    # The interval in the table is that of the places that counted.
    (median,), (before,) = (
        weighted_quantiles(diameters[own], weights[own], [0.5]) for own in (kept | True, kept)
    )
    ends = [float(row[f"median_{end}_px"] or "nan") * scale for end in ("low", "high")]
    return FibreDiameters(
        diameters=diameters,
        errors=scale * column("error_px"),
        positions=np.stack([column("y_px"), column("x_px")], axis=1),
        directions=np.deg2rad(column("direction_deg")),
        weights=weights,
        fibres=column("fibre").astype(np.int64),
        interval=Interval(*(float(end * median / before) for end in ends)),
        refused={
            name.removeprefix(_REFUSED).replace("_", " "): int(value)
            for name, value in row.items()
            if name.startswith(_REFUSED) and value
        },
        profile=row["profile"] or None,
        polarity=row["polarity"],
        blur=float(row["blur_px"] or "nan"),
        unit="px" if size is None else "nm",
        reason=None if len(places) else row["reason"],
        pixel_size=size,
        enlarged=float(row["enlarged"]),
        digest=row["image_digest"],
    )


def _write_groups(folder: Path, compared: FolderDiameters | None) -> None:
    groups = () if compared is None else compared.groups
    rows = []
    for group in groups:
        places = group.places
        values = _statistics(places, group.median, group.interval).items()
        rows.append(
            {
                "group": group.name,
                "images": group.n_images,
                "samples": group.n_samples,
                "places": len(places.diameters),
                **{f"{name}_{places.unit}": value for name, value in values},
                "shared_error": group.shared_error,
                "interval_of": group.interval_of,
                "to_halve_interval": group.n_to_halve,
                "kinds": kinds_text(places.modes, places.unit),
            }
        )
    write_rows(folder / GROUPS_TABLE, ("group",), rows)
    table = folder / RATIOS_TABLE
    if len(groups) < 2 and table.is_file():
        table.unlink()
        report_removed([table])
    if len(groups) > 1 and compared is not None:
        names = "group", "over", "ratio", "ratio_low", "ratio_high"
        ratios = [
            dict(zip(names, (one, other, ratio, between.low, between.high), strict=True))
            for one, other, ratio, between in compared.ratios()
        ]
        write_rows(table, (), ratios)
