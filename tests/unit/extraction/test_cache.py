"""The cache: results by pixels, unchanged files that are not opened, and no wrong result."""

import os
import shutil
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from support.commands import run
from support.extraction_fixtures import extracted
from support.feature_folders import write_image

from hypervlad import HypercolumnVLAD, extract_features, register_backbone
from hypervlad.features import Preprocessing


@pytest.fixture
def encoder(encoder, tmp_path):
    """With a cache."""
    return encoder.set_params(memory=tmp_path / "cache")


def test_an_unchanged_folder_is_not_read_nor_computed(encoder, folder, tmp_path, network, opened):
    before = encoder.get_params()
    first = extract_features(folder, encoder, out=tmp_path / "1.parquet")
    assert (first.n_found, network.n_images, len(opened)) == (0, 20, 20)
    encoder.set_params(verbose=True)  # changes no vector
    second = extract_features(folder, encoder, out=tmp_path / "2.parquet")
    assert (second.n_found, network.n_images, len(opened)) == (20, 20, 20)
    assert (tmp_path / "1.parquet").read_bytes() == (tmp_path / "2.parquet").read_bytes()
    assert encoder.set_params(verbose=False).get_params() == before

    shutil.copytree(folder, tmp_path / "copy")  # pixels are found under another name
    (tmp_path / "copy" / "w.png").rename(tmp_path / "copy" / "0.png")
    X, _ = extracted(tmp_path / "copy", encoder)
    assert (network.n_images, len(opened)) == (20, 40)
    expected, _ = extracted(folder, encoder)
    assert {row.tobytes() for row in X} == {row.tobytes() for row in expected}


def test_changed_files_are_read(encoder, folder, opened):
    """Those that changed while they were read, too."""
    changed, meanwhile = folder / "a" / "5.png", folder / "w.png"
    X, _ = extracted(folder, encoder)
    write_image(changed, np.random.default_rng(77))
    opened.clear()
    again, _ = extracted(folder, encoder)
    assert opened == [str(changed)]
    assert not np.array_equal(again[5], X[5])

    original = Path.open

    def changing(path, *arguments, **options):
        stream = original(path, *arguments, **options)
        os.utime(meanwhile, ns=(5, 5))
        return stream

    write_image(meanwhile, np.random.default_rng(78))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "open", changing)
        extracted(folder, encoder)
    opened.clear()
    extracted(folder, encoder)
    assert opened == [str(meanwhile)]


def test_the_codebook_reads_the_cache_too(encoder, folder, network, opened):
    files = sorted(folder.rglob("*.png"))
    plain = clone(encoder).set_params(memory=None).fit(files).transform(files)
    first = clone(encoder).fit(files)
    opened.clear(), network.clear()
    second = clone(encoder).fit(files)
    fewer = clone(encoder).set_params(n_codewords=3).fit(files)
    assert (network.n_images, len(opened)) == (0, 0)
    clone(encoder).set_params(random_state=5).fit(files)
    assert network.n_images == 20  # for the other seed, which chooses other pixels
    assert fewer.n_features_out_ < first.n_features_out_
    for fitted in (first, second):
        np.testing.assert_array_equal(fitted.set_params(memory=None).transform(files), plain)


def test_networks_of_equal_weights_do_not_share(folder, tmp_path):
    files, found = sorted(folder.rglob("*.png")), []
    for activation in (torch.nn.ReLU, torch.nn.Tanh):
        register_backbone(
            "edited",
            lambda activation=activation: torch.nn.Sequential(
                torch.nn.Conv2d(3, 6, 3, padding=1), activation()
            ),
            ["1"],
            Preprocessing(minimum_size=4),
        )
        encoder = HypercolumnVLAD(
            "edited", weights="random", image_size=16, n_codewords=3, random_state=0
        )
        plain = clone(encoder).fit_transform(files)
        cached = encoder.set_params(memory=tmp_path / "cache").fit_transform(files)
        np.testing.assert_array_equal(cached, plain)
        found.append(plain)
    assert not np.allclose(*found)


def usage(cache, *options):
    """What the command prints: entries, and megabytes."""
    _, _, said = run("cache", cache, *options).stdout.rpartition(": ")
    entries, size = said.split(", ")
    return int(entries.split()[0]), float(size.split()[0])


def test_a_cache_is_measured_cut_down_and_cleared(encoder, folder, tmp_path, network):
    cache, files = tmp_path / "cache", sorted(folder.rglob("*.png"))
    expected, _ = extracted(folder, encoder)
    size = sum(file.stat().st_size for file in cache.rglob("*.pkl"))
    assert usage(cache)[0] == 2 * 20  # facts of the files, and vectors
    for text in ("", "20", "-1GB", "1 EB"):
        assert "like 500MB or 20GB" in run("cache", cache, "--limit", text, code=2).stderr
    assert usage(cache, "--limit", "1TB")[0] == 40
    n_left, _ = usage(cache, "--limit", f"{size / 2000}KB")
    assert 0 < n_left < 40
    assert sum(file.stat().st_size for file in cache.rglob("*.pkl")) <= size // 2
    network.clear()
    np.testing.assert_allclose(extracted(folder, encoder)[0], expected, atol=1e-5)
    assert 0 < network.n_images <= len(files)
    assert usage(cache, "--limit", "0") == (0, 0.0)
    joblib.Memory(folder, verbose=0).cache(len)([1])  # another program's
    assert "holds no cache" in run("cache", folder, code=2).stderr
    assert "no such folder" in run("cache", folder / "none", code=2).stderr
