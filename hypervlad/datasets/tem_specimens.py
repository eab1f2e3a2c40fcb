"""Parts of a TEM specimen: tubes, catalyst particles, polymer particles, support films."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from hypervlad.datasets.drawing import FloatMap, log_uniform, rows_and_columns, smooth_noise

# Two samples per pixel, spread bilinearly, keep the ripple of the thickness below 2 %.
_SAMPLES_PER_PIXEL = 2.0
_MIN_SAMPLES_ACROSS = 9


@dataclass(frozen=True)
class Walls:
    inner_ratio: float  # inner radius over outer radius
    n_shells: int = 0  # visible groups of graphene layers in the wall
    septum_spacing: float = 0.0  # distance of the cross walls of bamboo, in outer radii; 0 for none
    roughness: float = 0.03  # relative variation of the radius along the tube


def tube_thickness(
    shape: tuple[int, int],
    chains: FloatMap,
    radius: NDArray[np.floating],
    walls: Walls,
    rng: Generator,
) -> FloatMap:
    """Project hollow cylinders along centre lines (n_tubes, n_points, 2) onto the image plane.

    The result is the path length through the walls in units of the mean outer radius.
    """
    radius = np.asarray(radius, dtype=np.float32)
    tangents = np.gradient(chains, axis=1)
    spacing = np.linalg.norm(tangents, axis=2)
    tangents /= np.maximum(spacing, 1e-6)[..., None]
    n_across = max(_MIN_SAMPLES_ACROSS, int(np.ceil(2 * float(radius.max()) * _SAMPLES_PER_PIXEL)))
    across = np.linspace(-1, 1, 2 * n_across + 1, dtype=np.float32)[1::2]
    local_radius = _radius_along(chains.shape[:2], spacing, radius, walls.roughness, rng)
    chord = _chord(across, local_radius, np.cumsum(spacing, axis=1), radius, walls, rng)
    offset = across * local_radius[..., None]
    rows = chains[..., 0, None] + tangents[..., 1, None] * offset
    cols = chains[..., 1, None] - tangents[..., 0, None] * offset
    # The inner side of a bend is sampled more densely than its outer side, so each sample holds
    # less material.
    turns = np.gradient(tangents, axis=1)
    bend = tangents[..., 1] * turns[..., 0] - tangents[..., 0] * turns[..., 1]
    stretch = np.maximum(0, spacing[..., None] - bend[..., None] * offset)
    area = stretch * (local_radius * (2 / n_across))[..., None] * chord / float(radius.mean())
    return splat(shape, rows, cols, area)


def particle_thickness(
    shape: tuple[int, int],
    centres: NDArray[np.floating],
    radii: NDArray[np.floating],
    elongation: NDArray[np.floating],
    angles: NDArray[np.floating],
) -> FloatMap:
    """Project ellipsoids (catalyst particles, dirt), in units of each particle's own radius.

    Radii are short half axes in pixels, angles those of the long axes.
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
    spacing: FloatMap,
    radius: FloatMap,
    roughness: float,
    rng: Generator,
) -> FloatMap:
    wobble = rng.standard_normal(shape, dtype=np.float32)
    smooth = max(2.0, 2.5 * float(radius.mean()) / max(float(spacing.mean()), 1e-6))
    wobble = gaussian_filter1d(wobble, smooth, axis=1, mode="nearest")
    wobble /= max(float(wobble.std()), 1e-6)
    from_start = np.cumsum(spacing, axis=1)
    from_end = from_start[:, -1:] - from_start
    to_cap = np.minimum(1.0, np.minimum(from_start, from_end) / radius[:, None])
    cap = np.sqrt(np.maximum(0.0, 1.0 - (1.0 - to_cap) ** 2))
    found: NDArray[np.floating] = radius[:, None] * np.maximum(0.3, 1 + roughness * wobble) * cap
    return found.astype(np.float32)


def _chord(
    across: FloatMap,
    local_radius: FloatMap,
    arc: FloatMap,
    radius: FloatMap,
    walls: Walls,
    rng: Generator,
) -> FloatMap:
    """Return the path length through the wall, shape (n_tubes, n_points, n_across), in pixels."""
    inside = np.abs(across) < walls.inner_ratio
    outer = np.sqrt(np.maximum(0, 1 - across**2))
    core = np.sqrt(np.maximum(0, walls.inner_ratio**2 - across**2))
    profile = 2 * (outer - core)
    if walls.n_shells:
        depth = (np.abs(across) - walls.inner_ratio) / (1 - walls.inner_ratio)
        profile = profile * np.where(
            inside, 1, 1 + 0.35 * np.cos(2 * np.pi * walls.n_shells * depth)
        )
    chord: NDArray[np.floating] = local_radius[..., None] * profile
    if walls.septum_spacing and walls.inner_ratio:
        pitch = walls.septum_spacing * radius[:, None]
        # The compartments of real bamboo fibres are uneven, so the phase runs at varying speed.
        drift = 0.35 * np.sin(arc / (2.7 * pitch) + rng.uniform(0, 6.28, (len(radius), 1)))
        cup = 0.35 * (1 - (across / walls.inner_ratio) ** 2)
        phase = (arc / pitch + drift)[..., None] + np.where(inside, cup, 0)
        septum = np.exp(-(((phase % 1.0 - 0.5) * walls.septum_spacing / 0.22) ** 2))
        chord = chord + septum * (local_radius[..., None] * core)
    return chord.astype(np.float32)


def splat(
    shape: tuple[int, int],
    rows: FloatMap,
    cols: FloatMap,
    weight: FloatMap,
) -> FloatMap:
    """Add weights over 0 to an empty image, each distributed over its four neighbouring pixels."""
    height, width = shape
    inside = (rows >= 0) & (rows < height - 1) & (cols >= 0) & (cols < width - 1) & (weight > 0)
    rows, cols, weight = rows[inside], cols[inside], weight[inside]
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


def shard(
    rng: Generator, shape: tuple[int, int], centre: tuple[float, float], radius: float
) -> FloatMap:
    """Return the thickness of one broken, faceted polymer particle: 0 outside, at most about 1."""
    rows, cols = _warped_grid(
        rng, shape, centre, amount=radius * rng.uniform(0.03, 0.12), cell=radius * 0.5
    )
    n_faces = int(rng.integers(5, 10))
    angles = np.sort(rng.uniform(0, 2 * np.pi, n_faces)) + rng.uniform(0, 2 * np.pi)
    height = np.full(shape, rng.uniform(0.35, 0.9), np.float32)
    for angle in np.concatenate([angles, np.arange(3) * 2.094 + angles[0]]):
        reach, slope = radius * rng.uniform(0.7, 1.15), np.exp(rng.uniform(0.2, 2.3))
        inward = reach - rows * np.float32(np.sin(angle)) - cols * np.float32(np.cos(angle))
        np.minimum(height, inward * np.float32(slope / radius), out=height)
    np.maximum(height, 0, out=height)
    return _textured(rng, height, radius)


def blobs(
    rng: Generator, shape: tuple[int, int], centre: tuple[float, float], radius: float
) -> FloatMap:
    """Return the thickness of an agglomerate of rounded particles: 0 outside, at most about 1."""
    n_blobs = int(rng.integers(9, 20))
    centres = [np.asarray(centre, float)]
    radii = [radius * rng.uniform(0.2, 0.35)]
    for _ in range(n_blobs - 1):
        parent = int(rng.integers(len(centres)))
        size, angle = radius * rng.uniform(0.12, 0.3), rng.uniform(0, 2 * np.pi)
        reach = 0.8 * (radii[parent] + size)
        point = centres[parent] + reach * np.array([np.sin(angle), np.cos(angle)])
        if np.hypot(*(point - centre)) < 1.1 * radius:
            centres.append(point)
            radii.append(size)
    rows, cols = _warped_grid(rng, shape, (0.0, 0.0), amount=radius * 0.05, cell=radius * 0.25)
    squared = np.zeros(shape, np.float32)
    for point, size in zip(centres, radii, strict=True):
        stretch = rng.uniform(0.8, 1.25)
        away = ((rows - point[0]) * stretch) ** 2 + ((cols - point[1]) / stretch) ** 2
        squared += np.maximum(0, 1 - away / size**2) * (size / radius) ** 2
    return _textured(rng, np.sqrt(squared) * np.float32(1.6), radius)


def _warped_grid(
    rng: Generator, shape: tuple[int, int], centre: tuple[float, float], amount: float, cell: float
) -> tuple[FloatMap, FloatMap]:
    cell = max(cell, 3.0)
    rows, cols = rows_and_columns(shape, centre)
    warp = np.float32(amount)
    return (
        rows + warp * smooth_noise(rng, shape, cell, octaves=3),
        cols + warp * smooth_noise(rng, shape, cell, octaves=3),
    )


def _textured(rng: Generator, height: FloatMap, radius: float) -> FloatMap:
    texture = smooth_noise(rng, height.shape, max(4.0, radius * rng.uniform(0.1, 0.4)), octaves=3)
    height = height * np.maximum(0.2, 1 + np.float32(rng.uniform(0.04, 0.16)) * texture)
    if rng.random() < 0.35:
        pores = smooth_noise(rng, height.shape, max(4.0, radius * rng.uniform(0.12, 0.3)))
        height *= 1 - np.float32(rng.uniform(0.2, 0.55)) / (1 + np.exp(-6 * (pores - 1.4)))
    return height


@dataclass(frozen=True)
class Support:
    film: FloatMap  # carbon: 1 where it is intact, 0 in a hole, more on a thick rim or strand
    bar: FloatMap | None  # grid bar: 0 beside it, 1 where it is opaque


def make_support(rng: Generator, shape: tuple[int, int], unit: float) -> Support:
    """Draw a continuous, holey or lacey film, rarely with a grid bar."""
    draw = rng.random()
    if draw < 0.5:
        film = np.ones(shape, np.float32)
    elif draw < 0.75:
        film = _holey(rng, shape, unit, n_holes=int(rng.integers(1, 4)), radii=(35, 110))
    else:
        film = _holey(rng, shape, unit, n_holes=int(rng.integers(6, 13)), radii=(18, 70))
    bar = _grid_bar(rng, shape, unit) if rng.random() < 0.08 else None
    return Support(film, bar)


def _holey(
    rng: Generator, shape: tuple[int, int], unit: float, n_holes: int, radii: tuple[float, float]
) -> FloatMap:
    warp = unit * rng.uniform(2, 9)
    rows, cols = rows_and_columns(shape, (0, 0))
    rows = rows + np.float32(warp) * smooth_noise(rng, shape, 45 * unit)
    cols = cols + np.float32(warp) * smooth_noise(rng, shape, 45 * unit)
    centres = _spread_points(rng, shape, n_holes)
    to_edge = np.full(shape, 1e6, np.float32)
    for row, col in centres:
        radius = unit * log_uniform(rng, *radii)
        distance = np.sqrt((rows - np.float32(row)) ** 2 + (cols - np.float32(col)) ** 2)
        np.minimum(to_edge, distance - np.float32(radius), out=to_edge)
    sharpness = np.float32(unit * rng.uniform(0.5, 1.5))
    film: FloatMap = 1 / (1 + np.exp(-np.clip(to_edge / sharpness, -30, 30)))
    rim = np.float32(unit * rng.uniform(4, 12))
    film *= 1 + np.float32(rng.uniform(0, 1.5)) * np.exp(-np.abs(to_edge) / rim)
    return film


def _spread_points(rng: Generator, shape: tuple[int, int], n: int) -> list[NDArray[np.floating]]:
    extent = np.asarray(shape, float)
    points = [rng.uniform(0, 1, 2) * extent]
    while len(points) < n:
        candidates = rng.uniform(-0.1, 1.1, (8, 2)) * extent
        gaps = np.linalg.norm(candidates[:, None] - np.array(points)[None], axis=2).min(axis=1)
        points.append(candidates[int(np.argmax(gaps))])
    return points


def _grid_bar(rng: Generator, shape: tuple[int, int], unit: float) -> FloatMap:
    angle = rng.uniform(0, 2 * np.pi)
    rows, cols = rows_and_columns(shape, (shape[0] / 2, shape[1] / 2))
    along = rows * np.float32(np.sin(angle)) + cols * np.float32(np.cos(angle))
    beside = rows * np.float32(np.cos(angle)) - cols * np.float32(np.sin(angle))
    if rng.random() < 0.4:
        # A smooth maximum of two edges at right angles: the rounded corner where two bars meet.
        soft = np.float32(15 * unit)
        along = soft * np.logaddexp(
            (along * 0.75 + beside * 0.65) / soft, (along * 0.75 - beside * 0.65) / soft
        )
    reach = 0.5 * min(shape) * rng.uniform(0.62, 0.9)
    rough = np.float32(unit * rng.uniform(0.3, 1.5)) * smooth_noise(rng, shape, 9 * unit, octaves=2)
    inside = (along + rough - np.float32(reach)) / np.float32(unit * rng.uniform(0.6, 2.0))
    opaque: NDArray[np.floating] = 1 / (1 + np.exp(-np.clip(inside, -30, 30)))
    return opaque.astype(np.float32)
