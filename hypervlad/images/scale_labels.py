"""What a scale bar says, read by character recognition: a proposal, for a person to check."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hypervlad.images.bar_lines import ScaleBar
from hypervlad.images.metadata import LENGTH, length_in_nm, number_of

# A length without words but "scale bar", so none of a working distance, among signs and digits.
_BEFORE_UNIT = LENGTH.pattern.partition("(?P<unit>")[0]
_WORDS = r"(?:(?i:scale|bar)[\W_]*)*"
_LENGTH = re.compile(rf"[\W_]*{_WORDS}{_BEFORE_UNIT}(?P<unit>[^\W\d_]+)[\W\d_]*{_WORDS}")
_UNITS = {1e6: "mm", 1e3: "um", 1.0: "nm", 0.1: "A", 1e-3: "pm"}  # by how many nm they are
# A dot before three digits is of thousands or of decimals: no bar is so exact in small units.
_AMBIGUOUS, _SMALL = re.compile(r"[1-9]\d{0,2}\.\d{3}"), ("nm", "A", "pm")
# "µm" may be read as "pm", as which no microscope resolves less.
_MIN_PICOMETRES = 50
LabelReader: TypeAlias = Callable[[NDArray[np.float32], ScaleBar], str]
_Word: TypeAlias = tuple[tuple[float, float, float, float], str]  # its box, as that of a bar
_MARGINS = 160, 120  # pixels around a bar in which its label is, at least


def new_label_reader() -> LabelReader:
    """Return a function from the pixels of an image, and its bar, to what the bar says.

    That is a number and a unit such as "10 um", or "" if none was read. ImportError without the
    extra ``ocr``.
    """
    try:
        from rapidocr import RapidOCR

        # Its models are in its wheel; at the level "info" it reports each of them. Labels are
        # seldom upside down. Enlarged to the usual 736 pixels, fewer of them are found, in four
        # times the time.
        options = {
            "Global.log_level": "critical",
            "Global.use_cls": False,
            "Det.limit_side_len": 320,
        }
        # Annotated as returning any of four results.
        engine: Any = RapidOCR(params=options)
    except ImportError as error:
        raise ImportError(
            f'reading labels needs rapidocr ({error}): pip install "hypervlad[ocr]"'
        ) from error

    def read(pixels: NDArray[np.float32], bar: ScaleBar) -> str:
        part, (top, left) = around_bar(pixels, bar)
        grey = part if part.ndim == 2 else part.mean(axis=2)
        found = engine(np.repeat(np.round(255 * grey).astype(np.uint8)[..., None], 3, axis=2))
        if found.txts is None:
            return ""
        words = []
        for text, corners in zip(found.txts, found.boxes, strict=True):
            x, y = np.asarray(corners).T
            box = (y.min() + top, x.min() + left, y.max() + top, x.max() + left)
            words.append((box, text))
        lengths = ((_distance(box, bar.box), length_in(text)) for box, text in _with_joined(words))
        return min((each for each in lengths if each[1]), default=(0, ""))[1]

    return read


def around_bar(
    pixels: NDArray[np.float32], bar: ScaleBar
) -> tuple[NDArray[np.float32], tuple[int, int]]:
    """Return a bar with what is around it, its label above all, and the first row and column."""
    top, left, bottom, right = bar.box
    across = max(_MARGINS[0], (right - left) // 2)
    down = max(_MARGINS[1], (right - left) // 4)
    y, x = max(top - down, 0), max(left - across, 0)
    return pixels[y : bottom + down, x : right + across], (y, x)


def length_in(text: str) -> str:
    """Return the length in a text that was read, as "10 um"; "" if there is none.

    "1.000 nm" is none, as it may mean 1 or 1000 nm.

    >>> length_in("10,0 µm"), length_in("1,000 nm"), length_in("5pm"), length_in("20 kV")
    ('10 um', '1000 nm', '5 um', '')
    >>> length_in("Scale bar = 20 microns"), length_in("10 u"), length_in("1.000 nm")
    ('20 um', '10 um', '')
    """
    found = _LENGTH.fullmatch(text)
    unit = _UNITS.get(length_in_nm(1, found["unit"]) or 0) if found else None
    if found is None or unit is None:
        return ""
    number, is_ambiguous = number_of(found), _AMBIGUOUS.fullmatch(found["number"] or "")
    if not number or (is_ambiguous and unit in _SMALL):
        return ""
    return f"{number:.12g} {'um' if unit == 'pm' and number < _MIN_PICOMETRES else unit}"


def may_be_micrometres(label: str) -> bool:
    """Return whether a label that was read as picometres may be of micrometres."""
    return label.endswith("pm")


def _with_joined(words: list[_Word]) -> list[_Word]:
    """Return words, and what lies close together in a line as one: "10" and "um" as "10 um"."""
    lines = list[list[_Word]]()
    for word in sorted(words, key=lambda each: each[0][1]):
        top, left, bottom, _ = word[0]
        for line in lines:
            above, _, below, end = line[-1][0]
            tall = min(bottom - top, below - above)
            if left - end <= tall and min(bottom, below) - max(top, above) > tall / 2:
                line.append(word)
                break
        else:
            lines.append([word])
    joined = [line for line in lines if len(line) > 1]
    return words + [(line[0][0], " ".join(text for _, text in line)) for line in joined]


def _distance(one: Any, other: Any) -> float:
    """Return how far two boxes (top, left, bottom, right) are apart; 0 if they overlap."""
    rows = max(one[0] - other[2], other[0] - one[2], 0)
    columns = max(one[1] - other[3], other[1] - one[3], 0)
    return float(np.hypot(rows, columns))
