"""The check of a folder says what is wrong with it, the worst first."""

import csv
import shutil
from pathlib import Path

import joblib
import numpy as np
import pytest
import tifffile
from PIL import Image

from hypervlad.data import (
    CopySet,
    FolderComparison,
    FolderReport,
    ImageFolderError,
    ImageFolderWarning,
    check_image_folder,
    compare_image_folders,
    load_image_folder,
    make_tem_images,
)
from hypervlad.images import ReadOptions


def save(image: np.ndarray, path: Path, bits: int = 8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    top = 2**bits - 1
    pixels = np.round(image * top).astype(np.uint16 if bits == 16 else np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def tem():
    return make_tem_images(12, size=96, random_state=21)[0]


@pytest.fixture
def clean(tmp_path, tem):
    """Two classes of six images each, without a fault."""
    for i, image in enumerate(tem):
        save(image, tmp_path / "ab"[i % 2] / f"{i:02d}.png")
    return tmp_path


def write_groups(root, **of):
    """A file of groups, one group per image, except for those given by name."""
    path = root / "groups.csv"
    lines = ["path,group"]
    for file in sorted(root.rglob("*.png")):
        name = file.relative_to(root).as_posix()
        lines.append(f"{name},{of.get(file.stem, name)}")
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_clean_folder_is_ok(clean):
    report = check_image_folder(clean)
    assert report.ok
    assert report.problems == report.bad_files == report.exact_copies == report.near_copies == []
    assert report.n_images == 12
    assert report.class_counts == {"a": 6, "b": 6}
    assert report.group_counts is None
    assert report.image_sizes == {"96 x 96": 12}
    assert report.image_kinds == {"uint8 grey": 12}
    assert "No problems found." in str(report)
    assert check_image_folder(clean, write_groups(clean)).ok


def test_bad_files_are_listed_with_the_reason(clean):
    (clean / "a" / "empty.png").touch()
    (clean / "b" / "text.tif").write_text("not an image", encoding="utf-8")
    whole = (clean / "a" / "00.png").read_bytes()
    (clean / "a" / "cut.png").write_bytes(whole[: len(whole) // 2])
    report = check_image_folder(clean)
    assert [bad.path for bad in report.bad_files] == ["a/cut.png", "a/empty.png", "b/text.tif"]
    assert all(Path(bad.path).name in bad.reason for bad in report.bad_files)
    assert "3 files cannot be read: a/cut.png, a/empty.png, b/text.tif" in report.problems[0]
    assert report.n_images == 12
    assert "Files that cannot be read:" in str(report)


def test_exact_copies_across_classes_come_first(clean):
    shutil.copy(clean / "a" / "00.png", clean / "b" / "again.png")
    with Image.open(clean / "a" / "02.png") as image:
        image.save(clean / "a" / "02 copy.tif")
    report = check_image_folder(clean)
    first, second = report.exact_copies
    assert first.files == ("a/00.png", "b/again.png")
    assert (first.classes, second.classes) == (("a", "b"), ("a",))
    assert not first.crosses_groups
    assert second.files == ("a/02 copy.tif", "a/02.png")
    assert first.similarity == second.similarity == 1
    assert report.near_copies == []
    assert report.problems[0].startswith("1 set of exact copies in several classes: a/00.png = b/")
    assert report.problems[1].startswith("1 set of exact copies within a class")
    assert "CLASSES a / b" in str(report)


def test_near_copies_across_classes_and_groups(clean, tem):
    save(np.clip(0.1 + 0.7 * tem[0][2:, 3:], 0, 1), clean / "b" / "shifted.png")
    save(tem[2][:-3, 1:], clean / "a" / "moved.png")
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


def test_exact_copies_of_near_copies_join_their_set(clean, tem):
    save(tem[0][2:, 3:], clean / "b" / "shifted.png")
    shutil.copy(clean / "b" / "shifted.png", clean / "b" / "twice.png")
    report = check_image_folder(clean)
    assert report.near_copies[0].files == ("a/00.png", "b/shifted.png", "b/twice.png")
    assert report.exact_copies[0].files == ("b/shifted.png", "b/twice.png")


def test_groups_that_do_not_fit_are_a_problem_not_an_error(clean):
    path = write_groups(clean)
    save(np.random.default_rng(0).random((96, 96)), clean / "a" / "new.png")
    report = check_image_folder(clean, path)
    assert report.group_counts is None
    assert report.problems[0].startswith("The groups cannot be used:")
    assert "a/new.png" in report.problems[0]
    assert "no such file" in check_image_folder(clean, clean / "none.csv").problems[0]


def test_groups_are_counted_and_a_class_of_one_group_is_a_problem(clean):
    one = {f"{i:02d}": "all a" for i in range(0, 12, 2)}
    report = check_image_folder(clean, write_groups(clean, **one))
    assert report.group_counts["all a"] == 6
    assert len(report.group_counts) == 7
    assert any("the class a are of one group" in problem for problem in report.problems)


def test_blank_images_small_and_empty_classes_and_strays(clean, tem):
    save(np.full((96, 96), 0.5), clean / "a" / "blank.png")
    save(np.full((96, 96), 0.4), clean / "b" / "blank.png")
    more = make_tem_images(2, size=96, random_state=22)[0]
    save(more[0], clean / "c" / "one.png")
    save(more[1], clean / "stray.png")
    (clean / "d").mkdir()
    report = check_image_folder(clean)
    assert report.blank_files == ["a/blank.png", "b/blank.png"]
    assert report.near_copies == []
    assert report.class_counts == {"a": 7, "b": 7, "c": 1, "d": 0}
    text = "\n".join(report.problems)
    assert "Without any image: the class d" in text
    assert "Fewer than 5 images in the class c (1)" in text
    assert "2 files are blank, all pixels equal: a/blank.png" in text
    assert "1 file is beside the class folders" in text
    assert report.n_images == 15


def test_kind_and_size_that_tell_the_class(tmp_path, tem):
    for i, image in enumerate(tem):
        if i % 2:
            save(image, tmp_path / "a" / f"{i}.tif", bits=16)
        else:
            save(image[:80], tmp_path / "b" / f"{i}.png")
    report = check_image_folder(tmp_path)
    assert report.image_kinds == {"uint16 grey": 6, "uint8 grey": 6}
    assert report.image_sizes == {"80 x 96": 6, "96 x 96": 6}
    text = "\n".join(report.problems)
    assert (
        "The kind of pixels gives the class away: only a (uint16 grey), b (uint8 grey) have it"
        in text
    )
    assert "The size in pixels gives the class away" in text
    assert "Kinds of pixels are mixed: 6 uint16 grey, 6 uint8 grey." in report.notes


def test_mixed_kinds_in_every_class_are_only_a_note(clean, tem):
    for name in ("a", "b"):
        colour = np.random.default_rng(ord(name)).integers(0, 255, (96, 96, 3), dtype=np.uint8)
        Image.fromarray(colour).save(clean / name / "c.png")
    report = check_image_folder(clean)
    assert report.ok, report.problems
    assert report.image_kinds == {"uint8 grey": 12, "uint8 colour": 2}
    kinds, groups = report.notes
    assert "mixed" in kinds
    assert "each image counts as a sample of its own" in groups


@pytest.mark.parametrize(("dtype", "white"), [(np.uint8, 255), (np.uint16, 65535)])
def test_information_bars_are_noted(clean, dtype, white):
    pixels = np.random.default_rng(0).integers(60, 200, (120, 160)).astype(dtype)
    pixels[100:] = 0
    pixels[106:114, 10:60:3] = white
    Image.fromarray(pixels).save(clean / "a" / "bar.png")
    report = check_image_folder(clean)
    assert report.banner_files == ["a/bar.png"]
    assert "1 image has an information bar at the bottom: a/bar.png" in " ".join(report.notes)
    assert check_image_folder(clean, options=ReadOptions(banner="remove")).banner_files == []


def test_pixel_sizes_are_counted(clean):
    grey = np.random.default_rng(0).integers(60, 200, (40, 50), dtype=np.uint8)
    for number, size in enumerate((5, 6, 1e-5)):  # nm
        metadata, pixels = {"unit": "nm"}, np.roll(grey, 9 * number)
        tifffile.imwrite(
            clean / "a" / f"{number}.tif",
            pixels,
            imagej=True,
            resolution=(1 / size, 1 / size),
            metadata=metadata,
        )
    report = check_image_folder(clean)

    assert report.pixel_sizes == {"unknown": 12, "known": 2, "implausible": 1}
    assert "Pixel sizes: unknown: 12, known: 2, implausible: 1" in str(report)
    assert (
        "1 image has a pixel size below 1 pm or above 1 mm, which is not used: a/2.tif"
        in " ".join(report.notes)
    )


def test_images_of_few_rows_or_columns_are_a_problem(clean):
    rng = np.random.default_rng(0)
    for name, shape in (("spectrum", (1, 500)), ("icon", (15, 15)), ("small", (16, 16))):
        save(rng.random(shape), clean / "a" / f"{name}.png")
    report = check_image_folder(clean)

    assert report.small_files == ["a/icon.png", "a/spectrum.png"]
    assert "2 images have fewer than 16 rows or columns" in " ".join(report.problems)


def test_bars_are_noted_where_the_metadata_say_even_if_they_do_not_look_like_one(clean):
    pixels = np.random.default_rng(0).integers(60, 200, (120, 160), dtype=np.uint8)
    fei = "[Image]\r\nResolutionY=104\r\n"
    tags = [(34682, "s", 0, fei, True)]
    tifffile.imwrite(clean / "a" / "bar.tif", pixels, extratags=tags, metadata=None)
    assert check_image_folder(clean).banner_files == ["a/bar.tif"]


def test_bars_at_the_top_and_of_other_heights_are_noted(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(8):
        pixels = rng.integers(60, 200, (120, 160), dtype=np.uint8)
        rows = {6: 0, 7: 24}.get(i, 20)  # the seventh is upside down
        pixels[120 - rows :] = 0
        pixels[126 - rows : 134 - rows, 10:60:3] = 255
        if i == 6:
            pixels[:20], pixels[6:14, 10:60:3] = 0, 255
        save(pixels / 255, tmp_path / "ab"[i % 2] / f"{i}.png")
    for options in (None, ReadOptions(banner="remove")):
        report = check_image_folder(tmp_path, options=options)
        assert report.top_bar_files == ["a/6.png"]
        assert report.uneven_bars == {"a/6.png": 0, "b/7.png": 24}
        notes = " ".join(report.notes)
        assert "or a caption at the top: a/6.png. It is not cut off: crop the files" in notes
        assert "0 if none was found): a/6.png (0), b/7.png (24)" in notes


def test_imbalance_is_a_note(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(105):
        save(rng.random((40, 40)), tmp_path / "many" / f"{i}.png")
    for i in range(5):
        save(rng.random((40, 40)), tmp_path / "few" / f"{i}.png")
    report = check_image_folder(tmp_path)
    assert report.ok, report.problems
    assert "The largest class has 105 images, the smallest 5" in report.notes[0]


def test_loose_images_are_checked_for_copies(tmp_path, tem):
    for name in ("1.png", "2.png"):
        save(tem[0], tmp_path / name)
    report = check_image_folder(tmp_path)
    assert report.exact_copies[0].files == ("1.png", "2.png")
    assert report.exact_copies[0].classes == ()
    assert report.class_counts == {}


def test_empty_and_missing_folders(tmp_path):
    report = check_image_folder(tmp_path)
    assert report.n_images == 0
    assert "no images" in report.problems[0]
    assert "0 images" in str(report)
    with pytest.raises(ImageFolderError, match="no such folder"):
        check_image_folder(tmp_path / "none")


def test_suggested_groups_separate_no_copies(clean, tem):
    save(tem[0][2:, 3:], clean / "b" / "shifted.png")
    shutil.copy(clean / "a" / "02.png", clean / "a" / "02 copy.png")
    csv_path = write_groups(clean, **{"04": "g", "06": "g"})
    report = check_image_folder(clean, csv_path)
    assert not report.ok
    target = clean / "better.csv"
    report.write_groups(target)
    with target.open(encoding="utf-8", newline="") as file:
        assert next(csv.reader(file)) == ["path", "group"]
    better = check_image_folder(clean, target)
    assert not any(s.crosses_groups for s in better.exact_copies + better.near_copies)
    data = load_image_folder(clean, target)
    name = {Path(i).relative_to(clean).as_posix(): g for i, g in zip(data.images, data.groups)}  # noqa: B905
    assert name["a/04.png"] == name["a/06.png"] == "g"
    assert name["a/00.png"] == name["b/shifted.png"]
    assert name["a/02.png"] == name["a/02 copy.png"]
    assert len(set(name.values())) == len(name) - 3
    assert not list(clean.glob("*.part"))


def test_no_class_is_left_with_a_single_group(tmp_path, tem):
    """All images of class b are copies: one group of them could not be split."""
    for i, image in enumerate(tem[:6]):
        save(image, tmp_path / "a" / f"{i}.png")
    for i in range(3):
        save(tem[6][i : 80 + i, 2 * i : 80 + 2 * i], tmp_path / "b" / f"{i}.png")
    save(tem[0][3:, 2:], tmp_path / "a" / "again.png")
    report = check_image_folder(tmp_path)
    in_b = report.near_copies[1]
    assert in_b.files == ("b/0.png", "b/1.png", "b/2.png")
    assert report.sets_left_apart == [in_b]
    groups = report.suggested_groups
    assert groups["a/0.png"] == groups["a/again.png"]
    assert len({groups[file] for file in in_b.files}) == 3
    about = [problem for problem in report.problems if "b/0.png" in problem]
    assert len(about) == 1
    assert "1 set of copies from which a class has nothing else: b/0.png = b/1.png" in about[0]
    assert "delete all but one" in about[0]
    save(tem[7], tmp_path / "b" / "other.png")
    more = check_image_folder(tmp_path)
    assert more.sets_left_apart == []
    assert len({more.suggested_groups[file] for file in in_b.files}) == 1


def test_copies_that_link_the_only_two_groups_of_a_class_stay_in_both(clean, tem):
    """A set across groups is not joined where the class would have one group."""
    save(tem[0][2:, 3:], clean / "a" / "shifted.png")
    of = {f"{i:02d}": "first" for i in range(0, 12, 2)} | {"shifted": "second"}
    report = check_image_folder(clean, write_groups(clean, **of))
    assert report.near_copies == report.sets_left_apart
    of_a = {group for file, group in report.suggested_groups.items() if file[0] == "a"}
    assert of_a == {"first", "second"}
    assert not any("Give them one group" in problem for problem in report.problems)


def test_an_unreadable_file_keeps_its_group(clean):
    """Training that skips it accepts the groups."""
    (clean / "a" / "cut.png").write_bytes(b"\x89PNG")
    assert check_image_folder(clean).suggested_groups["a/cut.png"] == "a/cut.png"
    groups = write_groups(clean, cut="of another")
    report = check_image_folder(clean, groups)
    assert report.suggested_groups["a/cut.png"] == "of another"
    report.write_groups(groups)
    assert len(load_image_folder(clean, groups).groups) == 13


def test_classes_that_differ_in_case_are_named(tmp_path, tem):
    names = {"Grains": 1, "grains": 6, "pores": 5}
    rows = [
        f"{i:02d}.png,{name}" for i, name in enumerate(n for n in names for _ in range(names[n]))
    ]
    for i, image in enumerate(tem):
        save(image, tmp_path / f"{i:02d}.png")
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(["path,label", *rows]), encoding="utf-8")
    report = check_image_folder(table)
    (about,) = (text for text in report.problems if "case" in text)
    assert about.startswith("The classes Grains, grains differ only in upper and lower case.")
    assert str(report).startswith(f"{table}: 12 images in 3 classes")
    with pytest.warns(ImageFolderWarning, match="classes Grains, grains differ only in upper"):
        load_image_folder(table)


def test_long_lists_are_cut_in_the_text():
    report = FolderReport(root="r", image_sizes={f"{i} x 1": 1 for i in range(30)})
    assert "22 more" in str(report)


def test_threads_and_progress_bar(clean, capsys):
    quiet = check_image_folder(clean)
    assert capsys.readouterr().err == ""
    with joblib.parallel_config(n_jobs=2):
        threaded = check_image_folder(clean, verbose=True)
    assert threaded == quiet
    err = capsys.readouterr().err
    assert "Reading" in err
    assert "Comparing" in err


def test_copies_of_another_class_and_unreadable_files_are_named_once(tmp_path, tem):
    train, test = tmp_path / "train", tmp_path / "test"
    save(tem[0], train / "a" / "1.png")
    save(tem[0], test / "b" / "copy.png")
    save(tem[1], train / "2.png")
    save(tem[1], test / "stray.png")  # of no class, which contradicts none
    (test / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n half")
    lines = str(compare_image_folders(train, test)).splitlines()
    assert f"  {test}/b/copy.png = {train}/a/1.png  [CLASSES a / b]" in lines
    assert f"  {test}/stray.png = {train}/2.png" in lines
    assert sum("broken.png" in line for line in lines) == 1
    assert lines[-1].count("broken.png") == 1


def test_frames_of_one_series_in_both_folders_are_found(tmp_path, tem):
    """An image has closer copies in its own folder than candidates are registered."""
    rng = np.random.default_rng(0)
    for folder, shift in (("train", 0), ("test", 12)):
        for i in range(8):
            frame = tem[0][shift:, shift:] if shift else tem[0][:-12, :-12]
            noisy = np.clip(frame + rng.normal(0, 0.02, frame.shape), 0, 1)
            save(noisy, tmp_path / folder / f"{i}.png")
    found = compare_image_folders(tmp_path / "train", tmp_path / "test")
    assert not found.ok
    assert len(found.near_copies[0].files) == 16


def test_joined_groups_leave_no_other_class_with_one_group(tmp_path, tem):
    """Copies of class a join both groups of class b."""
    for i, image in enumerate(tem[:4]):
        save(image, tmp_path / "a" / f"{i}.png")
    save(tem[0], tmp_path / "a" / "again.png")
    for i in range(2):
        save(tem[4 + i], tmp_path / "b" / f"{i}.png")
    rows = ["a/0.png,g1", "a/again.png,g2", "a/1.png,g3", "a/2.png,g4", "a/3.png,g4"]
    rows += ["b/0.png,g1", "b/1.png,g2"]
    (tmp_path / "groups.csv").write_text("\n".join(["path,group", *rows]), encoding="utf-8")
    report = check_image_folder(tmp_path, tmp_path / "groups.csv")
    assert report.sets_left_apart == report.exact_copies
    of_b = {group for file, group in report.suggested_groups.items() if file[0] == "b"}
    assert of_b == {"g1", "g2"}


def test_copies_across_two_folders_are_found(tmp_path, tem):
    for i, image in enumerate(tem):
        save(image, tmp_path / ("train" if i < 8 else "test") / f"{i:02d}.png")
    train, test = tmp_path / "train", tmp_path / "test"
    found = compare_image_folders(train, test)
    assert found.ok
    assert found.n_images == (8, 4)
    save(0.2 + 0.7 * tem[0], test / "brighter.png")
    shutil.copy(train / "01.png", test / "same.png")
    shutil.copy(train / "02.png", train / "again.png")  # within one folder
    (test / "broken.png").write_bytes(b"no image")
    found = compare_image_folders(train, test)
    assert [s.files for s in found.exact_copies] == [
        (str(test / "same.png"), str(train / "01.png"))
    ]
    assert [s.files for s in found.near_copies] == [
        (str(test / "brighter.png"), str(train / "00.png"))
    ]
    assert [bad.path for bad in found.bad_files] == [str(test / "broken.png")]
    assert not found.ok
    assert "near copies across the folders: 1" in str(found)
    (tmp_path / "none").mkdir()
    with pytest.raises(ImageFolderError, match="none: no images"):
        compare_image_folders(train, tmp_path / "none")
    for pair in ((train, train), (test, tmp_path)):
        with pytest.raises(ImageFolderError, match="neither inside the other"):
            compare_image_folders(*pair)


def test_a_line_for_large_sets_says_which_classes_and_groups_they_join():
    def copies(n, classes, groups, similarity):
        return CopySet(tuple(f"{i}" for i in range(n)), classes, groups, similarity, 0.3)

    sets = [
        copies(13, ("a", "b"), ("g", "h"), 0.9),
        copies(20, ("c",), ("i",), 0.85),
        copies(12, ("c",), ("i",), 0.8),
    ]
    first, second = str(FolderReport(root="r", near_copies=sets)).splitlines()[-2:]
    assert first == f"  {', '.join(sets[2].files)}  [similarity 0.80]"
    assert second == (
        "  2 sets of more than 12 files: 33 files, median overlap 30.0 %  "
        "[similarity 0.85; CLASSES a / b; groups g / h]"
    )
    compared = FolderComparison((13, 20), [], sets, [])
    assert repr(compared) == str(compared)
    assert str(compared).splitlines()[-1].startswith("  2 sets of more than 12 files: 33 files, ")
    exact = FolderReport(root="r", exact_copies=[CopySet(sets[1].files, ("c",), (), 1.0)])
    assert str(exact).endswith("  1 set of more than 12 files: 20 files, median overlap 100.0 %")
