"""A tiny network, for tests and for the processes that tests start."""

import torch

from hypervlad import HypercolumnVLAD, register_backbone
from hypervlad.features import Preprocessing


class Tiny(torch.nn.Sequential):
    """Three convolutions at full, half and quarter resolution; an in-place ReLU after the first."""

    def __init__(self) -> None:
        super().__init__(
            torch.nn.Conv2d(3, 6, 3, padding=1),
            torch.nn.ReLU(inplace=True),
            torch.nn.Conv2d(6, 8, 3, stride=2, padding=1),
            torch.nn.ReLU(inplace=True),
            torch.nn.Conv2d(8, 10, 3, stride=2, padding=1),
        )


def build_tiny() -> torch.nn.Module:
    return Tiny()


def register_tiny() -> None:
    register_backbone("tiny", build_tiny, ["1", "3", "4"], Preprocessing(minimum_size=4))


def make_tiny_encoder() -> HypercolumnVLAD:
    """An encoder that takes milliseconds."""
    return HypercolumnVLAD(
        "tiny", weights="random", image_size=16, n_codewords=4, sampling=400, random_state=0
    )
