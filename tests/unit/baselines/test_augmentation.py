"""Random changes of training images: their limits, and what must not change."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import affine_transform
from support.tiny import build_tiny

from hypervlad import register_backbone
from hypervlad.features import Preprocessing
from hypervlad.models import PatchCNNClassifier, TransferClassifier

Array = NDArray[Any]


def check_against_scipy(sampled, half, n=20):
    """Inside, where no edge is seen: scipy's own affine transform of the same maps."""
    side = sampled.before.shape[-1]
    centre = np.full(2, (side - 1) / 2)
    for image, new, (of_x, of_y) in list(zip(*sampled, strict=True))[:n]:
        by_rows = np.array([[of_y[1], of_y[0]], [of_x[1], of_x[0]]])
        offset = centre - by_rows @ centre + half * np.array([of_y[2], of_x[2]])
        expected = affine_transform(image, by_rows, offset, order=1, mode="nearest")
        corners = np.stack(np.meshgrid(np.arange(side), np.arange(side), indexing="ij"), axis=-1)
        where = corners @ by_rows.T + offset
        inside = ((where >= 0) & (where <= side - 1)).all(axis=-1)
        assert inside.mean() > 0.5
        np.testing.assert_allclose(new[inside], expected[inside], atol=1e-4)


class Recorder(torch.nn.Module):
    """A network that remembers the images that it learns from."""

    seen: list[Array] = []  # noqa: RUF012

    def __init__(self):
        super().__init__()
        self.network = build_tiny()

    def forward(self, batch):
        if torch.is_grad_enabled():
            self.seen.append(batch[:, 0].detach().numpy().copy())
        return self.network(batch)


def test_micrographs_are_turned_cropped_and_change_their_greys(sampled):
    plain = Preprocessing(mean=(0.0,) * 3, std=(1.0,) * 3, minimum_size=4)
    register_backbone("learning", Recorder, ["network.1", "network.4"], plain)
    rng = np.random.default_rng(0)
    images = [rng.uniform(0.3, 0.7, (16, 16)).astype(np.float32) for _ in range(40)]
    Recorder.seen.clear()
    TransferClassifier(
        "learning",
        "random",
        mode="finetune",
        image_size=16,
        max_epochs=30,
        patience=30,
        random_state=0,
    ).fit(images, ["a", "b"] * 20)
    found, given = sampled.joined, np.concatenate(Recorder.seen)
    assert len(found.before) == len(given) == 30 * 32

    # Mirror images and right angles are exact, and come equally often.
    counts = np.zeros(8, int)
    versions = np.array(
        [[np.rot90(m, k) for m in (image, image.T) for k in range(4)] for image in images]
    )
    for turned in found.before:
        apart = np.abs(versions - turned).max((2, 3))
        assert apart.min() < 1e-6
        counts[np.unravel_index(apart.argmin(), apart.shape)[1]] += 1
    assert (np.abs(counts - 120) < 5 * np.sqrt(120)).all()

    # A part of at least 70 % of the area is enlarged, turned by at most 10 degrees.
    check_against_scipy(found, half=8)
    side = np.hypot(found.maps[:, 0, 0], found.maps[:, 1, 0])
    angle = np.rad2deg(np.arctan2(found.maps[:, 1, 0], found.maps[:, 0, 0]))
    assert 0.699 <= np.square(side).min() < 0.715
    assert 0.985 < side.max() <= 1.001
    assert 9.8 < np.abs(angle).max() <= 10.01
    for axis in (0, 1):  # but for the rotation, a crop lies within the image
        reach = np.abs(found.maps[:, axis, 2]) + side
        assert 0.98 < reach.max() <= 1.001

    # Brightness changes by at most 0.1, contrast by a fifth.
    mean, new_mean = (each.mean((1, 2)) for each in (found.after, given))
    assert 0.095 < np.abs(new_mean - mean).max() <= 0.1001
    factors = given.std((1, 2)) / found.after.std((1, 2))
    assert 0.799 <= factors.min() < 0.81
    assert 1.19 < factors.max() <= 1.201
    expected = (found.after - mean[:, None, None]) * factors[:, None, None]
    np.testing.assert_allclose(given, expected + new_mean[:, None, None], atol=1e-4)


def test_patches_are_sheared_zoomed_and_every_second_one_mirrored(sampled):
    """As the report's `ImageDataGenerator`: 0.2 degrees, a fifth, and mirrored across."""
    patches = list(np.random.default_rng(0).random((20, 28, 28)).astype(np.float32))
    PatchCNNClassifier(max_epochs=20, random_state=0).fit(patches, ["a", "b"] * 10)
    maps = sampled.joined.maps
    (across, turned), (sheared, down) = maps[:, 0, :2].T, maps[:, 1, :2].T
    mirrored = across < 0
    assert len(maps) > 200
    assert abs(mirrored.sum() - len(maps) / 2) < 2.5 * np.sqrt(len(maps))
    for zoom in (np.abs(across), down):
        assert 0.799 < zoom.min() < 0.82
        assert 1.18 < zoom.max() < 1.201
    assert np.abs([turned, *maps[:, :, 2].T]).max() < 1e-5
    angle = np.rad2deg(np.arctan2(-sheared, across * (1 - 2 * mirrored)))
    assert 0.18 < np.abs(angle).max() < 0.21
    check_against_scipy(sampled.joined, half=13.5)
