"""Networks of a user: what is tapped, which weights, and mistakes."""

from collections import OrderedDict

import numpy as np
import pytest
import torch
from support.oracle import check_against_oracle
from support.tiny import Tiny, build_tiny

from hypervlad import HypercolumnVLAD, register_backbone
from hypervlad.features import get_backbone, tap_names


@pytest.fixture(scope="module")
def images():
    return list(np.random.default_rng(0).random((3, 18, 25), dtype=np.float32))


def encoder(name, **parameters):
    usual = {"weights": "random", "image_size": 32, "n_codewords": 2, "random_state": 0}
    return HypercolumnVLAD(name, **usual | parameters)


def starts_with_nothing():
    """The first layer returns the batch itself, for any kind of tensor; the next works in place."""
    convolution = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(inplace=True))
    return torch.nn.Sequential(OrderedDict(first=torch.nn.Identity(), second=convolution))


@pytest.mark.parametrize(
    ("build", "taps"),
    [
        (build_tiny, ["0", "3"]),  # a later layer changes the first in place
        (build_tiny, ["4", "1"]),  # in the order requested
        (build_tiny, ["2"]),
        (starts_with_nothing, ["first", "second.0"]),
    ],
)
@pytest.mark.parametrize("is_in_inference_mode", [False, True])
def test_maps_are_what_layers_return(build, taps, is_in_inference_mode, images):
    """Whatever later layers do with it, and in a caller's inference mode."""
    module = build()
    register_backbone("own", build, taps)
    with torch.inference_mode(is_in_inference_mode):
        check_against_oracle(images, "own", module=module, image_size=32, n_codewords=3)


def test_nothing_after_the_last_tap_runs(images):
    class Fails(torch.nn.Conv2d):
        def forward(self, x):
            raise AssertionError("ran past the last tap")

    layers = torch.nn.Conv2d(3, 4, 1), Fails(4, 4, 1)
    register_backbone("own", lambda: torch.nn.Sequential(*layers), ["0"])
    assert np.isfinite(encoder("own").fit_transform(images)).all()


def test_random_weights_are_always_the_same_and_leave_torchs_generator_alone(images):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    digests = {encoder("tiny").fit(images).weights_digest_ for _ in range(2)}
    assert len(digests) == 1
    assert torch.equal(torch.rand(1), expected)


def test_names_of_layers():
    assert tap_names("tiny") == ["0", "1", "2", "3", "4"]
    assert isinstance(get_backbone("tiny").builder(), Tiny)


@pytest.mark.parametrize(
    "arguments",
    [
        ("", build_tiny, ["0"]),
        ("timm/own", build_tiny, ["0"]),
        ("x", 3, ["0"]),
        ("x", build_tiny, []),
    ],
)
def test_what_cannot_be_registered(arguments):
    with pytest.raises(ValueError):
        register_backbone(*arguments)


class Unused(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.other = torch.nn.Conv2d(3, 1, 1), torch.nn.Conv2d(3, 1, 1)

    def forward(self, x):
        return self.used(x)


@pytest.mark.parametrize(
    ("build", "tap", "message"),
    [
        (lambda: 7, "0", r"returned int, expected a torch\.nn\.Module"),
        (
            lambda: torch.nn.Sequential(torch.nn.Conv2d(3, 1, 1), torch.nn.Flatten()),
            "1",
            r"gives \(1, 1024\), not a map",
        ),
        (Unused, "other", r"never calls its layer\(s\) \['other'\]"),
    ],
)
def test_networks_that_have_no_maps(build, tap, message, images):
    register_backbone("own", build, [tap])
    with pytest.raises(ValueError, match=message):
        encoder("own").fit(images)


def test_normalisations_of_a_users_network_are_not_folded(images):
    """It may use a convolution's output twice."""

    class Twice(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 3, 3, padding=1)
            self.norm = torch.nn.BatchNorm2d(3)
            self.norm.running_mean.fill_(0.5)
            self.last = torch.nn.Identity()

        def forward(self, x):
            seen = self.conv(x)
            return self.last(self.norm(seen) + seen)

    register_backbone("own", Twice, ["norm", "last"])
    check_against_oracle(images, "own", module=Twice(), image_size=32, n_codewords=3)
