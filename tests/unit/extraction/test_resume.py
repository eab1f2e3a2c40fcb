"""Interrupted at any moment: no work is lost or done twice, and the file is the same."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.extraction_fixtures import Extract, StopError, interrupt
from support.feature_folders import write_image

from hypervlad import HypercolumnVLAD, extract_features, load_features
from hypervlad.data import FeatureFileError, plan_extraction
from hypervlad.data.extraction import extract as extract_module
from hypervlad.data.extraction import manifest
from hypervlad.data.extraction.manifest import TaskFolder
from hypervlad.data.extraction.tasks import Job, open_source
from hypervlad.features import get_backbone
from hypervlad.features.encoder import loading
from hypervlad.images import ImageReadError, SkippedImagesWarning

BATCH = 4


@pytest.fixture
def expected(complete: Path) -> bytes:
    """The file of an uninterrupted run."""
    content = complete.read_bytes()
    for path in (complete, manifest.finished_manifest(complete)):
        path.unlink()
    return content


@pytest.mark.parametrize(("n_tasks", "cached"), [(0, False), (2, False), (3, True), (5, True)])
def test_after_an_interruption_only_the_rest_is_computed(
    n_tasks: int,
    cached: bool,
    extract: Extract,
    encoder: HypercolumnVLAD,
    folder: Path,
    tmp_path: Path,
    out: Path,
    expected: bytes,
    computed: list[str],
) -> None:
    encoder.set_params(memory=tmp_path / "cache" if cached else None)
    if n_tasks < 5:
        interrupt(extract, n_tasks)
        assert not out.exists()
    else:
        extract()
    computed.clear()
    plan = plan_extraction(folder, encoder, out=out, resume=True)
    done = extract(resume=True)
    kept = min(20, BATCH * n_tasks)
    assert out.read_bytes() == expected
    assert done.n_kept == kept
    assert len(computed) == 20 - kept  # not one image of the finished tasks
    assert plan.n_kept == kept
    assert not list(tmp_path.glob("*.parts*"))


def test_a_changed_file_costs_its_own_task(
    extract: Extract, encoder: HypercolumnVLAD, folder: Path, out: Path, computed: list[str]
) -> None:
    interrupt(extract, 3)
    write_image(folder / "a" / "5.png", np.random.default_rng(99))
    computed.clear()
    extract(resume=True)
    assert len(computed) == 4 + 8
    X, frame = load_features(out)
    files = [folder / path for path in frame["path"]]
    np.testing.assert_array_equal(X, encoder.transform(files))


def test_the_run_that_completes_warns_of_all_skipped_images(extract: Extract, folder: Path) -> None:
    (folder / "a" / "5.png").write_bytes(b"no image")
    interrupt(extract, 3)
    with pytest.warns(SkippedImagesWarning, match="1 of 20"):
        done = extract(resume=True)
    assert [image.position for image in done.skipped] == [5]


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_damaged_task_file_is_computed_again(
    damage: str, extract: Extract, out: Path, expected: bytes, computed: list[str]
) -> None:
    interrupt(extract, 3)
    part = sorted(out.parent.rglob("_f.parquet.parts/*/*.task"))[1]
    content = bytearray(part.read_bytes())
    if damage == "flip":
        content[200] ^= 255  # in the vectors' page
    part.write_bytes({"cut": content[:-20], "flip": content, "empty": b""}[damage])
    computed.clear()
    extract(resume=True)
    assert len(computed) == 4 + 8
    assert out.read_bytes() == expected


def test_tasks_of_another_model_or_batch_size_are_an_error_and_stay(
    extract: Extract,
    encoder: HypercolumnVLAD,
    folder: Path,
    out: Path,
    expected: bytes,
    computed: list[str],
) -> None:
    images = list(np.random.default_rng(7).random((8, 20, 24)).astype(np.float32))
    interrupt(extract, 3)
    other = HypercolumnVLAD(**encoder.get_params()).fit(images)
    with pytest.raises(FeatureFileError, match=r"_f\.parquet\.parts: left by an extraction with"):
        extract_features(folder, other, out=out, resume=True)
    encoder.batch_size = 5
    with pytest.raises(FeatureFileError, match="or batches of another size"):
        extract(resume=True)
    encoder.batch_size = 4
    assert extract(resume=True).n_kept == 12
    assert out.read_bytes() == expected
    interrupt(extract, 3)
    computed.clear()
    assert extract_features(folder, other, out=out).n_kept == 0
    assert len(computed) == 20
    load_features(out, encoder=other)


def test_a_complete_file_stays_until_something_changes(
    extract: Extract, folder: Path, out: Path, computed: list[str]
) -> None:
    os.utime(folder / "a" / "3.png", (4e9, 4e9))  # from the future
    extract(resume=True)
    assert len(computed) == 20
    again = extract(resume=True)
    assert (again.n_images, again.n_kept, len(computed)) == (20, 20, 20)
    extract()
    assert len(computed) == 40
    (folder / "new.png").write_bytes((folder / "w.png").read_bytes())
    assert extract(resume=True).n_images == 21
    write_image(folder / "new.png", np.random.default_rng(3))
    computed.clear()
    extract(resume=True)
    assert len(computed) == 21
    out.write_bytes(b"damaged")
    assert extract(resume=True).n_kept == 0


def test_a_stream_of_arrays_is_resumed_too(
    encoder: HypercolumnVLAD, tmp_path: Path, out: Path, computed: list[str]
) -> None:
    images = list(np.random.default_rng(0).random((18, 20, 24)).astype(np.float32))
    extract_features(iter(images), encoder, out=tmp_path / "expected.parquet")
    interrupt(lambda: extract_features(iter(images), encoder, out=out), 2)
    images[1] = images[1][::-1]
    computed.clear()
    extract_features(iter(images), encoder, out=out, resume=True)
    assert len(computed) == 4 + 10
    images[1] = images[1][::-1]
    extract_features(iter(images), encoder, out=out, resume=True)
    assert out.read_bytes() == (tmp_path / "expected.parquet").read_bytes()


def test_foreign_files_are_not_removed(extract: Extract, tmp_path: Path) -> None:
    foreign = tmp_path / "_f.parquet.parts"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"_f\.parquet\.parts: exists, and was not made"):
        extract()
    assert (foreign / "thesis.txt").read_text() == "mine"


def test_a_full_disk_loses_nothing(
    extract: Extract,
    out: Path,
    expected: bytes,
    computed: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original, room = manifest.replace_when_complete, [3]

    @contextlib.contextmanager
    def little_room(path: Path, **options: bool) -> Iterator[Any]:
        with original(path, **options) as stream:
            if path.suffix == ".task" and not room[0]:
                stream.write(b"half of it")
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            room[0] -= path.suffix == ".task"
            yield stream

    with monkeypatch.context() as patch:
        patch.setattr(manifest, "replace_when_complete", little_room)
        with pytest.raises(OSError, match="the disk is full; what is finished is kept"):
            extract()
    assert len(list(out.parent.rglob("*.parts/*/*"))) == 3  # and no half-written file
    computed.clear()
    extract(resume=True)
    assert len(computed) == 8
    assert out.read_bytes() == expected


@pytest.mark.parametrize("left", [None, "{", ""], ids=["nothing", "half a manifest", "empty"])
def test_an_interrupted_start_does_not_block_the_next_run(
    left: str | None, extract: Extract, out: Path, expected: bytes
) -> None:
    parts = out.with_name("_f.parquet.parts")
    parts.mkdir()
    if left is not None:
        (parts / ".0123456789abcdef.tmp").write_text(left)
    extract(resume=True)
    assert out.read_bytes() == expected
    assert not parts.exists()


def test_an_interrupted_removal_can_be_continued(
    extract: Extract, tmp_path: Path, out: Path, expected: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(extract, 3)
    (tmp_path / "_f.parquet.parts" / "whole.parquet").write_bytes(b"half a merge")
    with monkeypatch.context() as patch:
        removed: list[object] = []

        def remove_one(path: Path, **_: object) -> None:
            if removed:
                raise StopError
            removed.append(path)
            shutil.move(path, tmp_path / "elsewhere")

        patch.setattr(manifest.shutil, "rmtree", remove_one)
        with pytest.raises(StopError):
            extract()
    extract(resume=True)
    assert out.read_bytes() == expected
    assert not list(tmp_path.glob("*.parts"))


def test_a_merge_that_is_killed_leaves_nothing_behind(
    extract: Extract, tmp_path: Path, out: Path, expected: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = extract_module.write_rows

    def half(stream: Any, tables: Any, schema: Any) -> None:
        original(stream, tables, schema)
        raise StopError

    before = {path.name for path in tmp_path.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(extract_module, "write_rows", half)
        for _ in range(3):
            with pytest.raises(StopError):
                extract(resume=True)
    assert {path.name for path in tmp_path.iterdir()} - before == {"_f.parquet.parts"}
    extract(resume=True)
    assert out.read_bytes() == expected


def test_a_run_that_was_replaced_damages_nothing(
    encoder: HypercolumnVLAD, folder: Path, tmp_path: Path
) -> None:
    settings = {"encoder": "1", "n_features": encoder.n_features_out_, "task_size": 4}
    first = TaskFolder.open(tmp_path / "g", settings, resume=False)
    task = next(open_source(folder).tasks(4))
    job = Job(encoder, get_backbone("tiny"), first.run, n_images=1)
    ((_, finished),) = job.finished([task], None)
    first.keep(task, finished)
    second = TaskFolder.open(tmp_path / "g", settings, resume=False)
    with pytest.raises(FeatureFileError, match="another extraction to the same file has begun"):
        first.keep(task, finished)
    second.keep(task, finished)
    path = second._path(0)
    shutil.copyfile(path, tmp_path / "kept")
    third = TaskFolder.open(tmp_path / "g", settings, resume=False)
    path.parent.mkdir()
    shutil.copyfile(tmp_path / "kept", path)
    assert not third.has(task, job.digest_now())


def test_a_file_swapped_for_an_older_one_is_noticed(
    extract: Extract, folder: Path, tmp_path: Path, complete: Path
) -> None:
    older = write_image(tmp_path / "o.png", np.random.default_rng(8))
    os.utime(older, (1e9, 1e9))
    X, _ = load_features(complete)
    os.replace(older, folder / "a" / "3.png")
    assert extract(resume=True).n_kept == 0
    assert not np.array_equal(load_features(complete)[0][3], X[3])


@pytest.mark.parametrize("stopped", [False, True])
def test_a_network_drive_away_for_a_moment_costs_no_row(
    stopped: bool, extract: Extract, out: Path, expected: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = loading.read_named

    def away(image: Any, options: Any, name: str) -> Any:
        if name.endswith(("2.png", "w.png")):
            raise ImageReadError(f"{name}: input/output error")
        return original(image, options, name)

    with monkeypatch.context() as patch:
        patch.setattr(loading, "read_named", away)
        if stopped:
            interrupt(extract, 4)
        else:
            with pytest.warns(SkippedImagesWarning, match="3 of 20"):
                extract(resume=True)
    done = extract(resume=True)
    assert done.skipped == ()
    assert out.read_bytes() == expected


def test_a_complete_file_warns_again_of_skipped_images(
    extract: Extract, folder: Path, computed: list[str]
) -> None:
    (folder / "a" / "5.png").write_bytes(b"no image")
    for n_kept in (0, 19):
        with pytest.warns(SkippedImagesWarning, match=r"1 of 20 .*\n.*5\.png"):
            done = extract(resume=True)
        assert done.n_kept == n_kept
        assert [image.position for image in done.skipped] == [5]
    assert len(computed) == 19


def test_a_complete_list_of_arrays_stays(encoder: HypercolumnVLAD, out: Path) -> None:
    images = list(np.random.default_rng(0).random((6, 20, 24)).astype(np.float32))
    for n_kept in (0, 6):
        done = extract_features(images, encoder, out=out, resume=True)
        assert done.n_kept == n_kept
    images[2] = images[2][::-1]
    assert extract_features(images, encoder, out=out, resume=True).n_kept == 0
