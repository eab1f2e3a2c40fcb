"""The effects of clicks: stored once, acknowledged, undone, and shared among windows."""

import contextlib
import os
import sqlite3
import stat
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.review_queues import CLASSES, Judging, change

from hypervlad.apps.review import Queue, QueueError, start_queue

FILE = "queue.sqlite"
FILES = [FILE, f"{FILE}-wal", f"{FILE}-shm"]
MODEL: Any = Judging(1)
Make = Callable[..., Path]


def shown(queue, client, want=3):
    return [item.id for item in queue.next(client, want).items]


# --- windows and clicks -------------------------------------------------------------------------


def test_images_come_in_order_with_everything_the_page_shows(queue):
    first, second = queue.next("a", 2).items
    assert (first.id, second.id) == (1, 2)
    assert first.name == "new/000.png"
    assert first.reason == "between fibre (60 %) and matrix (30 %)"
    assert first.scores == [(1, 0.6), (2, 0.3), (3, 0.1)]
    nearest = [(n.row, n.name, n.label, n.has_picture) for n in first.nearest]
    assert nearest == [(0, "fibre/0.png", "fibre", True), (1, "matrix/1.png", "matrix", True)]
    assert [category.name for category in queue.categories()] == CLASSES


def test_an_image_is_in_one_window_until_it_is_closed_or_silent(queue, clock):
    assert shown(queue, "a") == [1, 2, 3]
    assert shown(queue, "b") == [4, 5, 6]
    clock.now += queue.lease - 1
    assert shown(queue, "b") == [4, 5, 6], "they stay in hand"
    assert shown(queue, "c") == []
    assert queue.progress("c").elsewhere == 6
    clock.now += 2
    assert shown(queue, "c", 9) == [1, 2, 3]
    assert shown(queue, "a") == [], "another window has them now"
    queue.release("c")
    assert shown(queue, "a") == [1, 2, 3]


def test_the_first_label_counts_and_a_late_one_is_reported_and_logged(queue):
    queue.label("a", "click-1", 1, 2)
    late = queue.label("b", "click-2", 1, 3)
    assert late.outcome == "late"
    assert "“matrix”" in late.message
    assert queue.images()[0].label == "matrix"
    rows = queue.connection.execute("SELECT client, category, outcome FROM events").fetchall()
    assert [tuple(row) for row in rows] == [("a", 2, "kept"), ("b", 3, "late")]
    assert queue.undo("b", "click-3").outcome == "nothing", "it did nothing that could be undone"


def test_undo_goes_back_step_by_step_in_ones_own_window(queue):
    queue.label("a", "click-1", 1, 1)
    queue.skip("a", "click-2", 2)
    queue.label("b", "click-3", 3, 1)
    assert queue.undo("a", "click-4", 1).item == 2
    answer = queue.undo("a", "click-5", 2)
    assert answer.item == 1
    assert [item.id for item in answer.items] == [1, 2], "they are this window's to label"
    assert queue.undo("a", "click-6").outcome == "nothing"
    assert queue.progress().labelled == 1


def test_many_threads_label_each_image_once(make):
    queue = Queue(make(60))
    labelled: list[int] = []

    def work(client):
        items = queue.next(client, 3).items
        while items:
            answer = queue.label(client, f"{client}-{items[0].id}", items[0].id, 1, 3)
            assert answer.outcome == "kept"
            labelled.append(items[0].id)
            items = answer.items

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, [f"client-{i}" for i in range(4)]))
    queue.close()
    assert sorted(labelled) == list(range(1, 61))


# --- categories, options, names -----------------------------------------------------------------


def test_categories_are_added_once(queue):
    onion = queue.add_category("  carbon   onion ")
    assert (onion.name, onion.origin) == ("carbon onion", "person")
    assert queue.add_category("Carbon Onion") == onion
    assert queue.add_category("FIBRE").name == "fibre"
    assert queue.add_category("Kohlenstoffro\u0308hre").name == "Kohlenstoffröhre"
    assert queue.label("a", "click", 1, onion.id).outcome == "kept"
    assert queue.images()[0].label == "carbon onion"
    for name in ("", "  \n ", "x" * 81, "a\0b", "\x07", "\ud800"):
        with pytest.raises(QueueError):
            queue.add_category(name)


@pytest.mark.skipif(sys.platform == "win32", reason="names are text there")
def test_file_names_that_are_no_text_are_kept(tmp_path):
    name = os.fsdecode(b"[micrograph-\xff.png")
    start_queue(MODEL, [tmp_path / name], tmp_path / "q")
    with contextlib.closing(Queue(tmp_path / "q")) as queue:
        assert queue.image_of(1) == tmp_path / name
        assert queue.images()[0].name == name
        assert queue.next("a", 1).items[0].name == "[micrograph-?.png"


# --- the file -----------------------------------------------------------------------------------


def test_what_is_clicked_is_on_the_disk_and_private(make):
    folder = make()
    with contextlib.closing(Queue(folder)) as queue:
        for name, value in (("journal_mode", "wal"), ("synchronous", 2)):
            assert queue.connection.execute(f"PRAGMA {name}").fetchone()[0] == value
    if sys.platform != "win32":
        assert stat.S_IMODE(os.stat(folder / FILE).st_mode) == 0o600
        assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700


def test_a_queue_is_never_overwritten(make, tmp_path):
    folder = make(1)
    before = (folder / FILE).read_bytes()
    for name in (FILE, f"{FILE}-wal"):  # a log would be played into the new file
        (folder / FILE).rename(folder / name)
        with pytest.raises(QueueError):
            start_queue(MODEL, [tmp_path / "a.png"], folder)
        (folder / name).rename(folder / FILE)
    assert (folder / FILE).read_bytes() == before
    assert [path.name for path in folder.iterdir()] == [FILE]


def test_a_queue_is_made_whole_or_not_at_all(tmp_path):
    class Failing(Judging):
        def classify(self, images, **options):
            found = super().classify(images, **options)
            found.judgement.reasons[1] = object()  # which no database takes, after the first row
            return found

    model: Any = Failing(2)
    with pytest.raises(sqlite3.Error):
        start_queue(model, [tmp_path / "a.png", tmp_path / "b.png"], tmp_path / "queue")
    assert not (tmp_path / "queue").exists()


def damaged(path, damage):
    """Damage the file of a queue, or make it one that is no queue of this version."""
    content = path.read_bytes()
    contents = {
        "pages": content[: 6 * 4096].ljust(len(content), b"\xee"),
        "header": b"\xee" * 100 + content[100:],
        "cut off": content[: 5 * 4096 + 100],
        "text": content.replace(b"between", b"betw\xffen"),
        # SQLite's own message quotes it, which is no text any more.
        "schema": content.replace(b"CREATE INDEX items_in_hand", b"CREATE IND\xb6X items_in_ha"),
    }
    if damage == "none":
        path.unlink()
    elif damage in contents:
        path.write_bytes(contents[damage])
    else:
        change(path.parent, f"PRAGMA {damage} = 7")


RESTORE = r"queue\.sqlite: damaged, or no queue .*; restore an earlier copy"


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("none", "no queue here; make one with 'hypervlad review start'"),
        ("user_version", "version 7.* Use the hypervlad that made it"),
        ("application_id", "not a queue of hypervlad"),
        *((damage, RESTORE) for damage in ("pages", "header", "cut off", "text", "schema")),
    ],
)
def test_a_damaged_queue_is_named_with_what_to_do(make, damage, words):
    path = make(0, 200) / FILE
    damaged(path, damage)
    with pytest.raises(QueueError, match=words), contextlib.closing(Queue(path.parent)) as queue:
        queue.connection.execute("SELECT * FROM items ORDER BY reason").fetchall()


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *(("nearest", value) for value in ("7", f"[{'9' * 5000}]", f"[{2**70}]")),
        *(("scores", "[[0,"), ("name", 1.5), ("confidence", "much"), ("predicted", 99)),
        *(("path", value) for value in (7, b"[", b"[1]", b'["a", "b", "7", "c"]')),
    ],
)
def test_values_of_another_kind_are_reported(column, value, make):
    folder = make(1)
    change(folder, f"UPDATE items SET {column} = ? WHERE id = 1", value)
    with contextlib.closing(Queue(folder)) as queue, pytest.raises(QueueError):
        [queue.next("a", 1), queue.images(), queue.image_of(1)]


NO_LINKS = pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege on Windows")


@pytest.mark.parametrize("link", [os.link, pytest.param(os.symlink, marks=NO_LINKS)])
@pytest.mark.parametrize("name", FILES)
def test_nothing_is_written_to_a_second_name(name, link, make, tmp_path):
    """SQLite writes to these files in place."""
    made, new, precious = make(1), tmp_path / "new queue", tmp_path / "precious"
    new.mkdir()
    if (made / name).exists():
        os.replace(made / name, precious)
    else:
        precious.write_text("mine")
    link(precious, made / name)
    before = precious.read_bytes()
    link(precious, new / name)
    for opened in (partial(Queue, made), partial(start_queue, MODEL, [tmp_path / "a.png"], new)):
        with pytest.raises(FileExistsError):
            opened()
    assert precious.read_bytes() == before
