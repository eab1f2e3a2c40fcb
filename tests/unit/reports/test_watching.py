"""A folder that is watched: every image once, complete lines, and a run that goes on."""

from __future__ import annotations

import csv
import io
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.classifications import classification

from hypervlad.classifier import Classification
from hypervlad.files import LinkError
from hypervlad.reports.predictions import prediction_columns, prediction_header, write_predictions
from hypervlad.reports.watching import GrowingTable, WatchedImages, complete_length, watch_folders
from hypervlad.tables import table_as_bytes

CLASSES = ["fibre", "tube"]
INTERVAL = 0.02


class Watch:
    """`watch_folders` in a thread, with a classifier that knows an image by its first letter."""

    def __init__(self, folder: Path, table: Path) -> None:
        self.folder, self.batches = folder, list[list[str]]()
        self.bad, self.done = list[str](), WatchedImages()
        self.table = GrowingTable(table, CLASSES, has_sets=False, is_judged=False)
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def classify(self, files: list[Path]) -> Classification:
        self.batches.append([file.name for file in files])
        damaged = [(k, f) for k, f in enumerate(files) if b"damaged" in f.read_bytes()]
        rows = [[1, 0] if f.name[0] == "f" else [0, 1] for f in files]
        gone = [position for position, _ in damaged]
        proba = [row for k, row in enumerate(rows) if k not in gone] or [[0.5, 0.5]][:0]
        return classification(proba or [[0.0, 0.0]][:0], skipped=damaged)

    def run(self) -> None:
        self.done = watch_folders(
            self.classify,
            [self.folder],
            self.table,
            self.stop.is_set,
            interval=INTERVAL,
            unreadable=lambda image: self.bad.append(Path(image.name).name),
        )

    def rows(self) -> list[tuple[str, str]]:
        with open(self.table.path, encoding="utf-8", newline="") as stream:
            return [(Path(row[0]).name, row[1]) for row in list(csv.reader(stream))[1:]]


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Callable[[], Watch]]:
    started: list[Watch] = []

    def start() -> Watch:
        (tmp_path / "new").mkdir(exist_ok=True)
        made = Watch(tmp_path / "new", tmp_path / "table.csv")
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


def stop(watch: Watch) -> WatchedImages:
    watch.stop.set()
    watch.thread.join(20)
    return watch.done


def test_images_that_appear_are_classified_once(watch: Callable[[], Watch], tmp_path: Path) -> None:
    new = tmp_path / "new"
    (new / "sub").mkdir(parents=True)
    (new / "f1.png").write_text("1")
    one = watch()
    until(lambda: one.rows() == [("f1.png", "fibre")])
    (new / "sub" / "t2.png").write_text("2")
    (new / "notes.txt").write_text("no image")
    (new / ".hidden.png").write_text("3")
    until(lambda: len(one.rows()) == 2)
    time.sleep(5 * INTERVAL)
    assert stop(one).n_classified == 2
    assert one.rows() == [("f1.png", "fibre"), ("t2.png", "tube")]
    assert one.batches == [["f1.png"], ["t2.png"]]
    # A second run knows the table.
    two = watch()
    (new / "t3.png").write_text("3")
    until(lambda: len(two.rows()) == 3)
    assert stop(two).n_classified == 1
    assert two.batches == [["t3.png"]]


def test_a_file_that_grows_is_not_read(watch: Callable[[], Watch], tmp_path: Path) -> None:
    new = tmp_path / "new"
    new.mkdir()
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
    assert stop(one).n_classified == 1


def test_a_file_that_changes_while_it_is_read_is_read_again(
    watch: Callable[[], Watch], tmp_path: Path
) -> None:
    new = tmp_path / "new"
    new.mkdir()
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
    watch: Callable[[], Watch], tmp_path: Path
) -> None:
    new = tmp_path / "new"
    new.mkdir()
    for name, content in {"f1.png": "damaged", "t2.png": "2", "t3.png": "damaged"}.items():
        (new / name).write_text(content)
    one = watch()
    until(lambda: one.rows() == [("t2.png", "tube")] and len(one.bad) == 2)
    time.sleep(5 * INTERVAL)
    assert one.bad == ["f1.png", "t3.png"], "each once"
    (new / "f1.png").write_text("repaired")
    until(lambda: len(one.rows()) == 2)
    done = stop(one)
    assert [Path(name).name for name in done.unreadable] == ["t3.png"]
    assert done.n_classified == 2


def test_an_unreadable_file_is_tried_again_and_reported_once(
    watch: Callable[[], Watch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hypervlad.reports.watching._RETRY", INTERVAL)
    new = tmp_path / "new"
    new.mkdir()
    (new / "f1.png").write_text("damaged")
    one = watch()
    until(lambda: len(one.batches) >= 3)
    stop(one)
    assert one.bad == ["f1.png"]


def test_a_folder_that_is_away_for_a_while(watch: Callable[[], Watch], tmp_path: Path) -> None:
    new = tmp_path / "new"
    new.mkdir()
    one = watch()
    new.rename(tmp_path / "away")
    time.sleep(3 * INTERVAL)
    (tmp_path / "away" / "f1.png").write_text("1")
    (tmp_path / "away").rename(new)
    until(lambda: one.rows() == [("f1.png", "fibre")])
    stop(one)


def test_stopping_finishes_and_writes_what_is_being_classified(tmp_path: Path) -> None:
    new = tmp_path / "new"
    new.mkdir()
    for number in range(40):
        (new / f"f{number:02d}.png").write_text("x")
    one = Watch(new, tmp_path / "table.csv")
    plain = one.classify

    def classify(files: list[Path]) -> Classification:
        one.stop.set()
        return plain(files)

    one.classify = classify  # type: ignore[method-assign]
    one.run()
    assert one.done.n_classified == len(one.rows()) == 16
    rest = Watch(new, tmp_path / "table.csv")
    rest.thread.start()
    until(lambda: len(rest.rows()) == 40)
    stop(rest)
    assert sorted(name for name, _ in rest.rows()) == sorted(path.name for path in new.iterdir())


def test_the_table_is_that_of_one_run(tmp_path: Path) -> None:
    """Lines that are added later are those that would have been written at once."""
    kinds = ["sure", "ambiguous", "sure"]
    proba = [[0.25, 0.75], [0.5, 0.5], [1, 0]]
    names = ["a.png", "=b.png", 'c "d", e\n.png']
    table = GrowingTable(tmp_path / "t.csv", CLASSES, has_sets=False, is_judged=True)
    for k in range(3):
        table.add([names[k]], classification([proba[k]], kinds=[kinds[k]]))
    whole, found = io.StringIO(), classification(proba, kinds=kinds)
    columns = prediction_columns(found, CLASSES)
    write_predictions(whole, names, found.proba, CLASSES, columns=columns)
    assert (tmp_path / "t.csv").read_text(encoding="utf-8") == whole.getvalue()
    header = prediction_header(CLASSES, has_sets=False, is_judged=True)
    assert next(csv.reader(whole.getvalue().splitlines())) == header
    again = GrowingTable(tmp_path / "t.csv", CLASSES, has_sets=False, is_judged=True)
    assert again.paths == {os.path.abspath(name) for name in names}


@pytest.mark.parametrize("n_lost", range(1, 20))
def test_an_incomplete_line_is_removed(tmp_path: Path, n_lost: int) -> None:
    path = tmp_path / "t.csv"
    table = GrowingTable(path, CLASSES, has_sets=False, is_judged=False)
    table.add(["a.png"], classification([[1, 0]]))
    complete = path.read_bytes()
    table.add(['b\n"c".png'], classification([[1, 0]]))
    whole = path.read_bytes()
    path.write_bytes(whole[:-n_lost])
    again = GrowingTable(path, CLASSES, has_sets=False, is_judged=False)
    assert path.read_bytes() == complete
    again.add(['b\n"c".png'], classification([[1, 0]]))
    assert path.read_bytes() == whole


CELLS = st.text(st.sampled_from('ab,"\n\r;='), max_size=6)


@given(st.lists(st.lists(CELLS, min_size=2, max_size=2), max_size=5), st.data())
def test_complete_lines_end_where_a_reader_finds_them(rows: Any, data: Any) -> None:
    parts = [table_as_bytes(row, []) for row in rows]
    whole = b"".join(parts)
    cut = data.draw(st.integers(0, len(whole)))
    ends = [len(b"".join(parts[:k])) for k in range(len(parts) + 1)]
    assert complete_length(whole[:cut]) == max(end for end in ends if end <= cut)
    for k, end in enumerate(ends):
        assert complete_length(whole, n_lines=k) == end


def test_lines_below_a_stray_quotation_mark_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    table = GrowingTable(path, CLASSES, has_sets=False, is_judged=False)
    table.add([f"{k}.png" for k in range(5)], classification([[1, 0]] * 5))
    damaged = path.read_bytes().replace(b"1.png", b'5" wafer.png')
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match="a quotation mark in line 3 or below it has no partner"):
        GrowingTable(path, CLASSES, has_sets=False, is_judged=False)
    assert path.read_bytes() == damaged


def test_a_table_that_was_removed_has_a_header_again(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    table = GrowingTable(path, CLASSES, has_sets=False, is_judged=False)
    table.add(["a.png"], classification([[1, 0]]))
    path.unlink()
    table.add(["b.png"], classification([[1, 0]]))
    rows = list(csv.reader(path.read_text().splitlines()))
    assert rows[0] == prediction_header(CLASSES, has_sets=False, is_judged=False)
    assert [row[0] for row in rows[1:]] == ["b.png"]


@pytest.mark.parametrize("text", ["path,label\na,b\n", "no table\n", '"open\n'])
def test_another_table_is_not_continued(tmp_path: Path, text: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match="is another table: its columns are not those"):
        GrowingTable(path, CLASSES, has_sets=False, is_judged=False)
    assert path.read_text() == text
    GrowingTable(tmp_path / "u.csv", CLASSES, has_sets=False, is_judged=False)
    with pytest.raises(ValueError, match="is another table"):
        GrowingTable(tmp_path / "u.csv", CLASSES, has_sets=True, is_judged=False)


def test_a_table_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real.csv").touch()
    os.symlink(tmp_path / "real.csv", tmp_path / "t.csv")
    with pytest.raises(LinkError):
        GrowingTable(tmp_path / "t.csv", CLASSES, has_sets=False, is_judged=False)


def test_lines_wait_while_another_program_has_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t.csv"
    table = GrowingTable(path, CLASSES, has_sets=False, is_judged=False)
    before = path.read_bytes()

    def refuse(*_: Any, **__: Any) -> Any:
        raise PermissionError(13, "in use")

    with monkeypatch.context() as blocked:
        blocked.setattr("builtins.open", refuse)
        with pytest.warns(UserWarning, match="cannot be written now"):
            table.add(["a.png"], classification([[1, 0]]))
        table.add(["b.png"], classification([[0, 1]]))  # warned of once
        assert not table.is_written
    assert path.read_bytes() == before
    table.save_waiting(tmp_path / "rest.csv")
    table.write()
    assert (tmp_path / "rest.csv").read_bytes() == path.read_bytes()
    assert table.is_written
    names = [row[0] for row in csv.reader(path.read_text().splitlines())]
    assert names == ["path", "a.png", "b.png"]
