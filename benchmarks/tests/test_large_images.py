"""Peaks of memory are those of the command alone, and its failure is reported."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.speed import large_images
from benchmarks.speed.tables import large_images_table


def test_the_image_has_the_size_that_was_asked_for(tmp_path: Path) -> None:
    large_images.write_image(tmp_path / "image.png", 700)
    pixels = np.asarray(Image.open(tmp_path / "image.png"))
    assert pixels.shape == (700, 700)
    assert pixels.std() > 10


@pytest.mark.skipif(not hasattr(os, "wait4"), reason="needs os.wait4")
def test_a_command_is_measured_and_its_failure_ends_the_program(tmp_path: Path) -> None:
    large_images.write_image(tmp_path / "image.png", 300)
    found = large_images.run_measured(["align", "image.png", "-o", "aligned"], tmp_path)
    assert 50 < found["peak_mb"] < 5000
    assert found["processor"] > 0
    assert (tmp_path / "aligned" / "alignment.csv").exists()
    with pytest.raises(SystemExit, match="exit code 2"):
        large_images.run_measured(["align", "missing.png", "-o", "aligned"], tmp_path)


def test_table() -> None:
    rows = [
        {"what": what, "size": size, "peak_mb": 1000 * size, "processor": size}
        for size in (2, 1)
        for what in ("classify", "defect map")
    ]
    assert large_images_table({"rows": rows}).splitlines() == [
        "| peak of memory, processor time | 1 px | 2 px |",
        "|---|---|---|",
        "| classify | 1.0 GB, 1 s | 2.0 GB, 2 s |",
        "| defect map | 1.0 GB, 1 s | 2.0 GB, 2 s |",
    ]
