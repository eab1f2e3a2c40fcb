"""Comparisons of networks: shares of variance, distances, tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.accuracy.tables import DEFAULT
from benchmarks.common.folds import DataSet
from benchmarks.networks import accuracy as networks_accuracy
from benchmarks.networks import agreement, cost, defects


def test_agreement_of_a_small_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--image-size", "96", "--out", str(tmp_path / "a.json")]
    agreement.main(["--networks", "test_vit", *out])
    name, *differences = capsys.readouterr().out.splitlines()[-1].strip("| ").split("|")
    assert name.strip() == "test_vit"
    assert len(differences) == 5
    assert all(0 <= float(each) < 1e-5 for each in differences)


def test_costs_are_relative_to_the_network_and_the_default() -> None:
    rows = [
        {
            "backbone": name,
            "size": 224,
            "ms": {"network": [factor * 10.0] * 3, "finest": [factor * 12.0] * 3},
            "peak_mb": {"network": 5.0, "finest": None},
        }
        for name, factor in (("mobilenet_v2", 1), ("timm/resnet50", 4))
    ]
    last = cost.cost_table({"rows": rows}).splitlines()[-1]
    assert last == "| timm/resnet50 | 224 | 40 | 4.00 | 4.80 | 1.20 | 5 |  |"


def test_variants_are_scorers_of_the_networks_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETWORKS", "timm/test_vit=random tiny=random")
    made = defects.variants(0)
    assert list(made) == ["mobilenet_v2", "timm/test_vit", "tiny"]
    assert made["timm/test_vit"]().parameters["encoder"].backbone == "timm/test_vit"
    rows = [
        {"method": name, "image_auroc": {"scratch": [score, score], "stain": [1.0, 1.0]}}
        for name, score in (("mobilenet_v2", 0.5), ("tiny", 0.7))
    ]
    text = defects.networks_defects_table([{"surface": "tiles", "rows": rows}])
    assert text.splitlines()[-1] == "| tiny | 0.850, 0.700 | 0.850 |"


def test_networks_are_compared_on_the_same_folds(monkeypatch: pytest.MonkeyPatch) -> None:
    y = np.array(["a", "b"] * 10)
    proba = np.tile([[0.9, 0.1], [0.1, 0.9]], (10, 1))[None]
    worse = proba.copy()
    worse[0, :4] = worse[0, :4, ::-1]
    by_file = {"own": ("mobilenet_v2", proba), "other": ("timm/x", worse)}
    monkeypatch.setattr(
        networks_accuracy, "load_result", lambda file: {"backbone": by_file[file.name][0]}
    )

    def read(file: Path, data_sets: dict[str, DataSet]) -> dict[str, object]:
        predictions = networks_accuracy.Predictions()
        facts = {"fit_seconds": 1.0, "predict_seconds": 1.0}
        predictions.add(DEFAULT, by_file[file.name][1], facts)
        return {"set": predictions}

    monkeypatch.setattr(networks_accuracy, "read_results", read)
    data = type("Data", (), {"y": y, "classes": np.array(["a", "b"]), "groups": np.arange(20)})
    found = networks_accuracy.compare([Path("own"), Path("other")], {"set": data})
    gain = found["means"][1]["accuracy_against"]["default"]["gain"]
    assert gain == pytest.approx(-0.2)
    assert "| timm/x | 0.800" in networks_accuracy.networks_table(found)
