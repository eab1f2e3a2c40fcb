"""Inputs of trees: what each of them shows, and the whole comparison on a small set."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.accuracy import tree_inputs, trees
from benchmarks.common.folds import DataSet
from benchmarks.tests.test_trees import small_encoder
from hypervlad.boosting.rows import TrainingRows


@pytest.mark.parametrize("n_classes", [2, 3])
def test_trees_on_block_margins_are_the_shipped_ones(n_classes: int) -> None:
    rng = np.random.default_rng(0)
    X = 0.1 * rng.normal(size=(300, 70))  # wider than `max_tree_features`
    X[:, 0] += (position := rng.random(300))
    bands = np.digitize(position, [0.15, 0.5, 0.75][:n_classes]) % n_classes
    data = DataSet("bands", np.arange(300).astype(str), bands, np.arange(300) // 2, "")
    found = {"X": X, "widths": np.array([35, 35]), "texture": rng.random((300, 3))}
    split = (np.arange(200), np.arange(200, 300), 0)
    expected = trees.compare(data, found, *split)
    part = tree_inputs.LinearPart.of(data, found, split).with_trees(
        tree_inputs.INPUTS[tree_inputs.SHIPPED]
    )
    assert part["rounds"] == expected["rounds"] > 0
    for key in ("losses", "right", "gain"):
        np.testing.assert_allclose(part[key], expected[key], atol=1e-12)


def test_texture_is_learnt_only_from_texture() -> None:
    rng = np.random.default_rng(0)
    texture = rng.random((300, 2))
    y = np.where(texture[:, 1] > 0.5, "rough", "smooth")
    data = DataSet("textures", np.arange(300).astype(str), y, np.arange(300), "")
    found = {"X": rng.normal(size=(300, 70)), "widths": np.array([70]), "texture": texture}
    split = (np.arange(200), np.arange(200, 300), 0)
    part = tree_inputs.LinearPart.of(data, found, split)
    without, with_trees = part.with_trees(["texture"])["losses"].mean(axis=1)
    assert with_trees < 0.3 < without
    assert part.with_trees(["margins", "discriminants"])["rounds"] == 0


def test_scores_of_held_out_rows_do_not_depend_on_their_labels() -> None:
    rng = np.random.default_rng(0)
    X, codes = rng.normal(size=(40, 6)), np.arange(40) % 3
    held_out, rest = np.arange(20), np.arange(20, 40)
    others = np.append((codes[held_out] + 1) % 3, codes[rest])
    scores = [
        tree_inputs.discriminant_scores(
            TrainingRows(X, np.arange(40), c, np.ones(40), np.arange(40)),
            X[:5],
            [(rest, held_out)],
            [4, 2],
        )
        for c in (codes, others)
    ]
    (before, new_before), (after, new_after) = scores
    assert before.shape == (40, 2 * 3)
    np.testing.assert_allclose(before[held_out], after[held_out])
    assert np.abs(before[rest] - after[rest]).max() > 0.1
    assert np.abs(new_before - new_after).max() > 0.1


@pytest.mark.long
def test_the_whole_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "default_encoder", small_encoder)
    for name, value in (("N_TEM", 60), ("N_TEM_TESTED", 20), ("N_CODEBOOK", 10), ("N_CLASSES", 4)):
        monkeypatch.setattr(trees, name, value)
    monkeypatch.setattr(trees, "DRAWS", {30: 2, 40: 1})
    monkeypatch.setattr(tree_inputs, "MAX_WHOLE", 30)
    out = tmp_path / "tree_inputs.json"
    fixed = ["--data", str(tmp_path), "--sets", "--checkpoints", str(tmp_path / "checkpoints")]
    tree_inputs.main([*fixed, "--threads", "1", "--out", str(out)])
    facts = json.loads(out.read_text(encoding="utf-8"))
    n_inputs = len(tree_inputs.INPUTS)
    sizes = [(row["n_train"], row["n_models"]) for row in facts["rows"]]
    assert sizes == [(30, 2)] * n_inputs + [(40, 1)] * (n_inputs - 1)
    lines = tree_inputs.tree_inputs_table(facts).splitlines()
    assert len(lines) == 2 + len(sizes)
    assert lines[2].split(" | ")[2] == tree_inputs.SHIPPED
