"""Synthetic defects on held-out images: what is planted, and what follows from those found."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from support.surfaces import surface

from hypervlad import PatchDefectScorer
from hypervlad.features import ImageInfo, Preprocessing
from hypervlad.features.windows.dataset import PreparedImage
from hypervlad.models import DetectionLimits, Finding
from hypervlad.models.defects.limits import KINDS, measure_limits, plant

PREPROCESSING = Preprocessing()


def grey_image(tensor: torch.Tensor, preprocessing: Preprocessing) -> np.ndarray:
    return preprocessing.grey_levels(tensor).mean(0).numpy()


def prepared(grey: np.ndarray, stored: tuple[int, int] | None = None) -> PreparedImage:
    info = ImageInfo("0" * 64, stored or grey.shape, 2.0)
    tensor = PREPROCESSING.prepare(grey.astype(np.float32), grey.shape)
    return PreparedImage(info, info.digest, "image", tensor)


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("size", [0.0, 0.5, 1.0])
def test_a_planted_defect_has_its_size_and_contrast(kind: str, size: float) -> None:
    image, rng = prepared(np.full((120, 150), 0.5)), np.random.default_rng(0)
    planted, mask, shown = plant(image, PREPROCESSING, kind, size, 0.2, rng)
    stretch, softness, sign = KINDS[kind]
    largest = min(30.0**2, math.pi / 4 * 84**2 / stretch)
    assert mask.sum() == pytest.approx(16 * (largest / 16) ** size, rel=0.3, abs=4)
    assert shown == pytest.approx(0.2, rel=1e-3)
    change = grey_image(planted.tensor, PREPROCESSING) - 0.5
    assert np.sign(change[mask].mean()) in (sign, sign or 1, sign or -1)
    edge = int(2 * stretch) if not softness else 40  # pixels beyond which nothing changes
    rows, columns = np.nonzero(mask)
    outside = np.ones(mask.shape, bool)
    outside[
        max(0, rows.min() - edge) : rows.max() + edge,
        max(0, columns.min() - edge) : columns.max() + edge,
    ] = False
    assert np.abs(change[outside]).max(initial=0) < 1e-6
    assert torch.equal(image.tensor, prepared(np.full((120, 150), 0.5)).tensor)


def test_black_and_white_cut_contrasts_off() -> None:
    rng = np.random.default_rng(0)
    *_, shown = plant(prepared(np.zeros((80, 80))), PREPROCESSING, "dark spots", 0.5, 0.2, rng)
    assert shown == pytest.approx(0, abs=1e-6)
    half = np.zeros((80, 160))
    half[:, 40:] = 1
    planted, mask, shown = plant(prepared(half), PREPROCESSING, "dark spots", 0.2, 0.4, rng)
    assert shown > 0.35  # a place was looked for where it is visible
    assert grey_image(planted.tensor, PREPROCESSING)[mask].min() > 0.5


def made(found_from: float, n: int = 200, seed: int = 0) -> DetectionLimits:
    """Defects found from a product of area and contrast on, with regions twice as large."""
    rng = np.random.default_rng(seed)
    areas = np.exp(rng.uniform(np.log(16), np.log(4096), n)).astype(np.float32)
    contrasts = np.exp(rng.uniform(np.log(0.03), np.log(0.6), n)).astype(np.float32)
    chance = 1 / (1 + (areas * contrasts / found_from) ** -4)
    regions = np.where(rng.uniform(size=n) < chance, 2 * areas * rng.uniform(0.8, 1.25, n), 0)
    kinds = np.array(list(KINDS))[np.arange(n) % 2]
    return DetectionLimits(kinds, areas, contrasts, regions.astype(np.float32), np.full(n, True))


def test_limits_are_where_so_many_are_found() -> None:
    limits = made(found_from=40.0, n=2000)
    for contrast in (0.1, 0.4):
        half = limits.area("dark spots", 0.5, contrast)
        assert half == pytest.approx(40 / contrast, rel=0.15)
        most = limits.area("bright spots", 0.9, contrast)
        assert most == pytest.approx(40 / contrast * 9**0.25, rel=0.15)
        assert limits.share("dark spots", half, contrast) == pytest.approx(0.5)
    assert limits.area("dark spots", 0.9, 0.001) == math.inf
    assert limits.area("dark spots", 0.9, 1.0) >= limits.areas.min()
    with pytest.raises(ValueError, match="kind"):
        limits.area("scratches")
    with pytest.raises(ValueError, match="share"):
        limits.area("dark spots", 1.0)
    for wrong in ({"contrast": 0.0}, {"contrast": 20}, {"area": -1.0}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be a"):
            limits.share("dark spots", **{"area": 50.0, "contrast": 0.2} | wrong)
    with pytest.raises(ValueError, match="no detection limits were measured"):
        DetectionLimits.none().area("dark spots")


@pytest.mark.parametrize(("found", "limit"), [(0.0, math.inf), (50.0, 16.0)])
def test_all_or_none_are_found(found: float, limit: float) -> None:
    areas = np.geomspace(16, 1000, 12).astype(np.float32)
    own = np.full(12, 0.2, np.float32), np.full(12, found, np.float32), np.full(12, True)
    limits = DetectionLimits(np.repeat("stains", 12), areas, *own)
    assert limits.area("stains") == pytest.approx(limit)
    text = "9 in 10 found from 16 px2 on, the smallest that was tried"
    none = "less than half found, at any size that was tried"
    assert limits.sentences() == {"stains": text if found else none}


def test_areas_are_those_of_defects_with_such_regions() -> None:
    limits = made(found_from=10.0)
    low, high = limits.area_interval(2000.0)
    assert 0.5 * 1000 < low < 1000 < high < 2 * 1000
    # Slowly: of the twenty most similar regions.
    pairs = [(r, a) for r, a in zip(limits.region_areas, limits.areas, strict=True) if r]
    pairs.sort(key=lambda pair: abs(np.log(pair[0] / 2000)))
    scaled = [2000 * area / region for region, area in pairs[:20]]
    np.testing.assert_allclose((low, high), np.quantile(scaled, [0.025, 0.975]), rtol=1e-5)
    # Where regions are as large whatever the defect, only an upper end is known.
    columns = limits.kinds, limits.areas, limits.contrasts, limits.region_areas, limits.is_called
    blurred = DetectionLimits(*columns[:3], np.full(200, 900.0), columns[4])
    low, high = blurred.area_interval(900.0)
    assert low == 0
    assert high > 100
    # What is called does not matter.
    others = DetectionLimits(*columns[:4], ~columns[4])
    assert others.area_interval(2000.0) == limits.area_interval(2000.0)
    few = DetectionLimits(*(column[:20] for column in columns))
    assert few.area_interval(2000.0) is None


def test_nineteen_in_twenty_areas_are_in_their_interval() -> None:
    limits, others = made(found_from=10.0, n=1000), made(found_from=10.0, n=500, seed=1)
    covered = []
    for area, region in zip(others.areas, others.region_areas, strict=True):
        if region:
            low, high = limits.area_interval(region)
            covered.append(low <= area <= high)
    assert np.mean(covered) == pytest.approx(0.9, abs=0.05)  # of 20, 5 % of each end are outside


def test_larger_and_clearer_defects_are_not_found_less() -> None:
    areas = np.geomspace(16, 1000, 40).astype(np.float32)
    found = np.where(areas < 100, areas, 0)
    own = areas[::-1] / 2000, found, np.full(40, True)
    limits = DetectionLimits(np.repeat("stains", 40), areas, *own)
    assert limits.share("stains", 1000, 0.2) >= limits.share("stains", 16, 0.2)
    assert limits.share("stains", 100, 0.5) >= limits.share("stains", 100, 0.01)


def test_the_state_of_limits_is_checked() -> None:
    limits = made(found_from=40.0)
    header, arrays = limits.to_state()
    again = DetectionLimits.from_state(header, arrays)
    assert again.kinds.tolist() == limits.kinds.tolist()
    assert again.area("dark spots") == limits.area("dark spots")
    assert math.isnan(again.pixel_size)
    assert len(DetectionLimits.from_state(*DetectionLimits.none().to_state())) == 0
    for damaged in (
        (header, arrays | {"areas": arrays["areas"][:3]}),
        (header, arrays | {"kinds": arrays["kinds"] + 9}),
        (header, arrays | {"contrasts": arrays["contrasts"] + 1}),
        (header, arrays | {"region_areas": arrays["region_areas"] + np.float32(1e18)}),
        ({"pixel_size": -1.0}, arrays),
        ({"pixel_size": 1e300}, arrays),
        ({"pixel_size": "2"}, arrays),
    ):
        with pytest.raises(ValueError, match=r"defects|kinds|contrasts|areas"):
            DetectionLimits.from_state(*damaged)
    tiny = arrays | {"region_areas": np.full(len(limits), 1e-30, np.float32)}
    low, high = DetectionLimits.from_state(header, tiny).area_interval(50.0)  # no error
    assert 0 <= low <= high


def test_only_defects_that_can_be_seen_are_looked_for() -> None:
    image, looked = prepared(np.zeros((64, 80))), []

    def find(position: int, planted: PreparedImage) -> tuple[Finding, bool]:
        grey = grey_image(planted.tensor, PREPROCESSING)
        looked.append(float(grey.max()))
        return Finding.of(10 * grey, 5.0), grey.max() >= 0.7

    limits = measure_limits([7], lambda _: image, PREPROCESSING, find, 16, seed=0)
    assert len(limits) == len(looked) < 16
    assert min(looked) > 0.002
    assert "dark spots" not in limits.kinds
    np.testing.assert_array_equal(limits.region_areas > 0, np.array(looked) >= 0.5)
    np.testing.assert_array_equal(limits.is_found, np.array(looked) >= 0.7)
    assert limits.pixel_size == 2.0


def test_each_kind_is_put_on_all_images() -> None:
    image, used = prepared(np.full((40, 50), 0.5)), []

    def read(position: int) -> PreparedImage:
        used.append(position)
        return image

    def find(position: int, planted: PreparedImage) -> tuple[Finding, bool]:
        return Finding.of(np.zeros((40, 50), np.float32), 1.0), False

    limits = measure_limits(range(8), read, PREPROCESSING, find, 96, seed=0)
    pairs = set(zip(limits.kinds.tolist(), used, strict=True))
    assert pairs == {(kind, position) for kind in KINDS for position in range(8)}


def test_areas_are_those_after_resampling() -> None:
    """The image, of 2 nm per pixel, has been brought to 4 nm."""
    image = prepared(np.full((64, 80), 0.5), stored=(128, 160))

    def find(position: int, planted: PreparedImage) -> tuple[Finding, bool]:
        scores = 100 * np.abs(grey_image(planted.tensor, PREPROCESSING) - 0.5)
        scores[:8, :8] = 5  # a false region, which is not the defect's
        return Finding.of(scores, 0.1), True

    limits = measure_limits([3], lambda _: image, PREPROCESSING, find, 80, seed=0, pixel_size=4.0)
    assert limits.pixel_size == 4.0
    assert limits.areas.min() < 20  # 16 px2 are the smallest
    assert 0 < limits.region_areas.min() < 64
    found = Finding.of(np.full((20, 30), 2, np.float32), 1.0)
    (own,), (stored,) = limits.sized(found).regions, limits.sized(found, scale=0.25).regions
    low, high = limits.area_interval(150.0)
    assert stored.area_interval == (4 * low, 4 * high)
    assert own.area_interval == limits.area_interval(600.0)


def test_a_scorer_measures_its_limits(fitted: PatchDefectScorer) -> None:
    limits = fitted.limits_
    assert 24 <= len(limits) <= 32
    assert limits.is_found.any()
    # Clear large spots are found, faint small ones are not.
    assert limits.share("dark spots", 200, 0.5) > 0.5 > limits.share("dark spots", 16, 0.03)
    few = PatchDefectScorer(fitted.encoder, patch=12, n_codewords=4, fpr=0.3, random_state=0)
    assert len(few.fit([surface(seed) for seed in range(6)]).limits_) == 0
    with pytest.warns(UserWarning, match="cannot be held out"):
        few.fit([surface(seed) for seed in range(10)], groups=["one sample"] * 10)
    assert len(few.limits_) == 0
