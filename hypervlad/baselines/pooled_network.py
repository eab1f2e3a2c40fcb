"""A backbone up to its last tap, averaged over the image; and the same with a head, to learn."""

from __future__ import annotations

import contextlib
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from hypervlad.backbones import Backbone, TappedNetwork, get_backbone
from hypervlad.baselines.softmax_head import SoftmaxHead
from hypervlad.hypercolumns import normalised

Trainable = Literal["head", "last", "all"]

_OWN_SIZES = {"inception_v3": 299}  # pixels; all others learnt from 224
_USUAL_SIZE = 224
# torchvision's DenseNets have their last ReLU outside of all layers.
_RELU_AFTER = ("densenet121", "densenet201")


class _LastTapReached(Exception):  # noqa: N818 - a signal out of the forward pass, not an error
    """Nothing after the tap needs to be computed."""


def own_size(backbone: Backbone) -> int:
    """Return the side, in pixels, of the images that a backbone's ImageNet weights learnt from."""
    return _OWN_SIZES.get(backbone.torchvision_name or "", _USUAL_SIZE)


def pooled(maps: torch.Tensor, backbone: Backbone) -> torch.Tensor:
    """Average the maps (B, C, h, w) of a backbone's last tap over the image: (B, C), float32."""
    maps = maps.float()
    if backbone.torchvision_name in _RELU_AFTER:
        maps = functional.relu(maps)
    return maps.mean(dim=(2, 3))


@torch.inference_mode()
def pooled_features(network: TappedNetwork, name: str, batch: torch.Tensor) -> NDArray[np.float32]:
    """Return the pooled features (B, C) of a batch as `Inputs` prepares it, without gradients."""
    (maps,) = network(batch.to(network.device))
    return np.asarray(pooled(maps, get_backbone(name)).cpu().numpy())


class TransferNetwork(nn.Module):
    """A backbone with a softmax head on its averaged last maps, ready to be fine-tuned.

    The backbone stays in evaluation mode while it learns: batch normalisation keeps the running
    statistics it came with (its scale and shift learn, where the layer does), and there is no
    stochastic depth. Statistics of a few augmented micrographs are worse than ImageNet's, and an
    image's answer does not depend on its batch. Dropout acts on the pooled features alone.

    Parameters
    ----------
    trunk : nn.Module
        The backbone, unfolded.
    backbone : Backbone
    head : SoftmaxHead
        Where the head starts; its mean and scale stay, its temperature is left out.
    dropout : float
    mixed : bool
        Whether the trunk runs in bfloat16, where that is safe, while it learns (on a GPU only).
    """

    def __init__(
        self, trunk: nn.Module, backbone: Backbone, head: SoftmaxHead, dropout: float, mixed: bool
    ) -> None:
        super().__init__()
        self.trunk, self.backbone, self.mixed = trunk.eval(), backbone, mixed
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(*head.coef.shape)
        self.mean: torch.Tensor
        self.scale: torch.Tensor
        self.register_buffer("mean", torch.from_numpy(head.mean).float(), persistent=False)
        self.register_buffer("scale", torch.from_numpy(head.scale).float(), persistent=False)
        with torch.no_grad():
            self.head.weight.copy_(torch.from_numpy(head.coef.T))
            self.head.bias.copy_(torch.from_numpy(head.intercept))

    def train(self, mode: bool = True) -> TransferNetwork:
        """Switch dropout; the trunk stays in evaluation mode."""
        super().train(False)
        self.training = mode
        self.dropout.train(mode)
        return self

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the margins (B, n_classes) of images (B, C, s, s) in [0, 1]."""
        images = images.expand(-1, len(self.backbone.preprocessing.mean), -1, -1)
        images = normalised(images, self.backbone.preprocessing)
        mixed = self.mixed and self.training
        with torch.autocast(images.device.type, torch.bfloat16, enabled=mixed):
            maps = self._last_maps(images.contiguous(memory_format=torch.channels_last))
        features = (pooled(maps, self.backbone) - self.mean) / self.scale
        answers: torch.Tensor = self.head(self.dropout(features))
        return answers

    def learnt_head(self) -> SoftmaxHead:
        """Return the head as it is now, in double precision and without a temperature."""
        parts = (self.mean, self.scale, self.head.weight.detach().T, self.head.bias.detach())
        mean, scale, coef, intercept = (part.double().cpu().numpy() for part in parts)
        return SoftmaxHead(mean, scale, coef, intercept)

    def _last_maps(self, images: torch.Tensor) -> torch.Tensor:
        kept: list[torch.Tensor] = []

        def keep(_module: nn.Module, _inputs: Any, output: torch.Tensor) -> None:
            kept.append(output)
            raise _LastTapReached

        handle = self.trunk.get_submodule(self.backbone.taps[-1]).register_forward_hook(keep)
        try:
            with contextlib.suppress(_LastTapReached):
                self.trunk(images)
        finally:
            handle.remove()
        return kept[0]


def choose_what_learns(network: TransferNetwork, trainable: Trainable) -> None:
    """Let the head learn, and of the trunk nothing, what lies after its last tap but one, or all.

    What comes after the last tap never learns: it is never run. A backbone of one tap has no last
    but one: all of it learns.
    """
    network.requires_grad_(False)
    network.head.requires_grad_(True)
    if trainable == "head":
        return
    taps = network.backbone.taps
    after = taps[-2] if trainable == "last" and len(taps) > 1 else None
    for module in _run_after(network, after):
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(True)


@torch.no_grad()
def _run_after(network: TransferNetwork, tap: str | None) -> list[nn.Module]:
    """Return the trunk's layers that start after a tap is done, in an image's way through them."""
    begun: list[nn.Module] = []
    own = [m for m in network.trunk.modules() if any(True for _ in m.parameters(recurse=False))]
    handles = [m.register_forward_pre_hook(lambda m, _inputs: begun.append(m)) for m in own]
    if tap is not None:
        layer = network.trunk.get_submodule(tap)
        handles.append(layer.register_forward_hook(lambda *_: begun.clear()))
    preprocessing = network.backbone.preprocessing
    side, device = preprocessing.minimum_size, network.mean.device
    try:
        network(torch.zeros(1, len(preprocessing.mean), side, side, device=device))
    finally:
        for handle in handles:
            handle.remove()
    return begun
