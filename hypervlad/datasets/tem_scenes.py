"""Specimens of the eight classes of `make_tem_images`: tubes, fibres and polymer on a film."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from hypervlad.datasets.drawing import FloatMap, log_uniform, worm_like_chains
from hypervlad.datasets.tem_specimens import (
    Walls,
    blobs,
    make_support,
    particle_thickness,
    shard,
    tube_thickness,
)

#: Of random numbers, the shape of the frame, centre and radius of a particle: its thickness.
Builder: TypeAlias = Callable[[Generator, tuple[int, int], tuple[float, float], float], FloatMap]


@dataclass(frozen=True)
class Specimen:
    absorption: FloatMap  # optical depth for the intensity: exp(-absorption) is left
    phase: FloatMap  # phase shift of the electron wave in radians
    opaque: FloatMap | None = None  # 0 to 1: the share blocked by a grid bar


@dataclass
class Stage:
    rng: Generator
    shape: tuple[int, int]  # with the margin
    unit: float  # pixels per 224th of the image's shorter side

    def __post_init__(self) -> None:
        # Thickness so far: in tube radii, in particle thicknesses, in particle radii.
        self.tubes = np.zeros(self.shape, np.float32)
        self.matrix = np.zeros(self.shape, np.float32)
        self.metal = np.zeros(self.shape, np.float32)
        self.side = 224 * self.unit
        #: Length along its centre line and width in pixels, of a single fibre.
        self.fibre: tuple[float, float] | None = None

    def near_centre(self, spread: float) -> NDArray[np.floating]:
        """Draw a point (row, column); ``spread`` in units of the shorter side."""
        return np.asarray(self.shape) / 2 + self.rng.normal(0, spread * self.side, 2)

    def log_uniform(self, low: float, high: float) -> float:
        """Draw a length in pixels between ``low`` and ``high`` units."""
        return float(log_uniform(self.rng, low, high)) * self.unit


def make_specimen(kind: str, rng: Generator, shape: tuple[int, int], unit: float) -> Specimen:
    stage = Stage(rng, shape, unit)
    SCENES[kind](stage)
    scatter_dirt(stage)
    return _develop(stage)


def _fiber_tube(stage: Stage) -> None:
    radius = stage.log_uniform(2.2, 5)
    _lay_fiber(stage, radius, _tube_walls(stage.rng, radius), catalyst=0.25)


def _fiber_bamboo(stage: Stage) -> None:
    radius = stage.log_uniform(8, 16)
    _lay_fiber(stage, radius, _bamboo_walls(stage.rng), catalyst=0.5)


def _lay_fiber(stage: Stage, radius: float, walls: Walls, catalyst: float) -> None:
    rng = stage.rng
    chains = worm_like_chains(
        rng,
        anchors=stage.near_centre(0.14)[None],
        headings=rng.uniform(0, 2 * np.pi, 1),
        length=np.array([stage.side * rng.uniform(0.45, 2.0)]),
        persistence=stage.side * log_uniform(rng, 0.35, 8),
        step=0.6 * max(stage.unit, 0.5),
        stiffness=1.2 * radius,
        anchor_at=rng.uniform(0.25, 0.75),
    )
    stage.tubes += tube_thickness(stage.shape, chains, np.array([radius]), walls, rng)
    steps = np.linalg.norm(np.diff(chains[0], axis=0), axis=1)
    stage.fibre = float(steps.sum()), 2 * radius
    if rng.random() < catalyst:
        _add_catalyst(stage, chains, radius * max(walls.inner_ratio, 0.3))
    if rng.random() < 0.12:
        _add_fragment(stage, radius)
    if rng.random() < 0.12:
        stage.matrix += 0.5 * blobs(
            rng, stage.shape, _pair(chains[0, len(chains[0]) // 2]), 2.2 * radius
        )


def _cluster_bundle(stage: Stage) -> None:
    rng = stage.rng
    n_tubes = int(rng.integers(3, 9))
    radius = stage.log_uniform(2.2, 8) * (1 if n_tubes < 5 else 0.8)
    heading = rng.uniform(0, 2 * np.pi)
    centre = stage.near_centre(0.1)
    across = np.array([np.cos(heading), -np.sin(heading)])
    beside = rng.normal(0, 1.6 * radius * n_tubes**0.7, n_tubes)
    _lay_tubes(
        stage,
        anchors=centre + beside[:, None] * across,
        headings=heading + rng.normal(0, rng.uniform(0.04, 0.2), n_tubes),
        radius=radius,
        persistence=rng.uniform(1.2, 6),
        length=(0.6, 1.9),
        walls=_tube_walls(rng, radius) if rng.random() < 0.7 else _bamboo_walls(rng),
    )


def _cluster_tangle(stage: Stage) -> None:
    rng = stage.rng
    n_tubes = int(log_uniform(rng, 5, 36))
    radius = stage.log_uniform(2.0, 7.0) * (1 if n_tubes < 12 else 0.75)
    spread = rng.uniform(0.09, 0.22)
    _lay_tubes(
        stage,
        anchors=stage.near_centre(0.1) + rng.normal(0, spread * stage.side, (n_tubes, 2)),
        headings=rng.uniform(0, 2 * np.pi, n_tubes),
        radius=radius,
        persistence=log_uniform(rng, 0.1, 0.8),
        length=(0.35, 1.5),
        walls=_tube_walls(rng, radius) if rng.random() < 0.75 else _bamboo_walls(rng),
    )


def _matrix(stage: Stage, builder: Builder, size: tuple[float, float], n_inside: int) -> None:
    _lay_matrix(stage, builder, size)
    _embed(stage, int(stage.rng.integers(0, n_inside)))


def _surface(stage: Stage, n_tubes: tuple[int, int], bamboo: float) -> None:
    builder = shard if stage.rng.random() < 0.5 else blobs
    centre, radius = _lay_matrix(stage, builder, (42, 88))
    _embed(stage, int(stage.rng.integers(0, 5)))
    _protrude(stage, centre, radius, int(stage.rng.integers(*n_tubes)), bamboo)


SCENES: dict[str, Callable[[Stage], None]] = {
    "fiber-tube": _fiber_tube,
    "fiber-bamboo": _fiber_bamboo,
    "cluster-bundle": _cluster_bundle,
    "cluster-tangle": _cluster_tangle,
    "matrix-shard": partial(_matrix, builder=shard, size=(60, 135), n_inside=6),
    "matrix-agglomerate": partial(_matrix, builder=blobs, size=(55, 115), n_inside=5),
    "matrix-surface-few": partial(_surface, n_tubes=(1, 4), bamboo=0.3),
    "matrix-surface-many": partial(_surface, n_tubes=(7, 22), bamboo=0.15),
}


def _tube_walls(rng: Generator, radius: float) -> Walls:
    inner = rng.uniform(0.3, 0.72)
    # Lines closer than three pixels would alias.
    n_shells = int(radius * (1 - inner) / rng.uniform(2.6, 4.0))
    return Walls(
        inner, n_shells=n_shells if rng.random() < 0.6 else 0, roughness=rng.uniform(0.01, 0.07)
    )


def _bamboo_walls(rng: Generator) -> Walls:
    return Walls(
        inner_ratio=rng.uniform(0.45, 0.78),
        septum_spacing=rng.uniform(1.2, 3.5),
        roughness=rng.uniform(0.02, 0.1),
    )


def _lay_tubes(
    stage: Stage,
    *,
    anchors: NDArray[np.floating],
    headings: NDArray[np.floating],
    radius: float,
    persistence: float,
    length: tuple[float, float],
    walls: Walls,
    anchor_at: float | None = None,
) -> FloatMap:
    """Add tubes and return their chains; lengths are in units of the shorter side."""
    rng = stage.rng
    n_tubes = len(anchors)
    chains = worm_like_chains(
        rng,
        anchors=anchors,
        headings=headings,
        length=stage.side * rng.uniform(*length, n_tubes),
        persistence=stage.side * persistence,
        step=0.7 * max(stage.unit, 0.5),
        stiffness=1.2 * radius,
        anchor_at=rng.uniform(0.2, 0.8, n_tubes) if anchor_at is None else anchor_at,
    )
    radii = radius * np.exp(rng.normal(0, 0.15, n_tubes))
    stage.tubes += tube_thickness(stage.shape, chains, radii, walls, rng)
    for chain in chains:
        if rng.random() < 0.12:
            _add_catalyst(stage, chain[None], radius * max(walls.inner_ratio, 0.3))
    return chains


def _lay_matrix(
    stage: Stage, builder: Builder, size: tuple[float, float]
) -> tuple[tuple[float, float], float]:
    centre = _pair(stage.near_centre(0.13))
    radius = stage.log_uniform(*size)
    stage.matrix += builder(stage.rng, stage.shape, centre, radius)
    return centre, radius


def _embed(stage: Stage, n_tubes: int) -> None:
    if n_tubes == 0:
        return
    rng = stage.rng
    inner = Stage(rng, stage.shape, stage.unit)
    radius = stage.log_uniform(2, 6)
    _lay_tubes(
        inner,
        anchors=stage.near_centre(0.12) + rng.normal(0, 0.12 * stage.side, (n_tubes, 2)),
        headings=rng.uniform(0, 2 * np.pi, n_tubes),
        radius=radius,
        persistence=rng.uniform(0.2, 1.5),
        length=(0.2, 0.8),
        walls=_tube_walls(rng, radius),
    )
    covered = np.clip(stage.matrix * 6 - 0.8, 0, 1)
    stage.tubes += inner.tubes * covered * np.float32(rng.uniform(0.2, 0.5))
    stage.metal += inner.metal * covered


def _protrude(
    stage: Stage, centre: tuple[float, float], radius: float, n_tubes: int, bamboo: float
) -> None:
    rng = stage.rng
    towards = rng.uniform(0, 2 * np.pi) + rng.normal(0, rng.uniform(0.8, 2.5), n_tubes)
    outward = np.stack([np.sin(towards), np.cos(towards)], axis=1)
    depth = _rim_distance(stage.matrix, centre, towards, radius) * rng.uniform(0.7, 1.0, n_tubes)
    tube_radius = stage.log_uniform(3.2, 8) * (1 if n_tubes < 6 else 0.7)
    _lay_tubes(
        stage,
        anchors=np.asarray(centre) + depth[:, None] * outward,
        headings=towards + rng.normal(0, 0.6, n_tubes),
        radius=tube_radius,
        persistence=log_uniform(rng, 0.25, 3),
        length=(0.35, 0.95),
        walls=_bamboo_walls(rng) if rng.random() < bamboo else _tube_walls(rng, tube_radius),
        anchor_at=0.0,
    )


def _rim_distance(
    matrix: FloatMap, centre: tuple[float, float], towards: NDArray[np.floating], radius: float
) -> NDArray[np.floating]:
    steps = np.linspace(0, 1.3 * radius, 64)
    rows = centre[0] + steps[None, :] * np.sin(towards)[:, None]
    cols = centre[1] + steps[None, :] * np.cos(towards)[:, None]
    inside = (
        matrix[
            np.clip(rows.astype(int), 0, matrix.shape[0] - 1),
            np.clip(cols.astype(int), 0, matrix.shape[1] - 1),
        ]
        > 0.06
    )
    last = np.where(inside.any(axis=1), inside.shape[1] - 1 - np.argmax(inside[:, ::-1], axis=1), 0)
    return np.asarray(steps[last])


def _add_catalyst(stage: Stage, chains: FloatMap, radius: float) -> None:
    rng = stage.rng
    chain = chains[0]
    at = (
        len(chain) - 1 - max(2, int(0.01 * len(chain)))
        if rng.random() < 0.7
        else int(rng.integers(len(chain)))
    )
    before = chain[max(0, at - 4)] - chain[at]
    stage.metal += particle_thickness(
        stage.shape,
        chain[at][None],
        np.array([radius * rng.uniform(0.8, 1.3)]),
        np.array([rng.uniform(1, 2.2)]),
        np.array([np.arctan2(before[0], before[1])]),
    )


def _add_fragment(stage: Stage, radius: float) -> None:
    rng = stage.rng
    _lay_tubes(
        stage,
        anchors=rng.uniform(0.05, 0.95, (1, 2)) * np.asarray(stage.shape),
        headings=rng.uniform(0, 2 * np.pi, 1),
        radius=0.7 * radius,
        persistence=1.5,
        length=(0.06, 0.2),
        walls=_tube_walls(rng, radius),
    )


def scatter_dirt(stage: Stage) -> None:
    rng = stage.rng
    n = int(rng.poisson(1.5)) if rng.random() < 0.7 else int(rng.integers(4, 25))
    stage.metal += np.float32(rng.uniform(0.15, 0.6)) * particle_thickness(
        stage.shape,
        rng.uniform(0, 1, (n, 2)) * np.asarray(stage.shape),
        stage.unit * np.exp(rng.uniform(np.log(0.8), np.log(4), n)),
        rng.uniform(1, 1.6, n),
        rng.uniform(0, np.pi, n),
    )
    if rng.random() < 0.12:
        stage.matrix += np.float32(rng.uniform(0.2, 0.6)) * blobs(
            rng,
            stage.shape,
            _pair(rng.uniform(0, 1, 2) * np.asarray(stage.shape)),
            stage.log_uniform(8, 26),
        )


def _develop(stage: Stage) -> Specimen:
    rng = stage.rng
    support = make_support(rng, stage.shape, stage.unit)
    grain = rng.standard_normal(stage.shape, dtype=np.float32)
    tube_phase, tube_loss = rng.uniform(0.2, 0.55), rng.uniform(0.16, 0.5)
    matrix_loss = log_uniform(rng, 0.7, 2.6)
    if stage.matrix.any():
        # Beside a particle that dominates the contrast, a thin tube would be invisible.
        tube_loss = max(tube_loss, 0.22 * matrix_loss)
    film_loss = log_uniform(rng, 0.03, 0.25)
    film_phase = rng.uniform(0.3, 1.0)
    roughness = log_uniform(rng, 0.04, 0.14)
    # All carbon is amorphous: polymer and walls have the grain of the film too, proportional to
    # the square root of the thickness.
    amorphous = np.sqrt(support.film + 1.5 * stage.matrix + 0.3 * stage.tubes)
    absorption = (
        tube_loss * stage.tubes
        + matrix_loss * stage.matrix
        + film_loss * support.film
        + rng.uniform(0.6, 1.6) * stage.metal
    )
    phase = (
        tube_phase * stage.tubes
        # Thick parts scatter inelastically: their phase saturates.
        + 1.2 * (1 - np.exp(-1.5 * stage.matrix))
        + film_phase * support.film
        + 0.5 * stage.metal
        + roughness * amorphous * grain
    )
    return Specimen(absorption.astype(np.float32), phase.astype(np.float32), support.bar)


def _pair(point: NDArray[np.floating]) -> tuple[float, float]:
    return float(point[0]), float(point[1])
