"""Interrupted at any moment: no work is lost or done twice, and the file is the same."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from support.extraction_fixtures import BATCH, interrupt, noise
from support.feature_folders import write_image

from hypervlad import HypercolumnVLAD, extract_features, load_features
from hypervlad.data import FeatureFileError
from hypervlad.images import SkippedImagesWarning


@pytest.mark.parametrize(("n_tasks", "cached"), [(0, False), (2, False), (3, True), (5, True)])
def test_after_an_interruption_only_the_rest_is_computed(
    n_tasks, cached, extract, encoder, folder, tmp_path, out, expected, network
):
    encoder.set_params(memory=tmp_path / "cache" if cached else None)
    if n_tasks < 5:
        interrupt(extract, n_tasks)
        assert not out.exists()
    else:
        extract()
        (draft := tmp_path / "_f.parquet.parts" / ".0.tmp").parent.mkdir()
        draft.touch()  # of a killed restart
    network.clear()
    done, kept = extract(resume=True), BATCH * n_tasks
    assert out.read_bytes() == expected
    assert done.n_kept == kept
    assert network.n_images == 20 - kept  # not one image of the finished tasks
    assert not list(tmp_path.glob("*.parts*"))


def test_tasks_of_another_model_or_batch_size_are_an_error_and_stay(
    extract, encoder, folder, out, expected
):
    interrupt(extract, 3)
    other = HypercolumnVLAD(**encoder.get_params()).fit(noise(8, seed=7))
    for model, batch_size in ((other, BATCH), (encoder, 5)):
        model.batch_size = batch_size
        with pytest.raises(FeatureFileError, match=r"f\.parquet\.parts: left by .*without resume"):
            extract_features(folder, model, out=out, resume=True)
    encoder.batch_size = BATCH
    assert extract(resume=True).n_kept == 12
    assert out.read_bytes() == expected
    interrupt(extract, 3)
    assert extract_features(folder, other, out=out).n_kept == 0
    load_features(out, encoder=other)


def test_a_complete_file_stays_until_something_changes(extract, folder, tmp_path, out, network):
    os.utime(folder / "a" / "3.png", (4e9, 4e9))  # from the future
    extract(resume=True)
    assert (extract(resume=True).n_kept, network.n_images) == (20, 20)
    extract()
    shutil.copy(folder / "w.png", folder / "new.png")
    assert extract(resume=True).n_images == 21
    write_image(folder / "new.png", np.random.default_rng(3))
    assert extract(resume=True).n_kept == 0
    names = [folder / "a" / "3.png", folder / "w.png"]  # of one size and time, as from a ZIP
    for file in names:
        file.write_bytes(file.read_bytes().ljust(99_999, b"\0"))
        os.utime(file, (1e9, 1e9))
    extract(resume=True)
    for file, name in zip([*names, tmp_path / "1"], [tmp_path / "1", *names], strict=True):
        file.rename(name)
    assert extract(resume=True).n_kept == 0
    out.write_bytes(b"damaged")
    assert extract(resume=True).n_kept == 0
    assert network.n_images == 40 + 5 * 21


def test_arrays_are_compared_by_their_pixels(encoder, tmp_path, out, network):
    """In a list, and in a stream, which is resumed too."""
    images = noise(18)
    for n_kept in (0, 18):
        assert extract_features(images, encoder, out=out, resume=True).n_kept == n_kept
    whole = out.read_bytes()
    images[1] = images[1][::-1]
    assert extract_features(images, encoder, out=out, resume=True).n_kept == 0

    streamed = tmp_path / "stream.parquet"
    interrupt(lambda: extract_features(iter(images), encoder, out=streamed), 2)
    images[1] = images[1][::-1]
    extract_features(iter(images), encoder, out=streamed, resume=True)
    assert network.n_images == 4 + 10
    np.testing.assert_allclose(load_features(streamed)[0], encoder.transform(images), atol=1e-5)
    extract_features(images, encoder, out=out)
    assert out.read_bytes() == whole


def test_foreign_files_are_not_removed(extract, tmp_path):
    foreign = tmp_path / "_f.parquet.parts"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"_f\.parquet\.parts: exists, and was not made"):
        extract()
    assert (foreign / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize(("limit", "n_tasks"), [(1000, 0), (8000, 5)])
def test_a_full_disk_loses_nothing(limit, n_tasks, extract, out, expected, network):
    """With room for no task, and for all tasks, but not for the file."""
    resource = pytest.importorskip("resource", reason="Windows has no limits for files")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    interrupt(extract, 0)  # the manifest is there
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(OSError, match=r"the disk is full; what is finished is kept.*\.parts"):
            extract(resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(list(out.parent.rglob("*.parts/*/*"))) == n_tasks  # and no half-written file
    network.clear()
    extract(resume=True)
    assert network.n_images == 20 - BATCH * n_tasks
    assert out.read_bytes() == expected


@pytest.mark.parametrize("stopped", [False, True])
def test_a_network_drive_gone_briefly_costs_no_row(stopped, extract, out, expected, monkeypatch):
    original = Path.open

    def away(path, *arguments, **options):
        if path.name in ("2.png", "w.png"):
            raise OSError(5, "Input/output error")
        return original(path, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", away)
        if stopped:
            interrupt(extract, 4)
        else:
            with pytest.warns(SkippedImagesWarning):
                assert len(extract(resume=True).skipped) == 3
    assert extract(resume=True).skipped == ()
    assert out.read_bytes() == expected
