"""The encoder with real weights, on real images: an oracle, and order."""

import pytest
import torch
from support.networks import torchvisions_own
from support.oracle import check_against_oracle

import hypervlad


@pytest.mark.real
@pytest.mark.parametrize(("codebook", "n_codewords"), [("joint", 200), ("per_layer", 16)])
def test_real_images_agree_with_the_oracle(codebook, n_codewords, shared, mobilenet_weights):
    data = hypervlad.load_image_folder(shared / "data" / "nanofibre")
    images = [hypervlad.read_image(path)[:120, :160] for path in data.images[:4]]
    module = torchvisions_own("mobilenet_v2")
    module.load_state_dict(torch.load(mobilenet_weights), strict=False)
    check_against_oracle(images, "mobilenet_v2", codebook, module=module, n_codewords=n_codewords)
