"""Scores of defect maps against plain loops."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from hypervlad.evaluation import PatchConfusion, PixelTally, patch_confusion


def tally_of(maps, masks):
    tally = PixelTally()
    for scores, mask in zip(maps, masks, strict=True):
        tally.add(scores, mask)
    return tally


def random_maps(seed, n_images=3, levels=6):
    """Scores with many ties, and masks of which at least one pixel is and one is not defective."""
    rng = np.random.default_rng(seed)
    shapes = [tuple(rng.integers(2, 8, 2)) for _ in range(n_images)]
    maps = [rng.integers(0, levels, shape) / levels for shape in shapes]
    masks = [rng.random(shape) < 0.3 for shape in shapes]
    masks[0].flat[:2] = True, False
    return maps, masks


def all_pixels(maps, masks):
    scores = [float(s) for scores in maps for s in scores.ravel()]
    return scores, [bool(d) for mask in masks for d in mask.ravel()]


def regions_of(mask):
    """Connected regions by flooding, corners included: lists of (row, column)."""
    left = {(int(r), int(c)) for r, c in np.argwhere(mask)}
    while left:
        region, front = [], [left.pop()]
        while front:
            row, column = front.pop()
            region.append((row, column))
            for near in itertools.product(
                (row - 1, row, row + 1), (column - 1, column, column + 1)
            ):
                if near in left:
                    left.remove(near)
                    front.append(near)
        yield region


def naive_overlap(maps, masks, max_fpr):
    points = [(0.0, 0.0)]
    scores, defective = all_pixels(maps, masks)
    n_sound = len(defective) - sum(defective)
    for threshold in sorted(set(scores), reverse=True):
        shares = [
            np.mean([scores[place] >= threshold for place in region])
            for scores, mask in zip(maps, masks, strict=True)
            for region in regions_of(mask)
        ]
        false = sum(s >= threshold and not d for s, d in zip(scores, defective, strict=True))
        points.append((false / n_sound, float(np.mean(shares))))
    area = 0.0
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if x0 >= max_fpr:
            break
        if x1 > max_fpr:
            y1 = y0 + (y1 - y0) * (max_fpr - x0) / (x1 - x0)
            x1 = max_fpr
        area += (x1 - x0) * (y0 + y1) / 2
    return area / max_fpr


@given(st.integers(0, 10**6), st.integers(1, 4), st.booleans())
@settings(max_examples=6)  # each has two million bins
def test_scores_are_those_of_scikit_learn_and_plain_loops(seed, n_images, is_negative):
    maps, masks = random_maps(seed, n_images)
    tally = tally_of([scores - 2 * is_negative for scores in maps], masks)
    scores, defective = all_pixels(maps, masks)
    assert tally.auroc() == pytest.approx(roc_auc_score(defective, scores))
    expected = average_precision_score(defective, scores)
    assert tally.average_precision() == pytest.approx(expected)
    assert tally.per_region_overlap() == pytest.approx(naive_overlap(maps, masks, 0.3))
    tried = [threshold - 2 * is_negative for threshold in set(scores)]
    truth = np.array(defective)

    def f1(threshold):
        called = np.array(scores) - 2 * is_negative >= threshold
        return 2 * (called & truth).sum() / (called.sum() + truth.sum())

    assert tally.best_f1() == pytest.approx(max(map(f1, tried)))


def test_the_highest_pixel_may_be_a_false_alarm():
    scores, mask = np.array([[0.9, 0.5, 0.1], [0.4, 0.2, 0.3]]), np.zeros((2, 3), bool)
    mask[0, 1] = True
    tally = tally_of([scores], [mask])
    assert tally.per_region_overlap() == pytest.approx(naive_overlap([scores], [mask], 0.3))


@pytest.mark.parametrize("is_defective", [False, True])
def test_pixels_of_one_kind_have_no_score(is_defective):
    tally = tally_of([np.ones((2, 2))], [np.full((2, 2), is_defective)])
    found = [tally.auroc(), tally.average_precision(), tally.per_region_overlap(), tally.best_f1()]
    assert np.isnan(found).all()


def naive_confusion(found, mask, patch):
    counts = [0, 0, 0, 0]
    height, width = mask.shape
    for top in range(0, height, patch):
        for left in range(0, width, patch):
            places = [
                (row, column)
                for row in range(top, min(height, top + patch))
                for column in range(left, min(width, left + patch))
            ]
            # Whole numbers: a tenth of 100 pixels is not exactly 10 in binary.
            called = 10 * sum(found[place] for place in places) >= len(places)
            true = 10 * sum(mask[place] for place in places) >= len(places)
            counts[2 * (not called) + (not true)] += 1
    return PatchConfusion(*counts)


@given(st.integers(0, 10**6), st.integers(1, 12))
@settings(max_examples=40)
def test_confusion_is_that_of_the_plain_loop(seed, patch):
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 25, 2))
    found, mask = rng.random((2, *shape)) < rng.choice([0.02, 0.1, 0.2, 0.8])
    assert patch_confusion(found, mask, patch) == naive_confusion(found, mask, patch)


def test_rates_of_a_confusion():
    confusion = PatchConfusion(6, 2, 3, 9)
    assert confusion.precision == 0.75
    assert confusion.recall == pytest.approx(2 / 3)
    assert confusion.f1 == pytest.approx(2 * 0.75 * (2 / 3) / (0.75 + 2 / 3))
    assert confusion.accuracy == 0.75
    nothing = PatchConfusion(0, 0, 0, 5)
    assert np.isnan([nothing.precision, nothing.recall, nothing.f1]).all()
    assert nothing.accuracy == 1.0
    assert PatchConfusion.total([confusion, nothing]) == PatchConfusion(6, 2, 3, 14)
    assert np.isnan(PatchConfusion.total([]).accuracy)
