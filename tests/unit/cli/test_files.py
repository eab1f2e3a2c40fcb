"""Outputs that would replace what a command reads, and copies that would be read as images."""

from __future__ import annotations

from pathlib import Path

import pytest

from hypervlad.cli.files import (
    check_sorted,
    names_below,
    prepare_file,
    prepare_folder,
    prepare_model,
)


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a.png", "labels.csv"):
        (folder / name).write_text(name)
    return folder


@pytest.mark.parametrize("given", ["images/a.png", "images/*.png", "images", "./images/../images"])
def test_an_image_that_is_read_is_not_replaced(images: Path, given: str) -> None:
    with pytest.raises(ValueError, match="is read, or also written, by this command"):
        prepare_file(images / "a.png", None, given)
    assert (images / "a.png").read_text() == "a.png"


def test_what_is_not_read_may_be_replaced(images: Path) -> None:
    prepare_file(images / "labels.csv", images)  # an earlier table beside the images
    prepare_file(images / "new.png", images)
    with pytest.raises(ValueError, match="is read, or also written"):
        prepare_file(images / "labels.csv", images / "labels.csv")


def test_a_model_replaces_models_only(images: Path) -> None:
    with pytest.raises(ValueError, match="exists and is not a model"):
        prepare_model(images / "labels.csv")
    prepare_model(images / "model.hvlad")


@pytest.mark.parametrize("read", ["sorted/fibre", "sorted/fibre/new", "sorted", "fibre"])
def test_copies_do_not_lie_among_images(tmp_path: Path, read: str) -> None:
    (tmp_path / read).mkdir(parents=True)
    folders = [tmp_path / "sorted" / "fibre", tmp_path / "sorted" / "unsure"]
    if read == "fibre":
        check_sorted(folders, [str(tmp_path / read), "*.png"])
        return
    with pytest.raises(ValueError, match="choose another folder for --sort-into"):
        check_sorted(folders, [str(tmp_path / read)])


def test_two_results_have_two_names(images: Path) -> None:
    with pytest.raises(ValueError, match="is read, or also written"):
        prepare_file(Path("new.csv"), images.parent / "x" / ".." / "new.csv")


@pytest.mark.parametrize(
    ("folder", "words"),
    [
        ("images/labels.csv", "is a file; give a folder"),
        ("images/labels.csv/deep", "is a file, not a folder"),
        ("images/found", "is inside the image folder"),
        ("images", "is inside the image folder"),
    ],
)
def test_a_folder_of_results_can_be_written(images: Path, folder: str, words: str) -> None:
    inputs = ["images"] if "inside" in words else []
    with pytest.raises(ValueError, match=words):
        prepare_folder(Path(folder), *inputs)
    assert sorted(path.name for path in images.iterdir()) == ["a.png", "labels.csv"]


def test_a_folder_of_results_holds_no_input(images: Path) -> None:
    with pytest.raises(ValueError, match="the folder of the results"):
        prepare_folder(images, images / "labels.csv")
    prepare_folder(Path("deep/found"), images, mode=0o700)
    assert Path("deep/found").stat().st_mode & 0o777 == 0o700


def test_names_of_copies_depend_on_the_paths_given_only(images: Path) -> None:
    (images / "b").mkdir()
    (images / "b" / "c.png").touch()
    files = [images / "a.png", images / "b" / "c.png"]
    for paths, names in {
        ("images",): ["a.png", "b/c.png"],
        ("images/**/*.png",): ["a.png", "b/c.png"],
        ("images/b", "images"): ["a.png", "c.png"],
        ("*/*/*.png", "images/a.png"): ["images/a.png", "images/b/c.png"],
        ("images/a.png", "images/b/c.png"): ["a.png", "c.png"],
    }.items():
        assert names_below(files, paths) == names
        for k in range(2):  # whichever others are there
            assert names_below(files[k : k + 1], paths) == names[k : k + 1]
