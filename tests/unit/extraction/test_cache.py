"""The cache: results by pixels, unchanged files that are not read, and no wrong result."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone
from support.counting import count_passes
from support.extraction_fixtures import extracted
from support.feature_folders import write_image

from hypervlad import HypercolumnVLAD, extract_features, register_backbone
from hypervlad.features import Preprocessing
from hypervlad.features.cache import Cache, CacheFolder, PathIndex, parse_size


@pytest.fixture
def encoder(encoder: HypercolumnVLAD, tmp_path: Path) -> HypercolumnVLAD:
    """With a cache."""
    return encoder.set_params(memory=tmp_path / "cache")


def test_an_unchanged_folder_is_neither_read_nor_computed(
    encoder: HypercolumnVLAD, folder: Path, tmp_path: Path, computed: list[str], read: list[str]
) -> None:
    first = extract_features(folder, encoder, out=tmp_path / "1.parquet")
    assert (first.n_found, len(computed), len(read)) == (0, 20, 20)
    second = extract_features(folder, encoder, out=tmp_path / "2.parquet")
    assert (second.n_found, len(computed), len(read)) == (20, 20, 20)
    assert (tmp_path / "1.parquet").read_bytes() == (tmp_path / "2.parquet").read_bytes()
    assert "20 vectors were found in the cache" in str(second)


def test_pixels_are_found_under_another_name(
    encoder: HypercolumnVLAD, folder: Path, tmp_path: Path, computed: list[str], read: list[str]
) -> None:
    X, _ = extracted(folder, encoder)
    shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "copy" / "w.png").rename(tmp_path / "copy" / "0.png")
    computed.clear(), read.clear()
    again, _ = extracted(tmp_path / "copy", encoder)
    assert not computed
    assert len(read) == 20
    assert {row.tobytes() for row in again} == {row.tobytes() for row in X}


def test_settings_that_change_no_vector_keep_the_cache(
    encoder: HypercolumnVLAD, folder: Path, computed: list[str], read: list[str]
) -> None:
    extracted(folder, encoder)
    computed.clear(), read.clear()
    extracted(folder, encoder.set_params(verbose=True))
    assert not computed
    assert not read


@pytest.mark.parametrize(
    "change", [{"n_codewords": 5}, {"turns": 2}, {"read_options": {"scaling": "percentile"}}]
)
def test_settings_that_change_vectors_miss_the_cache(
    change: dict[str, object], encoder: HypercolumnVLAD, folder: Path, computed: list[str]
) -> None:
    files = sorted(folder.rglob("*.png"))
    extracted(folder, encoder)
    computed.clear()
    other = clone(encoder).set_params(**change).fit(files)
    X, _ = extracted(folder, other)
    assert len(computed) == 20
    np.testing.assert_allclose(X, other.set_params(memory=None).transform(files), atol=1e-5)


@pytest.mark.parametrize(
    ("version", "n_computed"), [("loading.READING_VERSION", 20), ("encoding.ENCODING_VERSION", 40)]
)
def test_a_new_version_of_reading_or_encoding_does_it_again(
    version: str,
    n_computed: int,
    encoder: HypercolumnVLAD,
    folder: Path,
    computed: list[str],
    read: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    extracted(folder, encoder)
    monkeypatch.setattr(f"hypervlad.features.encoder.{version}", 1000)
    extracted(folder, encoder)
    assert (len(read), len(computed)) == (40, n_computed)


def test_a_changed_file_is_read(encoder: HypercolumnVLAD, folder: Path, read: list[str]) -> None:
    file = folder / "a" / "5.png"
    X, _ = extracted(folder, encoder)
    write_image(file, np.random.default_rng(77))
    read.clear()
    changed, _ = extracted(folder, encoder)
    assert read == [str(file)]
    assert not np.array_equal(changed[5], X[5])


def test_a_file_that_changes_while_it_is_read_is_not_indexed(tmp_path: Path) -> None:
    file = write_image(tmp_path / "a.png", np.random.default_rng(0))
    index = PathIndex(Cache(tmp_path / "cache"), {})
    entry = index.entry(file)
    assert entry is not None
    write_image(file, np.random.default_rng(1))
    os.utime(file, ns=(5, 5))
    entry.keep(("facts",))
    again = index.entry(file)
    assert again is not None
    assert again.facts is None
    assert index.entry(tmp_path / "missing.png") is None
    assert index.entry(np.zeros(3)) is None
    assert index.entry("bad\0name") is None


def test_the_codebook_reads_the_cache_too(
    encoder: HypercolumnVLAD, folder: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = sorted(folder.rglob("*.png"))
    expected = clone(encoder).set_params(memory=None).fit(files).codebook_.to_arrays()
    first = clone(encoder).fit(files)
    read.clear()
    passes = count_passes(monkeypatch)
    second = clone(encoder).fit(files)
    fewer = clone(encoder).set_params(n_codewords=3).fit(files)
    assert not passes
    clone(encoder).set_params(random_state=5).fit(files)
    assert sum(passes) == 20  # for the other seed, which chooses other pixels
    assert len(read) == 20
    assert len(fewer.codebook_.codewords[0]) == 3
    for fitted in (first, second):
        for name, array in fitted.codebook_.to_arrays().items():
            np.testing.assert_array_equal(array, expected[name])


def test_images_not_chosen_for_the_codebook_are_not_even_opened_again(
    encoder: HypercolumnVLAD, folder: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hypervlad.features.encoder.codebook_fit.MAX_SAMPLED_IMAGES", 8)
    files = sorted(folder.rglob("*.png"))
    encoder.fit(files)
    assert len(read) == 20
    assert encoder.fit(files).n_images_ == 20
    assert len(read) == 20


# --- the folder -------------------------------------------------------------------------------


def test_a_cache_is_measured_cut_down_and_cleared(
    encoder: HypercolumnVLAD, folder: Path, tmp_path: Path, computed: list[str]
) -> None:
    extracted(folder, encoder)
    cache = CacheFolder(tmp_path / "cache")
    usage = cache.usage()
    assert usage.n_entries == 2 * 20  # facts of the files, and vectors
    assert usage.n_bytes > 20 * 4 * 48
    less = cache.reduce(usage.n_bytes // 2)
    assert 0 < less.n_entries < usage.n_entries
    assert less.n_bytes <= usage.n_bytes // 2
    computed.clear()
    X, _ = extracted(folder, encoder)
    assert 0 < len(computed) <= 20
    files = sorted(folder.rglob("*.png"))
    np.testing.assert_allclose(X, encoder.set_params(memory=None).transform(files), atol=1e-5)
    cache.clear()
    assert cache.usage().n_entries == 0


def test_entries_of_other_programs_in_the_same_memory_stay(
    encoder: HypercolumnVLAD, folder: Path, tmp_path: Path, computed: list[str]
) -> None:
    memory = joblib.Memory(tmp_path / "mine", verbose=0)
    other = memory.cache(len)
    other([1, 2])
    for _ in range(2):
        extracted(folder, encoder.set_params(memory=memory))
    assert len(computed) == 20
    cache = CacheFolder(tmp_path / "mine")
    assert cache.usage().n_entries == 40
    cache.reduce(0)
    assert cache.usage().n_entries == 0
    extracted(folder, encoder.set_params(memory=memory))
    cache.clear()
    assert cache.usage().n_entries == 0
    assert other.check_call_in_cache([1, 2])


def test_networks_of_equal_weights_do_not_share(folder: Path, tmp_path: Path) -> None:
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


def test_a_folder_without_a_cache_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such folder"):
        CacheFolder(tmp_path / "none")
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds no cache"):
        CacheFolder(tmp_path)
    joblib.Memory(tmp_path, verbose=0).cache(len)([1])  # another program's
    with pytest.raises(ValueError, match="holds no cache"):
        CacheFolder(tmp_path)


@given(st.integers(0, 10**6), st.sampled_from(["B", "KB", "MB", "GB", "TB", "k", "M", " gb"]))
def test_sizes(number: int, unit: str) -> None:
    power = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}[unit.strip().upper().rstrip("B")]
    assert parse_size(f"{number}{unit}") == number * 1000**power


@pytest.mark.parametrize("text", ["", "20", "-1GB", "1.5.2MB", "1 EB"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size; write it like 500MB or 20GB"):
        parse_size(text)
