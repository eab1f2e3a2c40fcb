"""The help of every command: examples that parse, and the library's own defaults."""

import inspect
import re

import pytest
from support.commands import run

import hypervlad
from hypervlad import HypercolumnVLAD
from hypervlad.cli.options import OnError
from hypervlad.reports import write_classified_page

COMMANDS = [
    *("train", "predict", "explain", "evaluate", "extract", "align"),
    *("align-train", "suspects", "check", "demo", "info", "cache"),
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command):
    text = run(command, "--help").stdout
    assert re.search(rf"^ +hypervlad {command}\b", text, re.MULTILINE)


def test_the_top_help_lists_every_command():
    text = run("--help").stdout
    for command in COMMANDS:
        assert re.search(rf"^ +{command} ", text, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_examples_are_commands_that_parse(command):
    """Each example's options exist: a missing file is the only thing that may be wrong."""
    text = run(command, "--help").stdout
    for line in re.findall(rf"^ +hypervlad {command} ?(.*)$", text, re.MULTILINE):
        known = run(command, "--help").stdout
        for option in re.findall(r"(?<!\S)--?[a-z][a-z-]*", line):
            assert option in known


def test_version():
    assert run("--version").stdout == f"hypervlad {hypervlad.__version__}\n"


def test_the_help_states_the_librarys_own_defaults():
    text = " ".join(run("train", "--help").stdout.split())
    defaults = HypercolumnVLAD().get_params()
    for stated in ("backbone", "image_size", "n_codewords"):
        assert f"by default {defaults[stated]}." in text
    assert f'"{defaults["weights"]}" (the default)' in text
    assert {"raise", "skip"} == set(OnError)
    pictures = inspect.signature(write_classified_page).parameters["max_thumbnails"].default
    assert f"[default: {pictures};" in " ".join(run("predict", "--help").stdout.split())


@pytest.mark.parametrize(
    "arguments",
    [
        ["train"],
        ["train", "images"],
        ["fly"],
        ["train", "images", "-o", "m", "--sed", "1"],
        ["train", "images", "-o", "m", "--seed", "one"],
        ["predict", "model.hvlad"],
        ["demo", "--on-error", "ignore"],
    ],
)
def test_usage_errors_exit_with_2(arguments):
    assert "Error" in run(*arguments, code=2).stderr
