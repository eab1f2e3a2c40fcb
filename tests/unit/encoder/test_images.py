"""From images to batches: what is skipped, at which size images pass the network, and how many."""

import warnings
from collections import Counter

import numpy as np
import pytest
import tifffile
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.base import clone
from support.tiny import make_tiny_encoder

from hypervlad import ImageReadError, read_micrograph
from hypervlad.images import SkippedImagesWarning, UnknownPixelSizeWarning, read_micrographs


def write_tiff(path, image, pixel_size):
    """Write grey values in [0, 1] as 8 bits, with ImageJ's scale if a pixel size is given."""
    grey = np.round(255 * image).astype(np.uint8)
    if pixel_size is None:
        tifffile.imwrite(path, grey)
    else:
        resolution = (1 / pixel_size, 1 / pixel_size)
        tifffile.imwrite(path, grey, imagej=True, resolution=resolution, metadata={"unit": "nm"})
    return path


def scene(nm_per_pixel, n_pixels=128):
    """Fibres 12 nm apart under a slower mottle, as a microscope of this pixel size shows them."""
    y, x = np.mgrid[:n_pixels, :n_pixels] * nm_per_pixel
    fibres = np.sin(2 * np.pi * (x + 0.3 * y) / 12)
    return np.clip(0.5 + 0.3 * fibres + 0.15 * np.cos(2 * np.pi * y / 40), 0, 1)


@pytest.fixture
def scaled(tiny_encoder):
    return tiny_encoder.set_params(pixel_size=2.0)


@pytest.fixture
def tiffs(tmp_path, images):
    """Nine images of 20 x 24 pixels of 1, 2 and 4 nm."""
    return [
        write_tiff(tmp_path / f"{i}.tif", image, (1.0, 2.0, 4.0)[i % 3])
        for i, image in enumerate(images[:9])
    ]


# --- images that are skipped, or blank ------------------------------------------------------------


@pytest.fixture
def files(images, tmp_path):
    """Six PNG files; the second and the last cannot be read."""
    paths = []
    for i, image in enumerate(images[:6]):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(np.round(255 * image).astype(np.uint8)).save(paths[-1])
    for broken in (paths[1], paths[5]):
        broken.write_bytes(b"\x89PNG\r\n\x1a\n broken")
    return paths


def test_encode_returns_what_was_skipped_and_transform_warns(tiny_encoder, images, files):
    tiny_encoder.fit(images)
    with pytest.raises(ImageReadError, match=r"1\.png"):
        tiny_encoder.transform(files)
    encoded = tiny_encoder.set_params(on_error="skip").encode(files)  # without a warning
    assert encoded.positions.tolist() == [0, 2, 3, 4]
    skipped = [(each.position, each.name) for each in encoded.skipped]
    assert skipped == [(1, str(files[1])), (5, str(files[5]))]
    read = [read_micrograph(files[i]) for i in encoded.positions]
    assert [info.digest for info in encoded.info] == [each.digest for each in read]
    assert {(info.shape, info.pixel_size) for info in encoded.info} == {((20, 24), None)}
    rows = encoded.with_missing()
    assert np.isnan(rows).all(axis=1).tolist() == [i in (1, 5) for i in range(6)]
    np.testing.assert_array_equal(rows[encoded.positions], encoded.vectors)
    names = encoded.with_missing(["a", "b", "c", "d"], fill="")
    assert names.tolist() == ["a", "", "b", "c", "d", ""]
    for warning in (lambda: tiny_encoder.transform(files), encoded.warn):
        with pytest.warns(SkippedImagesWarning) as caught:
            warning()
        assert [each.message.skipped for each in caught] == [encoded.skipped]
    whole = tiny_encoder.encode(files[2:5])
    assert whole.with_missing() is whole.vectors, "no copy of what may be most of the memory"


def test_no_image_can_be_read(tiny_encoder, images, files):
    bad = [files[1], files[5]]
    encoded = tiny_encoder.fit(images).set_params(on_error="skip").encode(bad)
    assert encoded.vectors.shape == (0, 96)
    assert encoded.with_missing().shape == (2, 96)
    for raising in (encoded.warn, lambda: tiny_encoder.transform(bad)):
        with pytest.raises(ImageReadError):
            raising()


def test_blank_images_are_named(tiny_encoder, images):
    mixed = [images[0], np.zeros((9, 9)), images[1]]
    encoded = tiny_encoder.fit(images).encode(mixed)
    assert encoded.is_blank.tolist() == [False, True, False]
    assert encoded.blank == ("image 1 of the list (counted from 0)",)
    assert len(encoded.messages) == 1
    with pytest.warns(UserWarning, match="1 of 3 images is blank, all pixels equal: image 1"):
        tiny_encoder.transform(mixed)


# --- a common scale -------------------------------------------------------------------------------

scales = st.floats(0.2, 5)


@settings(deadline=None, max_examples=30)
@given(height=st.integers(1, 60), width=st.integers(1, 60), own=scales, wanted=scales)
@example(height=8, width=8, own=1.0, wanted=2.0)  # 4 pixels, the least
@example(height=7, width=8, own=1.0, wanted=2.0)
def test_a_resampled_image_covers_the_same_nanometres_or_is_refused(height, width, own, wanted):
    encoder = make_tiny_encoder().set_params(pixel_size=wanted, n_codewords=1)
    encoder.set_params(read_options={"pixel_size": own}, grid="image")
    image = np.arange(height * width).reshape(height, width) / (height * width)
    expected = round(height * own / wanted), round(width * own / wanted)
    if min(expected) < 4:
        with pytest.raises(ImageReadError):
            encoder.fit([image])
    else:
        assert encoder.fit([image]).codeword_maps(image).shape == (1, *expected)


def test_one_scene_at_two_magnifications_is_one_scene(tiny_encoder, tiffs, tmp_path):
    coarse = write_tiff(tmp_path / "coarse.tif", scene(2.0), 2.0)
    detail = write_tiff(tmp_path / "detail.tif", scene(0.5, 256), 0.5)

    def difference(pixel_size):
        tiny_encoder.set_params(image_size=64, pixel_size=pixel_size)
        # Codewords of other images: residuals to these images' own codewords would sum to zero.
        vectors = tiny_encoder.fit(tiffs).transform([coarse, detail])
        return 1 - float(vectors[0] @ vectors[1])  # of unit length, hence the cosine

    assert difference(2.0) < 0.03
    assert difference(None) > 0.12


def unknown(call, images):
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        call(images)
    return [w.message for w in record if isinstance(w.message, UnknownPixelSizeWarning)]


def test_images_without_a_pixel_size_are_named_once_per_call(scaled, tiffs, tmp_path, images):
    plain = [write_tiff(tmp_path / f"plain{i}.tif", scene(1.0, 20 + i), None) for i in range(6)]
    mixed = [*tiffs, *plain, images[0]]
    luo = clone(scaled).set_params(sampling="luo2021")  # which reads all twice
    for call in (scaled.fit, luo.fit, scaled.transform):
        (warning,) = unknown(call, mixed)
        assert warning.names == (*map(str, plain), "image 15 of the list (counted from 0)")
    assert unknown(scaled.transform, tiffs) == []
    assert scaled.encode(mixed).unscaled == warning.names  # without a warning
    assert unknown(clone(scaled).set_params(pixel_size=None).fit_transform, mixed) == []


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (0.1, r"odd\.tif: .* would become 1 x 1 at pixel_size=2 nm, .*; use a smaller pixel_size"),
        (3e4, r"odd\.tif: .* more than the limit of 4,194,304 pixels; use a larger pixel_size"),
    ],
)
def test_images_out_of_bounds_are_refused_or_skipped(own, message, scaled, tiffs, tmp_path):
    odd = write_tiff(tmp_path / "odd.tif", scene(1.0, 24)[:20], own)
    mixed = [tiffs[0], odd, tiffs[1]]
    with pytest.raises(ImageReadError, match=message):
        scaled.fit(mixed)
    scaled.set_params(on_error="skip")
    for call in (scaled.fit, scaled.transform):
        with pytest.warns(SkippedImagesWarning):
            found = call(mixed)
    assert np.isnan(found).all(axis=1).tolist() == [False, True, False]
    with pytest.raises(ImageReadError):
        scaled.codeword_maps(odd)
    assert scaled.set_params(pixel_size=None).fit(tiffs).codeword_maps(odd).shape == (1, 16, 16)


# --- batches, and reading ahead -------------------------------------------------------------------


@pytest.mark.parametrize("cached", [set(), {1, 5, 6}, set(range(3, 15))])
def test_what_passes_together_depends_on_places_in_the_list(cached, tiny_encoder, tmp_path, passes):
    """So vectors are the same to the last digit, whatever is found in the cache."""
    sizes = [(8, 8), (8, 12), (8, 8), (20, 20), (20, 20)] * 3
    images = [np.random.default_rng(i).random(size) for i, size in enumerate(sizes)]
    tiny_encoder.set_params(image_size=None, batch_size=4, memory=tmp_path).fit(images)
    if cached:
        tiny_encoder.transform([images[i] for i in cached])
    passes.clear()
    assert tiny_encoder.encode(images).n_cached == len(cached)
    together = Counter((i // 4, *sizes[i]) for i in range(15) if i not in cached)
    assert sorted(passes) == sorted((n, *size) for (_, *size), n in together.items())


class Watched:
    """An image that reports when it is read."""

    def __init__(self, number, report):
        self.number, self.report = number, report

    def __array__(self, dtype=None, copy=None):
        self.report(self.number)
        return np.eye(20, 24, dtype=np.float32)


def test_reading_ahead_is_bounded():
    asked = set[int]()
    stream = read_micrographs([Watched(i, asked.add) for i in range(60)], n_jobs=2)
    for n_taken in range(1, 20):
        next(stream)
        assert len(asked) <= n_taken + 2 * 2 + 1
    stream.close()


# --- the cache ------------------------------------------------------------------------------------


def test_vectors_are_found_by_pixels_and_settings(tiny_encoder, images, tmp_path, passes):
    tiny_encoder.set_params(memory=tmp_path / "cache").fit(images)
    first = tiny_encoder.encode(images[:10])
    passes.clear()
    again = tiny_encoder.encode(images[:10])
    np.testing.assert_array_equal(again.vectors, first.vectors)
    assert (first.n_cached, again.n_cached, passes) == (0, 10, [])
    assert [each.digest for each in again.info] == [each.digest for each in first.info]
    # Pixels are the key, and batches play no part.
    more = [*images[:10], images[10], images[0].copy()]
    assert tiny_encoder.set_params(batch_size=3).encode(more).n_cached == 11
    by_percentile = {"read_options": {"scaling": "percentile"}}
    changes = ({"grid": "image"}, {"random_state": 1}, {"turns": 2}, {"taps": ["1", "4"]})
    for change in (*changes, {"n_codewords": 5}, by_percentile):
        other = clone(tiny_encoder).set_params(**change).fit(images)
        passes.clear()
        found = other.encode(images[:4])
        assert found.n_cached == 0, change
        assert {shape[0] for shape in passes} == ({6, 2} if "turns" in change else {3, 1})
        plain = other.set_params(memory=None).transform(images[:4])
        np.testing.assert_allclose(found.vectors, plain, atol=1e-5)
    assert (tmp_path / "cache").stat().st_mode & 0o077 == 0, "it holds pickles, and is private"


@pytest.mark.parametrize("pixel_size", [2.0, None])
def test_equal_pixels_of_another_pixel_size(pixel_size, tiny_encoder, tmp_path, passes):
    """With a common scale they are other images for the cache."""
    sizes = (1.0, 2.0, 4.0, 1.0)
    twins = [write_tiff(tmp_path / f"{i}.tif", scene(1.0, 32), s) for i, s in enumerate(sizes)]
    tiny_encoder.set_params(pixel_size=pixel_size, sampling=400, n_codewords=100).fit(twins)
    expected = [tiny_encoder.transform([path])[0] for path in twins]
    passes.clear()
    tiny_encoder.set_params(memory=tmp_path / "cache")
    for path, vector in zip(twins, expected, strict=True):
        np.testing.assert_array_equal(tiny_encoder.transform([path])[0], vector)
    assert passes == [(1, side, side) for side in ((16, 32, 64) if pixel_size else (16,))]
    assert None not in [image.faults for image in tiny_encoder.encode(twins).info], "looked for"


def test_a_damaged_cache_entry_is_computed_again(tiny_encoder, images, tmp_path):
    tiny_encoder.set_params(memory=str(tmp_path)).fit(images)
    vectors, entries = tiny_encoder.transform(images), list(tmp_path.rglob("output.pkl"))
    assert len(entries) == 2 * len(images)  # samples for the codebook, and vectors
    for entry in entries:
        entry.write_bytes(entry.read_bytes()[:40])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # joblib reports each
        np.testing.assert_array_equal(tiny_encoder.transform(images), vectors)
