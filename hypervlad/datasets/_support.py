"""What the specimen lies on: carbon films with and without holes, the bars of the grid, dirt."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hypervlad.datasets._noise import smooth_noise

FloatMap = NDArray[np.float32]


@dataclass(frozen=True)
class Support:
    """Thickness maps of the support.

    Attributes
    ----------
    film : array of shape (H, W)
        Carbon film: 1 where it is whole, 0 in a hole, up to about 2.5 on a thick rim or strand.
    bar : array of shape (H, W) or None
        Grid bar: 0 beside it, 1 where it is opaque.
    """

    film: FloatMap
    bar: FloatMap | None


def make_support(rng: np.random.Generator, shape: tuple[int, int], unit: float) -> Support:
    """Draw a continuous (half of the time), holey or lacey film, at times with a grid bar."""
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
    rng: np.random.Generator,
    shape: tuple[int, int],
    unit: float,
    n_holes: int,
    radii: tuple[float, float],
) -> FloatMap:
    """Film with rounded holes; many that nearly touch leave the strands of a lacey film."""
    warp = unit * rng.uniform(2, 9)
    rows = np.arange(shape[0], dtype=np.float32)[:, None]
    cols = np.arange(shape[1], dtype=np.float32)[None, :]
    rows = rows + np.float32(warp) * smooth_noise(rng, shape, 45 * unit)
    cols = cols + np.float32(warp) * smooth_noise(rng, shape, 45 * unit)
    centres = _spread_points(rng, shape, n_holes)
    to_edge = np.full(shape, 1e6, np.float32)
    for row, col in centres:
        radius = unit * np.exp(rng.uniform(*np.log(radii)))
        distance = np.sqrt((rows - np.float32(row)) ** 2 + (cols - np.float32(col)) ** 2)
        np.minimum(to_edge, distance - np.float32(radius), out=to_edge)
    sharpness = np.float32(unit * rng.uniform(0.5, 1.5))
    film = 1 / (1 + np.exp(-np.clip(to_edge / sharpness, -30, 30)))
    rim = np.float32(unit * rng.uniform(4, 12))
    return film * (1 + np.float32(rng.uniform(0, 1.5)) * np.exp(-np.abs(to_edge) / rim))


def _spread_points(
    rng: np.random.Generator, shape: tuple[int, int], n: int
) -> list[NDArray[np.floating]]:
    """Points that keep away from one another: the best of a few candidates each time."""
    extent = np.asarray(shape, float)
    points = [rng.uniform(0, 1, 2) * extent]
    while len(points) < n:
        candidates = rng.uniform(-0.1, 1.1, (8, 2)) * extent
        gaps = np.linalg.norm(candidates[:, None] - np.array(points)[None], axis=2).min(axis=1)
        points.append(candidates[int(np.argmax(gaps))])
    return points


def _grid_bar(rng: np.random.Generator, shape: tuple[int, int], unit: float) -> FloatMap:
    """An opaque edge or rounded corner that reaches into the frame."""
    angle = rng.uniform(0, 2 * np.pi)
    rows = np.arange(shape[0], dtype=np.float32)[:, None] - shape[0] / 2
    cols = np.arange(shape[1], dtype=np.float32)[None, :] - shape[1] / 2
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
    return (1 / (1 + np.exp(-np.clip(inside, -30, 30)))).astype(np.float32)
