"""Tables of pixel sizes: which file a line means, and which lines are refused."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from hypervlad.data import ImageFolderError, ImageFolderWarning, load_image_folder, load_pixel_sizes
from hypervlad.images import PixelSizes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("fibre/a.png", "fibre/b.png", "tube/ä.png", "tube/c d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def sizes_of(folder: Path, text: str, encoding: str = "utf-8") -> PixelSizes:
    (folder / "sizes.csv").write_text(text, encoding=encoding)
    return load_pixel_sizes(folder / "sizes.csv")


@pytest.mark.parametrize("path", ["fibre/a.png", "fibre\\a.png", "./fibre/../fibre/a.png"])
def test_a_path_is_relative_to_the_table(folder: Path, path: str) -> None:
    sizes = sizes_of(folder, f"path,pixel_size\n{path},2.5\nfibre/b.png,\n")
    assert sizes.of(folder / "fibre" / "a.png") == 2.5
    assert sizes.of(str(folder / "tube" / ".." / "fibre" / "a.png")) == 2.5
    assert sizes.of(folder / "fibre" / "b.png") is None
    assert sizes.of(folder / "other" / "a.png") is None


def test_absolute_paths_links_and_accents(folder: Path) -> None:
    (folder / "link").symlink_to(folder / "tube")
    name = unicodedata.normalize("NFD", "ä.png")
    sizes = sizes_of(folder, f"path,pixel_size\n{folder / 'tube' / 'c d.png'},1\nlink/{name},2\n")
    assert sizes.of(folder / "link" / "c d.png") == 1
    assert sizes.of(folder / "tube" / "ä.png") == 2


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_table_saved_by_a_european_spreadsheet(folder: Path, encoding: str) -> None:
    text = "remark;path;pixel_size\n;fibre/a.png;2,5\n"
    assert sizes_of(folder, text, encoding).of(folder / "fibre" / "a.png") == 2.5


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "its columns are none; expected path and pixel_size"),
        ("path,size\nfibre/a.png,2", "its columns are path, size; expected path and pixel_size"),
        ("path,pixel_size\nfibre/a.png,1\nfibre/b.png,two", "line 3: 'two' is no pixel size"),
        ("path,pixel_size\nfibre/a.png,-1", "line 2: '-1' is no pixel size"),
        ("path,pixel_size\nfibre/a.png,0", "line 2: '0' is no pixel size"),
        ("path,pixel_size\nfibre/a.png,nan", "line 2: 'nan' is no pixel size"),
        ('path,pixel_size\nfibre/a.png,"2,5"', "line 2: '2,5' is no pixel size; expected nano"),
        ("path,pixel_size\n,1", "line 2: no path"),
        (
            "path,pixel_size\nfibre/a.png,1\ntube/../fibre/a.png,2",
            "line 3: tube/../fibre/a.png has another pixel size in line 2",
        ),
        ("path,pixel_size\nx.png,1", "no line is of a file that exists. Paths are relative to the"),
    ],
)
def test_what_is_refused_with_its_line(folder: Path, text: str, reason: str) -> None:
    with pytest.raises(ImageFolderError) as caught:
        sizes_of(folder, text)
    assert str(caught.value).startswith(f"{folder / 'sizes.csv'}")
    assert reason in str(caught.value)


def test_equal_lines_are_one(folder: Path) -> None:
    assert len(sizes_of(folder, "path,pixel_size\nfibre/a.png,1\nfibre/a.png,1.0")) == 1


def test_lines_of_missing_files_are_counted(folder: Path) -> None:
    with pytest.warns(ImageFolderWarning, match=r"2 lines are of no file that exists: x.png \(li"):
        sizes_of(folder, "path,pixel_size\nfibre/a.png,1\nx.png,1\ny.png,2\n")


def test_sizes_of_labelled_images(folder: Path) -> None:
    (folder / "sizes.csv").write_text("path,pixel_size\nfibre/a.png,2.5\n")
    data = load_image_folder(folder, pixel_sizes=folder / "sizes.csv")
    assert [data.pixel_sizes.of(image) for image in data.images] == [2.5, None, None, None]
    assert load_image_folder(folder).pixel_sizes is None


def test_a_table_of_other_images_is_reported(folder: Path) -> None:
    (folder / "sizes.csv").write_text("path,pixel_size\nfibre/a.png,2.5\n")
    with pytest.warns(ImageFolderWarning, match="has the pixel size of none of the 1 image"):
        load_pixel_sizes(folder / "sizes.csv", [folder / "fibre" / "b.png"])
