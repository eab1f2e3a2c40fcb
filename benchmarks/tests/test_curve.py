"""Learning curves and rare classes: draws, scores and tables on a small folder of textures."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from skimage.io import imsave

from benchmarks.accuracy import curve, rare
from benchmarks.accuracy.features import Taps
from benchmarks.common.folds import DataSet
from benchmarks.common.synthetic import tem_set
from hypervlad import HypercolumnVLAD


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    """Two textures of 14 groups of two images each."""
    root = tmp_path_factory.mktemp("data") / "textures"
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:32, :32] / 4.0
    lines = ["path,group"]
    for name, pattern in {"stripes": np.sin(2 * x), "rings": np.cos(3 * np.hypot(x, y))}.items():
        (root / name).mkdir(parents=True)
        for i in range(28):
            image = 128 + 70 * pattern + 15 * rng.standard_normal(x.shape)
            imsave(root / name / f"{i:02d}.png", np.clip(image, 0, 255).astype(np.uint8))
            lines.append(f"{name}/{i:02d}.png,{name}-{i // 2}")
    (root / "groups.csv").write_text("\n".join(lines), encoding="utf-8")
    return DataSet.load(root)


def small_encoder(**parameters: Any) -> HypercolumnVLAD:
    usual = {
        "weights": "random",
        "image_size": 32,
        "n_codewords": 3,
        "blocks": ("joint", "pooled_unit"),
    }
    return HypercolumnVLAD(**{**usual, **parameters, "backbone": "tiny"})


@pytest.mark.parametrize("size", [1, 3, 9])
def test_no_group_is_learnt_from_and_tested(data: DataSet, size: int) -> None:
    for seed in range(3):
        rows = curve.draw(data, size, seed)
        assert rows is not None
        train, test = rows
        assert not set(data.groups[train]) & set(data.groups[test])
        assert [(data.y[train] == c).sum() for c in data.classes] == [size] * 2
        assert all(10 <= (data.y[test] == c).sum() <= 12 for c in data.classes)
        # Of as many groups as possible: 14 of each class are enough for all sizes.
        assert len(set(data.groups[train])) == 2 * size


def test_a_set_that_is_too_small_has_no_draw(data: DataSet) -> None:
    assert curve.draw(data, 10, 0) is None


def test_curves_and_leads_of_known_accuracies() -> None:
    def rows(lead: float, sizes: tuple[int, ...]) -> list[dict[str, Any]]:
        return [
            {"size": size, "draw": i}
            | dict.fromkeys(curve.METHODS, 0.5)
            | {curve.DEFAULT: 0.5 + lead + 0.01 * (-1) ** i}
            for size in sizes
            for i in range(curve.N_DRAWS)
        ]

    by_set = {"a": rows(0.1, (1, 2)), "b": rows(0.3, (1,))}
    means = curve.mean_curves(by_set)
    np.testing.assert_allclose(means[curve.DEFAULT][:2], [0.7, 0.6])
    assert np.isnan(means[curve.DEFAULT][2:]).all()
    for lead in curve.leads(by_set):
        assert lead["lead"] == pytest.approx(0.15)
        assert 0.13 < lead["low"] < 0.15 < lead["high"] < 0.17


@pytest.mark.filterwarnings("ignore:Classes with only one or two")
def test_the_whole_comparison(
    data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curve, "default_encoder", small_encoder)
    monkeypatch.setattr(curve, "SIZES", (1, 9, 10))
    monkeypatch.setattr(curve, "N_DRAWS", 2)
    monkeypatch.setattr("benchmarks.accuracy.features.IMAGE_SIZE", 32)
    arguments = argparse.Namespace(
        backbone="tiny", weights="random", threads=1, checkpoints=tmp_path / "checkpoints"
    )
    rows = curve.measure(data, Taps("tiny", "random"), arguments)
    assert [(row["size"], row["draw"]) for row in rows] == [(1, 0), (1, 1), (9, 0), (9, 1)]
    assert all(0 <= row[name] <= 1 for row in rows for name in curve.METHODS)
    facts = {"rows": {"textures": rows}, "leads": curve.leads({"textures": rows})}
    section = curve.curve_section(facts)
    assert "| textures | hypervlad, default |" in section
    assert section.count("– |") == 8  # no set has ten images of each class to spare
    curve.draw_figure(facts, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 10_000


def test_scores_by_loops() -> None:
    rng = np.random.default_rng(0)
    codes = np.array([0] * 12 + [1] * 6 + [2] * 2)
    proba = rng.dirichlet(np.ones(3), size=(2, 20))
    right = [[p[i].argmax() == codes[i] for i in range(20)] for p in proba]
    recall = [
        np.mean([[r[i] for i in range(20) if codes[i] == c] for r in right]) for c in range(3)
    ]
    loss = np.mean([[-np.log(p[i, codes[i]]) for i in range(20)] for p in proba])
    accuracy, balanced = np.mean(right), np.mean(recall)
    expected = [accuracy, balanced, (accuracy + balanced) / 2, loss, min(recall)]
    np.testing.assert_allclose(rare.scores(codes, proba), expected)
    # Weights are copies, and images that were never tested do not count.
    times = rng.integers(0, 3, 20) + np.isin(np.arange(20), [0, 12, 18])
    copied = rare.scores(codes.repeat(times), proba.repeat(times, axis=1))
    np.testing.assert_allclose(rare.scores(codes, proba, times.astype(float)), copied)
    padded = np.concatenate([proba, np.full((2, 1, 3), np.nan)], axis=1)
    np.testing.assert_allclose(rare.scores(np.append(codes, 0), padded), expected)


def test_a_class_is_thinned_by_groups(data: DataSet) -> None:
    versions = list(rare.thinned(data))
    assert len(versions) == 2
    for label, rows in zip(data.classes, versions, strict=True):
        part = rare.subset(data, rows)
        kept = part.groups[part.y == label]
        assert len(set(kept)) == 5
        assert len(kept) == 10  # both images of each group
        assert (part.y != label).sum() == 28


def test_learners_are_compared_on_rare_classes(
    data: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rare, "default_encoder", small_encoder)
    monkeypatch.setattr(rare, "N_DRAWS", 20)
    rows = rare.rows_of(data, rare.measure(data, 1))
    assert [row["set"] for row in rows] == ["textures"] * 4 + ["textures, one class rare"] * 4
    means = rare.summary(rows)
    assert means[0]["gain"] == [0.0] * 5
    facts = {"rows": rows, "means": means, "best_elsewhere": {"textures": rare.DEFAULT}}
    section = rare.rare_section(facts)
    assert "textures: prior sqrt (default)" in section
    others = [{**row, "set": f"other{row['set'][8:]}"} for row in rows]
    assert set(rare.best_elsewhere([*rows, *others])) == {"textures", "other"}


def test_synthetic_images_are_written_once(tmp_path: Path) -> None:
    first = tem_set(tmp_path, 8)
    stamps = [Path(path).stat().st_mtime_ns for path in first.paths]
    second = tem_set(tmp_path, 8)
    assert [Path(path).stat().st_mtime_ns for path in second.paths] == stamps
    assert (len(first.paths), len(first.classes), first.digest) == (8, 4, second.digest)
