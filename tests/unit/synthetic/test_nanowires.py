"""Synthetic SEM nanowires: reproducible, and true to the requested parameters."""

from __future__ import annotations

import numpy as np
import pytest

from hypervlad.data import make_alignment_examples, make_nanowire_images
from hypervlad.data.synthetic.sem import Strands, Surface
from hypervlad.fibres import axial_difference, axial_statistics


def test_truths_are_what_they_say():
    images, truths = make_nanowire_images(3, size=(70, 101), random_state=0)
    for image, truth in zip(images, truths, strict=True):
        assert truth.orientation.dtype == np.float32
        known = truth.orientation[truth.wires]
        assert ((known >= 0) & (known < np.pi)).all()
        assert truth.domains.dtype == bool
        assert 0.4 <= truth.density <= 0.8
        assert image[truth.wires].mean() > image[~truth.wires].mean()


@pytest.mark.parametrize("aligned", [0.0, 0.4, 1.0])
def test_domains_have_their_share(aligned):
    _, (truth,) = make_nanowire_images(1, aligned=aligned, size=192, random_state=1)
    assert truth.domains.mean() == pytest.approx(aligned, abs=0.02)
    if aligned:
        inside = truth.wires & truth.domains
        assert axial_statistics(truth.orientation[inside]).order > 0.2


@pytest.mark.parametrize("density", [0.2, 0.6])
def test_wires_cover_what_was_requested(density):
    _, (truth,) = make_nanowire_images(1, density=density, overlap=1.0, size=192, random_state=3)
    assert truth.wires.mean() == pytest.approx(density, abs=0.12)


@pytest.mark.slow  # draws large images of wires
def test_wires_side_by_side_do_not_lie_on_each_other():
    options = {"density": 0.9, "width": 8, "size": 160, "random_state": 4}
    shares = [
        make_nanowire_images(1, overlap=overlap, **options)[1][0].wires.mean()
        for overlap in (0.0, 1.0)
    ]
    assert shares[0] < 0.7 < shares[1]


def test_no_wires_do_not_crash():
    (image,), (truth,) = make_nanowire_images(1, density=0.0, size=64, random_state=0)
    assert not truth.wires.any()
    assert np.isfinite(image).all()
    assert np.isnan(truth.aligned_fraction().fraction)


def test_a_tilt_lays_wires_down():
    """Up and down is foreshortened: directions gather about the x axis."""
    means = []
    for tilt in (0.0, 1.2):
        _, truths = make_nanowire_images(
            3, aligned=0.0, tilt=tilt, density=0.5, width=5, size=160, random_state=5
        )
        known = np.concatenate([truth.orientation[truth.wires] for truth in truths])
        means.append(np.mean(np.cos(2 * known)))
    assert means[1] > means[0] + 0.3


@pytest.mark.parametrize(("blur", "snr"), [(0, 8.0), (0.8, 2.0), (2.5, 8.0)])
def test_noise_is_what_was_requested(blur, snr):
    options = {"density": 0.4, "width": 6, "blur": blur, "size": 128, "random_state": 6}
    (clean,), (truth,) = make_nanowire_images(1, snr=np.inf, **options)
    (noisy,), _ = make_nanowire_images(1, snr=snr, **options)
    # Gain and offset differ; the residual of a fit does not.
    gain, offset = np.polyfit(clean.ravel(), noisy.ravel(), 1)
    residual = noisy - (gain * clean + offset)
    contrast = gain * (clean[truth.wires].mean() - clean[~truth.wires].mean())
    assert contrast / residual.std() == pytest.approx(snr, rel=0.05)
    assert ((noisy == 0) | (noisy == 1)).mean() < 0.005


def test_blur_softens():
    sharp, soft = (
        make_nanowire_images(1, blur=blur, snr=np.inf, size=128, random_state=7)[0][0]
        for blur in (0.3, 3.0)
    )
    assert np.abs(np.diff(soft, axis=1)).mean() < 0.6 * np.abs(np.diff(sharp, axis=1)).mean()


@pytest.mark.parametrize("degrees", [0, 30, 90])
def test_a_painted_wire_knows_its_direction(degrees):
    angle = np.deg2rad(degrees)
    steps = np.arange(-15, 15, 0.5)
    chain = np.stack([20 - steps * np.sin(angle), 20 + steps * np.cos(angle)], axis=-1)[None]
    ones = np.ones((1, len(steps)), np.float32)
    surface = Surface((40, 40), np.full((40, 40), 0.1, np.float32), pixel=0.01)
    assert np.isnan(surface.along).all()
    surface.paint_strands(
        Strands(chain.astype(np.float32), 3 * ones, 0.5 * ones, ones[:, 0], ones < 0)
    )
    known = surface.along[np.isfinite(surface.along)]
    assert known.size > 100
    assert axial_difference(known, angle).max() < 1e-3
    inside = np.isfinite(surface.along)
    surface.paint_defect(inside, np.full((40, 40), 2, np.float32), np.ones((40, 40), np.float32))
    assert np.isnan(surface.along).all()


def test_maps_hold_what_the_rule_says_of_the_truth():
    _, truths = make_alignment_examples(2, size=96, random_state=0)
    for truth in truths:
        where, found = truth.aligned_map(window=24), truth.aligned_fraction(window=24)
        assert where.shape == (96, 96)
        assert np.isnan(where).mean() == pytest.approx(found.background.mean())
        assert np.nanmean(where) == pytest.approx(found.fraction)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"aligned": 1.2}, "aligned=1.2: expected a number from 0 to 1"),
        ({"width": 1}, "width=1: expected a number from 2 to 100"),
        ({"snr": (2, np.inf)}, "expected a number from 0.1 to inf"),
        ({"blur": (1, 0)}, "the lower first"),
        ({"tilt": np.nan}, "tilt=nan"),
        ({"overlap": True}, "overlap=True"),
        ({"overlap": (0, 0.5, 1)}, "or a pair of them"),
    ],
)
def test_bad_parameters_are_reported(options, message):
    with pytest.raises(ValueError, match=message):
        make_nanowire_images(**{"n": 1, **options})
