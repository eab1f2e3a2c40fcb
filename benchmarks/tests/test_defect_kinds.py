"""Kinds of defects: splits keep made defects apart, intervals cover, choices leave a kind out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from benchmarks.defects import kinds, surfaces
from benchmarks.defects.comparisons import (
    Resampling,
    SplitScores,
    choices_without_a_kind,
    differences,
    image_auroc,
)
from benchmarks.defects.rivals import Scored, SquareNetwork, all_rivals
from benchmarks.defects.scores import control_score, scores_by_kind
from benchmarks.defects.surfaces import (
    FREE,
    Surface,
    read_surface,
    specimens_of,
    split_surface,
)
from benchmarks.defects.tables import kinds_section, mean_and_worst
from hypervlad.datasets import IMAGE_DEFECTS

SIZE = (64, 72)

STUBS = """
import numpy as np
from benchmarks.defects.rivals import Scored

class Stub:
    def __init__(self, seed, noise):
        self.rng, self.noise = np.random.default_rng(seed), noise

    def fit(self, images, masks):
        self.usual = np.mean([image.mean() for image in images])
        self.threshold = 0.5 + self.noise

    def score(self, image):
        found = np.abs(image - self.usual) + self.noise * self.rng.random(image.shape)
        return Scored(found, float(found.max()), 0.002, 0.001, 0.0005)

    def n_bytes(self):
        return 8

def variants(seed):
    return {"exact": lambda: Stub(seed, 0.0), "noisy": lambda: Stub(seed, 2.0)}
"""


class Darkness:
    """Scores the darkness of a pixel; remembers what it was trained on."""

    threshold = 0.7

    def fit(self, images: list[np.ndarray], masks: list[np.ndarray] | None) -> None:
        self.trained_on = [image.copy() for image in images]

    def score(self, image: np.ndarray) -> Scored:
        return Scored(1 - image, float(1 - image.min()), 0.002, 0.001, 0.0005)

    def n_bytes(self) -> int:
        return 8


def plates(n_free: int, n_square: int) -> Surface:
    """Noise; some images have a dark square."""
    rng = np.random.default_rng(0)
    examples = []
    for i in range(n_free + n_square):
        image = (0.6 + 0.02 * rng.standard_normal(SIZE)).astype(np.float32)
        mask = np.zeros(SIZE, dtype=bool)
        if i >= n_free:
            mask[20:30, 20:30] = True
            image[mask] *= 0.2
        examples.append((FREE if i < n_free else "square", image, mask))
    return Surface.of("plates", examples)


def test_made_defects_are_tested_where_their_source_is() -> None:
    surface = plates(12, 3).with_made_defects()
    assert surface.kinds_of_defects() == ["square", *IMAGE_DEFECTS]
    assert all(mask.any() for mask in surface.masks[15:])
    tested = []
    for n_train in (2, 7):
        train, test = split_surface(surface, n_train, 5, seed=1)
        assert len(train) == n_train
        assert set(surface.kinds[train]) == {FREE}
        assert not set(train) & set(surface.sources[test])
        free = test[surface.kinds[test] == FREE]
        for kind in IMAGE_DEFECTS:
            made = test[surface.kinds[test] == kind]
            np.testing.assert_array_equal(np.sort(surface.sources[made]), free)
        assert (surface.kinds[test] == "square").sum() == 3
        tested.append(test)
    np.testing.assert_array_equal(*tested)
    other, _ = split_surface(surface, 7, 5, seed=2)
    assert set(other) != set(train)


def test_images_of_one_specimen_are_learnt_from_or_tested() -> None:
    specimens = np.arange(15)
    specimens[[3, 5, 7, 9]] = [2, 4, 4, 8]
    specimens[14] = 0  # a specimen with a defect and without
    surface = replace(plates(12, 3), specimens=specimens).with_made_defects()
    for seed in range(20):
        train, test = split_surface(surface, 6, 5, seed)
        assert len(train) == 6
        assert not set(surface.specimens[train]) & set(surface.specimens[test])
        assert (surface.kinds[test] == FREE).sum() == 5
        assert (surface.kinds[test] == "square").sum() == 2 + (0 in test)
        assert sorted(split_surface(surface, 2, 5, seed)[0]) == sorted(train[:2])


def test_images_of_one_tile_have_close_numbers() -> None:
    names = ["exp1_num_32128", "exp2_num_32153", "exp1_num_9", "exp3_num_32240", "other"]
    assert specimens_of(names).tolist() == [0, 0, 2, 0, 4]


def test_too_few_defect_free_images_are_reported() -> None:
    with pytest.raises(SystemExit, match="8 images to learn from and 5 to test, but only 12"):
        split_surface(plates(12, 1), 8, 5, seed=0)


def test_scores_are_of_the_test_images_by_kind() -> None:
    surface, method = plates(8, 4), Darkness()
    train, test = split_surface(surface, 3, 5, seed=0)
    found = scores_by_kind(method, surface, train, test)
    assert all(
        np.array_equal(image, surface.images[i])
        for image, i in zip(method.trained_on, train, strict=True)
    )
    expected = [1 - surface.images[i].min() for i in test]
    np.testing.assert_allclose(found["scores"], expected)
    assert image_auroc(found["scores"], surface.kinds[test], "square") == 1
    assert found["pixel_auroc"] == {"square": pytest.approx(1)}
    assert found["pro"] == {"square": pytest.approx(1)}
    # Without the squares nothing tells these images from the others.
    assert np.ptp(found["control"]) < 0.05
    costs = (found["network_ms"], found["other_ms"], found["search_ms"], found["bytes"])
    assert costs == pytest.approx((2, 1, 0.5, 8))
    row = kinds.row(
        "darkness",
        3,
        [found | {"kinds": surface.kinds[test], "specimens": surface.specimens[test]}],
    )
    assert row["called"] == {"square": [1.0], FREE: [0.0]}


def test_the_control_leaves_out_a_defect_and_its_surroundings() -> None:
    score_map = np.arange(100.0)[None].repeat(100, 0)
    mask = np.zeros((100, 100), dtype=bool)
    assert control_score(score_map, mask) == 99
    mask[:, 90] = True
    assert control_score(score_map, mask) == 65  # 24 px beside column 90 are left out
    mask[:, ::40] = True
    assert np.isnan(control_score(score_map, mask))


def two_splits(n_free: int, n_bad: int, shift: float, noise: float, seed: int) -> list[SplitScores]:
    """Return two splits of images whose scores by "a" and "b" have the same distribution."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([FREE, "dent"], [n_free, n_bad])
    signal = shift * (labels == "dent") + rng.standard_normal(len(labels))
    noises = {name: noise * rng.standard_normal(len(labels)) for name in "ab"}
    scores = {name: signal + noises[name] for name in "ab"}
    splits = []
    for part in range(2):
        rows = np.flatnonzero((labels == "dent") | (np.arange(len(labels)) % 2 == part))
        splits.append(SplitScores(labels[rows], rows, {n: s[rows] for n, s in scores.items()}))
    return splits


def test_draws_are_those_of_a_loop_over_repeated_images() -> None:
    splits = two_splits(16, 6, 1.0, 0.5, seed=0)
    # Each defect-free image has a made copy, which is drawn with it.
    labels = np.repeat([FREE, "dent", "made"], [16, 6, 16])
    sources = np.concatenate([np.arange(22), np.arange(16)])
    splits = [
        SplitScores(
            np.concatenate([s.kinds, np.repeat("made", (s.kinds == FREE).sum())]),
            np.concatenate([s.specimens, s.specimens[s.kinds == FREE]]),
            {n: np.concatenate([v, v[s.kinds == FREE] + 0.3]) for n, v in s.scores.items()},
        )
        for s in splits
    ]
    drawn = Resampling(labels, sources, splits, n_draws=20)
    assert (drawn.times.sum(1) == 22).all()
    assert (drawn.times_of_split.sum(1) == 2).all()
    for kind in ("dent", "made"):
        for draw, value in enumerate(drawn.aurocs("a", kind)):
            aurocs = []
            for split, times in zip(splits, drawn.times_of_split[draw], strict=True):
                rows = np.flatnonzero(np.isin(split.kinds, (FREE, kind)))
                rows = np.repeat(rows, drawn.times[draw, split.specimens[rows]].astype(int))
                auroc = roc_auc_score(split.kinds[rows] == kind, split.scores["a"][rows])
                aurocs += [auroc] * times
            assert value == pytest.approx(np.mean(aurocs))


def test_intervals_cover_the_true_difference() -> None:
    """Both methods are equally good, so that 95 % of the intervals should contain 0."""
    contained = []
    for seed in range(80):
        splits = two_splits(60, 30, 1.0, 1.0, seed)
        labels = np.repeat([FREE, "dent"], [60, 30])
        drawn = Resampling(labels, np.arange(90), splits, n_draws=200)
        difference = differences(splits, "a", "b", drawn)["mean"]
        contained.append(difference["low"] <= 0 <= difference["high"])
    assert np.mean(contained) > 0.88


def test_a_difference_is_that_of_the_means_over_splits() -> None:
    splits = two_splits(20, 10, 1.0, 1.0, seed=0)
    labels = np.repeat([FREE, "dent"], [20, 10])
    drawn = Resampling(labels, np.arange(30), splits, n_draws=50)
    found = differences(splits, "a", "b", drawn)
    aurocs = [[image_auroc(s.scores[n], s.kinds, "dent") for s in splits] for n in "ab"]
    assert found["dent"]["value"] == pytest.approx(np.mean(aurocs[0]) - np.mean(aurocs[1]))
    assert found["mean"] == found["dent"]
    same = differences(splits, "a", "a", drawn)["mean"]
    assert same == {"value": 0, "low": 0, "high": 0}


def test_a_choice_does_not_look_at_the_kind_that_is_left_out() -> None:
    scores = {
        "even": {"scratch": 0.7, "stain": 0.7, "band": 0.7},
        "uneven": {"scratch": 1.0, "stain": 0.9, "band": 0.4},
    }
    choices = choices_without_a_kind(scores)
    assert choices["band"] == {
        "mean": {"chosen": "uneven", "score": 0.4},
        "worst": {"chosen": "uneven", "score": 0.4},
    }
    assert choices["scratch"] == {
        "mean": {"chosen": "even", "score": 0.7},
        "worst": {"chosen": "even", "score": 0.7},
    }
    scores["even"]["band"] = 0.1
    assert choices_without_a_kind(scores)["band"] == choices["band"]


@pytest.mark.parametrize("title", ["PatchCore without coreset", "memory", "codewords"])
def test_rivals_find_dark_squares(title: str) -> None:
    surface = plates(12, 6)
    method = all_rivals(SquareNetwork("tiny", "random", keep=True), 0)[title]()
    found = scores_by_kind(method, surface, *split_surface(surface, 6, 6, seed=0))
    assert found["pixel_auroc"]["square"] > 0.8
    assert found["threshold"] is None
    assert found["bytes"] > 0


def test_kept_maps_are_those_of_the_image() -> None:
    kept = SquareNetwork("tiny", "random", keep=True)
    first, second = plates(2, 0).images
    once = kept.maps(first)
    assert kept.maps(first.copy()) is once
    assert not np.array_equal(kept.maps(second).maps[0], once.maps[0])


def test_variants_of_a_folder_are_stored_and_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surfaces, "IMAGE_DEFECTS", ("scratch", "pits"))
    surface = plates(9, 4)
    for i, (image, mask) in enumerate(zip(surface.images, surface.masks, strict=True)):
        for place, pixels in (("images", image), ("masks", mask)):
            path = tmp_path / "plates" / place / surface.kinds[i] / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.round(255 * pixels.clip(0, 1)).astype(np.uint8)).save(path)
    (tmp_path / "stubs.py").write_text(STUBS, encoding="utf-8")
    arguments = ["--data", str(tmp_path / "plates"), "--variants", str(tmp_path / "stubs.py")]
    arguments += ["--train", "2", "4", "--test", "5", "--splits", "1", "--threads", "1"]
    arguments += ["--checkpoints", str(tmp_path / "kept"), "--out", str(tmp_path / "out")]
    kinds.main(arguments)
    result = json.loads((tmp_path / "out" / "variants_plates.json").read_text(encoding="utf-8"))
    assert [(row["method"], row["n_train"]) for row in result["rows"]] == [
        ("exact", 4), ("noisy", 4), ("exact", 2), ("noisy", 2)
    ]  # fmt: skip
    exact = result["rows"][0]
    assert list(exact["image_auroc"]) == ["square", "scratch", "pits"]
    assert exact["image_auroc"]["square"] == [1]
    mean, worst = mean_and_worst(exact["image_auroc"])
    text = kinds_section([result])
    assert text in capsys.readouterr().out
    assert f"| {mean:.3f} | {worst:.3f} |" in text
    assert "| noisy | " in text
    assert "| square | exact | 1.000 |" in text
    result["rows"][1]["differences"]["square"] = {"value": 0.2, "low": 0.1, "high": 0.3}
    assert f"| noisy | {np.mean(result['rows'][1]['image_auroc']['square']):.3f} ▼ |" in (
        kinds_section([result])
    )
    other = json.loads(json.dumps(result)) | {"surface": "grids"}
    del other["rows"][0]["image_auroc"]["square"]  # without defects of its own
    first, second = {"value": 0.2, "low": 0.1, "high": 0.3}, {"value": 0, "low": -0.1, "high": 0.1}
    for each, gap in ((result, first), (other, second)):
        each["rows"][1]["differences"]["mean"] = gap
    both = kinds_section([result, other])
    assert "| +0.100 (+0.029 to +0.171) |" in both.split("**plates**")[0]
    assert "Pixel AUROC" not in both.split("**grids**")[1]
    kept = sorted((tmp_path / "kept").iterdir())
    kinds.main(arguments)  # nothing is run again
    assert sorted((tmp_path / "kept").iterdir()) == kept


def test_a_folder_of_defect_free_images_and_their_specimens(tmp_path: Path) -> None:
    folder = tmp_path / "steel" / "plates"
    folder.mkdir(parents=True)
    for i, image in enumerate(plates(4, 0).images):
        Image.fromarray(np.round(255 * image.clip(0, 1)).astype(np.uint8)).save(folder / f"{i}.png")
    found = read_surface(folder)
    assert (found.name, found.kinds.tolist()) == ("steel plates", [FREE] * 4)
    assert found.specimens.tolist() == [0, 1, 2, 3]
    groups = tmp_path / "groups.csv"
    groups.write_text("path,group\n0.png,b\n1.png,a\n2.png,b\n3.png,a\n", encoding="utf-8")
    assert read_surface(folder, groups=groups).specimens.tolist() == [0, 1, 0, 1]
    with pytest.raises(SystemExit, match="no images"):
        read_surface(tmp_path / "none")


def test_false_alarms_are_counted_on_unused_defect_free_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kinds, "Ours", lambda parameters: Darkness())
    network = {"backbone": "mobilenet_v2", "weights": "random"}
    bench = kinds.Bench(plates(12, 2).with_made_defects(), network, tmp_path, 5)
    found = kinds.false_alarms(bench, 4, n_splits=3, fpr=0.1, code={})
    assert found["share"] == found["low"] == 0
    assert found["high"] > 0.2
    assert 5 < found["n_specimens"] <= 12
