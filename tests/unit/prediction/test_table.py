"""A table that grows in several runs: no complete line is lost, and all are of one kind."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.classifications import classification

from hypervlad.files import LinkError
from hypervlad.prediction.table import GrowingTable, record_of
from hypervlad.reports.predictions import (
    column_names,
    prediction_columns,
    prediction_header,
    write_predictions,
)

CLASSES = ["fibre", "tube"]


def table_at(
    path: Path, model: str = "1", coverage: float | None = None, max_error: float | None = None
) -> GrowingTable:
    return GrowingTable(path, CLASSES, model=model, coverage=coverage, max_error=max_error)


def add(table: GrowingTable, *names: str) -> None:
    proba = [[0.25, 0.75]] * len(names)
    table.add(names, classification(proba), range(len(names)))


def names_in(path: Path) -> list[str]:
    with open(path, encoding="utf-8", newline="") as stream:
        return [row[0] for row in csv.reader(stream)]


def test_the_table_is_that_of_one_run(tmp_path: Path) -> None:
    """Lines that are added later are those that would have been written at once."""
    kinds = ["sure", "ambiguous", "sure", "sure"]
    proba = [[0.25, 0.75], [0.5, 0.5], [1, 0], [1, 0]]
    names = ["a.png", "=b.png", 'c "d", e\n.png']
    found = classification(proba, kinds=kinds)
    table = table_at(tmp_path / "t.csv", max_error=0.1)
    for k in range(3):
        table.add([names[k]], found, [k])
    whole = io.StringIO()
    columns = prediction_columns(found, CLASSES)
    write_predictions(whole, names, found.proba, CLASSES, columns=columns)
    assert (tmp_path / "t.csv").read_text(encoding="utf-8") == whole.getvalue()
    header = prediction_header(column_names(has_sets=False, is_judged=True), CLASSES)
    assert next(csv.reader(whole.getvalue().splitlines())) == header
    again = table_at(tmp_path / "t.csv", max_error=0.1)
    assert again.paths == {os.path.abspath(name) for name in names}


@pytest.mark.parametrize("n_lost", range(1, 60))
def test_an_incomplete_line_is_removed_and_a_complete_one_kept(tmp_path: Path, n_lost: int) -> None:
    path = tmp_path / "t.csv"
    table = table_at(path)
    add(table, "a.png")
    complete = path.read_bytes()
    add(table, 'b "c", %s.png' % ("d" * 40))
    whole = path.read_bytes()
    path.write_bytes(whole[:-n_lost])
    again = table_at(path)
    if n_lost == 1:  # an editor removed the line break
        assert path.read_bytes() == whole
        assert len(again.paths) == 2
    else:
        assert path.read_bytes() == complete
        add(again, 'b "c", %s.png' % ("d" * 40))
        assert path.read_bytes() == whole


LINES = st.lists(st.text(st.sampled_from('ab,"\n\r;=é'), max_size=12), max_size=4)


@given(LINES, st.booleans())
def test_no_complete_line_is_ever_removed(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], broken: bool
) -> None:
    """Whatever others wrote into the table, all but an incomplete last line stay."""
    path = tmp_path_factory.mktemp("table") / "t.csv"
    add(table_at(path), "a.png")
    text = path.read_bytes() + "\n".join(lines).encode() + b"\n" * broken
    path.write_bytes(text)
    last = text[text.rfind(b"\n") + 1 :]
    try:
        table_at(path)
    except ValueError:
        assert path.read_bytes() == text
    else:
        assert path.read_bytes() in (text, text + b"\n", text.removesuffix(last))


def test_a_stray_quotation_mark_is_part_of_a_name(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    add(table_at(path), *(f"{k}.png" for k in range(5)))
    path.write_bytes(path.read_bytes().replace(b"1.png", b'5" wafer.png'))
    table = table_at(path)
    assert os.path.abspath('5" wafer.png') in table.paths
    assert len(table.paths) == 5


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b",", b";", "line 1 is not one of this table, with commas between the columns"),
        (b"1.png,", b"1.png,more,", "line 3 is not one of this table"),
        (b"1.png,", b'"1.png,', "line 3 is not one of this table"),
        (b"p_tube", b"p_wire", "line 1 is not one of this table"),
    ],
)
def test_a_table_that_another_program_changed_is_refused(
    tmp_path: Path, old: bytes, new: bytes, words: str
) -> None:
    path = tmp_path / "t.csv"
    add(table_at(path), "0.png", "1.png", "2.png")
    changed = path.read_bytes().replace(old, new)
    path.write_bytes(changed)
    with pytest.raises(ValueError, match=words):
        table_at(path)
    assert path.read_bytes() == changed


def test_a_byte_order_mark_and_line_breaks_of_windows_are_read(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    add(table_at(path), "a.png")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert table_at(path).paths == {os.path.abspath("a.png")}


def test_a_table_that_was_removed_has_a_header_again(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    table = table_at(path)
    add(table, "a.png")
    path.unlink()
    add(table, "b.png")
    assert names_in(path) == ["path", "b.png"]


@pytest.mark.parametrize("text", ["path,label\na,b\n", "no table\n", '"open\n'])
def test_another_table_is_not_continued(tmp_path: Path, text: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"is another table: _t\.csv\.model, with the model and"):
        table_at(path)
    assert path.read_text() == text


@pytest.mark.parametrize("other", [{"model": "2"}, {"coverage": 0.9}, {"max_error": 0.05}])
def test_lines_of_other_models_and_options_are_not_mixed(tmp_path: Path, other: Any) -> None:
    path = tmp_path / "t.csv"
    if "max_error" in other:
        judged = classification([[0.25, 0.75]], kinds=["sure"])
        table_at(path, max_error=0.1).add(["a.png"], judged, [0])
        with pytest.raises(ValueError, match="other columns than the table"):
            add(table_at(path, max_error=0.1), "b.png")
    else:
        add(table_at(path), "a.png")
    with pytest.raises(ValueError, match="was made by another model or with other options"):
        table_at(path, **other)
    assert names_in(path) == ["path", "a.png"]
    path.unlink()  # then it is a new table
    table_at(path, **other)
    table_at(path, **other)
    assert record_of(path).exists()


def test_a_table_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real.csv").touch()
    os.symlink(tmp_path / "real.csv", tmp_path / "t.csv")
    with pytest.raises(LinkError):
        table_at(tmp_path / "t.csv")


def test_lines_wait_while_another_program_has_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t.csv"
    table = table_at(path)
    before = path.read_bytes()
    plain_open = open

    def refuse(file: Any, mode: str = "r", *rest: Any, **options: Any) -> Any:
        if Path(file) == path and "a" in mode:
            raise PermissionError(13, "in use")
        return plain_open(file, mode, *rest, **options)

    (tmp_path / "t-unsaved.csv").write_text("of an earlier run")
    with monkeypatch.context() as blocked:
        blocked.setattr("builtins.open", refuse)
        with pytest.warns(UserWarning, match="cannot be written now"):
            add(table, "a.png")
        add(table, "b.png")  # warned of once
        assert not table.is_written
        unsaved = table.close()
    assert path.read_bytes() == before
    assert unsaved == tmp_path / "t-unsaved-2.csv"
    assert (tmp_path / "t-unsaved.csv").read_text() == "of an earlier run"
    assert table.close() is None
    assert unsaved.read_bytes() == path.read_bytes()
    assert names_in(path) == ["path", "a.png", "b.png"]
