"""Weights from files, and where published weights are found."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support.tiny import build_tiny

from hypervlad import HypercolumnVLAD
from hypervlad.features import WeightsNotFoundError, find_weights

MOBILENET = "mobilenet_v2-b0353104.pth"


@pytest.fixture
def state():
    torch.manual_seed(1)
    return {key: value.half().float() for key, value in build_tiny().state_dict().items()}


def digest(weights):
    image = np.random.default_rng(0).random((8, 8))
    encoder = HypercolumnVLAD("tiny", weights=weights, image_size=8, n_codewords=1)
    return str(encoder.fit([image]).weights_digest_)


def test_one_state_has_one_digest_however_it_is_stored(tmp_path, state):
    """In both formats, under a name, in half precision, with a head, and with prefixes."""
    save_file(state, tmp_path / "w.safetensors")
    half = {key: value.half() for key, value in state.items()}
    contents = {
        "plain": state,
        "with a head": state | {"classifier.weight": torch.ones(2)},
        "prefixes": {f"module.encoder.{key}": value for key, value in state.items()},
        **{name: {name: half} for name in ("state_dict", "model_state_dict", "model")},
    }
    found = {digest(tmp_path / "w.safetensors")}
    for name, content in contents.items():
        torch.save(content, tmp_path / f"{name}.pth")
        found.add(digest(tmp_path / f"{name}.pth"))
    assert len(found) == 1
    assert found != {digest("random")}


class Exploit:
    def __reduce__(self):
        return exec, ("raise SystemExit('code from a file ran')",)


def refused_files(state):
    """Return what a file may contain, and what the error must say."""
    nan = state["0.bias"].clone()
    nan[0] = torch.nan
    encoder = {f"encoder.{key}": value for key, value in state.items()}
    other = {"0.weight": torch.ones(1), "9.bias": torch.ones(1)}
    return {
        "of another network": (other, r"not weights of 'tiny'.*missing.*unknown.*shape"),
        "not finite": (state | {"0.bias": nan}, r"w\.pth: values of the tensor '0\.bias'"),
        "with a decoder": (
            encoder | {"decoder.0.weight": torch.ones(1)},
            r"1 unknown \(such as 'decoder\.0\.weight'\)",
        ),
        "incomplete": (dict(list(encoder.items())[1:]), r"unknown \(such as 'encoder\."),
        "of another name": ({"weights": state}, "names state_dict, model_state_dict, model$"),
        "with code": ({"0.weight": Exploit()}, "contains more than tensors"),
        "text": (b"plain text", r"w\.pth: not a file of weights; expected"),
        "empty": (b"", r"w\.pth: not a file of weights; expected"),
        "half": (b"PK\x03\x04", r"w\.pth: not a readable state dict"),
    }


@pytest.mark.parametrize("kind", refused_files(build_tiny().state_dict()))
def test_what_a_file_must_not_contain(kind, tmp_path, state):
    content, message = refused_files(state)[kind]
    path = tmp_path / "w.pth"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(WeightsNotFoundError, match=message):
        digest(path)


# --- where published weights are found ------------------------------------------------------------


@pytest.fixture
def empty_hub(tmp_path, monkeypatch):
    """A cache of torch without files, on a machine whose package came without weights."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    is_file = Path.is_file
    monkeypatch.setattr(
        Path, "is_file", lambda path: path.parent.name != "backbones" and is_file(path)
    )
    return tmp_path / "torch" / "hub" / "checkpoints"


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("mobilenet_v2", "pretrained", r"b0353104.pth on another machine.*weights="),
        ("vgg16", "imagenet", r"vgg16-397923af.pth on another machine"),
        ("resnet18", "micronet", r"/resnet18_pretrained_microscopynet_v1\.0\.pth\.tar on another"),
        ("resnet50", "micronet", r"/resnet50_pretrained_microscopynet_v1\.1\.pth\.tar"),
        ("resnet50", "image-micronet", r"/resnet50_pretrained_imagenet-microscopynet_v1\.0\.pth"),
        ("vgg16", "micronet", r"'vgg16' has no weights 'micronet'; these .*bn$"),
        ("vgg16", "nasa", "unknown weights 'nasa'"),
        ("tiny", "pretrained", "registered by you"),
    ],
)
def test_missing_weights_say_what_to_do(name, weights, message, empty_hub):
    with pytest.raises(WeightsNotFoundError, match=message):
        find_weights(name, weights, download=False)


def test_a_file_of_timm_is_used_whatever_digits_its_name_has(empty_hub):
    pytest.importorskip("timm")
    empty_hub.mkdir(parents=True)
    (file := empty_hub / "gcvit_xxtiny_224_nvidia-d1d86009.pth").touch()
    assert find_weights("timm/gcvit_xxtiny.in1k", download=False) == file


def test_a_damaged_file_is_not_used_and_a_failed_download_says_why(empty_hub, monkeypatch, capsys):
    def no_server(*_, **__):
        raise OSError("unreachable")

    empty_hub.mkdir(parents=True)
    (damaged := empty_hub / MOBILENET).write_bytes(b"half a download")
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_server)
    with pytest.raises(WeightsNotFoundError, match=r"\(unreachable\)\. Download https"):
        find_weights("mobilenet_v2")
    assert "mobilenet_v2 weights, 14 MB" in capsys.readouterr().err
    assert list(empty_hub.iterdir()) == [damaged]
