"""`PatchDefectScorer` with the default network and its real weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from support.surfaces import blotted

from hypervlad import PatchDefectScorer
from hypervlad.data import make_nanofibre_images
from hypervlad.features import cut_patches


@pytest.mark.slow
def test_a_particle_on_a_fibre_mat_is_found_at_its_place(mobilenet_weights: Path) -> None:
    good, _ = make_nanofibre_images(10, defective=0.0, size=(160, 200), random_state=0)
    scorer = PatchDefectScorer(random_state=0).fit(good)
    image = make_nanofibre_images(11, defective=0.0, size=(160, 200), random_state=0)[0][10]
    y, x = np.mgrid[:160, :200]
    inside = np.hypot(y - 60, x - 120) < 18
    image = np.where(inside, 0.85 + 0.02 * np.sin(y), image).astype(np.float32)
    found = scorer.score_map(image)
    row, column = np.unravel_index(found.argmax(), found.shape)
    assert np.hypot(row - 60, column - 120) < 25
    assert roc_auc_score(inside.ravel(), found.ravel()) > 0.9


def test_patches_smaller_than_the_network_needs(
    mobilenet_weights: Path,
) -> None:
    """29 pixels, where the network takes images of 32 at least."""
    pairs = [blotted(seed, (40, 40), radius=10, size=(87, 87)) for seed in range(5)]
    images, masks = [image for image, _ in pairs], [mask for _, mask in pairs]
    large, patches = images[0], cut_patches(images, masks, stride=29)
    scorer = PatchDefectScorer(random_state=0).fit(list(patches.pixels), patches.labels)
    found = scorer.score_map(large)
    assert found[40, 40] > np.median(found)
