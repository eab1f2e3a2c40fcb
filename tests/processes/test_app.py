"""``hypervlad app``: edits of outlines by strokes, their files, kills, and every refusal."""

import contextlib
import itertools
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import psutil
import pytest
import tifffile
from PIL import Image
from support import commands
from support.commands import rows_of
from support.few_crops import few_crops
from support.forked_commands import fork_commands
from support.found_fields import SHAPE, App, find_in_images, write_found
from support.review_queues import Judging
from support.tiny import register_tiny
from support.waiting import PATIENCE, wait_until
from tqdm import tqdm

from hypervlad.apps.review import Queue, start_queue
from hypervlad.particles import FoundFolder, find_particles, read_outlines, write_outlines

Start = Callable[..., App]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    running = []

    def started(folder: Path | None = None, **options: Any) -> App:
        running.append(App(folder or write_found(tmp_path), **options))
        return running[-1]

    yield started
    for app in running:
        app.stop()


def rectangle(left: float, top: float, right: float, bottom: float) -> list[list[float]]:
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def test_strokes_change_just_the_pixels_that_they_go_around_or_divide(start: Start) -> None:
    app = start()
    before = app.areas()
    assert sorted(before.values()) == [900, 900, 1600]
    one, two, large = before
    assert app.edit("draw", [], rectangle(150, 100, 170, 120)) == "outline 4 drawn"
    assert app.areas()[4] == 400
    angle = np.linspace(0, 4.2 * math.pi, 200)[:, None]  # ends do not cut out its middle
    app.edit("draw", [], [175, 40] + 12 * np.hstack([np.cos(angle), np.sin(angle)]))
    assert app.areas()[5] == pytest.approx(math.pi * 144, rel=0.03)
    app.edit("draw", [], rectangle(20, 20, 60, 60))  # others keep their pixels
    assert "that do not touch" in app.edit("merge", [4, 5])
    app.undo()
    assert "split into 2" in app.edit("split", [one], [[80, 85], [80, 135]]), "chosen elsewhere"
    areas = app.areas()
    assert areas[large] + areas[7] == 1600
    assert abs(areas[large] - areas[7]) <= 80, "in its middle, to a pixel"
    app.edit("merge", [large, 7])
    assert app.areas()[large] == 1600
    # A step outwards, and a corner that is cut off by a stroke that ends just beside the edges.
    app.edit("redraw", [two], [[129, 25], [140, 25], [140, 45], [129, 45]])
    assert app.areas()[two] == pytest.approx(900 + 200, abs=8)
    app.edit("redraw", [], [[62, 120], [80, 120], [80, 128]])
    assert app.areas()[large] == pytest.approx(1600 - 200, abs=8)
    app.edit("split", [], [[80, 85], [80, 135]])
    assert "in place of 2 outlines" in app.edit("grow", [], [[65, 110], [95, 110]])
    app.edit("delete", [one])
    app.edit("grow", [], [45, 35])  # up to the outline around it
    areas = app.areas()
    assert [areas[large], areas[7]] == pytest.approx([1600, 900], abs=30)
    away = np.hypot(*np.indices(SHAPE) - 80)  # a core in a shell: clicks take either edge
    core = 0.16 + 0.31 * (away < 40) + 0.35 * (away < 20)
    commands.save(app.folder.with_name("fields") / "b.png", core)
    assert "file was replaced" in app.image(2)["message"]
    app.post("prepare", image=2)
    app.edit("delete", [*app.areas(2)], image=2)
    clicks = [app.edit("grow", [], [80, 80], image=2) and app.areas(2) for _ in range(3)]
    grown = [list(each.values()) for each in clicks]
    assert grown == [pytest.approx([math.pi * r**2], rel=0.02) for r in (40, 20, 40)]
    app.image()
    for wrong, words in (
        (("merge", [two]), "two or more"),
        (("delete", [99]), "choose outlines"),
        (("split", [], [[5, 5], [9, 9]]), "divides no outline"),
        (("redraw", [two], [[110, 30], [112, 32]]), "changes no edge"),
        (("draw", [], [[5, 5], [5, 6]]), "fewer than 4 pixels"),
        (("draw", [], rectangle(105, 25, 115, 35)), "in other outlines"),
        (("grow", [], [[180, 140]]), "nothing with an edge"),
        (("grow", [], [[190, 9], [190, -4], [5, -4], [5, 9]]), "nothing with an edge"),
        (("other", [two], [[1, 1]]), "no action"),
    ):
        action, labels, *stroke = wrong
        answer = app.send("edit", app.body(action, labels=labels, stroke=np.ravel(stroke).tolist()))
        assert (answer.status, words in answer.body.decode()) == (400, True), wrong


def log_images_that_are_opened(log: Path) -> None:
    fork_commands()
    opened = Path.open

    def logged(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.suffix == ".png":
            with opened(log, "a") as stream:
                stream.write("1")
        return opened(path, *arguments, **options)

    Path.open = logged  # type: ignore[assignment]


def test_what_grows_in_one_of_the_last_images_does_not_wait_for_reading(
    start: Start, tmp_path: Path
) -> None:
    app = start(before=partial(log_images_that_are_opened, log := tmp_path / "opened"))
    wait_until(lambda: not app.post("images")["is_reading"], "the images")
    n_opened = []
    for image, x in ((1, 45), (2, 45), (1, 115), (2, 115)):
        app.image(image)
        before = log.read_text()
        app.edit("grow", [], [x, 35], image=image)
        n_opened.append(len(log.read_text()) - len(before))
    assert n_opened == [1, 1, 0, 0]


def test_edits_are_counted_those_of_done_images_learnt_and_found_ones_kept(start: Start) -> None:
    app = start()
    found = (app.folder / "outlines" / "a.png.tif").read_bytes()
    app.image()
    app.edit("draw", [], rectangle(150, 100, 170, 120))
    app.edit("delete", [1])
    app.edit("name", [4], name="cube")

    def listed() -> list[tuple[int, bool, bool]]:
        images = app.post("images")["images"]
        return [(each["n"], each["is_edited"], each["is_done"]) for each in images]

    assert listed() == [(3, True, False), (3, False, False)]
    printed = commands.run("particles", "count", app.written()).stdout
    assert "the outlines of a.png were changed" in printed
    assert "6 outlined" in printed
    options = ["-o", app.folder.with_name("m.hvlad"), "-q"]
    train = "particles", "train", app.folder.parent / "fields", app.folder, *options
    for text in (printed, commands.refused(*train)):
        assert "as not marked as done in 'hypervlad app': 1 image with edits, a.png" in text
    assert FoundFolder(app.folder).detection is None
    app.mark(2, True)  # nothing was wrong in it
    commands.run("particles", "count", app.written())
    assert listed() == [(3, True, False), (3, False, True)]
    (folder := FoundFolder(app.folder)).update()
    assert [field.by_person for field in folder.fields] == [False, True]
    assert (folder.detection.n_fields, folder.unfinished) == (1, ["a.png"])
    app.mark(2, False)
    assert app.mark(1, True) == "this image is done"
    app.edit("name", [4], name="rod")
    app.edit("name", [4], name="cube")
    printed = commands.run("particles", "count", app.written()).stdout
    assert "not marked" not in printed
    assert (app.folder / "replaced" / "a.png-1.tif").read_bytes() == found
    folder = FoundFolder(app.folder)
    assert folder.field_table["corrected_in"].tolist()[0] == "a.png.geojson"
    own = folder.table[folder.table["micrograph"] == "a.png"]
    assert own["area_px2"].tolist()[-1] == 400
    assert own["class"].tolist()[-1] == "cube"
    (corrected,) = folder.corrected_outlines().values()
    drawn = np.asarray(corrected) == 4
    assert np.array_equal(np.argwhere(drawn)[[0, -1]], [[100, 150], [119, 169]])
    with few_crops():
        learnt = commands.run(*train, "--set", "n_epochs=1", "--set", "min_area=20")
    assert "trained on 1 image" in learnt.stdout


def test_resume_keeps_edits_and_marks_and_the_page_shows_new_images(
    start: Start, tmp_path: Path
) -> None:
    app = start(folder := write_found(tmp_path, pixel_size=None))
    app.image()
    app.edit("delete", [1])
    app.mark(2, True)
    app.written()
    write_found(tmp_path, "c.png")  # which also writes the scale into all files
    assert read_outlines(folder / "outlines" / "a.png.tif").pixel_size == 2.0
    assert [each["name"] for each in app.post("images")["images"]] == ["a.png", "b.png", "c.png"]
    assert list(app.areas(3)) == [1, 2, 3]
    app.image()
    app.edit("delete", [2])  # nothing but this was changed
    (found := FoundFolder(app.written())).update()
    assert (found.unfinished, len(found.table)) == (["a.png"], 7)
    assert [field.by_person for field in found.fields] == [False, True, False]
    assert [app.undo().status for _ in range(3)] == [200, 200, 400]
    app.stop()
    for name in ("", "-wal", "-shm"):
        (folder / f"edits.sqlite{name}").unlink(missing_ok=True)
    (folder / "edits.sqlite-wal").write_bytes(b"?")
    refusal = commands.refused("app", folder)
    assert "holds a file of corrections already" in refusal
    assert refusal.endswith("(edits.sqlite-wal); remove it if its edits are not needed")


def die_at_the_file(go: Path, place: str) -> None:
    """Let a process be killed before or after its second new outlines take their place."""
    move, waits = os.replace, iter((go, go.with_name("go on")))

    def replace(source: Any, target: Any) -> None:
        if Path(target).name != "a.png.tif":
            return move(source, target)
        (own := next(waits)).with_suffix(".reached").touch()
        wait_until(own.exists, "edits that are answered meanwhile")
        if own == go or place == "after":
            move(source, target)
        return own == go or os.kill(os.getpid(), signal.SIGKILL)

    os.replace = replace  # type: ignore[assignment]


@pytest.mark.parametrize("place", ["before", "after"])
def test_a_kill_loses_no_edit_and_repeats_none(start: Start, tmp_path: Path, place: str) -> None:
    go = tmp_path / "go"
    app = start(before=partial(die_at_the_file, go, place))
    file, known = app.folder / "outlines" / "a.png.tif", app.areas()
    app.mark(1, True)
    app.written()
    app.edit("delete", [1])
    wait_until(go.with_suffix(".reached").exists, "the first file")
    app.mark(1, False)
    app.edit("delete", [2])
    assert len(read_outlines(file)) == 3, "answered while the file is not written"
    go.touch()
    wait_until((go_on := go.with_name("go on")).with_suffix(".reached").exists, "the second file")
    app.mark(1, True)
    last = app.body("draw", stroke=np.ravel(rectangle(150, 100, 170, 120)).tolist())
    assert app.post("edit", **last)["version"] == 4
    go_on.touch()
    app.running.join()
    assert len(read_outlines(file)) == (2 if place == "before" else 1)
    printed = commands.run("particles", "count", app.folder).stdout
    assert "the last edits at the page are not in these files yet" in printed
    assert not any(field.by_person for field in FoundFolder(app.folder).fields)
    app.before, link = None, app.link
    app.start()
    assert app.link == link
    assert app.post("edit", **last)["version"] == 4, "sent again, it is done once"
    assert list(app.areas()) == [3, 4]
    assert [each.label for each in read_outlines(app.written() / "outlines" / file.name)] == [3, 4]
    (found := FoundFolder(app.folder)).update()
    assert [field.by_person for field in found.fields] == [True, False]
    app.mark(1, False)
    assert [app.undo().status for _ in range(4)] == [200, 200, 200, 400]
    assert app.areas() == known
    (found := FoundFolder(app.written())).update()
    assert (found.unfinished, len(found.table)) == ([], 6), "all is as it was found"


def test_edits_wait_for_another_program_and_are_undone_and_redone(start: Start) -> None:
    app = start()
    before, file = app.areas(), app.folder / "outlines" / "a.png.tif"

    def edit(particles: list[object]) -> np.ndarray:
        """Edit while this holds the folder, whose files the app must not write."""
        if list(app.areas()) == [1, 2, 3]:
            app.post("edit", **app.body(labels=[1]))
            wait_until(lambda: "are kept, but not" in app.post("images")["note"], "a note")
            assert len(read_outlines(file)) == 3
        return np.full((len(particles), 2), 0.5)

    classifier = SimpleNamespace(classes_=["cube", "rod"], predict_proba=edit, held_out_=None)
    FoundFolder(app.folder).classify(classifier)
    assert len(read_outlines(app.written() / "outlines" / "a.png.tif")) == 2
    app.areas()
    assert [app.undo(way).status for way in ("undo", "undo", "redo", "redo")] == [200, 400] * 2
    app.undo()
    assert app.areas() == before
    app.edit("delete", [3])
    assert app.undo("redo").status == 400, "after another edit, nothing is undone"
    answer = app.send("edit", app.body(labels=[2], version=0))
    assert (answer.status, b"another window" in answer.body) == (409, True)
    write_outlines(app.written() / "outlines" / "a.png.tif", read_outlines(file)[:1])
    assert app.send("edit", app.body(labels=[1])).status == 409, "another program has saved it"
    assert (list(app.areas()), app.undo().status, list(app.areas())) == ([1], 200, [1, 2])


def die_in_move(number: int) -> None:
    """Let the process be killed in place of one of its moves of the folder of outlines."""
    move, moves = os.replace, itertools.count(1)

    def moved(source: Path, target: Path) -> None:
        if Path(source).name == "outlines" and next(moves) == number:
            signal.raise_signal(signal.SIGKILL)
        move(source, target)

    os.replace = moved


@pytest.mark.parametrize("number", [0, 1, 2])
def test_what_is_found_anew_is_taken_over_whole_and_taken_back(start: Start, number: int) -> None:
    app = start(before=partial(die_in_move, number) if number else None)
    app.image()
    app.edit("delete", [1])
    assert [each["id"] for each in app.post("images")["images"]] == [1, 2]
    write_outlines(file := app.written() / "outlines" / "a.png.tif", read_outlines(file)[:1])
    choices = {"polarity": "bright", "min_area": 1000}
    if number:
        app.post("start/find", **choices)
        app.running.join(PATIENCE)
        assert app.running.exitcode == -signal.SIGKILL, app.post("images")["task"]
        app.before = None
        app.start()
        found = app.post("images")
    else:
        found = app.ended("find", **choices)
        assert found["task"]["state"] == "done"
        assert found["is_found"]
    listed = [(each["name"], each["id"], each["n"]) for each in found["images"]]
    assert listed == [("a.png", 1, 1), ("b.png", 3, 1)]
    changes = app.post("sheet/changes")["html"]
    assert '<td class="number">3</td><td class="number">1</td>' in changes
    assert "kept, but not taken as true, as not marked as done: 1 image with edits" in changes
    assert app.send("edit", app.body(image=2, labels=[1], version=0)).status == 404, "found before"
    assert len(app.post("before", image=3)["outlines"]) == 3
    if number:  # an image that was edited since stays as it is
        app.image(3)
        app.edit("draw", [], rectangle(150, 100, 170, 120), image=3)
    app.post("take_back", folder="earlier-1")
    assert app.send("take_back", {"folder": "earlier-1"}).status == 409, "taken back already"
    second = app.post("images")["images"][1]
    assert (second["id"], second["n"]) == ((3, 2) if number else (4, 3))
    assert list(app.areas()) == [2]
    assert [app.undo().status for _ in "ab"] == [200, 200]
    assert len(app.areas()) == 3
    app.stop()  # so that all is written
    folder = FoundFolder(app.folder)
    folder.update()
    assert (folder.run["finder"], len(folder.table)) == ({}, 5 if number else 6)


EDITED = ("b.png", "before"), ("b.png", "stopped")


@pytest.mark.parametrize("when", ["before", "meanwhile", "after", "stopped", "elsewhere"])
@pytest.mark.filterwarnings("ignore:.*(taken to be|look like|particles are)")
def test_edits_stay_while_others_are_searched_and_later(
    start: Start, tmp_path: Path, when: str
) -> None:
    """The first image shows bright and dark particles, and is searched again after the others."""
    (images := tmp_path / "fields").mkdir()
    for name in "abcde":
        pixels = np.full((60, 60), 128, np.uint8)
        pixels[8:26, 8:26], pixels[34:56, 34:56] = 190, 50 if name == "a" else 190
        Image.fromarray(pixels).save(images / f"{name}.png")
    app, results, stroke = start(images), tmp_path / "fields-results", rectangle(40, 2, 50, 20)

    def outline(image: Path, **polarity: Any) -> Any:
        if image.name == "b.png":
            words = [each.get("words") for each in app.post("images")["images"]]
            assert words == [None] + 4 * ["not searched yet"]
            assert [app.image(number)["version"] < 0 for number in (2, 1)] == [True, False]
        if (image.name, when) in EDITED or (polarity and when == "meanwhile"):
            app.post("edit", **app.body("draw", stroke=np.ravel(stroke).tolist()))
        if image.name == "b.png" and when in ("stopped", "elsewhere"):
            assert "all images were searched" in app.post("doubtful", passed=[])["message"]
            if when == "elsewhere":
                labels = read_outlines(file := results / "outlines" / "a.png.tif").label_image()
                labels[2:20, 40:50] = 2
                tifffile.imwrite(file, labels.astype(np.uint16))
            raise KeyboardInterrupt
        return find_particles(image, **polarity)

    with contextlib.suppress(KeyboardInterrupt):
        own: Any = {"root": images, "finder": {"polarity": "auto"}, "resume": True}
        find_in_images(results, sorted(images.iterdir()), outline, **own)
    if when in ("stopped", "elsewhere"):
        said = app.ended("find", polarity="bright", min_area=20)["task"]["lines"]
        assert any("programs: a.png; mark" in line for line in said) == (when == "elsewhere")
    else:
        polarity = FoundFolder(results).field_table["polarity"][0]
        assert polarity == ("bright" if when == "after" else "dark")
    status = app.send("edit", app.body(labels=[1])).status if when == "after" else 409
    assert status == 409, "the window shows others"
    found = [18**2] if when == "after" else [22**2, 10 * 18]
    assert list(app.areas().values()) == pytest.approx(found, rel=0.1)
    wait_until(lambda: not (results / ".unwritten").exists(), "the files of outlines")
    assert len(read_outlines(results / "outlines" / "a.png.tif")) == len(found)


def test_a_task_that_is_stopped_or_killed_goes_on_where_it_was(
    start: Start, tmp_path: Path
) -> None:
    images = write_found(tmp_path).with_name("fields")
    shutil.rmtree(tmp_path / "found")
    (images / "c.png").write_bytes(b"no image")
    (results := tmp_path / "fields-results").mkdir()
    (results / "pixel_sizes.csv").write_text("path,pixel_size\n../fields/a.png,7\n")
    app = start(images)
    choices = {"polarity": "bright", "min_area": 20}
    size = {"image": "1:a.png", "share": "", "length": "2,0", "to": "new", "is_back": ""}
    wait_until(lambda: not app.post("images")["is_reading"], "the images")
    look = {"polarity": "bright", "min_area": 20, "middle": "0 0"}
    unread = app.send("preview", look | {"image": 3})
    assert (unread.status, b"c.png: not an image" in unread.body) == (400, True)
    answer = app.post("preview", **look, image=1)
    assert [len(answer["outlines"]), answer["message"][:25]] == [3, "3 bright particles found "]
    assert not (results / "run.json").exists()
    app.post("start/find", **choices)
    assert app.send("start/results", {}).status == 409
    app.post("stop")
    wait_until(lambda: app.post("images")["task"]["state"] != "running", "the end")
    assert app.post("images")["task"]["state"] == "stopped"
    app.post("start/find", **choices)
    app.kill()
    app.start()
    task = app.post("images")["task"]
    assert (task["state"], task["kind"], task["choices"]) == ("stopped", "find", choices)
    found = app.ended("find", **task["choices"])
    assert [each["n"] for each in found["images"]] == [3, 3]
    lines = found["task"]["lines"]
    assert lines[0].startswith("warning: 1 of 3 images left out: c.png: not an image")
    assert not any("--" in line or str(tmp_path) in line for line in lines)
    for changed, nm in (({}, 2), ({"length": "3"}, 3), ({"is_back": "yes"}, None)):
        assert "2 images" in app.post("size", **size | {"to": "alike"} | changed)["said"]
        assert app.post("images")["is_unmeasured"], "before another task begins"
        found = app.ended("find", **choices)
        assert (found["task"]["state"], found["is_unmeasured"]) == ("done", False)
        sizes = FoundFolder(results).field_table["pixel_size_nm"].tolist()
        assert sizes == pytest.approx([nm or np.nan] * 2, nan_ok=True)
        own = FoundFolder(results).corrected_files(), (results / "pixel_sizes-2.csv").exists()
        assert own == ({}, True), "nobody has corrected, and a person's table is kept"
    (tmp_path / "g.csv").write_text("path,group\na.png,x\nb.png,y\nc.png,y\n")
    given = (["c.png"], "../g.csv", ["x", "y"]), (["b.png"], "", ["x", "none"])
    given += ((), "", ["no folder"] * 2), (["a.png", "b.png", "c.png"], "", [None, None])
    for names, typed, groups in given:
        app.post("group", images=json.dumps(names) if names else "by folder", group=typed)
        app.ended("find", **choices)
        assert [each.group for each in FoundFolder(results).fields] == groups
    assert app.send("group", {"images": '["x.png"]', "group": "x"}).status == 409
    assert "no image is done yet" in app.ended("learn", n_epochs=1)["task"]["lines"][-1]
    body = {"polarity": "dark", "leave_out": "", "only": "", "keep": False, "image": "1:a.png"}
    missing = app.ended("diameters", **body | {"leave_out": "none.csv"})["task"]["lines"][-1]
    assert "none.csv: no such file" in missing
    app.post("group", images='["a.png", "b.png"]', group="1")
    app.ended("diameters", **body | {"only": "0 0"})
    app.mark(app.post("images")["images"][0]["id"], True)
    app.post("start/learn", n_epochs=1)
    app.post("stop")
    wait_until(lambda: "begins anew" in app.post("images")["banner"], "the end")
    app.post("start/diameters", **body)
    app.kill()
    app.start()
    task = app.post("images")["task"]
    assert (task["state"], task["kind"], task["choices"]) == ("stopped", "diameters", body)
    done = app.ended("diameters", **dict(sorted(body.items())))
    assert done["task"]["state"] == "done", done["task"]
    assert not (results / "diameters-1").exists(), "the same choices"
    assert app.send("diameters/places/c.png.png").status == 404, "which cannot be read"
    answer = app.send("diameters/diameters.html")
    policy = answer.headers["Content-Security-Policy"] or ""  # it asks about unsaved marks
    assert (policy[:21], "allow-modals" in policy) == ("sandbox allow-scripts", True)
    app.post("start/diameters", **body | {"polarity": "bright"})
    app.post("size", **size | {"to": "alike"})  # counts from the next task on
    wait_until(lambda: app.post("images")["task"]["state"] == "done", "the end")
    assert (results / "diameters-1" / "diameters.csv").exists(), "with other choices"
    app.ended("diameters", **body | {"polarity": "bright"})
    names = "diameters-2", "diameters"
    tables = [(results / each / "diameters.csv").read_text() for each in names]
    assert ["pixel_size=2.0" in each for each in tables] == [False, True]
    own = results / "diameters" / "report" / "report.html"
    own.parent.mkdir(exist_ok=True)
    own.touch()
    assert "no image has diameters" in app.ended("diameters", **body)["task"]["lines"][-1]
    assert not own.exists(), "of other results"
    body = {"window": "", "tolerance": "", "keep": False, "image": "1:a.png", "only": ""}
    for typed, words in (("wide", "such as 0.5; got 'wide'"), ("1,000", "could be two")):
        (line,) = app.ended("alignment", **body | {"tolerance": typed})["task"]["lines"]
        assert words in line.partition("Tolerance: ")[2], line
    assert app.ended("alignment", **body | {"tolerance": "25,5"})["task"]["state"] == "done"


def test_labels_of_the_queue_are_listed_until_they_are_typed_anew(
    start: Start, tmp_path: Path
) -> None:
    write_found(tmp_path)
    images, folder = tmp_path / "fields", tmp_path / "fields-results" / "classes" / "queue"
    folder.parent.mkdir(parents=True)
    start_queue(Judging(2), [images / "a.png", images / "b.png"], folder)  # type: ignore[arg-type]
    queue = Queue(folder)
    item = queue.next("a" * 8, 1).items[0].id
    queue.label("a" * 8, "b" * 8, item, 2)
    queue.close()
    app = start(images)
    app.post("mark_file/classes", image="2:b.png", word="cube")
    app.post("group", images='["a.png", "b.png"]', group="1")
    assert app.ended("learn_again")["task"]["state"] == "failed", "the queue has no model"
    assert grouped_in(folder.parent) == {"a.png": "1", "b.png": "1"}, "one of them in the queue"
    marked = (folder.parent / "labels.csv").read_text().splitlines()[1:]
    assert marked == [f"{images / 'b.png'},cube"], "the queue has the others"
    own = dict.fromkeys(("source", "model", "only"), "")
    both = app.ended("classes", **own | {"source": ".", "model": "a.png"}, image="1:a.png")
    assert "give sorted images or a model" in both["task"]["lines"][-1]
    (page,) = re.findall("review/[0-9a-f]+/", app.post("state/classes")["files"])
    wait_until(lambda: not app.post("images")["is_reading"], "the images")
    app.post("size", image="1:a.png", share="", length="4", to="alike", is_back="")
    assert b"4 nm per pixel, typed" in app.send("classes.html").body
    app.ended("classes", **own, image="1:a.png")
    assert app.send(page + "next", {"client": "a" * 8, "want": 1}).status == 409, "an old tab"
    assert not folder.exists(), "its labels are with the results before"
    assert 'data-image="1:a.png" value="matrix"' in app.send("classes.html").body.decode()
    masks: Any = {"annotations": [{"id": 1, "image_id": 0}]}
    (report := tmp_path / "fields-results" / "defects" / "report.html").parent.mkdir()
    report.touch()
    shown = app.post("state/defects")["page"]
    for name in "ab":  # on the page of the second, the first is not shown
        masks["images"] = [{"id": 0, "file_name": name}]
        app.post("keep/defects", text=json.dumps(masks), page=shown)
    path = images.with_name("fields-results") / "defects_masks.json"
    kept = json.loads(path.read_text())
    assert [(each["id"], each["file_name"]) for each in kept["images"]] == [(1, "b"), (2, "a")]
    assert [(each["id"], each["image_id"]) for each in kept["annotations"]] == [(1, 1), (2, 2)]
    masks["info"] = {"shown": ["a", "b"]}
    app.post("keep/defects", text=json.dumps(masks | {"images": []}), page=shown)
    assert not json.loads(path.read_text())["images"], "nothing is reviewed any more"
    assert app.send("keep/defects", {"text": "{}", "page": "x"}).status == 409, "of before"
    assert b"defects_masks.json" in app.send("defects.html").body
    (tmp_path / "l.csv").write_text("path,label\nfields/a.png,cube\nfields/b.png,rod\n")
    said = app.ended("classes", **own | {"source": "../l.csv"}, image="1:a.png")["task"]["lines"]
    assert grouped_in(folder.parent) == {"a.png": "1", "b.png": "1"}, "of sorted images, too"
    assert "that takes a class with images of two groups" in said[-1], "they reach training"
    shutil.copytree(images, tmp_path / "sorted" / "cube")
    app.ended("classes", **own | {"source": "../sorted"}, image="1:a.png")
    assert not (folder.parent / "groups.csv").exists(), "none of these has one"
    assert b"cube/b.png" in app.send("sizes.html").body, "a size can be given"
    assert b"cube/b.png" not in app.send("classes.html").body


def grouped_in(classes: Path) -> dict[str, str]:
    return {Path(row["path"]).name: row["group"] for row in rows_of(classes / "groups.csv")}


def end_at_once() -> None:
    """Let a process that waits for the next preview wait no time."""
    register_tiny()
    fork_commands()
    tqdm.monitor_interval = 0  # its thread would never rest
    wait = threading.Event.wait
    threading.Event.wait = lambda event, seconds=None: wait(event, seconds and 0)  # type: ignore


def test_one_image_is_looked_at_with_a_model_that_was_learnt(start: Start, tmp_path: Path) -> None:
    write_found(tmp_path)
    images, results = tmp_path / "fields", tmp_path / "fields-results"
    for name in ("cube", "rod"):
        for number in range(3):
            shutil.copytree(images, tmp_path / "sorted" / name / str(number))
    commands.run("train", tmp_path / "sorted", "-o", tmp_path / "m.hvlad", *commands.TINY, "-q")
    fit = "defects", "fit", images, "-o", tmp_path / "d.hvlad"
    commands.run(*fit, "--backbone", "tiny", "--weights", "random", "--set", "n_planted=8")
    large = np.random.default_rng(0).normal(9000, 200, (1100, 1500)).astype(np.uint16)
    large[1000:1020, 1400:1430] = 30000
    tifffile.imwrite(images / "c.tif", np.stack([large[::-1], large]))
    commands.run("particles", "find", images, "-o", results, "--set", "page=1", "--on-error=skip")
    (results / "particles.csv").unlink()  # as of a run that was stopped
    app = start(images, before=end_at_once)
    classes = {"source": "", "model": "", "only": "yes", "image": "2:b.png"}
    defects = {"normal": "", "masks": "", "threshold": "", "fpr": "0.2", "keep": False}
    defects |= {"only": "yes", "image": "1:a.png"}
    answer = app.post("preview", image=1, polarity="bright", min_area=20, middle="1 1")
    assert "1 bright particle found in the part in view, 1,024 x 1,024" in answer["message"]
    assert (answer["part"]["top"], answer["part"]["left"]) == (76, 476)
    (ring,) = answer["outlines"][0]["rings"]
    assert (min(ring[::2]), min(ring[1::2])) == pytest.approx((1400, 1000), abs=2)
    assert b"nothing to preview yet" in app.send("start/classes", classes).body
    app.ended("classes", **classes | {"model": "../m.hvlad"})
    state = app.post("state/classes")
    assert state["page"].startswith("files/image/2?")
    words = r"b.png\n(cube|rod): .* %\npossible classes, with 90 % coverage: cube, rod"
    assert re.match(words, state["caption"]), state["caption"]
    assert any("training image" in line for line in state["task"]["lines"])
    app.ended("classes", **classes | {"model": "../m.hvlad", "only": ""})
    assert ",possible," in (results / "classes" / "predictions.csv").read_text(), "of all, too"
    (results / "defects").mkdir()
    shutil.copy(tmp_path / "d.hvlad", results / "defects" / "model.hvlad")
    own = defects | {"image": "3:c.tif", "only": "1 1"}
    lines = [app.ended("defects", **own)["task"]["lines"] for _ in "ab"]
    assert lines[0] == lines[1], "what was said is kept, too"
    (kept_once,) = results.glob(".preview/defects/*/kept.json")
    assert app.send("keep/defects", {"text": "", "page": ""}).status == 400, "of a part"
    done = app.ended("defects", **defects)["task"]
    assert "the model was trained with other choices" in done["lines"][0]
    state = app.post("state/defects")
    assert "preview/defects/overlays/a.png" in state["page"]
    assert re.match("a.png\n.*defect.*\nscore .*a guess", state["caption"]), state["caption"]
    masks: Any = {"images": [{"id": 0, "file_name": "x"}], "annotations": []}
    kept = {"text": json.dumps(masks), "page": state["page"]}
    assert app.post("keep/defects", **kept)["damage"] == ""
    (own := results / "defects_masks.json").write_text("{")
    assert "defects_masks.json.damaged-1" in app.post("keep/defects", **kept)["damage"]
    assert (results / "defects_masks.json.damaged-1").read_text() == "{"
    assert json.loads(own.read_text())["images"][0]["file_name"] == "a.png", "what was shown"
    tables = results.glob(".preview/defects/*/scores.csv")
    (table,) = (each for each in tables if each.parent != kept_once.parent)
    table.unlink()
    assert app.post("state/defects")["caption"] == "a.png", "stopped before it was written"
    own.unlink()
    own.symlink_to(tmp_path / "elsewhere")
    answer = app.send("keep/defects", kept)
    assert (answer.status, b"is a link" in answer.body) == (400, True)
    assert not (tmp_path / "elsewhere").exists()
    length: dict[str, str | None] = {"Content-Length": str(2**24 + 1)}
    assert app.send("keep/defects", b"", headers=length).status == 413
    (good := tmp_path / "good" / "sub").mkdir(parents=True)
    every = defects | {"normal": "../good", "only": ""}
    for name in ("1.png", "", "2.png"):  # nothing is learnt, also not again, before one is new
        if name:
            (good / name).write_bytes(b"damaged")
        state = app.ended("defects", **every)["task"]["state"]
        assert state == ("failed" if name else "done")
        assert (results / "defects-2" / "scores.csv").exists() == (name == "2.png")
        shutil.copy(tmp_path / "d.hvlad", results / "defects" / "model.hvlad")
    app_itself = psutil.Process(app.running.pid)  # with the process that forks its commands
    wait_until(lambda: len(app_itself.children(recursive=True)) < 2, "an end without work")


def show_bars_minutes_apart() -> None:
    """Let a command finish four of eight images, one per minute, and wait."""
    start, minutes = subprocess.Popen, itertools.count(0, 60)
    bar = "print(f'crops: {n}%| | {n}/8 [00:01<?, ?image/s]')"
    command = [sys.executable, "-u", "-c", f"input(); [{bar} for n in range(5)]; input()"]
    patch.object(subprocess, "Popen", lambda _, **options: start(command, **options)).start()
    patch.object(time, "monotonic", lambda: next(minutes)).start()


def test_a_task_says_how_long_it_takes_yet(start: Start) -> None:
    app, words = start(before=show_bars_minutes_apart), "crops: 4 of 8 images, about 4 min left"
    app.post("start/find", polarity="dark", min_area=20)
    wait_until(lambda: words in app.post("images")["banner"], words)
    app.post("stop")


WRONG = [
    *({"labels": labels} for labels in (["1"], [True], [1.0], [None], {}, "1")),
    *({"stroke": stroke} for stroke in ([1], [1, "2"], [1, None], [[1, 2]], [1e300, 2], [-900, 2])),
    *({"stroke": [0, 0, *SHAPE] * 900}, {"action": "merge"}, {"action": ["draw"]}, {"reach": 1.5}),
    *({"name": 7}, {"version": "1"}, {"image": True}, {"click": "x"}, {"client": "a b"}),
    {"more": 1},
]


def test_requests_that_are_not_of_the_page_are_refused(start: Start) -> None:
    app = start()
    version = app.image()["version"]
    actions = "edit mark undo redo images outlines prepare category preview start/find start/learn "
    actions += "stop group start/diameters forget take_back before left_out doubtful size "
    actions += "undo_size state/sizes state/defects sheet/learn keep/diameters mark_file/defects"
    for action in actions.split():
        assert app.send(action).status in (404, 405)
        headers: dict[str, str | None] = {"Origin": "http://evil.example"}
        assert app.send(action, app.body(labels=[1]), headers=headers).status == 403
        assert app.send(action, b"\xff{").status == 400
    for change in WRONG:
        body = {"action": "draw", "stroke": [1, 1, 9, 9]} | change
        assert app.send("edit", app.body(**body)).status == 400, change
    for number in (b"NaN", b"-Infinity", b"1e999"):
        content = json.dumps(app.body("draw", stroke=["?"])).encode().replace(b'"?"', number)
        assert app.send("edit", content).status == 400, number
    assert app.send("edit", app.body(stroke=[0] * 40_000)).status == 413
    size = {"image": "1:a.png", "share": "", "length": "2", "to": "image", "is_back": ""}
    for wrong in ({"image": "1:../a.png"}, {"to": "all"}, {"share": "inf"}, {"length": "9" * 3000}):
        assert app.send("size", size | wrong).status in (400, 409), wrong
    for image in (0, 99, 2**62, 2**63):
        assert app.send("outlines", {"image": image}).status == 404
        assert app.send("edit", app.body(image=image)).status == 404
    paths = "edits.sqlite ..%2f..%2fetc%2fpasswd image/..%2fa.png small/-1 run.json review/"
    paths += " results/..%2frun.json results/../run.json results/particles.csv other.html"
    paths += " diameters/..%2frun.json classes/queue/queue.sqlite preview/diameters/x.html"
    for path in (*paths.split(), "files/image/9"):
        assert app.send(path).status == 404
    for kind in ("alignment", "defects", "other"):
        assert app.send(f"keep/{kind}", {"text": "[]", "page": ""}).status in (404, 409), kind
    assert (len(app.areas()), app.version) == (3, version), "nothing was changed"


# In place of pywebview, which needs a display.
WINDOW = """
import urllib.request
settings = {}
class WebViewException(Exception): pass  # Qt aborts instead
def create_window(title, link, **sizes): urllib.request.urlopen(link).close()
def start(): %s
"""


CASES = ("pass", "close the window"), ("raise WebViewException('no display')", "no display")
ABORTED = "__import__('os').abort()", "no window can be shown"


@pytest.mark.parametrize(("start", "said"), [*CASES, ABORTED])
def test_a_window_of_its_own_shows_an_example(tmp_path: Path, start: str, said: str) -> None:
    """Without a display the page is served until the end, as without pywebview."""
    (tmp_path / "webview.py").write_text(WINDOW % start)
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "BROWSER": "true"}
    command = [sys.executable, "-m", "hypervlad", "app", "--open"]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    if os.name == "posix":  # a program in the background ignores Ctrl-C
        pipes["preexec_fn"] = partial(signal.signal, signal.SIGINT, signal.SIG_IGN)
    with subprocess.Popen(command, cwd=tmp_path, env=environment, **pipes) as process:
        (guard := threading.Timer(PATIENCE, process.kill)).start()
        assert any(said in line for line in process.stdout)
        if start == "pass":
            assert process.wait(PATIENCE) == 0
        else:
            assert process.poll() is None
            process.terminate()
        guard.cancel()
    assert len(list((tmp_path / "hypervlad-example").glob("*.tif"))) == 6
