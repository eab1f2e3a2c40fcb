"""Synthetic fields of several particles, whose outlines, classes and sizes are known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from hypervlad.common.constraints import ListOf, OneOf, check_value
from hypervlad.datasets.drawing import (
    BoolMap,
    Drawn,
    FloatMap,
    check_count,
    check_drawn,
    check_size,
    draw_seed,
    eight_bits,
    log_uniform,
    rows_and_columns,
    smooth_noise,
    whole_folder,
)
from hypervlad.images.morphology import grown
from hypervlad.objects.particle import Outlines, cropped
from hypervlad.objects.results_folder import write_tiff

PARTICLE_CLASSES = ("cube", "rod", "sphere")
_GAP = 3  # pixels between particles that do not touch
_MAX_HIDDEN = 0.3  # share of the smaller of two particles, where they overlap
_MAX_TRIES = 150

Window = tuple[slice, ...]

# Separate the random numbers of fields and of particles.
_FIELDS, _PARTICLES = 4, 5


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
    visible : ndarray of float, shape (n,)
        Share of the area that is inside the field and not hidden.
    """

    outlines: Outlines
    classes: NDArray[np.str_]
    area: NDArray[np.float64]
    visible: NDArray[np.float64]

    @property
    def labels(self) -> NDArray[np.int32]:
        """The label image, shape (H, W): 0 for background; of overlapping particles the upper."""
        return self.outlines.label_image()

    @property
    def diameter(self) -> NDArray[np.float64]:
        return np.asarray(np.sqrt(4 / np.pi * self.area))


@dataclass
class _Solid:
    """A particle in maps of the shape of its box."""

    name: str
    mask: BoolMap
    top: FloatMap  # height of its upper surface, in pixels
    corner: NDArray[np.int64]  # row and column of its first pixel in the field

    @property
    def extent(self) -> NDArray[np.intp]:
        return np.array(self.mask.shape)

    def windows(self, shape: tuple[int, int]) -> tuple[Window, Window]:
        """Return where it is in a field, and the same part of its maps."""
        low = np.maximum(self.corner, 0)
        high = np.maximum(np.minimum(self.corner + self.extent, shape), low)
        own = map(slice, (low - self.corner).tolist(), (high - self.corner).tolist())
        return tuple(map(slice, low.tolist(), high.tolist())), tuple(own)


def make_particle_fields(
    n: int,
    *,
    classes: Iterable[str] = PARTICLE_CLASSES,
    n_particles: int | tuple[int, int] = (3, 9),
    extent: Drawn | None = None,
    touching: Drawn = 0.2,
    size: int | tuple[int, int] = 512,
    random_state: int | np.random.RandomState | None = None,
) -> tuple[list[NDArray[np.float32]], list[ParticleFieldTruth]]:
    """Make synthetic SEM images of several particles, with the outline, class and size of each.

    A pair gives the bounds of a value drawn for each field, or, as `extent`, for each particle.

    Parameters
    ----------
    n : int
        Number of fields, at least 1.
    classes : iterable of str, default=("cube", "rod", "sphere")
        Of the particles, equally probable.
    n_particles : int or (int, int), default=(3, 9)
        Particles per field; fields of 0 are empty. The centres of their boxes are uniform in the
        field, so its edges cut some.
    extent : float or pair, optional
        Longer side of the box of a particle in pixels, at least 12 and at most 0.8 of the shorter
        side of the field, by default 0.12 to 0.3 of it; uniform in its logarithm, and independent
        of the class.
    touching : float or pair, default=0.2
        Probability that a particle touches or overlaps an earlier one. Others keep a distance of 3
        pixels, unless the field is too full.
    size : int or (int, int), default=512
        Height and width in pixels, each at least 64.
    random_state : int, RandomState or None, default=None
        Seed. With the same integer, the first fields are the same whatever ``n`` is.

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
    >>> (image,), (truth,) = make_particle_fields(1, n_particles=4, size=256, random_state=0)
    >>> image.shape, len(truth.outlines), sorted(set(truth.classes.tolist()))
    ((256, 256), 4, ['rod', 'sphere'])
    """
    n, shape = check_count(n), check_size(size)
    is_list = not isinstance(classes, str) and np.iterable(classes)
    names: Any = tuple(classes) if is_list else classes
    check_value("classes", names, [ListOf(OneOf(*PARTICLE_CLASSES), "a list of names")])
    fewest, most = check_drawn("n_particles", n_particles, 0, 100_000, integral=True)
    shorter = min(shape)
    default = (max(12, 0.12 * shorter), 0.3 * shorter)
    extents = check_drawn("extent", default if extent is None else extent, 12, 0.8 * shorter)
    shares = check_drawn("touching", touching, 0, 1)
    seed = draw_seed(random_state)
    images, truths, number = [], [], 0
    for field in range(n):
        rng = np.random.default_rng([_FIELDS, seed, field])
        count = int(rng.integers(int(fewest), int(most) + 1))
        own = [np.random.default_rng([_PARTICLES, seed, number + i]) for i in range(count)]
        number += count
        particles = [_draw_solid(each, names, extents) for each in own]
        _place_all(rng, particles, shape, rng.uniform(*shares))
        images.append(_record(rng, _scan(rng, particles, shape)))
        truths.append(_truth(particles, shape))
    return images, truths


def write_particle_folder(folder: Path, n: int, *, random_state: int) -> None:
    """Write fields of touching particles as TIFF with 8 bits and pixels of 2 nm; complete."""
    images, _ = make_particle_fields(
        n, n_particles=(15, 25), extent=(24, 80), touching=0.35, random_state=random_state
    )
    with whole_folder(folder) as draft:
        for number, image in enumerate(images, 1):
            write_tiff(draft / f"example {number}.tif", eight_bits(image), 2.0)


def _draw_solid(rng: Generator, names: Sequence[str], extents: tuple[float, float]) -> _Solid:
    name, extent = names[int(rng.integers(len(names)))], float(log_uniform(rng, *extents))
    side = int(np.ceil(extent)) + 2
    rows, columns = rows_and_columns((side, side), ((side - 1) / 2,) * 2)
    if name == "cube":
        # Half of the cubes lie on a face, but for a tilt that keeps their sides' slopes finite.
        tilt = rng.uniform(0.1, 0.7, 2) if rng.random() < 0.5 else (0.005, 0.005)
        normals = Rotation.from_euler("zyx", [rng.uniform(0, np.pi), *tilt]).as_matrix().T
        half = extent / 2 / np.abs(normals[:, :2]).sum(axis=0).max()
        upper, lower = np.full((side, side), np.inf), np.full((side, side), -np.inf)
        for across, down, up in normals:
            faces = np.array([[[-half]], [[half]]]) - across * columns - down * rows
            upper = np.minimum(upper, (faces / up).max(axis=0))
            lower = np.maximum(lower, (faces / up).min(axis=0))
        top = np.where(upper > lower, upper + half, 0)
    else:
        away, radius = np.hypot(rows, columns), extent / 2
        if name == "rod":
            angle, slender = rng.uniform(0, np.pi), rng.uniform(2.5, 7)
            down, across = np.sin(angle), np.cos(angle)
            # The longer side of its box contains the straight part, turned, and two caps.
            radius /= 1 + (slender - 1) * max(abs(down), abs(across))
            beyond = np.maximum(np.abs(rows * down + columns * across) - (slender - 1) * radius, 0)
            away = np.hypot(rows * across - columns * down, beyond)
        top = np.sqrt(np.maximum(0, radius**2 - away**2))
    (window,) = ndimage.find_objects((top > 0).astype(np.uint8))
    return _Solid(name, top[window] > 0, top[window].astype(np.float32), np.zeros(2, np.int64))


def _place_all(
    rng: Generator, particles: Sequence[_Solid], shape: tuple[int, int], touching: float
) -> None:
    """Move each to where it touches another or none, if a place is found."""
    labels = np.zeros(shape, np.int32)
    for number, each in enumerate(particles):
        should_touch = number and rng.random() < touching
        areas = np.bincount(labels.ravel(), minlength=number + 1)[1:]
        near = grown(labels > 0, _GAP)
        for _ in range(_MAX_TRIES):
            each.corner = np.floor(rng.uniform(0, 1, 2) * shape - each.extent / 2).astype(int)
            field, own = each.windows(shape)
            inside = each.mask[own]
            hidden = np.bincount(labels[field][inside], minlength=number + 1)[1:]
            share = (hidden / np.clip(areas, 1, each.mask.sum())).max(initial=0)
            fits = 0 < share < _MAX_HIDDEN if should_touch else not near[field][inside].any()
            if fits and inside.any():
                break
        field, own = each.windows(shape)
        labels[field][each.mask[own]] = number + 1


def _truth(particles: Sequence[_Solid], shape: tuple[int, int]) -> ParticleFieldTruth:
    outlines = []
    for label, each in enumerate(particles, start=1):
        (rows, columns), own = each.windows(shape)
        outlines.append(cropped(each.mask[own], rows.start, columns.start, label))
    found = Outlines(shape, tuple(filter(None, outlines)))
    area = np.array([each.mask.sum() for each in particles], float)
    seen = np.bincount(found.label_image().ravel(), minlength=len(particles) + 1)[1:]
    names = np.array([each.name for each in particles], dtype=np.str_)
    return ParticleFieldTruth(found, names, area, seen / area)


def _scan(rng: Generator, particles: Sequence[_Solid], shape: tuple[int, int]) -> FloatMap:
    """Return the image of secondary electrons: bright edges, and a detector at one side."""
    image = rng.uniform(0.1, 0.22) * (1 + 0.05 * smooth_noise(rng, shape, 24, octaves=3))
    light, shade = rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 0.4)
    for each in particles:
        field, part = each.windows(shape)
        slopes = np.gradient(gaussian_filter(np.pad(each.top, 2), 0.7))
        down, right = np.stack(slopes)[:, 2:-2, 2:-2]
        up = 1 / np.sqrt(1 + down**2 + right**2)
        # The yield grows with the slope (Goldstein et al., Scanning Electron Microscopy, ch. 5).
        signal = rng.uniform(0.3, 0.48) * (0.55 + 0.45 / np.maximum(up, 0.35))
        signal *= 1 + shade * (down * np.sin(light) + right * np.cos(light)) * up
        # Beside a high particle, fewer electrons reach the detector.
        beside = np.zeros(shape, np.float32)
        beside[field] = each.mask[part]
        image *= 1 - np.float32(0.35) * gaussian_filter(beside, 4)
        image[field] = np.where(each.mask[part], signal[part], image[field])
    return np.asarray(image, np.float32)


def _record(rng: Generator, scene: FloatMap) -> FloatMap:
    rows = np.linspace(-1, 1, scene.shape[0], dtype=np.float32)[:, None]
    columns = np.linspace(-1, 1, scene.shape[1], dtype=np.float32)[None, :]
    tilt = rng.normal(0, 1, 2)
    light = tilt[0] * rows + tilt[1] * columns
    light = 1 + rng.uniform(0, 0.3) * light / max(float(np.ptp(light)), 1e-6)
    image = gaussian_filter(scene * light, rng.uniform(0.5, 1.5), mode="nearest")
    # Counting electrons: the square of the noise is proportional to the brightness.
    grain = rng.standard_normal(image.shape, dtype=np.float32)
    image = image + rng.uniform(0.02, 0.06) * grain * np.sqrt(np.maximum(image, 0.02) / 0.5)
    return np.asarray(np.clip(image, 0, 1), np.float32)
