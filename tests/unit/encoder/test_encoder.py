"""The transformer: conformance, invariances, seeds, files, grids, batches, the cache."""

from __future__ import annotations

import os
import pickle
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.base import clone

import hypervlad
from hypervlad import HypercolumnVLAD, ImageReadError, ModelFileError
from hypervlad.common.modelfile import write_model
from hypervlad.features.backbones import TappedNetwork, build_network
from hypervlad.features.encoder import codebook_fit
from hypervlad.features.encoder.encoding import EncoderParams, random_pixels
from hypervlad.images import SkippedImagesWarning, read_micrographs

Images = list[np.ndarray]

JOINT, PER_LAYER = ("joint",), ("per_layer",)
BOTH = JOINT + PER_LAYER


def test_output_is_float32_of_the_promised_width(
    tiny_encoder: HypercolumnVLAD, images: Images
) -> None:
    vectors = tiny_encoder.fit(images).transform(images)
    assert vectors.dtype == np.float32
    assert vectors.shape == (24, 4 * (6 + 8 + 10))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    names = tiny_encoder.get_feature_names_out()
    assert len(names) == 96
    assert names[0] == "hypercolumnvlad0"


@pytest.mark.parametrize(
    ("blocks", "grid", "sampling", "turns"),
    [
        ((*JOINT, "pooled"), "finest", "anyloc", 1),
        ((*JOINT, "pooled_unit"), "image", 300, 8),
        ((*JOINT, "pooled"), 30, "anyloc", 8),
        ((*PER_LAYER, "pooled_unit"), "finest", 300, 8),
        ((*PER_LAYER, "pooled"), 30, 300, 1),
        ((*BOTH, "pooled"), "finest", "anyloc", 8),
        ((*BOTH, "pooled_unit"), "image", 300, 1),
    ],
)
def test_every_grid_and_codebook_is_the_sum_over_explicit_hypercolumns(
    blocks: Any, grid: Any, sampling: Any, turns: Any, tiny_encoder: HypercolumnVLAD, images: Images
) -> None:
    encoder = tiny_encoder.set_params(blocks=blocks, grid=grid, turns=turns, sampling=sampling)
    encoder.fit(images[:6])
    ours = encoder.transform(images[:1])[0]
    np.testing.assert_allclose(ours, _explicit(encoder, images[0]), atol=1e-4)


def _explicit(encoder: HypercolumnVLAD, image: np.ndarray) -> np.ndarray:
    """Encode with upsampled NumPy hypercolumns and a loop over positions, in float64."""
    batch = encoder.loader().load_batch(image)
    upright = batch.tensors.numpy()
    points = slice(None)
    if not isinstance(encoder.grid, str):
        points = random_pixels(encoder.seed_, batch.keys[0], 256, encoder.grid)
    sums, means = [0.0] * len(encoder.codebook_.codewords), 0.0
    for turn in range(encoder.turns):
        copy = upright[..., ::-1] if turn >= 4 else upright
        copy = np.ascontiguousarray(np.rot90(copy, turn % 4, axes=(2, 3)))
        with torch.no_grad():
            maps = encoder.network()(torch.from_numpy(copy))
        raw = [layer[0].permute(1, 2, 0).double().numpy() for layer in maps]
        more = _explicit_sums(encoder, raw, points)
        sums = [one + other for one, other in zip(sums, more, strict=True)]
        means = means + _averages(encoder, raw)
    n_joint = "joint" in encoder.blocks
    kinds = [_normalised(kind) for kind in (sums[:n_joint], sums[n_joint:]) if kind]
    means = means / (encoder.turns * len(means) ** 0.5)
    if "pooled_unit" in encoder.blocks:
        means = means / np.linalg.norm(means)
    return np.concatenate([*kinds, means])


def _normalised(sums: list[Any]) -> np.ndarray:
    """Each codeword's block has unit length, and then all of one kind together."""
    blocks = [each / np.linalg.norm(each, axis=1, keepdims=True).clip(1e-12) for each in sums]
    joined = np.concatenate([block.ravel() for block in blocks])
    return joined / np.linalg.norm(joined)


def _explicit_sums(
    encoder: HypercolumnVLAD, raw: list[np.ndarray], points: Any
) -> list[np.ndarray]:
    layers = [p.apply(layer) for p, layer in zip(encoder.codebook_.projections, raw, strict=True)]
    books = encoder.codebook_.codewords
    parts = [layers] if "joint" in encoder.blocks else []
    parts += [[layer] for layer in layers] if "per_layer" in encoder.blocks else []
    sums = []
    for part, words in zip(parts, books, strict=True):
        own = "joint" in encoder.blocks and len(part) == 1
        is_dense = isinstance(encoder.grid, str)
        size = part[0].shape[:2] if own and is_dense else (16, 16)
        columns = np.concatenate([_upsampled(layer, size) for layer in part], axis=1)[points]
        residuals = np.zeros(words.shape)
        for column in columns:
            nearest = ((column - words.astype(float)) ** 2).sum(1).argmin()
            residuals[nearest] += column - words[nearest]
        sums.append(residuals)
    return sums


def _averages(encoder: HypercolumnVLAD, raw: list[np.ndarray]) -> np.ndarray:
    pairs = zip(encoder.codebook_.projections, raw, strict=True)
    return np.concatenate([(layer.mean((0, 1)) - p.mean) / p.std for p, layer in pairs])


# Eight turned copies of an image are encoded, each with eight turns.
@pytest.mark.slow
@pytest.mark.parametrize("turns", [1, 2, 4, 8])
@given(turn=st.integers(0, 7), image_size=st.sampled_from([16, None]))
@settings(max_examples=16, deadline=None)
def test_four_turns_are_invariant_to_rotation_and_eight_to_mirroring(
    turns: Any, turn: int, image_size: Any
) -> None:
    rng = np.random.default_rng(0)
    image = rng.random((16, 16) if image_size else (24, 16), dtype=np.float32)
    image[:6, :5] = 0  # a corner that tells sides and hands apart
    turned = np.rot90(image[:, ::-1] if turn >= 4 else image, turn % 4)
    encoder = HypercolumnVLAD(
        "tiny",
        weights="random",
        image_size=image_size,
        turns=turns,
        blocks=(*BOTH, "pooled"),
        n_codewords=3,
        sampling=300,
        random_state=0,
    ).fit([rng.random((16, 16), dtype=np.float32)])
    vectors = encoder.transform([image, turned])
    is_same = np.allclose(vectors[0], vectors[1], atol=1e-4)
    assert is_same == (turn == 0 or turns == 8 or (turns == 4 and turn < 4))


def _upsampled(layer: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    enlarged = torch.nn.functional.interpolate(
        torch.from_numpy(layer).permute(2, 0, 1)[None], size, mode="bilinear"
    )
    return enlarged[0].permute(1, 2, 0).reshape(-1, layer.shape[2]).numpy()


# --- seeds, order, batches --------------------------------------------------------------------


@pytest.mark.parametrize("grid", ["finest", 40])
def test_order_neighbours_and_batches_do_not_matter(
    grid: Any, tiny_encoder: HypercolumnVLAD, images: Images
) -> None:
    order = np.random.default_rng(1).permutation(len(images))
    tiny_encoder.set_params(grid=grid)
    expected = clone(tiny_encoder).fit(images).transform(images)
    shuffled = clone(tiny_encoder)
    shuffled.batch_size = 5
    again = shuffled.fit([images[i] for i in order]).transform([images[i] for i in order])
    np.testing.assert_allclose(again, expected[order], atol=1e-5)
    alone = shuffled.transform([images[3]])
    np.testing.assert_allclose(alone[0], expected[3], atol=1e-5)


def test_mixed_sizes(tiny_encoder: HypercolumnVLAD, images: Images) -> None:
    mixed = [*images[:4], images[4][:, :12], np.repeat(images[5][..., None], 3, 2), images[6].T]
    encoder = tiny_encoder.set_params(image_size=None).fit(mixed)
    vectors = encoder.transform(mixed)
    assert np.isfinite(vectors).all()
    for i in (4, 6):
        np.testing.assert_allclose(encoder.transform(mixed[i : i + 1])[0], vectors[i], atol=1e-5)
    assert encoder.codeword_maps(mixed[4]).shape[1:] != encoder.codeword_maps(mixed[6]).shape[1:]


def test_codeword_maps_hold_codewords(tiny_encoder: HypercolumnVLAD, images: Images) -> None:
    maps = tiny_encoder.fit(images).codeword_maps(images[0])
    assert maps.shape == (1, 16, 16)
    assert set(np.unique(maps)) <= set(range(4))
    per_layer = clone(tiny_encoder).set_params(blocks="per_layer").fit(images)
    assert per_layer.codeword_maps(images[0]).shape == (3, 16, 16)


# --- scikit-learn's machinery -----------------------------------------------------------------


def test_clone_and_pickle_carry_no_network(tiny_encoder: HypercolumnVLAD, images: Images) -> None:
    vectors = tiny_encoder.fit_transform(images)
    assert not hasattr(clone(tiny_encoder), "_tapped_network")
    pickled = pickle.dumps(tiny_encoder)
    assert b"torch" not in pickled
    np.testing.assert_array_equal(pickle.loads(pickled).transform(images), vectors)


# --- files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("include_backbone", [False, True])
def test_saved_and_loaded_encodes_bit_identically(
    include_backbone: bool, tiny_encoder: HypercolumnVLAD, images: Images, tmp_path: Path
) -> None:
    tiny_encoder.set_params(grid=50, read_options={"scaling": "minmax"})
    vectors = tiny_encoder.fit_transform(images)
    tiny_encoder.save(tmp_path / "e.hvlad", include_backbone=include_backbone)
    loaded = hypervlad.load(tmp_path / "e.hvlad")
    np.testing.assert_array_equal(loaded.transform(images), vectors)
    assert loaded.get_params()["n_codewords"] == 4
    loaded.save(tmp_path / "again.hvlad", include_backbone=include_backbone)
    assert (tmp_path / "again.hvlad").read_bytes() == (tmp_path / "e.hvlad").read_bytes()


def test_an_embedded_backbone_needs_no_weights_file(images: Images, tmp_path: Path) -> None:
    state = build_network("tiny", "random").module.state_dict()
    weights = tmp_path / "w.pth"
    torch.save({key: value * 2 for key, value in state.items()}, weights)
    encoder = HypercolumnVLAD("tiny", weights=weights, image_size=8, n_codewords=2, random_state=0)
    vectors = encoder.fit_transform(images)
    encoder.save(tmp_path / "with.hvlad", include_backbone=True)
    encoder.save(tmp_path / "without.hvlad")
    moved = weights.rename(tmp_path / "moved.pth")
    loaded = hypervlad.load(tmp_path / "with.hvlad")
    np.testing.assert_array_equal(loaded.transform(images), vectors)
    with pytest.raises(ValueError, match=r"from a file, 'w.pth', which is not looked for"):
        hypervlad.load(tmp_path / "without.hvlad").transform(images)
    again = hypervlad.load(tmp_path / "without.hvlad", weights=moved)
    np.testing.assert_array_equal(again.transform(images), vectors)
    torch.save(state, moved)
    with pytest.raises(ValueError, match="not those that the model was trained with"):
        hypervlad.load(tmp_path / "without.hvlad", weights=moved).transform(images)


def test_loading_with_an_unregistered_backbone_is_an_error(
    tiny_encoder: HypercolumnVLAD, images: Images
) -> None:
    header, arrays = tiny_encoder.fit(images).to_state()
    header["parameters"]["backbone"] = "of_another_lab"
    with pytest.raises(ModelFileError, match="'of_another_lab', which is not registered here"):
        HypercolumnVLAD.from_state(header, arrays)


# --- the cache --------------------------------------------------------------------------------


def test_the_cache_key_holds_pixels_and_everything_that_decides_a_vector(
    tiny_encoder: HypercolumnVLAD, images: Images, tmp_path: Path, passes: list[tuple[int, ...]]
) -> None:
    tiny_encoder.set_params(memory=str(tmp_path / "cache")).fit(images)
    vectors = tiny_encoder.transform(images[:10])
    passes.clear()
    np.testing.assert_array_equal(tiny_encoder.transform(images[:10]), vectors)
    assert passes == []
    tiny_encoder.batch_size = 3
    tiny_encoder.transform([*images[:10], images[10], images[0].copy()])
    assert sum(n for n, *_ in passes) == 1
    tiny_encoder.fitted_params_ = replace(tiny_encoder.fitted_params_, grid="image")
    tiny_encoder.codebook_ = replace(tiny_encoder.codebook_, joint=-tiny_encoder.codebook_.joint)
    assert not np.array_equal(tiny_encoder.transform(images[:10]), vectors)
    assert sum(n for n, *_ in passes) == 11


@pytest.mark.skipif(os.name != "posix", reason="modes of folders are a POSIX matter")
def test_the_cache_folder_is_private(
    tiny_encoder: HypercolumnVLAD, images: Images, tmp_path: Path
) -> None:
    folder = tmp_path / "cache"
    tiny_encoder.set_params(memory=folder).fit(images).transform(images)
    assert folder.stat().st_mode & 0o077 == 0


# --- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (
            {"image_size": 3},
            "image_size must be a whole number of at least 4 and at most 2048 or None, not 3",
        ),
        ({"sampling": "paper"}, "sampling must be .*'windows', 'luo2021', 'anyloc', not 'paper'"),
        ({"blocks": "all"}, "blocks must be one of 'joint', 'per_layer' or a sequence .*'all'"),
        ({"blocks": ["pooled"]}, "blocks must contain 'joint' or 'per_layer', and each once"),
        ({"blocks": ["joint", "joint"]}, "blocks must contain .* each once"),
        ({"blocks": ["joint", "pooled", "pooled_unit"]}, "leave one of the two out"),
        ({"turns": 3}, "turns must be one of 1, 2, 4, 8, not 3"),
        ({"grid": 0}, "grid must be .* or a number of random pixels"),
        ({"taps": ["77"]}, "has no layer '77'"),
        ({"read_options": {"banners": "remove"}}, "did you mean 'banner'"),
        ({"device": "meta"}, 'device must be "auto", "cpu" or "cuda"'),
        ({"pixel_size": 0}, "pixel_size must be None or nanometres per pixel"),
    ],
)
def test_invalid_parameters_are_named_before_images_are_read(
    parameters: dict[str, Any], message: str, tiny_encoder: HypercolumnVLAD
) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_encoder.set_params(**parameters).fit(["no/such/image.png"])


def test_unreadable_images_are_named_or_skipped(
    tiny_encoder: HypercolumnVLAD, images: Images, tmp_path: Path
) -> None:
    bad = tmp_path / "broken.png"
    bad.write_bytes(b"\x89PNG\r\n\x1a\n broken")
    good = tmp_path / "good.png"
    Image.fromarray((255 * images[0]).astype(np.uint8)).save(good)
    mixed = [images[1], bad, str(good)]
    with pytest.raises(ImageReadError, match=r"broken\.png"):
        tiny_encoder.fit(mixed)
    tiny_encoder.set_params(on_error="skip")
    with pytest.warns(SkippedImagesWarning, match=r"broken\.png"):
        tiny_encoder.fit(mixed)
    assert tiny_encoder.n_images_ == 2


def test_threads_that_share_a_model_do_not_mix_their_images(
    tiny_encoder: HypercolumnVLAD, images: Images
) -> None:
    expected = tiny_encoder.fit_transform(images)
    with ThreadPoolExecutor(6) as pool:
        for _ in range(4):
            rows = pool.map(lambda image: tiny_encoder.transform([image])[0], images)
            np.testing.assert_allclose(np.stack(list(rows)), expected, atol=1e-5)


class Watched:
    """An image that reports when it is read."""

    def __init__(self, number: int, report: Callable[[int], None]) -> None:
        self.number, self.report = number, report

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        self.report(self.number)
        return np.eye(20, 24, dtype=np.float32)


def test_reading_ahead_is_bounded() -> None:
    asked = set[int]()
    stream = read_micrographs([Watched(i, asked.add) for i in range(60)], n_jobs=2)
    for n_taken in range(1, 20):
        next(stream)
        assert len(asked) <= n_taken + 2 * 2 + 1
    stream.close()


@pytest.mark.parametrize("how", ["transform", "extract_features"])
def test_the_next_batches_are_read_while_one_is_computed_and_no_more(
    how: str,
    tiny_encoder: HypercolumnVLAD,
    images: Images,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: set[int] = set()
    in_next_batch = threading.Event()
    most_ahead: list[int] = []

    def note(number: int) -> None:
        asked.add(number)
        if number >= 4:
            in_next_batch.set()

    encoder = tiny_encoder.fit(images)
    encoder.batch_size = 4
    original = TappedNetwork._forward

    def patient(self: TappedNetwork, batch: torch.Tensor) -> Any:
        assert in_next_batch.wait(20)
        most_ahead.append(len(asked) - 4 * (len(most_ahead) + 1))
        return original(self, batch)

    monkeypatch.setattr(TappedNetwork, "_forward", patient)
    images = [Watched(i, note) for i in range(40)]
    if how == "transform":
        encoder.transform(images)
    else:
        hypervlad.extract_features(images, encoder, out=tmp_path / "f.parquet")
    assert len(most_ahead) == 10
    assert max(most_ahead) <= 2 * 4 + 1


def test_the_codebook_samples_a_bounded_number_of_images(
    tiny_encoder: HypercolumnVLAD,
    images: Images,
    monkeypatch: pytest.MonkeyPatch,
    passes: list[tuple[int, ...]],
) -> None:
    monkeypatch.setattr(codebook_fit, "MAX_SAMPLED_IMAGES", 6)
    first = clone(tiny_encoder).fit(images)
    assert 1 <= sum(n for n, *_ in passes) < 16
    assert first.n_images_ == len(images)
    again = clone(tiny_encoder).fit(images[::-1])
    for name, array in first.codebook_.to_arrays().items():
        np.testing.assert_allclose(again.codebook_.to_arrays()[name], array, atol=1e-5)
    copies = clone(tiny_encoder).fit([images[0]] * 30)
    assert copies.transform(images[:1]).shape == (1, 96)


def test_a_file_that_lacks_a_parameter_or_brings_a_cache_is_an_error(
    tiny_encoder: HypercolumnVLAD, images: Images, tmp_path: Path
) -> None:
    header, arrays = tiny_encoder.fit(images).to_state()
    forged = {**header, "parameters": {**header["parameters"], "memory": "evil/cache"}}
    with pytest.raises(ModelFileError, match=r"unknown parameters \['memory'\]"):
        HypercolumnVLAD.from_state(forged, arrays)
    del header["parameters"]["grid"]
    write_model(tmp_path / "old.hvlad", "hypercolumn_vlad", header, arrays)
    message = r"old\.hvlad: .*missing parameters \['grid'\].*another version.*train it again"
    with pytest.raises(ModelFileError, match=message):
        hypervlad.load(tmp_path / "old.hvlad")


# Each of them another vector, if it were taken at once.
CHANGED: dict[str, Any] = {
    "backbone": "resnet18",
    "image_size": 24,
    "pixel_size": 2.0,
    "grid": 30,
    "turns": 4,
    "n_codewords": 7,
    "blocks": ("joint", "per_layer", "pooled"),
    "sampling": "luo2021",
    "read_options": {"scaling": "minmax"},
}


# Each of these parameters is changed, and all images are encoded again.
@pytest.mark.slow
def test_parameters_set_after_fit_change_no_vector(
    tiny_encoder: HypercolumnVLAD, images: Images, tmp_path: Path
) -> None:
    tiny_encoder.set_params(memory=str(tmp_path / "cache"))
    vectors = tiny_encoder.fit_transform(images)
    words, parts = tiny_encoder.codeword_maps(images[0]), tiny_encoder.feature_blocks
    before = tiny_encoder.to_state()[0]
    for name, value in CHANGED.items():
        changed = pickle.loads(pickle.dumps(tiny_encoder)).set_params(
            **{name: value, "memory": None}
        )
        np.testing.assert_array_equal(changed.transform(images), vectors, err_msg=name)
        np.testing.assert_array_equal(changed.codeword_maps(images[0]), words, err_msg=name)
        assert changed.feature_blocks == parts
        assert changed.to_state()[0] == before
    tiny_encoder.set_params(**CHANGED, on_error="skip")
    np.testing.assert_array_equal(tiny_encoder.transform(images), vectors)  # from the cache
    tiny_encoder.save(tmp_path / "e.hvlad")
    loaded = hypervlad.load(tmp_path / "e.hvlad")
    assert loaded.fitted_params_ == tiny_encoder.fitted_params_
    assert loaded.get_params() | CHANGED == loaded.set_params(**CHANGED).get_params()
    np.testing.assert_array_equal(loaded.transform(images), vectors)
    tiny_encoder.set_params(backbone="tiny", pixel_size=None).fit(images)
    assert tiny_encoder.fitted_params_.turns == 4
    assert tiny_encoder.transform(images).shape[1] > vectors.shape[1]


def test_no_parameter_is_forgotten() -> None:
    """One that EncoderParams lacks belongs to the run, or is a separate fitted attribute."""
    of_the_run = {"memory", "batch_size", "device", "runtime", "on_error", "verbose"}
    recipe = {field.name for field in fields(EncoderParams)}
    rest = set(HypercolumnVLAD().get_params()) - recipe - of_the_run
    assert rest == {"weights", "taps", "random_state"}
    assert set(CHANGED) == recipe


def test_a_damaged_cache_entry_is_computed_again(
    tiny_encoder: HypercolumnVLAD, images: Images, tmp_path: Path
) -> None:
    tiny_encoder.set_params(memory=str(tmp_path)).fit(images)
    vectors = tiny_encoder.transform(images)
    entries = list(tmp_path.rglob("output.pkl"))
    assert len(entries) == 2 * len(images)  # samples for the codebook, and vectors
    for entry in entries:
        entry.write_bytes(entry.read_bytes()[:40])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # joblib reports each
        np.testing.assert_array_equal(tiny_encoder.transform(images), vectors)


def test_a_fit_that_fails_leaves_the_model_as_it_was(
    tiny_encoder: HypercolumnVLAD, images: Images
) -> None:
    vectors = tiny_encoder.fit_transform(images)
    tiny_encoder.set_params(taps=["4", "0"])
    with pytest.raises(ImageReadError):
        tiny_encoder.fit(["no/such.png"])
    np.testing.assert_array_equal(tiny_encoder.transform(images), vectors)
    back = pickle.loads(pickle.dumps(tiny_encoder))
    np.testing.assert_array_equal(back.transform(images), vectors)
