"""The check of a folder says what is wrong with it, the worst first."""

import shutil
from pathlib import Path

import joblib
import numpy as np
import pytest
import tifffile
from PIL import Image
from support.commands import save

from hypervlad.data import (
    ImageFolderError,
    ImageFolderWarning,
    check_image_folder,
    compare_image_folders,
    load_image_folder,
    make_tem_images,
)

TEM = make_tem_images(12, size=96, random_state=21)[0]


@pytest.fixture
def clean(tmp_path):
    """Two classes of six images each, without a fault."""
    for i, image in enumerate(TEM):
        save(tmp_path / "ab"[i % 2] / f"{i:02d}.png", image)
    return tmp_path


def write_groups(root, **of):
    """A file of groups, one group per image, except for those given by name."""
    names = [file.relative_to(root).as_posix() for file in sorted(root.rglob("*.png"))]
    lines = ["path,group", *(f"{name},{of.get(Path(name).stem, name)}" for name in names)]
    (root / "groups.csv").write_text("\n".join(lines), encoding="utf-8")
    return root / "groups.csv"


def noise(seed, *shape):
    return np.random.default_rng(seed).integers(60, 200, shape, dtype=np.uint8)


def test_a_clean_folder_is_ok(clean, capsys, monkeypatch):
    report = check_image_folder(clean)
    assert report.problems == report.bad_files == report.exact_copies == report.near_copies == []
    assert (report.ok, report.n_images, report.group_counts) == (True, 12, None)
    assert report.class_counts == {"a": 6, "b": 6}
    assert (report.image_sizes, report.image_kinds) == ({"96 x 96": 12}, {"uint8 grey": 12})
    assert "each image counts as a sample of its own" in report.notes[0]
    assert "No problems found." in str(report)
    assert check_image_folder(clean, write_groups(clean)).ok
    assert len(check_image_folder(clean / "a", write_groups(clean / "a")).group_counts) == 6
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("HYPERVLAD_READ_BY_PROGRAM", "1")  # in a terminal, bars are shown as well
    with joblib.parallel_config(n_jobs=2):
        assert check_image_folder(clean, verbose=True) == report
    said = capsys.readouterr().err
    assert [word in said for word in ("Reading", "Comparing")] == [True, True]


def test_bad_files_are_listed_with_the_reason_and_keep_their_groups(clean):
    (clean / "a" / "empty.png").touch()
    (clean / "b" / "text.tif").write_text("not an image", encoding="utf-8")
    whole = (clean / "a" / "00.png").read_bytes()
    (clean / "a" / "cut.png").write_bytes(whole[: len(whole) // 2])
    report = check_image_folder(clean)
    assert [bad.path for bad in report.bad_files] == ["a/cut.png", "a/empty.png", "b/text.tif"]
    assert all(Path(bad.path).name in bad.reason for bad in report.bad_files)
    assert "3 files cannot be read: a/cut.png, a/empty.png, b/text.tif" in report.problems[0]
    assert (report.n_images, report.class_counts) == (12, {"a": 6, "b": 6})
    assert report.suggested_groups["a/cut.png"] == "a/cut.png"
    (clean / "b" / "text.tif").unlink()
    groups = write_groups(clean, cut="of another")
    report = check_image_folder(clean, groups)
    assert report.suggested_groups["a/cut.png"] == "of another"
    report.write_groups(groups)
    assert len(load_image_folder(clean, groups).groups) == 14


def test_exact_copies_across_classes_come_first(clean):
    shutil.copy(clean / "a" / "00.png", clean / "b" / "again.png")
    with Image.open(clean / "a" / "02.png") as image:
        image.save(clean / "a" / "02 copy.tif")
    report = check_image_folder(clean)
    first, second = report.exact_copies
    assert first.files == ("a/00.png", "b/again.png")
    assert second.files == ("a/02 copy.tif", "a/02.png")
    assert (first.classes, second.classes) == (("a", "b"), ("a",))
    assert first.crosses_classes
    assert not any((second.crosses_classes, first.crosses_groups))
    assert first.similarity == second.similarity == first.overlap == 1
    assert report.near_copies == []
    assert report.problems[0].startswith("1 set of exact copies in several classes: a/00.png = b/")
    assert report.problems[1].startswith("1 set of exact copies within a class")
    assert "CLASSES a / b" in str(report)


def test_near_copies_across_classes_and_groups(clean):
    save(clean / "b" / "shifted.png", np.clip(0.1 + 0.7 * TEM[0][2:, 3:], 0, 1))
    save(clean / "a" / "moved.png", TEM[2][:-3, 1:])
    report = check_image_folder(clean)
    assert [s.files for s in report.near_copies] == [
        ("a/00.png", "b/shifted.png"),
        ("a/02.png", "a/moved.png"),
    ]
    assert 0.8 <= report.near_copies[0].similarity < 1
    assert "1 set of near copies in several classes" in report.problems[0]
    assert "1 set of near copies within a class" in report.problems[1]

    apart = check_image_folder(clean, write_groups(clean))
    assert apart.near_copies[1].crosses_groups
    assert apart.near_copies[1].groups == ("a/02.png", "a/moved.png")
    assert any("2 sets of near copies in several groups" in p for p in apart.problems)

    together = check_image_folder(clean, write_groups(clean, moved="a/02.png"))
    assert not together.near_copies[1].crosses_groups
    assert any("1 set of copies within one group" in note for note in together.notes)
    assert not any("a/moved.png" in problem for problem in together.problems)

    shutil.copy(clean / "b" / "shifted.png", clean / "b" / "twice.png")  # joins their set
    report = check_image_folder(clean)
    assert report.near_copies[0].files == ("a/00.png", "b/shifted.png", "b/twice.png")
    assert report.exact_copies[0].files == ("b/shifted.png", "b/twice.png")


def test_groups_that_do_not_fit_are_a_problem_not_an_error(clean):
    one = {f"{i:02d}": "all a" for i in range(0, 12, 2)}
    path = write_groups(clean, **one)
    report = check_image_folder(clean, path)
    assert (report.group_counts["all a"], len(report.group_counts)) == (6, 7)
    assert any("the class a are of one group" in problem for problem in report.problems)
    save(clean / "a" / "new.png", noise(0, 96, 96) / 255)
    report = check_image_folder(clean, path)
    assert report.group_counts is None
    assert report.problems[0].startswith("The groups cannot be used:")
    assert "a/new.png" in report.problems[0]
    assert "no such file" in check_image_folder(clean, clean / "none.csv").problems[0]


def test_blank_and_tiny_images_small_and_empty_classes_and_strays(clean):
    save(clean / "a" / "blank.png", np.full((96, 96), 0.5))
    save(clean / "b" / "blank.png", np.full((96, 96), 0.4))
    more = make_tem_images(2, size=96, random_state=22)[0]
    save(clean / "c" / "one.png", more[0])
    save(clean / "stray.png", more[1])
    (clean / "d").mkdir()
    for name, shape in (("spectrum", (1, 500)), ("icon", (15, 15)), ("small", (16, 16))):
        save(clean / "a" / f"{name}.png", noise(0, *shape) / 255)
    report = check_image_folder(clean)
    assert report.blank_files == ["a/blank.png", "b/blank.png"]
    assert report.small_files == ["a/icon.png", "a/spectrum.png"]
    assert report.near_copies == []
    assert report.class_counts == {"a": 10, "b": 7, "c": 1, "d": 0}
    assert report.n_images == 18
    text = "\n".join(report.problems)
    for words in (
        "Without any image: the class d",
        "Fewer than 5 images in the class c (1)",
        "2 files are blank, all pixels equal: a/blank.png",
        "1 file is beside the class folders",
        "2 images have fewer than 16 rows or columns",
    ):
        assert words in text


def test_kind_and_size_that_tell_the_class(tmp_path):
    for i, image in enumerate(TEM):
        if i % 2:
            (tmp_path / "a").mkdir(exist_ok=True)
            tifffile.imwrite(tmp_path / "a" / f"{i}.tif", np.uint16(image * 65535))
        else:
            save(tmp_path / "b" / f"{i}.png", image[:80])
    report = check_image_folder(tmp_path)
    assert report.image_kinds == {"uint16 grey": 6, "uint8 grey": 6}
    assert report.image_sizes == {"80 x 96": 6, "96 x 96": 6}
    text = "\n".join(report.problems)
    assert "The kind of pixels gives the class away: only a (uint16 grey), b (uint8 grey)" in text
    assert "The size in pixels gives the class away" in text
    assert "Kinds of pixels are mixed: 6 uint16 grey, 6 uint8 grey." in report.notes
    for name in "ab":  # in every class, they are only a note
        Image.fromarray(noise(ord(name), 96, 96, 3)).save(tmp_path / name / "c.png")
        save(tmp_path / name / "d.png", noise(ord(name), 96, 90) / 255)
    for file in (tmp_path / "a").glob("*.tif"):
        file.unlink()
    for i, image in enumerate(TEM[1::2]):
        save(tmp_path / "a" / f"{i}.png", image[:80])
    report = check_image_folder(tmp_path)
    assert report.ok, report.problems
    assert report.image_kinds == {"uint8 grey": 14, "uint8 colour": 2}


def test_pixel_sizes_and_pages_are_counted(clean):
    for number, size in enumerate((5, 6, 1e-5)):  # nm
        unit = {"unit": "nm"}
        file, pixels = clean / "a" / f"{number}.tif", noise(number, 40, 50)
        tifffile.imwrite(file, pixels, imagej=True, resolution=(1 / size,) * 2, metadata=unit)
    tifffile.imwrite(clean / "b" / "stack.tif", noise(5, 4, 40, 50), photometric="minisblack")
    report = check_image_folder(clean)
    assert report.pixel_sizes == {"unknown": 13, "known": 2, "implausible": 1}
    assert report.page_counts == {"b/stack.tif": 4}
    assert report.implausible_files == ["a/2.tif"]
    assert "Pixel sizes: unknown: 13, known: 2, implausible: 1" in str(report)
    assert "b/stack.tif: 4 pages" in str(report)
    notes = " ".join(report.notes)
    assert "or that of a page, which is not used: a/2.tif" in notes
    assert "1 file has several pages, sections or frames, of which only page 0 is read" in notes


def test_suggested_groups_separate_no_copies(clean):
    save(clean / "b" / "shifted.png", TEM[0][2:, 3:])
    shutil.copy(clean / "a" / "02.png", clean / "a" / "02 copy.png")
    report = check_image_folder(clean, write_groups(clean, **{"04": "g", "06": "g"}))
    target = clean / "better.csv"
    report.write_groups(target)
    better = check_image_folder(clean, target)
    assert not any(s.crosses_groups for s in better.exact_copies + better.near_copies)
    data = load_image_folder(clean, target)
    of = dict(zip((Path(image).stem for image in data.images), data.groups, strict=True))
    assert of["04"] == of["06"] == "g"
    assert of["00"] == of["shifted"]
    assert of["02"] == of["02 copy"]
    assert len(set(of.values())) == len(of) - 3


def test_no_class_is_left_with_a_single_group(tmp_path):
    """All images of class b are copies: one group of them could not be split."""
    for i, image in enumerate(TEM[:6]):
        save(tmp_path / "a" / f"{i}.png", image)
    for i in range(3):
        save(tmp_path / "b" / f"{i}.png", TEM[6][i : 80 + i, 2 * i : 80 + 2 * i])
    save(tmp_path / "a" / "again.png", TEM[0][3:, 2:])
    report = check_image_folder(tmp_path)
    in_b = report.near_copies[1]
    assert in_b.files == ("b/0.png", "b/1.png", "b/2.png")
    assert report.sets_left_apart == [in_b]
    groups = report.suggested_groups
    assert groups["a/0.png"] == groups["a/again.png"]
    assert len({groups[file] for file in in_b.files}) == 3
    (about,) = (problem for problem in report.problems if "b/0.png" in problem)
    assert "1 set of copies from which a class has nothing else: b/0.png = b/1.png" in about
    assert "delete all but one" in about
    save(tmp_path / "b" / "other.png", TEM[7])
    more = check_image_folder(tmp_path)
    assert more.sets_left_apart == []
    assert len({more.suggested_groups[file] for file in in_b.files}) == 1


def test_classes_that_differ_in_case_are_named(tmp_path):
    labels = ["Grains"] + ["grains"] * 6 + ["pores"] * 5
    for i, image in enumerate(TEM):
        save(tmp_path / f"{i:02d}.png", image)
    table = tmp_path / "labels.csv"
    rows = [f"{i:02d}.png,{label}" for i, label in enumerate(labels)]
    table.write_text("\n".join(["path,label", *rows]), encoding="utf-8")
    report = check_image_folder(table)
    (about,) = (text for text in report.problems if "case" in text)
    assert about.startswith("The classes Grains, grains differ only in upper and lower case.")
    assert str(report).startswith(f"{table}: 12 images in 3 classes")
    with pytest.warns(ImageFolderWarning, match="classes Grains, grains differ only in upper"):
        load_image_folder(table)


def test_copies_across_two_folders_are_found(tmp_path):
    train, test = tmp_path / "train", tmp_path / "test"
    for i, image in enumerate(TEM):
        save((train if i < 8 else test) / ("ab"[i % 2] if i > 2 else "") / f"{i:02d}.png", image)
    found = compare_image_folders(train, test)
    assert found.ok
    assert str(found).startswith(f"copies across {train} (8) and {test} (4): 12 images\n")
    save(test / "brighter.png", 0.2 + 0.7 * TEM[0])
    save(test / "b" / "same.png", TEM[4])  # which contradicts its class; unsorted images do not
    save(test / "stray.png", TEM[1])
    shutil.copy(train / "02.png", train / "again.png")  # within one folder
    (test / "broken.png").write_bytes(b"no image")
    found = compare_image_folders(train, test)
    assert [set(s.files) for s in found.exact_copies] == [
        {str(test / "b" / "same.png"), str(train / "a" / "04.png")},
        {str(test / "stray.png"), str(train / "01.png")},
    ]
    assert [set(s.files) for s in found.near_copies] == [
        {str(test / "brighter.png"), str(train / "00.png")}
    ]
    assert [bad.path for bad in found.bad_files] == [str(test / "broken.png")]
    assert not found.ok
    unread, exact, near = found.problems
    assert unread == f"1 file cannot be read: {test}/broken.png. Replace or delete it."
    example = f"2 sets of exact copies across the folders: for example {test}/b/same.png ="
    assert exact.startswith(example)
    assert near.startswith("1 set of near copies across the folders: ")
    both, lines = f"groups {test} / {train}", str(found).splitlines()
    assert f"  {test}/b/same.png, {train}/a/04.png  [CLASSES a / b; {both}]" in lines
    assert f"  {test}/stray.png, {train}/01.png  [{both}]" in lines
    (tmp_path / "none").mkdir()
    for pair, words in (
        ((train, tmp_path / "none"), "none: no images"),
        ((train, train), "neither inside the other"),
        ((test, tmp_path), "neither inside the other"),
    ):
        with pytest.raises(ImageFolderError, match=words):
            compare_image_folders(*pair)
