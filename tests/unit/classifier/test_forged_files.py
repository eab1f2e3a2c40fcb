"""Models forged so that their numbers overflow, or do not fit their network: a clear refusal."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hypervlad import HypercolumnVLAD, ModelFileError
from hypervlad.features.encoder.encoding import NotFiniteError, check_finite


@pytest.fixture
def state(tiny_encoder: HypercolumnVLAD, texture_images: Any) -> Any:
    return tiny_encoder.fit(texture_images[0]).to_state()


def test_vectors_that_are_not_finite_are_reported() -> None:
    rows = np.array([[1.0, 2.0], [np.nan, 0.0]])
    np.testing.assert_array_equal(check_finite(rows[:1], ["a.png"]), rows[:1])
    with pytest.raises(NotFiniteError, match=r"not finite for 1 image, starting with .*b\.png"):
        check_finite(rows, ["a.png", "b.png"])


@pytest.mark.parametrize("blocks", ["joint", ("joint", "pooled")])
def test_a_codebook_of_other_channels_is_reported(
    tiny_encoder: HypercolumnVLAD, texture_images: Any, blocks: Any
) -> None:
    header, arrays = tiny_encoder.set_params(blocks=blocks).fit(texture_images[0]).to_state()
    narrow = {
        name: arrays[name][..., :3] if ".0." in name and array.ndim and len(array) > 1 else array
        for name, array in arrays.items()
    }
    encoder = HypercolumnVLAD.from_state(header, narrow)
    with pytest.raises(ModelFileError, match=r"a layer of 3 channels, but that .* has 6"):
        encoder.transform(texture_images[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": 3000}, "image_size must be a whole number"),
        ({"n_codewords": 5}, "codewords of shapes"),
        ({"blocks": ["joint", "per_layer"]}, "codewords of shapes"),
        ({"sampling": "anyloc"}, "does not fit no components"),
        ({"sampling": "paper"}, "sampling must be"),
        ({"grid": 10**9}, "grid must be"),
    ],
)
def test_parameters_that_the_codebook_does_not_have(state: Any, change: Any, message: str) -> None:
    header, arrays = state
    damaged = header | {"parameters": header["parameters"] | change}
    with pytest.raises(ModelFileError, match=message):
        HypercolumnVLAD.from_state(damaged, arrays)


def test_taps_that_the_network_does_not_have(state: Any, texture_images: Any) -> None:
    header, arrays = state
    fitted = header["fitted"] | {"taps_": ["1", "3", "nowhere"]}
    encoder = HypercolumnVLAD.from_state(header | {"fitted": fitted}, arrays)
    with pytest.raises(ModelFileError, match=r"does not fit the network 'tiny'.*'nowhere'"):
        encoder.transform(texture_images[0])
