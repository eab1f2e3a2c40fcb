"""Stopped at any moment: nothing is lost, nothing is done twice, and the file is the same."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from feature_folders import write_image

from hypervlad import HypercolumnVLAD, extract_features, load_features
from hypervlad.extraction import FeatureFileError, plan_extraction
from hypervlad.extraction import parts as parts_module
from hypervlad.extraction.parts import Parts
from hypervlad.images import SkippedImagesWarning

BATCH = 4
KILLING = Path(__file__).with_name("killed_at_random.py")


class StopError(Exception):
    """Raised to interrupt."""


def stop_at(monkeypatch: pytest.MonkeyPatch, n_tasks: int) -> None:
    """Let this many tasks be kept, and stop at the next one."""
    original, left = Parts.keep, [n_tasks]

    def keep(self: Parts, *arguments: object) -> None:
        if not left[0]:
            raise StopError
        left[0] -= 1
        original(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Parts, "keep", keep)


@pytest.fixture
def expected(encoder: HypercolumnVLAD, folder: Path, tmp_path: Path) -> bytes:
    """The file of an uninterrupted run."""
    extract_features(folder, encoder, out=tmp_path / "expected.parquet")
    return (tmp_path / "expected.parquet").read_bytes()


@pytest.mark.parametrize("n_tasks", range(6))
@pytest.mark.parametrize("cached", [False, True])
def test_after_an_interruption_only_the_rest_is_computed(
    n_tasks: int,
    cached: bool,
    encoder: HypercolumnVLAD,
    folder: Path,
    tmp_path: Path,
    expected: bytes,
    computed: list[str],
) -> None:
    out, memory = tmp_path / "f.parquet", tmp_path / "cache" if cached else None
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, n_tasks)
        if n_tasks < 5:
            with pytest.raises(StopError):
                extract_features(folder, encoder, out=out, memory=memory)
            assert not out.exists()
        else:
            extract_features(folder, encoder, out=out, memory=memory)
    computed.clear()
    plan = plan_extraction(folder, encoder, out=out, memory=memory, resume=True)
    done = extract_features(folder, encoder, out=out, memory=memory, resume=True)
    kept = min(20, BATCH * n_tasks)
    assert out.read_bytes() == expected
    assert done.n_kept == kept
    assert len(computed) == 20 - kept  # not one image of the finished tasks
    assert n_tasks == 5 or plan.n_kept == kept
    assert not list(tmp_path.glob("*.parts*"))


def test_without_resume_an_interrupted_run_begins_anew(
    encoder: HypercolumnVLAD,
    folder: Path,
    tmp_path: Path,
    expected: bytes,
    computed: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        stop_at(patch, 3)
        with pytest.raises(StopError):
            extract_features(folder, encoder, out=tmp_path / "f.parquet")
    computed.clear()
    extract_features(folder, encoder, out=tmp_path / "f.parquet")
    assert len(computed) == 20
    assert (tmp_path / "f.parquet").read_bytes() == expected


def interrupted(
    monkeypatch: pytest.MonkeyPatch, encoder: HypercolumnVLAD, folder: Path, out: Path, n: int
) -> None:
    with monkeypatch.context() as patch:
        stop_at(patch, n)
        with pytest.raises(StopError):
            extract_features(folder, encoder, out=out)


def test_a_changed_file_costs_its_own_task(
    encoder: HypercolumnVLAD,
    folder: Path,
    tmp_path: Path,
    computed: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "f.parquet"
    interrupted(monkeypatch, encoder, folder, out, 3)
    write_image(folder / "a" / "5.png", np.random.default_rng(99))
    computed.clear()
    extract_features(folder, encoder, out=out, resume=True)
    assert len(computed) == 4 + 8
    X, frame = load_features(out)
    files = [folder / path for path in frame["path"]]
    np.testing.assert_array_equal(X, encoder.transform(files))


def test_a_bad_file_that_was_mended_gets_its_row(
    encoder: HypercolumnVLAD,
    folder: Path,
    tmp_path: Path,
    expected: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, good = tmp_path / "f.parquet", (folder / "a" / "5.png").read_bytes()
    (folder / "a" / "5.png").write_bytes(b"no image")
    interrupted(monkeypatch, encoder, folder, out, 3)
    (folder / "a" / "5.png").write_bytes(good)
    extract_features(folder, encoder, out=out, resume=True)
    assert out.read_bytes() == expected


def test_what_was_skipped_is_told_by_the_run_that_ends(
    encoder: HypercolumnVLAD, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "f.parquet"
    (folder / "a" / "5.png").write_bytes(b"no image")
    interrupted(monkeypatch, encoder, folder, out, 3)
    with pytest.warns(SkippedImagesWarning, match="1 of 20"):
        done = extract_features(folder, encoder, out=out, resume=True)
    assert [image.position for image in done.skipped] == [5]


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_damaged_part_is_done_again(
    damage: str,
    encoder: HypercolumnVLAD,
    folder: Path,
    tmp_path: Path,
    expected: bytes,
    computed: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "f.parquet"
    interrupted(monkeypatch, encoder, folder, out, 3)
    part = sorted(tmp_path.rglob("f.parquet.parts/*/*.arrow"))[1]
    content = bytearray(part.read_bytes())
    if damage == "flip":
        content[200] ^= 255  # in the vectors' page
    part.write_bytes({"cut": content[:-20], "flip": content, "empty": b""}[damage])
    computed.clear()
    extract_features(folder, encoder, out=out, resume=True)
    assert len(computed) == 4 + 8
    assert out.read_bytes() == expected


def test_parts_of_another_model_or_batch_are_told_not_thrown_away(
    encoder: HypercolumnVLAD,
    folder: Path,
    tmp_path: Path,
    expected: bytes,
    computed: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "f.parquet"
    images = list(np.random.default_rng(7).random((8, 20, 24)).astype(np.float32))
    interrupted(monkeypatch, encoder, folder, out, 3)
    other = HypercolumnVLAD(**encoder.get_params()).fit(images)
    for changed in (other, HypercolumnVLAD(**encoder.get_params()).fit(images)):
        with pytest.raises(FeatureFileError, match=r"f\.parquet\.parts: left by an extraction w"):
            extract_features(folder, changed, out=out, resume=True)
    encoder.set_params(batch_size=5)
    with pytest.raises(FeatureFileError, match="or batches of another size"):
        extract_features(folder, encoder, out=out, resume=True)
    encoder.set_params(batch_size=4)
    assert extract_features(folder, encoder, out=out, resume=True).n_kept == 12
    assert out.read_bytes() == expected
    interrupted(monkeypatch, encoder, folder, out, 3)
    computed.clear()
    assert extract_features(folder, other, out=out).n_kept == 0
    assert len(computed) == 20
    load_features(out, encoder=other)


def test_a_complete_file_stays_until_something_changes(
    encoder: HypercolumnVLAD, folder: Path, tmp_path: Path, computed: list[str]
) -> None:
    out = tmp_path / "f.parquet"
    extract_features(folder, encoder, out=out, resume=True)
    assert len(computed) == 20
    again = extract_features(folder, encoder, out=out, resume=True)
    assert (again.n_images, again.n_kept, len(computed)) == (20, 20, 20)
    extract_features(folder, encoder, out=out)
    assert len(computed) == 40
    (folder / "new.png").write_bytes((folder / "w.png").read_bytes())
    assert extract_features(folder, encoder, out=out, resume=True).n_images == 21
    write_image(folder / "new.png", np.random.default_rng(3))
    computed.clear()
    extract_features(folder, encoder, out=out, resume=True)
    assert len(computed) == 21
    out.write_bytes(b"damaged")
    assert extract_features(folder, encoder, out=out, resume=True).n_kept == 0


def test_a_stream_of_arrays_goes_on_too(
    encoder: HypercolumnVLAD,
    tmp_path: Path,
    computed: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "f.parquet"
    images = list(np.random.default_rng(0).random((18, 20, 24)).astype(np.float32))
    extract_features(iter(images), encoder, out=tmp_path / "expected.parquet")
    with monkeypatch.context() as patch:
        stop_at(patch, 2)
        with pytest.raises(StopError):
            extract_features(iter(images), encoder, out=out)
    images[1] = images[1][::-1]
    computed.clear()
    extract_features(iter(images), encoder, out=out, resume=True)
    assert len(computed) == 4 + 10
    images[1] = images[1][::-1]
    extract_features(iter(images), encoder, out=out, resume=True)
    assert out.read_bytes() == (tmp_path / "expected.parquet").read_bytes()


def test_foreign_files_are_not_removed(
    encoder: HypercolumnVLAD, folder: Path, tmp_path: Path
) -> None:
    foreign = tmp_path / "f.parquet.parts"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"f\.parquet\.parts: in the way"):
        extract_features(folder, encoder, out=tmp_path / "f.parquet")
    assert (foreign / "thesis.txt").read_text() == "mine"


def test_a_full_disk_loses_nothing(
    encoder: HypercolumnVLAD,
    folder: Path,
    tmp_path: Path,
    expected: bytes,
    computed: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, original, room = tmp_path / "f.parquet", parts_module.replace_when_complete, [3]

    @contextlib.contextmanager
    def little_room(path: Path, **options: bool) -> Iterator[Any]:
        with original(path, **options) as stream:
            if path.suffix == ".arrow" and not room[0]:
                stream.write(b"half of it")
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            room[0] -= path.suffix == ".arrow"
            yield stream

    with monkeypatch.context() as patch:
        patch.setattr(parts_module, "replace_when_complete", little_room)
        with pytest.raises(OSError, match="no room left; what is finished is kept: make room"):
            extract_features(folder, encoder, out=out)
    assert len(list(tmp_path.rglob("*.parts/*/*"))) == 3  # and no half-written file
    computed.clear()
    extract_features(folder, encoder, out=out, resume=True)
    assert len(computed) == 8
    assert out.read_bytes() == expected


def test_a_beginning_or_an_end_cut_short_is_swept_up(
    encoder: HypercolumnVLAD, folder: Path, tmp_path: Path, expected: bytes
) -> None:
    """Killed while the folder of parts is made or removed: what is left is in nobody's way."""
    for name in ("new", "old"):
        rest = tmp_path / f"f.parquet.parts.{name}"
        (rest / "000000").mkdir(parents=True)
        (rest / "000000" / "000000000.arrow").write_bytes(b"half")
    extract_features(folder, encoder, out=tmp_path / "f.parquet", resume=True)
    assert (tmp_path / "f.parquet").read_bytes() == expected
    assert not list(tmp_path.glob("*.parts*"))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("cached", [False, True])
def test_killed_at_random_moments(cached: bool, tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    done = subprocess.run(
        [sys.executable, str(KILLING), str(tmp_path), str(seed), str(int(cached))],
        env={**os.environ, "PYTHONPATH": str(KILLING.parents[2]), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"seed {seed}: {done.stdout}{done.stderr}"
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["kills"] >= 20
    assert told["same"]
    # Each kill may cost the batch in flight, none more.
    assert told["computed"] <= told["images"] + told["kills"] * BATCH
    assert not list(tmp_path.glob("*.parts*"))
    shutil.rmtree(tmp_path)
