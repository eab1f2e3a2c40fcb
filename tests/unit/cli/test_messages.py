"""What commands print is one sentence with advice that the command knows, and no control codes."""

import atexit
import gc
import os
import re
import runpy
import sys

import pytest
import torch
from support.commands import TINY, all_commands, refused, run, write_folder

HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp.\r"
SHOWN = r"\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp.\r"
CONTROLS = {"\x1b", "\x07", "\x9b", "\u202e"}


@pytest.mark.skipif(os.name == "nt", reason="such names are not allowed")
def test_names_in_reports_and_errors(tmp_path):
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        (tmp_path / label / f"{HOSTILE}.png").write_text("no image")
    for result in (
        run("check", tmp_path, "-q", code=1),
        run("predict", "m.hvlad", tmp_path / HOSTILE, code=2),
    ):
        printed = result.stdout + result.stderr
        assert r"\x1b]0;owned\x07" in printed
        assert not CONTROLS & set(printed)


def test_names_in_tracebacks(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["hypervlad", "--debug", "info", HOSTILE])
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # which typer replaces
    monkeypatch.setattr(gc, "set_threshold", lambda _: None)  # for a process of its own
    monkeypatch.setattr(atexit, "register", lambda _: None)
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    with pytest.raises(SystemExit) as caught:
        runpy.run_module("hypervlad", run_name="__main__")
    assert caught.value.code == 2
    printed = capsys.readouterr().err
    assert printed.startswith("Traceback")
    assert SHOWN in printed
    assert not CONTROLS & set(printed)


@pytest.fixture
def training(texture_images, tmp_path):
    folder = write_folder(tmp_path / "images", *texture_images)
    return "train", folder, "-o", tmp_path / "m.hvlad", *TINY, "-q"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (KeyError("x"), "unexpected KeyError: 'x'; this is a bug in hypervlad"),
        (PermissionError(13, "Permission denied", "a.csv"), "a.csv: Permission denied"),
        (ValueError("two\nlines"), "two lines"),
        (RuntimeError(), "unexpected RuntimeError"),
        (MemoryError("Unable to allocate 9.00 TiB"), "not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "not enough memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB"), "not enough memory"),
        (
            ValueError(
                'give weights="path/to/w.pth", weights="random" or image_size=224; (tile=1)'
            ),
            "give --weights path/to/w.pth, --weights random or --set image_size=224; (tile=1)",
        ),
        (ValueError("use f(pixel_size=None) or jobs=2"), "use f(pixel_size=None) or jobs=2"),
    ],
)
def test_any_exception_is_one_sentence_with_options_that_the_command_has(
    error, words, training, monkeypatch
):
    def fail(*_):
        raise error

    monkeypatch.setattr(torch.nn.Conv2d, "forward", fail)
    sentence = refused(*training).removeprefix("error: ")
    assert sentence.startswith(words)
    known = {option for each in all_commands()["train"].params for option in each.opts}
    assert set(re.findall(r"--[a-z][a-z-]*", sentence)) <= known | {"--debug"}
    if words == "not enough memory":
        for advice in ("image_size or tile_size (--set)", "reduced size"):
            assert advice in sentence
