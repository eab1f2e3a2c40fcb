"""Synthetic fields of several particles, whose outlines, classes and sizes are known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage
from scipy.ndimage import gaussian_filter

from hypervlad.common.constraints import ListOf, OneOf, check_value
from hypervlad.datasets.drawing import (
    Drawn,
    FloatMap,
    check_count,
    check_drawn,
    check_size,
    draw_seed,
    log_uniform,
    smooth_noise,
)
from hypervlad.datasets.particle_shapes import PARTICLE_CLASSES, Structure, draw_structure
from hypervlad.datasets.sem import edge_yield
from hypervlad.datasets.tem import TEM_CLASSES, propagate
from hypervlad.datasets.tem_scenes import Specimen, Stage, scatter_dirt
from hypervlad.datasets.tem_specimens import Support, make_support
from hypervlad.objects.particle import Outlines, cropped

_GAP = 3  # pixels between particles that do not touch
_MAX_HIDDEN = 0.3  # share of the smaller of two particles, where they overlap
_MIN_INSIDE = 0.25  # share of a particle that is inside the field
_MAX_TRIES = 150
_MARGIN = 16  # pixels that the Fourier transform may spoil

Window = tuple[slice, ...]

# Separate the random numbers of fields and of structures.
_FIELDS, _STRUCTURES = 4, 5


@dataclass(frozen=True, eq=False)
class ParticleFieldTruth:
    """The truth of an image of `make_particle_fields`, which shows n particles.

    Attributes
    ----------
    outlines : Outlines
        The mask of each particle in the field, with what a later particle hides; labels are 1 to n.
    classes : ndarray of str, shape (n,)
    area : ndarray of float, shape (n,)
        Pixels of the whole particle, with parts that are hidden or outside the field.
    diameter : ndarray of float, shape (n,)
        Of the circle of this area, in pixels.
    length, width : ndarray of float, shape (n,)
        Along the centre line, and across it, of fibres and rods in pixels; NaN for other classes.
    visible : ndarray of float, shape (n,)
        Share of the area that is inside the field and not hidden.
    """

    outlines: Outlines
    classes: NDArray[np.str_]
    area: NDArray[np.float64]
    length: NDArray[np.float64]
    width: NDArray[np.float64]
    visible: NDArray[np.float64]

    @property
    def labels(self) -> NDArray[np.int32]:
        """The label image, shape (H, W): 0 for background; of overlapping particles the upper."""
        return self.outlines.label_image()

    @property
    def diameter(self) -> NDArray[np.float64]:
        return np.asarray(np.sqrt(4 / np.pi * self.area))


@dataclass(frozen=True)
class _Placed:
    structure: Structure
    corner: NDArray[np.int64]  # row and column of its first pixel in the field

    @property
    def centre(self) -> NDArray[np.floating]:
        return np.asarray(self.corner + self.structure.extent / 2)

    def windows(self, shape: tuple[int, int], margin: int = 0) -> tuple[Window, Window]:
        """Return where it is in a field with a margin, and the same part of the structure."""
        corner = self.corner + margin
        low = np.maximum(corner, 0)
        high = np.maximum(np.minimum(corner + self.structure.extent, shape), low)
        own = map(slice, (low - corner).tolist(), (high - corner).tolist())
        return tuple(map(slice, low.tolist(), high.tolist())), tuple(own)


def make_particle_fields(
    n: int,
    *,
    kind: Literal["tem", "sem"] = "tem",
    classes: Iterable[str] = TEM_CLASSES,
    n_particles: int | tuple[int, int] = (3, 9),
    extent: Drawn | None = None,
    touching: Drawn = 0.2,
    background: Literal["plain", "cluttered"] = "plain",
    illumination: Drawn = (0.0, 0.3),
    noise: Drawn = (0.02, 0.06),
    blur: Drawn = (0.5, 1.5),
    size: int | tuple[int, int] = 512,
    random_state: int | np.random.RandomState | None = None,
) -> tuple[list[NDArray[np.float32]], list[ParticleFieldTruth]]:
    """Make micrographs of several particles, with the outline, class and size of each.

    A pair gives the bounds of a value drawn for each field, or, as `extent`, for each particle.

    Parameters
    ----------
    n : int
        Number of fields, at least 1.
    kind : {"tem", "sem"}, default="tem"
        Bright field, where thickness adds up, or secondary electrons, where the upper particle
        hides the lower.
    classes : iterable of str, default=TEM_CLASSES
        Of the particles, equally probable: classes of `TEM_CLASSES` and `TEM_FINE_CLASSES`, and
        "sphere", "rod" and "cube".
    n_particles : int or (int, int), default=(3, 9)
        Particles per field; fields of 0 are empty. The centres of their boxes are uniform in the
        field, so its edges cut some. With 1, the particle lies entirely within the field, near its
        middle.
    extent : float or pair, optional
        Longer side of the box of a particle in pixels, at least 12 and at most 0.8 of the shorter
        side of the field, by default 0.12 to 0.3 of it; uniform in its logarithm, and independent
        of the class. Below 60, parts of thin tubes may be lost, with which particles are smaller.
    touching : float or pair, default=0.2
        Probability that a particle touches or overlaps an earlier one. Others keep a distance of 3
        pixels, unless the field is too full.
    background : {"plain", "cluttered"}, default="plain"
        Cluttered: a support with holes, bars or ridges, dirt and stains, which have no outlines.
    illumination : float or pair, default=(0, 0.3)
        Range of the brightness of the background over its mean, at most 1.
    noise : float or pair, default=(0.02, 0.06)
        Standard deviation of the noise where the image is 0.5; its square is proportional to the
        brightness, as counting electrons makes it.
    blur : float or pair, default=(0.5, 1.5)
        Standard deviation of the defocus in pixels.
    size : int or (int, int), default=512
        Height and width in pixels, each at least 64.
    random_state : int, RandomState or None, default=None
        Seed. With the same integer, the first fields are the same whatever ``n`` is. Counted over
        all fields, particle ``i`` has the same structure and size whatever ``kind``,
        ``n_particles``, ``background`` and, if `extent` is given, ``size`` are: with
        ``n_particles=1``, each is alone in an image.

    Returns
    -------
    images : list of n arrays of shape (H, W), float32 in [0, 1]
    truths : list of n ParticleFieldTruth

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Examples
    --------
    >>> from hypervlad.data import make_particle_fields
    >>> (image,), (truth,) = make_particle_fields(
    ...     1, classes=("sphere", "rod"), n_particles=4, size=256, random_state=0
    ... )
    >>> image.shape, len(truth.outlines), sorted(set(truth.classes.tolist()))
    ((256, 256), 4, ['rod', 'sphere'])
    """
    n = check_count(n)
    shape = check_size(size)
    check_value("kind", kind, [OneOf("tem", "sem")])
    check_value("background", background, [OneOf("plain", "cluttered")])
    is_list = not isinstance(classes, str) and np.iterable(classes)
    names: Any = tuple(classes) if is_list else classes
    check_value("classes", names, [ListOf(OneOf(*PARTICLE_CLASSES), "a list of names")])
    fewest, most = check_drawn("n_particles", n_particles, 0, 100_000, integral=True)
    shorter = min(shape)
    default = (max(12, 0.12 * shorter), 0.3 * shorter)
    extents = check_drawn("extent", default if extent is None else extent, 12, 0.8 * shorter)
    shares = check_drawn("touching", touching, 0, 1)
    optics = {
        "illumination": check_drawn("illumination", illumination, 0, 1),
        "noise": check_drawn("noise", noise, 0, 0.5),
        "blur": check_drawn("blur", blur, 0, 20),
    }
    seed = draw_seed(random_state)
    images, truths, number = [], [], 0
    for field in range(n):
        rng = np.random.default_rng([_FIELDS, seed, field])
        count = int(rng.integers(int(fewest), int(most) + 1))
        structures = [
            draw_structure(np.random.default_rng([_STRUCTURES, seed, number + i]), names, extents)
            for i in range(count)
        ]
        number += count
        if fewest == most == 1:
            corner = rng.uniform(0.2, 0.8, 2) * (shape - structures[0].extent)
            placed = [_Placed(structures[0], corner.astype(int))]
        else:
            placed = _place_all(rng, structures, shape, rng.uniform(*shares))
        drawn = {name: rng.uniform(*bounds) for name, bounds in optics.items()}
        render = _transmit if kind == "tem" else _scan
        scene = render(rng, placed, shape, background == "cluttered")
        images.append(_record(rng, scene, **drawn))
        truths.append(_truth(placed, shape))
    return images, truths


# --- places --------------------------------------------------------------------------------------


def _place_all(
    rng: Generator, structures: Sequence[Structure], shape: tuple[int, int], touching: float
) -> list[_Placed]:
    labels = np.zeros(shape, np.int32)
    placed: list[_Placed] = []
    for structure in structures:
        touched = None
        if placed and rng.random() < touching:
            touched = placed[int(rng.integers(len(placed)))]
        placed.append(_place(rng, structure, labels, touched))
        field, own = placed[-1].windows(shape)
        labels[field][structure.mask[own]] = len(placed)
    return placed


def _place(
    rng: Generator, structure: Structure, labels: NDArray[np.int32], touched: _Placed | None
) -> _Placed:
    """Return a place where it touches nothing, or what it should; the best of those tried."""
    areas, area = np.bincount(labels.ravel())[1:], int(structure.mask.sum())
    near = ndimage.binary_dilation(labels > 0, iterations=_GAP)
    best, best_cost = None, np.inf
    for _ in range(_MAX_TRIES):
        centre = rng.uniform(0, 1, 2) * labels.shape
        if touched is not None:
            reach = (max(structure.extent) + max(touched.structure.extent)) / 2
            angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(0, reach)
            centre = touched.centre + distance * np.array([np.sin(angle), np.cos(angle)])
        candidate = _Placed(structure, np.floor(centre - structure.extent / 2).astype(int))
        field, own = candidate.windows(near.shape)
        inside = structure.mask[own]
        in_field = (centre >= 0).all() and (centre < labels.shape).all()
        # A curved fibre may have the centre of its box in the field, but hardly a part of it.
        cost = 8 * max(0.0, _MIN_INSIDE * area - float(inside.sum()))
        cost += 0 if in_field else 2 * area
        if touched is None:
            cost += float(near[field][inside].sum())
        else:
            hidden = np.bincount(labels[field][inside], minlength=len(areas) + 1)[1:]
            cost += np.maximum(0, hidden - _MAX_HIDDEN * np.minimum(areas, area)).sum()
            cost += 0 if hidden.any() else area
        if cost < best_cost:
            best, best_cost = candidate, cost
        if cost == 0:
            break
    assert best is not None
    return best


def _truth(placed: Sequence[_Placed], shape: tuple[int, int]) -> ParticleFieldTruth:
    outlines = []
    for label, each in enumerate(placed, start=1):
        (rows, columns), own = each.windows(shape)
        outlines.append(cropped(each.structure.mask[own], rows.start, columns.start, label))
    found = Outlines(shape, tuple(filter(None, outlines)))
    area = np.array([each.structure.mask.sum() for each in placed], float)
    seen = np.bincount(found.label_image().ravel(), minlength=len(placed) + 1)[1:]
    return ParticleFieldTruth(
        outlines=found,
        classes=np.array([each.structure.name for each in placed], dtype=np.str_),
        area=area,
        length=np.array([each.structure.length for each in placed], float),
        width=np.array([each.structure.width for each in placed], float),
        visible=seen / area,
    )


# --- images --------------------------------------------------------------------------------------


def _record(
    rng: Generator, scene: FloatMap, illumination: float, noise: float, blur: float
) -> FloatMap:
    image = gaussian_filter(scene * _light(rng, scene.shape, illumination), blur, mode="nearest")
    grain = rng.standard_normal(image.shape, dtype=np.float32)
    image = image + np.float32(noise) * grain * np.sqrt(np.maximum(image, 0.02) / 0.5)
    return np.asarray(np.clip(image, 0, 1), np.float32)


def _light(rng: Generator, shape: tuple[int, ...], strength: float) -> FloatMap:
    rows = np.linspace(-1, 1, shape[0], dtype=np.float32)[:, None]
    cols = np.linspace(-1, 1, shape[1], dtype=np.float32)[None, :]
    tilt, centre = rng.normal(0, 1, 2), rng.normal(0, 0.4, 2)
    field = tilt[0] * rows + tilt[1] * cols
    field = field - rng.uniform(0, 2) * ((rows - centre[0]) ** 2 + (cols - centre[1]) ** 2)
    relative = (field - field.min()) / max(float(np.ptp(field)), 1e-6)
    return np.asarray(1 + strength * (relative - 0.5), np.float32)


def _transmit(
    rng: Generator, placed: Sequence[_Placed], shape: tuple[int, int], is_cluttered: bool
) -> FloatMap:
    """Return the bright-field image: the optical depths of all particles and the film add up."""
    full = (shape[0] + 2 * _MARGIN, shape[1] + 2 * _MARGIN)
    film, opaque, loss = np.ones(full, np.float32), None, log_uniform(rng, 0.03, 0.15)
    absorption, phase = np.zeros(full, np.float32), np.zeros(full, np.float32)
    if is_cluttered:
        support, dirt = _clutter(rng, full)
        film, opaque, loss = support.film, support.bar, log_uniform(rng, 0.12, 0.4)
        absorption += rng.uniform(0.6, 1.6) * dirt.metal + rng.uniform(0.4, 1.2) * dirt.matrix
    amorphous = film.copy()
    for each in placed:
        own = np.random.default_rng(each.structure.seed)
        field, part = each.windows(full, _MARGIN)
        maps = each.structure.tubes, each.structure.matrix, each.structure.metal
        tubes, matrix, metal = (thickness[part] for thickness in maps)
        matrix_loss = log_uniform(own, 0.7, 2.6)
        tube_loss = max(own.uniform(0.25, 0.6), 0.22 * matrix_loss if matrix.any() else 0)
        absorption[field] += tube_loss * tubes + matrix_loss * matrix + metal
        phase[field] += own.uniform(0.2, 0.55) * tubes + 1.2 * (1 - np.exp(-1.5 * matrix))
        amorphous[field] += 1.5 * matrix + 0.3 * tubes
    stain = 1 + 0.15 * smooth_noise(rng, full, 0.3 * min(full), octaves=3)
    grain = rng.standard_normal(full, dtype=np.float32)
    absorption += loss * film * stain
    phase += 0.6 * film + log_uniform(rng, 0.04, 0.12) * np.sqrt(amorphous) * grain
    specimen = Specimen(absorption, phase.astype(np.float32), opaque)
    intensity = propagate(specimen, rng, 1.0)[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
    return np.asarray(rng.uniform(0.6, 0.85) * intensity, np.float32)


def _scan(
    rng: Generator, placed: Sequence[_Placed], shape: tuple[int, int], is_cluttered: bool
) -> FloatMap:
    """Return the image of secondary electrons: bright edges, and a detector at one side."""
    image = rng.uniform(0.1, 0.22) * (1 + 0.05 * smooth_noise(rng, shape, 24, octaves=3))
    if is_cluttered:
        support, dirt = _clutter(rng, shape)
        ridges = np.exp(-((smooth_noise(rng, shape, 40, octaves=3) / 0.06) ** 2))
        image *= 0.4 + 0.6 * support.film + rng.uniform(0.2, 0.9) * ridges
        image += 0.25 * np.minimum(dirt.metal, 1) + 0.08 * np.minimum(dirt.matrix, 1)
        if support.bar is not None:
            image += 0.2 * support.bar
    light = rng.uniform(0, 2 * np.pi)
    shade = rng.uniform(0.1, 0.4)
    for each in placed:
        structure, (field, part) = each.structure, each.windows(shape)
        own = np.random.default_rng(structure.seed)
        down, right = np.gradient(gaussian_filter(structure.height, 0.7))
        up = 1 / np.sqrt(1 + down**2 + right**2)
        towards = (down * np.sin(light) + right * np.cos(light)) * up
        compact = own.uniform(0.3, 0.48) * edge_yield(up) * (1 + shade * towards)
        covered = np.clip(structure.matrix / 0.06, 0, 1)
        tubes = structure.tubes * (1 - covered) + structure.metal
        thread = own.uniform(0.35, 0.55) * (0.6 + 0.4 * np.minimum(tubes, 2))
        opacity = covered + (1 - covered) * (1 - np.exp(-2 * tubes))
        signal = covered * compact + (1 - covered) * thread
        # Beside a high particle, fewer electrons reach the detector.
        beside = np.zeros(shape, np.float32)
        beside[field] = covered[part]
        image *= 1 - np.float32(0.35) * gaussian_filter(beside, 4)
        image[field] += opacity[part] * (signal[part] - image[field])
    lines = rng.standard_normal((shape[0], 1), dtype=np.float32)
    return np.asarray(image + rng.uniform(0, 0.008) * lines, np.float32)


def _clutter(rng: Generator, shape: tuple[int, int]) -> tuple[Support, Stage]:
    dirt = Stage(rng, shape, 1.0)
    for _ in range(1 + shape[0] * shape[1] // 224**2):
        scatter_dirt(dirt)
    return make_support(rng, shape, 1.0), dirt
