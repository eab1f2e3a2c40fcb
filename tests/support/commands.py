"""Commands run in this process, and the folder of images that they work on."""

import csv
import functools
from typing import Any

import numpy as np
import pytest
import typer.testing
from PIL import Image
from typer.testing import CliRunner

from hypervlad.cli import app

TINY = ["--backbone", "tiny", "--weights", "random", "--set", "image_size=16"]

try:
    RUNNER = CliRunner(mix_stderr=False)
except TypeError:  # newer ones always keep the two streams apart
    RUNNER = CliRunner()
# Otherwise it builds all commands anew for each run, which takes longer than most of the runs.
typer.testing._get_command = functools.cache(typer.testing._get_command)  # type: ignore[attr-defined]


def run(*arguments, code=0):
    """Run a command; return its result, with stdout and stderr apart."""
    result = RUNNER.invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


def refused(*arguments):
    """Run a command that fails; return its one sentence."""
    result = run(*arguments, code=2)
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert result.stdout == ""
    return line


def all_commands():
    """Return every command, those of groups too, by name."""
    found: dict[str, Any] = {}
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", None)
        found |= {name: command} if inner is None else {f"{name} {k}": c for k, c in inner.items()}
    return found


def write_folder(root, images, labels):
    """Write images into sub-folders named like their labels."""
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        save(root / label / f"{number:02d}.png", image)
    return root


def write_table(path, header, rows):
    """Write a table (CSV) with this first line."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([header.split(","), *rows])
    return path


def rows_of(path):
    """Return the lines of a table (CSV), as a spreadsheet shows them."""
    with open(path, encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def save(path, image):
    """Write an image with values in [0, 1], with 8 bits, and create its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.round(255 * image).astype(np.uint8)).save(path)


# --- fixtures, which a conftest.py imports ------------------------------------------------------


@pytest.fixture(scope="session")
def folder(tmp_path_factory, texture_images):
    """Images of three textures, in three folders; tests leave it as it is."""
    return write_folder(tmp_path_factory.mktemp("data") / "images", *texture_images)


@pytest.fixture(scope="session")
def model(folder, tmp_path_factory):
    """A classifier of these textures."""
    path = tmp_path_factory.mktemp("model") / "model.hvlad"
    run("train", folder, "-o", path, *TINY, "-q")
    return path
