"""Patches written to a folder come back as they were, with what they belong to."""

import csv

import numpy as np
import pytest
from PIL import Image

from hypervlad.data import ImageFolderError, load_patch_folder, write_patch_folder
from hypervlad.features import cut_patches, split_patches
from hypervlad.images import read_image


def parts_of(dtype=np.uint8, colours=(), n=5):
    rng = np.random.default_rng(0)
    top = 1 if dtype == np.float32 else np.iinfo(dtype).max
    images = [(top * rng.random((20, 30, *colours))).astype(dtype) for _ in range(n)]
    masks = [np.zeros((20, 30), dtype=bool) for _ in range(n)]
    for mask in masks:
        mask[:10, :10] = True
    return split_patches(cut_patches(images, masks, patch=10), random_state=0)


@pytest.mark.parametrize(
    ("dtype", "colours", "suffix"),
    [(np.uint8, (3,), "png"), (np.uint16, (3,), "tif"), (np.float32, (), "tif")],
)
def test_patches_come_back_as_they_were(tmp_path, dtype, colours, suffix):
    parts = parts_of(dtype, colours)
    write_patch_folder(parts, tmp_path / "new")
    found = load_patch_folder(tmp_path / "new")
    assert list(found) == ["train", "validation", "test"]
    for name, data in found.items():
        expected = {
            (label, group, pixels.tobytes())
            for label, group, pixels in zip(
                parts[name].labels, parts[name].groups.astype(str), parts[name].pixels, strict=True
            )
        }
        got = {
            (label, group, read_image(path).tobytes())
            for label, group, path in zip(data.target, data.groups, data.images, strict=True)
        }
        assert got == expected
        assert all(path.endswith(suffix) for path in data.images)


def test_images_of_one_name_do_not_overwrite_each_other(tmp_path):
    rng = np.random.default_rng(0)
    files = [tmp_path / folder / "mat.png" for folder in ("a", "b")]
    for file in files:
        file.parent.mkdir()
        Image.fromarray(rng.integers(0, 256, (10, 10), dtype=np.uint8)).save(file)
    write_patch_folder({"train": cut_patches(files, patch=10)}, tmp_path / "out")
    assert len(load_patch_folder(tmp_path / "out")["train"].images) == 2


def test_impossible_folders_and_parts_are_refused(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").touch()
    train = parts_of()["train"]
    for parts, folder, words in (
        ({"train": train}, "full", "full: expected a new or an empty folder"),
        ({"dev": train}, "new", r"the parts train, validation, test.* got dev"),
        ({}, "new", "got none"),
    ):
        with pytest.raises(ImageFolderError, match=words):
            write_patch_folder(parts, tmp_path / folder)
    for folder in ("empty/train", "loose/train/class"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "loose" / "train" / "1.png").touch()
    for folder, words in (
        ("gone", "gone.*: no such folder"),
        ("full", "full: no sub-folder 'train'"),
        ("empty", "train: no images"),
        ("loose", "train: 1 image outside of them"),
    ):
        with pytest.raises(ImageFolderError, match=words):
            load_patch_folder(tmp_path / folder)


def test_a_group_on_two_sides_is_refused(tmp_path):
    write_patch_folder(parts_of(), tmp_path)
    with (tmp_path / "groups.csv").open(newline="") as stream:
        rows = list(csv.reader(stream))
    for row in rows[1:]:
        row[1] = "mat 7" if row[1] == rows[1][1] or row[0].startswith("test") else row[1]
    with (tmp_path / "groups.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    with pytest.raises(ImageFolderError):
        load_patch_folder(tmp_path)


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", full)
        with pytest.raises(OSError):
            write_patch_folder(parts_of(), tmp_path / "new")
    assert not list(tmp_path.iterdir())
