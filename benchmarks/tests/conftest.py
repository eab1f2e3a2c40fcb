"""The tiny network and the real images, for the benchmarks' own tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from hypervlad import register_backbone
from hypervlad.backbones import Preprocessing, WeightsNotFoundError, find_weights

SHARED = Path(__file__).resolve().parents[2].parent / "shared"


def build_tiny() -> torch.nn.Module:
    """Three convolutions at full, half and quarter resolution; an in-place ReLU after the first."""
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 6, 3, padding=1),
        torch.nn.ReLU(inplace=True),
        torch.nn.Conv2d(6, 8, 3, stride=2, padding=1),
        torch.nn.ReLU(inplace=True),
        torch.nn.Conv2d(8, 10, 3, stride=2, padding=1),
    )


@pytest.fixture(autouse=True, scope="session")
def tiny_backbone() -> None:
    register_backbone("tiny", build_tiny, ["1", "3", "4"], Preprocessing(minimum_size=4))


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def mobilenet_weights() -> Path:
    """The default backbone's ImageNet weights."""
    try:
        return find_weights("mobilenet_v2", download=False)
    except WeightsNotFoundError as error:
        pytest.skip(str(error))
