"""Synthetic transmission electron micrographs of carbon nanotubes and nanofibres."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from sklearn.utils import check_random_state

from hypervlad.synthetic.optics import Specimen, record_image
from hypervlad.synthetic.parameters import check_count, check_size
from hypervlad.synthetic.random_shapes import worm_like_chains
from hypervlad.synthetic.tem_specimens import (
    Walls,
    blobs,
    make_support,
    particle_thickness,
    shard,
    tube_thickness,
)

FloatMap = NDArray[np.float32]
Generator = np.random.Generator

SMALLEST_SIZE = 32

#: The eight fine classes, and the class of the four that each belongs to.
TEM_FINE_CLASSES: dict[str, str] = {
    "cluster-bundle": "cluster",
    "cluster-tangle": "cluster",
    "fiber-bamboo": "fiber",
    "fiber-tube": "fiber",
    "matrix-agglomerate": "matrix",
    "matrix-shard": "matrix",
    "matrix-surface-few": "matrix-surface",
    "matrix-surface-many": "matrix-surface",
}
#: The four classes of Luo, Holm and Wang (2021).
TEM_CLASSES: tuple[str, ...] = tuple(sorted(set(TEM_FINE_CLASSES.values())))

# Separate the random numbers of labels and of images.
_LABELS, _IMAGES = 0, 1


def make_tem_images(
    n: int,
    *,
    n_classes: int = 4,
    size: int | tuple[int, int] = 224,
    random_state: int | np.random.RandomState | None = None,
) -> tuple[list[NDArray[np.float32]], NDArray[np.str_]]:
    """Make synthetic bright-field TEM images of carbon nanotubes: alone, in clusters, in polymer.

    Each image is a specimen (hollow tubes along worm-like chains, bamboo-like fibres, catalyst
    particles, polymer particles, on a continuous, holey or lacey carbon film) whose exit wave goes
    through a contrast transfer function with random defocus, under uneven illumination, onto a
    noisy camera. Magnification, brightness and contrast are random and do not depend on the class.
    The classes overlap slightly, as real ones do: three tubes side by side are already a cluster,
    and a single tube that protrudes from a particle makes it "matrix-surface".

    Parameters
    ----------
    n : int
        Number of images, at least 1.
    n_classes : {4, 8}, default=4
        4: the classes of [1]_. "fiber": one isolated tube or fibre (there may be a fragment
        elsewhere); "cluster": several tubes that touch or entangle; "matrix": polymer particles,
        with tubes only inside; "matrix-surface": polymer particles with protruding tubes. 8: each
        of these split in two (`TEM_FINE_CLASSES` maps them back): "fiber-tube" (hollow nanotube)
        and "fiber-bamboo" (nanofibre with cross walls); "cluster-bundle" (nearly parallel) and
        "cluster-tangle"; "matrix-shard" (one faceted particle) and "matrix-agglomerate" (rounded
        grains); "matrix-surface-few" (one to three protruding tubes) and "matrix-surface-many"
        (seven or more).
    size : int or (int, int), default=224
        Height and width in pixels, each at least 32. All sizes have the same field of view.
    random_state : int, RandomState or None, default=None
        Seed. With the same integer, image ``i`` and its label are the same whatever ``n`` is.

    Returns
    -------
    images : list of n arrays of shape (H, W), float32 in [0, 1]
    labels : array of shape (n,), str
        Shuffled; class counts differ by at most one.

    Raises
    ------
    ValueError
        If ``n``, ``n_classes`` or ``size`` is out of range.

    References
    ----------
    .. [1] Q. Luo, E. A. Holm and C. Wang, "A transfer learning approach for improved classification
       of carbon nanomaterials from TEM images", Nanoscale Advances 3, 206, 2021.

    Examples
    --------
    >>> from hypervlad.synthetic import make_tem_images
    >>> images, labels = make_tem_images(8, size=64, random_state=0)
    >>> images[0].shape, sorted(set(labels.tolist()))
    ((64, 64), ['cluster', 'fiber', 'matrix', 'matrix-surface'])
    """
    n = check_count(n)
    names = _class_names(n_classes)
    height, width = check_size(size, SMALLEST_SIZE)
    seed = int(check_random_state(random_state).randint(2**31 - 1))
    labels = _balanced_labels(n, names, seed)
    images = [
        _make_image(label, np.random.default_rng([_IMAGES, seed, i]), height, width)
        for i, label in enumerate(labels)
    ]
    return images, labels


def _make_image(
    label: str, rng: np.random.Generator, height: int, width: int
) -> NDArray[np.float32]:
    if label in TEM_CLASSES:
        members = [fine for fine, coarse in TEM_FINE_CLASSES.items() if coarse == label]
        label = members[int(rng.integers(len(members)))]
    # Cropping a margin removes what the periodic Fourier transform wraps around.
    margin = max(8, min(height, width) // 16)
    full = tuple(fft.next_fast_len(extent + 2 * margin) for extent in (height, width))
    unit = min(height, width) / 224
    specimen = make_specimen(label, rng, (full[0], full[1]), unit)
    return np.ascontiguousarray(record_image(specimen, rng, margin, unit)[:height, :width])


def _balanced_labels(n: int, names: Sequence[str], seed: int) -> NDArray[np.str_]:
    """Concatenate random permutations of the classes, so that every prefix is balanced too."""
    n_rounds = -(-n // len(names))
    rng = np.random.default_rng([_LABELS, seed])
    order = np.concatenate([rng.permutation(len(names)) for _ in range(n_rounds)])[:n]
    labels: NDArray[np.str_] = np.asarray(names)[order]
    return labels


def _class_names(n_classes: int) -> tuple[str, ...]:
    if n_classes == 4:
        return TEM_CLASSES
    if n_classes == 8:
        return tuple(TEM_FINE_CLASSES)
    raise ValueError(f"n_classes={n_classes!r}: there are synthetic images of 4 or of 8 classes.")


@dataclass
class Stage:
    """A frame that parts of a specimen are placed on.

    Attributes
    ----------
    rng : numpy.random.Generator
    shape : (int, int)
        The frame with its margin.
    unit : float
        Pixels per length unit, a 224th of the image's shorter side.
    tubes, matrix, metal : arrays of shape ``shape``
        Thickness so far: in tube radii, in particle thicknesses, in particle radii.
    """

    rng: Generator
    shape: tuple[int, int]
    unit: float

    def __post_init__(self) -> None:
        self.tubes = np.zeros(self.shape, np.float32)
        self.matrix = np.zeros(self.shape, np.float32)
        self.metal = np.zeros(self.shape, np.float32)
        self.side = 224 * self.unit

    def near_centre(self, spread: float) -> NDArray[np.floating]:
        """Draw a point (row, column) near the centre; ``spread`` in units of the shorter side."""
        return np.asarray(self.shape) / 2 + self.rng.normal(0, spread * self.side, 2)

    def log_uniform(self, low: float, high: float) -> float:
        """Draw a length in pixels between ``low`` and ``high`` units."""
        return float(np.exp(self.rng.uniform(np.log(low), np.log(high)))) * self.unit


def make_specimen(kind: str, rng: Generator, shape: tuple[int, int], unit: float) -> Specimen:
    """Make a specimen of a fine class on a random support.

    Parameters
    ----------
    kind : str
        A key of `SCENES`.
    rng : numpy.random.Generator
    shape : (int, int)
    unit : float
        See `Stage`.
    """
    stage = Stage(rng, shape, unit)
    SCENES[kind](stage)
    _scatter_dirt(stage)
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
        persistence=stage.side * np.exp(rng.uniform(np.log(0.35), np.log(8))),
        step=0.6 * max(stage.unit, 0.5),
        stiffness=1.2 * radius,
        anchor_at=rng.uniform(0.25, 0.75),
    )
    stage.tubes += tube_thickness(stage.shape, chains, np.array([radius]), walls, rng)
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
    n_tubes = int(np.exp(rng.uniform(np.log(5), np.log(36))))
    radius = stage.log_uniform(2.0, 7.0) * (1 if n_tubes < 12 else 0.75)
    spread = rng.uniform(0.09, 0.22)
    _lay_tubes(
        stage,
        anchors=stage.near_centre(0.1) + rng.normal(0, spread * stage.side, (n_tubes, 2)),
        headings=rng.uniform(0, 2 * np.pi, n_tubes),
        radius=radius,
        persistence=np.exp(rng.uniform(np.log(0.1), np.log(0.8))),
        length=(0.35, 1.5),
        walls=_tube_walls(rng, radius) if rng.random() < 0.75 else _bamboo_walls(rng),
    )


def _matrix_shard(stage: Stage) -> None:
    _lay_matrix(stage, shard, size=(60, 135))
    _embed(stage, int(stage.rng.integers(0, 6)))


def _matrix_agglomerate(stage: Stage) -> None:
    _lay_matrix(stage, blobs, size=(55, 115))
    _embed(stage, int(stage.rng.integers(0, 5)))


def _surface_few(stage: Stage) -> None:
    centre, radius = _lay_matrix(stage, shard if stage.rng.random() < 0.5 else blobs, size=(42, 88))
    _embed(stage, int(stage.rng.integers(0, 5)))
    _protrude(stage, centre, radius, int(stage.rng.integers(1, 4)), bamboo=0.3)


def _surface_many(stage: Stage) -> None:
    centre, radius = _lay_matrix(stage, shard if stage.rng.random() < 0.5 else blobs, size=(42, 88))
    _embed(stage, int(stage.rng.integers(0, 5)))
    _protrude(stage, centre, radius, int(stage.rng.integers(7, 22)), bamboo=0.15)


SCENES: dict[str, Callable[[Stage], None]] = {
    "fiber-tube": _fiber_tube,
    "fiber-bamboo": _fiber_bamboo,
    "cluster-bundle": _cluster_bundle,
    "cluster-tangle": _cluster_tangle,
    "matrix-shard": _matrix_shard,
    "matrix-agglomerate": _matrix_agglomerate,
    "matrix-surface-few": _surface_few,
    "matrix-surface-many": _surface_many,
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
    stage: Stage,
    builder: Callable[[Generator, tuple[int, int], tuple[float, float], float], FloatMap],
    size: tuple[float, float],
) -> tuple[tuple[float, float], float]:
    centre = _pair(stage.near_centre(0.13))
    radius = stage.log_uniform(*size)
    stage.matrix += builder(stage.rng, stage.shape, centre, radius)
    return centre, radius


def _embed(stage: Stage, n_tubes: int) -> None:
    """Place tubes inside the matrix only: they end where it ends."""
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
    """Let tubes protrude from a matrix particle, anchored near its rim."""
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
        persistence=np.exp(rng.uniform(np.log(0.25), np.log(3))),
        length=(0.35, 0.95),
        walls=_bamboo_walls(rng) if rng.random() < bamboo else _tube_walls(rng, tube_radius),
        anchor_at=0.0,
    )


def _rim_distance(
    matrix: FloatMap, centre: tuple[float, float], towards: NDArray[np.floating], radius: float
) -> NDArray[np.floating]:
    """Return the extent of a particle from its centre in each direction."""
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
    """Add a metal particle in the core, usually at a tip."""
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
    """Add a short, separate piece of tube: an isolated fibre is seldom alone in the field."""
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


def _scatter_dirt(stage: Stage) -> None:
    """Add loose catalyst and dust, equally for all classes."""
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
    """Turn thicknesses into absorption and phase, on a support film."""
    rng = stage.rng
    support = make_support(rng, stage.shape, stage.unit)
    grain = rng.standard_normal(stage.shape, dtype=np.float32)
    tube_phase, tube_loss = rng.uniform(0.2, 0.55), rng.uniform(0.16, 0.5)
    matrix_loss = np.exp(rng.uniform(np.log(0.7), np.log(2.6)))
    if stage.matrix.any():
        # Beside a particle that dominates the contrast, a thin tube would be invisible.
        tube_loss = max(tube_loss, 0.22 * matrix_loss)
    film_loss = np.exp(rng.uniform(np.log(0.03), np.log(0.25)))
    film_phase = rng.uniform(0.3, 1.0)
    roughness = np.exp(rng.uniform(np.log(0.04), np.log(0.14)))
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
