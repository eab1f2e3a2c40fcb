"""All runtimes give the same maps, and the table compares them with torch in each state."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from benchmarks.common.results import load_result
from benchmarks.speed import runtimes
from benchmarks.speed.tables import runtimes_table


@pytest.mark.skipif(
    "ONEDNN_MAX_CPU_ISA" in os.environ,
    reason="OpenVINO has no bfloat16 where oneDNN may not use all that the processor can",
)
def test_maps_are_those_of_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setattr(torch, "compile", lambda module: module)  # takes 20 s
    out = tmp_path / "runtimes.json"
    before = torch.get_num_threads()
    small = ["--size", "32", "--rounds", "1", "--threads", "1"]
    try:
        runtimes.main(["--networks", "tiny", *small, "--out", str(out)])
    finally:
        torch.set_num_threads(before)
    (row,) = load_result(out)["rows"]
    assert len(row["difference"]) >= 8
    for method, difference in row["difference"].items():
        assert difference < (0.1 if "bfloat16" in method else 1e-5), method
    assert set(row["quiet"]) == set(row["busy"]) == set(row["difference"])


def test_a_difference_is_relative_to_the_largest_value_of_its_map() -> None:
    expected = [torch.tensor([1.0, -4.0]), torch.tensor([100.0])]
    found = [torch.tensor([1.0, -3.0]).numpy(), torch.tensor([101.0])]
    assert runtimes.difference(found, expected) == 0.25


def test_table() -> None:
    methods = ("torch", "other")
    row = {
        "network": "tiny",
        "quiet": {"torch": [2.0, 4.0], "other": [1.0, 2.0]},
        "busy": {"torch": [5.0, 5.0], "other": [10.0, 10.0]},
        "difference": dict.fromkeys(methods, 2e-6),
        "first": dict.fromkeys(methods, 0.25),
    }
    assert runtimes_table({"rows": [row]}).splitlines()[2:] == [
        "| tiny | torch | 3.0 ms | 5.0 ms | – | 0.2 s |",
        "| tiny | other | 0.50 x | 2.00 x | 2e-06 | 0.2 s |",
    ]
