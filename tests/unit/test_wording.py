"""Numbers in messages, which no message may format by itself: one image, two images; 12.5 %."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import hypervlad


@pytest.fixture(scope="module")
def formatted():
    """The values in the f-strings of all modules, each with what follows it."""
    found = []
    for path in Path(hypervlad.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                pairs = zip(node.values, [*node.values[1:], None], strict=True)
                found += [(each, after) for each, after in pairs if is_variable(each)]
    assert len(found) > 1000
    return found


def is_variable(part):
    """Constants, whose names are in capitals, are not 1."""
    is_value = isinstance(part, ast.FormattedValue)
    return is_value and not (isinstance(part.value, ast.Name) and part.value.id.isupper())


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


def test_no_message_says_one_images(formatted):
    found = [
        f"{{{ast.unparse(value.value)}}}{after.value}"
        for value, after in formatted
        if isinstance(after, ast.Constant) and PLURALS.search(after.value)
    ]
    assert [text for text in found if not any(known in text for known in ALLOWED)] == []


def test_shares_in_messages_have_one_format(formatted):
    specs = [(ast.unparse(each.value), each.format_spec) for each, _ in formatted]
    texts = [(name, ast.unparse(spec).rstrip("'\"")) for name, spec in specs if spec]
    assert [name for name, text in texts if text.endswith("%")] == []
