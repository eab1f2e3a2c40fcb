"""Where the default backbone's real ImageNet weights are found."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hypervlad.backbones import find_weights


@pytest.mark.real
def test_the_cache_comes_before_the_package(
    mobilenet_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cached = tmp_path / "hub" / "checkpoints" / mobilenet_weights.name
    cached.parent.mkdir(parents=True)
    shutil.copyfile(mobilenet_weights, cached)
    assert find_weights("mobilenet_v2", download=False) == cached
