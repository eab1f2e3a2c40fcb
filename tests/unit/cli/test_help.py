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
    assert f"by default {defaults['backbone']}." in text
    assert f'"{defaults["weights"]}" (the default)' in text


def test_there_are_few_options_and_set_explains_the_other_parameters():
    options = [each for command in COMMANDS.values() for each in command.params]
    assert sum(each.param_type_name == "option" for each in options) <= 146
    sets = [name for name in COMMANDS if "--set" in run(*name.split(), "--help").stdout]
    said, *_ = (" ".join(run(*each.split(), "--set", "help").stdout.split()) for each in sets)
    for words in ("image_size: int", "turns: {1, 2, 4, 8}, default=2.", "prior: ", "banner: "):
        assert words in said
    assert "backbone:" not in said
