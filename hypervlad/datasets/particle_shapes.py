"""Structures that `make_particle_fields` places: those of `make_tem_images`, and solids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation
from skimage.transform import resize

from hypervlad.datasets.drawing import (
    BoolMap,
    FloatMap,
    log_uniform,
    rows_and_columns,
    smooth_noise,
)
from hypervlad.datasets.tem import TEM_CLASSES, TEM_FINE_CLASSES
from hypervlad.datasets.tem_scenes import SCENES, Stage
from hypervlad.datasets.tem_specimens import Walls, tube_thickness

SOLIDS = ("cube", "rod", "sphere")
PARTICLE_CLASSES = (*TEM_CLASSES, *TEM_FINE_CLASSES, *SOLIDS)

_MIN_UNIT = 0.75  # scale at which structures are drawn, before they shrink to their extent
# Sides of canvases, in those of an image of one structure: particles do not reach their edges.
_CANVAS, _CANVASES = 3.2, {"matrix": 2.2, **dict.fromkeys(SOLIDS, 1.2)}
_MIN_WIDTH = 2.5  # of a fibre in pixels
_MIN_SHARE = 0.9  # of the area that is drawn, in one piece when it is shrunk
_MAX_TRIES = 10
_SOFT = 2  # pixels around the box, for the soft edge of a particle


@dataclass(frozen=True)
class Structure:
    """A particle alone; maps have the shape of its box with a margin, (H, W)."""

    name: str
    tubes: FloatMap  # thickness in tube radii
    matrix: FloatMap  # thickness of its compact part: 0 outside, typically at most 1
    metal: FloatMap  # thickness of catalyst particles in their radii
    height: FloatMap  # of the upper surface of the compact part, in pixels
    mask: BoolMap
    length: float  # along the centre line in pixels, NaN where it has none
    width: float
    seed: int  # of the properties of its material

    @property
    def extent(self) -> NDArray[np.intp]:
        return np.array(self.mask.shape)


def draw_structure(rng: Generator, names: Sequence[str], extent: tuple[float, float]) -> Structure:
    """Draw a structure of which hardly a part is too thin for its pixels, if one is found."""
    name = names[int(rng.integers(len(names)))]
    side, seed = float(log_uniform(rng, *extent)), int(rng.integers(2**31 - 1))
    best, best_share = None, -1.0
    for _ in range(_MAX_TRIES):
        stage, height = _draw(rng, name, side)
        structure, share = _fit(stage, height, name, side, seed)
        if structure.width < _MIN_WIDTH:
            share *= structure.width / _MIN_WIDTH
        if share > best_share:
            best, best_share = structure, share
        if share > _MIN_SHARE:
            break
    assert best is not None
    return best


def _draw(rng: Generator, name: str, extent: float) -> tuple[Stage, FloatMap]:
    unit = max(_MIN_UNIT, extent / 224)
    members = [fine for fine, coarse in TEM_FINE_CLASSES.items() if name in (fine, coarse)]
    fine = members[int(rng.integers(len(members)))] if members else name
    canvas = _CANVASES.get(TEM_FINE_CLASSES.get(fine, fine), _CANVAS)
    stage = Stage(rng, (int(canvas * 224 * unit),) * 2, unit)
    if fine in SOLIDS:
        return stage, _draw_solid(stage, fine)
    SCENES[fine](stage)
    return stage, stage.matrix * np.float32(0.3 * stage.side)


def _fit(
    stage: Stage, height: FloatMap, name: str, extent: float, seed: int
) -> tuple[Structure, float]:
    """Shrink the largest piece to its extent, and return the share of the area that it keeps.

    Thickness stays the same.
    """
    drawn = (stage.tubes > 0.3) | (stage.matrix > 0.06) | (stage.metal > 0.3)
    piece = _largest(drawn)
    (window,) = ndimage.find_objects(piece.astype(np.uint8))
    shape = np.array([part.stop - part.start for part in window])
    scale = extent / max(shape)
    drawn_maps = (stage.tubes, stage.matrix, stage.metal, np.float32(scale) * height, piece)
    maps = np.stack([each[window] for each in drawn_maps], axis=-1)
    target = np.maximum(np.round(scale * shape).astype(int), 3)
    maps = resize(maps, tuple(target), order=1, mode="constant", anti_aliasing=True)
    maps = np.pad(maps, ((_SOFT, _SOFT), (_SOFT, _SOFT), (0, 0)))
    covered = maps[..., 4]
    mask = _largest(covered >= min(0.5, covered.max()))
    maps = maps * ndimage.binary_dilation(mask, iterations=_SOFT)[..., None]
    tubes, matrix, metal, top = maps[..., :4].astype(np.float32).transpose(2, 0, 1)
    length, width = stage.fibre or (np.nan, np.nan)
    sizes = scale * length, scale * width
    structure = Structure(name, tubes, matrix, metal, top, mask, *sizes, seed)
    return structure, float(mask.sum() / (scale**2 * drawn.sum()))


def _largest(mask: BoolMap) -> BoolMap:
    pieces, _ = ndimage.label(mask, np.ones((3, 3)))
    return np.asarray(pieces == np.argmax(np.bincount(pieces[mask])))


def _draw_solid(stage: Stage, name: str) -> FloatMap:
    """Draw a solid of about the size of an image, and return the height of its upper surface."""
    rng, radius = stage.rng, 0.4 * stage.side
    centre = np.array(stage.shape) / 2
    rows, cols = rows_and_columns(stage.shape, centre)
    if name == "sphere":
        stage.matrix += np.sqrt(np.maximum(0, 1 - (rows**2 + cols**2) / np.float32(radius**2)))
        height = stage.matrix * np.float32(radius)
    elif name == "rod":
        angle, width = rng.uniform(0, np.pi), 2 * radius / rng.uniform(2.5, 7)
        along = np.linspace(-radius, radius, 400)[:, None]
        line = (centre + along * [np.sin(angle), np.cos(angle)]).astype(np.float32)
        walls = Walls(0.0, roughness=0.0)
        thickness = tube_thickness(stage.shape, line[None], np.array([width / 2]), walls, rng)
        stage.matrix += thickness / 2
        stage.fibre = 2 * radius, width
        height = stage.matrix * np.float32(width / 2)
    else:
        # Half of the cubes lie on a face, but for a tilt that keeps their sides' slopes finite.
        tilt = rng.uniform(0.1, 0.7, 2) if rng.random() < 0.5 else (0.005, 0.005)
        normals = Rotation.from_euler("zyx", [rng.uniform(0, np.pi), *tilt]).as_matrix().T
        half = 0.6 * radius
        upper, lower = np.full(stage.shape, np.inf), np.full(stage.shape, -np.inf)
        for across, down, up in normals:
            faces = np.array([[[-half]], [[half]]]) - across * cols - down * rows
            upper = np.minimum(upper, (faces / up).max(axis=0))
            lower = np.maximum(lower, (faces / up).min(axis=0))
        thickness = np.maximum(0, upper - lower)
        stage.matrix += (thickness / (2 * half)).astype(np.float32)
        height = np.where(thickness > 0, upper + half, 0).astype(np.float32)
    # Crystals are never evenly dark.
    stage.matrix *= 1 + np.float32(0.07) * smooth_noise(rng, stage.shape, 0.4 * radius, octaves=3)
    return height
