"""Particles wherever images are: masks in sums and averages, the shape block, the classifier."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.measure import regionprops
from sklearn.base import clone
from support.oracle import enlarged, normalised, residual_sums
from support.tiny import make_tiny_encoder

import hypervlad
from hypervlad import BoostedSoftmaxClassifier, MicrographClassifier
from hypervlad.particles import Particle, cut_particles, find_particles, measure

SHAPE = ("joint", "per_layer", "pooled_unit", "shape")


def field(number):
    """Six particles of a field: striped bars at odd labels, flat discs at even ones."""
    rng = np.random.default_rng(number)
    image, labels = 0.1 * rng.random((60, 90)), np.zeros((60, 90), int)
    y, x = np.mgrid[:60, :90]
    for place in range(6):
        top, left = 30 * (place // 3) + 15, 30 * (place % 3) + 15
        size = rng.uniform(6, 11)
        inside = np.hypot(y - top, x - left) < size
        if place % 2 == 0:
            inside = (abs(y - top) < size / 3) & (abs(x - left) < size)
        labels[inside] = place + 1
        image[inside] += 0.5 + 0.3 * np.sin(x[inside]) * (place % 2 == 0)
    return cut_particles(image, labels, pixel_size=2.0)


@pytest.fixture(scope="module")
def particles():
    return [particle for number in range(4) for particle in field(number)]


@pytest.fixture(scope="module")
def kinds(particles):
    return ["bar" if particle.label % 2 else "disc" for particle in particles]


@pytest.fixture(scope="module")
def model(tiny_backbone, particles, kinds):
    encoder = make_tiny_encoder().set_params(blocks=SHAPE)
    learner = BoostedSoftmaxClassifier(n_estimators=0, Cs=1.0)
    return MicrographClassifier(encoder, boosting=learner, random_state=0).fit(particles, kinds)


def tiny_particle(mask, **changes):
    mask = np.asarray(mask, bool)
    pixels = np.random.default_rng(0).random(mask.shape).astype(np.float32)
    given = {
        "image": pixels,
        "mask": mask,
        "box": (0, 0, *mask.shape),
        "label": 1,
        "micrograph": "a.tif",
        "field_shape": mask.shape,
    }
    return Particle(**given | changes)


@pytest.mark.parametrize(
    ("blocks", "grid", "turns"),
    [
        (("joint", "pooled"), "finest", 8),
        (("per_layer", "pooled_unit"), "image", 1),
        (SHAPE, "finest", 1),
        (SHAPE, "image", 8),
    ],
)
def test_vectors_are_sums_over_the_mask_of_explicit_hypercolumns(blocks, grid, turns, particles):
    encoder = make_tiny_encoder().set_params(blocks=blocks, grid=grid, turns=turns, image_size=32)
    encoder.fit(particles)
    ours = encoder.transform(particles[2:3])[0]
    np.testing.assert_allclose(ours, explicit(encoder, particles[2], particles), atol=1e-4)


def explicit(encoder, particle, training):
    """Encode a particle over the positions of its mask, with enlarged maps, in float64."""
    loader, codebook = encoder.loader(), encoder.codebook_
    batch = loader.load_batch(particle)
    joint, totals, means = "joint" in encoder.blocks, [0.0] * len(codebook.codewords), 0.0
    for turn in range(encoder.turns):
        copy = batch.turned(turn)
        mask, own = copy.masks[0].double().numpy(), encoder.network()(copy.tensors)
        raw = [layer[0].permute(1, 2, 0).double().numpy() for layer in own]
        layers = [p.apply(layer) for p, layer in zip(codebook.projections, raw, strict=True)]
        parts = ([layers] if joint else []) + (
            [[layer] for layer in layers] if "per_layer" in encoder.blocks else []
        )
        for number, (part, words) in enumerate(zip(parts, codebook.codewords, strict=True)):
            is_of_layer = joint and number > 0
            size = part[0].shape[:2] if is_of_layer else (16, 16)
            columns = np.concatenate([enlarged(layer, size) for layer in part], axis=2)
            # Where the mask covers at least half of what it covers best.
            cells = mask.reshape(size[0], 16 // size[0], size[1], -1).mean((1, 3))
            chosen = columns[cells >= cells.max() / 2]
            totals[number] = totals[number] + residual_sums(chosen, words.astype(float), None)
        of_layers = []
        for layer, p in zip(raw, codebook.projections, strict=True):
            average = (mask[:, :, None] * enlarged(layer, (16, 16))).sum((0, 1)) / mask.sum()
            of_layers.append((average - p.mean) / p.std)
        means = means + np.concatenate(of_layers)
    found = [normalised(kind) for kind in (totals[:joint], totals[joint:]) if kind]
    means = means / (encoder.turns * np.sqrt(len(means)))
    found.append(means / np.linalg.norm(means) if "pooled_unit" in encoder.blocks else means)
    if "shape" in encoder.blocks:
        known = np.array([loader.load(each, "").info.outline for each in training])
        own = np.array(loader.load(particle, "").info.outline)
        found.append((own - known.mean(0)) / known.std(0) / np.sqrt(7))
    return np.concatenate(found)


@settings(max_examples=15, deadline=None)
@given(mask=arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))), data=st.data())
def test_every_particle_has_finite_features(mask, data):
    mask[data.draw(st.integers(0, len(mask) - 1)), data.draw(st.integers(0, mask.shape[1] - 1))] = 1
    encoder = _fitted(data.draw(st.sampled_from(["finest", "image", 30]), "grid"))
    vector = encoder.transform([tiny_particle(mask)])
    assert np.isfinite(vector).all()
    assert vector[0, :96].any()


_encoders = {}


def _fitted(grid):
    if grid not in _encoders:
        encoder = make_tiny_encoder().set_params(blocks=SHAPE, grid=grid)
        _encoders[grid] = encoder.fit(field(0) + field(1))
    return _encoders[grid]


def test_what_is_outside_the_mask_does_not_matter(particles):
    """The codebook and the vectors depend on pixels of the particle alone."""
    others = [
        replace(each, image=np.where(each.mask, each.image, 1).astype(np.float32))
        for each in particles
    ]
    one, other = (_fitted("finest").transform(each) for each in (particles, others))
    np.testing.assert_array_equal(one, other)


def test_shape_measures_are_those_of_regionprops():
    y, x = np.mgrid[:60, :60]
    mask = ((y - 30 + 0.4 * (x - 25)) / 20) ** 2 + ((x - 25) / 9) ** 2 < 1
    (region,) = regionprops(mask.astype(int))
    table = measure([tiny_particle(mask)]).iloc[0]
    ours = _fitted("finest").loader().load(tiny_particle(mask), "particle").info.outline
    expected = [
        np.log(region.equivalent_diameter_area),
        region.axis_minor_length / region.axis_major_length,
        4 * np.pi * region.area / region.perimeter_crofton**2,
        region.solidity,
        region.extent,
        region.eccentricity,
        table["feret_min_px"] / table["feret_max_px"],
    ]
    assert ours == pytest.approx(expected, abs=2e-2)


def of_whole_images():
    return make_tiny_encoder().fit(list(np.random.default_rng(0).random((9, 20, 20))))


def mixed(particles):
    return MicrographClassifier(make_tiny_encoder()).fit([*particles[:3], np.eye(9)], [0, 1, 0, 1])


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda _: _fitted("finest").transform([np.eye(9)]), "image 0 .*a whole image.*particles"),
        (lambda own: of_whole_images().transform(own[:1]), "particle.*a particle.*of whole images"),
        (lambda _: clone(_fitted("finest")).fit([np.eye(9)] * 5), "blocks contain 'shape'.*whole"),
        (mixed, "3 of 4 images are particles.*such as image 3"),
    ],
)
def test_particles_and_whole_images_are_not_mixed(particles, act, words):
    with pytest.raises(ValueError, match=words):
        act(particles)


def particle_grid(particle):
    sides = (np.arange(side) - side / 2 for side in particle.mask.shape)
    return np.meshgrid(*sides, indexing="ij")


@pytest.mark.parametrize("annotations", ["leave_out", "keep"])
def test_particles_are_found_in_a_particle(annotations):
    rows, columns = np.mgrid[:90, :90]
    image = np.float32(0.2 + 0.5 * (np.hypot(rows - 45, columns - 45) < 25))
    (particle,) = cut_particles(image, image > 0.5)
    darker = replace(
        particle, image=particle.image - 0.4 * (np.hypot(*particle_grid(particle)) < 8)
    )
    assert len(find_particles(darker, annotations=annotations)) == 1


def test_particles_of_a_micrograph_are_a_group(model, particles, kinds):
    assert len(np.unique(model.training_.groups)) == 4
    assert model.training_.names == [particle.name for particle in particles]
    own = MicrographClassifier(make_tiny_encoder(), boosting=model.boosting, random_state=0)
    named = own.fit(particles, kinds, groups=[particle.micrograph[:9] for particle in particles])
    assert len(np.unique(named.training_.groups)) == len({p.micrograph[:9] for p in particles})


def test_all_answers_accept_particles(model, tmp_path):
    new = field(9)
    expected = ["bar" if particle.label % 2 else "disc" for particle in new]
    assert model.predict(new).tolist() == expected
    assert model.predict_set(new, 0.5).shape == (6, 2)
    found = model.classify(new, coverage=0.5, max_error=0.5)
    assert np.isfinite(found.novelty).all()
    assert not found.in_training.any()
    assert not found.images.blank  # discs have no texture, but they are there
    model.save(tmp_path / "p.hvlad")
    loaded = hypervlad.load(tmp_path / "p.hvlad")
    np.testing.assert_array_equal(loaded.predict_proba(new), model.predict_proba(new))


def test_the_evidence_lies_in_the_particle_and_adds_up(model, particles, kinds):
    encoder = make_tiny_encoder().set_params(blocks=SHAPE, turns=2, image_size=64)
    own = MicrographClassifier(encoder, boosting=model.boosting, random_state=0)
    own.fit(particles, kinds)
    found = own.explain(particles[0])
    total = found.baseline + found.maps.sum(axis=(1, 2), dtype=float) + found.trees
    np.testing.assert_allclose(total, found.margins, atol=1e-5)
    margin = own.decision_function(particles[:1])[0]
    np.testing.assert_allclose(found.margins, [-margin / 2, margin / 2], atol=1e-4)
    assert set(found.blocks) >= {"joint", "shape"}
    outside = own.encoder_.loader().load_batch(particles[0]).masks
    assert outside is not None
    assert not found.blocks["joint"][:, outside[0].numpy() == 0].any()
