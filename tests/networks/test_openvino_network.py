"""Networks that OpenVINO runs: the same maps, when it is chosen, and what happens if it cannot."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.base import clone

import hypervlad.features.encoder.encoding
from hypervlad import HypercolumnVLAD, MicrographClassifier, make_tem_images
from hypervlad.common.progress import announced, n_announced
from hypervlad.features import register_backbone
from hypervlad.features.backbones import build_network
from hypervlad.features.backbones.tapped_network import OpenVINONetwork
from hypervlad.features.hypercolumns import feature_maps

openvino = pytest.importorskip("openvino")


@pytest.fixture(scope="module")
def images() -> list[NDArray[np.float32]]:
    return make_tem_images(8, size=64, random_state=0)[0]


def _both(name: str, *sizes: tuple[int, int], taps: Any = None) -> tuple[Any, OpenVINONetwork]:
    """Compare maps of torch and OpenVINO; return the network and its converted form."""
    network = build_network(name, "random", taps)
    for size in sizes:
        batch = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
        expected = feature_maps(network, batch)
        for found, one in zip(
            feature_maps(network.run_by("openvino"), batch), expected, strict=True
        ):
            assert found.is_contiguous()
            torch.testing.assert_close(found, one, atol=1e-5 * float(one.abs().max()), rtol=0)
    converted = network.run_by("openvino")
    assert converted._converted is not None
    return converted, converted._converted


def test_a_network_of_torchvision_is_converted_once_for_all_sizes() -> None:
    _, converted = _both("mobilenet_v2", (64, 64), (96, 80), taps=["features.1", "features.6"])
    assert len(converted._compiled) == 1


def test_a_network_of_a_user_is_converted_for_each_size() -> None:
    _, converted = _both("tiny", (32, 32), (48, 40))
    assert len(converted._compiled) == 2
    assert None not in converted._compiled.values()


@contextlib.contextmanager
def _threads(n_threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("n_threads", "n_images"), [(1, 5), (2, 2), (2, 5)])
def test_maps_do_not_depend_on_the_other_images_of_a_batch(n_threads: int, n_images: int) -> None:
    with _threads(n_threads):
        network = build_network("tiny", "random").run_by("openvino")
        batch = torch.randn(n_images, 3, 48, 40, generator=torch.Generator().manual_seed(0))
        together = network(batch)
        for i in range(n_images):
            for layer, alone in zip(together, network(batch[i : i + 1]), strict=True):
                tolerance = 1e-6 * float(layer[i].abs().max())
                torch.testing.assert_close(layer[i], alone[0], atol=tolerance, rtol=0)


def test_each_thread_runs_an_image_if_there_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    compile_model, settings = openvino.Core.compile_model, list[dict[str, Any]]()

    def watched(core: Any, model: Any, device: str, given: dict[str, Any]) -> Any:
        settings.append(given)
        return compile_model(core, model, device, given)

    monkeypatch.setattr(openvino.Core, "compile_model", watched)
    with _threads(2):
        for n_images in (1, 5):
            build_network("tiny", "random").run_by("openvino")(torch.zeros(n_images, 3, 32, 32))
    assert [each["NUM_STREAMS"] for each in settings] == [1, 2]
    # Threads of several processes are not pinned to the same cores.
    assert not any(each["ENABLE_CPU_PINNING"] for each in settings)


class _TimesHeight(torch.nn.Conv2d):
    """A layer that is recorded with the height of the images."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * int(x.shape[2])


def test_what_is_recorded_for_all_sizes_is_checked_at_another_height() -> None:
    register_backbone("height", lambda: torch.nn.Sequential(_TimesHeight(3, 4, 1)), ["0"])
    network = build_network("height", "random")
    batch = torch.ones(1, 3, 32, 32)
    with pytest.warns(UserWarning, match="OpenVINO's maps differ"):
        assert OpenVINONetwork(network.module, network.taps, any_size=True)(batch) is None
    assert OpenVINONetwork(network.module, network.taps, any_size=False)(batch) is not None


def test_no_images_have_no_maps_but_of_every_tap() -> None:
    network = build_network("tiny", "random").run_by("openvino")
    assert [len(layer) for layer in network(torch.zeros(0, 3, 32, 32))] == [0] * len(network.taps)


def test_maps_of_zeros_are_equal(recwarn: pytest.WarningsRecorder) -> None:
    def dead() -> torch.nn.Module:
        layer = torch.nn.Conv2d(3, 4, 1)
        torch.nn.init.constant_(layer.bias, -100.0)
        return torch.nn.Sequential(layer, torch.nn.ReLU())

    register_backbone("dead", dead, ["1"])
    _both("dead", (32, 32))
    assert not recwarn.list


def test_another_number_of_threads_replaces_what_was_compiled() -> None:
    network, converted = _both("tiny", (32, 32), (48, 40))
    assert len(converted._compiled) == 2
    with _threads(torch.get_num_threads() + 1):
        network(torch.zeros(2, 3, 32, 32))
    assert len(converted._compiled) == 1


def test_a_network_that_fails_at_some_sizes_is_recorded_at_one_that_it_takes() -> None:
    """Where torch itself crashed."""
    pytest.importorskip("timm")
    _, converted = _both("timm/levit_128s", (160, 192))
    assert converted._compiled[3, 160, 192] is not None


def test_maps_that_later_layers_overwrite_are_kept() -> None:
    def residual() -> torch.nn.Module:
        return torch.nn.Sequential(
            torch.nn.Conv2d(3, 4, 3, padding=1),
            torch.nn.ReLU(inplace=True),
            torch.nn.Conv2d(4, 4, 1),
        )

    register_backbone("in_place", residual, ["0", "2"])
    _both("in_place", (32, 32))


def test_the_receptive_field_is_measured_in_torch() -> None:
    network = build_network("tiny", "random")
    expected = network.reach()
    again, _ = _both("tiny", (32, 32))
    assert again.reach() == expected
    assert expected is not None


class _Bessel(torch.nn.Conv2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.special.bessel_j0(super().forward(x))


class _Drifting(torch.nn.Conv2d):
    """A layer that does something else in each pass."""

    n_passes = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.n_passes += 1
        return super().forward(x) * self.n_passes


@pytest.mark.parametrize(
    ("layer", "message"),
    [(_Bessel, "OpenVINO cannot convert the network"), (_Drifting, "OpenVINO's maps differ")],
)
def test_torch_runs_what_cannot_be_converted_or_differs(
    layer: type[torch.nn.Conv2d], message: str
) -> None:
    register_backbone("odd", lambda: torch.nn.Sequential(layer(3, 4, 1)), ["0"])
    network = build_network("odd", "random").run_by("openvino")
    with pytest.warns(UserWarning, match=message):
        (maps,) = network(torch.ones(1, 3, 8, 8))
    assert maps.shape == (1, 4, 8, 8)
    network(torch.ones(1, 3, 8, 8))  # without another warning


def test_the_eight_sizes_used_last_are_kept() -> None:
    """So that maps do not depend on how many sizes came before."""
    network = build_network("tiny", "random").run_by("openvino")
    for side in [32, 36, 40, 44, 48, 52, 56, 60, 32, 64]:
        network(torch.ones(1, 3, side, side))
    assert network._converted is not None
    sides = [size[-1] for size in network._converted._compiled]
    assert sides == [40, 44, 48, 52, 56, 60, 32, 64]
    assert None not in network._converted._compiled.values()


@pytest.mark.filterwarnings("ignore:Classes with only one or two:UserWarning")
def test_vectors_and_labels_do_not_depend_on_the_runtime(images: list[NDArray[np.float32]]) -> None:
    _, labels = make_tem_images(8, size=64, random_state=0)
    encoder = HypercolumnVLAD(
        "tiny", weights="random", image_size=64, n_codewords=4, turns=2, random_state=0
    )
    models = {
        runtime: MicrographClassifier(
            clone(encoder).set_params(runtime=runtime), calibration_size=0, random_state=0
        ).fit(images, labels)
        for runtime in ("torch", "openvino")
    }
    for model in models.values():
        expected = model.encoder_.set_params(runtime="torch").transform(images)
        labels_in_torch = model.predict(images).tolist()
        found = model.encoder_.set_params(runtime="openvino").transform(images)
        np.testing.assert_allclose(found, expected, atol=1e-4)
        assert model.encoder_.network().runtime == "openvino"
        assert model.predict(images).tolist() == labels_in_torch


@pytest.mark.parametrize(
    ("name", "parameters", "chosen"),
    [
        ("mobilenet_v2", {}, "openvino"),
        ("mobilenet_v2", {"image_size": None}, "openvino"),
        ("vgg16", {}, "torch"),
        ("tiny", {}, "torch"),
        ("timm/test_vit", {}, "openvino"),
        ("timm/test_vit", {"image_size": None}, "torch"),
        ("mobilenet_v2", {"runtime": "torch"}, "torch"),
        ("tiny", {"runtime": "openvino"}, "openvino"),
    ],
)
def test_openvino_is_chosen_where_it_was_faster_and_there_is_much_to_do(
    name: str, parameters: dict[str, Any], chosen: str, images: list[NDArray[np.float32]]
) -> None:
    encoder = HypercolumnVLAD(name, weights="random", taps=None, n_codewords=2, random_state=0)
    encoder.set_params(**{"image_size": 64} | parameters)
    encoder.fit(images[:4])
    assert encoder.network().runtime == ("openvino" if encoder.runtime == "openvino" else "torch")
    with announced(2**26):
        assert encoder.network().runtime == chosen


def test_images_are_announced_by_the_outermost_call_of_a_thread() -> None:
    with announced(1000), announced(1):
        assert n_announced() == 1000
    with pytest.raises(ZeroDivisionError), announced(1000):
        _ = 1 / 0
    assert n_announced() == 1
    with announced(1000), ThreadPoolExecutor(1) as pool:
        assert pool.submit(n_announced).result() == 1  # another call


_NEW_PROCESS = """
import sys
import numpy as np
import hypervlad, hypervlad.features.encoder.encoding
hypervlad.features.encoder.encoding._MIN_PIXELS = int(sys.argv[1])
folder = sys.argv[2]
model = hypervlad.load(folder + "/model.hvlad")
images = list(np.load(folder + "/images.npy"))
many, single = model.predict_proba(images), model.predict_proba(images[:1])
np.savez(folder + "/found.npz", many=many, single=single)
"""


@pytest.mark.filterwarnings("ignore:Classes with only one or two:UserWarning")
def test_answers_depend_on_the_call_alone(
    images: list[NDArray[np.float32]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Bit by bit: fitted, loaded, called again, one image at a time, and in a new process."""
    min_pixels = 5 * 64**2  # so that OpenVINO runs all eight images, and torch single ones
    monkeypatch.setattr(hypervlad.features.encoder.encoding, "_MIN_PIXELS", min_pixels)
    _, labels = make_tem_images(8, size=64, random_state=0)
    encoder = HypercolumnVLAD(
        weights="random", taps=["features.1", "features.6"], image_size=64, n_codewords=4
    )
    model = MicrographClassifier(encoder, calibration_size=0, random_state=0).fit(images, labels)
    model.save(tmp_path / "model.hvlad")
    np.save(tmp_path / "images.npy", np.stack(images))
    loaded = hypervlad.load(tmp_path / "model.hvlad")

    answers = []
    for one in (loaded, model, loaded):
        for _ in range(2):  # single images before and after many
            single = [one.predict_proba(images[i : i + 1])[0] for i in range(3)]
            many, chunks = one.predict_proba(images), one.classify(images, chunk_size=3).proba
            answers.append((np.stack(single), many, chunks))
    expected = answers[0]
    assert not np.array_equal(expected[0], expected[1][:3])  # OpenVINO did run
    for answer in answers[1:]:
        for found, own in zip(answer, expected, strict=True):
            np.testing.assert_array_equal(found, own)

    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    subprocess.run(
        [sys.executable, "-c", _NEW_PROCESS, str(min_pixels), str(tmp_path)],
        env=os.environ | threads,
        check=True,
        timeout=300,
    )
    found = np.load(tmp_path / "found.npz")
    np.testing.assert_array_equal(found["single"], expected[0][:1])
    np.testing.assert_array_equal(found["many"], expected[1])


def test_without_openvino_the_error_says_what_to_install(
    images: list[NDArray[np.float32]], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = HypercolumnVLAD("tiny", weights="random", image_size=64, runtime="openvino")
    monkeypatch.setattr(hypervlad.features.encoder.encoding, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r'pip install "hypervlad\[openvino\]"'):
        encoder.fit(images)
    encoder.set_params(runtime="auto").fit(images)
    with announced(2**26):
        assert encoder.network().runtime == "torch"


class _Damaged:
    def __getattr__(self, name: str) -> Any:
        raise EOFError("Ran out of input")


@pytest.mark.parametrize("fault", ["not importable", "damaged cache"])
def test_torch_sums_the_residuals_where_numba_fails(
    images: list[NDArray[np.float32]], monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    encoder = HypercolumnVLAD("tiny", weights="random", image_size=64, n_codewords=2)
    expected = encoder.fit(images).transform(images)
    fused = hypervlad.features.encoder.encoding._fused_sums
    fused.cache_clear()
    monkeypatch.setitem(
        sys.modules,
        "hypervlad.features.vlad_kernel",
        None if fault == "not importable" else _Damaged(),
    )
    with pytest.warns(UserWarning, match="numba cannot be used, so torch sums the residuals"):
        found = encoder.set_params(runtime="openvino").transform(images)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    fused.cache_clear()
