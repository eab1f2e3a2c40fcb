"""Networks of timm in all that hypervlad does: small ones, and in `make test-networks` large ones.

All weights are random: what is tested is that nothing depends on the kind of network.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from support.oracle import check_against_oracle
from support.timm_maps import LARGE, SMALL, difference_from_timm

import hypervlad
from hypervlad import (
    AlignmentClassifier,
    HypercolumnVLAD,
    MicrographClassifier,
    PatchDefectScorer,
    make_nanowire_images,
    make_tem_images,
)
from hypervlad.models import default_alignment_encoder, default_patch_encoder

_NAMES = [*SMALL, *(pytest.param(name, marks=pytest.mark.large_networks) for name in LARGE)]


@pytest.fixture(scope="module", params=_NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    return make_tem_images(16, size=64, random_state=0)[0]


@pytest.fixture(scope="module")
def classifier(name: str, images: list[np.ndarray]) -> MicrographClassifier:
    _, labels = make_tem_images(16, size=64, random_state=0)
    encoder = HypercolumnVLAD(
        f"timm/{name}",
        weights="random",
        image_size=64,
        n_codewords=4,
        blocks=("joint", "pooled"),
        random_state=0,
    )
    return MicrographClassifier(encoder, calibration_size=0, random_state=0).fit(images, labels)


@pytest.mark.parametrize("size", [(224, 448), (150, 201)])
def test_maps_are_those_of_timm(name: str, size: tuple[int, int]) -> None:
    assert difference_from_timm(name, *size) < 1e-5


def test_dense_vectors_agree_with_the_oracle(name: str) -> None:
    images, _ = make_tem_images(4, size=(90, 130), random_state=0)
    check_against_oracle(images, f"timm/{name}", "joint", weights="random", n_codewords=16)


def test_images_have_different_vectors_and_are_explained(
    classifier: MicrographClassifier, images: list[np.ndarray]
) -> None:
    vectors = classifier.encoder_.transform(images[:3])
    assert np.isfinite(vectors).all()
    assert np.ptp(vectors, axis=0).max() > 0.01
    assert np.isfinite(classifier.explain(images[0]).maps).all()


def test_a_saved_model_gives_identical_answers(
    classifier: MicrographClassifier, images: list[np.ndarray], tmp_path: Path
) -> None:
    classifier.save(tmp_path / "m.hvlad", include_backbone=True)
    loaded = hypervlad.load(tmp_path / "m.hvlad")
    np.testing.assert_array_equal(loaded.predict_proba(images), classifier.predict_proba(images))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_defects_are_scored_whole_and_in_tiles(name: str, tmp_path: Path) -> None:
    images = [np.random.default_rng(n).random((90, 110), dtype=np.float32) for n in range(5)]
    encoder = default_patch_encoder(backbone=f"timm/{name}", weights="random", n_codewords=4)
    scorer = PatchDefectScorer(encoder, fpr=0.3, n_codewords=8, random_state=0).fit(images)
    whole = scorer.score_map(images[0])
    found = [whole]
    reach = scorer.encoder_.network().reach()
    if reach and reach.margin is None:  # others need larger tiles, which equal the whole
        found.append(clone(scorer).set_params(tile_size=64).fit(images).score_map(images[0]))
    for score_map in found:
        assert score_map.shape == (90, 110)
        assert np.isfinite(score_map).all()
        assert np.ptp(score_map) > 0
    scorer.save(tmp_path / "m.hvlad")
    np.testing.assert_array_equal(hypervlad.load(tmp_path / "m.hvlad").score_map(images[0]), whole)


def test_aligned_fractions_do_not_change_if_the_image_is_turned(name: str, tmp_path: Path) -> None:
    images, truths = make_nanowire_images(4, aligned=0.5, size=128, random_state=0)
    maps = [truth.aligned_map(window=32) for truth in truths]
    encoder = default_alignment_encoder(backbone=f"timm/{name}", weights="random")
    model = AlignmentClassifier(encoder, random_state=0).fit(images, maps)
    fractions = model.predict(images)
    assert ((fractions >= 0) & (fractions <= 1)).all()
    proba = model.aligned_fraction(images[0]).proba
    turned = model.aligned_fraction(np.rot90(images[0])).proba
    np.testing.assert_array_equal(turned, np.rot90(proba))
    model.save(tmp_path / "m.hvlad")
    np.testing.assert_array_equal(hypervlad.load(tmp_path / "m.hvlad").predict(images), fractions)
