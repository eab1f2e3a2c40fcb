"""Factors of the label-free design: the base is the library's, and variants share its maps."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.defects import cells, factors
from benchmarks.defects.cells import CellBench, Part, Space, Split
from benchmarks.defects.factors import (
    BASE,
    Variant,
    _all,
    score_of_image,
    standardised,
)
from benchmarks.defects.surfaces import FREE, Surface
from benchmarks.defects.tables import factors_section
from hypervlad.backbones import build_network
from hypervlad.defects import normal_images
from hypervlad.defects.cells import DESCRIPTIONS, Description
from hypervlad.defects.normal_images import NormalCells, NormalImages

RNG = np.random.default_rng(0)
ROWS = (RNG.standard_normal((900, 6)) * [1, 2, 3, 4, 5, 6]).astype(np.float32)
SPACE = Space.of(ROWS, trim=True)


@pytest.fixture
def random_network(monkeypatch: pytest.MonkeyPatch) -> None:
    network = build_network("mobilenet_v2", "random", [f"features.{tap}" for tap in cells.TAPS])
    monkeypatch.setattr(cells, "_network", lambda: network)


def plates(n_free: int, n_square: int) -> Surface:
    """Noise; some images have a square, of two kinds in turn."""
    rng = np.random.default_rng(0)
    examples = []
    for i in range(n_free + n_square):
        image = (0.6 + 0.02 * rng.standard_normal((64, 96))).astype(np.float32)
        mask = np.zeros(image.shape, dtype=bool)
        if i >= n_free:
            mask[20:30, 20:30] = True
            image[mask] *= (0.2, 1.5)[i % 2]
        kind = ("dark", "bright")[i % 2]
        examples.append((FREE if i < n_free else kind, image, mask))
    return Surface.of("plates", examples)


def test_the_base_learns_as_the_library_does() -> None:
    ours = cells.fit(Part(n_codewords=5), SPACE, 3)
    theirs = NormalCells.fit(DESCRIPTIONS[0], ROWS, 5, 3)
    for name in ("mean", "whitening", "codewords"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))


def test_the_base_has_the_parts_and_scores_of_the_library() -> None:
    base = factors.variants()[BASE][BASE]
    own = [Description(cells.SIDES[part.size], part.window, part.relative) for part in base.parts]
    assert own == list(DESCRIPTIONS)
    assert [part.border for part in base.parts] == ["mirrored", "mirrored", "zeros", "zeros"]
    shapes = [(12, 10), (12, 10), (9, 9), (7, 7)]
    split = Split(0, np.arange(5), np.array([5]))
    usual, maps = [], []
    for description, shape in zip(DESCRIPTIONS, shapes, strict=True):
        maps.append({str(i): RNG.random(shape, np.float32) for i in range(6)})
        empty = NormalCells(description, *(np.zeros(0, np.float32) for _ in range(5)))
        usual.append(empty.standardised_by([maps[-1][str(i)] for i in split.held_out], False))
    weights = np.array([0.1, 0.2, 0.3, 0.4], np.float32)
    levels = np.array([0.3, 0.2, 0.4, 0.1], np.float32)
    model = NormalImages(tuple(usual), weights, levels)
    places, score = model.combined([own["5"] for own in maps])
    found = [standardised(own, split, base.standardised)[5] for own in maps]
    assert score_of_image(found, weights, levels, base, _all) == pytest.approx(np.log(score))
    on_maps = replace(base, combination="maps")
    expected = normal_images.log_of_highest(places)
    assert score_of_image(found, weights, levels, on_maps, _all) == pytest.approx(expected)


def test_each_variant_changes_something() -> None:
    every = [each for own in factors.variants().values() for each in own.values()]
    assert len(set(every)) == len(every)


def test_variants_of_the_whitening() -> None:
    spread = {}
    for power in (0.0, 0.5, 1.0):
        model = cells.fit(Part(whitening=power), SPACE, 0)
        spread[power] = np.sort(((ROWS - model.mean) @ model.whitening).std(axis=0))
    np.testing.assert_allclose(spread[0.0], np.sort(ROWS.std(axis=0)), rtol=0.1)
    np.testing.assert_allclose(spread[0.5] ** 2, spread[0.0] * spread[1.0], rtol=1e-3)
    np.testing.assert_allclose(spread[1.0], 1, rtol=0.2)
    few = cells.fit(Part(n_components=2, n_codewords=3), SPACE, 0)
    assert few.whitening.shape == (6, 2)
    assert few.codewords.shape == (3, 2)


def test_random_cells_are_at_no_distance_from_themselves() -> None:
    model = cells.fit(Part(search="cells", n_codewords=900), Space.of(ROWS, trim=False), 0)
    np.testing.assert_allclose(model.distances(ROWS.reshape(30, 30, 6)), 0, atol=5e-3)


@pytest.mark.parametrize(
    ("how", "expected"),
    [("scores of images", 2**0.25 * 8**0.75), ("maps", 0.25 * 2 + 0.75 * 8), ("maximum", 8)],
)
def test_combinations(how: Any, expected: float) -> None:
    maps = [np.full((2, 2), 2, np.float32), np.full((3, 4), 8, np.float32)]
    variant = Variant((Part(), Part(size="square")), combination=how)
    score = score_of_image(maps, np.array([0.25, 0.75]), np.zeros(2), variant, _all)
    assert np.exp(score) == pytest.approx(expected)


def test_only_some_places_count() -> None:
    maps = [np.array([[1.0, 9.0], [1.0, 1.0]], np.float32)]

    def keep(n: int) -> Any:
        return lambda shape: np.arange(4).reshape(shape) >= n

    score = score_of_image(maps, np.ones(1), np.zeros(1), Variant(), keep(2))
    assert score == pytest.approx(0)
    assert np.isnan(score_of_image(maps, np.ones(1), np.zeros(1), Variant(), keep(4)))


def test_the_same_usual_distance_everywhere() -> None:
    distances: dict[str, Any] = {"0": np.arange(121, dtype=np.float32).reshape(11, 11)}
    distances["1"] = distances["0"]
    split = Split(0, np.array([0]), np.array([1]))
    found = standardised(distances, split, "globally")
    np.testing.assert_allclose(found[1], (distances["1"] - 60) / 48, rtol=1e-5)


def test_the_highest_share() -> None:
    values = np.arange(200.0)
    assert normal_images.log_of_highest(values, [0.01]) == pytest.approx(np.log(198.5))
    assert normal_images.log_of_highest(values, [0.0]) == pytest.approx(np.log(199))


@pytest.mark.usefixtures("random_network")
@pytest.mark.parametrize(
    ("part", "shape"),
    [
        (Part(), (8, 12, 128)),
        (Part(patch=29), (6, 11, 128)),
        (Part(size="half", border="zeros"), (4, 6, 128)),
        (Part(size="square", taps=(3, 6, 13)), (28, 28, 152)),
        (Part(taps=(13,)), (4, 6, 96)),
    ],
)
def test_cells_of_a_part_are_kept(
    part: Part, shape: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = CellBench(plates(1, 0), tmp_path, 1)
    first = bench._cells(part.grid, 0)
    assert first.shape == shape
    monkeypatch.setattr(cells, "network_maps", lambda *_: pytest.fail("maps were not kept"))
    np.testing.assert_array_equal(bench._cells(part.grid, 0), first)


@pytest.mark.usefixtures("random_network")
def test_the_program_writes_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = Variant((Part(n_codewords=4), Part(size="half", border="zeros", n_codewords=4)))
    monkeypatch.setattr(factors, "Variant", lambda: few)
    monkeypatch.setattr(
        factors,
        "variants",
        lambda: {BASE: {BASE: few}, "image score": {"maximum": replace(few, shares=(0.0,))}},
    )
    surface, split = plates(6, 4), Split(0, np.arange(4), np.arange(4, 10))
    result = factors.measure(surface, [split], tmp_path, 1)
    assert [row["variant"] for row in result["rows"]] == [BASE, "maximum"]
    assert list(result["rows"][0]["image_auroc"]) == ["dark", "bright"]
    kept = sorted(tmp_path.rglob("*.json"))
    again = json.loads(json.dumps(factors.measure(surface, [split], tmp_path, 1)))
    assert sorted(tmp_path.rglob("*.json")) == kept
    assert again["rows"] == result["rows"]
    text = factors_section([again])
    dark, bright = (values[0] for values in result["rows"][0]["image_auroc"].values())
    assert result["rows"][0]["difference"] == {"value": 0, "low": 0, "high": 0}
    assert f"| {BASE} | {BASE} | {dark:.3f} | {bright:.3f} | {(dark + bright) / 2:.3f} |" in text
    assert "**plates** (4 images to learn from, 2 defect-free ones to test, 1 splits" in text
    assert "| dark | " in text.split("Chosen without looking at a kind")[1]


def test_effects_are_sorted_by_size() -> None:
    gains = {BASE: 0, "a": -0.1, "b": 0.1, "c": 0.004, "d": -0.2}
    rows = [
        {
            "factor": "f",
            "variant": name,
            "image_auroc": {"x": [0.8 + gain]},
            "control": {"x": [None]},
            "difference": {"value": gain, "low": gain - 0.01, "high": gain + 0.01},
        }
        for name, gain in gains.items()
    ]
    facts = {"surface": "s", "n_train": 4, "n_test": 2, "n_splits": 1, "rows": rows, "choices": {}}
    text = factors_section([facts])
    assert (
        "Variants with a clearly higher mean than the present design: f, b (+0.100); with no "
        "clear difference: 1; with a clearly lower one: 2."
    ) in text
    assert "| f | a | 0.700 | 0.700 | -0.100 ▼ | 0.700 | – (x) |" in text
