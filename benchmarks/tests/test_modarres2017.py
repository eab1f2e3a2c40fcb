"""The benchmark of the 2017 paper's system: small folders, every table, and resuming."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.common.scores import OutOfFold
from benchmarks.papers.modarres2017 import __main__ as modarres2017
from benchmarks.papers.modarres2017 import data as modarres2017_data
from benchmarks.papers.modarres2017 import methods as modarres2017_methods
from benchmarks.papers.modarres2017.tables import comparison
from hypervlad import MicrographClassifier, default_encoder, make_tem_images
from hypervlad.baselines import TransferClassifier
from hypervlad.presets import modarres2017 as preset

N_EACH = 6


def write_folder(folder: Path, seed: int, n: int = 4 * N_EACH) -> Path:
    images, labels = make_tem_images(n, size=48, random_state=seed)
    rows = ["path,group"]
    for i, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        path = folder / label / f"{i:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.round(255 * image).astype(np.uint8)).save(path)
        rows.append(f"{label}/{path.name},g{i // 4 // 2}{label}")
    (folder.parent / f"{folder.name}.csv").write_text("\n".join(rows), encoding="utf-8")
    return folder


def small_preset(*given: Any, **parameters: Any) -> TransferClassifier:
    return preset(*given, **parameters).set_params(image_size=32, batch_size=4)


def small_encoder(**parameters: Any) -> Any:
    return default_encoder(**parameters, image_size=32, n_codewords=4, sampling=600)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(modarres2017_methods, "modarres2017", small_preset)
    monkeypatch.setattr(modarres2017_methods, "default_encoder", small_encoder)
    write_folder(tmp_path / "sem", 0)
    write_folder(tmp_path / "later", 1, 8)

    def function(*more: str) -> dict[str, Any]:
        modarres2017.main(
            [
                *("--data", str(tmp_path / "sem"), "--groups", str(tmp_path / "sem.csv")),
                *("--test", str(tmp_path / "later"), "--weights", "mobilenet_v2=random"),
                *("--max-epochs", "1", "--threads", "1", "--folds", "2"),
                *("--checkpoints", str(tmp_path / "kept"), "--out", str(tmp_path / "out"), *more),
            ]
        )
        path = tmp_path / "out" / "modarres2017_sem.json"
        facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return facts

    return function


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Classes with only one or two:UserWarning")
@pytest.mark.filterwarnings("ignore:fine-tuning is validated on:UserWarning")
def test_every_method_on_the_same_folds_and_once_only(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = run()
    assert [row["method"] for row in facts["rows"]] == [
        "mobilenet_v2, features",
        "mobilenet_v2, all layers",
        "hypervlad, default, mobilenet_v2",
    ]
    assert (facts["n"], facts["n_groups"], facts["folds"]) == (24, 12, 2)
    for row in facts["rows"]:
        assert 0 <= row["accuracy"] <= row["top2"] <= 1
        assert np.array(row["confusion"]).sum(axis=1).tolist() == [6, 6, 6, 6]
        assert np.trace(row["confusion"]) == pytest.approx(24 * row["accuracy"])
        assert row["second"]["top2"] >= row["second"]["accuracy"]
        assert 0 <= row["ece"] <= 1
        assert row["fit_seconds"] > 0
        assert row["ms"] > 0
    assert not list((tmp_path / "kept").rglob("training-*"))
    table = comparison([facts])
    assert "| mobilenet_v2, all layers | " in table
    assert " | 1.0 of 1\\* | " in table  # epochs, cut short by --max-epochs
    assert "On a second test set, later:" in table
    for kind in (TransferClassifier, MicrographClassifier):
        monkeypatch.setattr(kind, "fit", lambda *_, **__: pytest.fail("it was learnt again"))
    assert run()["rows"] == facts["rows"]
    added = run("--trainable", "--without-ours")
    assert len(added["rows"]) == 3  # what is there of the same folds stays


def test_scores_against_plain_counting() -> None:
    codes, groups = np.array([0, 0, 1, 2]), np.arange(4)
    proba = np.array([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.3, 0.4, 0.3], [0.5, 0.4, 0.1]])
    found = modarres2017.scores(OutOfFold(codes, groups, proba[None]))
    assert found["accuracy"] == 0.5
    assert found["top2"] == 0.5  # of the second image, the true one comes third
    assert found["confusion"] == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]
    assert found["classes"][0] == {"precision": 0.5, "recall": 0.5, "f1": 0.5, "n": 2}
    assert found["classes"][2] == {"precision": None, "recall": 0.0, "f1": 0.0, "n": 1}


def test_ten_synthetic_categories(tmp_path: Path) -> None:
    folder = modarres2017_data.synthetic_folder(tmp_path, 2, 64)
    data = modarres2017_data.read_folder(folder, None)
    assert len(data.classes) == 10
    assert np.unique(data.y, return_counts=True)[1].tolist() == [2] * 10
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")}
    assert modarres2017_data.synthetic_folder(tmp_path, 2, 64) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")} == before


def test_categories_that_are_not_learnt_are_reported(tmp_path: Path) -> None:
    data = modarres2017_data.read_folder(write_folder(tmp_path / "sem", 0, 8), None)
    (tmp_path / "later" / "moss").mkdir(parents=True)
    (tmp_path / "sem" / "fiber").rename(tmp_path / "later" / "fiber")
    next((tmp_path / "later" / "fiber").iterdir()).rename(tmp_path / "later" / "moss" / "0.png")
    with pytest.raises(SystemExit, match="without training images: moss"):
        modarres2017.second_test_set(tmp_path / "later", data)
