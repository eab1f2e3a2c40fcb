"""Weights of networks: finding or downloading them, reading files, and loading them."""

from __future__ import annotations

import os
import re
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard, cast

from safetensors import SafetensorError

from hypervlad.common.constraints import Alternatives, InstanceOf
from hypervlad.common.files import file_digest
from hypervlad.common.progress import print_line
from hypervlad.common.wording import reason_of
from hypervlad.features.lazy_torch import torch
from hypervlad.features.registry import TIMM, Backbone, get_backbone

_MOBILENET_URL = "https://download.pytorch.org/models/mobilenet_v2-b0353104.pth"
_MOBILENET_SIZE_MB = 13.555
_IN_FOLDER = ("model.safetensors", "pytorch_model.bin")
_WRAPPERS = ("state_dict", "model_state_dict", "model")  # around the tensors of a checkpoint
_TORCH_FILES = (b"PK", b"\x80")  # how they begin: as archives, or before torch 1.6 as pickles
_HUB_SECONDS = 10  # to wait for the server's first answer
_HEADS = ("classifier.", "fc.", "AuxLogits.", "head.", "head_dist.")
_PART = "network."
# What training in parallel and segmentation networks write before the names of layers.
_PREFIXES = {"module.": "", "encoder.": "", "features.module.": "features."}
#: Weights of networks trained on 110,000 micrographs, from random weights or from ImageNet's:
#: J. Stuckner et al., "Microstructure segmentation with deep learning encoders pre-trained on a
#: large microscopy dataset", npj Comput. Mater. 8, 2022. With the words in the names of files.
MICRONET = {"micronet": "microscopynet", "image-micronet": "imagenet-microscopynet"}
#: What `find_weights` finds; "imagenet" is another name of "pretrained".
PUBLISHED = ("pretrained", "imagenet", *MICRONET)
NAMES = (*PUBLISHED, "random")
FROM_FILE = "file:"  # in a saved model, before the name of the file that its weights are from
# Licences that allow copies; `hypervlad info` names them.
_FREE = ("apache-2.0", "bsd-3-clause", "mit", "cc-by-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0")
_MICRONET_URL = "https://nasa-public-data.s3.amazonaws.com/microscopy_segmentation_models/"
_MICRONET_NETWORKS = (
    *("densenet121", "mobilenet_v2", "resnet18", "resnet34", "resnet50", "resnet101", "vgg16_bn"),
)


class WeightsNotFoundError(ValueError):
    """Pretrained weights are not available; the message says what to do."""


def find_weights(name: str, weights: str = "pretrained", *, download: bool = True) -> Path:
    """Return the file of a backbone's published weights, downloading it as a last resort.

    Parameters
    ----------
    name : str
        A network of torchvision, or "timm/" and the name of a network of timm.
    weights : {"pretrained", "imagenet", "micronet", "image-micronet"}, default="pretrained"
        "pretrained" or "imagenet": those of torchvision or timm. "micronet" was trained on
        micrographs, "image-micronet" on ImageNet and then on micrographs.
    download : bool, default=True
        Whether a file that is not on this machine may be downloaded.

    Returns
    -------
    pathlib.Path
        A state dict.

    Raises
    ------
    WeightsNotFoundError
        If no file is found; the message says how to get it.

    Examples
    --------
    >>> from hypervlad.features import WeightsNotFoundError, find_weights
    >>> try:
    ...     find_weights("mobilenet_v2", "micrographs")
    ... except WeightsNotFoundError as error:
    ...     print(error)
    unknown weights 'micrographs'; those of other tags are 'pretrained', 'imagenet', 'micronet',
    'image-micronet'
    """
    if weights.startswith(FROM_FILE):
        raise WeightsNotFoundError(
            f"the model was trained with weights from a file, {weights.removeprefix(FROM_FILE)!r}, "
            "which is not beside the model: put it there, or give weights=FILE in Python"
        )
    if weights not in PUBLISHED:
        known = ", ".join(map(repr, PUBLISHED))
        raise WeightsNotFoundError(f"unknown weights {weights!r}; those of other tags are {known}")
    backbone = get_backbone(name)
    if backbone.is_of_timm and weights not in MICRONET:
        return _find_on_hub(name, download)
    if backbone.torchvision_name is None and not backbone.is_of_timm:
        raise WeightsNotFoundError(
            f"backbone {name!r} was registered by you and has no published weights: "
            'give a file, weights="path/to/state_dict.pth" (or .safetensors), or weights="random"'
        )
    url, size_mb = published_weights(backbone.torchvision_name or name, weights)
    return _find_at(url, name, size_mb, download, is_checked=True)


def published_weights(name: str, weights: str = "pretrained") -> tuple[str, float | None]:
    """Return where weights of torchvision or MicroNet are published, and their size in MB if known.

    A WeightsNotFoundError if a network was not trained for the latter.
    """
    if weights in MICRONET:
        if name not in _MICRONET_NETWORKS:
            raise WeightsNotFoundError(
                f"{name!r} has no weights {weights!r}; these networks have: "
                f"{', '.join(_MICRONET_NETWORKS)}"
            )
        version = "1.1" if (name, weights) == ("resnet50", "micronet") else "1.0"
        file = f"{name}_pretrained_{MICRONET[weights]}_v{version}.pth.tar"
        return f"{_MICRONET_URL}{file}", None
    if name == "mobilenet_v2":
        return _MOBILENET_URL, _MOBILENET_SIZE_MB
    import torchvision  # it takes longer to import than torch

    entry = torchvision.models.get_model_weights(name).IMAGENET1K_V1
    return entry.url, entry.meta.get("_file_size")


def licence_of(name: str, weights: str | os.PathLike[str]) -> str:
    if weights == "random":
        return "none needed, random weights"
    if weights in MICRONET:
        return "mit"
    licence = get_backbone(name).licence or "unknown"
    return licence if weights in PUBLISHED else f"{licence}, if the file is the published one"


def check_may_be_included(name: str, weights: str | os.PathLike[str]) -> None:
    """Raise a ValueError if a licence's text must go with a model that contains the weights."""
    licence = get_backbone(name).licence
    if weights == "random" or weights in MICRONET or licence is None or licence in _FREE:
        return
    raise ValueError(
        f"the licence of the weights of {name} ({licence}) may forbid copies without its text, so "
        "they are not put into a model file: save without include_backbone (--include-backbone), "
        "and pass their file on beside it, with its licence"
    )


def is_name(weights: object) -> TypeGuard[str]:
    """Return whether weights are named, whatever files there are; other weights are a path."""
    return isinstance(weights, str) and (weights in NAMES or weights.startswith(FROM_FILE))


def file_beside(weights: object, model: str | os.PathLike[str]) -> str | None:
    """Return the file beside a model that has its weights, if it names one and the file is there.

    What it contains is checked before it is used. A name with a folder was not written by `save`.
    """
    if not isinstance(weights, str) or not weights.startswith(FROM_FILE):
        return None
    name = weights.removeprefix(FROM_FILE)
    file = os.path.join(os.path.dirname(os.path.abspath(model)), name)
    return file if name == Path(name).name and os.path.isfile(file) else None


WEIGHTS: Alternatives = [
    InstanceOf((str, os.PathLike), '"pretrained", "micronet", "random" or a path')
]


def _find_on_hub(name: str, download: bool) -> Path:
    import huggingface_hub
    import timm

    config = timm.get_pretrained_cfg(name.removeprefix(TIMM))
    if config is not None and config.url and not config.hf_hub_id:
        return _find_at(str(config.url), name, None, download, is_checked=False)
    if config is None or not config.hf_hub_id:
        architecture = name.removeprefix(TIMM).partition(".")[0]
        tags = timm.list_pretrained(f"{architecture}.*")
        others = f"those of other tags are {', '.join(tags)}; " if tags else ""
        raise WeightsNotFoundError(
            f"timm publishes no weights of {name}; {others}give a file, "
            'weights="path/to/file.safetensors" (or .pth), or weights="random"'
        )
    repository, _, commit = config.hf_hub_id.partition("@")
    file, revision = config.hf_hub_filename or _IN_FOLDER[0], commit or None
    cached = huggingface_hub.try_to_load_from_cache(repository, file, revision=revision)
    if isinstance(cached, str):
        return Path(cached)
    url = huggingface_hub.hf_hub_url(repository, file, revision=revision)
    reason = "downloads not allowed"
    host = urllib.parse.urlsplit(url).netloc
    if download:
        print_line(f"looking for {name} weights at {host}")
        try:
            size = huggingface_hub.get_hf_file_metadata(url, timeout=_HUB_SECONDS).size
            how_large = "" if size is None else f"{size / 1e6:.0f} MB, "
            print_line(f"downloading {name} weights, {how_large}from {host}")
            return Path(huggingface_hub.hf_hub_download(repository, file, revision=revision))
        except Exception as error:  # of the client for HTTP, which depends on its version
            reason = reason_of(error)
    folder = f"models--{repository.replace('/', '--')}"
    raise WeightsNotFoundError(
        f"the published weights of {name} are not on this machine and could not be downloaded "
        f"({reason}). Download {url} on another machine and give the path of the file, "
        f'weights="path/to/{file}", or copy the folder {folder} of the cache of huggingface_hub on '
        f"a machine that has it to {huggingface_hub.constants.HF_HUB_CACHE}"
    )


def _find_at(url: str, name: str, size_mb: float | None, download: bool, is_checked: bool) -> Path:
    """Return the file of an address: of this package, as it was downloaded, or downloaded now."""
    filename = url.rsplit("/", 1)[-1]
    # Of their SHA-256, in the names of torchvision's files.
    digits = re.search(r"-([0-9a-f]{8})\.", filename)
    start = digits[1] if digits else ""
    cached = Path(torch.hub.get_dir()) / "checkpoints" / filename
    packaged = Path(__file__).parent / "backbones" / filename  # see setup.py
    for path in (packaged, cached):
        if path.is_file() and (not is_checked or file_digest(path).startswith(start)):
            return path
    if not download:
        raise WeightsNotFoundError(_advice(name, url, cached, "downloads not allowed"))
    cached.parent.mkdir(parents=True, exist_ok=True)
    how_large = "" if size_mb is None else f"{size_mb:.0f} MB, "
    print_line(f"downloading {name} weights, {how_large}from {urllib.parse.urlsplit(url).netloc}")
    try:
        torch.hub.download_url_to_file(url, str(cached), hash_prefix=start or None)
    except (OSError, RuntimeError) as error:
        raise WeightsNotFoundError(_advice(name, url, cached, reason_of(error))) from error
    return cached


def _advice(name: str, url: str, target: Path, reason: str) -> str:
    return (
        f"the published weights of {name} are not on this machine and could not be downloaded "
        f"({reason}). Download {url} on another machine and put it into "
        f'{target.parent}, or give the path of the file: weights="path/to/{target.name}"'
    )


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """Read a state dict from a file, or from a folder as timm writes it, without running any code.

    A WeightsNotFoundError if that is impossible.
    """
    if not os.fspath(path):
        raise WeightsNotFoundError("the path of the weights is empty")
    path = Path(path)
    if os.path.isdir(path):
        files = [path / name for name in _IN_FOLDER if (path / name).is_file()]
        if not files:
            raise WeightsNotFoundError(
                f"{path}: no weights in this folder; expected a file {' or '.join(_IN_FOLDER)}"
            )
        path = files[0]
    if not os.path.isfile(path):  # False for a name that is too long, too
        raise WeightsNotFoundError(
            f"{path}: no such weights file. Expected a .safetensors or .pth state dict with the "
            f"keys of torchvision or timm, a folder with {' or '.join(_IN_FOLDER)}, or one of "
            f"{', '.join(NAMES)}"
        )
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file  # imports torch

            return load_file(path)
        with open(path, "rb") as file:
            if not file.read(2).startswith(_TORCH_FILES):
                raise WeightsNotFoundError(
                    f"{path}: not a file of weights; expected .safetensors, or torch.save's .pth"
                )
        state = torch.load(path, map_location="cpu", weights_only=True)
    except WeightsNotFoundError:
        raise
    except (SafetensorError, RuntimeError, OSError, EOFError, ValueError) as error:
        raise WeightsNotFoundError(f"{path}: not a readable state dict ({error})") from error
    except Exception as error:  # pickle.UnpicklingError and whatever a hostile pickle raises
        raise WeightsNotFoundError(
            f"{path}: refused, as it contains more than tensors ({type(error).__name__}). Save a "
            "plain state dict: torch.save(net.state_dict(), path)"
        ) from error
    for name in _WRAPPERS:
        if isinstance(state, Mapping) and isinstance(state.get(name), Mapping):
            state = state[name]
    if not isinstance(state, Mapping) or not all(torch.is_tensor(v) for v in state.values()):
        raise WeightsNotFoundError(
            f"{path}: expected a mapping of layer names to tensors, possibly under one of the "
            f"names {', '.join(_WRAPPERS)}"
        )
    return dict(state)


def load_into(
    network: torch.nn.Module, state: Mapping[str, torch.Tensor], backbone: Backbone, source: str
) -> None:
    """Load a state dict into a network without a head; a WeightsNotFoundError if it does not fit.

    float16 becomes float32.
    """
    # A network of timm is a part of the one that has the taps.
    prefix = _PART if backbone.is_of_timm else ""
    expected = {key.removeprefix(prefix): value for key, value in network.state_dict().items()}
    counters = {key for key in expected if key.endswith("num_batches_tracked")}
    if prefix and all(key.startswith(prefix) for key in state):  # from a model file
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    # The sub-layer names of the first DenseNet files: norm.1 is norm1.
    old, new = r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)", r"\1\2"
    state = {re.sub(old, new, key): value for key, value in state.items()}
    state = _without_prefixes(state, set(expected) - counters)
    heads: tuple[str, ...] = _HEADS
    if backbone.is_of_timm:
        classifiers = cast(Any, network).config.get("classifier") or ()
        given = [classifiers] if isinstance(classifiers, str) else classifiers
        heads += tuple(f"{name}." for name in given)
    state = {k: v for k, v in state.items() if k in expected or not k.startswith(heads)}
    problems = _problems(state, expected, counters)
    if problems and backbone.is_of_timm:
        from hypervlad.features.architectures import translated

        converted = translated(cast(Any, network), state)
        if not _problems(converted, expected, counters):
            state, problems = converted, ""
    if problems:
        raise WeightsNotFoundError(
            f"{source}: these are not weights of {backbone.name!r}: {problems}. Expected keys such "
            f"as {next(iter(expected))!r}"
        )
    common = [key for key in expected if key in state and key not in counters]
    kept = {key: state[key].to(expected[key].dtype) for key in common}
    for key, tensor in kept.items():
        if not tensor.is_meta and not tensor.isfinite().all():
            raise WeightsNotFoundError(f"{source}: values of the tensor {key!r} are not finite")
    kept |= {key: torch.zeros((), dtype=torch.long) for key in counters}
    network.load_state_dict({prefix + key: value for key, value in kept.items()}, assign=True)


def _problems(
    state: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor], counters: set[str]
) -> str:
    missing = sorted(set(expected) - set(state) - counters)
    unknown = sorted(set(state) - set(expected))
    common = set(expected) & set(state)
    wrong = sorted(key for key in common if expected[key].shape != state[key].shape)
    parts = [("missing", missing), ("unknown", unknown), ("of another shape", wrong)]
    return "; ".join(f"{len(keys)} {what} (such as {keys[0]!r})" for what, keys in parts if keys)


def _without_prefixes(state: dict[str, torch.Tensor], needed: set[str]) -> dict[str, torch.Tensor]:
    """Remove prefixes from the names of layers if a network then has all it needs."""
    for prefix, other in _PREFIXES.items():
        if needed <= set(state):
            break
        shorter = {
            other + key.removeprefix(prefix) if key.startswith(prefix) else key: value
            for key, value in state.items()
        }
        if len(shorter) == len(state) and shorter.keys() != state.keys():
            found = _without_prefixes(shorter, needed)
            if needed <= set(found):
                return found
    return state
