"""Kinds that no mask showed: splits keep sources apart, scores are combined as described."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from benchmarks.defects import unseen_kinds
from benchmarks.defects.comparisons import Resampling, SplitScores, differences_of_unseen_kinds
from benchmarks.defects.surfaces import FREE, Surface
from benchmarks.defects.tables import unseen_section
from benchmarks.defects.unseen_kinds import (
    MADE,
    MAPS,
    MASKS,
    METHODS,
    NO_MASKS,
    Bench,
    Scored,
    StandardScorer,
    combinations,
    measure,
    split_without,
)
from hypervlad import PatchDefectScorer, default_patch_encoder
from hypervlad.datasets import IMAGE_DEFECTS, add_defect
from hypervlad.defects.thresholds import image_score

SIZE = (64, 72)


def plates(n_free: int, n_square: int) -> Surface:
    """Noise; some images have a square, of two kinds in turn."""
    rng = np.random.default_rng(0)
    examples = []
    for i in range(n_free + n_square):
        image = (0.6 + 0.02 * rng.standard_normal(SIZE)).astype(np.float32)
        mask = np.zeros(SIZE, dtype=bool)
        if i >= n_free:
            mask[16:40, 20:44] = True
            image[mask] *= (0.2, 1.5)[i % 2]
        examples.append((FREE if i < n_free else ("dark", "bright")[i % 2], image, mask))
    return Surface.of("plates", examples)


def test_the_kinds_of_a_group_take_turns() -> None:
    plain = plates(5, 0)
    surface = plain.with_made_defects(MADE)
    assert surface.kinds.tolist() == [FREE] * 5 + [name for name in MADE for _ in range(5)]
    np.testing.assert_array_equal(surface.sources, np.tile(np.arange(5), 3))
    number = IMAGE_DEFECTS.index("pits")
    image, mask = add_defect(plain.images[3], "pits", random_state=3 * len(IMAGE_DEFECTS) + number)
    np.testing.assert_array_equal(surface.images[8], image)
    np.testing.assert_array_equal(surface.masks[8], mask)


def test_no_image_is_tested_whose_tile_is_learnt_from() -> None:
    tiles = np.arange(36)
    tiles[[1, 13, 15]] = [0, 12, 12]  # two defect-free images of a tile, three of another kind
    tiles[35] = 2  # a tile with and without a defect
    surface = replace(plates(12, 24), specimens=tiles).with_made_defects(MADE)
    tiles = surface.specimens
    shown = []
    for left_out in surface.kinds_of_defects():
        free, masked, test = split_without(surface, left_out, 6, 3, 6, seed=1)
        assert set(surface.kinds[free]) == {FREE}
        assert 5 <= len(free) <= 6
        assert left_out not in surface.kinds[masked]
        learnt = np.concatenate([free, masked])
        assert not set(tiles[learnt]) & set(tiles[test])
        n_tested = {kind: int((surface.kinds[test] == kind).sum()) for kind in (FREE, *MADE)}
        assert set(n_tested.values()) == {6}
        for kind in surface.kinds_of_defects():
            is_left_out = kind == left_out
            assert (surface.kinds[masked] == kind).sum() == (0 if is_left_out else 3)
            if kind not in MADE:
                assert 11 <= (surface.kinds[test] == kind).sum() + (0 if is_left_out else 5) <= 14
        shown.append(set(masked[surface.kinds[masked] == "dark"]))
    assert len({frozenset(each) for each in shown if each}) == 1  # the same in all runs


def test_combinations() -> None:
    rng = np.random.default_rng(0)
    first, second = (Scored(*rng.random((2, 20, 30)), score) for score in (1.0, 4.0))
    found = combinations(first, second)
    assert set(found) == set(METHODS)
    assert found["mean of image scores"][1] == 2.5
    assert found["maximum of image scores"][1] == 4
    score_map, score = found["maximum of maps, by places"]
    np.testing.assert_array_equal(score_map, np.maximum(first.by_places, second.by_places))
    assert score == image_score(score_map)
    score_map, _ = found["mean of maps, by images"]
    np.testing.assert_allclose(score_map, (first.map + second.map) / 2)


def test_differences_are_those_of_the_kinds_left_out_and_of_the_others() -> None:
    rng = np.random.default_rng(0)
    kinds, names = np.repeat([FREE, "dark", "bright"], [8, 4, 4]), ("a", "b")
    runs = {
        left_out: [
            SplitScores(kinds, np.arange(16), {name: rng.random(16) for name in names})
            for _ in range(2)
        ]
        for left_out in ("dark", "bright")
    }
    drawn = {k: Resampling(kinds, np.arange(16), own, n_draws=50) for k, own in runs.items()}
    np.testing.assert_array_equal(*(each.times for each in drawn.values()))
    found = differences_of_unseen_kinds(runs, *names, drawn)

    def auroc(split: SplitScores, name: str, kind: str) -> float:
        rows = np.isin(kinds, (FREE, kind))
        return float(roc_auc_score(kinds[rows] == kind, split.scores[name][rows]))

    for left_out, other in (("dark", "bright"), ("bright", "dark")):
        for which, kind in (("unseen", left_out), ("seen", other)):
            values = [auroc(s, "a", kind) - auroc(s, "b", kind) for s in runs[left_out]]
            assert found[which][left_out]["value"] == pytest.approx(np.mean(values))
    low, value, high = (found["unseen"]["mean"][name] for name in ("low", "value", "high"))
    assert low < value < high


@pytest.fixture
def tiny_scorer() -> PatchDefectScorer:
    encoder = default_patch_encoder(backbone="tiny", weights="random", n_codewords=4)
    return PatchDefectScorer(encoder, n_codewords=8, random_state=0)


@pytest.mark.parametrize("n_masked", [0, 4])
def test_scores_are_relative_to_those_of_held_out_images(
    tiny_scorer: PatchDefectScorer, n_masked: int
) -> None:
    surface = plates(8, 4)
    free, masked = np.arange(8), 8 + np.arange(n_masked)
    fitted = StandardScorer.fit(tiny_scorer, surface, free, masked)
    scorer = fitted.scorer
    assert scorer.n_images_ == 8 + n_masked
    of_free = scorer.held_out_.scores[:8]
    middle, high = np.quantile(of_free, [0.5, 0.9])
    assert fitted.of_images == pytest.approx((middle, high))
    found = fitted.score(surface.images[0])
    plain = scorer.find(surface.images[0])
    assert found.score == pytest.approx((plain.score - middle) / (high - middle), rel=1e-4)
    scales = (fitted.of_images, fitted.of_places)
    for standard, (middle, high) in zip((found.map, found.by_places), scales, strict=True):
        expected = (plain.map - middle) / (high - middle)
        np.testing.assert_allclose(standard, expected, rtol=1e-4, atol=1e-4)


def test_runs_are_kept_and_shown(
    tiny_scorer: PatchDefectScorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(plates(10, 14), tiny_scorer, {}, tmp_path, n_train=5, n_masked=5, n_test=5)
    facts = measure(bench, 1)
    assert [row["method"] for row in facts["rows"]] == list(METHODS)
    for row in facts["rows"]:
        assert set(row["differences"]) == {MASKS, NO_MASKS} - {row["method"]}
        assert ("pixel_auroc" in row) == (row["method"] in MAPS)
        for which in ("unseen", "seen"):
            assert set(row["image_auroc"][which]) == {"dark", "bright"}
    monkeypatch.setattr(StandardScorer, "fit", lambda *_: pytest.fail("scores were not kept"))
    assert measure(bench, 1) == facts
    result = {"surface": "plates", "measured_kinds": {"own": json.loads(json.dumps(facts))}}
    text = unseen_section([result])
    assert "**plates**, own kinds (5 defect-free images and masks of 5 images" in text
    row = facts["rows"][2]
    unseen = row["image_auroc"]["unseen"]
    cells = " | ".join(f"{unseen[kind][0]:.3f}" for kind in ("dark", "bright"))
    assert f"| {row['method']} | {cells} |" in text
    gain = row["differences"][NO_MASKS]["seen"]["mean"]
    assert f"{gain['value']:+.3f} ({gain['low']:+.3f} to {gain['high']:+.3f})" in text


@pytest.mark.long
def test_another_network_is_one_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    surface = plates(10, 14)
    monkeypatch.setattr(unseen_kinds, "read_surface", lambda data, good: surface)
    arguments = ["--data", str(tmp_path), "--backbone", "tiny", "--weights", "random"]
    arguments += ["--train", "5", "--masks", "5", "--test", "5", "--splits", "1"]
    arguments += ["--checkpoints", str(tmp_path / "kept"), "--out", str(tmp_path)]
    unseen_kinds.main(arguments)
    result = json.loads((tmp_path / "unseen_plates.json").read_text(encoding="utf-8"))
    assert unseen_section([result]) in capsys.readouterr().out
    n_kept = len(list((tmp_path / "kept").iterdir()))
    unseen_kinds.main([*arguments, "--backbone", "timm/test_vit"])
    assert len(list((tmp_path / "kept").iterdir())) == 2 * n_kept
