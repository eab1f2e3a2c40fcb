"""Synthetic SEM mats: reproducible, and masked where a defect is visible."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from hypervlad.data import NANOFIBRE_DEFECTS, make_nanofibre_images
from hypervlad.data.synthetic.nanofibre import Mat, make_surface, missing_area
from hypervlad.data.synthetic.sem import SUBSTRATE, Strands, Surface


@pytest.mark.slow  # draws 24 mats
@pytest.mark.parametrize("share", [0, 0.25, 1])
def test_share_of_defective_images(share):
    _, masks = make_nanofibre_images(8, defective=share, size=64, random_state=1)
    # A defect can be hidden altogether, so the share is reached from below.
    assert sum(mask.any() for mask in masks) <= np.ceil(8 * share)
    assert sum(mask.any() for mask in masks) >= np.floor(8 * share) - 1


@pytest.mark.slow  # draws 24 mats
@pytest.mark.parametrize("kind", [*NANOFIBRE_DEFECTS, "missing"])
def test_each_kind_is_seen_and_masked(kind):
    images, masks = make_nanofibre_images(
        4, defective=1, defects=[kind], size=(116, 171), random_state=5
    )
    assert sum(mask.any() for mask in masks) >= 3
    assert max(mask.mean() for mask in masks) < 0.6
    difference = np.mean(
        [
            image[mask].mean() - image[~mask].mean()
            for image, mask in zip(images, masks, strict=True)
            if mask.any()
        ]
    )
    if kind in ("hole", "missing"):
        assert difference < -0.05
    if kind in ("clump", "particle"):
        assert difference > 0.05


@pytest.mark.parametrize("seed", range(2))
def test_a_part_of_the_fibres_is_missing(seed):
    mat = Mat(radius=4.0, coverage=2.0, alignment=0.0, direction=0.0, curl=0.1, collector=0.05)
    sparse, complete = (
        make_surface(np.random.default_rng(seed), (200, 240), mat, defects, unit=0.6)
        for defects in [("missing",), ()]
    )
    # Which of a rod's points a pixel shows is arbitrary: their heights hardly differ.
    lower = sparse.height < complete.height - 0.05
    assert not (sparse.height > complete.height + 0.05).any()
    assert not (lower & ~sparse.defect).any()
    assert lower[sparse.defect].mean() > 0.3
    before, after = ((s.height > SUBSTRATE)[sparse.defect].mean() for s in (complete, sparse))
    assert 0.1 < after < before - 0.1


def test_images_without_defects_need_no_kinds():
    _, masks = make_nanofibre_images(2, defective=0, defects=(), size=64, random_state=0)
    assert not any(mask.any() for mask in masks)


def test_missing_fibres_are_drawn_only_if_they_are_named():
    assert "missing" not in NANOFIBRE_DEFECTS
    options = {"n": 1, "defective": 1, "size": 96, "random_state": 0}
    default, _ = make_nanofibre_images(**options)
    named, _ = make_nanofibre_images(**options, defects=NANOFIBRE_DEFECTS)
    assert_array_equal(default[0], named[0])
    _, masks = make_nanofibre_images(**options, defects="missing")
    assert masks[0].any()


def test_missing_fibres_that_others_would_cover_have_no_mask():
    surface = painted(flat_strand(0.8, defect=False))
    hidden = flat_strand(0.2, defect=False)
    assert not missing_area(surface, hidden, reach=5).any()
    bare = painted()
    assert missing_area(bare, hidden, reach=5)[17:24].all()


def flat_strand(height, defect):
    """One straight fibre of radius 3 along row 20."""
    columns = np.arange(0, 40, 0.5, dtype=np.float32)
    chain = np.stack([np.full_like(columns, 20), columns], axis=-1)[None]
    ones = np.ones((1, len(columns)), np.float32)
    return Strands(chain, 3 * ones, height * ones, ones[:, 0], np.full(ones.shape, defect))


def painted(*strands):
    surface = Surface((40, 40), np.full((40, 40), 0.1, np.float32), pixel=0.01)
    for strand in strands:
        surface.paint_strands(strand)
    return surface


def test_a_fibre_covers_its_width_without_gaps():
    surface = painted(flat_strand(0.5, defect=False))
    covered = surface.height > SUBSTRATE
    rows = np.flatnonzero(covered.any(axis=1))
    assert rows.tolist() == list(range(17, 24))
    assert covered[17:24].all()
    # A rod: its middle stands out by its radius.
    assert surface.height[20, 20] == pytest.approx(0.53)
    assert surface.height[20, 20] > surface.height[17, 20]
    assert surface.yield_[17, 20] > surface.yield_[20, 20]  # edges are brighter
    assert surface.yield_[0, 0] == np.float32(0.1)


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("upper_is_defect", [True, False])
def test_the_upper_fibre_is_visible_in_any_order(order, upper_is_defect):
    lower, upper = flat_strand(0.2, not upper_is_defect), flat_strand(0.8, upper_is_defect)
    surface = painted(*[lower, upper][::order])
    assert surface.defect.sum() == upper_is_defect * 7 * 40


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"defects": ["scratch"]}, "expected some of bead, clump, film, hole, particle, missing"),
        ({"defects": []}, "for images without any, defective=0"),
        ({"defective": 1.5}, "expected a share of the images"),
    ],
)
def test_bad_parameters_are_reported(options, message):
    with pytest.raises(ValueError, match=message):
        make_nanofibre_images(**{"n": 1, **options})
