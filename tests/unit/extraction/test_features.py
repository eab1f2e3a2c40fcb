"""Features of folders, lists and streams: the table's contents, and errors."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from support.extraction_fixtures import Extract, extracted
from support.feature_folders import write_folder

import hypervlad
from hypervlad import HypercolumnVLAD, MicrographClassifier, extract_features, load_features
from hypervlad.data import FeatureFileError, plan_extraction
from hypervlad.data.extraction import table
from hypervlad.data.extraction.manifest import TaskFolder
from hypervlad.features.encoder import encoding
from hypervlad.images import ImageReadError, SkippedImagesWarning, UnknownPixelSizeWarning


def test_a_folders_table(encoder: HypercolumnVLAD, folder: Path, tmp_path: Path) -> None:
    done = extract_features(folder, encoder, out=tmp_path / "f.parquet")
    X, frame = load_features(tmp_path / "f.parquet", encoder=encoder)
    assert done.path == tmp_path / "f.parquet"
    assert (done.n_images, done.n_kept, done.n_found, done.skipped) == (20, 0, 0, ())
    assert str(done).startswith("20 images in ")
    assert frame["path"].tolist() == sorted(frame["path"])
    assert set(frame["path"]) >= {"a/0.png", "b/7.png", "w.png"}
    files = [folder / path for path in frame["path"]]
    assert X.dtype == np.float32
    np.testing.assert_array_equal(X, encoder.transform(files))
    read = [hypervlad.read_micrograph(file) for file in files]
    assert frame["digest"].tolist() == [image.digest for image in read]
    assert frame[["height", "width", "channels"]].drop_duplicates().to_numpy().tolist() == [
        [18, 22, 1]
    ]
    assert frame["label"].fillna("none").tolist() == ["a"] * 8 + ["b"] * 8 + ["none"] * 4
    assert frame["pixel_size"].isna().all()
    assert not list(tmp_path.glob("*.parts"))


def test_pixel_size_and_channels(encoder: HypercolumnVLAD, tmp_path: Path) -> None:
    file = tmp_path / "scaled.tif"
    pixels = np.random.default_rng(0).integers(0, 255, (9, 12), dtype=np.uint8)
    tifffile.imwrite(file, pixels, imagej=True, resolution=(0.5, 0.5), metadata={"unit": "nm"})
    colours = np.random.default_rng(0).random((9, 12, 3))
    _, frame = extracted([file, colours], encoder, root=tmp_path)
    assert frame["pixel_size"].tolist()[0] == hypervlad.read_micrograph(file).pixel_size == 2.0
    assert frame["channels"].tolist() == [1, 3]
    assert frame["path"].tolist()[0] == "scaled.tif"
    assert frame["path"].isna().tolist() == [False, True]


def test_the_same_images_elsewhere_and_later_give_the_same_bytes(
    encoder: HypercolumnVLAD, folder: Path, tmp_path: Path
) -> None:
    extract_features(folder, encoder, out=tmp_path / "first.parquet")
    time.sleep(0.02)
    shutil.copytree(folder, tmp_path / "far" / "away")  # other modification times too
    extract_features(tmp_path / "far" / "away", encoder, out=tmp_path / "second.parquet")
    first = (tmp_path / "first.parquet").read_bytes()
    assert first == (tmp_path / "second.parquet").read_bytes()
    assert str(tmp_path).encode() not in first


def test_the_encoder_given_is_left_alone(
    encoder: HypercolumnVLAD, folder: Path, tmp_path: Path
) -> None:
    before = encoder.set_params(memory=tmp_path / "cache").get_params()
    extracted(folder, encoder)
    assert encoder.get_params() == before


def test_unreadable_images_have_no_row_and_a_warning_names_them(
    encoder: HypercolumnVLAD, folder: Path, tmp_path: Path
) -> None:
    (folder / "a" / "3.png").write_bytes(b"no image")
    (folder / "c.png").write_bytes(b"")
    with pytest.warns(SkippedImagesWarning, match=r"2 of 21 images could not be read"):
        done = extract_features(folder, encoder, out=tmp_path / "f.parquet")
    _, frame = load_features(done.path)
    assert done.n_images == len(frame) == 19
    assert [image.position for image in done.skipped] == [3, 16]
    assert all(str(folder) in image.reason for image in done.skipped)
    assert not {"a/3.png", "c.png"} & set(frame["path"])
    assert "2 images could not be read" in str(done)


def test_nothing_readable_is_an_error_and_leaves_no_file(
    encoder: HypercolumnVLAD, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    with pytest.raises(ImageReadError, match="none of the images could be read"):
        extract_features([bad], encoder, out=tmp_path / "f.parquet", root=tmp_path)
    assert not (tmp_path / "f.parquet").exists()


@given(
    n_images=st.integers(1, 9),
    batch_size=st.integers(1, 5),
    bad=st.sets(st.integers(0, 8)),
    streamed=st.booleans(),
)
@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_rows_are_the_readable_images_in_order_however_they_come(
    encoder: HypercolumnVLAD, n_images: int, batch_size: int, bad: set[int], streamed: bool
) -> None:
    rng = np.random.default_rng(n_images)
    images: list[Any] = list(rng.random((n_images, 12, 14)))
    good = [i for i in range(n_images) if i not in bad]
    for i in bad & set(range(n_images)):
        images[i] = "nowhere/missing.png"
    encoder.batch_size = batch_size
    given_images = iter(images) if streamed else images
    if not good:
        with pytest.raises(ImageReadError):
            extracted(given_images, encoder)
        return
    skips = len(good) < n_images
    with pytest.warns(SkippedImagesWarning) if skips else contextlib.nullcontext():
        X, _ = extracted(given_images, encoder)
    expected = encoder.transform([images[i] for i in good])
    np.testing.assert_allclose(X, expected, atol=1e-5)


def test_images_of_unknown_scale_are_named_where_one_is_wanted(
    encoder: HypercolumnVLAD, folder: Path
) -> None:
    with pytest.warns(UnknownPixelSizeWarning):
        scaled = HypercolumnVLAD(**encoder.get_params() | {"pixel_size": 2.0}).fit(
            sorted(folder.rglob("*.png"))
        )
    with pytest.warns(UnknownPixelSizeWarning, match=r"20 of 20 images .* a/0\.png"):
        extracted(folder, scaled)


# --- sources ----------------------------------------------------------------------------------


def test_a_stream_is_consumed_as_needed(encoder: HypercolumnVLAD) -> None:
    alive: list[int] = []
    references: list[weakref.ref[np.ndarray]] = []

    class Image(np.ndarray):
        """An array that can be watched."""

    def stream() -> Iterator[np.ndarray]:
        rng = np.random.default_rng(0)
        for _ in range(80):
            alive.append(sum(reference() is not None for reference in references))
            image = rng.random((20, 20)).view(Image)
            references.append(weakref.ref(image))
            yield image

    X, _ = extracted(stream(), encoder)
    assert len(X) == 80
    assert max(alive) <= 5 * 4  # a few batches


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"images": "list", "root": "elsewhere"}, ValueError, "is not in root="),
        ({"images": "list", "include": ["*.png"]}, ValueError, "give a folder"),
        ({"images": []}, ImageReadError, "the list is empty"),
        ({"images": iter([])}, ImageReadError, "the stream ended before the first"),
        ({"images": "none.png"}, ImageReadError, "none.png: no such folder"),
        ({"images": "file"}, ImageReadError, "expected a list of images, got one path"),
        ({"images": "folder", "n_jobs": 0}, ValueError, "n_jobs"),
    ],
)
def test_invalid_sources_are_errors(
    arguments: dict[str, Any],
    error: type[Exception],
    message: str,
    encoder: HypercolumnVLAD,
    folder: Path,
) -> None:
    file = folder / "w.png"
    named = {"list": [file], "folder": folder, "elsewhere": folder / "a", "file": file}
    filled = {
        name: named.get(value, value) if isinstance(value, str) else value
        for name, value in arguments.items()
    }
    with pytest.raises(error, match=message):
        extracted(encoder=encoder, **filled)


def test_an_invalid_encoder_is_an_error(folder: Path) -> None:
    from sklearn.exceptions import NotFittedError
    from sklearn.linear_model import LogisticRegression

    with pytest.raises(TypeError, match=r"not a path; give load\('model\.hvlad'\)"):
        extracted(folder, "model.hvlad")
    for unfitted in (HypercolumnVLAD(), MicrographClassifier()):
        with pytest.raises(NotFittedError):
            extracted(folder, unfitted)
    fitted = LogisticRegression().fit([[0.0], [1.0]], [0, 1])
    with pytest.raises(ValueError, match="must be a fitted HypercolumnVLAD or MicrographClassifi"):
        extracted(folder, fitted)


# --- reading back -----------------------------------------------------------------------------


def test_mapped_vectors_are_the_same_and_made_once(
    extract: Extract, folder: Path, complete: Path, tmp_path: Path
) -> None:
    X, _ = load_features(complete, mmap=False)
    mapped, _ = load_features(complete, mmap=True)
    assert isinstance(mapped, np.memmap)
    assert not mapped.flags.writeable
    np.testing.assert_array_equal(mapped, X)
    (copy,) = tmp_path.glob("_f.parquet.*.npy")
    made = copy.stat().st_mtime_ns
    load_features(complete, mmap=True)
    assert copy.stat().st_mtime_ns == made
    del mapped
    write_folder(folder, seed=1)
    extract()
    again, _ = load_features(complete, mmap=True)
    assert not np.array_equal(again, X)
    np.testing.assert_array_equal(again, load_features(complete)[0])
    assert len(list(tmp_path.glob("_f.parquet.*.npy"))) == 1


def test_vectors_larger_than_their_share_of_memory_are_mapped(
    complete: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not isinstance(load_features(complete)[0], np.memmap)
    monkeypatch.setattr(table, "_MAX_MEMORY_SHARE", 1e-12)
    assert isinstance(load_features(complete)[0], np.memmap)


def test_row_groups_do_not_follow_batches(
    extract: Extract,
    encoder: HypercolumnVLAD,
    folder: Path,
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(table, "_ROW_GROUP_BYTES", 7 * (4 * 96 + 200))
    extract()
    with pq.ParquetFile(out) as file:
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    assert sizes == [7, 7, 6]
    np.testing.assert_array_equal(load_features(out)[0], extracted(folder, encoder)[0])


def test_files_that_are_not_features_are_errors(
    extract: Extract, encoder: HypercolumnVLAD, out: Path
) -> None:
    with pytest.raises(FeatureFileError, match=r"f\.parquet: no such file"):
        load_features(out)
    out.write_bytes(b"something else")
    with pytest.raises(FeatureFileError, match="not a Parquet file, or a damaged one"):
        load_features(out)
    pd.DataFrame({"a": [1]}).to_parquet(out)
    with pytest.raises(FeatureFileError, match="not one that extract_features wrote"):
        load_features(out)
    out.unlink()
    extract()
    with pytest.raises(FeatureFileError, match="of another model"):
        load_features(out, encoder=HypercolumnVLAD(**encoder.get_params()).fit([*_noise(9)]))
    whole = out.read_bytes()
    content = bytearray(whole)
    content[len(content) // 2] ^= 1
    not_text = whole.replace(b"pixel_size", b"pixel_\xe4ize")
    for damaged, message in ((content, r"damaged .*; extract again"), (not_text, "damaged one")):
        out.write_bytes(damaged)
        with pytest.raises(FeatureFileError, match=message):
            load_features(out)


def test_files_in_one_folder_are_one_table_to_other_readers(
    extract: Extract, encoder: HypercolumnVLAD, folder: Path, tmp_path: Path
) -> None:
    """Files beside a file of features must not be read as one, not even during a run."""
    together = tmp_path / "features"
    for label in "ab":
        out = together / f"{label}.parquet"
        extract(out=out, include=f"{label}/*")
        load_features(out, mmap=True)
    TaskFolder.open(together / "c.parquet", {"n_features": 8}, resume=False)
    assert len(list(together.iterdir())) == 7
    frame = pd.read_parquet(together)
    assert len(frame) == 16
    assert frame["path"].tolist() == [f"{label}/{i}.png" for label in "ab" for i in range(8)]
    assert frame["label"].tolist() == ["a"] * 8 + ["b"] * 8
    np.testing.assert_array_equal(np.stack(frame["vector"]), extracted(folder, encoder)[0][:16])
    assert pq.read_table(together).num_rows == 16
    with pytest.raises(FeatureFileError, match=r"features: a folder; give one file"):
        load_features(together)
    with pytest.raises(FeatureFileError, match="holds no features"):
        load_features(together / "_a.parquet.images")


def test_nothing_else_is_overwritten(
    extract: Extract, encoder: HypercolumnVLAD, folder: Path, out: Path
) -> None:
    with pytest.raises(FeatureFileError, match=r"model\.hvlad: .* give NAME\.parquet"):
        extract_features(folder, encoder, out=out.with_name("model.hvlad"))
    out.write_bytes(b"measured by hand")
    for resume in (False, True):
        with pytest.raises(FeatureFileError, match="exists, and is not a file of features"):
            extract(resume=resume)
    assert out.read_bytes() == b"measured by hand"
    out.unlink()
    for _ in range(2):  # one of ours may be
        extract()
    out.write_bytes(out.read_bytes()[:-9])  # damaged, but ours: the file beside it says so
    assert extract(resume=True).n_images == 20
    pd.DataFrame({"by": ["hand"]}).to_parquet(out)  # a neighbour of ours does not make it ours
    for call in (extract_features, plan_extraction):
        with pytest.raises(FeatureFileError, match="exists, and is not a file of features"):
            call(folder, encoder, out=out)


def test_resume_does_not_replace_features_of_another_model(
    encoder: HypercolumnVLAD, folder: Path, complete: Path
) -> None:
    before = complete.read_bytes()
    other = HypercolumnVLAD(**encoder.get_params()).fit([*_noise(9)])
    for call in (extract_features, plan_extraction):
        with pytest.raises(FeatureFileError, match="holds features of another model"):
            call(folder, other, out=complete, resume=True)
    assert complete.read_bytes() == before
    extract_features(folder, other, out=complete)
    load_features(complete, encoder=other)


def _noise(n: int) -> np.ndarray:
    return np.random.default_rng(5).random((n, 20, 24)).astype(np.float32)


@pytest.mark.parametrize("content", [b"", b"PK\3\4xxxx", b"\x93NUMPY\1\0"])
def test_a_damaged_copy_is_named(content: bytes, complete: Path, tmp_path: Path) -> None:
    load_features(complete, mmap=True)
    (copy,) = tmp_path.glob("_f.parquet.*.npy")
    copy.write_bytes(content)
    with pytest.raises(FeatureFileError, match=r"_f\.parquet\..*\.npy: damaged"):
        load_features(complete, mmap=True)


def test_features_belong_to_a_model_that_was_saved_and_loaded(
    encoder: HypercolumnVLAD, folder: Path, tmp_path: Path
) -> None:
    own = clone(encoder).set_params(read_options={"max_pixels": 10**9})
    own.fit(sorted(folder.rglob("*.png"))).save(tmp_path / "m.hvlad")
    extract_features(folder, own, out=tmp_path / "f.parquet")
    loaded = hypervlad.load(tmp_path / "m.hvlad")
    X, _ = load_features(tmp_path / "f.parquet", encoder=loaded)
    assert len(X) == 20


def test_files_of_the_user_are_not_removed(
    extract: Extract, encoder: HypercolumnVLAD, folder: Path, tmp_path: Path
) -> None:
    out, other = tmp_path / "run[12].parquet", tmp_path / "run1.parquet"
    extract(out=out)
    extract(out=other, include="a/*")
    mine = tmp_path / "_run[12].parquet.labels.npy"
    np.save(mine, np.zeros(3))
    load_features(other, mmap=True)
    before = set(tmp_path.iterdir())
    load_features(out, mmap=True)
    assert before < set(tmp_path.iterdir())


def test_a_copy_that_cannot_be_written_is_not_reported_as_damage(
    complete: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(table, "replace_when_complete", refuse)
    with pytest.raises(OSError, match="free some space, or give mmap=False"):
        load_features(complete, mmap=True)
    assert len(load_features(complete, mmap=False)[0]) == 20


def test_unusual_names_affect_only_their_own_rows(
    encoder: HypercolumnVLAD, folder: Path, tmp_path: Path
) -> None:
    odd = [str(folder / "ünïcode 図.png"), str(folder / "no\0name.png")]
    shutil.copyfile(folder / "w.png", odd[0])
    if sys.platform == "linux":
        odd.append(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe.png"))
        shutil.copyfile(folder / "w.png", odd[2])
    with pytest.warns(SkippedImagesWarning, match=f"1 of {len(odd)}"):
        extract_features(odd, encoder, root=folder, out=tmp_path / "f.parquet")
    paths = load_features(tmp_path / "f.parquet")[1]["path"].tolist()
    assert paths == ["ünïcode 図.png", "\\xff\\xfe.png"][: len(odd) - 1]


def test_a_lists_errors_come_before_any_work(
    encoder: HypercolumnVLAD, folder: Path, computed: list[str]
) -> None:
    files: list[Any] = ["relative.png"] * 8 + [folder / "w.png"]
    with pytest.raises(ValueError, match="is absolute"):
        extracted(files, encoder)
    assert not computed


# --- plans ------------------------------------------------------------------------------------


def test_a_plan_counts_what_is_done_and_does_nothing(
    encoder: HypercolumnVLAD, folder: Path, tmp_path: Path, computed: list[str], read: list[str]
) -> None:
    out = tmp_path / "f.parquet"
    assert plan_extraction(folder, encoder, out=out).n_left == 20
    extracted(folder / "a", encoder.set_params(memory=tmp_path / "cache"), root=folder)
    computed.clear(), read.clear()
    plan = plan_extraction(folder, encoder, out=out, resume=True)
    assert (plan.n_images, plan.n_kept, plan.n_found, plan.n_left) == (20, 0, 8, 12)
    assert str(plan).startswith("20 images: 0 finished before, 8 in the cache, 12 to do")
    assert not computed
    assert not read
    assert not out.exists()
    assert not list(tmp_path.glob("*.parts"))
    with pytest.raises(ValueError, match="without consuming it"):
        plan_extraction(iter([]), encoder, out=out)


def test_numba_sums_residuals_of_many_images_that_torch_runs(
    folder: Path, encoder: HypercolumnVLAD, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("numba")
    monkeypatch.setattr("hypervlad.features.encoder.encoding._MIN_PIXELS", 1)
    fused = []
    codebook = encoding.TorchCodebook.__init__

    def remembered(self: Any, *arguments: Any) -> None:
        fused.append(arguments[2])
        codebook(self, *arguments)

    monkeypatch.setattr(encoding.TorchCodebook, "__init__", remembered)
    extracted(folder, encoder)
    assert fused == [True]
