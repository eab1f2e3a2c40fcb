"""The tiny network, on one thread, for the benchmarks' own tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from support.tiny import register_tiny


@pytest.fixture(autouse=True, scope="session")
def tiny_backbone() -> None:
    register_tiny()


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
