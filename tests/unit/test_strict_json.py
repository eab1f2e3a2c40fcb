import pytest

from hypervlad.common.strict_json import parse_json


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "None is no text"),
        ('{"a": 1, "a": 2}', "the key 'a' occurs twice"),
        ("1e400", "1e400 is not finite"),
        ("[NaN]", "NaN is not finite"),
        ('{"a": -Infinity}', "-Infinity is not finite"),
        ("1" * 30, "more than 64 bits"),
        (str(-(2**63) - 1), "more than 64 bits"),
        ("[" * 40 + "]" * 40, "nested more than 32 deep"),
        ("[" * 100_000, "nested too deeply|Expecting value"),
        ("{", "property name"),
        (b'{"a": "\xff"}', "invalid start byte"),
        (r'{"a": ["\ud800"]}', r"'\\ud800', which is no character"),
        (r'{"\udbff": 1}', r"'\\udbff', which is no character"),
        (r'["\ud83d", "\ude00"]', r"'\\ud83d', which is no character"),
        ("[" + "{}," * 2**20 + "{}]", "more than 1048576 values"),
    ],
)
def test_json_that_could_do_harm_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_json(text)


def test_names_of_files_that_are_not_unicode_are_read():
    assert parse_json(r'{"\udcff.png": "\ud83d\ude00"}') == {"\udcff.png": "\U0001f600"}
