"""The README's examples in Python, run as a reader would run them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from support.readme import blocks, run

pytestmark = pytest.mark.real


def test_python_examples(workplace: Path) -> None:
    # The few images here leave few held-out groups for early stopping.
    strict = ["-W", "error", "-W", "ignore:fine-tuning is validated on"]
    # Another test may run a cluster at the same time: dask then takes another port.
    strict += ["-W", "ignore:Port 8787 is already in use"]
    for block in blocks("python"):  # in order: some use the results of earlier ones
        run([sys.executable, *strict, "-c", block], workplace)
    assert (workplace / "words.png").is_file()
