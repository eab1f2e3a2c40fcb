"""The work is counted right, and the bound is the longer of two times."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.common.results import load_result
from benchmarks.speed import roofline
from benchmarks.speed.tables import roofline_table
from hypervlad.backbones import TappedNetwork


def test_operations_of_convolutions() -> None:
    conv = torch.nn.Conv2d(3, 8, 3, padding=1)
    network = TappedNetwork(torch.nn.Sequential(conv).eval(), ["0"], "")
    counted = roofline.convolution_operations(network, torch.zeros(2, 3, 10, 10))
    assert counted == 2 * (2 * 8 * 10 * 10) * (3 * 3 * 3)


def test_work_of_vlad_on_the_only_layers_own_grid() -> None:
    n_bytes, operations = roofline.vlad_work([torch.zeros(2, 4, 5, 3)], 7, (4, 5))
    assert n_bytes == 4 * (2 * 4 * 5 * 3 + 7 * 3 + 2 * 7 * 3)
    of_position = 2 * 3 * 7 + 7 + 7 + 2 * 3  # scores, their sum, the highest, the sums of features
    assert operations == 2 * (4 * 5) * of_position


@pytest.mark.long
def test_rows_and_table(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    pytest.importorskip("numba")
    out = tmp_path / "roofline.json"
    before = torch.get_num_threads()
    try:
        roofline.main(["--sizes", "64", "--rounds", "1", "--threads", "1", "--out", str(out)])
    finally:
        torch.set_num_threads(before)
    rows = load_result(out)["rows"]
    assert [row["what"] for row in rows] == ["network", "VLAD, finest grid", "VLAD, every pixel"]
    assert all(row["seconds"] > 0 for row in rows)
    row = {"what": "VLAD", "size": 64, "bytes": 2e6, "operations": 3e6, "seconds": 0.004}
    facts = {"rows": [row | {"limits": {"bytes": 1e9, "operations": 3e9}}]}
    assert roofline_table(facts).endswith(
        "| 2.0 MB | 1 GB/s | 3 million | 3 billion/s | 2.00 ms (memory) | 4.00 ms | 50% |"
    )
