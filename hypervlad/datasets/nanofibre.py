"""Synthetic scanning electron micrographs of electrospun nanofibre mats, with their defects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter

from hypervlad.datasets.drawing import (
    BoolMap,
    FloatMap,
    check_count,
    check_size,
    draw_seed,
    log_uniform,
    random_blob,
    rows_and_columns,
    smooth_noise,
    worm_like_chains,
)
from hypervlad.datasets.sem import (
    SAMPLING,
    Strands,
    Surface,
    block_means,
    edge_yield,
    scan_surface,
)

#: The default kinds of defects: see `make_nanofibre_images`.
NANOFIBRE_DEFECTS: tuple[str, ...] = ("bead", "clump", "film", "hole", "particle")
_KINDS = (*NANOFIBRE_DEFECTS, "missing")
_REFINEMENT = 6  # painted points per drawn point: fibres bend slowly


def make_nanofibre_images(
    n: int,
    *,
    defective: float = 0.5,
    defects: Sequence[str] = NANOFIBRE_DEFECTS,
    size: int | tuple[int, int] = (348, 512),
    random_state: int | np.random.RandomState | None = None,
) -> tuple[list[NDArray[np.float32]], list[NDArray[np.bool_]]]:
    """Make synthetic SEM images of nanofibre mats, some with defects, and the defects' masks.

    Parameters
    ----------
    n : int
        Number of images, at least 1.
    defective : float, default=0.5
        Share of images with defects, one to four each.
    defects : sequence of str, default=NANOFIBRE_DEFECTS
        Kinds to draw from: "bead", a swelling of a fibre; "clump", a lump of fused fibres; "film",
        a web of polymer between fibres; "hole", an area without fibres; "particle", a foreign
        particle; and, only if named, "missing", an area with half of the fibres or fewer.
    size : int or (int, int), default=(348, 512)
        Height and width in pixels, each at least 64. All sizes have the same field of view.
    random_state : int, RandomState or None, default=None
        As in `make_tem_images`.

    Returns
    -------
    images : list of n arrays of shape (H, W), float32 in [0, 1]
    masks : list of n arrays of shape (H, W), bool
        True where a defect is visible, or what missing fibres would cover.

    Raises
    ------
    ValueError
        If a parameter is out of range or a kind of defect is unknown.

    Examples
    --------
    >>> from hypervlad.data import make_nanofibre_images
    >>> images, masks = make_nanofibre_images(2, size=96, random_state=0)
    >>> images[0].shape, [bool(mask.any()) for mask in masks]
    ((96, 96), [False, True])
    """
    kinds = _check_kinds(defects, defective)
    n = check_count(n)
    height, width = check_size(size)
    seed = draw_seed(random_state)
    flawed = _which_are_defective(n, defective, seed)
    made = [
        _make_image(np.random.default_rng([1, seed, i]), kinds if flawed[i] else (), height, width)
        for i in range(n)
    ]
    return [image for image, _ in made], [mask for _, mask in made]


def _make_image(
    rng: Generator, kinds: tuple[str, ...], height: int, width: int
) -> tuple[FloatMap, BoolMap]:
    unit = SAMPLING * min(height, width) / 348
    mat = draw_mat(rng, unit)
    wanted = int(rng.integers(1, 5))
    drawn = tuple(str(kind) for kind in rng.choice(kinds, wanted)) if kinds else ()
    surface = make_surface(rng, (height * SAMPLING, width * SAMPLING), mat, drawn, unit)
    image = scan_surface(surface, rng, unit)
    return image, block_means(surface.defect) >= 0.5


def _which_are_defective(n: int, share: float, seed: int) -> BoolMap:
    """Choose images so that every prefix has the share, within one image."""
    start = np.random.default_rng([0, seed]).random()
    steps: NDArray[np.float64] = np.floor(start + share * np.arange(n + 1))
    return np.diff(steps) > 0


def _check_kinds(defects: Sequence[str], defective: float) -> tuple[str, ...]:
    if isinstance(defective, bool) or not 0 <= defective <= 1:
        raise ValueError(f"defective={defective!r}: expected a share of the images, 0 to 1.")
    kinds = (defects,) if isinstance(defects, str) else tuple(defects)
    unknown = sorted(set(kinds) - set(_KINDS))
    if unknown or (not kinds and defective):
        raise ValueError(
            f"defects={defects!r}: expected some of {', '.join(_KINDS)}; for images without "
            "any, defective=0."
        )
    return kinds


@dataclass(frozen=True)
class Mat:
    radius: float  # mean radius of the fibres, in pixels
    coverage: float  # total area of the fibres over the area of the image
    alignment: float  # of the fibres: 0 random, 1 parallel
    direction: float  # mean, radians
    curl: float  # how much fibres bend over the width of the image: 0 straight
    collector: float  # brightness below the mat


def draw_mat(rng: Generator, unit: float) -> Mat:
    radius = float(log_uniform(rng, 1.3, 9.0)) * unit
    return Mat(
        radius=radius,
        coverage=float(rng.uniform(1.2, 3.2)),
        alignment=float(rng.choice([0.0, rng.uniform(0, 0.8)])),
        direction=float(rng.uniform(0, np.pi)),
        curl=float(log_uniform(rng, 0.02, 0.8)),
        collector=float(
            rng.choice([rng.uniform(0.02, 0.1), rng.uniform(0.1, 0.3)], p=[0.75, 0.25])
        ),
    )


def make_surface(
    rng: Generator, shape: tuple[int, int], mat: Mat, defects: tuple[str, ...], unit: float
) -> Surface:
    substrate = mat.collector * (1 + 0.12 * smooth_noise(rng, shape, 24 * unit, octaves=4))
    surface = Surface(shape, np.maximum(substrate, 0.005), 0.25 / (8 * mat.radius))
    strands = _strands(rng, shape, mat)
    n_beads = int(rng.integers(1, 9, defects.count("bead")).sum())
    strands = _with_beads(rng, shape, mat, strands, n_beads, unit)
    holes = [
        random_blob(rng, shape, _extent(rng, mat, unit, 22, 60))
        for kind in defects
        if kind == "hole"
    ]
    strands = _without(strands, holes)
    missing: BoolMap = np.zeros(strands.radius.shape, dtype=bool)
    for _ in range(defects.count("missing")):
        missing |= _missing_points(rng, shape, strands, _extent(rng, mat, unit, 30, 75))
    surface.paint_strands(replace(strands, radius=np.where(missing, 0, strands.radius)))
    for hole in holes:
        # Everything visible through a hole belongs to it.
        surface.defect |= hole & (surface.height < 0.35)
    if missing.any():
        absent = replace(strands, radius=np.where(missing, strands.radius, 0))
        surface.defect |= missing_area(surface, absent, 3 * mat.radius + 4 * unit)
    for kind in defects:
        if kind in _PAINTED:
            _PAINTED[kind](rng, surface, mat, unit)
    return surface


def _strands(rng: Generator, shape: tuple[int, int], mat: Mat) -> Strands:
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
    # Fibres sag and cross each other: none stays at one height.
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


def _refined(chains: FloatMap) -> FloatMap:
    between = np.arange(_REFINEMENT, dtype=np.float32)[:, None] / _REFINEMENT
    steps = np.diff(chains, axis=1)
    points = chains[:, :-1, None] + between * steps[:, :, None]
    return points.reshape(len(chains), -1, 2).astype(np.float32)


def _with_beads(
    rng: Generator, shape: tuple[int, int], mat: Mat, strands: Strands, n_beads: int, unit: float
) -> Strands:
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
    """Remove the fibres from the holes, except a few deep ones."""
    radius = strands.radius.copy()
    for hole in holes:
        radius[_inside(strands, hole) & (strands.height > 0.12)] = 0
    return replace(strands, radius=radius)


def _missing_points(
    rng: Generator, shape: tuple[int, int], strands: Strands, extent: float
) -> BoolMap:
    """Return points of half to three quarters of the fibres in a random area."""
    area = random_blob(rng, shape, extent)
    # The fibres do not end at one line.
    shifts = rng.normal(0, 0.2 * extent, (len(strands.chains), 1, 2)).astype(np.float32)
    inside = _inside(replace(strands, chains=strands.chains + shifts), area)
    crossing = np.flatnonzero(inside.any(axis=1))
    chosen = rng.choice(crossing, round(rng.uniform(0.5, 0.75) * len(crossing)), replace=False)
    missing: BoolMap = np.zeros(inside.shape, dtype=bool)
    missing[chosen] = inside[chosen]
    return missing


def _inside(strands: Strands, region: BoolMap) -> BoolMap:
    rows, columns = np.rint(strands.chains).astype(int).transpose(2, 0, 1)
    within = (rows >= 0) & (rows < region.shape[0]) & (columns >= 0) & (columns < region.shape[1])
    inside: BoolMap = np.zeros(rows.shape, dtype=bool)
    inside[within] = region[rows[within], columns[within]]
    return inside


def missing_area(surface: Surface, missing: Strands, reach: float) -> BoolMap:
    """Return where missing fibres would be uppermost, and narrow gaps between."""
    complete = Surface(surface.height.shape, surface.yield_, surface.pixel)
    complete.paint_strands(missing)
    uncovered: BoolMap = complete.height > surface.height
    if not uncovered.any():
        return uncovered
    near = distance_transform_edt(~uncovered) <= reach
    return np.asarray(distance_transform_edt(near) > reach)


def _film(rng: Generator, surface: Surface, mat: Mat, unit: float) -> None:
    inside = random_blob(rng, surface.height.shape, _extent(rng, mat, unit, 25, 70))
    # A meniscus: the film rises at fibres.
    level = rng.uniform(0.6, 0.85)
    held = gaussian_filter(surface.height, 2.5 * mat.radius)
    height = np.float32(level) + 0.1 * np.clip(held, 0, 1)
    texture = 0.04 * smooth_noise(rng, surface.height.shape, 12 * unit, octaves=3)
    surface.paint_defect(inside, height, rng.uniform(0.55, 0.95) * (1 + texture))


def _clump(rng: Generator, surface: Surface, mat: Mat, unit: float) -> None:
    shape = surface.height.shape
    size = _extent(rng, mat, unit, 14, 42)
    inside = random_blob(rng, shape, size)
    dome = np.sqrt(np.clip(distance_transform_edt(inside) / max(size, 1), 0, 1)).astype(np.float32)
    wrinkles = smooth_noise(rng, shape, max(2.5 * mat.radius, 4 * unit), octaves=2)
    dome = dome * (1 + 0.1 * wrinkles)
    height = np.float32(rng.uniform(0.6, 0.9)) + 0.5 * dome
    slope = np.hypot(*np.gradient(gaussian_filter(dome, 1.0) * size))
    light = edge_yield(1 / np.sqrt(1 + slope.astype(np.float32) ** 2)) * rng.uniform(0.9, 1.25)
    surface.paint_defect(inside, height, light.astype(np.float32))


def _particle(rng: Generator, surface: Surface, mat: Mat, unit: float) -> None:
    shape = surface.height.shape
    size = _extent(rng, mat, unit, 6, 24)
    centre = rng.uniform(0.06, 0.94, 2) * np.asarray(shape)
    rows, columns = rows_and_columns(shape, centre)
    angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(5, 9))))
    reach = size * rng.uniform(0.6, 1.1, len(angles))
    # Distance to each side of a polygon; the nearest side is the facet of a point.
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
    surface.paint_defect(inside, height.astype(np.float32), light.astype(np.float32))


_PAINTED = {"film": _film, "clump": _clump, "particle": _particle}


def _extent(rng: Generator, mat: Mat, unit: float, low: float, high: float) -> float:
    return float(max(log_uniform(rng, low, high) * unit, 2.5 * mat.radius))
