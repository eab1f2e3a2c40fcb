"""Diameters of fibres: exact ones are found, invariances, empty images, invalid input."""

import functools

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, zoom

from hypervlad.data import make_fibre_images
from hypervlad.fibres import fibre_diameters, find_fibres

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*(nothing is measured|edges are blurred|the fibres|of fibres|the lines|grey levels)"
)


@functools.cache
def made(look, diameter=10.0, seed=2, **asked):
    asked = {"cover": 0.25, "contrast_to_noise": 15, "curl": 0.1, "size": (200, 240)} | asked
    (image,), (truth,) = make_fibre_images(
        1, look=look, diameter=diameter, blur=0.9, random_state=seed, spread=0.1, **asked
    )
    return image, truth


@functools.cache
def reference():
    return fibre_diameters(made("flat")[0])


@pytest.mark.parametrize("look", ["flat", "rims", "round", "transmission"])
def test_exact_diameters_are_found(look):
    image, truth = made(look)
    polarity = "dark" if look == "transmission" else "bright"
    found = reference() if look == "flat" else fibre_diameters(image)
    assert (found.polarity, len(found.modes)) == (polarity, 1)
    assert found.blur == pytest.approx(0.95, rel=0.35)
    assert found.interval.low * found.interval.high == pytest.approx(found.median**2)
    on = truth.fibres[tuple(np.rint(found.positions).astype(int).T)]
    assert (on >= 0).mean() > 0.97
    ratio = found.diameters / truth.diameters[on]
    assert np.median(ratio) == pytest.approx(1, abs=0.04)
    assert (np.abs(ratio - 1) < 0.15).mean() > 0.8


def test_places_are_counted_and_refused_with_reasons():
    found = reference()
    assert (found.profile, found.reason) == ("flat", None)
    assert found.refused["no whole fibre"] > 0
    assert found.errors.shape == found.weights.shape == found.directions.shape
    assert min(found.errors.min(), found.weights.min()) > 0
    numbers, counts = np.unique(found.fibres, return_counts=True)
    assert 1 < len(numbers) < len(found.diameters)
    for number, (diameter, weight) in zip(numbers[counts > 1], found.of_fibres, strict=True):
        own = found.fibres == number
        errors = np.maximum(found.errors[own] / found.diameters[own], 0.01)
        shares = found.weights[own] / errors**2
        mean = np.average(np.log(found.diameters[own]), weights=shares)
        assert (np.log(diameter), weight) == pytest.approx((mean, found.weights[own].sum()))


@pytest.mark.parametrize(
    ("move", "options"),
    [
        (np.rot90, {}),
        (lambda image: 1 - image, {}),
        (lambda image: 20 * image.astype(float) - 5, {"polarity": "bright"}),
        (lambda image: np.uint16(np.round(60000 * image)), {"polarity": "bright"}),
    ],
)
def test_diameters_do_not_depend_on_the_view(move, options):
    image = made("flat")[0]
    found = fibre_diameters(move(image), **options)
    assert found.mean == pytest.approx(reference().mean, rel=0.02)  # medians jump
    is_inverted = move(np.zeros(image.shape)).mean() > move(np.ones(image.shape)).mean()
    assert found.polarity == ("dark" if is_inverted else "bright")


@pytest.mark.parametrize("factor", [1.3, 2.0])
def test_an_image_enlarged_by_a_program_is_measured_at_its_own_sampling(factor):
    large = np.uint8(np.rint(255 * zoom(made("flat")[0], factor, grid_mode=True, mode="nearest")))
    with pytest.warns(UserWarning, match=rf"enlarged by a program, .*\({factor:g} times\)"):
        found = fibre_diameters(large, pixel_size=7)
    assert (found.pixel_size, found.enlarged) == (7, pytest.approx(factor, rel=0.01))
    assert found.median == pytest.approx(7 * factor * reference().median, rel=0.02)
    assert found.blur == pytest.approx(factor * reference().blur, rel=0.1)
    far, near = (each.positions.max(axis=0) for each in (found, reference()))
    assert far == pytest.approx(factor * near, rel=0.03)
    with pytest.warns(UserWarning, match="enlarged by a program"):
        nothing = fibre_diameters(zoom(np.random.default_rng(0).random((50, 50)), factor))
    assert (len(nothing.diameters), nothing.enlarged) == (0, pytest.approx(factor, rel=0.02))
    assert reference().enlarged == fibre_diameters(made("flat")[0][:, ::2]).enlarged == 1


def test_an_image_with_more_blur_than_the_network_knows_is_halved():
    image, truth = made("flat", diameter=18.0, size=(320, 360))
    noise = np.random.default_rng(0).normal(0, 0.01, image.shape)
    found = fibre_diameters(gaussian_filter(image, 5) + noise)
    assert found.median == pytest.approx(truth.median, rel=0.1)
    assert (found.enlarged, found.blur) == (1, pytest.approx(5, rel=0.35))
    assert (truth.fibres[tuple(np.rint(found.positions).astype(int).T)] >= 0).mean() > 0.97


@pytest.mark.filterwarnings("ignore:.*as dark or as bright as possible:UserWarning")
def test_intervals_are_wider_where_pixels_are_saturated():
    image, truth = made("round", cover=0.4)
    clear = fibre_diameters(image).interval
    found = fibre_diameters(np.minimum(image, np.quantile(image, 0.75))).interval
    assert found.low < truth.median < found.high
    assert np.log(found.high / found.low) > 1.3 * np.log(clear.high / clear.low)


def parallel(*diameters, levels=(1,)):
    """Fibres 75 pixels apart, of one or more steps of brightness."""
    rows, columns = np.indices((75 * len(diameters) + 165, 300))
    image = 0.01 * np.random.default_rng(0).standard_normal(rows.shape)
    for number, widths in enumerate(diameters):
        across = (rows - 120 - 75 * number) * np.cos(0.1) - (columns - 150) * np.sin(0.1)
        for level, width in zip(levels, np.atleast_2d(widths), strict=True):
            one = np.clip(width[columns % len(width)] / 2 - np.abs(across) + 0.5, 0, 1)
            image += level * gaussian_filter(one, 0.8)
    return image


def test_wide_ribbons_are_no_pairs_of_thin_lines():
    (rows, columns), image = np.mgrid[:500, :600], np.zeros((500, 600))
    for turn, at in ((0.2, 150), (-0.3, 330), (1.3, 0)):
        inwards = 55 - abs((rows - at) * np.cos(turn) - (columns - 300) * np.sin(turn))
        level = 0.5 + 0.3 * np.exp(-np.maximum(inwards, 0) / 1.5)  # bright edges
        image = np.where(inwards > 0, level, image * (1 - 0.3 * (inwards > -8)))
    image = gaussian_filter(image, 0.9) + np.random.default_rng(0).normal(0, 0.05, image.shape)
    interval = fibre_diameters(image).interval
    assert 102 < interval.low < 110 < interval.high < 120


_STEPS = np.linspace(0, 1, 40)
_ROUND = np.sqrt(1 - _STEPS**2)
_ROW = parallel(*3 * [12 * _STEPS[1:, None]], levels=-np.diff(_ROUND))
_PAIRS = _ROW + np.roll(_ROW, 12, axis=0)
_WALL = _ROUND - np.sqrt(np.clip(0.7**2 - _STEPS**2, 0, None))
_ALIGNED = made("rims", seed=5, aligned=1.0, cover=0.5, size=(240, 320))[0]
_TOUCHING = make_fibre_images(
    1, diameter=14, aligned=1.0, cover=0.5, size=(360, 400), random_state=2
)[0][0]
_ROWS = parallel(*4 * [10])[:300]
_RIBBONS = -(_ROWS + _ROWS.T + _ROWS.T[::-1])
_TUBES = np.exp(-parallel(*3 * [26 * _STEPS[1:, None]], levels=-np.diff(_WALL)))
_THICK_WALL = _ROUND - np.sqrt(np.clip(0.55**2 - _STEPS**2, 0, None))
_DARK_FIELD = parallel(*3 * [26 * _STEPS[1:, None]], levels=-np.diff(_THICK_WALL))


@pytest.mark.parametrize(
    ("image", "median", "words"),
    [
        (_TUBES, 26, "walls fade"),
        (_DARK_FIELD, 22, "as tubes in dark field, or solid"),
        (_RIBBONS, 10, "equally thick from edge to edge, as"),
        (-_RIBBONS, 10, "as ribbons in transmission"),
        (gaussian_filter(_RIBBONS, 1), 11, "whether the fibres are round or"),
        (parallel(*3 * [[[34], [18]]], levels=(1, -0.7)), np.nan, "but their walls"),
        (np.rint(8 * made("flat")[0]), 10.5, "grey levels"),
        (parallel(*3 * [[[12], [26]]], levels=(0.7, 0.3)), 26, "a second, fainter edge"),
        (parallel(*3 * [16 + 5 * np.sin(np.arange(300) / 25)]), 16, "differ along the fibres"),
        (_PAIRS, 12, "side by side show in 100%"),
        (0.6 * parallel(20, 20, 20) + 0.4 * np.roll(parallel(6, 6, 6), 7, 0), 20, "edge of the"),
        (parallel(8, 8, 8, 20, 20, 20), 20, "may be of either"),
        (parallel(8, 8, 8, 8, 20, 20), 8, "may be of either"),
        (_ALIGNED, 9.9, "are parallel, some touch: "),
        (_TOUCHING, 15, "contain both. Besides, where the fibres are parallel, some"),
        (made("rims", 6, 3, second=16, cover=0.5, size=(360, 400))[0], 13, "may be of either"),
    ],
)
def test_shells_tubes_ribbons_bundles_and_kinds_are_noted(image, median, words):
    found = fibre_diameters(image)
    assert words in (found.reason or found.note)
    assert found.median == pytest.approx(median, rel=0.1, nan_ok=True)
    if upper := {"as tubes in dark field, or solid": 26, "may be of either": 18}.get(words):
        assert upper < found.interval.high
    assert (reference().note, fibre_diameters(parallel(8, 9, 10)).note) == ("", "")
    of_singles = {"side by side show in 100%": "their outlines hold several"}
    if words in (*of_singles, "but their walls", "grey levels"):
        assert of_singles.get(words, words) in find_fibres(image).note


@pytest.mark.parametrize("diameter", [8, 24])
def test_weights_are_the_length_of_a_fibre_up_to_the_rim(diameter):
    found = fibre_diameters(parallel(diameter))
    assert found.weights.sum() == pytest.approx(300 / np.cos(0.1), rel=0.04)
    assert found.median == pytest.approx(diameter, rel=0.05)
    whole = abs(found.positions[:, 1] - 149.5) < 149.5 - diameter  # not cut off by the rim
    assert found.directions[whole] == pytest.approx(np.pi - 0.1, abs=0.02)
    assert found.directions == pytest.approx(np.pi - 0.1, abs=0.1)
    assert found.interval.low < diameter < found.interval.high


def test_the_pixel_size_scales_all_lengths():
    found, own = fibre_diameters(made("flat")[0], pixel_size=2.5), reference()
    assert (found.unit, own.unit) == ("nm", "px")
    for name in ("diameters", "errors", "weights", "mean", "standard_deviation"):
        assert getattr(found, name) == pytest.approx(2.5 * getattr(own, name))
    assert found.percentiles([50])[0] == found.median
    rest = fibre_diameters(made("flat")[0], pixel_size=2.5, leave_out=found.positions[:1])
    assert rest.diameters == pytest.approx(found.diameters[1:])


def test_only_the_masked_part_is_measured_and_has_an_influence():
    image, _ = made("flat")
    mask = np.zeros(image.shape, dtype=bool)
    mask[:, :120] = True
    found = fibre_diameters(image, mask=mask)
    assert found.positions[:, 1].max() < 125
    other = np.where(mask, image, 9 * image[::-1])
    assert fibre_diameters(other, mask=mask).median == pytest.approx(found.median, rel=1e-6)
    assert fibre_diameters(np.where(mask, image, np.nan), mask=mask).median == found.median
    one_row = np.indices(image.shape)[0] == 50
    assert fibre_diameters(image, mask=one_row).reason == "nothing may be measured"


def test_what_lies_outside_the_mask_does_not_hide_fibres():
    image, _ = made("flat")
    blocks = np.random.default_rng(0).integers(0, 2, (5, 40)).astype(np.float32)
    wide = np.hstack([image, np.kron(blocks, np.ones((40, 40), np.float32))])
    mask = np.zeros(wide.shape, dtype=bool)
    mask[:, :240] = True
    y, x = np.indices(image.shape)
    for pixels, own, tolerance, share in (
        (wide, mask, 0.12, 0.7),
        (image, y > 0.8 * x, 0.15, 0.4),
        (image, (y < 100) == (x < 120), 0.15, 0.4),
    ):
        found = fibre_diameters(pixels, mask=own, polarity="bright")
        assert found.median == pytest.approx(reference().median, rel=tolerance)
        assert len(found.diameters) > share * len(reference().diameters)


@pytest.mark.filterwarnings("ignore:.* left out of 1 image")
def test_a_scale_bar_is_not_a_fibre_and_does_not_dim_the_others():
    image = np.uint8(60 * made("flat")[0] + 20)
    plain = fibre_diameters(image)
    image[180:186, 20:100] = 255
    found = fibre_diameters(image)
    assert not ((found.positions[:, 0] > 170) & (found.positions[:, 1] < 110)).any()
    assert found.mean == pytest.approx(plain.mean, rel=0.03)  # the median jumps between fibres
    wire = np.random.default_rng(0).integers(38, 43, (200, 240), dtype=np.uint8)
    wire[100:106, 60:180] = 220
    assert "besides what looks like a scale bar" in fibre_diameters(wire).reason


@pytest.mark.parametrize("polarity", ["auto", "bright", "dark"])
def test_noise_and_empty_images_have_no_diameters(polarity):
    one_hot_pixel, noise = np.pad([[65535.0]], 40), np.random.default_rng(0).normal(size=(160, 200))
    images = [noise, np.ones((64, 64)), np.zeros((1, 1)), np.eye(5), one_hot_pixel]
    for own in fibre_diameters(images, polarity=polarity):
        assert (len(own.diameters), bool(own.reason)) == (0, True)
        assert np.isnan([own.median, own.mean, own.standard_deviation, own.interval.low]).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pixel_size": -1}, "pixel_size"),
        ({"polarity": "grey"}, "polarity"),
        ({"mask": np.ones((3, 3), dtype=bool)}, "mask"),
        ({"leave_out": [3, 4]}, "leave_out: expected points"),
        ({"leave_out": {"a.tif": [(3, 4)]}}, "leave_out: got a dict of 1"),
        ({"annotations": "hide"}, "annotations"),
        ({"image": np.full((20, 20), np.nan)}, "NaN"),
        ({"image": np.arange(50)[None]}, "image: 1 x 50 pixels"),
    ],
)
def test_invalid_parameters_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        fibre_diameters(**{"image": np.eye(30), **options})
