"""Finding image files: folders, patterns, links, and what is left out."""

import os
from pathlib import Path

import pytest
from support.commands import run

from hypervlad.images import ImageReadError, find_images


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


@pytest.fixture
def folder(tmp_path):
    touch(
        tmp_path,
        *("b.png", "a.TIF", "sub/c.jpg", "sub/deep/d.dm3", "b_mask.png", "sub/c_MASK.jpg"),
        *(".hidden.png", "._b.png", ".cache/e.png", "notes.txt", "groups.csv", "image [1].png"),
    )
    return tmp_path


ALL = ["a.TIF", "b.png", "image [1].png", "sub/c.jpg", "sub/deep/d.dm3"]


def names(files, folder):
    return [file.relative_to(folder).as_posix() for file in files]


def ignored(*paths):
    """What commands say of files that are no images; here, none of the images can be read."""
    said = run("scale", *paths, code=2).stderr.splitlines()
    (counts,) = [line.partition(": ")[2] for line in said if line.startswith("ignored ")] or [""]
    return counts


def test_a_folder_is_searched_recursively_without_masks_and_hidden_files(folder):
    assert names(find_images(folder), folder) == ALL
    assert ignored(folder) == "2 hidden, 2 masks, 1 .csv, 1 .txt"


def test_only_mrc_files_are_found_by_the_suffix_map(folder):
    """Programs for elements, web pages and geography write other things under it."""
    for name in ("density.MAP", "density_mask.map"):
        (folder / name).write_bytes(bytes(208) + b"MAP " + bytes(812))
    (folder / "element.map").write_bytes(b"4\0\0\0JED-2200:LibJxImageForm" + bytes(1000))
    touch(folder, "style.css.map")
    assert names(find_images(folder), folder) == [*ALL[:2], "density.MAP", *ALL[2:]]
    assert names(find_images(f"{folder}/*.[mM]*"), folder) == ["density.MAP"]
    assert "3 .map" in ignored(folder)


def test_patterns_choose_files_of_a_folder(folder):
    assert names(find_images(f"{folder}/*.png"), folder) == ["b.png", "image [1].png"]
    assert names(find_images(f"{folder}/**/*"), folder) == ALL
    found = find_images(folder, include=["*.PNG", "sub/*"], exclude="sub/deep/*")
    assert names(found, folder) == ["b.png", "image [1].png", "sub/c.jpg"]
    found = find_images(folder, exclude=["*.png"])
    assert names(found, folder) == ["a.TIF", "sub/c.jpg", "sub/deep/d.dm3"]


def test_each_file_once_and_sorted(folder, monkeypatch):
    for name in ("notes.txt", "b_mask.png", ".hidden.png", "image [1].png"):
        assert names(find_images(folder / name), folder) == [name]  # of any suffix, if it is given
    monkeypatch.chdir(folder)
    found = find_images(
        ["sub", "b.png", Path("a.TIF"), folder / "b.png", "./sub/../b.png", "*.png"]
    )
    assert len(found) == len(ALL)
    assert found == sorted(found, key=lambda file: file.as_posix())


@pytest.mark.parametrize(
    "name",
    [
        *("a/@eaDir/2.png/SYNOPHOTO_THUMB_M.jpg", "$RECYCLE.BIN/x.png", "__MACOSX/a/1.png"),
        *(".thumbnails/x.png", ".Trash-1000/files/1.png", "@Recycle/a/x.tif"),
    ],
)
def test_thumbnails_and_deleted_files_are_no_images(tmp_path, name):
    touch(tmp_path / "images", name, "1.png")
    for given in (tmp_path / "images", f"{tmp_path}/images/**/*", f"{tmp_path}/*/*"):
        assert names(find_images(given), tmp_path / "images") == ["1.png"]
    assert ignored(tmp_path / "images") == "1 in folders of the system"
    given = (tmp_path / "images" / name).parent  # by the user's own choice
    assert names(find_images(given), given) == [Path(name).name]


@pytest.mark.parametrize(
    ("paths", "include", "words"),
    [
        ("", (), "an empty path; give a file, a folder or a pattern"),
        ([], (), "no paths were given; give at least one"),
        ("nowhere", (), "nowhere: no such file or folder; check"),
        ("*.tif", (), r"\*\.tif: no images here; looked for \.bmp"),
        (".", (), r"no images here.* \(masks, .* folders such as @eaDir are left out\)"),
        ("a", "*.gif", r"a: no image matches include=\['\*\.gif'\], exclude=\[\]; patterns look"),
        ([b"a.png"], (), "expected a path, got bytes"),
    ],
)
def test_what_contains_no_image_is_an_error(tmp_path, monkeypatch, paths, include, words):
    touch(tmp_path, "notes.txt", ".cache/e.png", "a/a.png" if include else "@eaDir/e.png")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ImageReadError, match=words):
        find_images(paths, include=include)


pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs symbolic links")
REPEATED = "linked folders? left out, to find no image twice and none above this folder"


def link(place, target):
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(target, target_is_directory=True)


def find_with_warning(words, path, root):
    with pytest.warns(UserWarning, match=words) as caught:
        found = names(find_images(path), root)
    assert len(caught) == 1
    return found


def test_a_loop_of_links_ends(folder):
    link(folder / "sub" / "loop", folder)
    for given in (folder, f"{folder}/**/*.*"):
        assert sorted(find_with_warning(f"1 {REPEATED}: sub/loop$", given, folder)) == ALL


def test_links_to_folders_are_followed(tmp_path):
    """Classes that are links, folders inside that are, links in linked folders, the root itself."""
    touch(tmp_path, "disk/fibre/1.png", "disk/more/2.png", "disk/far/3.png", "set/matrix/4.png")
    link(tmp_path / "set" / "fibre", tmp_path / "disk" / "fibre")
    link(tmp_path / "set" / "matrix" / "more", tmp_path / "disk" / "more")
    link(tmp_path / "disk" / "more" / "far", Path("..") / "far")
    link(tmp_path / "root", tmp_path / "set")
    expected = ["fibre/1.png", "matrix/4.png", "matrix/more/2.png", "matrix/more/far/3.png"]
    for root in (tmp_path / "set", tmp_path / "root"):
        assert names(find_images(root), root) == expected
    found = find_images([f"{tmp_path}/set/**/*.png", tmp_path / "root", tmp_path / "set"])
    assert {file.name for file in found} == {"1.png", "2.png", "3.png", "4.png"}
    assert len(found) == 4


def test_a_folder_with_several_names_is_searched_where_it_is(tmp_path):
    """Whatever the order: its images would be in two classes, and in training and in test."""
    touch(tmp_path, "set/z/1.png", "far/2.png")
    link(tmp_path / "set" / "a", tmp_path / "set" / "z")
    link(tmp_path / "set" / "zz" / "again", tmp_path / "set" / "z")
    words = f"2 {REPEATED}: a, zz/again$"
    assert find_with_warning(words, tmp_path / "set", tmp_path / "set") == ["z/1.png"]
    for name in ("c", "b"):
        link(tmp_path / "other" / name, tmp_path / "far")
    found = find_with_warning(f"1 {REPEATED}: c$", tmp_path / "other", tmp_path / "other")
    assert found == ["b/2.png"]


def test_folders_that_cannot_be_read_are_named_in_a_warning(folder, monkeypatch):
    """Not one that was deleted since it was listed."""
    scandir = os.scandir
    errors = {
        "sub": OSError(13, "Permission denied", str(folder / "sub")),
        "gone": FileNotFoundError(2, "No such file or directory"),
    }

    def scan(path):
        if error := errors.get(Path(path).name):
            raise error
        return scandir(path)

    (folder / "gone").mkdir()
    monkeypatch.setattr(os, "scandir", scan)
    words = r"1 folder left out, which cannot be read \(Permission denied\): sub$"
    assert find_with_warning(words, folder, folder) == ["a.TIF", "b.png", "image [1].png"]
