"""Labels of windows and patches, and their model, against a slow way to the same scores."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.surfaces import PATCH, blotted

from hypervlad import BoostedSoftmaxClassifier, HypercolumnVLAD
from hypervlad.features import ImageInfo
from hypervlad.features.windows import ANOMALOUS, NORMAL, WindowGrid
from hypervlad.features.windows.dataset import UNKNOWN, PreparedImage
from hypervlad.features.windows.vectors import Tiling, WindowVectors
from hypervlad.images import ImageReadError
from hypervlad.models.defects.labelled_windows import DefectLabels, LabelledWindows


@pytest.mark.parametrize("names", [("normal", "scratch"), ("dent", "normal", "scratch")])
@pytest.mark.parametrize("n_estimators", [0, 5])
def test_labelled_windows_score_the_log_odds_of_not_being_normal(
    names: tuple[str, ...], n_estimators: int
) -> None:
    rng = np.random.default_rng(0)
    labels = np.array(names * 40)
    windows = rng.standard_normal((len(labels), 3)).astype(np.float32)
    windows[:, 0] += np.unique(labels, return_inverse=True)[1]
    learner = BoostedSoftmaxClassifier(
        n_estimators=n_estimators, n_iter_no_change=None, random_state=0
    ).fit(windows, labels)
    assert (learner.booster_ is None) == (n_estimators == 0)
    proba = learner.predict_proba(windows)[:, learner.classes_ == NORMAL][:, 0]
    expected = np.log1p(-proba) - np.log(proba)
    np.testing.assert_allclose(LabelledWindows(learner).scores(windows), expected, atol=1e-4)


@pytest.mark.parametrize("n_estimators", [0, 5])
def test_windows_of_an_image_score_as_their_vectors_do(n_estimators: int) -> None:
    image = np.random.default_rng(0).random((70, 90), dtype=np.float32)
    encoder = HypercolumnVLAD(
        backbone="tiny",
        weights="random",
        taps=["1", "4"],
        image_size=None,
        n_codewords=4,
        blocks=("joint", "pooled"),
        random_state=0,
    ).fit([image])
    own = WindowVectors(encoder, Tiling(4096))
    maps = own.network.padded_maps(encoder.loader().load_batch(image).tensors[0], "image")
    grid = WindowGrid.cover(image.shape, side=15, stride=6)
    vectors = np.concatenate(list(own.vectors(maps, grid)))
    labels = np.where(np.arange(len(vectors)) % 3, NORMAL, "scratch")
    learner = BoostedSoftmaxClassifier(
        Cs=1.0, n_estimators=n_estimators, n_iter_no_change=None, random_state=0
    ).fit(vectors, labels, blocks=list(encoder.feature_blocks.values()))
    assert (learner.booster_ is None) == (n_estimators == 0)
    model = LabelledWindows(learner)
    np.testing.assert_allclose(model.scores_in(own, maps, grid), model.scores(vectors), atol=1e-5)


def prepared(shape: tuple[int, int], size: tuple[int, int] | None = None) -> PreparedImage:
    """An image, perhaps resampled."""
    info = ImageInfo("0" * 64, shape, None)
    return PreparedImage(info, info.digest, "image", torch.zeros(3, *(size or shape)))


def test_windows_are_labelled_by_their_masks() -> None:
    mask = np.zeros((20, 20), dtype=bool)
    mask[:4, :5] = True
    mask[10:12, :4] = True
    truth = DefectLabels.check(2, None, [mask, None], 0)
    windows = WindowGrid.cover((20, 20), side=10, stride=10)
    labels = truth.of_windows(0, prepared((20, 20)), windows)
    assert labels.tolist() == [ANOMALOUS, NORMAL, UNKNOWN, NORMAL]  # the highest share counts
    assert set(truth.of_windows(1, prepared((20, 20)), windows)) == {NORMAL}
    mask[:5, :8] = True  # 0.4: a share of 0.3 is enough
    mask[10:13, 10:] = True
    labels = truth.of_windows(0, prepared((20, 20)), windows)
    assert labels.tolist() == [ANOMALOUS, NORMAL, UNKNOWN, ANOMALOUS]
    half = WindowGrid.cover((10, 10), side=5, stride=5)  # the image was brought to half its size
    assert truth.of_windows(0, prepared((20, 20), (10, 10)), half).tolist() == labels.tolist()


@pytest.mark.parametrize(
    ("y", "masks", "message"),
    [
        (["normal"], [None], "not both"),
        (["anomalous"], None, "expected 'normal' and at least one other"),
        (None, "masks/", "got one path"),
        (None, [None, None], "2 masks for 1 image"),
    ],
)
def test_labels_and_masks_must_fit(y: object, masks: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DefectLabels.check(1, y, masks, 0)


def test_y_labels_patches_only() -> None:
    truth = DefectLabels.check(2, ["normal", "scratch"], None, 0)
    one = WindowGrid.cover((20, 20), side=20, stride=20)
    assert truth.of_windows(1, prepared((20, 20)), one).tolist() == ["scratch"]
    with pytest.raises(ImageReadError, match=r"20 x 30 pixels, where y labels patches of 10 x 10"):
        truth.of_windows(0, prepared((20, 30)), WindowGrid.cover((20, 30), 10, 10))


def test_masks_of_whole_frames_lose_their_banner() -> None:
    image, mask = blotted(0, (20, 20))
    truth = DefectLabels.check(1, None, [np.pad(mask, [(0, 7), (0, 0)])], banner_rows=None)
    windows = WindowGrid.cover(image.shape, PATCH, PATCH)
    own = prepared((image.shape[0], image.shape[1]))
    cut = truth.of_windows(0, own, windows)
    whole = DefectLabels.check(1, None, [mask], 0).of_windows(0, own, windows)
    assert cut.tolist() == whole.tolist()
    with pytest.raises(ImageReadError, match="a mask of 55 x 60 pixels for an image of 48 x 60"):
        replace(truth, banner_rows=0).of_windows(0, own, windows)
