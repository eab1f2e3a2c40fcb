"""Shared and own directions are compared on the same images; uncut, they are the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.common.results import load_result
from benchmarks.speed.first_minutes import write_folder
from benchmarks.uncertainty import directions


@pytest.mark.long
def test_directions_that_are_not_cut_are_the_same_either_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directions, "N_CODEBOOK", 16)
    encoder = directions.default_encoder
    small = {"weights": "random", "image_size": 64, "n_codewords": 4, "n_samples": 500}
    monkeypatch.setattr(directions, "default_encoder", lambda **given: encoder(**small, **given))
    images, out = write_folder(tmp_path / "images", 100, 64), tmp_path / "directions.json"
    sizes = ["--training", "30", "--new", "24", "--draws", "2", "--threads", "1"]
    directions.main(["--images", str(images), *sizes, "--out", str(out)])
    facts = load_result(out)
    assert len(facts["draws"]) == 2
    for draw in facts["draws"]:
        assert draw["shared"] == pytest.approx(draw["own"], abs=0.02)
        assert 0 < draw["own"]["covered"] <= 1
    assert directions.directions_table(facts).splitlines()[2].startswith("| shared | ")
