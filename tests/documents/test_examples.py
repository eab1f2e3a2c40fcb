"""The scripts in examples/: each writes a figure."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from PIL import Image
from support.paths import ROOT
from support.readme import run

pytestmark = pytest.mark.real


@pytest.mark.parametrize(
    "script", sorted((ROOT / "examples").glob("plot_*.py")), ids=lambda p: p.stem
)
def test_examples_write_a_figure(script: Path, tmp_path: Path, mobilenet_weights: Path) -> None:
    run([sys.executable, "-W", "error", str(script), "--out", "picture.png"], tmp_path)
    with Image.open(tmp_path / "picture.png") as picture:
        assert min(picture.size) > 200
