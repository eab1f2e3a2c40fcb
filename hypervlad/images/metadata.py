"""Pixel size, in nm, and scanned height from metadata of microscopes; lengths with units."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Mapping
from typing import Any, TypeAlias

Sides: TypeAlias = tuple[float | None, float | None]
_NEARLY_SQUARE = 0.01
_PLAUSIBLE = (1e-3, 1e6)  # nm: beyond, a unit was not the one that was assumed
_NM_PER_UNIT = {
    "m": 1e9,
    "cm": 1e7,
    "mm": 1e6,
    "um": 1e3,
    "micron": 1e3,
    "microns": 1e3,
    "micrometer": 1e3,
    "micrometre": 1e3,
    "nm": 1.0,
    "nanometer": 1.0,
    "nanometre": 1.0,
    "a": 0.1,
    "angstrom": 0.1,
    "pm": 1e-3,
    "inch": 2.54e7,
    "in": 2.54e7,
}


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
    text = html.unescape(unit).strip().strip("\x00")
    text = re.sub(r"\\u00[bB]5", "u", text)
    text = re.sub(r"\\u00[cC]5|\\u212[bB]", "A", text)
    text = text.replace("µ", "u").replace("μ", "u").replace("Å", "A").replace("\u212b", "A")
    return text.lower()


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


def fei_pixel_sides(fei: Mapping[str, Any]) -> Sides:
    """Return the pixel of an FEI/Thermo TIFF, which is stored in metres."""
    across, down = (_fei_value(fei, name) for name in ("PixelWidth", "PixelHeight"))
    return length_in_nm(across, "m"), length_in_nm(down, "m")


def fei_scan_rows(fei: Mapping[str, Any], n_rows: int) -> int | None:
    """Return how many rows of an FEI/Thermo TIFF of `n_rows` rows belong to the image.

    By ResolutionY, DatabarHeight, or field of view over pixel height, whichever comes first.
    """
    bar = _as_float(_fei_value(fei, "DatabarHeight"))
    field = _as_float(_fei_value(fei, "VerFieldsize"))
    pixel = _as_float(_fei_value(fei, "PixelHeight"))
    candidates = [
        _as_float(_section_value(fei.get("Image"), "ResolutionY")),
        n_rows - bar if bar else None,
        field / pixel if field and pixel else None,
    ]
    for rows in candidates:
        # A banner is never the larger part. Such a number means something else, for instance a
        # binned scan.
        if rows is not None and math.isfinite(rows) and n_rows / 2 < round(rows) <= n_rows:
            return round(rows)
    return None


def _section_value(section: Any, key: str) -> Any:
    if not isinstance(section, Mapping):
        return None
    return next((value for name, value in section.items() if name.lower() == key.lower()), None)


def _fei_value(fei: Mapping[str, Any], key: str) -> Any:
    # The section may have the name of the beam: Scan first, then EScan, IScan or another.
    sections = [fei.get("Scan"), *fei.values()]
    values = (_section_value(section, key) for section in sections)
    return next((value for value in values if _as_float(value)), None)


def _as_float(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def zeiss_pixel_size(zeiss: Mapping[str, Any]) -> float | None:
    """Return AP_IMAGE_PIXEL_SIZE of a Zeiss SmartSEM TIFF (tag 34118).

    AP_PIXEL_SIZE is the pixel of the monitor, not of the stored image.
    """
    entry = zeiss.get("ap_image_pixel_size")
    if not isinstance(entry, (tuple, list)) or len(entry) < 2:
        return None
    if len(entry) == 2:  # the parser did not split "1.235 nm"
        match = re.fullmatch(r"\s*([-+.\deE]+)\s*([^-+.\deE\s]\S*)\s*", str(entry[1]))
        return length_in_nm(*match.groups()) if match else None
    return length_in_nm(entry[1], entry[2])


def imagej_pixel_sides(imagej: Mapping[str, Any], x_resolution: Any, y_resolution: Any) -> Sides:
    unit = imagej.get("unit", "")
    return _side(x_resolution, unit), _side(y_resolution, imagej.get("yunit", unit))


def _side(resolution: Any, unit: Any) -> float | None:
    try:
        numerator, denominator = resolution
        unit_per_pixel = float(denominator) / float(numerator)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return length_in_nm(unit_per_pixel, unit)


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


def parse_length(length: str | float) -> tuple[float, str]:
    found = re.fullmatch(r"\s*(\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+)\s*(\D*?)\s*", str(length))
    number, unit = (float(found[1]), found[2]) if found else (0.0, "")
    if not 0 < number < math.inf or (unit not in _PIXELS and length_in_nm(1, unit) is None):
        raise ValueError(
            f"{length!r} is not a length; give a number of pixels, such as 32, or one with a unit, "
            "such as 500nm or 0.5um."
        )
    return number, "" if unit in _PIXELS else unit
