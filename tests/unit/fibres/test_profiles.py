"""Models of profiles, compared with slow numerical convolution, and their templates."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.ndimage import gaussian_filter1d

from hypervlad.fibres.profiles import (
    BLUR_STEP,
    FLAT,
    LINE,
    RIMS,
    SHAPES,
    bank,
    basis,
    match,
    sampled_diameter,
    weighted_quantiles,
)

STEP = 0.005
FINE = np.arange(-60, 60, STEP)
FACTORS = {"left": 0.2, "right": 0.5, "odd": 0.1, "body": 1.0}


def drawn(shape, across, *, centre, diameter, blur, left, right, odd, body):
    """Return a profile by drawing it sharp and blurring it numerically."""
    place = (FINE - centre) / (diameter / 2)
    inside = np.abs(place) < 1
    behind = np.interp(place, [-1, 1], [left, right]) if shape.clear else 0
    own = body if shape.body is None else body * shape.body(np.minimum(np.abs(place), 1))
    sharp = np.where(inside, behind + own + odd * place, np.where(place < 0, left, right))
    blurred = gaussian_filter1d(sharp, blur / STEP, truncate=6, mode="nearest")
    return np.interp(across, FINE, blurred)


@pytest.mark.parametrize(("diameter", "blur"), [(3, 1.2), (7, 0.4), (40, 2.5)])
@pytest.mark.parametrize("index", range(len(SHAPES)))
def test_models_are_convolutions(index, diameter, blur):
    shape = SHAPES[index]
    across = np.linspace(-diameter, diameter, 61)
    expected = drawn(shape, across, centre=0.3, diameter=diameter, blur=blur, **FACTORS)
    parts = basis(shape, across[None], np.array([0.3]), np.array([diameter]), np.array([blur]))
    found = parts[0] @ list(FACTORS.values())
    assert_allclose(found, expected, atol=0.008 * max(1, shape.mean**2))


@pytest.mark.parametrize("index", range(len(SHAPES)))
@pytest.mark.parametrize("diameter", [5.0, 9.0, 33.0])
def test_matches_find_centre_and_diameter(index, diameter):
    shape, blur = SHAPES[index], 1.1
    for guess in diameter * np.array([0.8, 1.0, 1.3]):
        centre, width = 0.0, guess
        for _ in range(2):
            (width,), (number,) = sampled_diameter(np.array([width]), blur)
            templates = bank(shape, int(number))
            across = centre + width * templates.across
            profile = drawn(shape, across, centre=0.2, diameter=diameter, blur=blur, **FACTORS)
            found = match(templates, profile[None])
            assert found.inside.all()
            centre += found.centre[0, 0] * width
            width *= np.exp(found.log[0, 0])
        assert centre == pytest.approx(0.2, abs=0.05 * diameter)
        # Thin round bodies and an uneven background can hardly be told apart.
        assert width == pytest.approx(diameter, rel=0.05 if diameter < 6 else 0.035)


def slow_parts(templates, shape, number):
    """Return the parts of one blur's templates."""
    blur = np.array([0.004 * BLUR_STEP**number])
    return [
        basis(shape, templates.across[None], np.array([centre]), np.array([np.exp(log)]), blur)[0]
        for centre in templates.centres
        for log in templates.logs
    ]


def test_banks_hold_templates_once():
    # Hundreds are kept, of all shapes and blurs.
    templates = bank(RIMS, 20, True, tuple(range(-6, 7)))
    held = sum(value.nbytes for value in vars(templates).values() if isinstance(value, np.ndarray))
    assert held < 1.2 * templates.ortho.nbytes < 1.3e6


def test_factors_are_those_of_the_profile():
    templates, n = bank(RIMS, 20), 70
    factors = np.array([[0.2, 0.5, 0.1, 1.0]])
    profile = slow_parts(templates, RIMS, 20)[n] @ factors[0]
    found, model = templates.fitted(np.array([n]), profile[None])
    assert_allclose(found, factors, atol=1e-5)
    assert_allclose(model[0], profile, atol=1e-5)


def test_a_match_is_that_of_a_slow_search():
    templates = bank(RIMS, 20, False, (-1, 0, 1))
    rng = np.random.default_rng(0)
    profiles = rng.standard_normal((8, len(templates.across)))
    found = match(templates, profiles)
    n = len(templates.centres) * len(templates.logs)
    for i, profile in enumerate(profiles):
        for blur in range(3):
            energies = []
            for parts in slow_parts(templates, RIMS, 20 + blur - 1):
                factors = np.linalg.lstsq(parts, profile, rcond=None)[0]
                energies.append(((profile - parts @ factors) ** 2).sum())
            best = int(np.argmin(energies))
            if found.inside[i, blur]:
                assert found.energy[i, blur] <= energies[best] + 1e-6
                assert found.template[i, blur] == blur * n + best


def test_errors_are_those_of_repeated_noise():
    (width,), (number,) = sampled_diameter(np.array([10.0]), 1.0)
    templates = bank(FLAT, int(number))
    across = width * templates.across
    sides = {"left": 0, "right": 0, "odd": 0, "body": 1}
    clean = drawn(FLAT, across, centre=0, diameter=10, blur=1, **sides)
    noise = 0.05 * np.random.default_rng(0).standard_normal((400, len(across)))
    found = match(templates, clean + noise)
    diameters = width * np.exp(found.log[:, 0])
    assert diameters.mean() == pytest.approx(10, abs=0.04)
    assert 0.05 * np.sqrt(np.median(found.variance)) == pytest.approx(found.log.std(), rel=0.25)


def test_a_line_has_no_edges():
    place = np.linspace(0, 1, 50)
    assert LINE.body(place).min() < 0.06
    assert (np.diff(LINE.body(place)) < 0).all()


def test_mean_of_a_constant_and_of_a_circle():
    assert FLAT.mean == 1
    circle = next(shape for shape in SHAPES if shape.name == "round")
    assert circle.mean == pytest.approx(np.pi / 4, abs=0.002)


def test_quantiles_follow_weights():
    assert_allclose(weighted_quantiles([3, 1, 2], [1, 1, 1], [0.5]), 2)
    assert weighted_quantiles([1, 5], [1, 99], [0.5])[0] > 4.9
    assert np.isnan(weighted_quantiles([], [], [0.5])).all()
