"""Synthetic defects on held-out images: what is planted, and what follows from those found."""

import math

import numpy as np
import pytest
import torch
from support.surfaces import PATCH, surface
from support.tiny import build_tiny

from hypervlad import PatchDefectScorer, default_patch_encoder, register_backbone
from hypervlad.features import Preprocessing
from hypervlad.models import DetectionLimits

KINDS = ["dark spots", "bright spots", "scratches", "stains"]
BORDER = 32  # pixels that are mirrored around an image


class Recorder(torch.nn.Module):
    """A network that remembers the images that pass through it."""

    def __init__(self):
        super().__init__()
        self.network = build_tiny()
        self.seen = []

    def forward(self, batch):
        if batch.shape[2:] == (48 + 2 * BORDER, 60 + 2 * BORDER):
            self.seen.append(batch[0, 0, BORDER:-BORDER, BORDER:-BORDER].numpy().copy())
        return self.network(batch)


def fit_and_record(images, n_planted):
    """Return the limits, and each image with a planted defect."""
    networks = []

    def build():
        networks.append(Recorder())
        return networks[-1]

    plain = Preprocessing(mean=(0.0,) * 3, std=(1.0,) * 3, minimum_size=4)
    taps = ["network.1", "network.4"]
    register_backbone("recorder", build, taps, plain)
    encoder = default_patch_encoder(backbone="recorder", weights="random", taps=taps, n_codewords=4)
    scorer = PatchDefectScorer(
        encoder, patch=PATCH, n_codewords=16, n_planted=n_planted, fpr=0.1, random_state=0
    ).fit(images)
    seen = [each for network in networks for each in network.seen]
    planted = [each for each in seen if min(np.abs(each - image).max() for image in images) > 1e-4]
    return scorer.limits_, planted


def test_planted_defects_have_the_sizes_and_contrasts_that_are_stored():
    images = [0.35 + 0.3 * surface(seed) for seed in range(12)]
    limits, planted = fit_and_record(images, n_planted=47)
    assert len(limits) == len(planted) == 48  # as many of each kind
    assert limits.kinds.tolist() == KINDS * 12
    used = {kind: set() for kind in KINDS}
    largest = min((0.25 * 48) ** 2, math.pi / 4 * (0.7 * 48) ** 2 / 1.5)
    for kind, area, contrast, image in zip(
        limits.kinds.tolist(), limits.areas, limits.contrasts, planted, strict=True
    ):
        own = int(np.argmin([np.median(np.abs(image - each)) for each in images]))
        used[kind].add(own)
        change = image - images[own]
        strength = np.abs(change) / contrast
        inside = strength >= 0.5
        assert 10 < area < 1.3 * largest
        if 0.001 < image.min() < image.max() < 0.999:  # nothing is cut off
            assert area == pytest.approx(inside.sum(), abs=2)
            assert strength.max() == pytest.approx(1, abs=0.15)
        assert 0.02 < contrast <= 0.6
        signs = {"dark spots": {-1}, "bright spots": {1}}.get(kind, {-1, 1})
        assert np.sign(change[inside].mean()) in signs
        assert np.abs(change[strength < 1e-3]).max() < 1e-3
        if area > 60:
            values = np.linalg.eigvalsh(np.cov(np.nonzero(inside)))
            stretch = {"scratches": 12}.get(kind, 1.5)
            assert math.sqrt(values[1] / values[0]) == pytest.approx(stretch, rel=0.4)
            hard = (strength[inside] > 0.95).mean()
            assert hard < 0.3 if kind == "stains" else hard > 0.4 or kind == "scratches"
    assert all(len(each) >= 6 for each in used.values())  # of all images, evenly
    assert limits.areas.min() < 25 < 0.7 * largest < limits.areas.max()
    assert limits.contrasts.min() < 0.05 < 0.4 < limits.contrasts.max()
    np.testing.assert_array_equal(limits.is_found, limits.is_called & (limits.region_areas > 0))
    clear = (limits.contrasts > 0.3) & (limits.areas > 60) & np.isin(limits.kinds, KINDS[:2])
    assert limits.is_found[clear].mean() > 0.5 > limits.is_found[limits.contrasts < 0.06].mean()


def made(found_from, n=200, seed=0):
    """Defects found from a product of area and contrast on, with regions twice as large."""
    rng = np.random.default_rng(seed)
    areas = np.exp(rng.uniform(np.log(16), np.log(4096), n)).astype(np.float32)
    contrasts = np.exp(rng.uniform(np.log(0.03), np.log(0.6), n)).astype(np.float32)
    chance = 1 / (1 + (areas * contrasts / found_from) ** -4)
    regions = np.where(rng.uniform(size=n) < chance, 2 * areas * rng.uniform(0.8, 1.25, n), 0)
    kinds = np.array(KINDS)[np.arange(n) % 2]
    return DetectionLimits(kinds, areas, contrasts, regions.astype(np.float32), np.full(n, True))


def test_limits_are_where_so_many_are_found():
    limits = made(found_from=40.0, n=2000)
    for contrast in (0.1, 0.4):
        half = limits.area("dark spots", 0.5, contrast)
        assert half == pytest.approx(40 / contrast, rel=0.15)
        most = limits.area("bright spots", 0.9, contrast)
        assert most == pytest.approx(40 / contrast * 9**0.25, rel=0.15)
        assert limits.share("dark spots", half, contrast) == pytest.approx(0.5)
    assert limits.area("dark spots", 0.9, 0.001) == math.inf
    assert limits.area("dark spots", 0.9, 1.0) >= limits.areas.min()
    for wrong in ({"kind": "scratches"}, {"contrast": 0.0}, {"contrast": 20}, {"area": -1.0}):
        with pytest.raises(ValueError):
            limits.share(**{"kind": "dark spots", "area": 50.0, "contrast": 0.2} | wrong)
    with pytest.raises(ValueError):
        limits.area("dark spots", 1.0)
    with pytest.raises(ValueError):
        DetectionLimits.none().area("dark spots")


def test_areas_are_those_of_defects_with_such_regions():
    limits = made(found_from=10.0)
    found = limits.area_interval(2000.0)
    # Slowly: of the twenty most similar regions.
    pairs = [(r, a) for r, a in zip(limits.region_areas, limits.areas, strict=True) if r]
    pairs.sort(key=lambda pair: abs(np.log(pair[0] / 2000)))
    scaled = np.array([2000 * area / region for region, area in pairs[:20]])
    # Regions are twice as large as defects; the interval contains their area.
    expected = scaled.min() / 2, max(4 * scaled.max(), 2000)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    # Where regions are as large whatever the defect, only an upper end is known.
    columns = limits.kinds, limits.areas, limits.contrasts, limits.region_areas, limits.is_called
    blurred = DetectionLimits(*columns[:3], np.full(200, 900.0), columns[4])
    low, high = blurred.area_interval(900.0)
    assert low == 0 < 900 <= high
    # Of those whose images are called, if these are enough.
    other = np.where(np.arange(200) < 150, columns[3], 50 * columns[3])
    for n_called, same in ((150, True), (19, False)):
        mixed = DetectionLimits(*columns[:3], other, np.arange(200) < n_called)
        assert (mixed.area_interval(2000.0)[0] > 0) == same
    assert DetectionLimits(*columns[:4], ~columns[4]).area_interval(2000.0) == found
    few = DetectionLimits(*(column[:20] for column in columns))
    assert few.area_interval(2000.0) is None


def test_the_state_of_limits_is_checked():
    limits = made(found_from=40.0)
    header, arrays = limits.to_state()
    again = DetectionLimits.from_state(header, arrays)
    assert again.kinds.tolist() == limits.kinds.tolist()
    assert again.area("dark spots") == limits.area("dark spots")
    assert math.isnan(again.pixel_size)
    assert len(DetectionLimits.from_state(*DetectionLimits.none().to_state())) == 0
    for damage in (
        {"areas": arrays["areas"][:3]},
        {"contrasts": arrays["contrasts"] + 1},
        {"region_areas": arrays["region_areas"] + np.float32(1e18)},
    ):
        with pytest.raises(ValueError):
            DetectionLimits.from_state(header, arrays | damage)
    for damage in (*({"pixel_size": each} for each in (-1.0, 1e300)), {"kinds": ["dust"]}):
        with pytest.raises(ValueError):
            DetectionLimits.from_state(header | damage, arrays)
