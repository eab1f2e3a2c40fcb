"""Files of a folder that are no images: every command counts them, in one line."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.commands import RUNNER, TINY, all_commands, app, run

from hypervlad.apps.review import Queue

LINE = "ignored 6 files: 3 .txt, 1 .xlsx, 1 hidden, 1 without a suffix"
PART = ["--backbone", "tiny", "--weights", "random"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, folder: Path, model: Path) -> Path:
    """A folder with two folders of images, one with other files, and models of all kinds."""
    root = tmp_path_factory.mktemp("place")
    shutil.copytree(folder, root / "clean")
    shutil.copy(model, root / "m.hvlad")
    shutil.copytree(root / "clean", root / "images")
    for name in ("a.txt", "flat/b.TXT", "flat/c.txt", "rings/d.xlsx", "LICENSE", ".DS_Store"):
        (root / "images" / name).touch()
    (root / "images" / ".git").mkdir()
    (root / "images" / ".git" / "e.txt").touch()
    files = sorted((root / "clean").rglob("*.png"))
    rows = [
        f"{file.relative_to(root / 'clean').as_posix()},{k // 2}" for k, file in enumerate(files)
    ]
    (root / "images" / "groups.csv").write_text("\n".join(["path,group", *rows]))
    run("defects", "fit", root / "clean" / "flat", "--patch", "8", "-o", root / "s.hvlad", *PART)
    run("review", "start", root / "m.hvlad", root / "clean", "-o", root / "queue")
    queue = Queue(root / "queue")
    item = queue.next("window-1", 1).items[0]
    queue.label("window-1", "click-0001", item.id, queue.categories()[0].id)
    queue.close()
    shutil.copytree(root / "clean", root / "masks")
    return root


COMMANDS: dict[str, list[str]] = {
    "train": ["{images}", "-o", "{out}/m.hvlad", "--groups", "{images}/groups.csv", *TINY],
    "evaluate": ["{m}", "{images}", "-o", "{out}/r", "--groups", "{images}/groups.csv"],
    "check": ["{images}", "--groups", "{images}/groups.csv"],
    "demo": ["{images}", "-o", "{out}/d", "--groups", "{images}/groups.csv", *TINY],
    "predict": ["{m}", "{images}"],
    "explain": ["{m}", "{images}", "-o", "{out}/x.png"],
    "extract": ["{images}", "-m", "{m}", "-o", "{out}/f.parquet"],
    "scale": ["{images}", "-o", "{out}/sizes.csv"],
    "defects fit": ["{images}", "-o", "{out}/s.hvlad", "--patch", "8", *PART],
    "defects score": ["{s}", "{images}", "-o", "{out}/found"],
    "defects evaluate": ["{s}", "{images}", "--masks", "{masks}", "-o", "{out}/e.html"],
    "align": ["{images}", "-o", "{out}/a", "--window", "16", "--on-error", "skip", "--no-figures"],
    "align-train": [
        *("{images}", "--masks", "{masks}", "--window", "8", "-o", "{out}/a.hvlad", *PART)
    ],
    "diameters": ["{images}", "-o", "{out}/d", "--groups", "{images}/groups.csv"],
    "particles find": ["{images}", "-o", "{out}/found"],
    "particles train": ["{images}", "{out}", "-o", "{out}/p.hvlad"],  # no outlines, to be quick
    "review start": ["{m}", "{images}", "-o", "{out}/queue"],
    "review retrain": ["{queue}", "--training", "{images}", "-o", "{out}/n.hvlad"],
}
# No folder of images:
OTHERS = {"info", "suspects", "cache", "review serve", "review export"}
OTHERS |= {"particles classify", "particles count"}


def test_the_list_of_commands_is_complete() -> None:
    assert set(all_commands()) == set(COMMANDS) | OTHERS


LONG = {"train", "evaluate", "demo", "review retrain", "defects evaluate"}  # seconds of training


@pytest.mark.parametrize(
    "command",
    [pytest.param(each, marks=[pytest.mark.full] * (each in LONG)) for each in COMMANDS],
)
def test_ignored_files_are_counted_in_one_line(command: str, place: Path, tmp_path: Path) -> None:
    names = {name: place / name for name in ("images", "masks", "queue")}
    models = {"m": place / "m.hvlad", "s": place / "s.hvlad"}
    texts = [text.format(**names, **models, out=tmp_path) for text in COMMANDS[command]]
    said = RUNNER.invoke(app, [*command.split(), *texts]).stderr.splitlines()
    expected = LINE
    if "groups.csv" not in " ".join(texts):
        expected = "ignored 7 files: 3 .txt, 1 .csv, 1 .xlsx, 1 hidden, 1 without a suffix"
    assert [line for line in said if line.startswith("ignored")] == [expected], said


def test_nothing_is_said_of_nothing_and_in_quiet(place: Path) -> None:
    assert "ignored" not in run("predict", place / "m.hvlad", place / "clean").stderr
    assert "ignored" not in run("predict", place / "m.hvlad", place / "images", "-q").stderr
    one = run("predict", place / "m.hvlad", place / "images" / "flat" / "*").stderr
    assert "ignored 2 files: 2 .txt\n" in one
    two = run("check", place / "clean", place / "images", code=1).stderr
    assert "ignored 7 files" in two
