"""Every command runs once on small images: its exit code, the files it writes, what it says."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image
from support.commands import RUNNER, TINY, all_commands, app, save, write_folder
from support.surfaces import PATCH, blotted, surface

from hypervlad import make_nanowire_images, make_particle_fields
from hypervlad.apps.review import Queue

TINY_LINE = " ".join(TINY)
OWN_SIZE = "--backbone tiny --weights random"


class Run(NamedTuple):
    """A command line, its exit code, the files that it writes, and words that it prints."""

    line: str
    files: str = ""
    words: str = ""
    code: int = 0


# In this order, since later commands use what earlier ones have made.
RUNS = {
    "check": Run("check images --write-groups groups.csv", "groups.csv", "1 set of copies", 1),
    "train": Run(f"train images -o m.hvlad {TINY_LINE} -q", "m.hvlad", "balanced accuracy: "),
    "info": Run("info m.hvlad", words="classes"),
    "predict": Run("predict m.hvlad images -o p.csv --page p.html", "p.csv p.html", "page: p.html"),
    "explain": Run("explain m.hvlad images/flat/00.png -o why.png", "why.png", "picture: why.png"),
    "evaluate": Run(
        "evaluate m.hvlad images -o report",
        "report/index.html report/predictions.csv",
        "24 of 24 images are training images",
    ),
    "suspects": Run(
        "suspects m.hvlad -o suspects.csv", "suspects.csv", "0 of 24 labels are suspect"
    ),
    "extract": Run(
        "extract images -m m.hvlad -o f.parquet --cache cached", "f.parquet", "features: f.parquet"
    ),
    "cache": Run("cache cached", words="cached: 48 entries"),
    "demo": Run(f"demo -o demo --n-images 24 {TINY_LINE} -q", "demo/index.html", "exactly"),
    "scale": Run(
        "scale bars -o sizes.csv --scale-bar '500 nm'", "sizes.csv", "found in 1 of 1 image"
    ),
    "align": Run(
        "align wires -o directions --window 24",
        "directions/alignment.csv directions/regions.csv",
        "1 of 1",
    ),
    "align-train": Run(
        f"align-train wires --masks 'wire masks' --window 24 -o a.hvlad {OWN_SIZE}",
        "a.hvlad",
        "16 windows",
    ),
    "diameters": Run(
        "diameters wires -o thick --pixel-size 5",
        "thick/diameters.csv thick/diameters.html",
        "1 of 1",
    ),
    "defects fit": Run(
        f"defects fit good -o s.hvlad {OWN_SIZE} --patch {PATCH}",
        "s.hvlad",
        "held out from training, 0 of 6 images",
    ),
    "defects score": Run(
        "defects score s.hvlad blots -o scored",
        "scored/scores.csv scored/report.html",
        "1 called anomalous",
    ),
    "defects evaluate": Run(
        "defects evaluate s.hvlad blots --masks masks -o e.html", "e.html", "report: e.html"
    ),
    "particles find": Run(
        "particles find fields -o found", "found/particles.csv found/run.json", "13 particles"
    ),
    "particles classify": Run(
        "particles classify m.hvlad found", words="the model is one of whole images", code=2
    ),
    "particles count": Run("particles count found", words="all    13"),
    "particles train": Run(
        "particles train fields masks -o p.hvlad", words="none of the 2 images has", code=2
    ),  # it takes long
    "review start": Run(
        "review start m.hvlad images -o queue --max-error 0.01",
        "queue/queue.sqlite",
        "queue: queue",
    ),
    "review serve": Run("review serve images", words="no queue here", code=2),  # it does not end
    "review export": Run("review export queue -o labels.csv", "labels.csv", "labels: labels.csv"),
    "review retrain": Run(
        "review retrain queue --training images -o n.hvlad", "n.hvlad", "model: n.hvlad"
    ),
}


class Result(NamedTuple):
    code: int
    new: set[str]
    printed: str


def files() -> set[str]:
    return {path.as_posix() for path in Path().rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def results(
    tmp_path_factory: pytest.TempPathFactory, texture_images: tuple[list[np.ndarray], np.ndarray]
) -> Iterator[dict[str, Result]]:
    """What came of all commands, one after the other, in the current folder."""
    root, before = tmp_path_factory.mktemp("work"), Path.cwd()
    os.chdir(root)
    write_material(texture_images)
    found = {}
    for name, each in RUNS.items():
        known = files()
        result = RUNNER.invoke(app, shlex.split(each.line))
        found[name] = Result(result.exit_code, files() - known, result.output)
        if name == "review start":
            label_one(Path("queue"))
    yield found
    os.chdir(before)


def write_material(texture_images: tuple[list[np.ndarray], np.ndarray]) -> None:
    write_folder(Path("images"), *texture_images)
    for seed in range(6):
        save(Path(f"good/{seed}.png"), surface(seed))
    image, mask = blotted(100, (12, 20))
    save(Path("blots/a.png"), image)
    save(Path("masks/a.png"), mask.astype(float))
    save(Path("wires/a.png"), make_nanowire_images(1, size=96, random_state=0)[0][0])
    save(Path("wire masks/a.png"), np.tile(np.arange(96) < 48, (96, 1)).astype(float))
    for number, field in enumerate(make_particle_fields(2, size=96, random_state=0)[0]):
        save(Path(f"fields/{number}.png"), field)
    bar: Any = np.full((200, 240), 90, np.uint8)
    bar[170:176, 20:120] = 255
    Path("bars").mkdir()
    Image.fromarray(bar).save("bars/a.png")


def label_one(folder: Path) -> None:
    queue = Queue(folder)
    item = queue.next("window-1", 1).items[0]
    queue.label("window-1", "click-0001", item.id, queue.categories()[0].id)
    queue.close()


def test_the_table_is_complete() -> None:
    assert set(RUNS) == set(all_commands())


@pytest.mark.parametrize("name", RUNS)
def test_every_command(name: str, results: dict[str, Result]) -> None:
    expected, found = RUNS[name], results[name]
    assert found.code == expected.code, found.printed
    assert "Traceback" not in found.printed
    assert set(expected.files.split()) <= found.new
    assert expected.words in found.printed
