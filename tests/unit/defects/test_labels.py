"""Labels of windows from masks, and of whole patches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.surfaces import PATCH, blotted

from hypervlad.defects.labels import DefectLabels
from hypervlad.encoder import ImageInfo
from hypervlad.images import ImageReadError
from hypervlad.windows import ANOMALOUS, NORMAL, WindowGrid
from hypervlad.windows.dataset import UNKNOWN, PreparedImage


def prepared(shape: tuple[int, int], size: tuple[int, int] | None = None) -> PreparedImage:
    """An image, perhaps resampled."""
    info = ImageInfo("0" * 64, shape, None)
    return PreparedImage(info, info.digest, "image", torch.zeros(3, *(size or shape)))


def test_windows_are_labelled_by_their_masks() -> None:
    mask = np.zeros((20, 20), dtype=bool)
    mask[:4, :5] = True
    truth = DefectLabels.check(2, None, [mask, None], min_fraction=0.1)
    windows = WindowGrid.cover((20, 20), side=10, stride=10)
    labels = truth.of_windows(0, prepared((20, 20)), windows)
    assert labels.tolist() == [ANOMALOUS, NORMAL, NORMAL, NORMAL]
    strict = DefectLabels.check(1, None, [mask], min_fraction=0.3)
    assert strict.of_windows(0, prepared((20, 20)), windows)[0] == UNKNOWN
    assert set(truth.of_windows(1, prepared((20, 20)), windows)) == {NORMAL}
    half = WindowGrid.cover((10, 10), side=5, stride=5)  # the image was brought to half its size
    assert truth.of_windows(0, prepared((20, 20), (10, 10)), half).tolist() == labels.tolist()


@pytest.mark.parametrize(
    ("y", "masks", "message"),
    [
        (["normal"], [None], "not both"),
        (["anomalous"], None, "expected 'normal' and at least one other"),
        (["normal"], None, "expected 'normal' and at least one other"),
        (None, "masks/", "got one path"),
        (None, [None, None], "2 masks for 1 image"),
    ],
)
def test_labels_and_masks_must_fit(y: object, masks: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DefectLabels.check(1, y, masks, 0.1)


def test_y_labels_patches_only() -> None:
    truth = DefectLabels.check(2, ["normal", "scratch"], None, 0.1)
    one = WindowGrid.cover((20, 20), side=20, stride=20)
    assert truth.of_windows(1, prepared((20, 20)), one).tolist() == ["scratch"]
    with pytest.raises(ImageReadError, match=r"20 x 30 pixels, where y labels patches of 10 x 10"):
        truth.of_windows(0, prepared((20, 30)), WindowGrid.cover((20, 30), 10, 10))


def test_masks_of_whole_frames_lose_their_banner() -> None:
    image, mask = blotted(0, (20, 20))
    truth = DefectLabels.check(1, None, [np.pad(mask, [(0, 7), (0, 0)])], 0.1, banner_rows=None)
    windows = WindowGrid.cover(image.shape, PATCH, PATCH)
    own = prepared((image.shape[0], image.shape[1]))
    cut = truth.of_windows(0, own, windows)
    whole = DefectLabels.check(1, None, [mask], 0.1).of_windows(0, own, windows)
    assert cut.tolist() == whole.tolist()
    with pytest.raises(ImageReadError, match="a mask of 55 x 60 pixels for an image of 48 x 60"):
        replace(truth, banner_rows=0).of_windows(0, own, windows)
