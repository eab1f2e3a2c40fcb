"""Mats of electrospun fibres, and what goes wrong in them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter

from hypervlad.datasets._chains import worm_like_chains
from hypervlad.datasets._noise import smooth_noise
from hypervlad.datasets._surface import Strands, Surface, edge_yield

FloatMap = NDArray[np.float32]
BoolMap = NDArray[np.bool_]
_REFINEMENT = 6  # points painted for each one that is drawn: fibres bend slowly


@dataclass(frozen=True)
class Mat:
    """How a mat is made.

    Attributes
    ----------
    radius : float
        Mean radius of its fibres, in pixels.
    coverage : float
        Area of all fibres over the area of the image.
    alignment : float
        Of directions: 0 every which way, 1 all alike.
    direction : float
        Mean direction, radians.
    curl : float
        How far fibres bend over the width of the image: 0 straight.
    collector : float
        Brightness of what lies below the mat.
    """

    radius: float
    coverage: float
    alignment: float
    direction: float
    curl: float
    collector: float


def draw_mat(rng: np.random.Generator, unit: float) -> Mat:
    """Draw a mat as they come; ``unit`` is the image's shorter side over 348 pixels."""
    radius = float(np.exp(rng.uniform(np.log(1.3), np.log(9.0)))) * unit
    return Mat(
        radius=radius,
        coverage=float(rng.uniform(1.2, 3.2)),
        alignment=float(rng.choice([0.0, rng.uniform(0, 0.8)])),
        direction=float(rng.uniform(0, np.pi)),
        curl=float(np.exp(rng.uniform(np.log(0.02), np.log(0.8)))),
        collector=float(
            rng.choice([rng.uniform(0.02, 0.1), rng.uniform(0.1, 0.3)], p=[0.75, 0.25])
        ),
    )


def make_surface(
    rng: np.random.Generator,
    shape: tuple[int, int],
    mat: Mat,
    defects: tuple[str, ...],
    unit: float,
) -> Surface:
    """Lay the fibres of a mat, with defects of the given kinds, one for each name."""
    substrate = mat.collector * (1 + 0.12 * smooth_noise(rng, shape, 24 * unit, octaves=4))
    surface = Surface(shape, np.maximum(substrate, 0.005), 0.25 / (8 * mat.radius))
    strands = _strands(rng, shape, mat)
    n_beads = int(rng.integers(1, 9, defects.count("bead")).sum())
    strands = _with_beads(rng, shape, mat, strands, n_beads, unit)
    holes = [
        _blob(rng, shape, _extent(rng, mat, unit, 22, 60)) for kind in defects if kind == "hole"
    ]
    surface.paint_strands(_without(strands, holes))
    for hole in holes:
        # Where there was a hole, whatever one sees through it is part of it.
        surface.defect |= hole & (surface.height < 0.35)
    for kind in defects:
        if kind in _PAINTED:
            _PAINTED[kind](rng, surface, mat, unit)
    return surface


def _strands(rng: np.random.Generator, shape: tuple[int, int], mat: Mat) -> Strands:
    diagonal = float(np.hypot(*shape))
    n = max(6, int(mat.coverage * shape[0] * shape[1] / (2 * mat.radius * 0.75 * diagonal)))
    spread = (1 - mat.alignment) * np.pi / 2
    chains = worm_like_chains(
        rng,
        anchors=rng.uniform(-0.05, 1.05, (n, 2)) * np.asarray(shape),
        headings=mat.direction + rng.uniform(-spread, spread, n),
        length=np.full(n, 2.2 * diagonal),
        persistence=diagonal / mat.curl**2 / 2,
        step=0.7 * _REFINEMENT,
        stiffness=max(6 * mat.radius, 0.08 * diagonal),
    )
    chains = _refined(chains)
    n_points = chains.shape[1]
    width = mat.radius * np.exp(rng.normal(0, 0.16, n)).astype(np.float32)
    level = rng.uniform(0, 1, n).astype(np.float32)
    # Fibres sag and climb over each other: none stays at one height.
    phase, pitch = rng.uniform(0, 2 * np.pi, n), rng.uniform(0.4, 1.2, n) * diagonal
    arc = np.arange(n_points) * (2.2 * diagonal / n_points)
    sag = 0.06 * np.sin(arc[None] * (2 * np.pi / pitch[:, None]) + phase[:, None])
    return Strands(
        chains=chains,
        radius=np.repeat(width[:, None], n_points, axis=1),
        height=(level[:, None] + sag).astype(np.float32),
        brightness=rng.uniform(0.85, 1.1, n).astype(np.float32),
        defect=np.zeros((n, n_points), dtype=bool),
    )


def _refined(chains: NDArray[np.float32]) -> NDArray[np.float32]:
    """Put points on the straight lines between points."""
    between = np.arange(_REFINEMENT, dtype=np.float32)[:, None] / _REFINEMENT
    steps = np.diff(chains, axis=1)
    points = chains[:, :-1, None] + between * steps[:, :, None]
    return points.reshape(len(chains), -1, 2).astype(np.float32)


def _with_beads(
    rng: np.random.Generator,
    shape: tuple[int, int],
    mat: Mat,
    strands: Strands,
    n_beads: int,
    unit: float,
) -> Strands:
    """Swell fibres to spindles; those near the top, so that they are seen."""
    radius, height, defect = strands.radius.copy(), strands.height.copy(), strands.defect.copy()
    within = (strands.chains >= 0) & (strands.chains < np.asarray(shape))
    inside: BoolMap = np.all(within, axis=2)
    for _ in range(n_beads):
        fibre = int(rng.choice(np.flatnonzero(np.any(inside, axis=1))))
        at = int(rng.choice(np.flatnonzero(inside[fibre])))
        swelling = max(rng.uniform(1.6, 3.6) * mat.radius, 4 * unit)
        step = float(np.linalg.norm(np.diff(strands.chains[fibre, :2], axis=0)))
        length = swelling * rng.uniform(1.3, 3.0) / max(step, 1e-3)
        bump = np.exp(-(((np.arange(radius.shape[1]) - at) / length) ** 2)).astype(np.float32)
        radius[fibre] += np.float32(swelling) * bump
        height[fibre] += np.float32(rng.uniform(0.65, 1.0) - height[fibre, at]) * bump
        defect[fibre] |= bump > 0.25
    return Strands(strands.chains, radius, height, strands.brightness, defect)


def _without(strands: Strands, holes: list[BoolMap]) -> Strands:
    """Take the fibres out of the holes, but for a few deep ones."""
    radius = strands.radius.copy()
    for hole in holes:
        rows, columns = np.rint(strands.chains).astype(int).transpose(2, 0, 1)
        within = (rows >= 0) & (rows < hole.shape[0]) & (columns >= 0) & (columns < hole.shape[1])
        inside = np.zeros(rows.shape, dtype=bool)
        inside[within] = hole[rows[within], columns[within]]
        radius[inside & (strands.height > 0.12)] = 0
    return Strands(strands.chains, radius, strands.height, strands.brightness, strands.defect)


def _film(rng: np.random.Generator, surface: Surface, mat: Mat, unit: float) -> None:
    """A web of solvent-rich polymer between fibres, below the uppermost of them."""
    inside = _blob(rng, surface.height.shape, _extent(rng, mat, unit, 25, 70))
    # Meniscus: it climbs where fibres hold it.
    level = rng.uniform(0.6, 0.85)
    held = gaussian_filter(surface.height, 2.5 * mat.radius)
    height = np.float32(level) + 0.1 * np.clip(held, 0, 1)
    texture = 0.04 * smooth_noise(rng, surface.height.shape, 12 * unit, octaves=3)
    surface.paint_region(inside, height, rng.uniform(0.55, 0.95) * (1 + texture))


def _clump(rng: np.random.Generator, surface: Surface, mat: Mat, unit: float) -> None:
    """A lump of fused fibres: a dome, wrinkled along random directions."""
    shape = surface.height.shape
    size = _extent(rng, mat, unit, 14, 42)
    inside = _blob(rng, shape, size)
    dome = np.sqrt(np.clip(distance_transform_edt(inside) / max(size, 1), 0, 1)).astype(np.float32)
    wrinkles = smooth_noise(rng, shape, max(2.5 * mat.radius, 4 * unit), octaves=2)
    dome = dome * (1 + 0.1 * wrinkles)
    height = np.float32(rng.uniform(0.6, 0.9)) + 0.5 * dome
    slope = np.hypot(*np.gradient(gaussian_filter(dome, 1.0) * size))
    light = edge_yield(1 / np.sqrt(1 + slope.astype(np.float32) ** 2)) * rng.uniform(0.9, 1.25)
    surface.paint_region(inside, height, light.astype(np.float32))


def _particle(rng: np.random.Generator, surface: Surface, mat: Mat, unit: float) -> None:
    """A splinter or a grain of dust on top: flat facets, and brighter, because it charges."""
    shape = surface.height.shape
    size = _extent(rng, mat, unit, 6, 24)
    centre = rng.uniform(0.06, 0.94, 2) * np.asarray(shape)
    rows = np.arange(shape[0], dtype=np.float32)[:, None] - np.float32(centre[0])
    columns = np.arange(shape[1], dtype=np.float32)[None, :] - np.float32(centre[1])
    angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(5, 9))))
    reach = size * rng.uniform(0.6, 1.1, len(angles))
    # Distance inside each side of a polygon; the nearest side is the facet one stands on.
    sides = np.stack(
        [r - rows * np.sin(a) - columns * np.cos(a) for a, r in zip(angles, reach, strict=True)]
    )
    depth, facet = sides.min(axis=0), sides.argmin(axis=0)
    inside = (depth > 0) & (rows**2 + columns**2 < (2.2 * size) ** 2)
    tone = rng.uniform(0.8, 1.6, len(angles)).astype(np.float32)
    plateau = depth > 0.45 * size
    light = np.where(plateau, np.float32(rng.uniform(1.0, 1.5)), tone[facet])
    light = light * (1 + 0.08 * smooth_noise(rng, shape, 5 * unit, octaves=3))
    height = 1.05 + 0.3 * np.clip(depth / size, 0, 0.45)
    surface.paint_region(inside, height.astype(np.float32), light.astype(np.float32))


_PAINTED = {"film": _film, "clump": _clump, "particle": _particle}


def _extent(rng: np.random.Generator, mat: Mat, unit: float, low: float, high: float) -> float:
    """Radius of a defect in pixels: small ones are the rule; none is finer than the fibres."""
    drawn = np.exp(rng.uniform(np.log(low), np.log(high))) * unit
    return float(max(drawn, 2.5 * mat.radius))


def _blob(rng: np.random.Generator, shape: tuple[int, int], radius: float) -> BoolMap:
    """A rounded, uneven region of about this radius, its centre inside the image."""
    centre = rng.uniform(0.06, 0.94, 2) * np.asarray(shape)
    stretch, angle = np.exp(rng.uniform(0, 0.5)), rng.uniform(0, np.pi)
    rows = np.arange(shape[0], dtype=np.float32)[:, None] - np.float32(centre[0])
    columns = np.arange(shape[1], dtype=np.float32)[None, :] - np.float32(centre[1])
    along = (rows * np.sin(angle) + columns * np.cos(angle)) / stretch
    beside = (rows * np.cos(angle) - columns * np.sin(angle)) * stretch
    uneven = 0.22 * smooth_noise(rng, shape, max(radius * 0.9, 3.0), octaves=2)
    return np.asarray(np.hypot(along, beside) / radius + uneven < 1)
