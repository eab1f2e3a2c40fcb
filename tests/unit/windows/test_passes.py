"""How often the two fits read an image, and how often it passes through the network."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support.counting import CountingImage, count_passes
from support.surfaces import PATCH, blotted, surface

from hypervlad import AlignmentClassifier, BoostedSoftmaxClassifier, PatchDefectScorer
from hypervlad.features import Preprocessing, register_backbone
from hypervlad.features.backbones import Reach, TappedNetwork, reach_of
from hypervlad.features.windows.vectors import window_encoder
from hypervlad.models import default_alignment_encoder

N_IMAGES = 6
SMALL: dict[str, Any] = {
    "backbone": "tiny",
    "weights": "random",
    "taps": ["1", "4"],
    "n_codewords": 4,
}
LEARNER = BoostedSoftmaxClassifier(n_estimators=2, Cs=1.0)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    return count_passes(monkeypatch)


@pytest.mark.parametrize(
    ("is_labelled", "is_sampled"), [(False, False), (False, True), (True, False)]
)
def test_fitting_the_defect_scorer(
    monkeypatch: pytest.MonkeyPatch,
    passes: list[int],
    is_labelled: bool,
    is_sampled: bool,
) -> None:
    if is_sampled:  # images outside the sample do not pass for the codebook
        monkeypatch.setattr("hypervlad.features.encoder.codebook_fit.MAX_SAMPLED_IMAGES", 3)
    pairs = [blotted(seed, (20, 30)) for seed in range(N_IMAGES)]
    images = [
        CountingImage(image if is_labelled else surface(i)) for i, (image, _) in enumerate(pairs)
    ]
    masks = [CountingImage(mask) for _, mask in pairs]
    scorer = PatchDefectScorer(
        window_encoder(**SMALL), patch=PATCH, n_codewords=4, boosting=LEARNER, random_state=0
    )
    scorer.fit(images, masks=masks if is_labelled else None)
    assert [image.n_reads for image in images] == [2] * N_IMAGES
    assert [mask.n_reads for mask in masks] == [int(is_labelled)] * N_IMAGES
    # The maps that the codebook was learnt from are used again; one more pass for each size that
    # the image is reduced to.
    assert sum(passes) == (2 if is_labelled else 3) * N_IMAGES


def stripes() -> list[NDArray[np.floating]]:
    """Images with stripes in one direction, and in two."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:64, :64]
    lines = [np.sin(0.9 * x + i) + 0.05 * rng.standard_normal(x.shape) for i in range(N_IMAGES)]
    return [each if i % 2 else each + np.sin(0.9 * y) for i, each in enumerate(lines)]


def test_fitting_the_alignment_classifier(passes: list[int]) -> None:
    images = [CountingImage(image) for image in stripes()]
    model = AlignmentClassifier(
        default_alignment_encoder(**SMALL), window=16, boosting=LEARNER, random_state=0
    )
    model.fit(images, [bool(i % 2) for i in range(N_IMAGES)])
    assert [image.n_reads for image in images] == [2] * N_IMAGES
    assert sum(passes) == 4 * N_IMAGES  # one in each turn


def test_the_receptive_field_is_measured_once_if_images_are_cut_into_tiles(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured: list[int] = []

    def counted(network: TappedNetwork, n_channels: int) -> Reach | None:
        measured.append(n_channels)
        return reach_of(network, n_channels)

    monkeypatch.setattr("hypervlad.features.backbones.tapped_network.reach_of", counted)
    images = [np.tile(image, (1, 2)) for image in stripes()]
    model = AlignmentClassifier(
        default_alignment_encoder(**SMALL),
        window=16,
        boosting=LEARNER,
        tile_size=64,
        random_state=0,
    )
    model.fit(images, [bool(i % 2) for i in range(N_IMAGES)]).predict(images)
    assert measured == [3]


def test_a_network_of_one_channel() -> None:
    register_backbone(
        "one channel",
        lambda: torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, stride=2, padding=1)),
        ["0"],
        Preprocessing((0.5,), (0.5,), minimum_size=4),
    )
    parameters = SMALL | {"backbone": "one channel", "taps": ["0"]}
    scorer = PatchDefectScorer(window_encoder(**parameters), patch=PATCH, random_state=0)
    image = surface(0)
    assert scorer.fit([surface(seed) for seed in range(3)]).score_map(image).shape == image.shape
