"""Pixel size, in nm, and scanned height from metadata of microscopes; lengths with units."""

from __future__ import annotations

import html
import math
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from hypervlad.common.files import parse_json
from hypervlad.common.limits import MAX_METADATA_TEXT

Sides: TypeAlias = tuple[float | None, float | None]
_NEARLY_SQUARE = 0.01
_PLAUSIBLE = (1e-3, 1e6)  # nm: beyond, a unit was not the one that was assumed
_NM_PER_INCH = 2.54e7
_NM_PER_UNIT = {  # in the singular, without accents, and as spelled in American English
    name: nm
    for names, nm in (
        ("m meter", 1e9),
        ("cm centimeter", 1e7),
        ("mm millimeter", 1e6),
        ("um u mu mum mcm mkm micron mikron micra micrometer mikrometer micrometro 微米", 1e3),
        ("nm nanometer nanometro 纳米 奈米", 1.0),
        ("a ang angstrom angstroem", 0.1),
        ("pm picometer pikometer", 1e-3),
        ("in inch inche", _NM_PER_INCH),
    )
    for name in names.split()
}
# The sign of micro: a Greek letter (as which Unicode composes the sign), in UTF-8 that was read as
# Latin, or lost where a program could not write it.
_MICRO = re.compile("[\u00c2\u00ce]?\u03bc|\u00ce\u00bc|[\ufffd?](?=m$)")
_CYRILLIC = str.maketrans("мкн", "mkn")
_PAGE_UNITS = ("cm", "in", "inch", "inche")
_MIN_PAGE = (4e4, 1e3)  # nm: side of a pixel of any page, of one in units of pages
_MAX_PRINT = 2400
_DPI = (720, 800, 900, 1000, 1200, 1440, 1800, 2400, 3200, 3600, 4000, 4800, 6400, 7200, 9600)


def length_in_nm(value: Any, unit: Any) -> float | None:
    """Return a length in nanometres; None for an invalid number or an unknown unit."""
    try:
        number = float(value)
        factor = _NM_PER_UNIT[_unit_key(str(unit))]
    except (TypeError, ValueError, KeyError):
        return None
    length = number * factor
    return length if math.isfinite(length) and length > 0 else None


def _unit_key(unit: str) -> str:
    text = re.sub(r"\\u([0-9a-fA-F]{4})", lambda code: chr(int(code[1], 16)), html.unescape(unit))
    text = _MICRO.sub("u", text.strip().strip("\x00"))
    text = _MICRO.sub("u", unicodedata.normalize("NFKC", text)).lower().translate(_CYRILLIC)
    text = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    text = re.sub(r"[\[\]()_\s.$\\]", "", text)  # of Berkeley's files: [n_m]; of TeX: $\mu$m
    text = re.sub("(/|per)p(ix|x|ixels?)$", "", text.lower().replace("metre", "meter"))
    return re.sub(r"(?<=\w{3})e?s$", "", text)  # the plural of a word, not "ms"


def are_of_a_page(sides: Sides, unit: str) -> bool:
    """Return whether a side of a pixel is that of a screen, a print or a scan, not of the sample.

    General programs write a resolution, such as 300 dots per inch, where microscopes write the size
    of a pixel. It is that of a page from 40 um, or if it is usual for printers or scanners; in
    inches or centimetres, from 1 um.
    """
    if _unit_key(unit) in _PAGE_UNITS:
        return any(side is not None and side >= _MIN_PAGE[1] for side in sides)
    return any(
        side is not None and (side >= _MIN_PAGE[0] or _is_usual(_NM_PER_INCH / side))
        for side in sides
    )


def _is_usual(dpi: float) -> bool:
    """Return whether it is a usual number of dots per inch, perhaps of a rounded size."""
    return any(abs(dpi - n) <= (2.5e-3 if n <= _MAX_PRINT else 2e-4) * n for n in _DPI)


def are_plausible(sides: Sides) -> bool:
    """Return whether all known sides of a pixel are between 1 pm and 1 mm."""
    low, high = _PLAUSIBLE
    return all(side is None or low <= side <= high for side in sides)


def square_pixel_size(sides: Sides) -> float | None:
    """Return the size of a square pixel; None if known sides differ by more than 1 %."""
    across, down = sides
    if across is None or down is None:
        return down if across is None else across
    return across if abs(across - down) <= _NEARLY_SQUARE * max(across, down) else None


class _PixelEntries(NamedTuple):
    """The entries that state the sides of a pixel."""

    across: str
    down: str = ""  # if there is none, pixels are square
    unit: str = ""  # of numbers without one
    over: str = ""  # what both are divided by: the pixels of a field of view, or a magnification


_BY_RESOLUTION = _PixelEntries("1/XResolution", "1/YResolution")
# The first that applies is used. Names are the ends of "section.name", without regard to case.
_PIXEL_ENTRIES: Mapping[str, Sequence[_PixelEntries]] = {
    "fei": (
        _PixelEntries("Scan.PixelWidth", "Scan.PixelHeight", "m"),
        _PixelEntries("PixelWidth", "PixelHeight", "m"),  # of another beam; of Phenom, with a unit
        _PixelEntries("PixelSize.X", "PixelSize.Y", "m"),
        _PixelEntries("IRBeam.HFW", unit="m", over="Image.ResolutionX"),
    ),
    "zeiss": (
        _PixelEntries("ap_image_pixel_size"),
        _PixelEntries("ap_pixel_size", over="columns/1024"),  # as if of 1,024 columns
    ),
    "tescan": (_PixelEntries("PixelSizeX", "PixelSizeY", "m"),),
    "tvips": (_PixelEntries("PixelSizeX", "PixelSizeY", "nm"), _BY_RESOLUTION),
    "olympus": (_PixelEntries("pixelsizex", "pixelsizey", "m"),),
    "hitachi": (_PixelEntries("SemImageFile.PixelSize", unit="nm"),),
    "jeol": (
        _BY_RESOLUTION._replace(over="SelectorValue"),
        _PixelEntries("CM_FIELD_OF_VIEW", unit="mm", over="CM_FULL_SIZE"),
        _PixelEntries("SM_MICRON_MARKER", over="SM_MICRON_BAR"),
    ),
    "openfibsem": (
        _PixelEntries("pixel_size.x", "pixel_size.y", "m"),
        _PixelEntries("image.hfw", unit="m", over="image.resolution"),
    ),
    "gatan": (_PixelEntries("65009", "65010"),),
    "imagej": (_BY_RESOLUTION,),
    "odemis": (_BY_RESOLUTION,),
}
# Entries with the width of the image that was stored: programs that resize or crop it keep them.
_STORED_COLUMNS = {"fei": "Image.ResolutionX", "zeiss": "DP_IMAGE_STORE"}
# Files beside an image, by suffix, and the entry with the width of their image, if there is one.
SIDECAR_INSTRUMENTS: Mapping[str, Mapping[str, str]] = {
    ".hdr": {"tescan": ""},
    ".txt": {"hitachi": "SemImageFile.DataSize", "jeol": "CM_FULL_SIZE"},
}
# Possessive, so that the time is in proportion to the text.
_QUANTITY = re.compile(r"\s*([-+]?(?:\d++\.?\d*+|\.\d++)(?:[eE][-+]?\d++)?+)(?![\d.,])\s*(\S*)")
_XML_ELEMENT = re.compile(r"<(/?)(?:\w++:)?+([\w.-]++)([^<>]*+)>([^<]*+)")


class Entries:
    """The entries of an instrument's metadata, and others that its pixel size depends on.

    `metadata` are INI, XML, JSON or lines of names and values; or mappings, which may be nested.
    `stated` is this mapping; of a text, values by "section.name".
    """

    def __init__(self, metadata: str | bytes | Mapping[str, Any], **others: str) -> None:
        pairs = list(_pairs_of(metadata))
        self.stated = metadata if isinstance(metadata, Mapping) else dict(pairs)
        self._by_name: dict[str, str] = {}  # of those with the same name, the first
        for name, text in (*pairs, *others.items()):
            self._by_name.setdefault(name.lower(), text)

    def quantity(self, name: str) -> tuple[float, str] | None:
        """Return the number, other than 0, at the start of an entry, and its unit; None if none."""
        wanted = name.lower()
        ends = (text for key, text in self._by_name.items() if key.endswith(f".{wanted}"))
        for text in (self._by_name.get(wanted, ""), *ends):
            found = _QUANTITY.match(text)
            if found and float(found[1]):
                return float(found[1]), found[2]
        return None

    def number(self, name: str) -> float | None:
        found = self.quantity(name)
        return None if found is None else found[0]

    def pixel_sides(self, instrument: str, n_columns: int) -> tuple[Sides, str]:
        """Return the sides of a pixel, nm, and the names of the entries that state them.

        They are unknown if the entries are of an image of another width.
        """
        columns = self.number(_STORED_COLUMNS.get(instrument, ""))
        if columns is not None and columns != n_columns:
            return (None, None), ""
        for row in _PIXEL_ENTRIES[instrument]:
            across = self._length(row.across, row)
            down = self._length(row.down, row) if row.down else None
            if across or down:
                return (across, down), " / ".join(filter(None, (row.across, row.over)))
        return (None, None), ""

    def _length(self, name: str, row: _PixelEntries) -> float | None:
        found, over = self.quantity(name), self.number(row.over) if row.over else 1.0
        return length_in_nm(found[0] / over, found[1] or row.unit) if found and over else None

    def scan_rows(self, n_rows: int) -> int | None:
        """Return how many of the rows of the image belong to the scan; None if nothing says so.

        By FEI's ResolutionY, the height of the bar (FEI, Phenom, Tescan), JEOL's size of the scan,
        or FEI's field of view over the height of a pixel, whichever comes first.
        """
        bar = self.number("DatabarHeight") or self.number("ImageStripSize")
        field, pixel = self.number("VerFieldsize"), self.number("PixelHeight")
        size = _QUANTITY.match(self._by_name.get("cm_full_size", "").partition(" ")[2])
        jeol = float(size[1]) if size else n_rows
        candidates = [
            self.number("Image.ResolutionY"),
            n_rows - bar if bar else None,
            jeol if jeol < n_rows else None,  # otherwise a bar may cover the last rows of the scan
            field / pixel if field and pixel else None,
        ]
        for rows in candidates:
            # A banner is never the larger part: such a number is, for instance, of a binned scan.
            if rows is not None and math.isfinite(rows) and n_rows / 2 < round(rows) <= n_rows:
                return round(rows)
        return None


def _pairs_of(metadata: str | bytes | Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if isinstance(metadata, Mapping):
        return _pairs_of_values(metadata)
    text = metadata if isinstance(metadata, str) else _decoded(metadata[:MAX_METADATA_TEXT])
    text = text[:MAX_METADATA_TEXT].replace("\x00", "").strip()
    if text.startswith("{"):
        try:
            return _pairs_of_values(parse_json(text))
        except ValueError:
            return iter(())
    return _pairs_of_xml(text) if text.startswith("<") else _pairs_of_lines(text)


def _decoded(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:  # also UTF-16, of which the zeros are then removed
        return content.decode("latin-1")


def _pairs_of_values(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _pairs_of_values(item, (*path[-2:], str(name)))
    elif isinstance(value, tuple):  # of a Zeiss file: label, value and unit
        yield ".".join(path), " ".join(map(str, value[1:]))
    elif isinstance(value, list):
        yield ".".join(path), " ".join(map(str, value))
    else:
        yield ".".join(path), str(value)


def _pairs_of_xml(text: str) -> Iterator[tuple[str, str]]:
    # A pattern, not an XML parser: the text is untrusted.
    path: list[str] = []
    for closing, name, attributes, content in _XML_ELEMENT.findall(text):
        if closing:
            del path[-1:]
            continue
        unit = re.search(r"\bunit=[\"']([^\"']*)", attributes)
        if content := content.strip():
            yield ".".join((*path[-2:], name)), f"{content} {unit[1] if unit else ''}".strip()
        if not attributes.endswith("/"):
            path.append(name)


def _pairs_of_lines(text: str) -> Iterator[tuple[str, str]]:
    section = ""
    for line in text.splitlines():
        if found := re.search(r"\[(\w+)\]\s*$", line):
            section = f"{found[1]}."
        elif found := re.match(r"\s*\$*+([\w.%]++)(?:\s*=|\s)(.*)", line):
            yield section + found[1], found[2].strip()


# A pattern, not an XML parser: the text is untrusted, and only a few attributes are needed. It
# takes time in proportion to the text only if it excludes "<", as attributes do.
_OME_TAG = re.compile(r"<(?:\w+:)?(OME|Pixels|TiffData|UUID)(?![\w:])([^<>]*)>([^<]*)")


def ome_pixel_sides(xml: str, directory: int) -> Sides:
    """Return the pixel of the image to which a directory of an OME-TIFF belongs.

    If that is not stated, the pixel of all images of the text, if it is one.
    """
    file_id: str | None = None
    sides: Sides = (None, None)
    is_own = False
    every, own = list[Sides](), list[Sides]()
    for tag, attributes, text in _OME_TAG.findall(xml):
        values = dict(re.findall(r"\b(\w+)\s*=\s*[\"']([^\"']*)[\"']", attributes))
        if tag == "OME":
            file_id = values.get("UUID")
        elif tag == "Pixels":
            sides = _ome_side(values, "X"), _ome_side(values, "Y")
            every.append(sides)
        elif tag == "TiffData":
            first, count = _as_float(values.get("IFD")), _as_float(values.get("PlaneCount"))
            n_planes = (math.inf if first is None else 1) if count is None else count
            is_own = (first or 0) <= directory < (first or 0) + n_planes
            own += [sides] if is_own else []
        elif is_own and text.strip() != file_id:  # planes of another file of the set
            own.pop()
            is_own = False
    found = set(own or every)
    return found.pop() if len(found) == 1 else (None, None)


def _ome_side(values: Mapping[str, str], axis: str) -> float | None:
    size = f"PhysicalSize{axis}"
    return length_in_nm(values.get(size), values.get(f"{size}Unit") or "um")


def _as_float(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


_PIXELS = ("", "px", "pixel", "pixels")


def length_in_pixels(length: str | float, pixel_size: float | None = None) -> float:
    """Return a length in pixels, from a number of pixels or a number with a unit.

    ValueError if it is not a length above 0, or has a unit while the pixel size is unknown.
    """
    number, unit = parse_length(length)
    if unit in _PIXELS:
        return number
    if pixel_size is None:
        raise ValueError(
            f"{length} cannot be converted to pixels, as the pixel size is unknown; give the "
            "length in pixels, or the pixel size."
        )
    nm = length_in_nm(number, unit)
    assert nm is not None  # as parse_length has checked
    return nm / pixel_size


# A comma, a space or an apostrophe before three digits separates thousands, except after a 0.
LENGTH = re.compile(
    r"\s*(?:(?P<thousands>[1-9]\d{0,2}(?:[,'\u2019\s]\d{3})+(?:\.\d+)?)"
    r"|(?P<number>\d+(?:[.,]\d*)?(?:[eE][-+]?\d+)?|[.,]\d+))\s*(?P<unit>\D*?)\s*"
)
_AMBIGUOUS = re.compile(r"[1-9]\d{0,2}[.,]\d{3}")


class AmbiguousLengthError(ValueError):
    """A length that may be two, as its comma or dot may be of thousands or of decimals."""


def parse_length(length: str | float, *, of_bar: bool = False) -> tuple[float, str]:
    """Return the number and the unit of a length, "" for pixels; a ValueError if it is none.

    "1,000 nm" is none, as it may mean 1 or 1000 nm, nor is "1.000 nm" of a scale bar.

    >>> parse_length("1 000 nm"), parse_length("0,5 um"), parse_length(32)
    ((1000.0, 'nm'), (0.5, 'um'), (32.0, ''))
    """
    found = LENGTH.fullmatch(str(length))
    number, unit = (number_of(found), found["unit"]) if found else (0.0, "")
    if not 0 < number < math.inf or (unit not in _PIXELS and length_in_nm(1, unit) is None):
        raise ValueError(
            f"{length!r} is not a length; give a number of pixels, such as 32, or one with a unit, "
            "such as 500nm or 0.5um."
        )
    text = (found["thousands"] or found["number"]) if found else ""
    # A dot is of decimals, but no bar is given to thousandths of a nanometre.
    is_small = of_bar and (length_in_nm(1, unit) or math.inf) <= 1
    if _AMBIGUOUS.fullmatch(text) and ("," in text or is_small):
        one, other = f"{float(text.replace(',', '.')):g}{unit}", re.sub(r"[.,]", "", text) + unit
        raise AmbiguousLengthError(f"{length!r} may be {one} or {other}; write one of these.")
    return number, "" if unit in _PIXELS else unit


def nanometres_of(length: str) -> float | None:
    """Return what a scale bar says in nanometres; None if it has no unit of length.

    An AmbiguousLengthError if it may be two lengths.
    """
    try:
        return length_in_nm(*parse_length(length, of_bar=True))
    except AmbiguousLengthError:
        raise
    except ValueError:
        return None


def number_of(found: re.Match[str]) -> float:
    """Return the number that `LENGTH` has found."""
    if found["thousands"]:
        return float(re.sub(r"[^\d.]", "", found["thousands"]))
    return float(found["number"].replace(",", "."))
