"""Labelled folders: what is an image, what is its class, and what is refused."""

import os
from pathlib import Path

import pytest

from hypervlad.data import ImageFolderError, ImageFolderWarning, load_image_folder


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def relative(data, root):
    return [Path(image).relative_to(root).as_posix() for image in data.images]


def test_classes_are_the_first_level_and_order_is_that_of_paths(tmp_path):
    touch(
        tmp_path,
        *("b/2.png", "b/10.TIF", "a/deep/er/1.jpg", "a/1.dm3", "C/1.png"),
        *("a/1_mask.png", "a/.hidden.png", "a/.cache/1.png", "a/notes.txt", ".git/1.png"),
        "groups.csv",
    )
    data = load_image_folder(tmp_path)
    expected = ["C/1.png", "a/1.dm3", "a/deep/er/1.jpg", "b/10.TIF", "b/2.png"]
    assert relative(data, tmp_path) == expected
    assert data.target.tolist() == ["C", "a", "a", "b", "b"]
    assert data.target_names == ["C", "a", "b"]
    assert data.groups is None
    assert data.root == str(tmp_path)
    assert all(isinstance(image, str) for image in data.images)


def test_text_path_and_relative_path(tmp_path, monkeypatch):
    touch(tmp_path, "set/a/1.png", "set/b/1.png")
    monkeypatch.chdir(tmp_path)
    data = load_image_folder("set")
    assert data.images == [os.path.join("set", "a", "1.png"), os.path.join("set", "b", "1.png")]
    dotted = load_image_folder(os.path.join(".", "set", "..", "set"))
    assert dotted.target.tolist() == ["a", "b"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["1.png", "2.png"], "2 images lie directly in this folder.*sub-folders named"),
        (["a/1.png"], "images of one class only \\('a'\\)"),
        (["a/1_mask.png", "b/.1.png", "b/2.csv"], "no images in it or in its sub-folders a, b"),
        (["notes.txt"], "no images in it; expected one sub-folder per class"),
    ],
)
def test_folders_without_two_classes(tmp_path, files, message):
    touch(tmp_path, *files)
    with pytest.raises(ImageFolderError, match=message) as caught:
        load_image_folder(tmp_path)
    assert str(caught.value).startswith(str(tmp_path))


def test_paths_that_are_no_folder(tmp_path):
    touch(tmp_path, "a/1.png")
    with pytest.raises(ImageFolderError, match="nowhere: no such folder"):
        load_image_folder(tmp_path / "nowhere")
    with pytest.raises(ImageFolderError, match=r"1\.png: empty\. Expected path and label"):
        load_image_folder(tmp_path / "a" / "1.png")
    with pytest.raises(ImageFolderError, match="an empty path"):
        load_image_folder(" ")
    with pytest.raises(ImageFolderError, match="got list"):
        load_image_folder([str(tmp_path)])


def test_empty_class_and_loose_images_are_warned_about(tmp_path):
    touch(tmp_path, "a/1.png", "b/1.png")
    (tmp_path / "c").mkdir()
    with pytest.warns(ImageFolderWarning, match=r"no images in the sub-folder c;") as caught:
        data = load_image_folder(tmp_path)
    assert caught[0].filename == __file__
    assert data.target_names == ["a", "b"]
    (tmp_path / "c").rmdir()
    touch(tmp_path, "stray.png")
    with pytest.warns(ImageFolderWarning, match=r"1 image beside .* \(stray\.png\)"):
        data = load_image_folder(tmp_path)
    assert len(data.images) == 2


@pytest.mark.skipif(os.name == "nt", reason="needs symbolic links")
@pytest.mark.parametrize(
    ("links", "expected"),
    [
        ({"c": "b"}, "the class c is a link into the folder of the class b"),
        ({"c": "b/deep"}, "the class c is a link into the folder of the class b"),
        ({"wire": "../store", "nanowire": "../store"}, "wire is a link into .* the class nanowire"),
    ],
)
def test_one_folder_is_of_one_class(tmp_path, links, expected):
    """Links to the folder of another class, or into it, would give its images two labels."""
    touch(tmp_path, "set/a/1.png", "set/b/deep/1.png", "store/1.png")
    for name, target in links.items():
        (tmp_path / "set" / name).symlink_to(target)
    with (
        pytest.warns(UserWarning, match="left out"),
        pytest.raises(ImageFolderError, match=expected),
    ):
        load_image_folder(tmp_path / "set")
