"""Nanowires lying on a substrate: domains of parallel ones among others that lie anyhow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hypervlad.datasets._chains import worm_like_chains
from hypervlad.datasets._noise import smooth_noise
from hypervlad.datasets._surface import Strands, Surface

FloatMap = NDArray[np.float32]
BoolMap = NDArray[np.bool_]

_SCATTER = np.deg2rad(4.0)  # standard deviation of directions within a domain
_LENGTH = 24.0  # typical length over width
_SHORTEST = 2.5  # length over width below which a piece is left out
_PERSISTENCE = 400.0  # over width: wires are nearly straight
_DOMAIN = 0.45  # size of a domain over the shorter side of the image
_RAGGED = 0.06  # how far wires reach over the edge of their domain, over its size
_TRIES = 60  # places tried for a wire, on average, before the rest is left out


@dataclass(frozen=True)
class Deposit:
    """How wires were deposited.

    Attributes
    ----------
    aligned : float
        Share of the area where wires are parallel.
    density : float
        Share of the area that wires cover.
    width : float
        Mean diameter, in points of the surface.
    tilt : float
        Of the specimen about the x axis, radians.
    overlap : float
        Share of its length that a wire may lie on others.
    """

    aligned: float
    density: float
    width: float
    tilt: float
    overlap: float


@dataclass(frozen=True)
class _Ground:
    """Where wires are laid alike, and in which direction.

    Attributes
    ----------
    relief : ndarray of shape (H, W)
        Above 0 in the domains, below 0 between them; 1 is the size of a domain.
    distance : ndarray of shape (n_domains, H, W)
        From the middle of each domain, over the size of a domain.
    directions : ndarray of shape (n_domains,)
        Radians.
    """

    relief: FloatMap
    distance: FloatMap
    directions: NDArray[np.float64]

    @property
    def nearest(self) -> NDArray[np.intp]:
        return np.asarray(self.distance.argmin(axis=0))


def lay_wires(
    rng: np.random.Generator, shape: tuple[int, int], deposit: Deposit
) -> tuple[Surface, BoolMap]:
    """Lay wires on a substrate.

    Parameters
    ----------
    rng : numpy.random.Generator
    shape : (int, int)
        Points of the surface, down and across.
    deposit : Deposit

    Returns
    -------
    surface : Surface
    domains : ndarray of bool, shape (H, W)
        Where wires are parallel.
    """
    ground = _draw_ground(rng, shape, deposit.aligned)
    domains = ground.relief > 0
    substrate = 0.16 * (1 + 0.06 * smooth_noise(rng, shape, 0.1 * min(shape), octaves=3))
    surface = Surface(shape, np.maximum(substrate, 0.02), 0.12 / deposit.width)
    covered = np.zeros(shape, dtype=bool)
    wires = [
        wire
        for zone, alike in ((domains, True), (~domains, False))
        for wire in _fill(rng, deposit, ground, zone, covered, alike)
    ]
    for rank, number in enumerate(rng.permutation(len(wires))):
        line, radius = wires[number]
        surface.paint_strands(_as_strands(rng, line, radius, rank / len(wires)))
    return surface, domains


def _draw_ground(rng: np.random.Generator, shape: tuple[int, int], aligned: float) -> _Ground:
    size = _DOMAIN * min(shape)
    relief = smooth_noise(rng, shape, size)
    level = np.quantile(relief, 1 - aligned) if 0 < aligned < 1 else np.inf * (0.5 - aligned)
    n_domains = int(np.ceil(shape[0] * shape[1] / (1.6 * size) ** 2))
    middles = rng.uniform(0, 1, (n_domains, 2)) * np.asarray(shape)
    rows = np.arange(shape[0], dtype=np.float32)[:, None] - middles[:, 0, None, None]
    columns = np.arange(shape[1], dtype=np.float32)[None] - middles[:, 1, None, None]
    return _Ground(
        relief=np.asarray(relief - np.float32(level)),
        distance=(np.hypot(rows, columns) / size).astype(np.float32),
        directions=rng.uniform(0, np.pi, n_domains),
    )


def _fill(
    rng: np.random.Generator,
    deposit: Deposit,
    ground: _Ground,
    zone: BoolMap,
    covered: BoolMap,
    alike: bool,
) -> list[tuple[FloatMap, float]]:
    """Lay wires in a zone until they cover their share of it; return centre lines and radii."""
    places = np.argwhere(zone)
    wanted = deposit.density * len(places)
    found: list[tuple[FloatMap, float]] = []
    if not wanted:
        return found
    left = int(_TRIES * max(10, wanted / (_LENGTH * deposit.width**2)))
    while left and np.count_nonzero(covered & zone) < wanted:
        # Counting the cover is slow beside laying a wire.
        for _ in range(min(left, 5)):
            left -= 1
            anchor = places[rng.integers(len(places))]
            radius = deposit.width / 2 * float(np.exp(rng.normal(0, 0.15)))
            line = _within(
                rng, ground, anchor, _draw_line(rng, deposit, ground, anchor, alike), alike
            )
            if len(line) < _SHORTEST * deposit.width:
                continue
            body = _body(line, radius, covered.shape)
            if deposit.overlap < 1 and covered[body].mean() > deposit.overlap:
                continue
            covered[body] = True
            found.append((line, radius))
    return found


def _draw_line(
    rng: np.random.Generator,
    deposit: Deposit,
    ground: _Ground,
    anchor: NDArray[np.intp],
    alike: bool,
) -> FloatMap:
    """Return a centre line, points a step apart, whose middle is the anchor."""
    if alike:
        own = ground.distance[:, anchor[0], anchor[1]].argmin()
        heading = ground.directions[own] + rng.normal(0, _SCATTER)
    else:
        heading = rng.uniform(0, np.pi)
    # What is tilted about the x axis looks shorter up and down.
    across, up = np.cos(heading), np.sin(heading) * np.cos(deposit.tilt)
    length = _LENGTH * deposit.width * float(np.exp(rng.normal(0, 0.4))) * np.hypot(across, up)
    return worm_like_chains(
        rng,
        anchors=anchor[None] + rng.uniform(0, 1, (1, 2)),
        headings=np.array([np.arctan2(-up, across)]),
        length=np.array([length]),
        persistence=_PERSISTENCE * deposit.width,
        step=1.0,
        stiffness=2 * deposit.width,
    )[0]


def _within(
    rng: np.random.Generator,
    ground: _Ground,
    anchor: NDArray[np.intp],
    line: FloatMap,
    alike: bool,
) -> FloatMap:
    """Cut a line off where its zone ends, give or take a little."""
    shape = ground.relief.shape
    row, column = np.clip(np.rint(line).astype(int), 0, np.asarray(shape) - 1).T
    reach = _RAGGED * rng.uniform(0, 1)
    if alike:
        own = ground.distance[:, anchor[0], anchor[1]].argmin()
        here = ground.distance[:, row, column]
        inside = (ground.relief[row, column] > -reach) & (here[own] <= here.min(axis=0) + reach)
    else:
        inside = ground.relief[row, column] < reach
    middle = len(line) // 2
    outside = np.flatnonzero(~inside)
    first = outside[outside < middle].max(initial=-1) + 1
    last = outside[outside >= middle].min(initial=len(line))
    return line[first:last]


def _body(line: FloatMap, radius: float, shape: tuple[int, ...]) -> tuple[NDArray, NDArray]:
    """Return rows and columns of the points under a wire, inside of the surface."""
    along = np.gradient(line, axis=0)
    along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-6)
    offset = np.arange(-int(radius), int(radius) + 1)
    row = np.rint(line[:, :1] + along[:, 1:] * offset).astype(int)
    column = np.rint(line[:, 1:] - along[:, :1] * offset).astype(int)
    inside = (row >= 0) & (row < shape[0]) & (column >= 0) & (column < shape[1])
    return row[inside], column[inside]


def _as_strands(rng: np.random.Generator, line: FloatMap, radius: float, height: float) -> Strands:
    """Return a wire with rounded ends, ready to be painted."""
    n = len(line)
    step = float(np.linalg.norm(np.diff(line[:2], axis=0)))
    from_end = np.minimum(np.arange(n), np.arange(n)[::-1]) * step
    cap = np.sqrt(1 - np.clip(1 - from_end / radius, 0, 0.98) ** 2)
    # Wires lie on others: they do not stay at one height.
    slope = rng.normal(0, 0.05) * np.linspace(-1, 1, n)
    return Strands(
        chains=line[None],
        radius=(radius * cap)[None].astype(np.float32),
        height=(height + slope)[None].astype(np.float32),
        brightness=rng.uniform(0.88, 1.12, 1).astype(np.float32),
        defect=np.zeros((1, n), dtype=bool),
    )
