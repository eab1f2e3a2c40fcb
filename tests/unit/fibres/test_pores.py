"""Cover and pores, against grids of bars and discs of known areas."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from hypervlad.fibres import fibre_diameters, find_pores
from hypervlad.particles import cut_particles, measure

BAR, PITCH = 9, 32
RADII = 7, 10, 14


@pytest.fixture(scope="module")
def drawn():
    """Return an image of crossed bars and a plate with three holes, and where nothing is."""
    rows, columns = np.mgrid[:256, :320]
    is_open = ((rows + 12) % PITCH >= BAR) & ((columns + 12) % PITCH >= BAR) & (columns < 240)
    for number, radius in enumerate(RADII):
        is_open |= np.hypot(rows - 50 - 75 * number, columns - 281) <= radius
    image = gaussian_filter(np.where(is_open, 0.2, 0.8), 0.8)
    image += 0.04 * np.random.default_rng(0).standard_normal(image.shape)
    return image.astype(np.float32), is_open


@pytest.fixture(scope="module")
def found(drawn):
    diameters = fibre_diameters(drawn[0], polarity="bright")
    assert diameters.reason is None
    return diameters


def in_nm(found):
    lengths = {name: 20 * getattr(found, name) for name in ("diameters", "errors", "weights")}
    return replace(found, unit="nm", **lengths)


def test_the_cover_and_the_areas_of_pores_are_those_drawn(drawn, found):
    image, is_open = drawn
    pores = find_pores(image, found)
    assert pores.cover == pytest.approx(1 - is_open.mean(), abs=0.02)
    inner = (table := measure(pores))["area_px2"][~table["touches_edge"]]
    assert inner.median() == pytest.approx((PITCH - BAR) ** 2, rel=0.08)
    discs = [each.mask.sum() for each in pores if each.box[1] > 250]
    np.testing.assert_allclose(np.sqrt(np.divide(discs, np.pi)), RADII, atol=0.6)
    # A person leaves out the largest hole, with a point on it.
    plain, rest = find_pores([image, image], [found, found], leave_out=[None, [(200, 281)]])
    assert (len(plain), len(rest)) == (len(pores), len(pores) - 1)
    assert rest.cover == pytest.approx(pores.cover + max(discs) / image.size)
    with pytest.warns(UserWarning, match="1 place to leave out is not among those found"):
        assert len(find_pores(image, found, leave_out=[(12, 281)])) == len(pores)


@pytest.mark.filterwarnings("ignore:.*uneven light")
def test_light_and_polarity_do_not_matter(drawn, found):
    image, _ = drawn
    light = np.linspace(0.7, 1.3, image.shape[1], dtype=np.float32)
    every = find_pores([image, image * light, image + 6 * light], [found] * 3)
    cover, *of_lit = (each.cover for each in every)
    assert of_lit == pytest.approx([cover, cover], abs=0.02)
    inverted = find_pores(-image, replace(found, polarity="dark"))
    assert inverted.cover_interval.low < cover < inverted.cover_interval.high


def test_diameters_in_nm_give_the_pores_their_pixel_size(drawn, found):
    pores = find_pores(drawn[0], in_nm(found), pixel_size=20)
    assert {each.pixel_size for each in cut_particles(drawn[0], pores)} == {20}
    assert {each.pixel_size for each in cut_particles(drawn[0], pores, pixel_size=10)} == {10}
    np.testing.assert_array_equal(pores, find_pores(drawn[0], found))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda image, found: find_pores(image, in_nm(found)), "in nm, and pixel_size is None"),
        (lambda image, found: find_pores(image[:100, :100], found), "has 100 x 100 pixels, and"),
        (lambda image, found: find_pores(image, [found]), "FibreDiameters of the image, got list"),
    ],
)
def test_diameters_of_another_image_are_refused(drawn, found, call, words):
    with pytest.raises(ValueError, match=words):
        call(drawn[0], found)


@pytest.mark.filterwarnings("ignore:.*the image is flat")
def test_a_flat_image_among_others_has_no_pores(drawn, found):
    blank = np.ones((96, 96))
    pores, none = find_pores([drawn[0], blank], [found, fibre_diameters(blank)])
    assert len(pores) > len(none) == 0
    assert (np.isnan(none.cover), "the image is flat" in none.note) == (True, True)
