"""Finding image files, lists of images, and skipped images."""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from hypervlad import read_image
from hypervlad.images import (
    ImageReadError,
    SkippedImage,
    SkippedImagesWarning,
    UnknownPixelSizeWarning,
    find_images,
    read_micrographs,
)
from hypervlad.images.errors import list_reasons
from hypervlad.images.files import encode_jpeg, ignored_files
from hypervlad.images.reading import check_image_list, relative_names

GREY = np.random.default_rng(0).integers(0, 256, (10, 12), dtype=np.uint8)


def touch(folder: Path, *names: str) -> None:
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


def test_a_folder_is_searched_recursively_without_masks_and_hidden_files(folder):
    assert names(find_images(folder), folder) == ALL
    assert ignored_files([folder]) == {"masks": 2, "hidden": 2, ".txt": 1, ".csv": 1}


def test_only_mrc_files_are_found_by_the_suffix_map(folder):
    """Programs for elements, web pages and geography write other things under it."""
    (folder / "density.MAP").write_bytes(bytes(208) + b"MAP " + bytes(812))
    (folder / "density_mask.map").write_bytes(bytes(208) + b"MAP " + bytes(812))
    (folder / "element.map").write_bytes(b"4\0\0\0JED-2200:LibJxImageForm" + bytes(1000))
    touch(folder, "style.css.map")

    assert names(find_images(folder), folder) == [*ALL[:2], "density.MAP", *ALL[2:]]
    assert names(find_images(f"{folder}/*.[mM]*"), folder) == ["density.MAP"]
    assert ignored_files([folder])[".map"] == 3


def test_patterns_choose_files_of_a_folder(folder):
    assert names(find_images(f"{folder}/*.png"), folder) == ["b.png", "image [1].png"]
    assert names(find_images(f"{folder}/**/*"), folder) == ALL
    found = find_images(folder, include=["*.PNG", "sub/*"], exclude="sub/deep/*")
    assert names(found, folder) == ["b.png", "image [1].png", "sub/c.jpg"]
    found = find_images(folder, exclude=["*.png"])
    assert names(found, folder) == ["a.TIF", "sub/c.jpg", "sub/deep/d.dm3"]
    with pytest.raises(ImageReadError, match=r"no image matches include=\['\*\.gif'\]"):
        find_images(folder, include="*.gif")


def test_a_file_given_by_name_may_have_any_suffix(folder):
    for name in ("notes.txt", "b_mask.png", ".hidden.png", "image [1].png"):
        assert names(find_images(folder / name), folder) == [name]


def test_each_file_once_and_sorted(folder, monkeypatch):
    monkeypatch.chdir(folder)
    paths = ["sub", "b.png", Path("a.TIF"), folder / "b.png", "./sub/../b.png", "*.png"]

    found = find_images(paths)

    assert len(found) == len(ALL)
    assert found == sorted(found, key=lambda file: file.as_posix())


@pytest.mark.parametrize("pattern", ["s*", "[s]ub", "./s*/", "**/sub", "**/s*b"])
def test_folders_that_a_pattern_matches_are_searched(folder, pattern, monkeypatch):
    """As if the shell had put their names in its place."""
    monkeypatch.chdir(folder)
    expected = {path.resolve() for path in find_images("sub")}
    assert {path.resolve() for path in find_images(pattern)} == expected


LINKS = pytest.mark.skipif(os.name == "nt", reason="needs symbolic links")
REPEATED = "linked folders? left out, to find no image twice and none above this folder"


def link(place: Path, target: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(target, target_is_directory=True)


@LINKS
def test_a_loop_of_links_ends(folder):
    link(folder / "sub" / "loop", folder)
    with pytest.warns(UserWarning, match=f"1 {REPEATED}: sub/loop$"):
        assert names(find_images(folder), folder) == ALL
    with pytest.warns(UserWarning, match=f"1 {REPEATED}: sub/loop$"):
        found = find_images(f"{folder}/**/*.*")
    assert sorted(found) == sorted(folder / name for name in ALL)


@LINKS
def test_a_link_to_nothing_says_where_it_leads(tmp_path):
    (tmp_path / "a.png").symlink_to(tmp_path / "unmounted" / "a.png")
    for read in (find_images, read_image):
        with pytest.raises(ImageReadError, match=r"a\.png: a link to .*unmounted/a\.png, which"):
            read(tmp_path / "a.png")


@LINKS
def test_links_to_folders_are_followed(tmp_path):
    """Classes that are links, folders inside that are, links in linked folders, the root itself."""
    touch(tmp_path, "disk/fibre/1.png", "disk/more/2.png", "disk/far/3.png", "set/matrix/4.png")
    link(tmp_path / "set" / "fibre", tmp_path / "disk" / "fibre")
    link(tmp_path / "set" / "matrix" / "more", tmp_path / "disk" / "more")
    link(tmp_path / "disk" / "more" / "far", Path("..") / "far")
    link(tmp_path / "root", tmp_path / "set")
    expected = ["fibre/1.png", "matrix/4.png", "matrix/more/2.png", "matrix/more/far/3.png"]
    assert names(find_images(tmp_path / "set"), tmp_path / "set") == expected
    assert names(find_images(tmp_path / "root"), tmp_path / "root") == expected
    found = find_images([f"{tmp_path}/set/**/*.png", tmp_path / "root", tmp_path / "set"])
    assert {file.resolve() for file in found} == {
        file.resolve() for file in (tmp_path / "disk").rglob("*.png")
    } | {(tmp_path / "set" / "matrix" / "4.png").resolve()}
    assert len(found) == 4


@LINKS
def test_a_folder_with_several_names_is_searched_where_it_is(tmp_path):
    """Whatever the order: its images would be in two classes, and in training and in test."""
    touch(tmp_path, "set/z/1.png", "far/2.png")
    link(tmp_path / "set" / "a", tmp_path / "set" / "z")
    link(tmp_path / "set" / "zz" / "again", tmp_path / "set" / "z")
    with pytest.warns(UserWarning, match=f"2 {REPEATED}: a, zz/again$"):
        assert names(find_images(tmp_path / "set"), tmp_path / "set") == ["z/1.png"]
    for name in ("c", "b"):
        link(tmp_path / "other" / name, tmp_path / "far")
    with pytest.warns(UserWarning, match=f"1 {REPEATED}: c$"):
        assert names(find_images(tmp_path / "other"), tmp_path / "other") == ["b/2.png"]


@LINKS
def test_links_to_nothing_are_named(tmp_path):
    (tmp_path / "1.png").touch()
    link(tmp_path / "session2", tmp_path / "unplugged")
    link(tmp_path / "lost.png", tmp_path / "deleted.png")
    with pytest.warns(UserWarning, match="1 link left out, whose target does not .*: session2$"):
        found = find_images(tmp_path)
    assert names(found, tmp_path) == ["1.png", "lost.png"]  # which fails with its name when read
    assert find_images(f"{tmp_path}/*.png") == found


@LINKS
@pytest.mark.parametrize("pattern", ["", "/**", "/**/*.png", "/**/*", "/*/**/*.png"])
def test_patterns_and_folders_find_the_same(tmp_path, pattern):
    """And end: links to folders above would multiply with each level of a plain glob."""
    touch(tmp_path, "set/a/1.png", "set/z/2.png", "set/z/@eaDir/2.png/thumb.png", "results/3.png")
    for name, target in (("a/up", ".."), ("z/up", ".."), ("a/out", "../.."), ("a/b", "../z")):
        link(tmp_path / "set" / name, Path(target))
    given = f"{tmp_path}/set{pattern}"
    with pytest.warns(UserWarning, match=REPEATED):
        assert names(find_images(given), tmp_path / "set") == ["a/1.png", "z/2.png"]
    assert ignored_files([given]) == {"in folders of the system": 1}


@LINKS
def test_patterns_prefer_folders_to_links(tmp_path):
    touch(tmp_path, "z/1.png", "z/@eaDir/1.png")
    link(tmp_path / "a", Path("z"))
    assert names(find_images(f"{tmp_path}/*/*.png"), tmp_path) == ["z/1.png"]
    assert names(find_images(f"{tmp_path}/z/@eaDir/*"), tmp_path) == ["z/@eaDir/1.png"]
    assert ignored_files([f"{tmp_path}/z/*/*.png"]) == {"in folders of the system": 1}
    with pytest.raises(ImageReadError, match="folders such as @eaDir are left out"):
        find_images(f"{tmp_path}/z/*/*.png")


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
    assert ignored_files([tmp_path / "images"]) == {"in folders of the system": 1}
    given = (tmp_path / "images" / name).parent  # by the user's own choice
    assert names(find_images(given), given) == [Path(name).name]


@pytest.mark.parametrize(
    "images",
    [
        ["a.png", "b.png"],
        np.array(["a.png", "b.png"]),
        np.array(["a.png", "b.png"], dtype=object),
        pd.Series(["a.png", "b.png"], index=[7, 3]),
    ],
)
def test_lists_of_paths(images):
    assert check_image_list(images) == ["a.png", "b.png"]


@pytest.mark.parametrize("shape", [(5, 30, 40), (1, 30, 40), (5, 30, 40, 3), (2, 3, 4, 1)])
def test_an_array_of_images_is_a_list_of_them(shape):
    stack = np.random.default_rng(0).random(shape)
    np.testing.assert_array_equal(check_image_list(stack), list(stack))


@pytest.fixture
def mixed(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"junk")
    return [tmp_path / "good.png", tmp_path / "bad.png", GREY, GREY * 1j, tmp_path / "none.png"]


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_skip_warns_once_at_the_end_with_a_list(mixed, n_jobs):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        indices = []
        for index, micrograph in read_micrographs(mixed, on_error="skip", n_jobs=n_jobs):
            assert not caught
            assert micrograph.pixels.shape == GREY.shape
            indices.append(index)

    assert indices == [0, 2]
    (warning,) = (each.message for each in caught)
    assert isinstance(warning, SkippedImagesWarning)
    assert [image.position for image in warning.skipped] == [1, 3, 4]
    assert str(warning).startswith("3 of 5 images could not be read and were skipped:\n")
    assert str(mixed[1]) in str(warning)
    assert "image 3 of the list (counted from 0): complex pixels" in str(warning)


def test_skip_shows_twenty_and_keeps_all():
    images = [GREY, *[np.zeros((0, 1))] * 50]

    with pytest.warns(SkippedImagesWarning, match="and 30 more") as caught:
        assert len(list(read_micrographs(images, on_error="skip"))) == 1
    assert len(caught[0].message.skipped) == 50


def test_a_reason_that_several_images_share_is_listed_once():
    reasons = {"a.png": "damaged", "b.png": "empty", "c.png": "damaged"}
    skipped = [SkippedImage(0, name, f"{name}: {reason}") for name, reason in reasons.items()]
    assert list_reasons(skipped) == "  damaged:\n    a.png\n    c.png\n  b.png: empty"


def test_skip_with_nothing_left_is_an_error(tmp_path):
    with pytest.raises(ImageReadError, match="none of the images could be read") as error:
        list(read_micrographs([tmp_path / "a.png", tmp_path / "b.png"], on_error="skip"))

    assert "no such file; check the path" in str(error.value)
    assert str(error.value).endswith("b.png")


def test_raise_stops_at_the_first(mixed):
    reader = read_micrographs(mixed)

    assert next(reader)[0] == 0
    with pytest.raises(ImageReadError, match=r"bad\.png: not an image"):
        next(reader)


def test_threads_read_in_the_same_order():
    images = [np.full((4, 5), value, np.uint8) for value in range(12)]
    read = list(read_micrographs(images, n_jobs=2))
    assert [index for index, _ in read] == list(range(12))
    assert [int(255 * found.pixels[0, 0] + 0.5) for _, found in read] == list(range(12))


def test_threads_stop_with_the_caller():
    images = [np.full((4, 5), value, np.uint8) for value in range(12)]
    stream = read_micrographs(images, n_jobs=2)
    assert next(stream)[0] == 0
    stream.close()
    assert list(stream) == []


def test_unknown_pixel_sizes_are_named_in_the_warning():
    warning = UnknownPixelSizeWarning.about([f"{i}.png" for i in range(7)], 9)
    assert str(warning).startswith("7 of 9 images without a known pixel size")
    assert "4.png and 2 more. Use" in str(warning)
    assert len(warning.names) == 7


def test_a_jpeg_has_at_most_the_requested_side():
    pixels = np.random.default_rng(0).random((30, 60, 3))
    for quality in (72, 95):
        image = Image.open(io.BytesIO(encode_jpeg(pixels, 40, quality)))
        assert (image.format, image.size, image.mode) == ("JPEG", (40, 20), "RGB")
    assert Image.open(io.BytesIO(encode_jpeg(pixels, 100, 72))).size == (60, 30)


def test_folders_that_cannot_be_read_are_named_in_a_warning(folder, monkeypatch):
    """Not one that was deleted since it was listed."""
    scandir = os.scandir
    errors = {
        "sub": OSError(13, "Permission denied", str(folder / "sub")),
        "nameless": OSError("no medium"),  # as some file systems report it
        "gone": FileNotFoundError(2, "No such file or directory"),
    }

    def scan(path):
        if error := errors.get(Path(path).name):
            raise error
        return scandir(path)

    (folder / "gone").mkdir()
    monkeypatch.setattr(os, "scandir", scan)
    message = r"1 folder left out, which cannot be read \(Permission denied\): sub$"
    with pytest.warns(UserWarning, match=message) as caught:
        assert names(find_images(folder), folder) == ["a.TIF", "b.png", "image [1].png"]
    assert len(caught) == 1
    (folder / "sub").rename(folder / "nameless")
    with pytest.warns(UserWarning, match=r"1 folder left out.* \(no medium\): \.$"):
        find_images(folder)


def test_names_are_those_below_the_common_folder(tmp_path: Path) -> None:
    paths = [tmp_path / "a" / "x.png", str(tmp_path / "b" / "c" / "y.png")]
    assert relative_names(paths) == ["a/x.png", "b/c/y.png"]
    assert relative_names([paths[0], np.zeros((2, 2))]) == ["x.png", ""]
    assert relative_names([np.zeros((2, 2))]) == [""]
