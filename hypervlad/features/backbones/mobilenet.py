"""MobileNetV2, the default network, without torchvision, which imports more slowly than torch."""

from __future__ import annotations

import torch
from torch import nn

# Of each stage: expansion, output channels, blocks, stride of the first block.
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
_N_FIRST, _N_LAST, _N_CLASSES = 32, 1280, 1000


class MobileNetV2(nn.Module):
    """The network of Sandler et al., CVPR 2018, with random weights and torchvision's names."""

    def __init__(self) -> None:
        super().__init__()
        n_channels = _N_FIRST
        layers: list[nn.Module] = [_convolution(3, n_channels, 3, stride=2)]
        for expansion, n_out, n_blocks, first_stride in _STAGES:
            for block in range(n_blocks):
                stride = first_stride if block == 0 else 1
                layers.append(_InvertedResidual(n_channels, n_out, stride, expansion))
                n_channels = n_out
        layers.append(_convolution(n_channels, _N_LAST, 1))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(_N_LAST, _N_CLASSES))
        if not self.classifier[1].weight.is_meta:  # there, random numbers import torch's compiler
            self._draw_weights()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps: torch.Tensor = self.features(images)
        scores: torch.Tensor = self.classifier(maps.mean(dim=(2, 3)))
        return scores

    def _draw_weights(self) -> None:
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out")
            elif isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, 0, 0.01)
                nn.init.zeros_(layer.bias)


class _InvertedResidual(nn.Module):
    """Expand the channels, filter each, and project them; add the input if the shapes agree."""

    def __init__(self, n_in: int, n_out: int, stride: int, expansion: int) -> None:
        super().__init__()
        n_hidden = n_in * expansion
        expand = [_convolution(n_in, n_hidden, 1)] if expansion > 1 else []
        self.conv = nn.Sequential(
            *expand,
            _convolution(n_hidden, n_hidden, 3, stride=stride, groups=n_hidden),
            nn.Conv2d(n_hidden, n_out, 1, bias=False),
            nn.BatchNorm2d(n_out),
        )
        self._adds_input = stride == 1 and n_in == n_out

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        added: torch.Tensor = self.conv(maps)
        return maps + added if self._adds_input else added


def _convolution(
    n_in: int, n_out: int, kernel_size: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, kernel_size, stride, kernel_size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(n_out),
        nn.ReLU6(inplace=True),
    )
