"""Measures of particles against drawn shapes and brute force."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from hypervlad.particles import Outlines, Particle, cut_particles, measure


def particle_of(mask, pixel_size=None, micrograph="a.png", label=1):
    height, width = mask.shape
    box, field = (5, 7, 5 + height, 7 + width), (height + 20, width + 20)
    return Particle(label, box, mask, mask.astype(np.float32), micrograph, field, pixel_size)


def measured(mask):
    return measure([particle_of(mask)]).iloc[0]


def rod(length, width, degrees):
    """A straight rod with flat ends, in a square."""
    half = int(length / 2 + width + 2)
    down, right = np.mgrid[-half : half + 1, -half : half + 1]
    along = right * math.cos(math.radians(degrees)) + down * math.sin(math.radians(degrees))
    across = down * math.cos(math.radians(degrees)) - right * math.sin(math.radians(degrees))
    return (abs(along) <= length / 2) & (abs(across) <= width / 2)


def rod_with_round_ends(length, width, degrees):
    flat = rod(length + width, width, degrees)
    down, right = np.indices(flat.shape) - len(flat) // 2
    along = right * math.cos(math.radians(degrees)) + down * math.sin(math.radians(degrees))
    across = down * math.cos(math.radians(degrees)) - right * math.sin(math.radians(degrees))
    return np.hypot(np.maximum(abs(along) - (length - width) / 2, 0), across) <= width / 2


@pytest.mark.parametrize("shape", [rod, rod_with_round_ends])
@pytest.mark.parametrize("width", [5, 14])
def test_lengths_of_rods_are_right_whatever_their_ends_and_directions(shape, width):
    found = [measured(shape(100.5, width, degrees)) for degrees in range(0, 180, 13)]
    lengths = [each.length_px for each in found]
    assert np.mean(lengths) == pytest.approx(100.5, abs=1.2)
    assert lengths == pytest.approx(np.full(len(found), 100.5), abs=1 + 0.3 * width)
    for each in found:
        assert each.end_to_end_px == pytest.approx(each.length_px, rel=0.05)
        if width == 5:
            assert not each.persistence_length_px < 500  # straight
        if shape is rod_with_round_ends:
            assert each.width_px == pytest.approx(width, rel=0.1)


@pytest.mark.parametrize("axes", [(20, 9), (30, 30), (34, 12)])
@pytest.mark.parametrize("degrees", [0, 30, 90])
def test_ellipses_have_the_area_and_the_calipers_of_their_axes(axes, degrees):
    down, right = np.mgrid[-40:41, -40:41] + 0.31
    turn = math.radians(degrees)
    along = right * math.cos(turn) + down * math.sin(turn)
    across = down * math.cos(turn) - right * math.sin(turn)
    found = measured((along / axes[0]) ** 2 + (across / axes[1]) ** 2 <= 1)
    assert found.area_px2 == pytest.approx(math.pi * axes[0] * axes[1], rel=0.02)
    calipers = found.feret_max_px, found.feret_min_px
    assert calipers == pytest.approx((2 * axes[0], 2 * axes[1]), abs=1.2)
    assert found.equivalent_diameter_px == pytest.approx(2 * math.sqrt(axes[0] * axes[1]), rel=0.01)
    assert found.solidity > 0.95
    mean, difference = sum(axes) / 2, (axes[0] - axes[1]) ** 2 / sum(axes) ** 2
    around = 2 * math.pi * mean * (1 + 3 * difference / (10 + math.sqrt(4 - 3 * difference)))
    circularity = 4 * math.pi**2 * axes[0] * axes[1] / around**2  # Ramanujan's perimeter
    assert found.circularity == pytest.approx(circularity, rel=0.05)


def brute_force_feret(mask):
    """Over all middles of all pixels' sides: the largest distance, and the narrowest direction."""
    points = np.array(
        [
            (row + down, column + right)
            for row, column in np.argwhere(mask)
            for down, right in ((0.5, 0), (-0.5, 0), (0, 0.5), (0, -0.5))
        ]
    )
    largest = max(math.dist(one, other) for one, other in itertools.combinations(points, 2))
    turns = np.linspace(0, np.pi, 3601)
    return largest, np.ptp(points @ np.stack([np.cos(turns), np.sin(turns)]), axis=0).min()


@st.composite
def blobs(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    noise = ndimage.gaussian_filter(rng.random((draw(st.integers(1, 14)), 12)), 1.2)
    pieces, _ = ndimage.label(noise >= np.quantile(noise, 0.4), np.ones((3, 3)))
    largest = pieces == np.argmax(np.bincount(pieces.ravel())[1:]) + 1
    return largest[ndimage.find_objects(largest.astype(int))[0]]


@given(blobs())
@settings(max_examples=12, deadline=None)
def test_feret_diameters_are_those_of_brute_force(mask):
    found, (largest, smallest) = measured(mask), brute_force_feret(mask)
    assert found.feret_max_px == pytest.approx(largest)
    # The brute force turns by a twentieth of a degree.
    assert smallest * (1 - 1e-9) - 1e-3 * largest <= found.feret_min_px <= smallest + 1e-9


@given(blobs(), st.integers(1, 3))
@settings(max_examples=12, deadline=None)
def test_measures_do_not_depend_on_neighbours_and_agree_with_each_other(mask, turns):
    alone = measured(mask)
    among = measure([particle_of(np.ones((k, 9), bool)) for k in (3, 20)] + [particle_of(mask)])
    np.testing.assert_allclose(
        among.iloc[2].drop("micrograph").astype(float), alone.drop("micrograph").astype(float)
    )
    turned = measured(np.rot90(mask, turns))
    for name in ("area_px2", "feret_max_px", "feret_min_px", "solidity", "circularity"):
        assert turned[name] == pytest.approx(alone[name])
    rows, columns = np.nonzero(mask)
    assert (alone.area_px2, alone.centroid_row, alone.centroid_column) == pytest.approx(
        (mask.sum(), rows.mean() + 5, columns.mean() + 7)
    )
    assert 0 < alone.feret_min_px <= alone.feret_max_px
    assert alone.aspect_ratio >= 1
    assert max(alone.solidity, alone.circularity) <= 1


def test_length_of_a_curved_fibre_is_along_it():
    down, right = np.mgrid[-70:71, -70:71]
    ring = abs(np.hypot(down, right) - 60) <= 2
    half = measured(ring & (down < 0))
    assert half.length_px == pytest.approx(60 * np.pi, rel=0.03)
    assert half.width_px == pytest.approx(4, abs=0.4)
    assert measured(ring).length_px == pytest.approx(60 * np.pi, rel=0.05)  # as documented
    assert measured(ring).width_px == pytest.approx(4, abs=0.1)  # of its wall


def test_pinholes_make_no_loops_and_rings_do():
    down, right = np.mgrid[-24:25, -24:25]
    distance = np.hypot(down, right)
    whole = measured(distance <= 20)
    for hole in (1, 3, 6):
        found = measured((distance <= 20) & (distance >= hole))
        assert found.area_px2 < whole.area_px2
        assert found.length_px == pytest.approx(whole.length_px, rel=0.06)
    assert measured((distance <= 20) & (distance > 16)).aspect_ratio > 6


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 2), (1, 50), (50, 2)])
def test_the_smallest_particles_have_measures(shape):
    found = measured(np.ones(shape, bool))
    assert found.length_px == pytest.approx(max(shape), abs=(0.2, 2)[min(shape) - 1])
    assert found.feret_min_px == pytest.approx(0.5**0.5 if shape == (1, 1) else min(shape))
    assert 1 <= found.aspect_ratio <= max(shape)


def test_units_edges_and_overlaps():
    labels = np.zeros((2, 30, 40), bool)
    labels[0, 0:10, 5:15] = labels[1, 5:20, 10:30] = True
    known = cut_particles(np.full((30, 40), 0.5), labels, pixel_size=2.5)
    unknown = cut_particles(np.full((30, 40), 0.5), labels[1:])
    table = measure(known + unknown, ["cube", "rod", "rod"])
    assert table["area_px2"].tolist() == [100, 300, 300]  # the whole of both that overlap
    assert table["touches_edge"].tolist() == [True, False, False]
    np.testing.assert_allclose(table["area_nm2"], [625, 1875, np.nan])
    np.testing.assert_allclose(table["feret_max_nm"][:2], 2.5 * table["feret_max_px"][:2])
    assert table["feret_max_nm"].isna().tolist() == [False, False, True]
    assert table["class"].tolist() == ["cube", "rod", "rod"]
    assert table["particle"].tolist() == [1, 2, 1]
    assert table[["top", "left", "bottom", "right"]].iloc[1].tolist() == [5, 10, 20, 30]
    assert list(measure([]).columns) == list(measure(known).columns)


PARTICLE = particle_of(np.ones((2, 2), bool))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: particle_of(np.zeros((3, 3), bool)), r"a\.png, particle 1: its mask has no pixel"),
        (lambda: particle_of(np.ones((3, 3), np.uint8)), "particle 1: expected a mask .* uint8"),
        (lambda: measure([PARTICLE], ["x", "y"]), "classes: got 2 values for 1 particle"),
        (lambda: measure(PARTICLE), "particles must be a list of particles, not "),
        (lambda: measure([Outlines((3, 3), ())]), "outlines of 1 image; measure those of each"),
        (lambda: measure(None), "particles must be a list of particles, not "),
        (lambda: measure(np.ones((1, 2))), r"particles\[0\] must be a Particle, not "),
    ],
)
def test_errors_name_the_particle_and_the_numbers(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def arc(radius, turn, width=5):
    """A band along part of a circle."""
    down, right = np.mgrid[-radius - 9 : radius + 10, -radius - 9 : radius + 10]
    around = np.arctan2(down, right) % (2 * np.pi)
    return (abs(np.hypot(down, right) - radius) <= width / 2) & (around <= turn)


def test_the_persistence_length_of_many_chains_is_that_of_their_random_walk():
    rng, values = np.random.default_rng(0), []
    for _ in range(12):
        angle = np.cumsum(rng.standard_normal(300) / math.sqrt(100))  # of variance 1 in 100 px
        line = np.cumsum(np.stack([np.sin(angle), np.cos(angle)], axis=1), axis=0)
        line -= line.min(axis=0) - 8
        mask = np.zeros(np.ceil(line.max(axis=0) + 8).astype(int), bool)
        mask[tuple(np.rint(line).astype(int).T)] = True
        values.append(measured(ndimage.binary_dilation(mask, iterations=2)).persistence_length_px)
    assert np.median(np.nan_to_num(values, nan=np.inf)) == pytest.approx(100, rel=0.4)


def test_short_particles_have_no_persistence_length():
    assert math.isnan(measured(arc(15, np.pi)).persistence_length_px)
    found = measure([particle_of(arc(40, np.pi), pixel_size=2.0)]).iloc[0]
    assert found.persistence_length_nm == 2 * found.persistence_length_px > 0
