"""The help of every command: examples that parse, and the library's own defaults."""

import re

import pytest
from support.commands import all_commands, run

import hypervlad
from hypervlad import HypercolumnVLAD

COMMANDS = all_commands()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_examples_whose_options_exist(command):
    text = run(*command.split(), "--help").stdout
    examples = re.findall(rf"^ +hypervlad {command} ?(.*)$", text, re.MULTILINE)
    assert examples
    for option in re.findall(r"(?<!\S)--?[a-z][a-z-]*", " ".join(examples)):
        assert option in text


def test_version():
    assert run("--version").stdout == f"hypervlad {hypervlad.__version__}\n"


def test_the_help_states_the_librarys_own_defaults():
    text = " ".join(run("train", "--help").stdout.split())
    defaults = HypercolumnVLAD().get_params()
    for stated in ("backbone", "image_size"):
        assert f"by default {defaults[stated]}." in text
    assert f'"{defaults["weights"]}" (the default)' in text


# How images are read. A model stores it, so commands that are given a model need no option, unless
# the model is one of several methods, as in align.
