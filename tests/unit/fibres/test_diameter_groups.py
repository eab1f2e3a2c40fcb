"""Groups of images: intervals that hold, and how groups differ."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from hypervlad.fibres import (
    FibreDiameters,
    Interval,
    compare_groups,
    cross_lines,
    diameter_map,
)
from hypervlad.fibres.measured_places import without_places


def measured(
    diameters: np.ndarray, weights: np.ndarray | None = None, unit: str = "nm"
) -> FibreDiameters:
    """Diameters at places along the diagonal, each on a fibre of its own."""
    n = len(diameters)
    values = np.asarray(diameters, float)
    return FibreDiameters(
        diameters=values,
        errors=np.zeros(n),
        positions=np.repeat(5.0 + 10 * np.arange(n), 2).reshape(n, 2),
        directions=np.zeros(n),
        weights=np.ones(n) if weights is None else weights,
        fibres=np.arange(n),
        interval=Interval(0.9 * float(np.median(values)), 1.2 * float(np.median(values))),
        refused={},
        profile="flat",
        polarity="bright",
        blur=1.0,
        unit=unit,
        reason=None,
    )


def nothing() -> FibreDiameters:
    return without_places(measured(np.ones(3)), np.ones(3, bool))


def drawn(rng: np.random.Generator, median: float, between: float) -> FibreDiameters:
    """One image, whose own median differs from that of its group."""
    own = np.log(median) + between * rng.standard_normal()
    return measured(np.exp(own + 0.25 * rng.standard_normal(30)), rng.exponential(size=30))


def test_a_group_has_students_interval_of_the_logarithms_of_medians() -> None:
    (group,) = compare_groups([measured(np.full(3, d)) for d in (80.0, 100.0, 125.0)]).groups
    logs = np.log([80, 100, 125])
    low, high = np.exp(stats.t.interval(0.95, 2, logs.mean(), stats.sem(logs)))
    assert group.median == pytest.approx(100)
    assert (group.interval.low, group.interval.high) == pytest.approx((low, high))
    assert (group.n_images, len(group.places.diameters), group.interval_of) == (3, 9, "images")


def test_images_of_one_sample_count_once() -> None:
    found = [measured(np.full(3, d)) for d in (80.0, 80.0, 80.0, 125.0, nothing().median)[:4]]
    (group,) = compare_groups(found, samples=["a", "a", "a", "b"]).groups
    assert (group.median, group.n_samples, group.interval_of) == (pytest.approx(100), 2, "samples")
    np.testing.assert_allclose(group.medians, [80, 125])


def test_one_image_has_its_own_interval_and_no_ratio() -> None:
    found = [measured(np.full(4, d)) for d in (100.0, 200.0, 210.0)]
    folder = compare_groups([*found, nothing()], ["a", "b", "b", "b"])
    one, two = folder.groups
    assert (one.interval, one.interval_of, one.n_to_halve) == (found[0].interval, "image", None)
    assert (two.n_images, two.n_to_halve) == (2, 3)
    ratio, interval = folder.ratio("b", "a")
    assert ratio == pytest.approx(np.sqrt(200 * 210) / 100)
    assert np.isnan(interval.low)


def test_the_number_that_halves_an_interval_is_the_smallest() -> None:
    rng = np.random.default_rng(0)
    (group,) = compare_groups([drawn(rng, 100, 0.1) for _ in range(8)]).groups
    reach = [stats.t.ppf(0.975, n - 1) / np.sqrt(n) for n in range(2, 60)]
    assert group.n_to_halve == 2 + next(k for k, r in enumerate(reach) if r <= reach[6] / 2)


def test_the_ratio_of_two_groups_is_welchs_and_of_more_is_wider() -> None:
    medians = {"a": [80.0, 100, 120], "b": [150.0, 160, 140, 155], "c": [90.0, 91]}
    found = [measured(np.full(2, d)) for own in medians.values() for d in own]
    names = [name for name, own in medians.items() for _ in own]
    ratio, interval = compare_groups(found[:7], names[:7]).ratio("b", "a")
    test = stats.ttest_ind(np.log(medians["b"]), np.log(medians["a"]), equal_var=False)
    expected = test.confidence_interval(0.95)
    assert ratio == pytest.approx(np.exp(np.log(medians["b"]).mean() - np.log(medians["a"]).mean()))
    assert (interval.low, interval.high) == pytest.approx(np.exp([expected.low, expected.high]))
    wider = compare_groups(found, names).ratio("b", "a")[1]
    assert wider.low < interval.low
    assert interval.high < wider.high


@pytest.mark.parametrize(("true", "low", "high"), [(1.0, 0.01, 0.09), (1.2, 0.4, 0.8)])
def test_five_images_per_group_hold_the_level_and_show_a_fifth(
    true: float, low: float, high: float
) -> None:
    rng, n, found = np.random.default_rng(1), 150, 0
    for _ in range(n):
        images = [drawn(rng, median, 0.08) for median in (100, 100 * true) for _ in range(5)]
        interval = compare_groups(images, ["a"] * 5 + ["b"] * 5).ratio("b", "a")[1]
        found += not interval.low <= 1 <= interval.high
    assert low <= found / n <= high


def test_two_kinds_are_found_across_images() -> None:
    rng = np.random.default_rng(0)
    images = [
        measured(np.exp(np.log([8.0] * 20 + [20.0] * 20) + 0.1 * rng.standard_normal(40)))
        for _ in range(3)
    ]
    images = [replace(each, fibres=np.arange(40) // 2) for each in images]
    modes = compare_groups(images).groups[0].places.modes
    np.testing.assert_allclose(modes[:, 0], [8, 20], rtol=0.05)
    np.testing.assert_allclose(modes[:, 2], 0.5, atol=0.05)


def test_what_cannot_be_combined_is_refused() -> None:
    with pytest.raises(ValueError, match="none of the images has diameters"):
        compare_groups([nothing()])
    with pytest.raises(ValueError, match="some diameters are in nm and others in px"):
        compare_groups([measured(np.ones(2)), measured(np.ones(2), unit="px")])


def test_cross_lines_are_perpendicular_and_as_long_as_the_diameter() -> None:
    found = measured(np.array([20.0, 40.0]))
    found.directions[:] = np.pi / 6
    ends = cross_lines(found, pixel_size=5)
    along = np.array([-np.sin(np.pi / 6), np.cos(np.pi / 6)])
    across = ends[:, 1] - ends[:, 0]
    np.testing.assert_allclose(ends.mean(axis=1), found.positions)
    np.testing.assert_allclose(across @ along, 0, atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(across, axis=1), [4, 8])
    with pytest.raises(ValueError, match="the diameters are in nm, and pixel_size is None"):
        cross_lines(found)


def test_a_map_has_diameters_at_places_also_at_the_border() -> None:
    found = measured(np.array([20.0, 40.0]))
    drawn = diameter_map(found, (16, 40))
    assert drawn[5, 5] == drawn[7, 6] == 20
    assert drawn[15, 15] == drawn[13, 15] == 40
    assert np.isfinite(drawn).sum() == 21 + 13


def test_left_out_places_change_everything_that_follows_from_them() -> None:
    found = measured(np.array([10.0, 10, 10, 40]))
    kept = without_places(found, found.diameters > 20)
    assert (kept.median, len(kept.diameters), len(kept.positions)) == (10, 3, 3)
    width = found.interval.high / found.interval.low
    assert kept.interval.high / kept.interval.low == pytest.approx(width)
    assert nothing().reason == "all places were left out"
    assert np.isnan(nothing().interval.low)
