"""Rules that choose particles by their measures, such as the counting criterion for fibres."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hypervlad.common.wording import counted, name_some, verb

if TYPE_CHECKING:
    import pandas as pd

#: Rules by name. ``"who-fibre"`` is the counting criterion for respirable fibres of the World
#: Health Organization, *Determination of airborne fibre number concentrations: a recommended
#: method, by phase-contrast optical microscopy (membrane filter method)*, Geneva 1997.
NAMED_RULES = {"who-fibre": "length > 5 um and width < 3 um and aspect_ratio > 3"}

_TO_BASE = {"px": 1.0, "nm": 1.0, "um": 1e3, "px2": 1.0, "nm2": 1.0, "um2": 1e6}
_TOKENS = re.compile(
    r"""(?P<text>'[^']*'|"[^"]*")|(?P<word>\b(?:class|AND|OR|NOT)\b)"""
    r"|(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(?P<unit>[nuµμ]m2?|px2?)\b"
)
_MAX_RULE = 1000  # characters


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
        If the rule cannot be read, a measure is unknown, a unit is missing or wrong, or the rule
        needs a pixel size that some particles lack.

    Examples
    --------
    >>> import pandas as pd
    >>> from hypervlad.particles import match_rule
    >>> table = pd.DataFrame({"length_nm": [6e3, 9e3, 2e3], "aspect_ratio": [3.0, 1.5, 8.0]})
    >>> match_rule(table, "length > 5 um and aspect_ratio >= 3")
    array([ True, False, False])
    """
    expression = NAMED_RULES.get(rule.strip(), rule)
    try:
        if len(expression) > _MAX_RULE:
            raise ValueError(f"has {len(expression)} characters, at most {_MAX_RULE} are allowed")
        # Python's grammar has the comparisons, but no units, and "class" is one of its words.
        text = _TOKENS.sub(_as_python, expression.strip())
        try:
            tree = ast.parse(text, mode="eval").body
        except (SyntaxError, RecursionError, MemoryError) as error:
            raise ValueError(
                "cannot be read: write comparisons joined by and, or, not, such as "
                "length > 5 um and aspect_ratio >= 3"
            ) from error
        return _Rule(table, text).meets(tree)
    except ValueError as error:
        shown = expression[:_MAX_RULE]
        raise ValueError(f"the rule {shown!r} {error}") from error


def _as_python(found: re.Match[str]) -> str:
    if found["unit"]:
        return f"{found['number']}*{found['unit'].replace('µ', 'u').replace('μ', 'u')}"
    if found["word"]:
        return "class_" if found["word"] == "class" else found["word"].lower()
    return found[0]


class _Rule:
    """The syntax tree of a rule, evaluated on a table; every node but those named is refused."""

    def __init__(self, table: pd.DataFrame, text: str) -> None:
        self.table, self.text = table, text

    def meets(self, node: ast.expr) -> NDArray[np.bool_]:
        if isinstance(node, ast.BoolOp):
            parts = [self.meets(value) for value in node.values]
            join = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
            return np.asarray(join.reduce(parts))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return ~self.meets(node.operand)
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            pairs = zip(sides, node.ops, sides[1:], strict=False)
            return np.asarray(np.logical_and.reduce([self.compare(*pair) for pair in pairs]))
        if isinstance(node, ast.Name):
            values = self.column(node.id)
            if values.dtype == bool:
                return values
        raise ValueError(f"has {self.shown(node)!r} where a comparison was expected")

    def compare(self, left: ast.expr, sign: ast.cmpop, right: ast.expr) -> NDArray[np.bool_]:
        if isinstance(right, ast.Name) and not isinstance(left, ast.Name):
            left, right, turned = right, left, True
        else:
            turned = False
        compare = {
            ast.Lt: np.less, ast.LtE: np.less_equal, ast.Gt: np.greater,
            ast.GtE: np.greater_equal, ast.Eq: np.equal, ast.NotEq: np.not_equal,
        }.get(type(sign))  # fmt: skip
        if compare is None or not isinstance(left, ast.Name):
            raise ValueError(
                f"has {self.shown(left)!r} where the name of a measure was expected, and after it "
                "one of < <= > >= == !="
            )
        bound, unit = self.bound(right)
        values = self.column(left.id, unit)
        is_text = values.dtype.kind not in "biuf"
        if is_text != isinstance(bound, str) or (
            is_text and compare not in (np.equal, np.not_equal)
        ):
            expected = "== or != and a text in quotation marks" if is_text else "a number"
            raise ValueError(f"must compare {left.id.rstrip('_')} by {expected}")
        one, other = (bound, values) if turned else (values, bound)
        return np.asarray(compare(one, other), bool)

    def bound(self, node: ast.expr) -> tuple[float | str, str]:
        """Return a number in pixels, nanometres or without unit, or a text; and the unit."""
        if isinstance(node, ast.Constant) and isinstance(node.value, int | float | str):
            return node.value, ""
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
            number, unit = node.left, node.right
            if isinstance(number, ast.Constant) and isinstance(unit, ast.Name):
                known = _TO_BASE.get(unit.id)
                if known is not None and isinstance(number.value, int | float):
                    return number.value * known, unit.id.replace("u", "n")
        raise ValueError(
            f"has {self.shown(node)!r} where a number, a number with the unit nm, um or px, or a "
            "text in quotation marks was expected"
        )

    def column(self, name: str, unit: str = "") -> NDArray[Any]:
        name = "class" if name == "class_" else name
        column = f"{name}_{unit}" if unit else name
        names = [str(known) for known in self.table.columns]
        if column not in names:
            units = [known[len(name) + 1 :] for known in names if known.startswith(f"{name}_")]
            units += ["um" if known == "nm" else "um2" for known in units if known[:2] == "nm"]
            if name in names:
                raise ValueError(f"compares {name}, which has no unit, with a value in {unit}")
            if units and set(units) <= set(_TO_BASE):
                raise ValueError(f"must compare {name} with a value in {' or '.join(units)}")
            bases = dict.fromkeys(re.sub(r"_(px|nm)2?$", "", known) for known in names)
            raise ValueError(f"names {name!r}; the measures are {', '.join(bases)}")
        values = self.table[column].to_numpy()
        if unit[:2] == "nm" and np.isnan(values).any():
            unknown = self.table[np.isnan(values)]
            of = dict.fromkeys(unknown.get("micrograph", ()))
            raise ValueError(
                f"needs the pixel size, which {counted(len(unknown), 'particle')} "
                f"{verb(len(unknown), 'lacks', 'lack')} ({name_some([str(n) for n in of])}): give "
                "pixel_size, or compare in px"
            )
        return np.asarray(values)

    def shown(self, node: ast.expr) -> str:
        return (ast.get_source_segment(self.text, node) or "").replace("*", " ")
