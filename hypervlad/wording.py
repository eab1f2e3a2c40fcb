"""Words of messages: numbers of things, and lists of names."""

from __future__ import annotations

from collections.abc import Sequence

_N_NAMED = 5


def counted(n: int, what: str) -> str:
    """Return a number of things in words.

    Parameters
    ----------
    n : int
    what : str
        The thing in the singular, which must have a regular plural.

    Examples
    --------
    >>> counted(1, "image"), counted(1200, "image"), counted(2, "class"), counted(0, "entry")
    ('1 image', '1,200 images', '2 classes', '0 entries')
    """
    if n == 1:
        return f"1 {what}"
    if what.endswith("y") and what[-2:-1] not in "aeiou":
        plural = f"{what[:-1]}ies"
    else:
        plural = f"{what}es" if what.endswith(("s", "x", "ch", "sh")) else f"{what}s"
    return f"{n:,} {plural}"


def verb(n: int, singular: str, plural: str) -> str:
    """Return the form of a verb, or of anything else, that fits a number of things.

    Examples
    --------
    >>> [f"{n} of 3 images {verb(n, 'is', 'are')} blank" for n in (1, 2)]
    ['1 of 3 images is blank', '2 of 3 images are blank']
    """
    return singular if n == 1 else plural


def name_some(names: Sequence[str]) -> str:
    """Return the first five names, and how many more there are.

    Examples
    --------
    >>> name_some(["a", "b"]), name_some("abcdefg")
    ('a, b', 'a, b, c, d, e and 2 more')
    """
    shown = ", ".join(names[:_N_NAMED])
    return shown if len(names) <= _N_NAMED else f"{shown} and {len(names) - _N_NAMED} more"
