"""Copies in one folder per class: nothing is replaced, nothing is lost, nothing is copied twice."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.classifications import classification

from hypervlad.results.reports.sorting import (
    UNLIKE_TRAINING,
    UNSURE,
    ImageSorter,
    copy_to_free_name,
    folder_names,
)

CLASSES = ["fibre", "tube"]


def write(root: Path, contents: dict[str, str]) -> list[Path]:
    for name, content in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return [root / name for name in contents]


def tree(root: Path) -> dict[str, str]:
    """Return the content of every file, hidden ones too."""
    files = [path for path in root.rglob("*") if path.is_file()]
    return {path.relative_to(root).as_posix(): path.read_text() for path in files}


def test_images_go_to_the_folder_of_their_class(tmp_path: Path) -> None:
    names = ["a.tif", "day1/a.tif", "day2/b.tif", "bad.tif", "c.tif"]
    files = write(tmp_path / "new", {name: name for name in names})
    proba = [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.6, 0.4]]
    kinds = ["sure", "sure", "out_of_distribution", "ambiguous"]
    found = classification(proba, kinds=kinds, skipped=[(3, files[3])])
    sorter = ImageSorter(tmp_path / "out", CLASSES)
    sorter.add(files, names, found)
    expected = {
        "fibre/a.tif": "a.tif",
        "tube/day1/a.tif": "day1/a.tif",
        f"{UNLIKE_TRAINING}/day2/b.tif": "day2/b.tif",
        f"{UNSURE}/c.tif": "c.tif",
    }
    assert tree(tmp_path / "out") == expected
    assert sorter.done.counts == {"fibre": 1, "tube": 1, UNLIKE_TRAINING: 1, UNSURE: 1}
    assert os.stat(files[0]).st_mtime_ns == os.stat(tmp_path / "out/fibre/a.tif").st_mtime_ns
    again = ImageSorter(tmp_path / "out", CLASSES)
    again.add(files, names, found)
    assert tree(tmp_path / "out") == expected
    assert (again.done.n_present, again.done.renamed) == (4, [])


def test_copies_that_an_earlier_run_put_elsewhere_are_named(tmp_path: Path) -> None:
    names = ["a.tif", "b.tif"]
    files = write(tmp_path / "new", {name: name for name in names})
    first, second = (ImageSorter(tmp_path / "out", CLASSES) for _ in range(2))
    first.add(files, names, classification([[0.9, 0.1]] * 2))
    assert first.done.elsewhere == []
    second.add(files, names, classification([[0.9, 0.1], [0.2, 0.8]]))
    assert second.done.elsewhere == [tmp_path / "out/fibre/b.tif"]
    assert len(tree(tmp_path / "out")) == 3, "nothing is removed"


def test_a_long_name_is_cut_for_its_number(tmp_path: Path) -> None:
    name = "é" * 125 + ".tiff"  # 255 bytes
    write(tmp_path / "out", {f"fibre/{name}": "of somebody"})
    (file,) = write(tmp_path, {name: "new"})
    sorter = ImageSorter(tmp_path / "out", CLASSES)
    sorter.add([file], [name], classification([[1, 0]]))
    (copy,) = sorter.done.renamed
    assert copy.read_text() == "new"
    assert copy.name == "é" * 124 + "-2.tiff"


def test_a_folder_that_is_an_image_is_not_copied(tmp_path: Path) -> None:
    (tmp_path / "a.zarr").mkdir()
    sorter = ImageSorter(tmp_path / "out", CLASSES)
    assert sorter.add([tmp_path / "a.zarr"], ["a.zarr"], classification([[1, 0]])) == []
    reason = "a folder, as of OME-Zarr, which is not copied; copy it yourself"
    assert sorter.done.failed == {tmp_path / "a.zarr": reason}


def test_a_copy_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    files = write(tmp_path / "new", {"a.tif": "a", "b.tif": "b", "c.tif": "c"})
    files[0].unlink()
    write(tmp_path / "out", {"fibre/sub": "a file where a folder should be"})
    sorter = ImageSorter(tmp_path / "out", CLASSES)
    names = ["a.tif", "sub/b.tif", "c.tif"]
    found = classification([[1, 0]] * 3, skipped=[(0, tmp_path / "bad.tif")])
    rows = sorter.add([tmp_path / "bad.tif", *files], ["bad.tif", *names], found)
    assert rows == [2]
    assert tree(tmp_path / "out") == {
        "fibre/sub": "a file where a folder should be",
        "fibre/c.tif": "c",
    }
    in_the_way = tmp_path / "out" / "fibre" / "sub"
    assert list(sorter.done.failed) == files[:2]
    assert sorter.done.failed[files[0]] == "No such file or directory"
    assert sorter.done.failed[files[1]].startswith(f"{in_the_way}: ")
    in_the_way.unlink()
    assert sorter.add(files[1:2], names[1:2], classification([[1, 0]])) == [0]
    assert list(sorter.done.failed) == files[:1], "the second was copied later"


def test_a_copy_of_a_read_only_file_can_be_written(tmp_path: Path) -> None:
    """So can its draft, which Windows could not remove otherwise."""
    (file,) = write(tmp_path, {"a.tif": "new"})
    file.chmod(0o444)
    copy, _ = copy_to_free_name(file, tmp_path / "out" / "a.tif")
    assert copy.stat().st_mode & 0o200


def test_a_file_of_the_same_name_is_kept(tmp_path: Path) -> None:
    write(tmp_path / "out", {"fibre/a.tif": "of somebody", "fibre/a-2.tif": "another"})
    (file,) = write(tmp_path, {"a.tif": "new"})
    for _ in range(2):
        sorter = ImageSorter(tmp_path / "out", CLASSES)
        sorter.add([file], ["a.tif"], classification([[1, 0]]))
    assert tree(tmp_path / "out" / "fibre") == {
        "a.tif": "of somebody",
        "a-2.tif": "another",
        "a-3.tif": "new",
    }
    assert sorter.done.n_present == 1
    assert sorter.done.renamed == [tmp_path / "out" / "fibre" / "a-3.tif"]


def test_what_describes_an_image_is_copied_with_it(tmp_path: Path) -> None:
    beside = {"a.txt": "[SemImageFile]", "a-tif.hdr": "[MAIN]", "a.csv": "no", "a.hdr": "x" * 2**21}
    files = write(tmp_path, {"a.tif": "new", **beside})
    write(tmp_path / "out", {"a.tif": "another", "a-2.hdr": "theirs"})
    copy_to_free_name(files[0], tmp_path / "out" / "a.tif")
    assert tree(tmp_path / "out") == {
        "a.tif": "another",
        "a-2.tif": "new",
        "a-2.txt": "[SemImageFile]",
        "a-2-tif.hdr": "[MAIN]",
        "a-2.hdr": "theirs",
    }


def test_a_link_or_a_folder_of_the_name_is_kept(tmp_path: Path) -> None:
    (file,) = write(tmp_path, {"a.tif": "new"})
    out = tmp_path / "out"
    (out / "a.tif").mkdir(parents=True)
    os.symlink(tmp_path / "nowhere", out / "a-2.tif")
    assert copy_to_free_name(file, out / "a.tif") == (out / "a-3.tif", True)
    assert not (tmp_path / "nowhere").exists()


def test_a_name_that_another_program_takes_meanwhile_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (file,) = write(tmp_path, {"a.tif": "new"})
    lexists = os.path.lexists

    def raced(path: Path) -> bool:
        was = lexists(path)
        if Path(path).name == "a.tif" and not was:
            Path(path).write_text("theirs")
        return was

    monkeypatch.setattr(os.path, "lexists", raced)
    assert copy_to_free_name(file, tmp_path / "out" / "a.tif")[0].name == "a-2.tif"
    assert tree(tmp_path / "out") == {"a.tif": "theirs", "a-2.tif": "new"}


def test_a_copy_never_leaves_the_folder(tmp_path: Path) -> None:
    (file,) = write(tmp_path, {"a.tif": "new"})
    for name in ("../../a.tif", str(tmp_path / "elsewhere" / "a.tif")):
        ImageSorter(tmp_path / "out", CLASSES).add([file], [name], classification([[1, 0]]))
    assert tree(tmp_path / "out") == {"fibre/a.tif": "new"}
    assert not (tmp_path / "elsewhere").exists()


@given(st.lists(st.text(max_size=20), unique=True, max_size=5))
@example(["unsure", "UNSURE", "unlike_training", "unsure-2"])
@example(["..", ".", "", " ", "a.", "a", "A", "con", "Con.tif", "lpt1", "x" * 400, "é" * 150])
@example(["e\u0301", "\u00e9", "\ud800", "a/../b", "%2F", "/"])
def test_names_of_folders_are_valid_and_distinct(classes: list[str]) -> None:
    names = folder_names(classes)
    assert len({name.casefold() for name in names}) == len(classes)
    assert not {UNSURE, UNLIKE_TRAINING} & {name.casefold() for name in names}
    for name in names:
        assert name not in ("", ".", "..")
        assert len(name.encode("utf-8")) <= 220
        assert not set(name) & set('<>:"/\\|?*\0\n\t')
        assert name[0] not in ". "
        assert name[-1] not in ". "
        assert Counter(Path(name).parts) == {name: 1}
