"""Rules that choose particles by their measures, such as the counting criterion for fibres."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hypervlad.common.constraints import InstanceOf, check_value
from hypervlad.common.limits import MAX_RULE
from hypervlad.common.wording import counted, name_some, verb, warn_user
from hypervlad.objects.measures import check_table, lacks_pixel_size

if TYPE_CHECKING:
    import pandas as pd

#: Rules by name. ``"who-fibre"`` is the counting criterion for respirable fibres of the World
#: Health Organization, *Determination of airborne fibre number concentrations: a recommended
#: method, by phase-contrast optical microscopy (membrane filter method)*, Geneva 1997;
#: ``"niosh-7402"`` that of method 7402 of the NIOSH Manual of Analytical Methods, for TEM.
NAMED_RULES = {
    "who-fibre": "length > 5 um and width < 3 um and aspect_ratio > 3",
    "niosh-7402": "length > 5 um and width > 0.25 um and aspect_ratio >= 3",
}

_SIGNS = {
    "<=": np.less_equal, ">=": np.greater_equal, "==": np.equal, "!=": np.not_equal,
    "<": np.less, ">": np.greater,
}  # fmt: skip
_TO_BASE = {"": 1.0, "px": 1.0, "nm": 1.0, "um": 1e3, "px2": 1.0, "nm2": 1.0, "um2": 1e6}
_ANY_SIGN, _QUOTED = re.compile(r"[<>=!≤≥≠](?:\s*[<>=!≤≥≠])*"), re.compile(r"'[^']*'|\"[^\"]*\"")
_SIGN = "|".join(_SIGNS)
_VALUE = (
    r"(?P<{0}>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|'[^']*'|\"[^\"]*\")"
    r"\s*(?P<{0}_unit>[nuµμ]m2?|px2?)?(?!\w)"
)
_PART = re.compile(
    rf"\s*(?:(?P<joint>(?i:and|or|not)\b|[()])|(?:{_VALUE.format('low')}\s*(?P<low_sign>{_SIGN})\s*)?"
    rf"(?P<name>[A-Za-z]\w*)(?:\s*(?P<high_sign>{_SIGN})\s*{_VALUE.format('high')})?)\s*"
)


def match_rule(table: pd.DataFrame, rule: str) -> NDArray[np.bool_]:
    """Return which particles of a table meet a rule.

    Parameters
    ----------
    table : DataFrame
        From `measure`.
    rule : str
        A name of ``NAMED_RULES``, or comparisons (``< <= > >= == !=``) of measures with numbers and
        units (nm, um, px; nm2, um2, px2 for areas), or with a text in quotation marks, joined by
        ``and``, ``or``, ``not`` and brackets: ``"length > 5 um and aspect_ratio >= 3"``,
        ``"not touches_edge and (class == 'cube' or 20 nm <= width < 0.1 um)"``.

    Returns
    -------
    ndarray of bool, shape (n,)

    Raises
    ------
    ValueError
        If the rule cannot be read, it names no measure, a unit is missing or wrong, or the rule
        needs a pixel size that some particles lack.

    Warns
    -----
    UserWarning
        If particles lack a measure that the rule names, such as the persistence length of short
        ones: they do not meet the rule, whatever else it says.

    Examples
    --------
    >>> import pandas as pd
    >>> from hypervlad.particles import match_rule
    >>> table = pd.DataFrame({"length_nm": [6e3, 9e3, 2e3], "aspect_ratio": [3.0, 1.5, 8.0]})
    >>> match_rule(table, "length > 5 um and aspect_ratio >= 3")
    array([ True, False, False])
    """
    found, without = met_and_unknown(table, rule)
    if without:
        warn_user(without)
    return found


def met_and_unknown(table: pd.DataFrame, rule: str) -> tuple[NDArray[np.bool_], str]:
    """Return which particles meet a rule, and what to say of those without a measure in it."""
    import pandas as pd

    check_table(table)
    check_value("rule", rule, [InstanceOf(str, "a text")])
    text = NAMED_RULES.get(rule.strip(), rule)
    joined, met, start = list[str](), dict[str, NDArray[np.bool_]](), 0
    unknown = dict[str, NDArray[np.bool_]]()
    try:
        if len(text) > MAX_RULE:
            raise ValueError(f"has {len(text)} characters, at most {MAX_RULE} are allowed")
        for sign in _ANY_SIGN.findall(_QUOTED.sub("", text)):
            if sign not in _SIGNS:
                raise ValueError(f"has {sign}, which is no comparison: write {_right_sign(sign)}")
        while part := _PART.match(text, start):
            joined.append((part["joint"] or f"part{start}").lower())
            if part["name"]:
                met[joined[-1]] = _compared(table, part, unknown)
            start = part.end()
        try:
            found = np.asarray(pd.eval(" ".join(joined), engine="python", local_dict=met))
        except Exception:  # pandas raises anything for comparisons that are not joined
            found = np.zeros(0)
        if start < len(text) or found.dtype != bool:
            raise ValueError(
                f"cannot be read{f' at {text[start:]!r}' if start < len(text) else ''}: write "
                "comparisons joined by and, or, not, such as length > 5 um and aspect_ratio >= 3"
            )
    except ValueError as error:
        raise ValueError(f"the rule {text[:MAX_RULE]!r} {error}") from error
    left_out = [without_measure(name, each) for name, each in unknown.items() if each.any()]
    return found & ~np.any([*unknown.values()], axis=0), "; ".join(left_out)


def without_measure(name: str, is_unknown: NDArray[np.bool_]) -> str:
    """Say how many particles are left out, as they have no such measure."""
    n, of = int(is_unknown.sum()), counted(len(is_unknown), "particle")
    why = " (short or nearly straight ones)" if name.startswith("persistence_length") else ""
    return f"without {n} of {of} whose {name} is unknown{why}"


def _right_sign(sign: str) -> str:
    if sign == "<>" or {*sign} & {*"!≠"}:
        return "!="
    return ">=" if {*sign} & {*">≥"} else "<=" if {*sign} & {*"<≤"} else "=="


def _compared(
    table: pd.DataFrame, part: re.Match[str], unknown: dict[str, NDArray[np.bool_]]
) -> NDArray[np.bool_]:
    """Return where a measure lies within its bounds or, without any, is true; add unknown ones."""
    name, met = part["name"], np.ones(len(table), bool)
    for side in ("low", "high"):
        if (value := part[side]) is None:
            continue
        unit, sign = re.sub("[µμ]", "u", part[f"{side}_unit"] or ""), part[f"{side}_sign"]
        values, is_quoted = _column(table, name, unit), value[0] in "'\""
        values = values if is_quoted else _numbers_in(values)
        if values.dtype.kind == "f":
            unknown[name] = np.isnan(values)
        is_text = values.dtype.kind not in "biuf"
        if is_text != is_quoted or (is_text and sign not in ("==", "!=")):
            expected = "== or != and a text in quotation marks" if is_text else "a number"
            raise ValueError(f"must compare {name} by {expected}")
        bound = value[1:-1] if is_text else float(value) * _TO_BASE[unit]
        met &= _SIGNS[sign](*((bound, values) if side == "low" else (values, bound)))
    if part["low"] is part["high"] is None:
        met = _column(table, name)
        if met.dtype != bool:
            raise ValueError(f"has {name!r} where a comparison was expected")
    return met


def _numbers_in(values: NDArray[Any]) -> NDArray[Any]:
    """Return texts as numbers, if all are; columns of a person's own are read as texts."""
    import pandas as pd

    numbers = pd.to_numeric(pd.Series(values), errors="coerce").to_numpy()
    return numbers if (pd.isna(numbers) == pd.isna(values)).all() else values


def _column(table: pd.DataFrame, name: str, unit: str = "") -> NDArray[Any]:
    column = f"{name}_{unit.replace('u', 'n')}" if unit else name
    if column not in table:
        if name in table:
            raise ValueError(f"compares {name}, which has no unit, with a value in {unit}")
        units = [each for each in _TO_BASE if f"{name}_{each.replace('u', 'n')}" in table]
        if units:
            raise ValueError(f"must compare {name} with a value in {' or '.join(units)}")
        if name == "class":
            raise ValueError("names class, but the particles are not classified")
        bases = dict.fromkeys(re.sub(r"_(px|nm)2?$", "", str(known)) for known in table)
        raise ValueError(f"names {name!r}; the measures are {', '.join(bases)}")
    values = np.asarray(table[column])
    if (no_size := lacks_pixel_size(table, column)).any():
        of = list(dict.fromkeys(map(str, table[no_size].get("micrograph", ()))))
        n = int(no_size.sum())
        raise ValueError(
            f"needs the pixel size, which {counted(n, 'particle')} {verb(n, 'lacks', 'lack')} "
            f"({name_some(of)}): give pixel_size, or compare in px"
        )
    return values
