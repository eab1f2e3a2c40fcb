"""Every stage of reading is measured; the bound of extraction follows from the processor's time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.common.results import load_result
from benchmarks.speed import reading, reduced
from benchmarks.speed.tables import hidden_table, reduced_table, stages_table


def test_a_small_folder(tmp_path: Path) -> None:
    out = tmp_path / "reading.json"
    encoder = {"backbone": "tiny", "weights": "random", "image_size": 32, "n_codewords": 4}
    encoder |= {"n_samples": 400, "runtime": "torch"}
    few = ["--rounds", "2", "--images", "3", "--size", "64", "--threads", "1"]
    reading.main([*few, "--encoder", json.dumps(encoder), "--out", str(out)])
    facts = load_result(out)
    assert set(facts["stages"]["PNG"]) == {"decode", "digest", "scale", "blank", "resize", "all"}
    for of_one in facts["stages"].values():
        parts = sum(min(of_one[step]) for step in of_one if step != "all")
        assert parts < 2 * max(of_one["all"])
    assert {len(values) for values in facts["seconds"].values()} == {2}
    assert min(facts["seconds"]["extraction"]) > 0


def test_percentiles_are_a_stage_of_deep_images(tmp_path: Path) -> None:
    facts = {"stages": {"a": {"decode": [0.001], "percentiles": [0.002], "all": [0.004]}}}
    heads, _, row = stages_table(facts).splitlines()
    assert heads == "| format | decode | digest | percentiles | scale | blank | resize | all |"
    assert row == "| a | 1.0 ms | – | 2.0 ms | – | – | – | 4.0 ms |"


@pytest.mark.parametrize(
    ("busy", "cores", "bound", "reached"),
    [(0.02, 2, "1.20", "1.25"), (0.004, 2, "1.00", "1.50"), (0.02, 4, "1.00", "1.50")],
)
def test_the_bound(busy: float, cores: int, bound: str, reached: str) -> None:
    seconds = {"reading": [0.01], "encoding": [0.008], "extraction": [0.015]}
    processor = {"reading": [busy], "encoding": [0.004], "extraction": [0.03]}
    text = hidden_table({"seconds": seconds, "processor": processor, "cores": cores})
    assert "Extraction takes 1.50 x the slower" in text
    assert f"cannot take less than {bound} x; extraction takes {reached} x this bound" in text
    assert f"and {0.03 / (busy + 0.004):.2f} x the processor's time" in text


def test_reduced_copies_are_measured_beside_whole_images(tmp_path: Path) -> None:
    out = tmp_path / "reduced.json"
    encoder = {"backbone": "tiny", "weights": "random", "image_size": 32, "n_codewords": 4}
    few = ["--images", "24", "--size", "128", "--rounds", "2"]
    reduced.main([*few, "--encoder", json.dumps(encoder), "--out", str(out)])
    facts = load_result(out)
    assert [(row["format"], row["reduced"]) for row in facts["rows"]] == [
        *(("JPEG", False), ("JPEG", True)),
        *(("pyramid TIFF", False), ("pyramid TIFF", True)),
    ]
    whole, copy = facts["rows"][2:]
    assert 0 <= whole["accuracy"] <= 1
    assert whole["log_loss"] != copy["log_loss"]  # it has an effect
    assert len(reduced_table(facts).splitlines()) == 6
