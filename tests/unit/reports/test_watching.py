"""A folder that is watched: every image once, complete lines, and a run that goes on."""

from __future__ import annotations

import csv
import io
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock, patch

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.classifications import classification

from hypervlad.common.files import LinkError
from hypervlad.images import SkippedImage
from hypervlad.models import Classification
from hypervlad.results import predictions_as_bytes
from hypervlad.results.reports.predictions import prediction_columns, prediction_header
from hypervlad.results.reports.watching import GrowingTable, settings_file, watch_folders

CLASSES = ["fibre", "tube"]
INTERVAL = 0.02


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hypervlad.results.reports.watching._INTERVAL", INTERVAL)


def table_at(path: Path, classes: list[str] = CLASSES, **changes: Any) -> GrowingTable:
    settings = {"folder": path.parent, "model": "1", "coverage": None, "max_error": None}
    return GrowingTable(path, classes, **(settings | changes))


def add(table: GrowingTable, *names: str) -> None:
    proba = [[0.25, 0.75]] * len(names)
    table.add([table.folder / name for name in names], classification(proba), range(len(names)))


def rows_in(path: Path) -> list[list[str]]:
    with open(path, encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream))


def names_in(path: Path) -> list[str]:
    return [row[0] for row in rows_in(path)]


class Watch:
    """`watch_folders` in a thread, with a classifier that knows an image by its first letter."""

    def __init__(self, folder: Path, table: Path) -> None:
        self.folder, self.batches = folder, list[list[str]]()
        self.bad, self.done = list[str](), list[SkippedImage]()
        self.table = table_at(table)
        self.refused = set[str]()
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def classify(self, files: list[Path]) -> Classification:
        self.batches.append([file.name for file in files])
        contents = [file.read_bytes() for file in files]
        damaged = [k for k, text in enumerate(contents) if not text or b"damaged" in text]
        is_fibre = [file.name[0] == "f" for k, file in enumerate(files) if k not in damaged]
        proba = np.eye(2)[[0 if each else 1 for each in is_fibre]]
        return classification(proba, skipped=[(k, files[k]) for k in damaged])

    def classified(self, files: list[Path], found: Classification) -> list[int]:
        read = [files[position].name for position in found.images.positions]
        return [row for row, name in enumerate(read) if name not in self.refused]

    def run(self) -> None:
        self.done = watch_folders(
            self.classify,
            [self.folder],
            self.table,
            self.stop.is_set,
            classified=self.classified,
            unreadable=lambda image: self.bad.append(Path(image.name).name),
        )

    def rows(self) -> list[tuple[str, str]]:
        return [(Path(row[0]).name, row[1]) for row in rows_in(self.table.path)[1:]]


@pytest.fixture
def new(tmp_path: Path) -> Path:
    (tmp_path / "new").mkdir()
    return tmp_path / "new"


@pytest.fixture
def watch(new: Path, tmp_path: Path) -> Iterator[Callable[[], Watch]]:
    started: list[Watch] = []

    def start() -> Watch:
        made = Watch(new, tmp_path / "table.csv")
        started.append(made)
        made.thread.start()
        return made

    yield start
    for each in started:
        each.stop.set()
        each.thread.join(20)
        assert not each.thread.is_alive()


def until(true: Callable[[], Any]) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


def stop(watch: Watch) -> list[SkippedImage]:
    watch.stop.set()
    watch.thread.join(20)
    return watch.done


def test_images_that_appear_are_classified_once(watch: Callable[[], Watch], new: Path) -> None:
    (new / "sub").mkdir()
    (new / "f1.png").write_text("1")
    one = watch()
    until(lambda: one.rows() == [("f1.png", "fibre")])
    (new / "sub" / "t2.png").write_text("2")
    (new / "notes.txt").write_text("no image")
    (new / ".hidden.png").write_text("3")
    until(lambda: len(one.rows()) == 2)
    time.sleep(5 * INTERVAL)
    stop(one)
    assert one.table.n_added == 2
    assert one.rows() == [("f1.png", "fibre"), ("t2.png", "tube")]
    assert one.batches == [["f1.png"], ["t2.png"]]
    # A second run knows the table.
    two = watch()
    (new / "t3.png").write_text("3")
    until(lambda: len(two.rows()) == 3)
    stop(two)
    assert two.table.n_added == 1
    assert two.batches == [["t3.png"]]


def test_a_file_that_grows_is_not_read(watch: Callable[[], Watch], new: Path) -> None:
    (new / "t0.png").touch()  # empty: it has not been written yet
    one = watch()
    with open(new / "f1.png", "w") as stream:
        for _ in range(40):
            stream.write("more")
            stream.flush()
            time.sleep(INTERVAL / 4)
            growing = [name for batch in one.batches for name in batch]
    assert growing == [] or growing == ["f1.png"], "at most once, if this machine paused"
    until(lambda: ("f1.png", "fibre") in one.rows())
    assert "t0.png" not in [name for batch in one.batches for name in batch]
    stop(one)
    assert one.table.n_added == 1


def test_a_file_that_changes_while_it_is_read_is_read_again(new: Path, tmp_path: Path) -> None:
    for name in ("f1.png", "f2.png"):
        (new / name).write_text("half")
    one = Watch(new, tmp_path / "other.csv")
    plain, changed = one.classify, []

    def classify(files: list[Path]) -> Classification:
        found = plain(files)
        if not changed:
            changed.append(True)
            (new / "f2.png").write_text("the other half")
        return found

    one.classify = classify  # type: ignore[method-assign]
    one.thread.start()
    until(lambda: len(one.rows()) == 2)
    stop(one)
    assert one.batches == [["f1.png", "f2.png"], ["f1.png"], ["f2.png"]]


def test_an_unreadable_file_is_reported_and_read_when_it_changes(
    watch: Callable[[], Watch], new: Path
) -> None:
    for name, content in {"f1.png": "damaged", "t2.png": "2", "t3.png": "damaged"}.items():
        (new / name).write_text(content)
    one = watch()
    until(lambda: one.rows() == [("t2.png", "tube")] and len(one.bad) == 2)
    time.sleep(5 * INTERVAL)
    assert one.bad == ["f1.png", "t3.png"], "each once"
    (new / "f1.png").write_text("repaired")
    until(lambda: len(one.rows()) == 2)
    (new / "t3.png").unlink()
    time.sleep(5 * INTERVAL)
    assert stop(one) == []
    assert one.table.n_added == 2


def test_what_fails_is_tried_again_and_reported_once(
    new: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy of an image fails, for example; another is damaged."""
    monkeypatch.setattr("hypervlad.results.reports.watching._RETRY", INTERVAL)
    for name in ("f1.png", "t2.png"):
        (new / name).write_text("1")
    one = Watch(new, tmp_path / "table.csv")
    (new / "t3.png").write_text("damaged")
    one.refused = {"f1.png"}
    one.thread.start()
    until(lambda: one.rows() == [("t2.png", "tube")] and len(one.batches) >= 3)
    one.refused = set()
    until(lambda: len(one.rows()) == 2)
    assert [Path(image.name).name for image in stop(one)] == ["t3.png"]
    assert one.bad == ["t3.png"]


def test_a_folder_may_be_away_for_a_while(
    watch: Callable[[], Watch], new: Path, tmp_path: Path
) -> None:
    """Then an unreadable file in it is not reported again."""
    away = tmp_path / "away"
    (new / "f1.png").write_text("damaged")
    one = watch()
    until(lambda: one.bad == ["f1.png"])
    new.rename(away)
    time.sleep(3 * INTERVAL)
    (away / "t2.png").write_text("2")
    away.rename(new)
    until(lambda: one.rows() == [("t2.png", "tube")])
    assert [Path(image.name).name for image in stop(one)] == ["f1.png"]
    assert one.bad == ["f1.png"]
    assert one.batches == [["f1.png"], ["t2.png"]]


def test_a_file_that_stays_empty_is_reported_once(
    watch: Callable[[], Watch], new: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hypervlad.results.reports.watching._EMPTY", 20 * INTERVAL)
    (new / "f1.png").touch()
    one = watch()
    (new / "t2.png").write_text("2")
    until(lambda: one.rows() == [("t2.png", "tube")])
    assert one.bad == [], "it may still be written"
    until(lambda: one.bad)
    time.sleep(5 * INTERVAL)
    assert one.bad == ["f1.png"]
    (new / "f1.png").write_text("1")
    until(lambda: len(one.rows()) == 2)
    assert stop(one) == []


def test_stopping_finishes_and_writes_what_is_being_classified(new: Path, tmp_path: Path) -> None:
    for number in range(40):
        (new / f"f{number:02d}.png").write_text("x")
    one = Watch(new, tmp_path / "table.csv")
    plain = one.classify

    def classify(files: list[Path]) -> Classification:
        one.stop.set()
        return plain(files)

    one.classify = classify  # type: ignore[method-assign]
    one.run()
    assert one.table.n_added == len(one.rows()) == 16
    rest = Watch(new, tmp_path / "table.csv")
    rest.thread.start()
    until(lambda: len(rest.rows()) == 40)
    stop(rest)
    assert sorted(name for name, _ in rest.rows()) == sorted(path.name for path in new.iterdir())


def test_the_table_is_that_of_one_run(tmp_path: Path) -> None:
    """Lines that are added later are those that would have been written at once."""
    kinds = ["sure", "ambiguous", "sure", "sure"]
    proba = [[0.25, 0.75], [0.5, 0.5], [1, 0], [1, 0]]
    names = ["a.png", "=b.png", 'c "d", e\n.png']
    found = classification(proba, kinds=kinds)
    table = table_at(tmp_path / "t.csv", max_error=0.1)
    for k in range(3):
        table.add([tmp_path / names[k]], found, [k])
    columns = prediction_columns(found, CLASSES)
    whole = predictions_as_bytes(names, found.proba, CLASSES, columns=columns)
    assert (tmp_path / "t.csv").read_bytes() == whole
    header = prediction_header(CLASSES, has_sets=False, is_judged=True)
    assert rows_in(tmp_path / "t.csv")[0] == header
    again = table_at(tmp_path / "t.csv", max_error=0.1)
    assert again.paths == {str(tmp_path / name) for name in names}


def test_a_table_that_is_changed_during_the_run_is_continued(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    table = table_at(path)
    add(table, "a.png")
    path.write_bytes(path.read_bytes().removesuffix(b"\n"))  # by an editor
    add(table, "b.png")
    assert names_in(path) == ["path", "a.png", "b.png"]
    path.unlink()
    add(table, "c.png")
    assert names_in(path) == ["path", "c.png"]


def test_an_incomplete_line_is_removed_and_quotation_marks_are_parts_of_names(
    tmp_path: Path,
) -> None:
    path = tmp_path / "t.csv"
    add(table_at(path), "a.png", 'b "c".png')
    path.write_bytes(path.read_bytes().replace(b"a.png", b'5" wafer.png')[:-9])
    with pytest.warns(UserWarning, match="the last line was incomplete and is removed: .b ."):
        table = table_at(path)
    assert table.paths == {str(tmp_path / '5" wafer.png')}


def test_a_failed_write_leaves_no_part_of_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full after the lines were handed over."""
    path = tmp_path / "t.csv"
    table = table_at(path)
    add(table, "a.png")
    before = path.read_bytes()

    def refuse(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(os, "fsync", refuse)
        with pytest.warns(UserWarning, match=r"cannot be written now \(No space left on device\)"):
            add(table, "b.png")
    assert path.read_bytes() == before
    add(table, "c.png")
    assert names_in(path) == ["path", "a.png", "b.png", "c.png"]


NAMES = st.lists(
    st.text(st.sampled_from('ab,"\n\r;=é'), min_size=1, max_size=6), max_size=3, unique=True
)
CLASS_NAMES = st.sampled_from([["a", "b"], ['wet, "1"\nor 2', "b"]])


@pytest.mark.slow  # two tables for each byte of each example
@patch("os.fsync", Mock())
@pytest.mark.filterwarnings("ignore:.* the last line was incomplete and is removed")
@given(NAMES, CLASS_NAMES)
@example(['a "b",\r\nc\n', "\n", '"\n0.25,0.75'], ["a", "b"])
@settings(max_examples=5)
def test_a_table_that_was_cut_anywhere_is_continued(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], classes: list[str]
) -> None:
    path = tmp_path_factory.mktemp("table") / "t.csv"

    add(table_at(path, classes), *names)
    whole = path.read_bytes()
    _, *rows = rows_in(path)
    for n_left in range(len(whole)):
        path.write_bytes(whole[:n_left])
        table = table_at(path, classes)
        _, *kept = rows_in(path)
        assert kept == rows[: len(kept)]
        assert table.paths == {str(path.parent / name) for name in names[: len(kept)]}
        assert len(kept) == len(rows) or n_left < len(whole) - 1, "only a line break is missing"
        add(table, *names[len(kept) :])
        assert path.read_bytes() == whole


LINES = st.lists(st.text(st.sampled_from('ab,"\n\r;=é'), max_size=12), max_size=4)


@patch("os.fsync", Mock())
@given(LINES, st.booleans())
@example([';","'], True)  # the first quotation mark is not at the beginning of a cell
def test_no_complete_line_is_ever_removed(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], broken: bool
) -> None:
    """Whatever others wrote into the table, all but an incomplete last row stay."""
    path = tmp_path_factory.mktemp("table") / "t.csv"
    add(table_at(path), "a.png")
    text = path.read_bytes() + "\n".join(lines).encode() + b"\n" * broken
    path.write_bytes(text)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            table_at(path)
    except ValueError:
        assert path.read_bytes() == text
    else:
        if (after := path.read_bytes()) not in (text, text + b"\n"):
            assert text.startswith(after)
            removed = text[len(after) :].decode()
            assert len(list(csv.reader(io.StringIO(removed, newline="")))) == 1
            assert not removed.endswith("\n") or removed.count('"') % 2, "the line break of a name"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b",", b";", "line 1 does not have the 7 columns of this table, separated by commas, or"),
        (b"1.png,", b"1.png,more,", "line 3 does not have the 7 columns"),
        (b"1.png,", b'"1.png,', "line 3 does not have the 7 columns"),
        (b"2.png,", b'"2.png,', "line 4 does not have the 7 columns"),
        (b"p_tube", b"p_wire", "line 1 does not have the 7 columns"),
        (b"\n", b"\r", "line 1 does not have the 7 columns"),
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
    assert table_at(path).paths == {str(tmp_path / "a.png")}


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"model": "2"}, "another model"),
        ({"pixel_size": 2.0}, "another pixel_size"),
        ({"folder": Path("elsewhere\nand more")}, "another folder"),
        ({"model": "2", "max_error": 0.05}, "another model and max_error"),
    ],
)
def test_lines_of_other_models_and_options_are_not_mixed(
    tmp_path: Path, other: Any, words: str
) -> None:
    path = tmp_path / "t.csv"
    add(table_at(path), "a.png")
    with pytest.raises(ValueError, match=rf"was made with {words} \(see _t\.csv\.settings\.txt\)"):
        table_at(path, **other)
    assert names_in(path) == ["path", "a.png"]
    settings_file(path).unlink()
    with pytest.raises(ValueError, match=r"t\.csv exists, but not _t\.csv\.settings"):
        table_at(path)
    assert names_in(path) == ["path", "a.png"]
    path.unlink()  # then it is a new table
    table_at(path, **other)
    table_at(path, **other)
    assert settings_file(path).exists()


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
    before, unsaved = path.read_bytes(), tmp_path / "t-unsaved-2.csv"
    plain_open, refused = open, [path]

    def refuse(file: Any, mode: str = "r", *rest: Any, **options: Any) -> Any:
        if Path(file) in refused or Path(file).parent in refused:
            raise PermissionError(13, "in use")
        return plain_open(file, mode, *rest, **options)

    (tmp_path / "t-unsaved.csv").write_text("of an earlier run")
    with monkeypatch.context() as blocked:
        blocked.setattr("builtins.open", refuse)
        with pytest.warns(UserWarning, match="cannot be written now"):
            add(table, "a.png")
        add(table, "b.png")  # warned of once
        with pytest.raises(OSError, match=rf"in use, perhaps .*\); the lines .* in {unsaved}"):
            table.close()
        refused.append(tmp_path)
        with pytest.raises(OSError, match=r"in use, .*; the next run classifies the images that"):
            table.close()
    assert path.read_bytes() == before
    assert (tmp_path / "t-unsaved.csv").read_text() == "of an earlier run"
    table.close()
    assert unsaved.read_bytes() == path.read_bytes()
    assert names_in(path) == ["path", "a.png", "b.png"]
