"""Images larger than a tile: what is put together from tiles, and how often an image passes."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from support.counting import CountingImage, count_passes
from support.surfaces import PATCH, blotted, surface

from hypervlad import BoostedSoftmaxClassifier, ImageReadError, PatchDefectScorer, register_backbone
from hypervlad.features import Preprocessing
from hypervlad.models import default_patch_encoder

pytestmark = pytest.mark.filterwarnings("ignore:of another size")
N_IMAGES = 6
LEARNER = BoostedSoftmaxClassifier(n_estimators=2, Cs=1.0)
SMALL = {"weights": "random", "n_codewords": 4}


def scorer_of(backbone, *layers, **parameters):
    """Return a scorer with a network of one channel, or with a network of this name."""
    if layers:
        grey = Preprocessing((0.5,), (0.5,), minimum_size=4)
        register_backbone(backbone, lambda: torch.nn.Sequential(*layers), ["0"], grey)
    encoder = default_patch_encoder(backbone=backbone, **SMALL)
    return PatchDefectScorer(encoder, patch=PATCH, random_state=0, **parameters)


@pytest.fixture(scope="module")
def small():
    return [surface(seed) for seed in range(3)]


def test_the_map_of_tiles_is_that_of_the_whole(small):
    scorer, large = scorer_of("tiny", tile_size=4096).fit(small), surface(9, (140, 183))
    whole = scorer.score_map(large)
    assert np.ptp(whole) > 0
    tiled = scorer.set_params(tile_size=64).score_map(large)
    np.testing.assert_allclose(tiled, whole, atol=1e-3 * np.ptp(whole))


def test_tiles_are_wider_than_what_a_cell_depends_on(small):
    """A cell depends on 18 pixels to each side; as cells lie anywhere, 20 are left out."""
    wide = torch.nn.Conv2d(1, 4, 5, padding=18, dilation=9)
    scorer = scorer_of("wide", wide, tile_size=64).fit(small)
    assert scorer.score_map(small[0]).shape == small[0].shape
    with pytest.raises(ValueError, match=r"tile_size=64 is too small .* must be at least 80"):
        scorer.score_map(surface(0, (70, 90)))


def test_maps_without_a_regular_grid_are_not_put_together(small):
    scorer = scorer_of("valid", torch.nn.Conv2d(1, 4, 3), tile_size=64).fit(small)
    with pytest.raises(ImageReadError):
        scorer.score_map(surface(0, (70, 90)))


def test_other_tiles_than_in_fit_are_a_warning_where_answers_depend_on_them(small):
    layers = torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.InstanceNorm2d(4)
    grey = Preprocessing((0.5,), (0.5,), minimum_size=4)
    register_backbone("whole", lambda: torch.nn.Sequential(*layers), ["1"], grey)
    scorer, large = scorer_of("whole", tile_size=64).fit(small), surface(0, (70, 90))
    assert np.isfinite(scorer.score_map(large)).all()
    scorer.set_params(tile_size=80)
    scorer.score_map(small[0])
    with pytest.warns(UserWarning, match=r"tile_size=64 and is used with tile_size=80;"):
        scorer.score_map(large)


@pytest.mark.parametrize("is_labelled", [False, True])
def test_fitting_the_defect_scorer(is_labelled, monkeypatch):
    passes = count_passes(monkeypatch)
    pairs = [blotted(seed, (20, 30)) for seed in range(N_IMAGES)]
    images = [
        CountingImage(image if is_labelled else surface(i)) for i, (image, _) in enumerate(pairs)
    ]
    masks = [CountingImage(mask) for _, mask in pairs]
    scorer = scorer_of("tiny").set_params(n_codewords=4, boosting=clone(LEARNER))
    scorer.fit(images, masks=masks if is_labelled else None)
    assert [image.n_reads for image in images] == [3] * N_IMAGES  # once for near copies
    assert [mask.n_reads for mask in masks] == [int(is_labelled)] * N_IMAGES
    # The maps that the codebook was learnt from are used again; one more pass for each size that
    # the image is reduced to.
    assert sum(passes) == (2 if is_labelled else 3) * N_IMAGES
