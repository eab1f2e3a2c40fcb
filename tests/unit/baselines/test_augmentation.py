"""Random changes of micrographs and patches: their limits, and what must not change."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import affine_transform

from hypervlad.baselines.augmentation import MicrographAugmentation, PatchAugmentation

# --- whole micrographs -------------------------------------------------------------------------

NONE = {
    "flips": False,
    "right_angles": False,
    "rotation": 0.0,
    "crop": 1.0,
    "brightness": 0.0,
    "contrast": 0.0,
}


def augmentation(**parameters: object) -> MicrographAugmentation:
    return MicrographAugmentation(**(NONE | parameters))  # type: ignore[arg-type]


def images(n: int, side: int = 9, n_channels: int = 1, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, n_channels, side, side, generator=generator(seed))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 5),
    side=st.integers(2, 12),
    n_channels=st.sampled_from([1, 3]),
    flips=st.booleans(),
    right_angles=st.booleans(),
    rotation=st.floats(0, 180),
    crop=st.floats(0.05, 1),
    brightness=st.floats(0, 1),
    contrast=st.floats(0, 1),
    seed=st.integers(0, 2**31 - 1),
)
def test_shape_and_range_stay_and_the_seed_decides(
    n: int, side: int, n_channels: int, seed: int, **parameters: object
) -> None:
    change = MicrographAugmentation(**parameters)  # type: ignore[arg-type]
    batch = images(n, side, n_channels)
    before = batch.clone()
    found = change(batch, generator(seed))
    assert found.shape == batch.shape
    assert found.dtype == torch.float32
    assert torch.isfinite(found).all()
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1
    assert torch.equal(batch, before)
    assert torch.equal(found, change(batch, generator(seed)))


@settings(max_examples=30, deadline=None)
@given(
    side=st.integers(1, 9),
    flips=st.booleans(),
    right_angles=st.booleans(),
    seed=st.integers(0, 2**31 - 1),
)
def test_mirrors_and_right_angles_are_exact(
    side: int, flips: bool, right_angles: bool, seed: int
) -> None:
    """Each image is, to the bit, one of those that numpy makes of it."""
    batch = images(6, side, 3)
    found = augmentation(flips=flips, right_angles=right_angles)(batch, generator(seed))
    for old, new in zip(batch.numpy(), found.numpy(), strict=True):
        mirrored = [old, old[..., ::-1], old[:, ::-1], old[:, ::-1, ::-1]] if flips else [old]
        quarters = range(4) if right_angles else range(1)
        allowed = [np.rot90(each, k, (1, 2)) for each in mirrored for k in quarters]
        assert any(np.array_equal(new, each) for each in allowed)


@pytest.mark.parametrize(
    ("parameters", "n_kinds"),
    [({"flips": True}, 4), ({"right_angles": True}, 4), ({"flips": True, "right_angles": True}, 8)],
)
def test_all_of_them_come_equally_often(parameters: dict[str, bool], n_kinds: int) -> None:
    turns = augmentation(**parameters).turns(8000, generator()).tolist()
    counts = np.array([turns.count(turn) for turn in set(turns)])
    assert len(counts) == n_kinds
    assert (np.abs(counts - 8000 / n_kinds) < 5 * np.sqrt(8000 / n_kinds)).all()


def test_rotations_and_crops_against_scipy() -> None:
    """Inside, where no edge is seen: scipy's own affine transform of the same maps."""
    batch = images(20, 15)
    change = augmentation(rotation=25.0, crop=0.3)
    found = change(batch, generator(3))[:, 0].numpy()
    maps = change.affine_maps(20, generator(3)).double().numpy()
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
    maps = augmentation(rotation=30.0, crop=0.25).affine_maps(4000, generator()).double()
    side = torch.hypot(maps[:, 0, 0], maps[:, 1, 0])
    angle = torch.rad2deg(torch.atan2(maps[:, 1, 0], maps[:, 0, 0]))
    assert 0.5 <= float(side.min()) < 0.51
    assert 0.99 < float(side.max()) <= 1
    assert 29 < float(angle.abs().max()) <= 30 + 1e-4
    upright = augmentation(crop=0.25).affine_maps(4000, generator()).double()
    for axis in (0, 1):  # a crop lies within the image
        reach = upright[:, axis, 2].abs() + upright[:, axis, axis]
        assert 0.99 < float(reach.max()) <= 1 + 1e-6


def test_brightness_and_contrast_against_the_formula() -> None:
    batch = 0.4 + 0.2 * images(200)
    brighter = augmentation(brightness=0.1)(batch, generator())
    shifts = (brighter - batch).flatten(1)
    torch.testing.assert_close(shifts, shifts[:, :1].expand_as(shifts), atol=1e-6, rtol=0)
    assert 0.09 < float(shifts.abs().max()) <= 0.1 + 1e-6
    harder = augmentation(contrast=0.3)(batch, generator())
    mean = batch.mean(dim=(1, 2, 3), keepdim=True)
    torch.testing.assert_close(harder.mean(dim=(1, 2, 3), keepdim=True), mean)
    factors = (harder - mean).flatten(1).std(dim=1) / (batch - mean).flatten(1).std(dim=1)
    assert 0.7 - 1e-4 <= float(factors.min()) < 0.71
    assert 1.29 < float(factors.max()) <= 1.3 + 1e-4


def test_without_changes_images_stay_as_they_are() -> None:
    batch = images(4)
    assert torch.equal(augmentation()(batch, generator()), batch)


# --- patches -----------------------------------------------------------------------------------


def test_patches_against_scipy() -> None:
    """Rows and columns, from the centre, as Keras's own affine transform has them."""
    patch = np.random.default_rng(0).random((9, 9))
    batch = torch.from_numpy(patch).float()[None, None].repeat(20, 1, 1, 1)
    augmentation = PatchAugmentation(shear=30.0, zoom=0.3, horizontal_flip=True)
    found = augmentation(batch, torch.Generator().manual_seed(3))
    maps = augmentation.affine_maps(20, torch.Generator().manual_seed(3))
    centre = np.array([4.0, 4.0])
    for image, (of_x, of_y) in zip(found[:, 0].numpy(), maps.double().numpy(), strict=True):
        by_rows = np.array([[of_y[1], of_y[0]], [of_x[1], of_x[0]]])
        offset = centre - by_rows @ centre
        expected = affine_transform(patch, by_rows, offset, order=1, mode="nearest")
        np.testing.assert_allclose(image, expected, atol=1e-5)


def test_shear_and_zoom_stay_within_their_limits() -> None:
    maps = PatchAugmentation(2.0, 0.2, True).affine_maps(4000, torch.Generator().manual_seed(0))
    maps = maps.double()
    down = maps[:, 1, 1]
    angle = torch.atan2(maps[:, 1, 0], maps[:, 0, 0]) % np.pi  # mirrored or not
    angle = torch.minimum(angle, np.pi - angle)
    across = torch.hypot(maps[:, 0, 0], maps[:, 1, 0])
    for factor in (down, across):
        assert 0.8 <= float(factor.min()) < 0.81
        assert 1.19 < float(factor.max()) <= 1.2 + 1e-6
    assert 1.9 < float(torch.rad2deg(angle.max())) <= 2.0 + 1e-6
    assert 0.45 < float((maps[:, 0, 0] < 0).double().mean()) < 0.55
    assert abs(float(np.corrcoef(down, across)[0, 1])) < 0.1


def test_without_changes_patches_stay_the_same() -> None:
    batch = torch.rand(5, 3, 7, 7, generator=torch.Generator().manual_seed(0))
    same = PatchAugmentation(0.0, 0.0, False)(batch, torch.Generator().manual_seed(1))
    torch.testing.assert_close(same, batch, atol=1e-6, rtol=0)
    either = PatchAugmentation(0.0, 0.0, True)(batch, torch.Generator().manual_seed(1))
    mirrored = [
        torch.allclose(new, old.flip(-1), atol=1e-6) for new, old in zip(either, batch, strict=True)
    ]
    kept = [torch.allclose(new, old, atol=1e-6) for new, old in zip(either, batch, strict=True)]
    assert any(mirrored)
    assert any(kept)
    assert all(a != b for a, b in zip(mirrored, kept, strict=True))
