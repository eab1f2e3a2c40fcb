"""Synthetic fibres: true to what was asked."""

import numpy as np
import pytest

from hypervlad.data import make_fibre_images
from hypervlad.fibres import aligned_fraction, axial_difference


@pytest.mark.parametrize("diameter", [2.5, 5.0, 8.3])
def test_the_area_of_a_single_fibre_is_its_length_times_its_diameter(diameter):
    asked = {"diameter": diameter, "spread": 0, "curl": 0, "blur": 0.3, "length": 80}
    widths = []
    for seed in range(12):
        (image,), (truth,) = make_fibre_images(
            1, look="flat", cover=0.001, contrast_to_noise=1e6, size=160, random_state=seed, **asked
        )
        assert truth.diameters.tolist() == [diameter]
        rim = max(np.ptp(image[[0, -1]]), np.ptp(image[:, [0, -1]]))
        if truth.lengths[0] > 79.5 and rim < 1e-3:  # all of it is inside
            low, high = image.min(), image.max()
            area = (image - low).sum() / (high - low) - np.pi / 4 * diameter**2  # rounded ends
            widths.append(area / truth.lengths[0])
    assert len(widths) >= 3
    assert np.mean(widths) == pytest.approx(diameter, rel=0.01)


@pytest.mark.parametrize("look", ["flat", "transmission"])
def test_crossing_fibres_hide_each_other_but_in_transmission(look):
    options = {"look": look, "diameter": 9, "cover": 0.5, "curl": 0, "contrast_to_noise": 1e6}
    (image,), (truth,) = make_fibre_images(1, size=160, random_state=1, **options)
    hidden = truth.lengths - truth.visible_lengths
    assert (hidden >= -1e-9).all()
    assert hidden.any() == (look == "flat")
    inside = image[truth.fibres >= 0].mean() - image[truth.fibres < 0].mean()
    assert inside < -0.1 if look == "transmission" else inside > 0.1


def test_cover_spread_and_two_kinds_are_as_asked():
    _, (truth,) = make_fibre_images(
        1, diameter=5, second=15, second_share=0.5, spread=0.1, cover=0.6, random_state=1
    )
    assert 0.6 <= truth.cover < 0.7
    thick = truth.diameters > 9
    assert 0.25 < thick.mean() < 0.75
    assert np.median(truth.diameters[thick]) == pytest.approx(15, rel=0.12)
    assert np.median(truth.diameters[~thick]) == pytest.approx(5, rel=0.12)
    assert truth.diameters.min() <= truth.median <= truth.diameters.max()


@pytest.mark.parametrize("aligned", [0.0, 0.4, 1.0])
def test_domains_have_their_share_and_fibres_their_directions(aligned):
    options = {"size": 192, "diameter": 6, "cover": 0.6, "contrast_to_noise": 100}
    (image,), (truth,) = make_fibre_images(1, aligned=aligned, random_state=1, **options)
    on_fibre = truth.fibres >= 0
    assert (np.isfinite(truth.orientation) == on_fibre).all()
    assert ((truth.orientation >= 0) & (truth.orientation < np.pi))[on_fibre].all()
    expected, found = truth.aligned_fraction(), aligned_fraction(image)
    assert expected.fraction == pytest.approx(aligned, abs=0.25)
    assert np.nanmean(truth.aligned_map()) == pytest.approx(expected.fraction)
    if aligned:
        both = found.aligned & expected.aligned
        apart = axial_difference(found.angle[both], expected.angle[both])
        assert np.median(apart) < np.deg2rad(5)
