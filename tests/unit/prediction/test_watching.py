"""A folder that is watched: every image once, complete lines, and a run that goes on."""

from __future__ import annotations

import csv
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.classifications import classification

from hypervlad.classifier import Classification
from hypervlad.images import SkippedImage
from hypervlad.prediction.table import GrowingTable
from hypervlad.prediction.watching import watch_folders

CLASSES = ["fibre", "tube"]
INTERVAL = 0.02


class Watch:
    """`watch_folders` in a thread, with a classifier that knows an image by its first letter."""

    def __init__(self, folder: Path, table: Path) -> None:
        self.folder, self.batches = folder, list[list[str]]()
        self.bad, self.done = list[str](), list[SkippedImage]()
        self.table = GrowingTable(table, CLASSES, model="1", coverage=None, max_error=None)
        self.refused = set[str]()
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def classify(self, files: list[Path]) -> Classification:
        self.batches.append([file.name for file in files])
        damaged = [(k, f) for k, f in enumerate(files) if b"damaged" in f.read_bytes()]
        rows = [[1, 0] if f.name[0] == "f" else [0, 1] for f in files]
        gone = [position for position, _ in damaged]
        proba = [row for k, row in enumerate(rows) if k not in gone] or [[0.5, 0.5]][:0]
        return classification(proba or [[0.0, 0.0]][:0], skipped=damaged)

    def process(self, files: list[Path], found: Classification) -> None:
        read = [files[position] for position in found.images.positions]
        rows = [row for row, file in enumerate(read) if file.name not in self.refused]
        self.table.add([str(read[row]) for row in rows], found, rows)

    def run(self) -> None:
        self.done = watch_folders(
            self.classify,
            self.process,
            [self.folder],
            self.table,
            self.stop.is_set,
            interval=INTERVAL,
            settled=INTERVAL,
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


def stop(watch: Watch) -> list[SkippedImage]:
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
    stop(one)
    assert one.table.n_added == 1


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
    assert [Path(image.name).name for image in done] == ["t3.png"]
    assert one.table.n_added == 2


def test_an_unreadable_file_is_tried_again_and_reported_once(
    watch: Callable[[], Watch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hypervlad.prediction.watching._RETRY", INTERVAL)
    new = tmp_path / "new"
    new.mkdir()
    (new / "f1.png").write_text("damaged")
    one = watch()
    until(lambda: len(one.batches) >= 3)
    stop(one)
    assert one.bad == ["f1.png"]


def test_an_image_without_a_line_is_tried_again(
    watch: Callable[[], Watch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its copy failed, for example."""
    monkeypatch.setattr("hypervlad.prediction.watching._RETRY", INTERVAL)
    new = tmp_path / "new"
    new.mkdir()
    for name in ("f1.png", "t2.png"):
        (new / name).write_text("1")
    one = Watch(new, tmp_path / "table.csv")
    one.refused = {"f1.png"}
    one.thread.start()
    until(lambda: one.rows() == [("t2.png", "tube")] and len(one.batches) >= 2)
    one.refused = set()
    until(lambda: len(one.rows()) == 2)
    assert stop(one) == []
    assert one.bad == []


def test_a_file_settles_before_it_is_read(tmp_path: Path) -> None:
    new = tmp_path / "new"
    new.mkdir()
    (new / "f1.png").write_text("1")
    one = Watch(new, tmp_path / "table.csv")
    started = time.monotonic()
    watch_folders(
        one.classify,
        one.process,
        [new],
        one.table,
        lambda: bool(one.table.paths),
        interval=INTERVAL,
        settled=10 * INTERVAL,
    )
    assert time.monotonic() - started >= 10 * INTERVAL


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
    assert one.table.n_added == len(one.rows()) == 16
    rest = Watch(new, tmp_path / "table.csv")
    rest.thread.start()
    until(lambda: len(rest.rows()) == 40)
    stop(rest)
    assert sorted(name for name, _ in rest.rows()) == sorted(path.name for path in new.iterdir())
