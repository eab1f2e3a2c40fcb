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


def test_the_top_help_lists_every_command():
    text = run("--help").stdout
    for command in COMMANDS:
        assert re.search(rf"^ +{command.split()[0]} ", text, re.MULTILINE)


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
READING = {"--image-page", "--channel", "--scaling", "--remove-banner"}
READING_OF = {
    "train": READING,
    "demo": READING,
    "check": READING,
    "defects fit": READING,
    "particles train": READING,
    "particles find": READING,  # a model is optional
    # Directions and diameters do not depend on gain and offset, so all contrasts are scaled alike.
    "align": READING - {"--scaling"},
    "align-train": READING - {"--scaling"},
    "diameters": READING - {"--scaling"},
    # A scale bar may be in the information bar.
    "scale": READING - {"--remove-banner"},
    **dict.fromkeys(("predict", "explain", "evaluate", "extract"), frozenset()),
    **dict.fromkeys(("defects score", "defects evaluate"), frozenset()),
    **dict.fromkeys(("review start", "review retrain"), frozenset()),
    # These read no image, or as it was read before.
    **dict.fromkeys(("info", "suspects", "cache", "review serve", "review export"), frozenset()),
    **dict.fromkeys(("particles classify", "particles count"), frozenset()),
}


def test_every_command_has_the_options_of_reading_that_it_needs():
    found = {
        name: READING & {text for each in command.params for text in each.opts}
        for name, command in COMMANDS.items()
    }
    assert found == READING_OF


@pytest.mark.parametrize("option", sorted(READING))
def test_an_option_of_reading_is_explained_alike_everywhere(option):
    texts = {
        each.help for command in COMMANDS.values() for each in command.params if option in each.opts
    }
    assert len(texts) == 1
