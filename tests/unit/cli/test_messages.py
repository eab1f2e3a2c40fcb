"""What commands print cannot control a terminal."""

from __future__ import annotations

import os
import re
import sys
import warnings
from pathlib import Path

import pytest
from support.commands import all_commands, run

from hypervlad.apps.cli import main
from hypervlad.apps.cli.messages import echo, plain_errors, sentence_of
from hypervlad.images import SkippedImage, SkippedImagesWarning

HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp.\r"
SHOWN = r"\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp.\r"


@pytest.mark.skipif(os.name == "nt", reason="such names are not allowed")
def test_names_in_reports_and_errors(tmp_path: Path) -> None:
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        (tmp_path / label / f"{HOSTILE}.png").write_text("no image")
    for result in (
        run("check", tmp_path, "-q", code=1),
        run("predict", "m.hvlad", tmp_path / HOSTILE, code=2),
    ):
        printed = result.stdout + result.stderr
        assert r"\x1b]0;owned\x07" in printed
        assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(printed)


def test_names_in_tracebacks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["hypervlad", "--debug", "info", HOSTILE])
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # which typer replaces
    with pytest.raises(SystemExit, match="2"):
        main()
    printed = capsys.readouterr().err
    assert printed.startswith("Traceback")
    assert SHOWN in printed
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(printed)


def test_names_in_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    plain_errors(lambda: warnings.warn(HOSTILE, stacklevel=2))()
    assert capsys.readouterr().err.strip() == f"warning: {SHOWN}"


def test_a_skipped_image_is_reported_once(capsys: pytest.CaptureFixture[str]) -> None:
    """Folds, and steps that read other parts of a folder, meet the same unreadable files."""
    bad, worse = (SkippedImage(k, f"{k}.png", f"{k}.png: damaged") for k in range(2))

    @plain_errors
    def command() -> None:
        for skipped, n_images in (((bad,), 9), ((bad,), 7), ((bad, worse), 8), ((worse,), 7)):
            warnings.warn(SkippedImagesWarning.about(skipped, n_images), stacklevel=2)

    command()
    said = capsys.readouterr().err
    assert re.findall(r"(\d of \d) images", said) == ["1 of 9", "2 of 8"]


@pytest.mark.parametrize("terminal", [False, True])
def test_tables_keep_their_bytes_except_in_a_terminal(
    terminal: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    echo(f"{HOSTILE},1\n".encode(), nl=False)
    assert capsys.readouterr().out == f"{SHOWN if terminal else HOSTILE},1\n"


def test_parameters_in_errors_are_options() -> None:
    error = ValueError(
        'give a file, weights="path/to/w.pth" (or .safetensors), or weights="random"; '
        "set image_size=224; give HypercolumnVLAD(pixel_size=None, ...)"
    )
    assert sentence_of(error, {"weights", "image_size", "pixel_size"}) == (
        "give a file, --weights path/to/w.pth (or .safetensors), or --weights random; "
        "set --image-size 224; give HypercolumnVLAD(pixel_size=None, ...)"
    )
    assert sentence_of(error) == str(error)  # of a command that has no such options


COMMANDS = all_commands()
ADVICE = (
    "use weights=micronet, image_size=512, tile_size=512 or pixel_size=2.5, or another "
    "computer with more memory"
)


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 9.00 TiB"),
        RuntimeError("[enforce fail at alloc] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        ValueError(ADVICE),
    ],
)
def test_errors_advise_options_that_the_command_has(name: str, error: Exception) -> None:
    command = COMMANDS[name]
    parameters = {each.name: each for each in command.params}
    sentence = sentence_of(error, set(parameters))
    known = {option for each in command.params for option in each.opts}
    assert set(re.findall(r"--[a-z][a-z-]*", sentence)) <= known
    if not isinstance(error, ValueError):
        assert "not enough memory" in sentence
        assert "reduced size" in sentence
    for option in ("jobs", "batch_size", "tile_size", "image_size"):
        if option in parameters and not isinstance(error, ValueError):
            assert f"--{option.replace('_', '-')}" in sentence


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (KeyError("x"), "unexpected KeyError: 'x'; this is a bug in hypervlad"),
        (PermissionError(13, "Permission denied", "a.csv"), "a.csv: Permission denied"),
        (ValueError("two\nlines"), "two lines"),
        (RuntimeError(), "unexpected RuntimeError"),
    ],
)
def test_any_exception_is_one_sentence(error: Exception, words: str) -> None:
    assert sentence_of(error).startswith(words)
    assert "\n" not in sentence_of(error)
