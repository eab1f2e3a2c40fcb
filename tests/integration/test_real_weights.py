"""Where the default backbone's real ImageNet weights are found."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hypervlad.features import find_weights
from hypervlad.features.backbones import mobilenet_file


@pytest.mark.real
def test_the_package_comes_before_the_cache(
    mobilenet_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    cached = tmp_path / "torch" / "hub" / "checkpoints" / mobilenet_weights.name
    packaged = tmp_path / "package" / mobilenet_weights.name
    monkeypatch.setattr(mobilenet_file, "PATH", packaged)
    for path in (cached, packaged):
        path.parent.mkdir(parents=True)
        shutil.copyfile(mobilenet_weights, path)
        assert find_weights("mobilenet_v2", download=False) == path
