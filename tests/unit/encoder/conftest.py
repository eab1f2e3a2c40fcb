"""What tests of the encoder share."""

import pytest
import torch
from support.counting import shapes_of_passes
from support.tiny import build_tiny

from hypervlad import HypercolumnVLAD, register_backbone
from hypervlad.features import Preprocessing


class Levels(torch.nn.Sequential):
    """Two maps of which anybody can say the values: the pixels, and the means of 2 x 2 pixels."""

    def __init__(self):
        super().__init__(torch.nn.Conv2d(3, 3, 1, bias=False), torch.nn.AvgPool2d(2))
        torch.nn.init.dirac_(self[0].weight)


@pytest.fixture(scope="session")
def levels():
    """Make an encoder whose hypercolumns are pixels as they are, at the image's own size."""
    as_they_are = Preprocessing((0.0,) * 3, (1.0,) * 3, minimum_size=2)
    register_backbone("levels", Levels, ["0"], as_they_are)

    def make(n_codewords=2, **parameters):
        usual = {"image_size": None, "sampling": "anyloc", "random_state": 0}
        usual |= {"weights": "random", "read_options": {"scaling": "dtype"}}
        return HypercolumnVLAD("levels", n_codewords=n_codewords, **usual | parameters)

    return make


@pytest.fixture(scope="session")
def tiny_module():
    """The tiny network with weights of its own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return build_tiny().eval()


@pytest.fixture(scope="session")
def tiny_weights(tiny_module, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "tiny.pth"
    torch.save(tiny_module.state_dict(), path)
    return path


@pytest.fixture
def passes(monkeypatch):
    """The shapes (B, H, W) of all batches that pass the tiny network."""
    return shapes_of_passes(monkeypatch)


@pytest.fixture(scope="session")
def images(texture_images):
    return texture_images[0]
