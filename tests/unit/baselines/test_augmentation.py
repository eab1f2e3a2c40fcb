"""Random changes of micrographs and patches: their limits, and what must not change."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import affine_transform

from hypervlad.models.baselines import finetuning, patch_cnn
from hypervlad.models.baselines.finetuning import (
    augment_micrographs,
    change_greys_randomly,
    crop_randomly,
    turn_randomly,
)
from hypervlad.models.baselines.patch_cnn import augment_patches


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(n: int, side: int = 9, n_channels: int = 1, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, n_channels, side, side, generator=generator(seed))


# --- whole micrographs -------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(1, 5),
    side=st.integers(2, 12),
    n_channels=st.sampled_from([1, 3]),
    seed=st.integers(0, 2**31 - 1),
)
def test_shape_and_range_stay_and_the_seed_decides(
    n: int, side: int, n_channels: int, seed: int
) -> None:
    batch = images(n, side, n_channels)
    before = batch.clone()
    found = augment_micrographs(batch, generator(seed))
    assert found.shape == batch.shape
    assert found.dtype == torch.float32
    assert torch.isfinite(found).all()
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1
    assert torch.equal(batch, before)
    assert torch.equal(found, augment_micrographs(batch, generator(seed)))


def test_mirrors_and_right_angles_are_exact_and_come_equally_often() -> None:
    """Each image is, to the bit, one of those that numpy makes of it."""
    batch = images(1, 4, 3).expand(2000, -1, -1, -1).contiguous()
    found = turn_randomly(batch, generator()).numpy()
    image = batch[0].numpy()
    allowed = [np.rot90(each, k, (1, 2)) for each in (image, image[..., ::-1]) for k in range(4)]
    counts = [int((found == each).all(axis=(1, 2, 3)).sum()) for each in allowed]
    assert sum(counts) == 2000
    assert (np.abs(np.array(counts) - 250) < 5 * np.sqrt(250)).all()


def test_rotations_and_crops_against_scipy() -> None:
    """Inside, where no edge is seen: scipy's own affine transform of the same maps."""
    batch = images(20, 15)
    found = crop_randomly(batch, generator(3))[:, 0].numpy()
    maps = finetuning.random_affine_maps(20, generator(3)).double().numpy()
    centre = np.array([7.0, 7.0])
    for image, new, (of_x, of_y) in zip(batch[:, 0].numpy(), found, maps, strict=True):
        by_rows = np.array([[of_y[1], of_y[0]], [of_x[1], of_x[0]]])
        shift = np.array([of_y[2], of_x[2]]) * 7.5  # -1 to 1 are the outer edges of 15 pixels
        offset = centre - by_rows @ centre + shift
        expected = affine_transform(image, by_rows, offset, order=1, mode="reflect")
        corners = np.stack(np.meshgrid(np.arange(15), np.arange(15), indexing="ij"), axis=-1)
        where = corners @ by_rows.T + offset
        inside = ((where >= 0) & (where <= 14)).all(axis=-1)
        assert inside.mean() > 0.5
        np.testing.assert_allclose(new[inside], expected[inside], atol=1e-5)


def test_rotations_and_crops_stay_within_their_limits() -> None:
    maps = finetuning.random_affine_maps(4000, generator()).double()
    side = torch.hypot(maps[:, 0, 0], maps[:, 1, 0])
    angle = torch.rad2deg(torch.atan2(maps[:, 1, 0], maps[:, 0, 0]))
    assert 0.7 <= float(side.square().min()) < 0.71
    assert 0.99 < float(side.max()) <= 1
    assert 9.9 < float(angle.abs().max()) <= 10 + 1e-4
    for axis in (0, 1):  # but for the rotation, a crop lies within the image
        reach = maps[:, axis, 2].abs() + side
        assert 0.99 < float(reach.max()) <= 1 + 1e-6


def test_brightness_and_contrast_against_the_formula() -> None:
    batch = 0.4 + 0.2 * images(200)
    found = change_greys_randomly(batch, generator())
    mean = batch.mean(dim=(1, 2, 3), keepdim=True)
    new_mean = found.mean(dim=(1, 2, 3), keepdim=True)
    shifts = (new_mean - mean).abs()
    assert 0.09 < float(shifts.max()) <= 0.1 + 1e-6
    factors = (found - new_mean).flatten(1).std(dim=1) / (batch - mean).flatten(1).std(dim=1)
    assert 0.8 - 1e-4 <= float(factors.min()) < 0.81
    assert 1.19 < float(factors.max()) <= 1.2 + 1e-4
    expected = new_mean + factors[:, None, None, None] * (batch - mean)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


# --- patches -----------------------------------------------------------------------------------


def test_patches_against_scipy() -> None:
    """Rows and columns, from the centre, as Keras's own affine transform has them."""
    patch = np.random.default_rng(0).random((9, 9))
    batch = torch.from_numpy(patch).float()[None, None].repeat(20, 1, 1, 1)
    found = augment_patches(batch, generator(3))
    maps = patch_cnn.random_affine_maps(20, generator(3))
    centre = np.array([4.0, 4.0])
    for image, (of_x, of_y) in zip(found[:, 0].numpy(), maps.double().numpy(), strict=True):
        by_rows = np.array([[of_y[1], of_y[0]], [of_x[1], of_x[0]]])
        offset = centre - by_rows @ centre
        expected = affine_transform(patch, by_rows, offset, order=1, mode="nearest")
        np.testing.assert_allclose(image, expected, atol=1e-5)


def test_shear_and_zoom_stay_within_their_limits() -> None:
    maps = patch_cnn.random_affine_maps(4000, generator()).double()
    down = maps[:, 1, 1]
    angle = torch.atan2(maps[:, 1, 0], maps[:, 0, 0]) % np.pi  # mirrored or not
    angle = torch.minimum(angle, np.pi - angle)
    across = torch.hypot(maps[:, 0, 0], maps[:, 1, 0])
    for factor in (down, across):
        assert 0.8 <= float(factor.min()) < 0.81
        assert 1.19 < float(factor.max()) <= 1.2 + 1e-6
    assert 0.19 < float(torch.rad2deg(angle.max())) <= 0.2 + 1e-6
    assert 0.45 < float((maps[:, 0, 0] < 0).double().mean()) < 0.55
    assert abs(float(np.corrcoef(down, across)[0, 1])) < 0.1
