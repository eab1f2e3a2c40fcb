"""A tiny seeded network for all tests, and the real images and weights where there are any."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import matplotlib.font_manager  # noqa: F401 - which runs other programs while it lists fonts
import numpy as np
import pytest
import torch
from hypothesis import settings
from support.absent import skip_without
from support.paths import SHARED
from support.tiny import make_tiny_encoder, register_tiny
from support.unit_rules import UNIT, pytest_runtest_protocol

from hypervlad import HypercolumnVLAD
from hypervlad.backbones import WeightsNotFoundError, find_weights

__all__ = ["pytest_runtest_protocol"]  # a hook

# What anybody runs is reproducible: the same examples each time. "explore" draws new ones; each
# failure that it finds becomes an explicit ``@example`` of its test.
settings.register_profile(
    "reproducible", derandomize=True, database=None, deadline=None, print_blob=True
)
settings.register_profile("explore", deadline=None, print_blob=True)
settings.load_profile("reproducible")

_SLOW = 1.0  # seconds
_LARGE = "large_networks"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.nodeid.startswith(UNIT) and item.get_closest_marker("slow") is None:
            item.add_marker("quick")
    if _LARGE not in config.option.markexpr:
        large = [item for item in items if item.get_closest_marker(_LARGE)]
        config.hook.pytest_deselected(items=large)
        items[:] = [item for item in items if item not in large]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List the unit tests that are slow and give no reason for it."""
    reports = [r for rs in terminalreporter.stats.values() for r in rs if hasattr(r, "duration")]
    slow = [
        report
        for report in reports
        if report.duration > _SLOW
        and report.nodeid.startswith(UNIT)
        and "slow" not in report.keywords
    ]
    if slow:
        terminalreporter.section("unit tests over 1 s without @pytest.mark.slow and its reason")
        for report in sorted(slow, key=lambda r: -r.duration):
            terminalreporter.line(f"{report.duration:.2f}s {report.when:8} {report.nodeid}")


@pytest.fixture(autouse=True, scope="session")
def tiny_backbone() -> None:
    register_tiny()


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def tiny_encoder() -> HypercolumnVLAD:
    """An encoder that takes milliseconds."""
    return make_tiny_encoder()


@pytest.fixture(scope="session")
def texture_images() -> tuple[list[np.ndarray], np.ndarray]:
    """Twenty-four small images of three textures that even a random network can distinguish."""
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
        skip_without("weights", str(error))
