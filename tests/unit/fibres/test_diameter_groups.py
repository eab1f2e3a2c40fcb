"""Kinds of fibres, groups of images and how they differ, and what is drawn of diameters."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from support.fibre_images import diameters_of

from hypervlad.fibres import FibreDiameters, Interval, compare_groups, cross_lines, diameter_map


def measured(diameters, weights=None, unit="nm", ends=(0.9, 1.2)) -> FibreDiameters:
    """Diameters at places along the diagonal, each on a fibre of its own."""
    n, values = len(diameters), np.asarray(diameters, float)
    own = {"positions": np.repeat(5.0 + 10 * np.arange(n), 2).reshape(n, 2), "unit": unit}
    own |= {"interval": Interval(*(float(np.median(values)) * np.array(ends)))}
    return diameters_of(values, **own | ({} if weights is None else {"weights": weights}))


def nothing() -> FibreDiameters:
    none = np.zeros(0)
    fields = dict.fromkeys(("diameters", "errors", "directions", "weights"), none)
    found = replace(measured(np.ones(3)), **fields, positions=np.zeros((0, 2)))
    nowhere = Interval(np.nan, np.nan)
    return replace(found, fibres=none.astype(int), interval=nowhere, reason="the image is flat")


def drawn(rng: np.random.Generator, median: float, between: float) -> FibreDiameters:
    """One image, whose own median differs from that of its group."""
    own = np.log(median) + between * rng.standard_normal()
    return measured(np.exp(own + 0.25 * rng.standard_normal(30)), rng.exponential(size=30))


# --- kinds ----------------------------------------------------------------------------------------


def of_kinds(*kinds, seed=0) -> FibreDiameters:
    """Return fibres of kinds (median, spread, number of fibres), with two places on each."""
    rng = np.random.default_rng(seed)
    logs = np.concatenate([np.log(d) + s * rng.standard_normal(n) for d, s, n in kinds])
    found = measured(np.exp(np.repeat(logs, 2)))
    return replace(found, fibres=np.arange(2 * len(logs)) // 2)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("kinds", "n"),
    [
        ([(8, 0.1, 60), (20, 0.15, 30)], 2),
        ([(10, 0.3, 80)], 1),
        ([(10, 0.3, 40), (12, 0.1, 40)], 1),  # not apart
        ([(8, 0.02, 4), (20, 0.02, 4)], 0),  # too few, of two widths
        ([(10, 0.2, 12)], 1),
        ([(8, 0.02, 5)], 0),
    ],
)
def test_kinds_are_found_if_they_are_apart_and_of_enough_fibres(kinds, n, seed):
    found = of_kinds(*kinds, seed=seed)
    assert found.modes.shape == (n, 3)
    if n == 2:
        assert found.modes[:, 0] == pytest.approx([8, 20], rel=0.08)
        assert found.modes[:, 1] == pytest.approx([0.1, 0.15], abs=0.05)
        assert found.modes[:, 2] == pytest.approx([2 / 3, 1 / 3], abs=0.02)
        order = np.random.default_rng(1).permutation(180)
        other = replace(found, diameters=found.diameters[order], fibres=found.fibres[order])
        assert other.modes == pytest.approx(found.modes, rel=1e-6)
    assert nothing().modes.shape == (0, 3)


def test_two_kinds_are_found_across_images():
    images = [of_kinds((8, 0.1, 10), (20, 0.1, 10), seed=seed) for seed in range(3)]
    modes = compare_groups(images).groups[0].places.modes
    np.testing.assert_allclose(modes[:, 0], [8, 20], rtol=0.05)
    np.testing.assert_allclose(modes[:, 2], 0.5, atol=0.05)


# --- groups ---------------------------------------------------------------------------------------


def test_a_group_has_students_interval_of_the_logarithms_of_medians():
    exact = [measured(np.full(3, d), ends=(1, 1)) for d in (80.0, 100.0, 125.0)]
    (group,) = compare_groups(exact).groups
    logs = np.log([80, 100, 125])
    low, high = np.exp(stats.t.interval(0.95, 2, logs.mean(), stats.sem(logs)))
    assert group.median == pytest.approx(100)
    assert (group.interval.low, group.interval.high) == pytest.approx((low, high))
    assert (group.n_images, len(group.places.diameters), group.interval_of) == (3, 9, "images")


def test_images_of_one_sample_count_once():
    found = [measured(np.array([70, d, 130])) for d in (80.0, 80.1, 79.9, 125.0)]
    (group,) = compare_groups(found, samples=["a", "a", "a", "b"]).groups
    assert (group.median, group.n_samples, group.interval_of) == (pytest.approx(100), 2, "samples")
    np.testing.assert_allclose(group.medians, [80, 125])
    one = compare_groups(found, list("aabb"), list("xxyz"))
    assert [each.interval_of for each in one.groups] == ["images of one sample", "images"]
    assert np.isnan(one.ratio("a", "b").interval.low), "one sample is no group"
    with pytest.raises(ValueError, match="no group 'c'"):
        one.ratio("a", "c")
    far = compare_groups([measured(np.full(9, d)) for d in (1, 1e4, 99, 101)], list("aabb"))
    assert [each.verdict for each in far.ratios()] == ["more images are needed, of several samples"]


def test_an_image_counts_once_and_facts_are_of_all(recwarn) -> None:
    facts = {"refused": {"x": 1}}
    found = [replace(measured(np.full(9, d)), **facts, blur=d, digest=f"{d}") for d in (1.0, 2, 4)]
    found[1] = replace(found[1], polarity="dark")
    group, _ = compare_groups([*found, found[0], found[0]], [*"aaaab"]).groups
    own, between = (str(each.message) for each in recwarn)
    assert own.startswith("1 image is a copy of others in the same group")
    assert between.startswith("1 image is in several groups, as copies")
    facts = group.places.refused, group.places.blur, group.places.polarity
    assert (group.n_images, *facts) == (3, {"x": 3}, 2, "bright and dark")


def test_one_image_has_its_own_interval_and_no_ratio():
    found = [measured(np.full(4, d)) for d in (100.0, 200.0, 210.0)]
    folder = compare_groups([*found, nothing()], ["a", "b", "b", "b"])
    one, two = folder.groups
    assert (one.interval, one.interval_of, one.n_to_halve) == (found[0].interval, "image", None)
    assert (two.n_images, two.n_to_halve) == (2, 3)
    _, _, ratio, interval = folder.ratio("b", "a")
    assert ratio == pytest.approx(np.sqrt(200 * 210) / 100)
    assert np.isnan(interval.low)


def test_the_number_that_halves_an_interval_is_the_smallest():
    rng = np.random.default_rng(0)
    found = [replace(drawn(rng, 100, 0.5), interval=Interval(1.0, 1.0)) for _ in range(8)]
    (group,) = compare_groups(found).groups
    reach = [stats.t.ppf(0.975, n - 1) / np.sqrt(n) for n in range(2, 60)]
    assert group.n_to_halve == 2 + next(k for k, r in enumerate(reach) if r <= reach[6] / 2)


def test_images_that_agree_by_chance_are_known_no_better_than_each_allows():
    alike = compare_groups(
        [measured(np.full(9, d)) for d in (175, 175.1, 176, 176.1)], list("aabb")
    )
    ends = [alike.groups[0].interval, alike.ratio("a", "b").interval]
    own = np.log(1.2 / 0.9) / 2  # of each image
    reach = [np.log(each.high / each.low) / 2 for each in ends]
    np.testing.assert_allclose(reach, [own * np.sqrt(1 / 2 + 0.6**2), own], rtol=1e-9)
    many = [measured(np.full(9, d)) for d in 175 + np.arange(40) / 40]
    (group,) = compare_groups(many).groups
    assert np.log1p(group.shared_error) == pytest.approx(0.6 * own), "of one look"
    assert np.log(group.interval.high / group.interval.low) / 2 > 0.6 * own
    assert group.n_to_halve is None
    (few,) = compare_groups([measured([50, 100, 200, d]) for d in (100, 100.1)]).groups
    assert few.interval.high / few.interval.low > 1.5, "four fibres in each"


def test_the_ratio_of_two_groups_is_welchs_and_of_more_is_wider():
    medians = {"a": [80.0, 100, 120], "b": [150.0, 160, 140, 155], "c": [90.0, 91]}
    found = [measured(np.full(2, d)) for own in medians.values() for d in own]
    names = [name for name, own in medians.items() for _ in own]
    _, _, ratio, interval = compare_groups(found[:7], names[:7]).ratio("b", "a")
    test = stats.ttest_ind(np.log(medians["b"]), np.log(medians["a"]), equal_var=False)
    expected = test.confidence_interval(0.95)
    assert ratio == pytest.approx(np.exp(np.log(medians["b"]).mean() - np.log(medians["a"]).mean()))
    assert (interval.low, interval.high) == pytest.approx(np.exp([expected.low, expected.high]))
    wider = compare_groups(found, names).ratio("b", "a").interval
    assert wider.low < interval.low
    assert interval.high < wider.high


# --- lines and maps -------------------------------------------------------------------------------


def test_cross_lines_are_perpendicular_and_as_long_as_the_diameter():
    found = replace(measured([20.0, 40.0]), directions=np.full(2, np.pi / 6))
    ends = cross_lines(found, pixel_size=5)
    along, across = np.array([-np.sin(np.pi / 6), np.cos(np.pi / 6)]), ends[:, 1] - ends[:, 0]
    np.testing.assert_allclose(ends.mean(axis=1), found.positions)
    np.testing.assert_allclose(across @ along, 0, atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(across, axis=1), [4, 8])


def test_a_map_has_diameters_at_places_also_at_the_border():
    found = diameter_map(measured([20.0, 40.0]), (16, 40))
    assert found[5, 5] == found[7, 6] == 20
    assert found[15, 15] == found[13, 15] == 40
    assert np.isfinite(found).sum() == 21 + 13


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: compare_groups([nothing()]), "none of the images has diameters"),
        (lambda: compare_groups([measured([1]), measured([1], unit="px")]), "in nm, others in px"),
        (lambda: cross_lines(measured(np.ones(2))), "are in nm, and pixel_size is None"),
    ],
)
def test_what_cannot_be_combined_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
