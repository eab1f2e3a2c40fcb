"""Trees against the linear part: scores, intervals and the whole comparison on small sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.accuracy import trees
from benchmarks.common.folds import DataSet
from hypervlad import BoostedSoftmaxClassifier, HypercolumnVLAD


def small_encoder(**parameters: Any) -> HypercolumnVLAD:
    usual = {"weights": "random", "image_size": 32, "n_codewords": 3, "pooled": "unit"}
    return HypercolumnVLAD(**{**usual, **parameters, "backbone": "tiny"})


def data_set(n: int, n_classes: int) -> tuple[DataSet, dict[str, np.ndarray]]:
    """Classes that are intervals of a product of two columns, which no line separates."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 2))
    edges = [0.0] if n_classes == 2 else [-0.3, 0.3]
    y = np.array(["a", "b", "c"])[np.digitize(X[:, 0] * X[:, 1], edges)]
    data = DataSet("products", np.arange(n).astype(str), y, np.arange(n) // 2, "")
    return data, {"X": X, "widths": np.array([2])}


@pytest.mark.parametrize("n_classes", [2, 3])
def test_without_trees_is_a_model_that_has_none(n_classes: int) -> None:
    data, found = data_set(300, n_classes)
    train, test = np.arange(200), np.arange(200, 300)
    part = trees.compare(data, found, train, test, 0)
    assert part["rounds"] > 0
    codes = np.searchsorted(data.classes, data.y[test])
    for n_estimators, losses, right in zip((0, 300), part["losses"], part["right"], strict=True):
        model = BoostedSoftmaxClassifier(n_estimators=n_estimators, prior="sqrt", random_state=0)
        model.fit(found["X"][train], data.y[train], groups=data.groups[train])
        proba = model.predict_proba(found["X"][test])
        np.testing.assert_allclose(losses, -np.log(proba[np.arange(100), codes]), atol=1e-6)
        np.testing.assert_array_equal(right, model.predict(found["X"][test]) == data.y[test])


def test_a_row_by_loops() -> None:
    rng = np.random.default_rng(0)
    parts = []
    for tested in ([0, 1, 2, 3], [2, 3, 4, 5]):
        values = np.full((2, 2, 6), np.nan)
        values[:, :, tested] = rng.random((2, 2, 4))
        parts.append({"losses": values[0], "right": values[1], "rounds": 3, "gain": 0.1})
    row = trees.row_of("a set", 10.4, np.arange(6), parts)
    for score, sign in (("losses", -1), ("right", 1)):
        without, gain = [], []
        for image in range(6):
            of_image = [p[score][:, image] for p in parts if not np.isnan(p[score][0, image])]
            without.append(np.mean([each[0] for each in of_image]))
            gain.append(sign * np.mean([each[1] - each[0] for each in of_image]))
        assert row[score]["without"] == pytest.approx(np.mean(without))
        assert row[score]["gain"] == pytest.approx(np.mean(gain))
        low, high = row[score]["interval"]
        assert low < np.mean(gain) < high


def test_the_cells_of_a_row() -> None:
    score = {"without": 0.5, "gain": 0.01, "interval": [-0.02, 0.03]}
    row = {"set": "steel", "n_train": 1200, "n_models": 3, "losses": score, "right": score}
    row |= {"rounds": [0, 4, 8], "cross_validated_gains": [-0.5, 0.02, 0.04]}
    gain = "+0.0100 [-0.0200, +0.0300]"
    expected = ["steel", "1,200", "0.5000", gain, "0.5000", gain, "2 of 3", "+0.0300"]
    assert trees.row_texts(row) == expected
    assert trees.row_texts(row | {"rounds": [0, 0, 0]})[-2:] == ["0 of 3", "–"]


@pytest.mark.long
def test_the_whole_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "default_encoder", small_encoder)
    for name, value in (("N_TEM", 60), ("N_TEM_TESTED", 20), ("N_CODEBOOK", 10), ("N_CLASSES", 4)):
        monkeypatch.setattr(trees, name, value)
    monkeypatch.setattr(trees, "DRAWS", {30: 2, 40: 1})
    checkpoints, out = tmp_path / "checkpoints", tmp_path / "trees.json"
    fixed = ["--data", str(checkpoints / "images"), "--checkpoints", str(checkpoints)]
    fixed += ["--repeats", "1", "--threads", "1", "--out", str(out)]
    trees.main([*fixed, "--sets"])
    # The images that were just made, once more as a set of folds.
    trees.main([*fixed, "--sets", "synthetic_TEM_4_60_7"])
    facts = json.loads(out.read_text(encoding="utf-8"))
    assert [(row["n_train"], row["n_models"]) for row in facts["rows"]] == [
        (30, 2),
        (40, 1),
        (48, 5),
    ]
    assert len(trees.trees_table(facts).splitlines()) == 2 + 3
