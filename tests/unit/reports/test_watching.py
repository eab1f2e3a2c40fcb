"""A folder that is watched: every image once, complete lines, and a run that goes on."""

import builtins
import csv
import io
import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from support.commands import TINY, run

pytestmark = pytest.mark.skipif(os.name == "nt", reason="no such names, and no such signals")

ODD = 'a "b", \nc.png'  # the name of an image
Step = float | list[str]


def interrupt():
    """Call what Python has for Ctrl-C: a signal sent here ended the process after other tests."""
    signal.getsignal(signal.SIGINT)(signal.SIGINT, None)


class Watch:
    """``predict --watch`` of a folder, in simulated time, which only sleeping moves.

    A scenario yields what it waits for: seconds, or names in the table. It ends with Ctrl-C.
    """

    def __init__(self, model, folder, root):
        self.model, self.new, self.table = model, root / "new", root / "t.csv"
        self.images, self.now = sorted(folder.rglob("*.png")), 1000.0
        self.new.mkdir()

    def add(self, name, number=0):
        """Put a training image there."""
        path = self.new / name
        path.parent.mkdir(exist_ok=True)
        shutil.copyfile(self.images[number], path)
        return path

    def run(self, *options, scenario=(), code=0):
        self.scenario, self.start = iter(scenario), self.now
        self.step: Step | None = 0.0
        given = ["predict", self.model, self.new, "--watch", "-o", self.table, *options]
        return run(*given, code=code)

    def pass_time(self, seconds):
        self.now += seconds
        assert self.now < self.start + 1000, f"{self.step} does not happen"
        while self.is_reached():
            self.start, self.step = self.now, next(self.scenario, None)
            if self.step is None:
                interrupt()

    def is_reached(self):
        if isinstance(self.step, list):
            return self.names == self.step
        return self.step is not None and self.now >= self.start + self.step

    @property
    def names(self):
        return [row[0] for row in rows_of(self.table)[1:]] if self.table.exists() else []


@pytest.fixture
def watch(model, folder, tmp_path, monkeypatch):
    made, here = Watch(model, folder, tmp_path), threading.get_ident()
    clock, sleep = time.monotonic, time.sleep

    def is_here():  # other threads of this process keep their time
        return threading.get_ident() == here

    monkeypatch.setattr(time, "monotonic", lambda: made.now if is_here() else clock())
    monkeypatch.setattr(time, "sleep", lambda s: made.pass_time(s) if is_here() else sleep(s))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a shell
    yield made
    signal.signal(signal.SIGINT, before)


def rows_of(table):
    with open(table, encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream))


def rounded(table):
    """Cells, with numbers to three digits: images were encoded alone, or in a batch."""
    is_number = re.compile(r"\d\.\d+(e-\d+)?")
    return sorted(
        [f"{float(cell):.3f}" if is_number.fullmatch(cell) else cell for cell in row]
        for row in csv.reader(io.StringIO(table.decode(), newline=""))
    )


# --- images -------------------------------------------------------------------------------------


def test_images_that_appear_are_classified_once(watch):
    def scenario():
        watch.add("f1.png")
        yield ["f1.png"]
        watch.add("sub/t2.png", 10)
        watch.add(".hidden.png", 3)
        (watch.new / "notes.txt").write_text("no image")
        yield ["f1.png", "sub/t2.png"]
        yield 60

    assert watch.run(scenario=scenario()).stdout == f"classified 2 images: {watch.table}\n"
    assert watch.names == ["f1.png", "sub/t2.png"]
    watch.add(ODD, 20)
    watch.add("=b.png", 20)
    again = watch.run(scenario=[["f1.png", "sub/t2.png", "'=b.png", ODD]])
    assert f"2 images already in {watch.table}" in again.stderr
    assert again.stdout == f"classified 2 images: {watch.table}\n"
    whole = run("predict", watch.model, watch.new, "-q").stdout.encode()
    assert rounded(watch.table.read_bytes()) == rounded(whole), "as one run writes it"


def test_a_file_is_read_when_it_has_not_changed_for_three_seconds(watch):
    content, times = watch.images[0].read_bytes(), list[float]()

    def scenario():
        (watch.new / "empty.png").touch()  # not written yet
        with open(watch.new / "f1.png", "wb") as stream:
            for byte in content[:100]:
                stream.write(bytes([byte]))
                stream.flush()
                yield 0.4
                assert not watch.names
            stream.write(content[100:])
        times.append(watch.now)
        yield ["f1.png"]
        times.append(watch.now)
        watch.add("empty.png", 3)
        yield ["f1.png", "empty.png"]

    done = watch.run(scenario=scenario())
    assert 3 <= times[1] - times[0] < 5
    assert "could not be read" not in done.stderr


@pytest.fixture
def opened(monkeypatch):
    """What happens when a file of this name has been opened, once."""
    events, plain = dict[str, Callable[[], Any]](), open

    def open_file(file, *arguments, **options):
        stream = plain(file, *arguments, **options)
        events.pop(os.path.basename(str(file)), lambda: None)()
        return stream

    for module in (builtins, io):
        monkeypatch.setattr(module, "open", open_file)
    return events


def test_a_file_that_changes_while_it_is_read_is_read_again(watch, opened):
    for number, name in enumerate(("f1.png", "f2.png")):
        watch.add(name, 8 * number)
    opened["f2.png"] = lambda: watch.add("new", 16).replace(watch.new / "f2.png")
    watch.run(scenario=[["f1.png", "f2.png"]])
    assert opened == {}
    label = rows_of(watch.table)[2][1]
    assert label == watch.images[16].parent.name != watch.images[8].parent.name


def test_unreadable_files_are_reported_once_and_read_when_they_change(watch):
    for name in ("f1.png", "t3.png", "t4.png"):
        (watch.new / name).write_text("damaged")
    watch.add("t2.png")

    def scenario():
        yield ["t2.png"]
        yield 70  # it is tried again
        watch.add("f1.png")
        yield ["t2.png", "f1.png"]
        (watch.new / "t3.png").unlink()
        away = watch.new.rename(watch.new.with_name("away"))
        yield 10
        away.rename(watch.new)
        watch.add("t5.png")
        yield ["t2.png", "f1.png", "t5.png"]

    done = watch.run("--on-error", "skip", scenario=scenario())
    for name in ("f1.png", "t3.png", "t4.png"):
        assert done.stderr.count(f"warning: {watch.new / name}") == 1
    assert f"warning: 1 image could not be read: {watch.new / 't4.png'}" in done.stderr


def test_stopping_finishes_what_is_being_classified(watch, opened):
    names = [watch.add(f"f{number:02d}.png").name for number in range(40)]
    opened["f00.png"] = interrupt
    watch.run(scenario=[names])
    assert watch.names == names[:16]
    watch.run(scenario=[names])


# --- the table ----------------------------------------------------------------------------------

NAMES = ["0.png", "1.png", ODD, "d.png"]


@pytest.fixture
def table(watch):
    """A watch whose table has four images."""
    for number, name in enumerate(NAMES):
        watch.add(name, 6 * number)
    watch.run("-q", scenario=[NAMES])
    return watch


def test_a_table_is_continued_unless_its_last_line_is_incomplete(table):
    whole, rows = table.table.read_bytes(), rows_of(table.table)
    start = whole.index(b'"a ')  # the third of the rows, which has a line break in its name
    for end, n_kept in [(0, 0), (start, 2), (whole.index(b"d.png") - 1, 3), (len(whole) - 1, 4)]:
        table.table.write_bytes(whole[:end])
        assert f"classified {4 - n_kept} image" in table.run(scenario=[NAMES]).stdout
        assert rows_of(table.table)[: n_kept + 1] == rows[: n_kept + 1]
        assert rounded(table.table.read_bytes()) == rounded(whole)
    for end, words in ((5, ": line 1 "), (start + 5, ", line 4: "), (len(whole) - 40, ": line 6 ")):
        table.table.write_bytes(whole[:end])
        assert f"{table.table}{words}" in table.run(code=2).stderr
        assert table.table.read_bytes() == whole[:end]


def test_lines_of_other_models_and_options_are_not_mixed(table, tmp_path):
    whole, other = table.table.read_bytes(), tmp_path / "m.hvlad"
    run("train", table.images[0].parent.parent, "-o", other, *TINY, "--seed", "7", "-q")
    (tmp_path / "elsewhere").mkdir()
    for model, new, options, words in [
        (table.model, tmp_path / "elsewhere", [], "another folder"),
        (other, table.new, [], "another model"),
        (table.model, table.new, ["--pixel-size", "2"], "another pixel_size"),
        (table.model, table.new, ["--max-error", "0.5", "--coverage", "0.5"], "another coverage"),
    ]:
        done = run("predict", model, new, "--watch", "-o", table.table, *options, code=2)
        assert f"{table.table} was made with {words}" in done.stderr
    once = run("predict", table.model, table.new, "-o", table.table, code=2)
    assert f"{table.table} was made with --watch" in once.stderr
    (settings,) = tmp_path.glob("_t.csv*")
    settings.unlink()
    assert f"{table.table} exists, but not {settings.name}" in table.run(code=2).stderr
    table.table.rename(tmp_path / "real.csv")
    os.symlink(tmp_path / "real.csv", table.table)
    assert str(table.table) in table.run(code=2).stderr
    assert table.table.read_bytes() == whole


def test_a_table_that_is_changed_or_full_during_the_run_is_continued(watch, monkeypatch):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    def scenario():
        watch.add("a.png")
        yield ["a.png"]
        watch.table.write_bytes(watch.table.read_bytes().removesuffix(b"\n"))  # by an editor
        watch.add("b.png")
        yield ["a.png", "b.png"]
        before = watch.table.read_bytes()
        with monkeypatch.context() as full:
            full.setattr(os, "fsync", refuse)
            watch.add("c.png")
            yield 20
            assert watch.table.read_bytes() == before, "no part of a line"
        yield ["a.png", "b.png", "c.png"]
        watch.table.unlink()
        watch.add("d.png")
        yield ["d.png"]

    done = watch.run(scenario=scenario())
    assert done.stderr.count("cannot be written now (No space left on device)") == 1
    assert "classified 4 images" in done.stdout


@pytest.mark.parametrize("is_full", [False, True])
def test_lines_that_could_not_be_written_are_in_another_file(watch, tmp_path, monkeypatch, is_full):
    """Unless nothing can be written there: then the next run classifies the images again."""
    plain, unsaved = os.replace, [tmp_path / "t-unsaved.csv", tmp_path / "t-unsaved-2.csv"]
    unsaved[0].write_text("of an earlier run")

    def refuse(file, target):
        if is_full or str(target) == str(watch.table):
            raise PermissionError(13, "in use")
        return plain(file, target)

    def scenario():
        watch.add("a.png")
        yield ["a.png"]
        monkeypatch.setattr(os, "replace", refuse)
        for name in ("b.png", "c.png"):
            watch.add(name)
            yield 10

    done = watch.run(scenario=scenario(), code=2)
    assert done.stderr.count("cannot be written now (in use, perhaps because another program") == 1
    words = f"the lines that are missing in it are in {unsaved[1]}"
    assert (words in done.stderr) == (not is_full)
    assert ("the next run classifies the images that are missing" in done.stderr) == is_full
    assert unsaved[0].read_text() == "of an earlier run"
    assert watch.names == ["a.png"]
    if not is_full:
        assert [row[0] for row in rows_of(unsaved[1])] == ["path", "b.png", "c.png"]
