"""Intervals and rates that the package promises, against what simulations measure.

A row draws data whose truth is known from a number of units (groups, samples, fields, images, or
fibres), and says whether the promise was kept. A promise that is broken more often than chance
allows fails. With the most units, an interval that is kept because it says nothing fails as well.
"""

import zlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from support.fibre_images import diameters_of

from hypervlad.evaluation import (
    Calibration,
    OutlineTally,
    accuracy_interval,
    balanced_accuracy_interval,
    calibration_error_range,
    confidence_for_error,
    expected_calibration_error,
    prediction_sets,
    wilson_interval,
)
from hypervlad.fibres import FibreDiameters, Interval, axial_statistics, compare_groups
from hypervlad.particles import Detection, Field, count_particles, particle_sizes

Rng = np.random.Generator
# Whether what was promised holds, and whether the answer excludes what is far from the truth.
Kept = tuple[bool, bool]


class Promise(NamedTuple):
    """What is promised at which rate, and for which numbers of units it is tried."""

    draw: Callable[[Rng, int], Kept]
    rate: float = 0.95
    units: tuple[int, ...] = (1, 2, 4, 8, 40)
    n_draws: int = 80
    is_dear: bool = False  # with the most units, seconds


def within(interval: tuple[float, float], truth: float, far: float) -> Kept:
    """An interval with NaN claims nothing: it holds, and excludes nothing."""
    low, high = interval
    return not (low > truth or high < truth), low > far or high < far


# --- classes --------------------------------------------------------------------------------------


def agreeing(rng: Rng, n: int) -> list[np.ndarray]:
    """In four fifths of the groups, all are right, in the others half of them: .9 together."""
    return [rng.random(20) < share for share in np.where(rng.random(n) < 0.2, 0.5, 1.0)]


def differing(rng: Rng, n: int) -> list[np.ndarray]:
    """Of groups of very different sizes, with a correlation of .3 within them: .9 together."""
    sizes = 1 + rng.lognormal(2.7, 1, n).astype(int)
    return [rng.random(size) < rng.beta(2.1, 0.233) for size in sizes]


def accuracy_of(groups: Callable[[Rng, int], list[np.ndarray]]) -> Callable[[Rng, int], Kept]:
    def draw(rng: Rng, n: int) -> Kept:
        right = groups(rng, n)
        codes = np.repeat(np.arange(n), [len(own) for own in right])
        return within(accuracy_interval(np.concatenate(right), codes), 0.9, 0.6)

    return draw


def share_in_fields(rng: Rng, n: int) -> Kept:
    """Of a class that most fields have alone; fields are drawn as `agreeing` groups."""
    right = agreeing(rng, n)
    table, fields = fields_of(np.array([len(own) for own in right]), np.full(20 * n, 100.0))
    table["class"] = np.where(np.concatenate(right), "usual", "rare")
    row = count_particles(table, fields, classes=["usual", "rare"], edges="leave_out").iloc[0]
    return within((row["share_low"], row["share_high"]), 0.9, 0.6)


def balanced_accuracy(rng: Rng, n: int) -> Kept:
    """Of two classes, one of which has four times as many images per group."""
    shares, sizes = np.append(rng.beta(9, 1, n), rng.beta(7, 3, n)), np.repeat([12, 3], n)
    groups, labels = np.repeat(np.arange(2 * n), sizes), np.repeat([0, 1], [12 * n, 3 * n])
    correct = rng.random(len(groups)) < shares[groups]
    return within(balanced_accuracy_interval(correct, labels, groups), 0.8, 0.5)


def share(rng: Rng, n: int) -> Kept:
    return within(wilson_interval(rng.binomial(n, 0.7) / n, n), 0.7, 0.3)


def calibration_error(rng: Rng, n: int) -> Kept:
    """Of a calibrated model; far is that of one whose answers are all wrong."""
    confidence = rng.uniform(0.6, 1, n)
    proba = np.column_stack([confidence, 1 - confidence])
    truth = (rng.random(n) >= confidence).astype(int)
    low, high = calibration_error_range(proba, random_state=0)
    error = expected_calibration_error(truth, proba)
    wrong = expected_calibration_error(np.ones(n, int), proba)
    return low <= error <= high, wrong > high


def sets(rng: Rng, n: int) -> Kept:
    """Of groups of which large ones are hard: without their weights they would decide."""
    ease = rng.beta(2, 1, n + 1)  # the probability of the true class in all images of a group
    proba, sizes = np.column_stack([ease, 1 - ease]), np.where(ease[:n] < 0.5, 20, 1)
    zeros, groups = np.zeros(sizes.sum()), np.repeat(np.arange(n), sizes)
    known = Calibration.of(proba[groups], zeros, groups, zeros)
    (found,) = prediction_sets(proba[None, n:], known, 0.9)
    return bool(found[0]), not found.all()


def sure_answers(rng: Rng, n: int) -> Kept:
    """Of a model that is .05 too confident, at most a fifth of the sure answers may be wrong."""
    confidence = rng.uniform(0.5, 1, n)
    truth = (rng.random(n) >= confidence - 0.05).astype(int)
    proba = np.column_stack([confidence, 1 - confidence])
    known = Calibration.of(proba, truth, np.arange(n), np.zeros(n))
    limit = confidence_for_error(known, 0.2)
    return not np.isfinite(limit) or 1.05 - (1 + limit) / 2 <= 0.2, bool(np.isfinite(limit))


# --- particles ------------------------------------------------------------------------------------


def fields_of(n_each: np.ndarray, sizes: np.ndarray) -> tuple[pd.DataFrame, list[Field]]:
    names = [f"{k}" for k in range(len(n_each))]
    table = pd.DataFrame({"micrograph": np.repeat(names, n_each), "touches_edge": False})
    table["equivalent_diameter_nm"] = sizes
    table["area_nm2"] = np.pi / 4 * sizes**2
    return table, [Field(name, (100, 100), 10.0) for name in names]


def number(rng: Rng, n: int) -> Kept:
    """In fields that differ in density."""
    n_each = rng.poisson(rng.gamma(4, 12 / 4, n))
    table, fields = fields_of(n_each, np.full(n_each.sum(), 100.0))
    found = count_particles(table, fields, edges="leave_out")
    return within((found["low"].iloc[-1], found["high"].iloc[-1]), 12 * n, 36 * n)


def sizes(share: str) -> Callable[[Rng, int], Kept]:
    """Of sizes whose median differs between fields."""

    def draw(rng: Rng, n: int) -> Kept:
        n_each = rng.poisson(25, n)
        logs = np.repeat(0.1 * rng.standard_normal(n), n_each)
        logs += 0.35 * rng.standard_normal(len(logs))
        found = particle_sizes(*fields_of(n_each, 100 * np.exp(logs)), edges="leave_out").iloc[0]
        quantile = stats.norm.ppf(int(share[1:]) / 100)
        truth = 100 * np.exp(np.hypot(0.1, 0.35) * quantile)
        return within((found[f"{share}_low"], found[f"{share}_high"]), truth, 1.5 * truth)

    return draw


def found_and_true(rng: Rng, n: int) -> list[np.ndarray]:
    """Draw for n fields true and found diameters, 0 for none: small ones are often missed."""
    fields = []
    for n_true in rng.poisson(rng.gamma(9, 40 / 9, n)):
        logs = 0.1 * rng.standard_normal() + 0.4 * rng.standard_normal(n_true)
        is_found = rng.random(n_true) < 1 / (1 + np.exp(-3 - logs / 0.15 - 0.3 * rng.normal()))
        found = np.exp(logs + 0.03 + 0.05 * rng.standard_normal(n_true)) * is_found
        false = np.exp(-0.4 + 0.3 * rng.standard_normal(rng.poisson(4)))
        pairs = [np.column_stack([np.exp(logs), found]), np.column_stack([0 * false, false])]
        fields.append(100 * np.concatenate(pairs))
    return fields


def detected(share: str | None) -> Callable[[Rng, int], Kept]:
    """Of sizes, or numbers, of which a tenth is missed and a tenth is none, as in six fields."""

    def draw(rng: Rng, n: int) -> Kept:
        known = [np.insert(own, 0, k, axis=1) for k, own in enumerate(found_and_true(rng, 6))]
        detection = Detection(np.concatenate(known), "nm", 6)
        found = [own[own[:, 1] > 0, 1] for own in found_and_true(rng, n)]
        data = fields_of(np.array([len(own) for own in found]), np.concatenate(found))
        options = {"detection": detection, "edges": "leave_out"}
        if share is None:
            row = count_particles(*data, **options).iloc[-1]
            return within((row["low"], row["high"]), 40 * n, 80 * n)
        row = particle_sizes(*data, **options).iloc[0]
        truth = 100 * np.exp(np.hypot(0.1, 0.4) * stats.norm.ppf(int(share[1:]) / 100))
        return within((row[f"{share}_low"], row[f"{share}_high"]), truth, 1.5 * truth)

    return draw


def classified(named: str, what: str = "") -> Callable[[Rng, int], Kept]:
    """Of a class of a fifth of the particles; a person gave the classes of some."""

    def draw(rng: Rng, n: int) -> Kept:
        def answered(is_rare: np.ndarray) -> np.ndarray:
            return 1 / (1 + np.exp(-2.1 * rng.normal(np.where(is_rare, 1.05, -1.05))))

        held_out = answered(np.repeat([True, False], 60)).reshape(2, 60)
        n_each = rng.poisson(rng.gamma(9, 60 / 9, n))
        is_rare = rng.random(n_each.sum()) < np.repeat(rng.beta(8, 32, n), n_each)
        rare = answered(is_rare)
        is_named = {
            "none": np.zeros(len(rare), bool),
            "doubtful": abs(rare - 0.5) < 0.25,
            "mistakes": (rare > 0.5) != is_rare,
            "right": ((rare > 0.5) == is_rare) & (rng.random(len(rare)) < 0.5),
        }[named]
        table, fields = fields_of(n_each, np.full(len(rare), 100.0))
        table["class"] = np.where(np.where(is_named, is_rare, rare > 0.5), "rare", "usual")
        table["p_rare"], table["p_usual"] = rare, 1 - rare
        options = {"classes": ["rare", "usual"], "by_person": is_named, "edges": "leave_out"}
        confusion = [[(own > 0.5).sum(), (own <= 0.5).sum()] for own in held_out]
        row = count_particles(table, fields, confusion=confusion, **options).iloc[0]
        ends = row[f"{what}low"], row[f"{what}high"]
        return within(ends, 0.2, 0.6) if what else within(ends, 12 * n, 36 * n)

    return draw


def outlines(score: str, truth: float) -> Callable[[Rng, int], Kept]:
    """Of fields of which about .8 of the particles are found, and as large a part of each."""

    def draw(rng: Rng, n: int) -> Kept:
        tally = OutlineTally(min_area=1)
        for share in rng.beta(16, 4, n):
            labels = np.arange(1, 13).reshape(3, 4)
            true = labels.repeat(8, 0).repeat(8, 1) * (
                np.arange(32) % 8 < rng.integers(2, 8, (24, 1))
            )
            tally.add(true, true * np.isin(true, 1 + np.flatnonzero(rng.random(12) < share)))
        return within(tally.intervals()[score], truth, truth / 2)

    return draw


# --- fibres ---------------------------------------------------------------------------------------


def measured(diameters: np.ndarray, lengths: np.ndarray) -> FibreDiameters:
    """Two places on each fibre."""
    values, weights = np.repeat(diameters, 2).astype(float), np.repeat(lengths, 2).astype(float)
    ends = Interval(*(float(np.median(values)) * np.exp([-0.05, 0.05])))
    known = {"errors": 0.05 * values, "weights": weights, "interval": ends}
    return diameters_of(values, fibres=np.arange(len(values)) // 2, **known)


def mats(rng: Rng, median: float, n_samples: int, n_images: int) -> list[FibreDiameters]:
    """Images of samples, which differ by a tenth; of one sample by a thirtieth, as is measured."""
    own = np.log(median) + np.repeat(0.1 * rng.standard_normal(n_samples), n_images)
    own += 0.03 * rng.standard_normal(len(own))
    return [
        measured(np.exp(each + 0.2 * rng.standard_normal(20)), np.ones(20)) for each in own.tolist()
    ]


def group_median(rng: Rng, n: int) -> Kept:
    """Of n samples, each with four images."""
    found, samples = mats(rng, 100, n, 4), np.repeat(np.arange(n), 4).tolist()
    (group,) = compare_groups(found, samples=samples).groups
    if group.interval_of == "images of one sample":
        return True, False  # of this sample: of others it claims nothing
    return within((group.interval.low, group.interval.high), 100, 200)


def ratio_of_groups(rng: Rng, n: int) -> Kept:
    """Of two groups without a difference, each of n samples with three images."""
    found, names = mats(rng, 100, 2 * n, 3), np.repeat(["a", "b"], 3 * n).tolist()
    samples = np.repeat(np.arange(2 * n), 3).tolist()
    interval = compare_groups(found, names, samples).ratio("b", "a").interval
    return within((interval.low, interval.high), 1, 2)


def one_kind(lengths: Callable[[Rng, int], np.ndarray]) -> Callable[[Rng, int], Kept]:
    """Fibres of one kind are not called two; two kinds that are far apart are."""

    def draw(rng: Rng, n: int) -> Kept:
        logs = np.log(20) + 0.25 * rng.standard_normal(n)
        found = measured(np.exp(logs), lengths(rng, n)).modes
        two = measured(np.exp(logs + np.log(4) * (np.arange(n) % 2)), np.ones(n)).modes
        return len(found) <= 1, len(two) == 2

    return draw


def directions(name: str, far: float, sd: float = 0.3) -> Callable[[Rng, int], Kept]:
    """Of groups whose mean directions differ as much as axes within them."""
    order = np.exp(-4 * sd**2)  # E cos 2 theta of a normal theta
    truth = {"mean": np.pi / 2, "order": order, "spread": np.sqrt(-2 * np.log(order)) / 2}[name]

    def draw(rng: Rng, n: int) -> Kept:
        angles = np.pi / 2 + np.repeat(sd * rng.standard_normal(n), 10)
        angles += sd * rng.standard_normal(len(angles))
        found = axial_statistics(angles, groups=np.repeat(np.arange(n), 10))
        interval = getattr(found, f"{name}_interval")
        turns = np.pi * np.round((found.mean - truth) / np.pi) * (name == "mean")  # of an axis
        return within((interval.low, interval.high), truth + turns, far + turns)

    return draw


PROMISES = {
    "accuracy, most groups agree": Promise(accuracy_of(agreeing), units=(1, 3, 5, 8, 20, 40)),
    "accuracy, unequal groups": Promise(accuracy_of(differing), units=(1, 2, 5, 8, 20, 40)),
    "share of a class, most fields agree": Promise(share_in_fields, units=(3, 8, 40)),
    "balanced accuracy": Promise(balanced_accuracy),
    "share": Promise(share),
    "calibration error": Promise(calibration_error, units=(8, 40), n_draws=20),
    "prediction set": Promise(sets, 0.9, n_draws=300),
    "sure answers": Promise(sure_answers, 0.9, units=(1, 2, 4, 8, 40, 300), n_draws=300),
    "number of particles": Promise(number),
    "D10": Promise(sizes("d10"), units=(2, 4, 8)),
    "D50": Promise(sizes("d50")),
    "D90": Promise(sizes("d90")),
    "number with some missed": Promise(detected(None), units=(1, 2, 4, 8)),
    "D10 with some missed": Promise(detected("d10"), units=(2, 8)),
    "D50 with some missed": Promise(detected("d50"), units=(2, 8, 40), is_dear=True),
    "number of a class": Promise(classified("none"), units=(2, 8, 40)),
    "number of a class, doubtful named": Promise(classified("doubtful"), units=(2, 8, 40)),
    "number of a class, mistakes named": Promise(classified("mistakes"), units=(2, 8, 40)),
    "number of a class, right ones named": Promise(classified("right"), units=(2, 8, 40)),
    "share of a class": Promise(classified("none", "share_"), units=(2, 8, 40)),
    "recall of outlines": Promise(outlines("recall", 0.8), n_draws=60),
    "precision of outlines": Promise(outlines("precision", 1.0), n_draws=60, is_dear=True),
    "F1 of outlines": Promise(outlines("f1", 1.6 / 1.8), n_draws=60, is_dear=True),
    "overlap of outlines": Promise(outlines("image_iou", 0.8), n_draws=60, is_dear=True),
    "median of a group": Promise(group_median, is_dear=True),
    "ratio of groups": Promise(ratio_of_groups, n_draws=60, is_dear=True),
    **{
        f"one kind, {lengths}": Promise(one_kind(draw), units=(40, 200), n_draws=60, is_dear=True)
        for lengths, draw in {
            "equal lengths": lambda _, n: np.ones(n),
            "lengths of an exponential": lambda rng, n: rng.exponential(size=n),
            "few long fibres": lambda rng, n: np.exp(1.5 * rng.standard_normal(n)),
        }.items()
    },
    "mean direction": Promise(directions("mean", np.pi / 2 + 0.5)),
    "weak direction": Promise(directions("mean", np.pi / 2 + 0.5, 0.6), units=(2, 8, 60)),
    "order parameter": Promise(directions("order", 0.4)),
    "spread of directions": Promise(directions("spread", 0.8)),
}


def marks_of(promise: Promise, n: int) -> list[pytest.MarkDecorator]:
    """Always try the fewest units and the most, or the most that are not dear."""
    ends = promise.units[0], promise.units[-1 - promise.is_dear]
    return [] if n in ends else [pytest.mark.full]


@pytest.mark.parametrize(
    ("name", "n"),
    [
        pytest.param(name, n, marks=marks_of(promise, n))
        for name, promise in PROMISES.items()
        for n in promise.units
    ],
)
def test_what_is_promised_holds(name: str, n: int) -> None:
    promise, rng = PROMISES[name], np.random.default_rng([zlib.crc32(name.encode()), n])
    kept = np.array([promise.draw(rng, n) for _ in range(promise.n_draws)])
    broken, says_something = promise.n_draws - kept[:, 0].sum(), kept[:, 1].mean()
    # As many as one of a thousand series at the promised rate would have.
    most = stats.binom.isf(0.001, promise.n_draws, 1 - promise.rate)
    print(f"{name}, {n}: {kept[:, 0].mean():.3f} held, {says_something:.2f} say something")
    assert broken <= most
    if n == max(promise.units):
        assert says_something > 0.5
