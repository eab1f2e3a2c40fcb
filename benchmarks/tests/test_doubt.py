"""Intervals of numbers and sizes are sums of facts, as few of which are exceeded as asked for."""

import numpy as np
import pytest

from benchmarks.particles import train_doubt
from hypervlad.particles import Outlines
from hypervlad.particles.doubt import FACTS, Doubt, finding_range, main_doubt


def test_widths_are_quantiles_that_grow_with_the_facts():
    rng = np.random.default_rng(0)
    values = rng.normal(size=400)
    (constant,) = train_doubt.widths(np.ones((400, 1)), values, 0.1)
    assert (np.maximum(values, 0) > constant + 1e-9).mean() <= 0.1
    assert (np.maximum(values, 0) >= constant - 1e-9).mean() >= 0.1
    facts = rng.uniform(size=(400, 3))
    of_two = train_doubt.widths(facts, 2 * facts[:, 0] * rng.uniform(size=400), 0.05)
    assert (of_two >= 0).all()
    assert of_two[0] == pytest.approx(2, abs=0.3)
    assert of_two[1:].max() < 0.3


def outlined_share(labels):
    """The share of steps between two labels that have none of the background, by a plain loop."""
    steps = [
        (labels[y, x], labels[y + down, x + 1 - down])
        for down in (0, 1)
        for y in range(labels.shape[0] - down)
        for x in range(labels.shape[1] - 1 + down)
    ]
    edges = [{*each} for each in steps if each[0] != each[1]]
    return np.mean([0 not in each for each in edges])


def test_facts_against_a_loop():
    labels = np.zeros((1100, 12), np.int32)
    labels[:3, :4], labels[:3, 4:9], labels[1020:1040, 2:7] = 1, 2, 3
    labels[1022:1024, 7:9], labels[1024:1030, 7:10] = 4, 4
    pixels = np.array([0, 5, 1025 * 12 + 3, 1025 * 12 + 8, 600 * 12])
    doubt = Doubt(pixels, np.array([12.0, 15, 100, 22, 9]), np.full(5, 0.2), np.arange(5))
    facts = doubt.facts(labels, 4, 318, {"concave": 0.1, "faint": 0.02})
    assert facts.keys() == {*FACTS, "paired"}
    assert facts["touching"] == pytest.approx(outlined_share(labels))
    assert facts["unclaimed"] == pytest.approx(np.log(318 / np.count_nonzero(labels)))
    assert facts["outside"] == pytest.approx(np.log(1 + 1 / 4))
    assert (facts["split"], facts["joined"]) == (0, 0)
    assert facts["unsure"] == pytest.approx(0.2)
    low, high, smaller, larger = finding_range(facts)
    assert max(low, smaller) < 1 < min(high, larger)
    wider = finding_range({name: 2 * each for name, each in facts.items()})
    np.testing.assert_allclose(wider, np.square([low, high, smaller, larger]))
    assert main_doubt(facts | dict.fromkeys(facts, 0.0)) == ""
    assert main_doubt(facts | {"joined": 0.2}) == FACTS["joined"]
    assert main_doubt(dict.fromkeys(facts, 0.0) | {"outside": 2.0}) == FACTS["outside"]


def test_it_is_learnt_from_what_the_finder_says(tmp_path, capsys):
    out = tmp_path / "doubt.npz"
    train_doubt.main(["--fields", "3", "--processes", "1", "--out", str(out)])
    assert capsys.readouterr().out.count(": (") == len(FACTS) + 1
    image, labels = train_doubt.drawn(2)
    assert len(Outlines.of_labels(np.maximum(labels, 0)))
    facts, ratios = train_doubt.compared(image, labels)
    with np.load(out) as arrays:
        assert facts in arrays["facts"].tolist()
        assert ratios in arrays["ratios"].tolist()
