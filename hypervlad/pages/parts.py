"""One engine for all pages: a page is a list of parts, written by one template, style and script.

The script and style are our own: no library that the site loads sorts, filters or draws histograms,
and Bootstrap, for the layout alone, would add 0.4 MB to every page.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import io
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, TypeAlias

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from jinja2.ext import Extension
from jinja2.lexer import Token, TokenStream
from markupsafe import Markup
from numpy.typing import ArrayLike, NDArray

from hypervlad._version import __version__
from hypervlad.common.files import replace_when_complete
from hypervlad.common.progress import sentences_of
from hypervlad.common.tables import separator, table_as_bytes
from hypervlad.common.wording import of_particles, printable
from hypervlad.images.files import encode_jpeg
from hypervlad.pages.base import Display, save_png, thumbnail
from hypervlad.pages.numbers import interval_text, number_text, scale_bar, share_of
from hypervlad.statistics.classification import intervals_of_highest
from hypervlad.statistics.groups import Ratio

_CSS_PIXELS_PER_INCH = 96
_QUALITY = 80  # of JPEG

Cell: TypeAlias = str | tuple[str, float | None]  # a text, or one with the number that it shows
Part = Any  # a text, which is a paragraph, or one of the classes below


@dataclass
class Section:
    kind: ClassVar = "section"
    title: str
    parts: Sequence[Part]


def section(title: str, *parts: Part) -> Section | None:
    """Return a section of the parts that are not empty, None if all are."""
    filled = [part for part in parts if part]
    return Section(title, filled) if filled else None


class Note(NamedTuple):
    """A paragraph that is a "lead", "soft" or a "warning", or "warning stale": since a decision."""

    text: str
    style: str = "soft"
    kind: str = "note"


def warning(title: str, text: str) -> Note:
    """Return a warning that begins with a few bold words."""
    return Note(Markup("<strong>{}:</strong> {}").format(title, text), "warning")


class Items(NamedTuple):
    texts: Sequence[str]
    style: str = ""
    kind: str = "items"


def notes_of_images(notes: Mapping[str, str]) -> Items:
    """Return what was warned of images when they were measured, by their names."""
    return Items([f"Noted: {sentence}." for sentence in sentences_of(notes)], "warning")


class Numbers(NamedTuple):
    """Large numbers, each with its name (the keys)."""

    values: Mapping[str, Any]
    kind: str = "numbers"


class Table(NamedTuple):
    """Rows with a name and numbers; without a header, pairs of texts."""

    header: Sequence[str]
    rows: Iterable[Sequence[Any]]
    kind: str = "table"


def ratios(of: Mapping[str, Iterable[Ratio]]) -> list[Part]:
    """Return a table of how groups differ, by what differs, and what it means; nothing of none."""
    rows = [
        [
            f"{what} of {each.one} over {each.other}",
            number_text(each.value) * each.is_of_both,
            interval_text(each.interval.low, each.interval.high),
            each.verdict,
        ]
        for what, own in of.items()
        for each in own
    ]
    words = "An interval that contains 1 shows no difference; it does not show that there is none."
    return [Table(["Groups", "Ratio", "95 % interval", ""], rows), Note(words)] if rows else []


class Figure(NamedTuple):
    """An image; width and height are in CSS pixels."""

    source: str
    alt: str
    caption: str
    width: int
    height: int
    kind: str = "figure"

    @classmethod
    def of(cls, display: Display, alt: str, caption: str) -> Figure:
        """Draw a display into the page."""
        stream = io.BytesIO()
        inches = save_png(display.plot, stream)
        width, height = (round(_CSS_PIXELS_PER_INCH * side) for side in inches)
        source = f"data:image/png;base64,{base64_text(stream.getvalue())}"
        return cls(source, alt, caption, width, height)


# --- histograms ----------------------------------------------------------------------------------


@dataclass
class Group:
    """One histogram of a chart; `above` and `below` are names and styles by the threshold.

    With a threshold, the text is how many values are above and below, until the script counts them.
    `ends` are of the interval of the share above, by how many are: by default of values that are
    independent of each other.
    """

    name: str
    values: ArrayLike
    weights: ArrayLike | None = None
    text: str = ""
    note: str = ""
    style: str = ""
    modes: Sequence[float] = ()
    above: tuple[str, str] | None = None
    below: tuple[str, str] | None = None
    ends: Sequence[tuple[float, float]] = ()


class Threshold(NamedTuple):
    """A threshold that can be moved from `low` to `high`, and how to use another one."""

    value: float
    text: str
    low: float
    high: float
    step: float
    how: str


@dataclass
class Chart:
    """Histograms on one axis."""

    kind: ClassVar = "chart"
    label: str
    groups: Sequence[Group]
    threshold: Threshold | None = None
    number: int = 0

    def __post_init__(self) -> None:
        for group in self.groups:
            if self.threshold is not None and group.above and group.below:
                values = np.asarray(group.values)
                n, n_above = len(values), int((values >= self.threshold.value).sum())
                group.ends = group.ends or intervals_of_highest(values)
                above = share_of(n_above, n, group.ends[n_above] if n else None)
                below = share_of(n - n_above, n)
                group.text = f"{group.above[0]}: {above} {group.below[0]}: {below}"

    def data(self) -> dict[str, Any]:
        limit = self.threshold and self.threshold._asdict()
        return vars(self) | {"groups": list(map(vars, self.groups)), "threshold": limit}


# --- pictures ------------------------------------------------------------------------------------


class Outline(NamedTuple):
    """A path of SVG over a picture; those of one `fibre` are marked together with Shift."""

    id: str
    d: str
    title: str
    style: str = ""
    name: str = ""
    fibre: int | None = None


@dataclass
class Field:
    """A picture with outlines in `box`, the view box of SVG; `size` is the image's, in pixels."""

    id: str
    name: str
    caption: str
    outlines: Sequence[Outline]
    jpeg: str
    width: int
    height: int
    box: str
    size: str
    bar: tuple[float, str] | None = None
    layer: str = ""
    has_lines: bool = False

    @classmethod
    def of(
        cls,
        pixels: NDArray[Any],
        *,
        side: int,
        frame: tuple[int, int] = (640, 512),
        pixel_size: float | None = None,
        part: tuple[int, int, int, int] | None = None,
        **values: Any,
    ) -> Field:
        """Return a part of an image (a box), shrunk to at least `side` pixels, to fit a frame.

        Outlines are in half pixels of the image.
        """
        top, left, bottom, right = part or (0, 0, *pixels.shape[:2])
        small = thumbnail(pixels[top:bottom, left:right], side)
        height, width = bottom - top, right - left
        zoom = min(frame[0] / small.shape[1], frame[1] / small.shape[0])
        return cls(
            jpeg=jpeg_text(small, 2 * side),
            width=round(zoom * small.shape[1]),
            height=round(zoom * small.shape[0]),
            box=f"{2 * left} {2 * top} {2 * width} {2 * height}",
            size=f"{width} {height}",
            bar=scale_bar(width, pixel_size),
            **values,
        )


@dataclass
class Pictures:
    """Fields; in the main ones, of a page, outlines can be switched, marked and drawn."""

    kind: ClassVar = "pictures"
    fields: Sequence[Field]
    is_main: bool = True
    label: str = "Outlines"
    switches: Sequence[tuple[str, str, str]] = ()  # name, style and number of outlines of a class
    scale: tuple[str, str, str] | None = None  # of the maps: its ends, and a strip as PNG
    action: str = ""  # what a mark says; none if outlines cannot be marked
    is_drawn: bool = False

    @property
    def style(self) -> str:
        return "fields" if self.is_main else "gallery"


def jpeg_text(pixels: NDArray[Any], side: int, quality: int = _QUALITY) -> str:
    """Return an image as JPEG in base 64, shrunk to a longer side."""
    return base64_text(encode_jpeg(pixels, side, quality))


# --- rows ----------------------------------------------------------------------------------------


@dataclass
class Column:
    """A column of a sheet: texts; numbers, if it has `values`; or classes, if it has `options`.

    Two classes follow the threshold of the first chart, if `follows` names a column: the first is
    that of rows whose value there reaches it.
    """

    name: str
    texts: Sequence[str]
    values: Sequence[float] | NDArray[Any] | None = None
    unit: str = ""
    bounds: tuple[float, float] | None = None
    options: Sequence[str] = ()
    styles: Sequence[str] = ()
    follows: str = ""
    label: str = ""  # before the text on a card
    shown: bool = False  # on a card

    def data(self) -> dict[str, Any]:
        defaults = (None, "", False, ())
        own = {
            name: value
            for name, value in vars(self).items()
            if isinstance(value, np.ndarray) or value not in defaults
        }
        own["styles"] = list(self.styles)
        if self.values is not None:
            own["values"] = [None if math.isnan(each) else float(each) for each in self.values]
        if self.options:
            code = {option: k for k, option in enumerate(self.options)}
            own["codes"] = [code.get(text, -1) for text in self.texts]
            del own["texts"]
        return own


@dataclass
class Sheet:
    """Rows that can be filtered, sorted, opened and saved; the first column has their names."""

    kind: ClassVar = "sheet"
    name: str
    columns: list[Column]
    unit: str = "image"
    cards: bool = False
    orders: Sequence[tuple[str, str, bool]] = ()  # text, column, whether descending
    pictures: Iterable[tuple[int, str]] = ()  # of a row, JPEG in base 64; taken one by one
    links: Sequence[str] = ()
    marks: Sequence[str] = ()  # ids of the decisions on rows, "" where there is none
    action: str = ""  # what a mark says
    bars: tuple[Sequence[str], NDArray[Any]] | None = None  # names and shares, of the details
    lists: Sequence[tuple[str, Sequence[str], Sequence[Sequence[int]]]] = ()  # titles, entries
    file: str = "rows.csv"
    is_main: bool = False
    number: int = 0

    @classmethod
    def of(
        cls, name: str, header: Sequence[str], rows: Sequence[Sequence[Any]], **given: Any
    ) -> Sheet:
        """Return a sheet of rows whose cells are texts, or texts with the numbers they show."""
        columns = [Column(title, []) for title in header]
        for column, cells in zip(columns, zip(*rows, strict=True), strict=False):
            pairs = [(cell, None) if isinstance(cell, str) else cell for cell in cells]
            column.texts = [text for text, _ in pairs]
            if any(value is not None for _, value in pairs):
                column.values = [math.nan if value is None else value for _, value in pairs]
        return cls(name, columns, **given)

    def rows(self) -> Iterator[tuple[str, ...]]:
        return zip(*(column.texts for column in self.columns), strict=True)

    def data(self) -> dict[str, Any]:
        place = {column.name: k for k, column in enumerate(self.columns)}
        lists = [
            dict(zip(("title", "entries", "places"), each, strict=True)) for each in self.lists
        ]
        return {
            **{name: getattr(self, name) for name in ("unit", "cards", "action", "file")},
            "columns": [column.data() for column in self.columns],
            "orders": [[text, place[name], is_down] for text, name, is_down in self.orders],
            "links": list(self.links),
            "marks": list(self.marks),
            "bars": self.bars and dict(zip(("names", "values"), self.bars, strict=True)),
            "lists": lists,
        }


@dataclass
class Decisions:
    """What people decide on a page, and the file that it saves.

    Ids are KEY-0, KEY-1 …; `lines` have for each key the name that begins a line, and the other
    cells of each place. With `masks`, the file has the outlines of reviewed pictures.
    """

    file: str
    button: str
    words: tuple[str, str]  # what is counted, for one and for many
    decided: Sequence[str] = ()
    header: str = ""
    lines: Mapping[str, Sequence[str]] = field(default_factory=dict)
    masks: bool = False

    def data(self, content: str) -> dict[str, Any]:
        key = hashlib.sha256(content.encode("utf-8", "replace")).hexdigest()
        lines = {
            each: [table_as_bytes([printable(name)], []).decode().removesuffix("\n"), *cells]
            for each, (name, *cells) in self.lines.items()
        }
        return vars(self) | {"key": key, "decided": list(self.decided), "lines": lines}


# --- the page ------------------------------------------------------------------------------------


def write_page(
    path: str | os.PathLike[str],
    title: str,
    parts: Sequence[Part],
    *,
    decisions: Decisions | None = None,
    words: Callable[[str], str] = str,
) -> None:
    """Write a page as one file that works offline; it is complete or not there.

    Parts that are empty or None are left out. `words` changes the sentences of the page, but not
    its tables, rows and names.
    """
    parts = [part for part in parts if part]
    every = list(_all_parts(parts))
    charts = [each for each in every if isinstance(each, Chart)]
    sheets = [each for each in every if isinstance(each, Sheet)]
    for number, chart in enumerate(charts):
        chart.number = number
    for number, sheet in enumerate(sheets):
        sheet.number = number
    data: dict[str, Any] = {
        "charts": [each.data() for each in charts],
        "sheets": [each.data() for each in sheets],
    }
    if separator() == ";":
        data["comma"] = True  # rows are saved as tables are written
    if decisions is not None:
        drawn = [vars(own) for each in every if isinstance(each, Pictures) for own in each.fields]
        content = json.dumps([plain(data["sheets"]), [[o["name"], o["outlines"]] for o in drawn]])
        data["decisions"] = decisions.data(content)
    script_data = json.dumps(plain(data), allow_nan=False, separators=(",", ":"))
    page = _environment().get_template("page.html")
    script, style = asset("common.js", "page.js"), asset("base.css", "page.css")
    with replace_when_complete(path) as stream:
        for piece in page.generate(
            version=__version__,
            said=functools.partial(_said, words),
            script=script,
            style=style,
            title=title,
            parts=parts,
            data=Markup(script_data.replace("<", "\\u003c")),  # no tag for an HTML parser
            sheets=sheets,
            has_details=any(each.cards for each in sheets),
            decisions=decisions,
        ):
            stream.write(piece.encode("utf-8"))


def _all_parts(parts: Iterable[Part]) -> Iterator[Part]:
    for part in parts:
        yield part
        if isinstance(part, Section):
            yield from _all_parts(part.parts)


def asset(*names: str) -> Markup:
    """Return style sheets or scripts of ``templates/``, in one text."""
    environment = _environment()
    assert environment.loader is not None
    return Markup("\n".join(environment.loader.get_source(environment, each)[0] for each in names))


def _said(words: Callable[[str], str], text: str) -> str:
    """Change the words of a text, which stays markup if it is, and is printable."""
    return Markup(printable(words(text))) if isinstance(text, Markup) else words(text)


def plain(value: Any) -> Any:
    """Return a value for JSON, in which texts are printable."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Mapping):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    # Scores may have to be compared exactly: they are not shortened.
    return plain(value.tolist()) if isinstance(value, np.generic | np.ndarray) else value


def _digest(text: str) -> str:
    """Return the digest by which a content-security policy allows a style or a script."""
    return f"sha256-{base64_text(hashlib.sha256(text.encode('utf-8')).digest())}"


def base64_text(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


class ParticleWords(Extension):
    """Changes the words of a template, but neither its names nor what it is filled with."""

    def filter_stream(self, stream: TokenStream) -> Iterator[Token]:
        for line, kind, text in stream:
            yield Token(line, kind, of_particles(text) if kind in ("data", "string") else text)


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("hypervlad.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: value if isinstance(value, Markup) else printable(value),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["digest"] = _digest
    return environment
