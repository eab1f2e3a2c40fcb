"""A tiny seeded network for unit tests, and the real images and weights where there are any."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from hypervlad import HypercolumnVLAD, register_backbone
from hypervlad.backbones import Preprocessing, WeightsNotFoundError, find_weights

SHARED = Path(__file__).resolve().parents[1].parent / "shared"


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


@pytest.fixture
def tiny_encoder() -> HypercolumnVLAD:
    """An encoder that takes milliseconds."""
    return HypercolumnVLAD(
        "tiny",
        weights="random",
        image_size=16,
        n_codewords=4,
        layer_components=4,
        n_samples=400,
        random_state=0,
    )


@pytest.fixture(scope="session")
def texture_images() -> tuple[list[np.ndarray], np.ndarray]:
    """Twenty-four small images of three textures that even a random network tells apart."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:20, :24] / 4.0
    patterns = {
        "stripes": np.sin(2 * x),
        "rings": np.cos(np.hypot(x - 3, y - 2) * 3),
        "flat": 0 * x,
    }
    images, labels = [], []
    for i in range(24):
        name = sorted(patterns)[i % 3]
        noisy = 0.5 + 0.3 * patterns[name] + 0.05 * rng.standard_normal(x.shape)
        images.append(np.clip(noisy, 0, 1).astype(np.float32))
        labels.append(name)
    return images, np.array(labels)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real images beside the project."""
    if not SHARED.is_dir():
        pytest.skip("no folder of real images beside the project")
    return SHARED


@pytest.fixture(scope="session")
def mobilenet_weights() -> Path:
    """The default backbone's ImageNet weights."""
    try:
        return find_weights("mobilenet_v2", download=False)
    except WeightsNotFoundError as error:
        pytest.skip(str(error))
