"""Outputs that would replace what a command reads, and copies that would be read as images."""

from __future__ import annotations

from pathlib import Path

import pytest

from hypervlad.apps.cli.files import check_file, check_model, check_sorted


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
    with pytest.raises(ValueError, match="is read by this command; give the result another name"):
        check_file(images / "a.png", None, given)
    assert (images / "a.png").read_text() == "a.png"


def test_what_is_not_read_may_be_replaced(images: Path) -> None:
    check_file(images / "labels.csv", images)  # an earlier table beside the images
    check_file(images / "new.png", images)
    with pytest.raises(ValueError, match="is read by this command"):
        check_file(images / "labels.csv", images / "labels.csv")


def test_a_model_replaces_models_only(images: Path) -> None:
    with pytest.raises(ValueError, match="exists and is not a model"):
        check_model(images / "labels.csv")
    check_model(images / "model.hvlad")


@pytest.mark.parametrize("read", ["sorted/fibre", "sorted/fibre/new", "sorted", "fibre"])
def test_copies_do_not_lie_among_images(tmp_path: Path, read: str) -> None:
    (tmp_path / read).mkdir(parents=True)
    folders = [tmp_path / "sorted" / "fibre", tmp_path / "sorted" / "unsure"]
    if read == "fibre":
        check_sorted(folders, [str(tmp_path / read), "*.png"])
        return
    with pytest.raises(ValueError, match="choose another folder for --sort-into"):
        check_sorted(folders, [str(tmp_path / read)])
