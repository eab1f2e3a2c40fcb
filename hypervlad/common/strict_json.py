"""Parsing JSON that somebody else may have written."""

from __future__ import annotations

import json
import math
from typing import Any

_MAX_NESTING = 32
_MAX_VALUES = 2**20
_MAX_DIGITS = 20  # of a whole number; those of 64 bits have at most 19 and a sign
_MAX_QUOTED = 500  # characters of a key in a message


def parse_json(text: str | bytes) -> Any:
    """Parse JSON, a string or UTF-8, from an untrusted source; a ValueError if it could do harm.

    All numbers of the result are finite and fit 64 bits, no key occurs twice, there are at most a
    million values, nested at most 32 deep, and all texts can be written as UTF-8 with the error
    handler "surrogateescape".
    """
    if isinstance(text, bytes):
        text = text.decode()
    if not isinstance(text, str):  # a column of a database may hold anything
        raise ValueError(f"{text!r} is no text")
    # One of these stands before each value but the first.
    if sum(map(text.count, ",:[{")) > _MAX_VALUES:
        raise ValueError(f"more than {_MAX_VALUES} values")
    try:
        value = json.loads(
            text,
            object_pairs_hook=_without_duplicates,
            parse_constant=_finite,
            parse_float=_finite,
            parse_int=_bounded_integer,
        )
    except RecursionError:
        raise ValueError("lists and objects are nested too deeply") from None
    level = [value]
    for _ in range(_MAX_NESTING + 1):
        _check_texts(level)
        level = [
            item
            for each in level
            if isinstance(each, dict | list)
            for item in ((*each, *each.values()) if isinstance(each, dict) else each)
        ]
        if not level:
            return value
    raise ValueError(f"lists and objects are nested more than {_MAX_NESTING} deep")


def _check_texts(values: list[Any]) -> None:
    try:
        "".join(each for each in values if isinstance(each, str)).encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        found = error.object[error.start : error.start + 1]
        raise ValueError(f"a text contains {found!r}, which is no character") from None


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict[str, Any]()
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key[:_MAX_QUOTED]!r} occurs twice")
        found[key] = value
    return found


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:_MAX_DIGITS]} is not finite")
    return value


def _bounded_integer(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"the whole number {text[:_MAX_DIGITS]}... has more than 64 bits")
    value = int(text)
    if not -(2**63) <= value < 2**64:
        raise ValueError(f"the whole number {text} has more than 64 bits")
    return value
