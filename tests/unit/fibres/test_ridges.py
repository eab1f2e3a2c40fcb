"""Points of centre lines: where they lie, and that an image is filtered in bands."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from hypervlad.fibres import ridges
from hypervlad.fibres.ridges import find_ridges


@pytest.mark.parametrize("diameter", [4.0, 10.0, 24.0])
def test_points_are_on_the_centre_line_at_half_the_diameter(diameter: float) -> None:
    rows, columns = np.indices((160, 240))
    angle = np.deg2rad(20)
    normal = np.array([np.cos(angle), -np.sin(angle)])
    across = (rows - 80.3) * normal[0] + (columns - 120) * normal[1]
    image = np.clip(diameter / 2 - np.abs(across) + 0.5, 0, 1).astype(np.float32)
    found = find_ridges(image, 0.001, 14.0, [1])[1]
    inside = (np.abs(found.positions - [80, 120]) < 30).all(axis=1)
    own = inside & (found.scales > diameter / 4)
    off = (found.positions - [80.3, 120])[own] @ normal
    assert np.abs(off).max() < 0.3
    assert np.abs(found.normals[own] @ normal).min() > 0.99
    assert 0.5 < np.median(found.scales[own]) / (diameter / 2) < 1.2
    assert found.lengths[own].sum() == pytest.approx(60 / np.cos(angle), rel=0.15)


def test_bands_turns_and_polarity_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    image = gaussian_filter(np.random.default_rng(0).standard_normal((150, 211)), 3)
    image = np.float32((image - image.min()) / np.ptp(image))
    whole = find_ridges(image, 0.01, 12.0, [1])[1]
    monkeypatch.setattr(ridges, "_BAND", 9 * image.shape[1])
    for name, values in vars(find_ridges(image, 0.01, 12.0, [1])[1]).items():
        np.testing.assert_array_equal(values, getattr(whole, name))
    for name, values in vars(find_ridges(-image, 0.01, 12.0, [-1])[-1]).items():
        np.testing.assert_array_equal(values, getattr(whole, name))
    turned = find_ridges(np.ascontiguousarray(image.T), 0.01, 12.0, [1])[1]
    assert turned.lengths.sum() == pytest.approx(whole.lengths.sum(), rel=0.02)


def test_an_image_below_the_smallest_has_no_ridges() -> None:
    assert len(find_ridges(np.eye(23, dtype=np.float32), 0.0, 4.0, [1])[1].lengths) == 0
