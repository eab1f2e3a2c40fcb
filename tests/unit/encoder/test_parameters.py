"""Parameters: which are refused, which take effect when, and what a saved encoder keeps."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from support.counting import CountingImage
from support.model_files import forged
from support.tiny import build_tiny

import hypervlad
from hypervlad import HypercolumnVLAD, ModelFileError, register_backbone
from hypervlad.features import Preprocessing
from hypervlad.images import UnknownPixelSizeWarning

# Each of them another vector, if it were taken at once.
CHANGED = {
    "backbone": "resnet18",
    "image_size": 24,
    "pixel_size": 2.0,
    "grid": 30,
    "turns": 4,
    "n_codewords": 7,
    "blocks": ("joint", "per_layer", "pooled"),
    "sampling": "luo2021",
    "read_options": {"scaling": "minmax"},
    "taps": ["1"],
    "random_state": 5,
}
OF_THE_RUN = {
    "batch_size": 5,
    "device": "cpu",
    "runtime": "torch",
    "on_error": "skip",
    "verbose": False,
    "memory": None,
}


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (
            {"image_size": 3},
            "image_size must be a whole number of at least 4 and at most 2048 or None, not 3",
        ),
        ({"image_size": 2049}, "image_size must be"),
        ({"sampling": "paper"}, "sampling must be .*'windows', 'luo2021', 'anyloc', not 'paper'"),
        ({"blocks": "all"}, "blocks must be one of 'joint', 'per_layer' or a sequence .*'all'"),
        ({"blocks": ["pooled"]}, "blocks must contain 'joint' or 'per_layer', and each once"),
        ({"blocks": ["joint", "joint"]}, "blocks must contain .* each once"),
        ({"blocks": ["joint", "pooled", "pooled_unit"]}, "leave one of the two out"),
        ({"blocks": ["joint", "shape"]}, "blocks contain 'shape'.* these are whole images"),
        ({"turns": 3}, "turns must be one of 1, 2, 4, 8, not 3"),
        ({"grid": 0}, "grid must be .* or a number of random pixels"),
        ({"taps": ["9"]}, "has no layer '9'.* Its layers: 0, 1, 2"),
        ({"taps": []}, "taps must be one or more"),
        ({"taps": ["0", "0"]}, "taps must be one or more"),
        ({"read_options": {"banners": "remove"}}, "did you mean 'banner'"),
        ({"device": "meta"}, 'device must be "auto", "cpu" or "cuda"'),
        ({"pixel_size": 0}, "pixel_size must be None or nanometres per pixel"),
        ({"weights": "pretrained"}, "registered by you and has no published weights"),
        ({"weights": "no/such.pth"}, "no/such.pth: no such weights file"),
        ({"weights": "n" * 5000 + ".pth"}, "no such weights file"),
        ({"weights": ""}, "the path of the weights is empty"),
    ],
)
def test_invalid_parameters_are_named_before_reading(parameters, message, tiny_encoder, images):
    image = CountingImage(images[0])
    with pytest.raises(ValueError, match=message):
        tiny_encoder.set_params(**parameters).fit([image])
    assert image.n_reads == 0


def test_parameters_set_after_fit_wait_for_the_next(tiny_encoder, images, tmp_path):
    images = images[:8]
    vectors = tiny_encoder.fit_transform(images)
    words, parts = tiny_encoder.codeword_maps(images[0]), tiny_encoder.feature_blocks
    fingerprint = tiny_encoder.fingerprint()
    tiny_encoder.save(tmp_path / "before.hvlad")
    tiny_encoder.set_params(**CHANGED)
    np.testing.assert_array_equal(tiny_encoder.transform(images), vectors)
    np.testing.assert_array_equal(tiny_encoder.codeword_maps(images[0]), words)
    assert tiny_encoder.feature_blocks == parts
    assert tiny_encoder.fingerprint() == fingerprint
    # A file has the parameters of `fit`, not those set since.
    tiny_encoder.save(tmp_path / "after.hvlad")
    loaded = hypervlad.load(tmp_path / "after.hvlad")
    first = hypervlad.load(tmp_path / "before.hvlad").get_params()
    assert loaded.get_params() | {"random_state": 0} == first
    assert (first["turns"], first["taps"]) == (1, ("1", "3", "4"))
    np.testing.assert_array_equal(loaded.transform(images), vectors)
    tiny_encoder.set_params(backbone="tiny", pixel_size=None).fit(images)
    assert (tiny_encoder.fitted_params_.turns, tiny_encoder.taps_) == (4, ("1",))
    assert tiny_encoder.transform(images).shape[1] != vectors.shape[1]


@pytest.mark.filterwarnings("ignore::hypervlad.images.UnknownPixelSizeWarning")
def test_each_parameter_is_of_the_vectors_or_of_the_run(tiny_encoder, images, tiny_weights):
    """A fingerprint changes with those that decide a vector, and with no other."""
    known = {*CHANGED, *OF_THE_RUN, "weights"}
    assert set(HypercolumnVLAD().get_params()) == known, "say of a new one which it is"
    fingerprint = clone(tiny_encoder).fit(images[:4]).fingerprint()
    register_backbone("other", build_tiny, ["1", "3", "4"], Preprocessing(minimum_size=4))
    changed = CHANGED | {"weights": tiny_weights, "backbone": "other"}
    for name, value in (changed | OF_THE_RUN).items():
        other = clone(tiny_encoder).set_params(**{name: value}).fit(images[:4])
        assert (other.fingerprint() != fingerprint) == (name in changed), name


# --- files ----------------------------------------------------------------------------------------


def test_an_embedded_backbone_needs_no_weights_file(images, tiny_weights, tmp_path):
    weights = tmp_path / "w.pth"
    weights.write_bytes(tiny_weights.read_bytes())
    encoder = HypercolumnVLAD("tiny", weights=weights, image_size=8, n_codewords=2, random_state=0)
    vectors = encoder.fit_transform(images)
    encoder.save(tmp_path / "with.hvlad", include_backbone=True)
    encoder.save(tmp_path / "without.hvlad")
    moved = weights.rename(tmp_path / "moved.pth")
    loaded = hypervlad.load(tmp_path / "with.hvlad")
    np.testing.assert_array_equal(loaded.transform(images), vectors)
    loaded.save(tmp_path / "again.hvlad", include_backbone=True)
    assert (tmp_path / "again.hvlad").read_bytes() == (tmp_path / "with.hvlad").read_bytes()
    with pytest.raises(ValueError, match=r"from a file, 'w.pth', which is not beside"):
        hypervlad.load(tmp_path / "without.hvlad").transform(images)
    again = hypervlad.load(tmp_path / "without.hvlad", weights=moved)
    np.testing.assert_array_equal(again.transform(images), vectors)
    state = torch.load(moved)
    torch.save({key: 2 * value for key, value in state.items()}, moved)
    with pytest.raises(ValueError, match="not those that the model was trained with"):
        hypervlad.load(tmp_path / "without.hvlad", weights=moved).transform(images)


def test_a_loaded_encoder_assumes_a_pixel_size_where_none_is_stated(tiny_encoder, images, tmp_path):
    stated = {"read_options": {"pixel_size": 4.0}, "pixel_size": 2.0}
    encoder = tiny_encoder.set_params(**stated).fit(images[:6])
    unstated = clone(encoder).set_params(read_options=None)
    with pytest.warns(UnknownPixelSizeWarning):
        unstated.fit(images[:6])
    unstated.save(tmp_path / "e.hvlad")
    loaded = hypervlad.load(tmp_path / "e.hvlad", pixel_size=4.0)
    assert loaded.codeword_maps(images[0]).shape == encoder.codeword_maps(images[0]).shape
    with pytest.raises(ValueError):
        hypervlad.load(tmp_path / "e.hvlad", pixel_size=-1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbone": "elsewhere"}, "'elsewhere', which is not registered here"),
        ({"grid": None}, r"missing parameters \['grid'\].*another version.*train it again"),
        ({"memory": "evil/cache"}, r"unknown parameters \['memory'\]"),
        ({"n_codewords": 5}, "codewords of shapes"),
    ],
)
def test_files_with_other_parameters_are_refused(change, message, tiny_encoder, images, tmp_path):
    def edit(header, _):
        parameters = header["parameters"] | change
        missing = [name for name, value in change.items() if value is None]
        header["parameters"] = {k: v for k, v in parameters.items() if k not in missing}

    with pytest.raises(ModelFileError, match=message):
        hypervlad.load(forged(tiny_encoder.fit(images[:4]), tmp_path / "e.hvlad", edit))
