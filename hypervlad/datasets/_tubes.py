"""Projected thickness of nanotubes and nanofibres, and of the catalyst particles in them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

FloatMap = NDArray[np.float32]

# Two samples a pixel, spread bilinearly, keep the ripple of the rendered thickness under 2 %.
_SAMPLES_PER_PIXEL = 2.0
_FEWEST_SAMPLES_ACROSS = 9


@dataclass(frozen=True)
class Walls:
    """What is inside a tube.

    Attributes
    ----------
    inner_ratio : float
        Inner radius over outer radius: 0 is a solid fibre.
    n_shells : int
        Visible groups of graphene layers in the wall (dark lines along the tube); 0 for none.
    septum_spacing : float
        Distance, in outer radii, of the cup-shaped cross walls of a bamboo-like nanofibre; 0 for
        none.
    roughness : float
        Relative variation of the radius along the tube.
    """

    inner_ratio: float
    n_shells: int = 0
    septum_spacing: float = 0.0
    roughness: float = 0.03


def tube_thickness(
    shape: tuple[int, int],
    chains: NDArray[np.float32],
    radius: NDArray[np.floating],
    walls: Walls,
    rng: np.random.Generator,
) -> FloatMap:
    """Project hollow cylinders along curved centre lines onto the image plane.

    Parameters
    ----------
    shape : (int, int)
    chains : array of shape (n_tubes, n_points, 2)
        Centre lines, (row, column) in pixels.
    radius : array of shape (n_tubes,)
        Outer radii, in pixels.
    walls : Walls
    rng : numpy.random.Generator

    Returns
    -------
    array of shape ``shape``, float32
        Path length through wall material in units of the mean outer radius; crossing tubes add up.
    """
    radius = np.asarray(radius, dtype=np.float32)
    tangents = np.gradient(chains, axis=1)
    spacing = np.linalg.norm(tangents, axis=2)
    tangents /= np.maximum(spacing, 1e-6)[..., None]
    n_across = max(
        _FEWEST_SAMPLES_ACROSS, int(np.ceil(2 * float(radius.max()) * _SAMPLES_PER_PIXEL))
    )
    across = np.linspace(-1, 1, 2 * n_across + 1, dtype=np.float32)[1::2]
    local_radius = _radius_along(chains.shape[:2], spacing, radius, walls.roughness, rng)
    chord = _chord(across, local_radius, np.cumsum(spacing, axis=1), radius, walls, rng)
    offset = across * local_radius[..., None]
    rows = chains[..., 0, None] + tangents[..., 1, None] * offset
    cols = chains[..., 1, None] - tangents[..., 0, None] * offset
    # A bend's inner side is sampled denser than its outer side, and holds that much less material a
    # sample.
    turns = np.gradient(tangents, axis=1)
    bend = tangents[..., 1] * turns[..., 0] - tangents[..., 0] * turns[..., 1]
    stretch = np.maximum(0, spacing[..., None] - bend[..., None] * offset)
    area = stretch * (local_radius * (2 / n_across))[..., None] * chord / float(radius.mean())
    return _splat(shape, rows, cols, area)


def particle_thickness(
    shape: tuple[int, int],
    centres: NDArray[np.floating],
    radii: NDArray[np.floating],
    elongation: NDArray[np.floating],
    angles: NDArray[np.floating],
) -> FloatMap:
    """Project ellipsoids (catalyst particles, dirt), in units of each particle's own radius.

    Parameters
    ----------
    shape : (int, int)
    centres : array of shape (n, 2)
    radii, elongation, angles : arrays of shape (n,)
        Short half axis in pixels, ratio of the half axes (>= 1), direction of the long axis in
        radians.
    """
    out = np.zeros(shape, np.float32)
    for (row, col), radius, stretch, angle in zip(centres, radii, elongation, angles, strict=True):
        reach = int(np.ceil(radius * stretch)) + 1
        top, left = max(0, int(row) - reach), max(0, int(col) - reach)
        bottom, right = min(shape[0], int(row) + reach + 2), min(shape[1], int(col) + reach + 2)
        if top >= bottom or left >= right:
            continue
        dr = np.arange(top, bottom, dtype=np.float32)[:, None] - np.float32(row)
        dc = np.arange(left, right, dtype=np.float32)[None, :] - np.float32(col)
        along = (dr * np.sin(angle) + dc * np.cos(angle)) / (radius * stretch)
        beside = (dr * np.cos(angle) - dc * np.sin(angle)) / radius
        out[top:bottom, left:right] += 2 * np.sqrt(np.maximum(0, 1 - along**2 - beside**2))
    return out


def _radius_along(
    shape: tuple[int, int],
    spacing: NDArray[np.float32],
    radius: NDArray[np.float32],
    roughness: float,
    rng: np.random.Generator,
) -> FloatMap:
    """Outer radius at every point: slow random variation, and a round cap at both ends."""
    wobble = rng.standard_normal(shape, dtype=np.float32)
    smooth = max(2.0, 2.5 * float(radius.mean()) / max(float(spacing.mean()), 1e-6))
    wobble = gaussian_filter1d(wobble, smooth, axis=1, mode="nearest")
    wobble /= max(float(wobble.std()), 1e-6)
    from_start = np.cumsum(spacing, axis=1)
    from_end = from_start[:, -1:] - from_start
    to_cap = np.minimum(1.0, np.minimum(from_start, from_end) / radius[:, None])
    cap = np.sqrt(np.maximum(0.0, 1.0 - (1.0 - to_cap) ** 2))
    return (radius[:, None] * np.maximum(0.3, 1 + roughness * wobble) * cap).astype(np.float32)


def _chord(
    across: NDArray[np.float32],
    local_radius: FloatMap,
    arc: NDArray[np.float32],
    radius: NDArray[np.float32],
    walls: Walls,
    rng: np.random.Generator,
) -> FloatMap:
    """Path length through the wall, shape (n_tubes, n_points, n_across), in pixels."""
    inside = np.abs(across) < walls.inner_ratio
    outer = np.sqrt(np.maximum(0, 1 - across**2))
    core = np.sqrt(np.maximum(0, walls.inner_ratio**2 - across**2))
    profile = 2 * (outer - core)
    if walls.n_shells:
        depth = (np.abs(across) - walls.inner_ratio) / (1 - walls.inner_ratio)
        profile = profile * np.where(
            inside, 1, 1 + 0.35 * np.cos(2 * np.pi * walls.n_shells * depth)
        )
    chord = local_radius[..., None] * profile
    if walls.septum_spacing and walls.inner_ratio:
        pitch = walls.septum_spacing * radius[:, None]
        # Compartments of a real bamboo fibre are uneven: let the phase run at a varying speed.
        drift = 0.35 * np.sin(arc / (2.7 * pitch) + rng.uniform(0, 6.28, (len(radius), 1)))
        cup = 0.35 * (1 - (across / walls.inner_ratio) ** 2)
        phase = (arc / pitch + drift)[..., None] + np.where(inside, cup, 0)
        septum = np.exp(-(((phase % 1.0 - 0.5) * walls.septum_spacing / 0.22) ** 2))
        chord = chord + septum * (local_radius[..., None] * core)
    return chord.astype(np.float32)


def _splat(
    shape: tuple[int, int],
    rows: NDArray[np.float32],
    cols: NDArray[np.float32],
    weight: NDArray[np.float32],
) -> FloatMap:
    """Add weights to an image, each spread over its four neighbouring pixels."""
    height, width = shape
    seen = (rows >= 0) & (rows < height - 1) & (cols >= 0) & (cols < width - 1) & (weight > 0)
    rows, cols, weight = rows[seen], cols[seen], weight[seen]
    top, left = rows.astype(np.int32), cols.astype(np.int32)
    down, right = rows - top, cols - left
    flat = top * width + left
    out = np.zeros(height * width)
    for shift, share in (
        (0, (1 - down) * (1 - right)),
        (1, (1 - down) * right),
        (width, down * (1 - right)),
        (width + 1, down * right),
    ):
        out += np.bincount(flat + shift, weights=weight * share, minlength=height * width)
    return out.reshape(shape).astype(np.float32)
