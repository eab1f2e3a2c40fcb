"""The network that looks at profiles: sums over its weights, and what must not matter."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from hypervlad.fibres.profile_network import (
    LOOKS,
    N_FREQUENCIES,
    N_ROWS,
    N_SAMPLES,
    ProfileNetwork,
    log_spectrum,
)

FACTS = 3
SIZES = {  # outputs and inputs
    "first": (7, N_ROWS * N_SAMPLES + FACTS),
    "second": (5, 7),
    "trust": (1, 5),
    "context": (4, 2 * 5 + N_FREQUENCIES),
    "third": (6, 5 + 4),
    "profile": (5, 6),
    "image": (len(LOOKS) + 1, 4),
}


@pytest.fixture(scope="module")
def network():
    rng, weights = np.random.default_rng(0), {}
    for name, (n_out, n_in) in SIZES.items():
        weights[f"{name}.weight"] = (
            rng.standard_normal((n_out, n_in)).astype(np.float32) / n_in**0.5
        )
        weights[f"{name}.bias"] = rng.standard_normal(n_out).astype(np.float32) / 3
    return ProfileNetwork(weights)


def seen(n=9):
    rng = np.random.default_rng(1)
    profiles = rng.standard_normal((n, N_ROWS, N_SAMPLES)).astype(np.float32)
    facts = rng.standard_normal((n, FACTS)).astype(np.float32)
    return profiles, facts, rng.standard_normal(N_FREQUENCIES).astype(np.float32)


def slow(network, profiles, facts, spectrum):
    """Return the outputs of the layers "profile" and "image", neuron by neuron."""

    def layer(name, values):
        rows = zip(network.weights[f"{name}.weight"], network.weights[f"{name}.bias"], strict=True)
        return [sum(w * v for w, v in zip(row, values, strict=True)) + bias for row, bias in rows]

    def positive(values):
        return [max(value, 0) for value in values]

    hidden, trust = [], []
    for profile, own in zip(profiles.astype(float), facts, strict=True):
        flat = profile.ravel()
        standard = (flat - flat.mean()) / (flat.std() + 1e-4)
        hidden.append(positive(layer("second", positive(layer("first", [*standard, *own])))))
        trust.append(1 / (1 + np.exp(-layer("trust", hidden[-1])[0])))
    columns = range(SIZES["second"][0])
    mean = [sum(each[k] for each in hidden) / len(hidden) for k in columns]
    trusted = [
        sum(t * each[k] for t, each in zip(trust, hidden, strict=True)) / (sum(trust) + 1)
        for k in columns
    ]
    context = positive(layer("context", [*mean, *trusted, *(0.2 * spectrum)]))
    each = [layer("profile", positive(layer("third", [*own, *context]))) for own in hidden]
    return np.array(each), layer("image", context)


def test_its_answers_are_sums_over_its_weights(network):
    judged = network(*seen())
    (presence, ratio, error, offset, turn), image = (lambda p, i: (p.T, i))(*slow(network, *seen()))
    np.testing.assert_allclose(judged.probability, 1 / (1 + np.exp(-presence)), rtol=1e-4)
    np.testing.assert_allclose(judged.log_ratio, ratio, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(judged.error, np.exp(np.clip(error, -4.5, 1)), rtol=1e-4)
    np.testing.assert_allclose(judged.offset, offset, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(judged.turn, turn, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(judged.looks, image[:-1], rtol=1e-4, atol=1e-5)
    assert judged.blur == pytest.approx(np.exp(image[-1]), rel=1e-4)


def test_gain_offset_and_order_of_profiles_do_not_matter(network):
    profiles, facts, spectrum = seen()
    one = network(profiles, facts, spectrum)
    order = np.random.default_rng(2).permutation(len(facts))
    other = network(700 * profiles[order] + 3, facts[order], spectrum)
    np.testing.assert_allclose(other.log_ratio, one.log_ratio[order], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(other.probability, one.probability[order], rtol=1e-3)


def test_a_profile_is_judged_beside_the_others(network):
    profiles, facts, spectrum = seen()
    alone = network(profiles[:1], facts[:1], spectrum)
    assert abs(alone.log_ratio[0] - network(profiles, facts, spectrum).log_ratio[0]) > 1e-3


def test_many_profiles_are_judged_in_batches(network, monkeypatch):
    whole = network(*seen())
    monkeypatch.setattr("hypervlad.fibres.profile_network._BATCH", 4)
    np.testing.assert_allclose(network(*seen()).log_ratio, whole.log_ratio, rtol=1e-4, atol=1e-6)


def test_the_stored_network_has_the_sizes_that_places_need():
    weights = ProfileNetwork.pretrained().weights
    layers = {f"{name}.{kind}" for name in SIZES for kind in ("weight", "bias")}
    assert set(weights) == layers | {"acceptance", "interval"}
    assert weights["acceptance"].shape == weights["interval"].shape == (7,)
    assert weights["first.weight"].shape[1] == N_ROWS * N_SAMPLES + 5
    assert weights["context.weight"].shape[1] == 2 * len(weights["second.bias"]) + N_FREQUENCIES
    assert all(np.isfinite(each).all() for each in weights.values())


def test_the_spectrum_of_noise_is_flat_and_that_of_a_blurred_image_falls():
    noise = np.random.default_rng(0).standard_normal((200, 260)).astype(np.float32)
    flat = log_spectrum(noise)
    assert flat[12:] == pytest.approx(0, abs=0.25)
    assert log_spectrum(5 * noise + 2) == pytest.approx(flat, abs=1e-3)
    frequencies = np.sqrt((edges := np.geomspace(0.08, np.pi, N_FREQUENCIES + 1))[1:] * edges[:-1])
    blurred = log_spectrum(gaussian_filter(noise, 1.0)) - flat
    expected = -(frequencies**2)
    assert (blurred - blurred[10])[8:20] == pytest.approx((expected - expected[10])[8:20], abs=0.2)


def test_small_images_have_a_spectrum():
    assert np.isfinite(log_spectrum(np.zeros((3, 5), np.float32))).all()
