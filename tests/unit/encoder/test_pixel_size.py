"""A common scale: sizes, bounds, warnings, the cache, the codebook, batches, files, commands."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from support.commands import all_commands
from typer.testing import CliRunner

import hypervlad
from hypervlad import HypercolumnVLAD, ImageReadError, Micrograph
from hypervlad.apps.cli import app
from hypervlad.features import Preprocessing
from hypervlad.features.codebook import HypercolumnPool
from hypervlad.features.encoder import ImageLoader, LoadedImage, codebook_fit, loading
from hypervlad.features.encoder.loading import MAX_PIXELS, resampled_size, size_at_scale
from hypervlad.images import SkippedImagesWarning, UnknownPixelSizeWarning
from hypervlad.results import model_facts

Images = list[np.ndarray]

lengths = st.integers(1, 5000)
scales = st.floats(1e-3, 1e3)


def micrograph(shape: tuple[int, ...], pixel_size: float | None, digest: str = "00") -> Micrograph:
    return Micrograph(np.zeros(shape, np.float32), pixel_size, digest, source="a.tif")


def write_tiff(path: Path, image: np.ndarray, pixel_size: float | None) -> Path:
    """Write grey values in [0, 1] as 8 bits, with ImageJ's scale if a pixel size is given."""
    grey = np.round(255 * image).astype(np.uint8)
    if pixel_size is None:
        tifffile.imwrite(path, grey)
    else:
        resolution = (1 / pixel_size, 1 / pixel_size)
        tifffile.imwrite(path, grey, imagej=True, resolution=resolution, metadata={"unit": "nm"})
    return path


def scene(nm_per_pixel: float, n_pixels: int = 128) -> np.ndarray:
    """Fibres 12 nm apart under a slower mottle, as a microscope of this pixel size shows them."""
    y, x = np.mgrid[:n_pixels, :n_pixels] * nm_per_pixel
    fibres = np.sin(2 * np.pi * (x + 0.3 * y) / 12)
    return np.clip(0.5 + 0.3 * fibres + 0.15 * np.cos(2 * np.pi * y / 40), 0, 1)


@pytest.fixture
def encoder(tiny_encoder: HypercolumnVLAD) -> HypercolumnVLAD:
    return tiny_encoder.set_params(pixel_size=2.0)


@pytest.fixture
def tiffs(tmp_path: Path, images: Images) -> list[Path]:
    """Nine images of 20 x 24 pixels of 1, 2 and 4 nm."""
    return [
        write_tiff(tmp_path / f"{i}.tif", image, (1.0, 2.0, 4.0)[i % 3])
        for i, image in enumerate(images[:9])
    ]


# --- sizes ------------------------------------------------------------------------------------


@given(lengths, lengths, scales, scales)
def test_a_resampled_image_covers_the_same_nanometres(
    height: int, width: int, own: float, wanted: float
) -> None:
    size = resampled_size((height, width, 3), own, wanted)
    for n_before, n_after in zip((height, width), size, strict=True):
        assert abs(n_after * wanted - n_before * own) <= wanted * 0.5000001


@settings(deadline=None)
@given(
    lengths,
    lengths,
    st.floats(0, exclude_min=True, allow_infinity=False),
    st.floats(0, exclude_min=True, allow_infinity=False),
)
def test_a_size_is_within_the_bounds_or_an_error(
    height: int, width: int, own: float, wanted: float
) -> None:
    size = resampled_size((height, width), own, wanted)
    if min(size) >= 32 and size[0] * size[1] <= MAX_PIXELS:
        assert size_at_scale((height, width), own, wanted, minimum=32) == size
    else:
        with pytest.raises(ImageReadError, match=r"^a\.tif: "):
            size_at_scale((height, width), own, wanted, minimum=32, name="a.tif")


def test_the_bounds_themselves_are_allowed() -> None:
    assert size_at_scale((2048, 2048), 1.0, 1.0, 32) == (2048, 2048)
    assert size_at_scale((64, 64), 1.0, 2.0, 32) == (32, 32)
    assert size_at_scale((9, 9), None, 1.0, 4) is size_at_scale((9, 9), 1.0, None, 4) is None


def test_each_image_is_resampled_to_its_own_size(
    encoder: HypercolumnVLAD,
    tiffs: list[Path],
    tmp_path: Path,
    images: Images,
    passes: list[tuple[int, ...]],
) -> None:
    encoder.fit(tiffs)
    passes.clear()
    encoder.transform(tiffs)
    assert sorted(passes) == [(3, 10, 12), (3, 20, 24), (3, 40, 48)]
    for image_size, size in ((16, (16, 16)), (None, (20, 24))):
        passes.clear()
        encoder.fitted_params_ = replace(encoder.fitted_params_, image_size=image_size)
        with pytest.warns(UnknownPixelSizeWarning):
            encoder.transform([tiffs[0], images[0]])
        assert sorted(passes) == sorted([(1, 10, 12), (1, *size)])


def test_pixels_of_the_requested_size_are_unchanged(tmp_path: Path) -> None:
    image = scene(2.0, 40)[:24]
    path = write_tiff(tmp_path / "a.tif", image, 2.0)
    read = hypervlad.read_micrograph(path)
    plain = Preprocessing((0.0,) * 3, (1.0,) * 3, minimum_size=4)
    loader = ImageLoader(image_size=16, preprocessing=plain, pixel_size=2.0)
    (batch,) = loader.batches([(0, loader.load(path, "a.tif"))])
    np.testing.assert_array_equal(batch.tensors[0, 0].numpy(), read.pixels)


def test_one_scene_at_two_magnifications_is_one_scene(
    tiny_encoder: HypercolumnVLAD, tiffs: list[Path], tmp_path: Path
) -> None:
    coarse = write_tiff(tmp_path / "coarse.tif", scene(2.0), 2.0)
    detail = write_tiff(tmp_path / "detail.tif", scene(0.5, 256), 0.5)

    def difference(pixel_size: float | None) -> float:
        tiny_encoder.set_params(image_size=64, pixel_size=pixel_size)
        # Codewords of other images: residuals to these images' own codewords would sum to zero.
        vectors = tiny_encoder.fit(tiffs).transform([coarse, detail])
        return 1 - float(vectors[0] @ vectors[1])  # of unit length, hence the cosine

    assert difference(2.0) < 0.03
    assert difference(None) > 0.12


# --- images without a pixel size -----------------------------------------------------------


def caught(images: Sequence[Any], method: Any) -> list[UnknownPixelSizeWarning]:
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        method(images)
    return [w.message for w in record if isinstance(w.message, UnknownPixelSizeWarning)]


def test_images_without_a_pixel_size_are_named_once_per_call(
    encoder: HypercolumnVLAD, tiffs: list[Path], tmp_path: Path, images: Images
) -> None:
    plain = [write_tiff(tmp_path / f"plain{i}.tif", scene(1.0, 20 + i), None) for i in range(6)]
    mixed = [*tiffs, *plain, images[0]]
    for method in (encoder.fit, encoder.transform):
        (warning,) = caught(mixed, method)
        assert warning.names == (*map(str, plain), "image 15 of the list (counted from 0)")
    assert caught(tiffs, encoder.transform) == []
    assert encoder.encode(mixed).unscaled == warning.names  # without a warning
    assert caught(mixed, clone(encoder).set_params(pixel_size=None).fit_transform) == []


def test_a_folder_read_twice_for_the_codebook_warns_once(
    encoder: HypercolumnVLAD, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codebook_fit, "MAX_SAMPLED_IMAGES", 1)
    monkeypatch.setattr(codebook_fit, "is_chosen", lambda digest, share: share == 1)
    (warning,) = caught([scene(1.0, 20 + i) for i in range(4)], encoder.fit)
    assert len(warning.names) == 4


# --- bounds -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (
            0.1,
            r"odd\.tif: its 20 x 24 pixels of 0\.1 nm would become 1 x 1 at pixel_size=2 nm, less "
            "than the 4 pixels per side that the network needs; use a smaller pixel_size",
        ),
        (
            2e5,
            r"odd\.tif: .* would become 2,000,000 x 2,400,000 at pixel_size=2 nm, more than the "
            "limit of 4,194,304 pixels; use a larger pixel_size, correct",
        ),
    ],
)
def test_images_out_of_bounds_are_refused_or_skipped(
    own: float, message: str, encoder: HypercolumnVLAD, tiffs: list[Path], tmp_path: Path
) -> None:
    odd = write_tiff(tmp_path / "odd.tif", scene(1.0, 24)[:20], own)
    mixed = [tiffs[0], odd, tiffs[1]]
    with pytest.raises(ImageReadError, match=message):
        encoder.fit(mixed)
    encoder.set_params(on_error="skip")
    with pytest.warns(SkippedImagesWarning, match=message):
        encoder.fit(mixed)
    assert encoder.n_images_ == 2
    with pytest.warns(SkippedImagesWarning, match=message):
        vectors = encoder.transform(mixed)
    assert np.isnan(vectors).all(axis=1).tolist() == [False, True, False]
    with pytest.raises(ImageReadError, match=message):
        encoder.codeword_maps(odd)
    encoder.fitted_params_ = replace(encoder.fitted_params_, pixel_size=None)
    assert encoder.codeword_maps(odd).shape == (1, 16, 16)


# --- the cache --------------------------------------------------------------------------------


@pytest.fixture
def twins(tmp_path: Path) -> list[Path]:
    """The same pixels, said to be of 1, 2 and 4 nm, and a copy of the first."""
    return [
        write_tiff(tmp_path / f"twin{i}.tif", scene(1.0, 32), own)
        for i, own in enumerate((1.0, 2.0, 4.0, 1.0))
    ]


def test_equal_pixels_of_another_pixel_size_are_not_found_in_the_cache(
    encoder: HypercolumnVLAD, twins: list[Path], tmp_path: Path, passes: list[tuple[int, ...]]
) -> None:
    encoder.fit(twins)
    expected = [encoder.transform([path])[0] for path in twins]
    passes.clear()
    encoder.set_params(memory=str(tmp_path / "cache"))
    for path, vector in zip(twins, expected, strict=True):
        np.testing.assert_array_equal(encoder.transform([path])[0], vector)
    assert passes == [(1, 16, 16), (1, 32, 32), (1, 64, 64)]
    np.testing.assert_array_equal(encoder.transform(twins), expected)
    assert len(passes) == 3
    encoder.fitted_params_ = replace(encoder.fitted_params_, pixel_size=1.0)
    encoder.transform(twins[:1])
    assert passes[3:] == [(1, 32, 32)]
    assert (
        clone(encoder).set_params(pixel_size=1).fit(twins).fitted_params_ == encoder.fitted_params_
    )


def test_without_a_common_scale_the_pixel_size_plays_no_part_in_the_cache(
    tiny_encoder: HypercolumnVLAD, twins: list[Path], tmp_path: Path, passes: list[tuple[int, ...]]
) -> None:
    tiny_encoder.set_params(memory=str(tmp_path / "cache")).fit(twins)
    passes.clear()
    for path in twins:
        tiny_encoder.transform([path])
    assert len(passes) == 1


# --- the codebook -----------------------------------------------------------------------------


def test_equal_pixels_of_two_scales_both_enter_the_codebook_and_copies_once(
    encoder: HypercolumnVLAD, twins: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    layers = HypercolumnPool.layers

    def watched(self: HypercolumnPool) -> list[np.ndarray]:
        sizes.append(len(self))
        return layers(self)

    monkeypatch.setattr(HypercolumnPool, "layers", watched)
    encoder.set_params(sampling=400).fit(twins)  # a hundred of each image
    clone(encoder).set_params(pixel_size=None).fit(twins)
    assert sizes == [300, 100]


# --- batches ----------------------------------------------------------------------------------


class Watched:
    """Yields images and counts the pixels that were consumed."""

    def __init__(self, loader: ImageLoader, images: Sequence[Micrograph]) -> None:
        self.loader, self.images, self.n_pixels = loader, images, 0

    def __iter__(self) -> Iterator[tuple[int, LoadedImage]]:
        for position, image in enumerate(self.images):
            self.n_pixels += image.pixels.size
            yield position, self.loader.prepare(image, "a.tif")


def scaled_loader(minimum_size: int) -> ImageLoader:
    preprocessing = Preprocessing(minimum_size=minimum_size)
    return ImageLoader(image_size=16, preprocessing=preprocessing, pixel_size=1.0)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(4, 40), st.integers(4, 40)), min_size=1, max_size=60))
def test_few_pixels_wait_whatever_the_mixture_of_sizes(shapes: list[tuple[int, int]]) -> None:
    budget = 1000
    loader = scaled_loader(4)
    images = [micrograph(shape, 1.0, f"{i:02x}") for i, shape in enumerate(shapes)]
    source = Watched(loader, images)
    n_done, seen = 0, []
    with mock.patch.object(loading, "CPU_BATCH_PIXELS", budget):
        for batch in loader.batches(source):
            n_images, _, height, width = batch.tensors.shape
            assert n_images == 1 or n_images * height * width <= budget
            # Consumed, and neither in a batch nor the last one consumed.
            waiting = source.n_pixels - n_done
            assert waiting <= 5.2 * budget + 2 * 40 * 40
            n_done += n_images * height * width
            seen += batch.positions
    assert sorted(seen) == list(range(len(shapes)))


@settings(deadline=None)
@given(
    st.lists(st.sampled_from([(8, 8), (8, 12), (20, 20)]), min_size=2, max_size=40),
    st.sets(st.integers(0, 39)),
)
def test_leaving_images_out_moves_no_other_image_into_another_batch(
    shapes: list[tuple[int, int]], left_out: set[int]
) -> None:
    loader = scaled_loader(4)
    images = [(i, loader.prepare(micrograph(s, 1.0), "a.tif")) for i, s in enumerate(shapes)]
    rest = [pair for pair in images if pair[0] not in left_out]
    with mock.patch.object(loading, "CPU_BATCH_PIXELS", 500):
        whole = [set(batch.positions) for batch in loader.batches(images)]
        parts = [set(batch.positions) for batch in loader.batches(rest)]
    assert sorted(map(sorted, parts)) == sorted(sorted(b - left_out) for b in whole if b - left_out)


def test_batches_follow_the_resampled_size(
    encoder: HypercolumnVLAD, tmp_path: Path, passes: list[tuple[int, ...]]
) -> None:
    paths = [write_tiff(tmp_path / f"{i}.tif", scene(1.0, 64), 2.0) for i in range(4)]
    encoder.fit(paths)
    large = [write_tiff(tmp_path / f"l{i}.tif", scene(1.0, 64), 20.0) for i in range(3)]
    passes.clear()
    encoder.transform([*large, *paths])
    assert passes == [(1, 640, 640)] * 3 + [(4, 64, 64)]
    passes.clear()
    encoder.batch_size = 2
    encoder.transform([*paths, *large])
    assert passes == [(2, 64, 64), (2, 64, 64), (2, 640, 640), (1, 640, 640)]


# --- files, displays, commands ----------------------------------------------------------------


def test_a_saved_encoder_keeps_its_scale(
    encoder: HypercolumnVLAD, tiffs: list[Path], tmp_path: Path
) -> None:
    vectors = encoder.set_params(pixel_size=np.float32(2), grid=30).fit_transform(tiffs)
    encoder.save(tmp_path / "e.hvlad")
    loaded = hypervlad.load(tmp_path / "e.hvlad")
    assert loaded.pixel_size == 2.0
    assert type(loaded.pixel_size) is float
    np.testing.assert_array_equal(loaded.transform(tiffs), vectors)


def test_a_loaded_model_assumes_a_pixel_size_for_images_that_state_none(
    encoder: HypercolumnVLAD, tiffs: list[Path], tmp_path: Path
) -> None:
    image = scene(2.0)
    scaled, plain = (write_tiff(tmp_path / f"{n}.tif", image, n) for n in (4.0, None))
    encoder.fit(tiffs).save(tmp_path / "e.hvlad")
    loaded = hypervlad.load(tmp_path / "e.hvlad", pixel_size=4.0)
    np.testing.assert_array_equal(loaded.transform([plain]), encoder.transform([scaled]))
    with pytest.raises(ValueError, match="pixel_size"):
        hypervlad.load(tmp_path / "e.hvlad", pixel_size=-1)


def test_every_command_that_reads_new_images_takes_their_pixel_size() -> None:
    found = {
        name
        for name, command in all_commands().items()
        if any("--pixel-size" in option.opts for option in command.params)
    }
    assert found == {
        *("train", "predict", "evaluate", "explain", "extract", "align", "diameters"),
        *("defects score", "particles find", "review start"),
    }


def test_the_scale_is_among_the_facts(encoder: HypercolumnVLAD, tiffs: list[Path]) -> None:
    assert model_facts(encoder.fit(tiffs))["image size"] == (
        "2 nm per pixel; if the pixel size is unknown: 16 x 16 pixels, stretched to a square"
    )


# It trains and cross-validates a classifier.
@pytest.mark.slow
def test_the_command_trains_at_a_scale(tmp_path: Path, texture_images: Any) -> None:
    folder = tmp_path / "images"
    for i, (image, label) in enumerate(zip(*texture_images, strict=True)):
        (folder / label).mkdir(parents=True, exist_ok=True)
        write_tiff(folder / label / f"{i}.tif", image, 1.0 if i else None)
    common = [str(folder), "-q", "--backbone", "tiny", "--weights", "random"]
    model = tmp_path / "m.hvlad"
    command = ["train", "-o", str(model), "--image-size", "16", *common, "--pixel-size"]
    result = CliRunner().invoke(app, [*command, "1.5"])
    assert result.exit_code == 0, result.output
    assert hypervlad.load(model).encoder_.pixel_size == 1.5
    assert result.output.count("1 of 24 images without a known pixel size") == 1
    refused = CliRunner().invoke(app, [*command, "50"])
    assert refused.exit_code == 2
    assert "use a smaller pixel_size" in " ".join(refused.output.split())
