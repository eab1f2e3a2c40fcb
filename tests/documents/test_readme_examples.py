"""The README's examples in Python, run as a reader would run them."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from support.readme import blocks, run

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork"),
]

# Imports once what all blocks import, which takes seconds; each block then has a process of its
# own, in which it is the main module, as if it had been started with ``python -c``.
FORKING = """
import json, os, sys, types
import hypervlad
for name in hypervlad.__all__:
    getattr(hypervlad, name)
for block in json.load(sys.stdin):
    if not os.fork():
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(block, "<README.md>", "exec"), vars(main))
        break
    _, status = os.wait()
    if status:
        sys.exit(f"failed:\\n{block}")
"""


def test_python_examples(workplace: Path) -> None:
    # The few images here leave few held-out groups, for early stopping and for sure answers.
    strict = ["-W", "error", "-W", "ignore:fine-tuning is validated on"]
    strict += ["-W", "ignore:no answer is sure"]
    # Another test may run a cluster at the same time: dask then takes another port.
    strict += ["-W", "ignore:Port 8787 is already in use"]
    # In order: some blocks use the results of earlier ones.
    run([sys.executable, *strict, "-c", FORKING], workplace, input=json.dumps(blocks("python")))
    assert (workplace / "words.png").is_file()
