"""Pixel sizes from scale bars: a table, and a page on which each bar can be checked."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hypervlad.common.progress import ProgressBar
from hypervlad.common.tables import table_as_bytes
from hypervlad.common.wording import capitalised, counted, name_some, verb
from hypervlad.folders.groups import ImageFolderError, check_text, read_cells
from hypervlad.folders.pixel_sizes import BAR, PROPOSED
from hypervlad.images import ImageReadError, ReadOptions, ScaleBar
from hypervlad.images.files import encode_jpeg
from hypervlad.images.metadata import AmbiguousLengthError, nanometres_of
from hypervlad.images.reading import SIZE_TOLERANCE, read_named
from hypervlad.images.scale_bars import scale_bars_of
from hypervlad.images.scale_labels import LabelReader, around_bar, may_be_micrometres
from hypervlad.pages import parts
from hypervlad.pages.numbers import number_text

#: Columns of the table of pixel sizes.
COLUMNS = (
    *("path", "pixel_size", "source", *BAR, "bar_kind", "bar_top", "bar_left", "bar_bottom"),
    *("bar_right", "scale_bar", "label", PROPOSED, "metadata_pixel_size", "remark"),
)
_CONTRADICTION = "contradiction"  # begins the remark on one
_QUALITY, _SIDE = 85, 640  # of a crop


class ImageScale(NamedTuple):
    """The pixel size of one image, in nanometres, and what it is from."""

    name: str
    shape: tuple[int, int]
    pixel_size: float | None
    source: str
    bar: ScaleBar | None
    scale_bar: str
    label: str
    proposed: float | None
    stated: float | None
    remark: str
    crop: bytes

    @property
    def is_contradictory(self) -> bool:
        """Whether the scale bar and the metadata disagree."""
        return self.remark.startswith(_CONTRADICTION)


def read_scale_bars(given: str) -> dict[str, str]:
    """Return lengths by folder: of a table with the columns folder and scale_bar, or one for all.

    ValueError if a length has no unit of length, or may be two, or a folder has two lengths.
    """
    if not given.lower().endswith((".csv", ".tsv", ".txt")):
        _nanometres(given, "--scale-bar")
        return {"": given.strip()}
    (_, header), *lines = read_cells(Path(given), "folder, scale_bar") or [(0, [])]
    names = [cell.strip().lower() for cell in header]
    if not {"folder", "scale_bar"} <= set(names):
        raise ImageFolderError(
            f"{given}: its columns are {', '.join(header)}; expected folder and scale_bar, with "
            'lines such as "day1,10 um".'
        )
    found, first = dict[str, str](), dict[str, int]()  # its line
    for number, cells in lines:
        cells += [""] * (len(names) - len(cells))
        folder, length = (cells[names.index(name)].strip() for name in ("folder", "scale_bar"))
        check_text(Path(given), number, length)
        nm = _nanometres(length, where := f"{given}, line {number}")
        parts = PurePosixPath(folder.replace("\\", "/")).parts
        name = "/".join(part for part in parts if part != ".")
        if nm != _nanometres(found.setdefault(name, length), where):
            raise ImageFolderError(
                f"{where}: {folder} has another length in line {first[name]}; delete one of them."
            )
        first.setdefault(name, number)
    return found


def _nanometres(length: str, where: str) -> float:
    try:
        nm = nanometres_of(length)
    except AmbiguousLengthError as error:
        raise AmbiguousLengthError(f"{where}: {error}") from None
    if nm is None:
        raise ValueError(
            f"{where}: {length!r} is not what a scale bar says; give a length with its unit, "
            'such as "10 um" or "200 nm".'
        )
    return nm


def find_scales(
    images: Sequence[Any],
    *,
    names: Sequence[str],
    scale_bars: Mapping[str, str] | None = None,
    read_label: LabelReader | None,
    accept: bool = False,
    read_options: ReadOptions,
    progress: bool = False,
) -> Iterator[ImageScale | ImageReadError]:
    """Yield the pixel size of each image, or the error of one that cannot be read.

    `scale_bars` are what bars say, by folder, as `read_scale_bars` returns them: the deepest
    folder of a name counts. What `read_label` reads (see `new_label_reader`) is a proposal, and
    with `accept` used where nothing is given.
    """
    given = scale_bars or {}
    split = [PurePosixPath(name).parts for name in names]
    folders_of = [["/".join(own[:n]) for n in range(len(own), -1, -1)] for own in split]
    unused = [folder for folder in given if not any(folder in each for each in folders_of)]
    if unused:
        raise ValueError(
            f"{counted(len(unused), 'folder')} of the scale bars "
            f"{verb(len(unused), 'contains', 'contain')} no image: {name_some(unused)}; give "
            "folders as they begin the names of images, such as day1 for day1/a.png."
        )
    bar_of = [next((given[each] for each in own if each in given), "") for own in folders_of]
    rows = zip(images, names, bar_of, strict=True)
    bar_of_rows = ProgressBar(rows, total=len(names), unit="image", shown=progress)
    for image, name, text in bar_of_rows:
        try:
            read = read_named(image, read_options, name, with_digest=False)
        except ImageReadError as error:
            yield error
            continue
        bars = _different(scale_bars_of(read.pixels))
        labels = ["" if read_label is None else read_label(read.pixels, bar) for bar in bars]
        # Of several, the one beside which the given length was read.
        chosen = next((n for n, label in enumerate(labels) if text and _agree(label, text)), 0)
        bar, label = (bars[chosen], labels[chosen]) if bars else (None, "")
        is_clear = len(bars) < 2 or bool(label and (not text or _agree(label, text)))
        others = [] if is_clear else [each for each in bars if each is not bar]
        yield _scale_of(name, bar, text, label, read.pixel_size, read.pixels, accept, others)


def _different(bars: Iterable[ScaleBar]) -> list[ScaleBar]:
    """Return bars, the clearest first, without those of the length of an earlier one."""
    found = list[ScaleBar]()
    for bar in bars:
        if all(abs(bar.length / each.length - 1) > SIZE_TOLERANCE for each in found):
            found.append(bar)
    return found


def _agree(label: str, given: str) -> bool:
    """Return whether a label that was read is a given length."""
    read = _nanometres(label.replace("pm", "um"), label) if label else 0
    return f"{read:.6g}" == f"{_nanometres(given, given):.6g}"


def _scale_of(
    name: str,
    bar: ScaleBar | None,
    given: str,
    label: str,
    stated: float | None,
    pixels: NDArray[np.float32],
    accept: bool,
    others: Sequence[ScaleBar],
) -> ImageScale:
    """Return the pixel size by the metadata, the given length or, if accepted, the label.

    `others` are bars of other lengths, if it is not clear which one the given length is of.
    """
    if given and may_be_micrometres(label):
        as_read = _nanometres(label.replace("pm", "um"), name)
        label = given if as_read == _nanometres(given, name) else label
    text, is_doubtful = given or label, may_be_micrometres(label) and not given
    measured = None
    if bar is not None and text and not others:
        measured = _nanometres(text, name) / bar.length
    source, size = "metadata", stated
    if size is None and (given or (accept and not is_doubtful)):
        source, size = "scale bar" if given else "read", measured
    proposed = measured if label and size is None and not is_doubtful else None
    crop = b"" if bar is None else _crop(pixels, bar)
    remark = ""
    if bar is None:
        remark = "no scale bar found"
    elif others:
        lengths = ", ".join(f"{each.length:.1f}" for each in (bar, *others))
        remark = f"scale bars of {lengths} px, perhaps of an inset: give the pixel size"
    elif len({f"{_nanometres(each, name):.6g}" for each in (given, label) if each}) > 1:
        remark = f"{_CONTRADICTION}: the label reads {label}, not {given}"
    elif is_doubtful:
        remark = f"the label reads {label}, or {label.replace('pm', 'um')}: give it as --scale-bar"
    elif proposed is not None:
        remark = f"the label reads {label}, which is not used before it is accepted"
    elif measured is None:
        remark = "what the scale bar says is not known"
    elif stated is not None:
        tolerance = max(SIZE_TOLERANCE, 2 * bar.error / bar.length)
        if abs(measured / stated - 1) > tolerance:
            remark = (
                f"{_CONTRADICTION}: {number_text(measured)} nm per pixel by the scale bar, "
                f"{number_text(stated)} by the metadata"
            )
    source = "" if size is None else source
    shape = (pixels.shape[0], pixels.shape[1])
    return ImageScale(name, shape, size, source, bar, given, label, proposed, stated, remark, crop)


def _crop(pixels: NDArray[np.float32], bar: ScaleBar) -> bytes:
    """Return a bar with its label, framed, as JPEG."""
    part, (y, x) = around_bar(pixels, bar)
    top, left, bottom, right = bar.box
    crop = np.array(part)
    colour = np.repeat(crop[..., None], 3, axis=2) if crop.ndim == 2 else crop
    frame = np.zeros(colour.shape[:2], bool)
    outer = (max(top - 4 - y, 0), max(left - 4 - x, 0), bottom + 4 - y, right + 4 - x)
    frame[outer[0] : outer[2], outer[1] : outer[3]] = True
    frame[outer[0] + 1 : outer[2] - 1, outer[1] + 1 : outer[3] - 1] = False
    colour[frame] = (1.0, 0.3, 0.0)
    return encode_jpeg(colour, _SIDE, _QUALITY)


def scales_as_bytes(scales: Sequence[ImageScale]) -> bytes:
    """Return the table of pixel sizes, CSV, one line per image; see `COLUMNS`."""
    rows = []
    for each in scales:
        bar: Sequence[Any] = (None,) * 7
        if each.bar is not None:
            bar = (each.bar.length, each.bar.error, each.bar.kind, *each.bar.box)
        size, proposed, stated = (
            None if value is None else f"{value:.6g}"
            for value in (each.pixel_size, each.proposed, each.stated)
        )
        texts = each.scale_bar or None, each.label or None
        rows.append(
            [each.name, size, each.source, *bar, *texts, proposed, stated, each.remark or None]
        )
    return table_as_bytes(COLUMNS, rows)


def write_scale_page(
    path: str | os.PathLike[str], scales: Sequence[ImageScale], unreadable: Sequence[str] = ()
) -> Path:
    """Write a page with the bar of each image to check, and those without one; returns the path."""
    found = sorted((each for each in scales if each.bar), key=lambda each: not each.remark)
    rows, accepted, lines = list[list[parts.Cell]](), list[str](), dict[str, list[str]]()
    for number, each in enumerate(found):
        assert each.bar is not None
        size = each.proposed or each.pixel_size
        says = [each.scale_bar, each.label and f"{each.label} (read)"]
        source = "proposed" if each.proposed else each.source
        length = f"{each.bar.length:.1f} ± {each.bar.error:.1f} px, {each.bar.kind}"
        cell = ("–", None) if size is None else (f"{number_text(size)} ({source})", size)
        remark = f"{capitalised(each.remark)}." if each.remark else ""
        told = " / ".join(filter(None, says)) or "–"
        rows.append([each.name, (length, each.bar.length), told, cell, remark])
        accepted.append("" if size is None else f"s{number}-0")
        if size is not None:
            of_bar = f"{each.bar.length:.6g}", f"{each.bar.error:.6g}"
            is_stated = each.source == "metadata"
            lines[f"s{number}"] = [each.name, f"{size:.6g}", *(("", "") if is_stated else of_bar)]
    sheet = parts.Sheet.of(
        "Scale bars",
        ["Image", "Length", "Says", "nm per pixel", "Remark"],
        rows,
        marks=accepted,
        action="Accept",
        file="bars.csv",
        is_main=True,
        pictures=[(k, parts.base64_text(each.crop)) for k, each in enumerate(found)],
    )
    n_read = sum(bool(each.label) for each in scales)
    numbers = {
        "images": len(scales),
        "scale bars found": len(found),
        "pixel sizes known": sum(each.pixel_size is not None for each in scales),
        **({"labels read": n_read} if n_read else {}),
        "contradictions": sum(each.is_contradictory for each in scales),
    }
    without = [
        each.name
        + (f" ({number_text(each.stated)} nm per pixel by the metadata)" if each.stated else "")
        for each in scales
        if each.bar is None
    ]
    bars = (
        "the orange frame must surround the whole scale bar and nothing else, and what is printed "
        "beside the bar must be what was given."
    )
    read = (
        " What a program read beside the bar is marked so; a size that is proposed from it is not "
        "used before it is accepted."
        if n_read
        else " Nothing on this page was read from the label."
    )
    words = "Images with a remark come first. Those that you accept are saved as a table for "
    words += "--pixel-size: save it into the folder from which the names begin."
    content = [
        parts.Numbers(numbers),
        parts.warning("Check each bar", bars + read),
        parts.Items(unreadable, "warning"),
        found and parts.section("Scale bars found", words, sheet),
        parts.section("Without a scale bar", without and parts.Items(without)),
    ]
    header, button = ",".join(("path", "pixel_size", *BAR)), "Save accepted sizes"
    accepted_as = "size accepted", "sizes accepted"
    task = parts.Decisions("pixel_sizes.csv", button, accepted_as, header=header, lines=lines)
    parts.write_page(path, "Scale bars to check", content, decisions=task if lines else None)
    return Path(path)
