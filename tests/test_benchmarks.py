"""The tables of the READMEs are those of the stored results."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


def test_the_tables_are_made_from_the_results() -> None:
    command = [sys.executable, str(BENCHMARKS / "tables.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "script",
    [
        "encode_speed.py",
        "accuracy.py",
        "extract_scale.py",
        "luo2021.py",
        "tried.py",
        "defects.py",
        "modarres2017.py",
    ],
)
def test_scripts_explain_themselves(script: str) -> None:
    command = [sys.executable, str(BENCHMARKS / script), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "usage:" in done.stdout
