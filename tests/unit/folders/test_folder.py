"""Labelled folders: what is an image, what is its class, and what is refused."""

import os
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.feature_folders import touch, write_image

from hypervlad import extract_features
from hypervlad.data import ImageFolderError, ImageFolderWarning, load_image_folder
from hypervlad.images import find_images, find_masks


def test_classes_are_the_first_level_and_order_is_that_of_paths(tmp_path, monkeypatch):
    touch(
        tmp_path / "set",
        *("b/2.png", "b/10.TIF", "a/deep/er/1.jpg", "a/1.dm3", "C/1.png"),
        *("a/1_mask.png", "a/.hidden.png", "a/.cache/1.png", "a/notes.txt", ".git/1.png"),
        "groups.csv",
    )
    monkeypatch.chdir(tmp_path)
    names = ["C/1.png", "a/1.dm3", "a/deep/er/1.jpg", "b/10.TIF", "b/2.png"]
    for root in (tmp_path / "set", "set"):
        data = load_image_folder(root)
        assert data.images == [os.path.join(root, *name.split("/")) for name in names]
        assert data.target.tolist() == ["C", "a", "a", "b", "b"]
        assert data.target_names == ["C", "a", "b"]
        assert (data.groups, data.root, data.by_model.any()) == (None, str(root), False)
    assert load_image_folder(Path("set", "..", "set")).target.tolist() == data.target.tolist()


def test_what_is_no_folder_of_two_classes_is_refused(tmp_path):
    touch(tmp_path, "empty.csv")
    table = [
        (["1.png", "2.png"], "2 images lie directly in this folder.*sub-folders named"),
        (["a/1.png"], r"images of one class only \('a'\)"),
        (["a/1_mask.png", "b/.1.png", "b/2.csv"], "no images in it or in its sub-folders a, b"),
        (["notes.txt"], "no images in it; expected one sub-folder per class"),
        ("nowhere", "no such folder"),
        ("empty.csv", r"empty\. Expected path and label"),
    ]
    for number, (files, words) in enumerate(table):
        folder = tmp_path / (files if isinstance(files, str) else f"{number}")
        if not isinstance(files, str):
            touch(folder, *files)
        with pytest.raises(ImageFolderError, match=f"^{folder}: .*{words}"):
            load_image_folder(folder)
    for wrong in (" ", [str(tmp_path)]):
        with pytest.raises(ImageFolderError):
            load_image_folder(wrong)


def test_what_is_left_out_is_named(tmp_path):
    touch(tmp_path, "a/1.png", "b/1.png", "stray.png")
    (tmp_path / "c").mkdir()
    with pytest.warns(ImageFolderWarning) as warned:
        data = load_image_folder(tmp_path)
    empty, loose = (str(each.message) for each in warned)
    assert "no images in the sub-folder c;" in empty
    assert "1 image beside the class folders left out (stray.png)" in loose
    assert warned[0].filename == __file__
    assert (len(data.images), data.target_names) == (2, ["a", "b"])


@pytest.mark.skipif(os.name == "nt", reason="needs symbolic links")
@pytest.mark.filterwarnings("ignore:.*left out")
@pytest.mark.parametrize(
    ("links", "words"),
    [
        ({"c": "b"}, "the class c is a link into the folder of the class b"),
        ({"c": "b/deep"}, "the class c is a link into the folder of the class b"),
        ({"wire": "../store", "nanowire": "../store"}, "wire is a link into .* the class nanowire"),
    ],
)
def test_one_folder_is_of_one_class(tmp_path, links, words):
    """Links to the folder of another class, or into it, would give its images two labels."""
    touch(tmp_path, "set/a/1.png", "set/b/deep/1.png", "store/1.png")
    for name, target in links.items():
        (tmp_path / "set" / name).symlink_to(target)
    with pytest.raises(ImageFolderError, match=words):
        load_image_folder(tmp_path / "set")


# --- names that look the same: macOS writes accents as characters of their own -----------------

APART = unicodedata.normalize("NFD", "Fäden")
TOGETHER = unicodedata.normalize("NFC", "Fäden")
two_forms = pytest.mark.skipif(sys.platform == "darwin", reason="its disks know one form only")


@two_forms
@pytest.mark.parametrize(("stored", "written"), [(APART, TOGETHER), (TOGETHER, APART)])
def test_names_mean_the_file_in_another_form(tmp_path, stored, written, tiny_encoder):
    """In groups, labels, patterns, masks and features."""
    images, rng = tmp_path / "images", np.random.default_rng(0)
    for name in (f"{stored}/{stored}1.png", f"{stored}2.png", "Matrix/1.png"):
        write_image(images / name, rng)
    groups, labels = tmp_path / "groups.csv", tmp_path / "labels.csv"
    rows = f"{written}/{written}1.png,{APART}\nMatrix/1.png,{TOGETHER}\n"
    groups.write_text(f"path,group\n{rows}", encoding="utf-8")
    with pytest.warns(ImageFolderWarning):
        data = load_image_folder(images, groups)
    assert data.groups.tolist() == [TOGETHER, TOGETHER]
    assert sorted(data.target_names) == sorted([TOGETHER, "Matrix"])
    text = f"path,label\nimages/{written}/{written}1.png,{APART}\nimages/Matrix/1.png,x\n"
    labels.write_text(text, encoding="utf-8")
    data = load_image_folder(labels)
    assert set(data.target_names) == {TOGETHER, "x"}
    assert all(Path(image).exists() for image in data.images)

    assert len(find_images(images, include=f"{written}/*")) == 1
    touch(tmp_path, f"masks/{written}/{written}1_mask.png", f"masks/{written}2.png")
    found = find_masks(find_images(images, include=f"{written}*"), tmp_path / "masks", images)
    assert sorted(mask.name for mask in found if mask) == sorted(
        [f"{written}1_mask.png", f"{written}2.png"]
    )
    tiny_encoder.fit(find_images(images))
    extract_features(images, tiny_encoder, out=tmp_path / "features.parquet")
    table = pd.read_parquet(tmp_path / "features.parquet", columns=["path", "label"]).fillna("")
    assert set(table["label"]) == {TOGETHER, "Matrix", ""}
    assert f"{stored}/{stored}1.png" in set(table["path"])
