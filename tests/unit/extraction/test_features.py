"""Features of folders, lists and streams: the table's contents, and errors."""

import contextlib
import os
import shutil
import sys
import weakref
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from support.extraction_fixtures import extracted, interrupt, noise
from support.feature_folders import write_folder

import hypervlad
from hypervlad import HypercolumnVLAD, MicrographClassifier, extract_features, load_features
from hypervlad.data import FeatureFileError
from hypervlad.images import ImageReadError, SkippedImagesWarning
from hypervlad.particles import cut_particles, find_particles


def test_a_folders_table(extract, encoder, folder):
    done = extract()
    X, frame = load_features(done.path, encoder=encoder)
    assert (done.n_images, done.n_kept, done.n_found, done.skipped) == (20, 0, 0, ())
    labels = ["a"] * 8 + ["b"] * 8 + ["none"] * 4
    assert frame["label"].fillna("none").tolist() == labels
    assert frame["path"].tolist() == [
        *(f"{label}/{i}.png" for label in "ab" for i in range(8)),
        *("w.png", "x.png", "y.png", "z.png"),
    ]
    files = [folder / path for path in frame["path"]]
    assert X.dtype == np.float32
    np.testing.assert_array_equal(X, encoder.transform(files))
    assert frame["digest"].tolist() == [hypervlad.read_micrograph(file).digest for file in files]
    shapes = frame[["height", "width", "channels"]].drop_duplicates().to_numpy().tolist()
    assert shapes == [[18, 22, 1]]
    assert frame["pixel_size"].isna().all()


def test_pixel_sizes_channels_and_particles(encoder, tmp_path):
    file = tmp_path / "scaled.tif"
    pixels = np.random.default_rng(0).integers(0, 255, (9, 12), dtype=np.uint8)
    tifffile.imwrite(file, pixels, imagej=True, resolution=(0.5, 0.5), metadata={"unit": "nm"})
    colours = np.random.default_rng(0).random((9, 12, 3))
    _, frame = extracted([file, colours], encoder, root=tmp_path)
    assert frame["pixel_size"].tolist()[0] == 2.0
    assert frame["channels"].tolist() == [1, 3]
    assert frame["path"].fillna("none").tolist() == ["scaled.tif", "none"]

    field = np.full((60, 80), 0.2, np.float32)
    field[10:20, 12:26] = field[30:50, 40:60] = 0.8
    file = tmp_path / "field.tif"
    tifffile.imwrite(file, field)
    particles = cut_particles(file, find_particles(file))
    of_particles = clone(encoder).fit(particles)
    X, frame = extracted(particles, of_particles, root=tmp_path)
    np.testing.assert_allclose(X, of_particles.transform(particles), atol=1e-5)
    assert frame["micrograph"].tolist() == ["field.tif"] * 2
    assert frame["particle"].tolist() == [each.label for each in particles]
    boxes = frame[["top", "left", "bottom", "right"]].to_numpy().tolist()
    assert boxes == [list(each.box) for each in particles]


def test_the_same_images_elsewhere_and_later_give_the_same_bytes(
    extract, encoder, folder, tmp_path, expected
):
    shutil.copytree(folder, tmp_path / "far" / "away")
    os.utime(tmp_path / "far" / "away" / "w.png", (1e9, 1e9))
    out = extract_features(tmp_path / "far" / "away", encoder, out=tmp_path / "far.parquet").path
    assert out.read_bytes() == expected
    assert str(tmp_path).encode() not in expected


def test_unreadable_images_have_no_row_and_whoever_completes_or_keeps_a_file_names_them(
    extract, folder, network
):
    bad = [folder / "a" / "3.png", folder / "c.png"]
    if sys.platform == "linux":  # a name that is no text
        bad.append(Path(os.fsdecode(os.fsencode(folder) + b"/\xff.png")))
    for file in bad:
        file.write_bytes(b"no image")
    interrupt(extract, 3)
    for n_kept in (12, 19):
        with pytest.warns(SkippedImagesWarning, match=f"{len(bad)} of {19 + len(bad)} images .*"):
            done = extract(resume=True)
        assert (done.n_kept, done.n_images) == (n_kept, 19)
        assert [image.position for image in done.skipped] == [3, 16, 21][: len(bad)]
        assert all(str(folder) in image.reason for image in done.skipped)
        assert f"{len(bad)} images could not be read" in str(done)
    assert network.n_images == 8
    assert not {"a/3.png", "c.png"} & set(load_features(done.path)[1]["path"])


@given(
    n_images=st.integers(1, 9),
    batch_size=st.integers(1, 5),
    bad=st.sets(st.integers(0, 8)),
    streamed=st.booleans(),
)
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rows_are_the_readable_images_in_their_order(encoder, n_images, batch_size, bad, streamed):
    images = noise(n_images, seed=n_images)
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
    np.testing.assert_allclose(X, encoder.transform([images[i] for i in good]), atol=1e-5)


# --- sources ----------------------------------------------------------------------------------


def test_a_stream_is_consumed_as_needed(encoder):
    alive, references = [], []

    class Image(np.ndarray):
        """An array that can be watched."""

    def stream():
        rng = np.random.default_rng(0)
        for _ in range(80):
            alive.append(sum(reference() is not None for reference in references))
            image = rng.random((20, 20)).view(Image)
            references.append(weakref.ref(image))
            yield image

    X, _ = extracted(stream(), encoder)
    assert len(X) == 80
    assert max(alive) <= 5 * 4  # a few batches


def test_impossible_arguments_are_errors_before_any_work(encoder, folder, tmp_path, network):
    file, fitted = folder / "w.png", LogisticRegression().fit([[0.0], [1.0]], [0, 1])
    table = [
        ([file], {"root": folder / "a"}, "is not in root="),
        (["relative.png"] * 8 + [file], {}, "is absolute"),
        ([file], {"include": ["*.png"]}, "give a folder"),
        ([], {}, "the list is empty"),
        (iter([]), {}, "the stream ended before the first"),
        ("none.png", {}, "none.png: no such folder"),
        (file, {}, "expected a list of images, got one path"),
        (folder, {"n_jobs": 0}, "n_jobs"),
        (folder, {"encoder": "model.hvlad"}, r"not a path; give load\('model\.hvlad'\)"),
        (folder, {"encoder": fitted}, "must be a fitted HypercolumnVLAD or MicrographClassifier"),
    ]
    for images, options, words in table:
        with pytest.raises((ValueError, TypeError), match=words):
            extract_features(images, **({"encoder": encoder, "out": tmp_path / "f.pq"} | options))
    for unfitted in (HypercolumnVLAD(), MicrographClassifier()):
        with pytest.raises(NotFittedError):
            extracted(folder, unfitted)
    assert network.n_images == 0
    assert not (tmp_path / "f.pq").exists()


@pytest.mark.filterwarnings("ignore::hypervlad.images.SkippedImagesWarning")
def test_unusual_names_affect_only_their_own_rows(encoder, folder, tmp_path):
    odd = [str(folder / "ünïcode 図.png"), str(folder / "no\0name.png")]
    shutil.copyfile(folder / "w.png", odd[0])
    if sys.platform == "linux":
        odd.append(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe.png"))
        shutil.copyfile(folder / "w.png", odd[2])
    done = extract_features(odd, encoder, root=folder, out=tmp_path / "f.parquet")
    paths = load_features(done.path)[1]["path"].tolist()
    assert paths == ["ünïcode 図.png", "\\xff\\xfe.png"][: len(odd) - 1]
    assert [image.position for image in done.skipped] == [1]


# --- reading back -----------------------------------------------------------------------------


def test_mapped_vectors_are_the_same_and_made_once(extract, folder, tmp_path, monkeypatch):
    out, mine = tmp_path / "run[12].parquet", tmp_path / "_run[12].parquet.labels.npy"
    np.save(mine, np.zeros(3))
    load_features(extract(out=tmp_path / "run1.parquet", include="a/*").path, mmap=True)
    extract(out=out)
    X, _ = load_features(out)
    assert not isinstance(X, np.memmap)
    mapped, _ = load_features(out, mmap=True)
    assert isinstance(mapped, np.memmap)
    assert not mapped.flags.writeable
    np.testing.assert_array_equal(mapped, X)
    (copy,) = set(tmp_path.glob("_run[[]12].*.npy")) - {mine}
    made = copy.stat().st_mtime_ns
    load_features(out, mmap=True)
    assert copy.stat().st_mtime_ns == made
    del mapped
    write_folder(folder, seed=1)
    extract(out=out)
    with monkeypatch.context() as patch:
        patch.setattr(os, "sysconf", lambda name: 64)  # a machine of 4 kB
        again, _ = load_features(out)
    assert isinstance(again, np.memmap)
    np.testing.assert_array_equal(again, load_features(out, mmap=False)[0])
    assert not np.array_equal(again, X)
    assert not copy.exists()
    assert len(list(tmp_path.glob("*.npy"))) == 3  # that of another file, and the user's own


def test_files_that_are_not_features_are_errors(extract, encoder, out, tmp_path):
    other = HypercolumnVLAD(**encoder.get_params()).fit(noise(9, seed=5))
    extract()
    whole = out.read_bytes()
    middle = whole.index(load_features(out)[0][7].tobytes())
    table = [
        (None, None, r"f\.parquet: no such file"),
        (b"something else", None, "not a Parquet file, or a damaged one"),
        (whole, other, r"f\.parquet: these features are of another model"),
        (whole[:middle] + b"\xff" + whole[middle + 1 :], None, r"damaged .*; extract again"),
        (whole.replace(b"pixel_size", b"pixel_\xe4ize"), None, "damaged one"),
        (pd.DataFrame({"a": [1]}).to_parquet(), None, "not one that extract_features wrote"),
        (out.with_name("_f.parquet.images").read_bytes(), None, "holds no features"),
    ]
    for content, model, words in table:
        out.unlink(missing_ok=True)
        if content is not None:
            out.write_bytes(content)
        with pytest.raises(FeatureFileError, match=words):
            load_features(out, encoder=model)


def test_nothing_else_is_overwritten(extract, encoder, folder, out):
    other = HypercolumnVLAD(**encoder.get_params()).fit(noise(9, seed=5))

    def refuse(words, model=encoder, **options):
        with pytest.raises(FeatureFileError, match=words):
            extract_features(folder, model, **{"out": out} | options)

    refuse(r"model\.hvlad: .* give NAME\.parquet", out=out.with_name("model.hvlad"))
    out.write_bytes(b"measured by hand")
    for resume in (False, True):
        refuse("exists, and is not a file of features", resume=resume)
    assert out.read_bytes() == b"measured by hand"
    out.unlink()
    for _ in range(2):  # one of ours may be
        extract()
    before = out.read_bytes()
    refuse("holds features of another model", other, resume=True)
    assert out.read_bytes() == before
    extract_features(folder, other, out=out)
    load_features(out, encoder=other)
    out.write_bytes(out.read_bytes()[:-9])  # damaged, but ours: the file beside it says so
    assert extract(resume=True).n_images == 20
    pd.DataFrame({"by": ["hand"]}).to_parquet(out)  # a neighbour of ours does not make it ours
    refuse("exists, and is not a file of features")
