"""Words of messages and pages: numbers of things, shares, names; and warnings to users."""

from __future__ import annotations

import math
import re
import sys
import warnings
from collections.abc import Iterable, Sequence

_N_NAMED = 5
_CALLERS = ("sklearn", "joblib", "contextlib")  # what calls estimators for the user
_IMAGE = r"(?:\b([Aa])n )?(?<![\w/\\.-])([Ii])mage(?=s?(?![\w/\\-]|\.\w))"  # no path
# Control characters but tab and line feed, other separators of lines, marks that reverse the
# direction of text, and bytes of names that are not UTF-8.
_NOT_SHOWN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def counted(n: int, what: str) -> str:
    """Return a number of things, of a noun in the singular with a regular plural.

    >>> counted(1, "image"), counted(1200, "epoch"), counted(2, "class"), counted(0, "entry")
    ('1 image', '1,200 epochs', '2 classes', '0 entries')
    """
    if n == 1:
        return f"1 {what}"
    if what.endswith("y") and what[-2:-1] not in "aeiou":
        plural = f"{what[:-1]}ies"
    else:
        plural = f"{what}es" if what.endswith(("s", "x", "tch", "sh")) else f"{what}s"
    return f"{n:,} {plural}"


def capitalised(text: str) -> str:
    """Return a text that begins with a capital, and is as it was otherwise, unlike `capitalize`."""
    return f"{text[:1].upper()}{text[1:]}"


def verb(n: int, singular: str, plural: str) -> str:
    """Return the form of a verb, or of anything else, that fits a number of things."""
    return singular if n == 1 else plural


def name_some(names: Sequence[str]) -> str:
    """Return the first five names, and how many more there are."""
    shown = ", ".join(names[:_N_NAMED])
    return shown if len(names) <= _N_NAMED else f"{shown} and {len(names) - _N_NAMED} more"


def note_of_copies(names: Sequence[str], of: str = "other images") -> str:
    """Say which images do not count, as they are copies."""
    return f"without {name_some(names)}, {verb(len(names), 'a copy', 'copies')} of {of}"


def note_of_unscaled(names: Sequence[str], so: str) -> str:
    """Say which images lack a pixel size, what these cannot without it, and how to give it."""
    n = f"{counted(len(names), 'image')} is unknown, while the others have one"
    return f"the pixel size of {n}; without it, {name_some(names)} cannot {so}"


def percent(share: float) -> str:
    """Return a share in per cent; a dash for NaN.

    Less than everything is never 100 %, and more than nothing never 0 %, as in ``common.js``.

    >>> percent(0.25), percent(0.99996), percent(0.0002), percent(1.0)
    ('25.0 %', '>99.9 %', '<0.1 %', '100.0 %')
    """
    if math.isnan(share):
        return "–"
    if 0 < share < 0.001:
        return "<0.1 %"
    if 0.999 < share < 1:
        return ">99.9 %"
    return f"{math.floor(1000 * share + 0.5) / 10:.1f} %"


def interval_words(interval: tuple[float, float]) -> str:
    """Return the interval of a share, in per cent.

    >>> interval_words((0.0089, 0.2361))
    '95 % interval 0.9 to 23.6 %'
    """
    low, high = interval
    return f"95 % interval {100 * low:.1f} to {percent(high)}"


def of_particles(text: str, names: Iterable[object] = ()) -> str:
    """Return a sentence about images as one about particles; paths and names stay the same.

    >>> of_particles("An image is lost: images/image.png, 2 images of image a", ["image a"])
    'A particle is lost: images/image.png, 2 particles of image a'
    """
    kept = sorted({str(name) for name in names if str(name) in text} - {""}, key=len, reverse=True)
    pattern = "|".join([*(rf"(?<!\w){re.escape(name)}(?!\w)" for name in kept), _IMAGE])

    def changed(found: re.Match[str]) -> str:
        article, first = found.groups()
        if first is None:  # a name
            return found[0]
        word = "particle" if first == "i" else "Particle"
        return f"{article} {word}" if article else word

    return re.sub(pattern, changed, text)


def reason_of(error: Exception) -> str:
    """Return the first line of an error's text, or its type if there is none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def printable(value: object) -> str:
    """Return a text with escapes for characters that hide or change what is around them."""
    return _NOT_SHOWN.sub(lambda found: found[0].encode("unicode_escape").decode(), str(value))


def is_utf8(text: str) -> bool:
    """Return whether a text has no bytes of a file's name, or of a table, that are not UTF-8."""
    return not any("\udc80" <= character <= "\udcff" for character in text)


def warn_user(message: Warning | str, category: type[Warning] = UserWarning) -> None:
    """Warn, by default with a UserWarning, at the line of the user's code that called hypervlad."""
    frame, packages = sys._getframe(1), list[str]()
    while True:
        packages.append(str(frame.f_globals.get("__name__")).partition(".")[0])
        if frame.f_back is None:
            break
        frame = frame.f_back
    # Frames of other packages lie within, such as those of a progress bar.
    outermost = max(i for i, package in enumerate(packages) if package == "hypervlad")
    outside = range(outermost + 1, len(packages))
    level = next((i for i in outside if packages[i] not in _CALLERS), outermost)
    warnings.warn(message, category, stacklevel=level + 2)
