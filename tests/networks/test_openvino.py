"""Networks that OpenVINO runs: the same vectors, when it is chosen, and what if it cannot."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import hypervlad
from hypervlad import HypercolumnVLAD, MicrographClassifier, make_tem_images, register_backbone

openvino = pytest.importorskip("openvino")

Images = list[NDArray[np.float32]]
Settings = list[dict[str, Any]]


@pytest.fixture(scope="module")
def images() -> Images:
    return make_tem_images(12, size=64, random_state=0)[0]


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings of each network that OpenVINO compiles."""
    compile_model, settings = openvino.Core.compile_model, Settings()

    def watched(core: Any, model: Any, device: str, given: dict[str, Any]) -> Any:
        settings.append(given)
        return compile_model(core, model, device, given)

    monkeypatch.setattr(openvino.Core, "compile_model", watched)
    return settings


@contextmanager
def threads(n: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def own_size(name: str, **parameters: Any) -> HypercolumnVLAD:
    """Return an encoder of images at their own size, run by OpenVINO."""
    usual: dict[str, Any] = {"weights": "random", "n_codewords": 4, "random_state": 0}
    usual |= {"runtime": "openvino", "image_size": None, "blocks": ("joint", "pooled")}
    return HypercolumnVLAD(name, **usual | parameters)


def layers(*modules: torch.nn.Module, taps: list[str]) -> None:
    register_backbone("layers", lambda: torch.nn.Sequential(*modules), taps)


# --- the same vectors -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parameters", "n_compiled"),
    [
        ("mobilenet_v2", {"taps": ["features.1", "features.6"]}, 1),  # once for all sizes
        ("tiny", {"turns": 2}, 3),  # a user's network, for each size, that of turned images, too
        ("tiny", {"taps": ["0", "1", "4"]}, 2),  # of a map that a later layer overwrites
        ("timm/levit_128s", {"image_size": 160}, 1),  # fails at this size, where torch crashed
    ],
)
def test_vectors_are_those_of_torch(
    name: str, parameters: dict[str, Any], n_compiled: int, images: Images, compiled: Settings
) -> None:
    images = [*images[:3], *(image[:40, :48] for image in images[3:6])]
    in_torch = own_size(name, runtime="torch", **parameters).fit(images)
    expected = in_torch.transform(images)
    assert not compiled
    with threads(1):
        found = in_torch.set_params(runtime="openvino").transform(images)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert len(compiled) == n_compiled


@pytest.mark.parametrize(("n_threads", "n_images"), [(1, 5), (2, 2), (2, 5)])
def test_vectors_do_not_depend_on_the_other_images_of_a_batch(
    n_threads: int, n_images: int, images: Images
) -> None:
    with threads(n_threads):
        encoder = own_size("tiny").fit(images[:n_images])
        together = encoder.transform(images[:n_images])
        for image, row in zip(images, together, strict=False):
            np.testing.assert_allclose(encoder.transform([image])[0], row, atol=1e-6)


def test_threads_run_an_image_each_if_there_are_enough(images: Images, compiled: Settings) -> None:
    encoder = own_size("tiny", runtime="torch").fit(images[:1]).set_params(runtime="openvino")
    with threads(2):
        encoder.transform(images[:5])
        encoder.transform(images[:1])
    with threads(1):  # replaces what was compiled
        encoder.transform(images[:1])
    assert [each["NUM_STREAMS"] for each in compiled] == [2, 1, 1]
    assert [each["INFERENCE_NUM_THREADS"] for each in compiled] == [2, 2, 1]
    # Threads of several processes are not pinned to the same cores.
    assert not any(each["ENABLE_CPU_PINNING"] for each in compiled)


def test_the_eight_sizes_used_last_are_kept(images: Images, compiled: Settings) -> None:
    """So that vectors do not depend on how many sizes came before."""
    encoder = own_size("tiny", runtime="torch").fit(images[:1]).set_params(runtime="openvino")

    def n_compiled(*sides: int) -> int:
        compiled.clear()
        for side in sides:
            encoder.transform([images[0][:side, :side]])
        return len(compiled)

    with threads(1):
        assert n_compiled(32, 36, 40, 44, 48, 52, 56, 60, 32) == 8
        assert n_compiled(64) == 1
        assert n_compiled(32, 40, 44, 48, 52, 56, 60, 64) == 0
        assert n_compiled(36) == 1  # the least recently used


def test_maps_of_zeros_are_equal(images: Images) -> None:
    dead = torch.nn.Conv2d(3, 4, 1)
    torch.nn.init.constant_(dead.bias, -100.0)
    layers(dead, torch.nn.ReLU(), taps=["1"])
    assert not own_size("layers", n_codewords=1).fit(images[:2]).transform(images[:2]).any()


# --- what it cannot run ---------------------------------------------------------------------------


class Bessel(torch.nn.Conv2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.special.bessel_j0(super().forward(x))


class Drifting(torch.nn.Conv2d):
    """A layer that does something else in each pass."""

    n_passes = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.n_passes += 1
        return super().forward(x) * self.n_passes


@pytest.mark.parametrize(
    ("layer", "message"),
    [(Bessel, "OpenVINO cannot convert the network"), (Drifting, "OpenVINO's maps differ")],
)
def test_torch_runs_what_cannot_be_converted_or_differs(
    layer: type[torch.nn.Conv2d], message: str, images: Images
) -> None:
    layers(layer(3, 4, 1), taps=["0"])
    encoder = own_size("layers")
    with pytest.warns(UserWarning, match=message) as caught:
        vectors = encoder.fit(images[:2]).transform(images[:2])
    assert len(caught) == 1
    assert np.isfinite(vectors).all()


def test_without_openvino_the_error_says_what_to_install(
    images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    encoder = own_size("mobilenet_v2", taps=["features.1"])
    with pytest.raises(ValueError, match=r'pip install "hypervlad\[openvino\]"'):
        encoder.fit(images)
    assert encoder.set_params(runtime="auto").fit(images).n_images_ == 12


# --- when it is chosen ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parameters", "n_images", "is_chosen"),
    [
        # Worth it for 2**23 pixels; those of images at their own size are taken for 1024 x 1024.
        ("mobilenet_v2", {}, 9, True),
        ("mobilenet_v2", {}, 8, False),
        ("mobilenet_v2", {"turns": 4}, 3, True),
        ("mobilenet_v2", {"turns": 4}, 2, False),
        ("mobilenet_v2", {"runtime": "torch"}, 9, False),
        ("resnet18", {"taps": ["relu"]}, 9, False),  # as fast in torch
        ("tiny", {"taps": None}, 9, False),
        ("timm/test_efficientnet", {"taps": None}, 9, False),  # each size would be converted
    ],
)
def test_openvino_is_chosen_where_it_was_faster_and_there_is_much_to_do(
    name: str,
    parameters: dict[str, Any],
    n_images: int,
    is_chosen: bool,
    images: Images,
    compiled: Settings,
) -> None:
    usual = {"taps": ["features.1"], "runtime": "auto"}
    encoder = own_size(name, **usual | parameters).fit(images[:1])
    assert not compiled
    encoder.transform(images[:n_images])
    assert bool(compiled) == is_chosen


@pytest.mark.filterwarnings("ignore:Classes with only one or two:UserWarning")
def test_answers_depend_on_the_call_alone(
    images: Images, tmp_path: Path, compiled: Settings
) -> None:
    """Bit by bit: fitted, loaded, called again, and one image at a time."""
    _, labels = make_tem_images(12, size=64, random_state=0)
    encoder = own_size("mobilenet_v2", taps=["features.1", "features.6"], runtime="auto")
    model = MicrographClassifier(encoder, calibration_size=0, random_state=0).fit(images, labels)
    model.save(tmp_path / "model.hvlad")
    loaded = hypervlad.load(tmp_path / "model.hvlad")
    compiled.clear()
    answers = []
    for one in (loaded, model, loaded):
        # Single images before and after many: torch runs these, OpenVINO all twelve.
        single = [one.predict_proba(images[i : i + 1])[0] for i in range(3)]
        many, chunks = one.predict_proba(images), one.classify(images, chunk_size=3).proba
        answers.append((np.stack(single), many, chunks))
    assert compiled
    assert not np.array_equal(answers[0][0], answers[0][1][:3])
    for answer in answers[1:]:
        for found, own in zip(answer, answers[0], strict=True):
            np.testing.assert_array_equal(found, own)
