"""``encode``: vectors, and which images were read or skipped."""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hypervlad import HypercolumnVLAD, ImageReadError, read_micrograph
from hypervlad.features.encoder import codebook_fit, loading
from hypervlad.images import SkippedImagesWarning

Images = list[np.ndarray]


@pytest.fixture
def files(images: Images, tmp_path: Path) -> list[Path]:
    """Six PNG files; the second and the last cannot be read."""
    paths = []
    for i, image in enumerate(images[:6]):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(np.round(255 * image).astype(np.uint8)).save(paths[-1])
    for broken in (paths[1], paths[5]):
        broken.write_bytes(b"\x89PNG\r\n\x1a\n broken")
    return paths


@pytest.fixture
def fitted(tiny_encoder: HypercolumnVLAD, images: Images) -> HypercolumnVLAD:
    return tiny_encoder.fit(images)


def test_skipped_images_are_returned_without_a_warning(
    fitted: HypercolumnVLAD, files: list[Path]
) -> None:
    fitted.set_params(on_error="skip")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoded = fitted.encode(files)
    assert encoded.positions.tolist() == [0, 2, 3, 4]
    assert [(each.position, each.name) for each in encoded.skipped] == [
        (1, str(files[1])),
        (5, str(files[5])),
    ]
    assert all("cannot be decoded" in s.reason or s.name in s.reason for s in encoded.skipped)
    assert encoded.vectors.dtype == np.float32
    read = [read_micrograph(files[i]) for i in encoded.positions]
    assert [info.digest for info in encoded.info] == [each.digest for each in read]
    assert {(info.shape, info.pixel_size) for info in encoded.info} == {((20, 24), None)}
    rows = encoded.with_missing()
    assert rows.shape == (6, fitted.n_features_out_)
    assert np.isnan(rows[[1, 5]]).all()
    np.testing.assert_array_equal(rows[encoded.positions], encoded.vectors)
    names = encoded.with_missing(["a", "b", "c", "d"], fill="")
    assert names.tolist() == ["a", "", "b", "c", "d", ""]


def test_transform_is_encode_with_warnings(fitted: HypercolumnVLAD, files: list[Path]) -> None:
    encoded = fitted.set_params(on_error="skip").encode(files)
    with pytest.warns(SkippedImagesWarning, match="2 of 6") as caught:
        vectors = fitted.transform(files)
    np.testing.assert_array_equal(vectors, encoded.with_missing())
    whole = fitted.encode(files[2:5])
    assert whole.with_missing() is whole.vectors, "no copy of what may be most of the memory"
    (warning,) = caught
    assert isinstance(warning.message, SkippedImagesWarning)
    assert warning.message.skipped == encoded.skipped
    with pytest.warns(SkippedImagesWarning, match="2 of 6"):
        encoded.warn()


def test_no_image_can_be_read(fitted: HypercolumnVLAD, files: list[Path]) -> None:
    bad = [files[1], files[5]]
    encoded = fitted.set_params(on_error="skip").encode(bad)
    assert encoded.vectors.shape == (0, fitted.n_features_out_)
    assert len(encoded.skipped) == 2
    assert np.isnan(encoded.with_missing()).all()
    for raising in (encoded.warn, lambda: fitted.transform(bad)):
        with pytest.raises(ImageReadError, match="none of the images could be read"):
            raising()


def test_cached_vectors_are_counted(
    tiny_encoder: HypercolumnVLAD, images: Images, tmp_path: Path
) -> None:
    tiny_encoder.set_params(memory=str(tmp_path / "cache")).fit(images)
    first = tiny_encoder.encode(images[:4])
    again = tiny_encoder.encode(images[:6])
    assert (first.n_cached, again.n_cached) == (0, 4)
    np.testing.assert_array_equal(again.vectors[:4], first.vectors)
    assert again.info[:4] == first.info


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of all images that are read."""
    names = list[str]()
    original = loading.read_named

    def counted(image: Any, options: Any, name: str) -> Any:
        names.append(name)
        return original(image, options, name)

    monkeypatch.setattr(loading, "read_named", counted)
    return names


@pytest.mark.parametrize(
    ("method", "change", "n_passes"),
    [
        ("fit_transform", {"turns": 2}, 1 + 2),  # for the codebook, and for each turn
        ("fit", {"sampling": "luo2021"}, 2),  # for the first codewords, and for the final ones
    ],
)
def test_an_image_is_read_twice(
    method: str,
    change: dict[str, Any],
    n_passes: int,
    tiny_encoder: HypercolumnVLAD,
    images: Images,
    reads: list[str],
    passes: list[tuple[int, ...]],
) -> None:
    getattr(tiny_encoder.set_params(**change), method)(images)
    assert set(Counter(reads).values()) == {2}
    assert sum(n for n, *_ in passes) == n_passes * 24


def test_a_second_sample_reads_only_what_the_first_left_out(
    tiny_encoder: HypercolumnVLAD,
    images: Images,
    reads: list[str],
    passes: list[tuple[int, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Copies count as one image: a share of the images may hold too few hypercolumns."""
    images = [*images[:4], *[images[0]] * 20]
    monkeypatch.setattr(codebook_fit, "MAX_SAMPLED_IMAGES", 12)
    chosen = read_micrograph(images[3]).digest
    monkeypatch.setattr(codebook_fit, "is_chosen", lambda key, share: share == 1 or key == chosen)
    tiny_encoder.set_params(sampling=12 * 17, n_codewords=20).fit(images)
    assert sum(n for n, *_ in passes) == 4, "each distinct image once"
    assert len(reads) == 24 + 3
