"""Numbers and their nouns in messages: one image, two images."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import hypervlad
from hypervlad.common.wording import counted, name_some, percent, printable


@pytest.fixture(scope="module")
def trees() -> list[ast.AST]:
    """The syntax trees of all modules."""
    sources = Path(hypervlad.__file__).parent.rglob("*.py")
    return [ast.parse(path.read_text("utf-8")) for path in sources]


# What users count. A number in braces before one of these may be 1.
PLURALS = re.compile(
    r"^ (other |more |synthetic |uncertain |manually labelled )?"
    r"(images|groups|files|masks|regions|pages|entries|classes|lines)\b|\((s|es)\)(?!\w)"
)
# Never one: a kind of file, or a state that no model of one class can have.
ALLOWED = {
    "{kind} files need",
    "{n_classes} classes",
    "{self.n_classes} classes",
    "{len(self.classes_)} classes",
    "{len(classes)} classes",
    "{self.head_.coef.shape[1]} classes",
    "{shape[1]} classes",
    "{len(values)} groups values",
}


def plurals_after_numbers(tree: ast.AST) -> list[str]:
    """Return the places in f-strings where a plural follows a value that is not `counted`.

    Constants, whose names are in capitals, are not 1.
    """
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            for value, after in zip(node.values, node.values[1:], strict=False):
                is_value = isinstance(value, ast.FormattedValue) and not (
                    isinstance(value.value, ast.Name) and value.value.id.isupper()
                )
                if is_value and isinstance(after, ast.Constant) and PLURALS.search(after.value):
                    found.append(f"{{{ast.unparse(value.value)}}}{after.value}")
    return found


def test_the_search_finds_plurals_after_numbers() -> None:
    tree = ast.parse("f'{n} images of {m} groups, {_MAX} images', f'{m} image(s) left', f'{m} px'")
    expected = ["{n} images of ", "{m} groups, ", "{m} image(s) left"]
    assert plurals_after_numbers(tree) == expected


def test_no_message_says_one_images(trees: list[ast.AST]) -> None:
    found = [text for tree in trees for text in plurals_after_numbers(tree)]
    assert [text for text in found if not any(known in text for known in ALLOWED)] == []


def shares_by_format(tree: ast.AST) -> list[str]:
    """Return the values that f-strings format with ``%`` themselves; not of constants."""
    return [
        ast.unparse(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.FormattedValue)
        and node.format_spec is not None
        and ast.unparse(node.format_spec).rstrip("'\"").endswith("%")
        and not (isinstance(node.value, ast.Name) and node.value.id.isupper())
    ]


def test_the_search_finds_shares_that_are_formatted_otherwise() -> None:
    tree = ast.parse("f'{a:.1%} of {b:.3f} % {C:.0%}, {d}, {e.f:{width}%}'")
    assert shares_by_format(tree) == ["a", "e.f"]


def test_shares_in_messages_have_one_format(trees: list[ast.AST]) -> None:
    assert [text for tree in trees for text in shares_by_format(tree)] == []


@given(st.integers(0, 10**6), st.sampled_from(["image", "class", "entry", "day", "box", "batch"]))
def test_numbers_and_nouns(n: int, what: str) -> None:
    plural = {"class": "classes", "entry": "entries", "box": "boxes", "batch": "batches"}
    number, noun = counted(n, what).split(" ")
    assert int(number.replace(",", "")) == n
    assert noun == (what if n == 1 else plural.get(what, f"{what}s"))


@given(st.lists(st.text("ab", min_size=1), min_size=1, max_size=12))
def test_every_name_is_shown_or_counted(names: list[str]) -> None:
    shown, _, more = name_some(names).partition(" and ")
    assert shown.split(", ") == names[:5]
    assert (int(more.split()[0]) if more else 0) == max(0, len(names) - 5)


@given(st.floats(0, 1))
@example(0.99996)
@example(0.0025)
def test_shares_are_rounded_to_a_tenth_of_a_per_cent(share: float) -> None:
    text = percent(share)
    assert ("100" in text) == (share == 1)
    assert (text == "0.0 %") == (share == 0)
    if text[0] not in "<>":
        assert abs(float(text.removesuffix(" %")) / 100 - share) < 0.0005001
    assert percent(float("nan")) == "–"


def test_characters_that_hide_or_reverse_are_shown_as_text() -> None:
    hostile = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp.\r\u2028\udcff"
    assert printable(hostile) == ascii(hostile)[1:-1]
    assert printable("Größe\tÅ\n日本 👩\u200d🔬 é") == "Größe\tÅ\n日本 👩\u200d🔬 é"
