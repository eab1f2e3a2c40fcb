"""Synthetic images of fibres with exact diameters and directions, parallel in some domains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from hypervlad.common.constraints import OneOf, check_value
from hypervlad.datasets.drawing import (
    BoolMap,
    Drawn,
    FloatMap,
    check_count,
    check_drawn,
    check_size,
    draw_seed,
    rows_and_columns,
    smooth_noise,
    worm_like_chains,
)
from hypervlad.fibres import AlignedFraction, aligned_fraction_of_map
from hypervlad.fibres.alignment import DEFAULT_WINDOW
from hypervlad.fibres.profile_network import LOOKS, FibreLook
from hypervlad.fibres.regions import TileGrid
from hypervlad.statistics.groups import weighted_quantiles

#: How the brightness changes across a fibre.
FIBRE_LOOKS: tuple[str, ...] = LOOKS
_SAMPLING = 3  # points per pixel, in each direction
_TRANSMITTED = "transmission"
_MAX_FIBRES = 5000
_MAX_WINDOWS = 2**16  # points
_BOUNDS = {
    "diameter": (1.0, 200.0),
    "spread": (0.0, 1.0),
    "cover": (0.001, 0.98),
    "curl": (0.0, 2.0),
    "length": (4.0, np.inf),
    "blur": (0.0, 20.0),
    "contrast_to_noise": (0.1, np.inf),
    "aligned": (0.0, 1.0),
}
_SCATTER = np.deg2rad(4.0)  # standard deviation of directions within a domain
_DOMAIN = 0.45  # size of a domain over the shorter side of the image
_OVERHANG = 0.06  # how far fibres extend beyond their domain, over its size


@dataclass(frozen=True)
class FibreStyle:
    """How bright fibres are: those of `make_fibre_images`, unless a network is to see others."""

    background: float = 0.12
    darkest: float = 0.55  # brightness of the lowest fibre over that of the uppermost
    least: float = 0.93  # of a fibre at random, over that of the others at its height
    rims: tuple[float, float] = (0.45, 0.3)  # brightness of the middle, share of the radius
    rounded: float = 0.25  # brightness at the edge of a round fibre
    absorption: float = 1.2  # of a fibre of the mean diameter, along its thickest line
    # How much brighter edges are on one side, and where: radians from +x, clockwise (y down).
    lit: tuple[float, float] = (0.0, 0.0)
    # How much darker it is beside fibres, the diameters over which this falls to a seventh, and
    # the power of the distance with whose exponential it does.
    shadow: tuple[float, float, float] = (0.0, 0.4, 1.0)
    shaded: bool = True  # whether shadows fall on fibres, too


@dataclass(frozen=True, eq=False)
class FibreTruth:
    """The truth of an image of `make_fibre_images`.

    Attributes
    ----------
    diameters : ndarray of float64, shape (n_fibres,)
        In pixels, exact and constant along a fibre; the lowest fibre first.
    lengths : ndarray of float64, shape (n_fibres,)
        Length of the centre line within the image, in pixels.
    visible_lengths : ndarray of float64, shape (n_fibres,)
        The same without what other fibres hide. In "transmission", nothing is hidden.
    centre_lines : list of n_fibres arrays of shape (n_points, 2)
        Row and column of points about a pixel apart, which may lie outside the image.
    fibres : ndarray of int32, shape (H, W)
        Index of the uppermost fibre at the centre of each pixel, -1 beside fibres.
    orientation : ndarray of float32, shape (H, W)
        Its direction, radians in [0, pi), counter-clockwise from the +x axis of the displayed image
        (y up); NaN beside fibres.
    look : str
    blur, contrast_to_noise : float
        The given or drawn values.
    """

    diameters: NDArray[np.float64]
    lengths: NDArray[np.float64]
    visible_lengths: NDArray[np.float64]
    centre_lines: list[NDArray[np.float32]]
    fibres: NDArray[np.int32]
    orientation: NDArray[np.float32]
    look: str
    blur: float
    contrast_to_noise: float

    @property
    def cover(self) -> float:
        """Share of the image that fibres cover."""
        return float((self.fibres >= 0).mean())

    @property
    def median(self) -> float:
        """Median of the diameters, weighted by visible length."""
        return float(weighted_quantiles(self.diameters, self.visible_lengths, [0.5])[0])

    def aligned_fraction(self, window: int = DEFAULT_WINDOW) -> AlignedFraction:
        """Return `aligned_fraction_of_map` of the true directions, in windows of this side."""
        return aligned_fraction_of_map(self.orientation, window=window)

    def aligned_map(self, window: int = DEFAULT_WINDOW) -> NDArray[np.float32]:
        """Return a map of shape (H, W) to train an `AlignmentClassifier`.

        It is 1 in aligned windows, 0 in others, and NaN in windows of the background.
        """
        found = self.aligned_fraction(window)
        values = np.where(found.background, np.nan, found.aligned).astype(np.float32)
        return TileGrid(found.rows, found.columns).expand(values)


def make_fibre_images(
    n: int,
    *,
    diameter: Drawn = (6.0, 16.0),
    spread: Drawn = 0.2,
    second: float | None = None,
    second_share: float = 0.5,
    look: FibreLook = "rims",
    cover: Drawn = (0.2, 0.8),
    curl: Drawn = (0.0, 0.4),
    length: Drawn = np.inf,
    blur: Drawn = (0.6, 1.2),
    contrast_to_noise: Drawn = (5.0, 20.0),
    aligned: Drawn | None = None,
    size: int | tuple[int, int] = (384, 512),
    random_state: int | np.random.RandomState | None = None,
) -> tuple[list[NDArray[np.float32]], list[FibreTruth]]:
    """Make images of fibres, wires or tubes whose diameters and directions are exactly known.

    A pair as a parameter gives the bounds of a value drawn for each image.

    Parameters
    ----------
    n : int
        Number of images, at least 1.
    diameter : float or pair, default=(6, 16)
        Median diameter of the fibres in pixels, 1 to 200.
    spread : float or pair, default=0.2
        Coefficient of variation of the diameters, which are log-normal.
    second : float, optional
        Median diameter of a second kind of fibres, of the same spread.
    second_share : float, default=0.5
        Share of the fibres that are of the second kind.
    look : {"flat", "rims", "round", "transmission"}, default="rims"
        "flat", equally bright; "rims", with bright edges, as secondary electrons show them;
        "round", darker towards the edges; "transmission", dark on bright, by thickness.
    cover : float or pair, default=(0.2, 0.8)
        Share of the image that fibres cover, at most 0.98.
    curl : float or pair, default=(0, 0.4)
        How much fibres bend over the width of the image: 0 straight.
    length : float or pair, default=inf
        Length of the fibres in pixels, at least 4; by default, they cross the whole image.
    blur : float or pair, default=(0.6, 1.2)
        Standard deviation of the beam's profile in pixels.
    contrast_to_noise : float or pair, default=(5, 20)
        Brightest fibre less background, over the standard deviation of the noise.
    aligned : float or pair, optional
        Share of the area in which fibres are parallel, in domains that they do not leave; measured
        fractions differ slightly. By default, there are no domains.
    size : int or (int, int), default=(384, 512)
        Height and width in pixels, each at least 64.
    random_state : int, RandomState or None, default=None
        As in `make_tem_images`.

    Returns
    -------
    images : list of n arrays of shape (H, W), float32 in [0, 1]
    truths : list of n FibreTruth

    Raises
    ------
    ValueError
        If a parameter is out of range, or 5000 fibres do not cover as much as asked.

    Examples
    --------
    >>> from hypervlad.data import make_fibre_images
    >>> (image,), (truth,) = make_fibre_images(1, diameter=8, spread=0, size=96, random_state=0)
    >>> image.shape, truth.median
    ((96, 96), 8.0)
    """
    n = check_count(n)
    height, width = check_size(size)
    check_value("look", look, [OneOf(*FIBRE_LOOKS)])
    asked = {
        "diameter": diameter,
        "spread": spread,
        "cover": cover,
        "curl": curl,
        "length": length,
        "blur": blur,
        "contrast_to_noise": contrast_to_noise,
    } | ({} if aligned is None else {"aligned": aligned})
    bounds = {name: check_drawn(name, value, *_BOUNDS[name]) for name, value in asked.items()}
    share, _ = check_drawn("second_share", second_share, 0.0, 1.0)
    kinds = None if second is None else (check_drawn("second", second, 1.0, 200.0)[0], share)
    seed = draw_seed(random_state)
    made = [
        draw_fibres(np.random.default_rng([7, seed, i]), bounds, kinds, look, (height, width))
        for i in range(n)
    ]
    return [image for image, _ in made], [truth for _, truth in made]


def draw_fibres(
    rng: Generator,
    bounds: Mapping[str, tuple[float, float]],
    second: tuple[float, float] | None,
    look: str,
    size: tuple[int, int],
    style: FibreStyle = FibreStyle(),
) -> tuple[FloatMap, FibreTruth]:
    """Draw one image of `make_fibre_images`, whose parameters were checked."""
    drawn = {
        name: low if low == high else float(rng.uniform(low, high))
        for name, (low, high) in bounds.items()
    }
    canvas = _Canvas((size[0] * _SAMPLING, size[1] * _SAMPLING))
    domains = _Domains(rng, canvas.shape, drawn["aligned"]) if "aligned" in drawn else None
    diameters: list[float] = []
    lines: list[FloatMap] = []
    while canvas.cover < drawn["cover"] and len(lines) < _MAX_FIBRES:
        median = drawn["diameter"]
        if second is not None and rng.random() < second[1]:
            median = second[0]
        log_spread = np.sqrt(np.log1p(drawn["spread"] ** 2))
        diameters.append(float(median * np.exp(log_spread * rng.standard_normal())))
        lines.append(_draw_line(rng, canvas.shape, drawn, diameters[-1] * _SAMPLING, domains))
        canvas.darken(lines[-1], diameters[-1] * _SAMPLING / 2, *style.shadow)
        canvas.paint(lines[-1], diameters[-1] * _SAMPLING / 2)
    if canvas.cover < drawn["cover"]:
        raise ValueError(
            f"cover={drawn['cover']:.3g}: {len(lines)} fibres, the most that are drawn, cover only "
            f"{canvas.cover:.3g} of the image; give a larger diameter or length, or a smaller size."
        )
    clean = gaussian_filter(canvas.shaded(rng, look, style), drawn["blur"] * _SAMPLING)
    image = clean.reshape(size[0], _SAMPLING, size[1], _SAMPLING).mean(axis=(1, 3))
    noise = 1 / drawn["contrast_to_noise"]
    image = image + noise * rng.standard_normal(size)
    # Four standard deviations beside the darkest and the brightest are in [0, 1].
    image = (image + 4 * noise) / (1.1 + 8 * noise)
    measured = [canvas.lengths(i, line, look) for i, line in enumerate(lines)]
    lengths = np.asarray(measured).reshape(-1, 2) / _SAMPLING
    middle = _SAMPLING // 2
    at_centres = np.s_[middle::_SAMPLING, middle::_SAMPLING]
    fibres = canvas.fibre[at_centres].copy()
    truth = FibreTruth(
        diameters=np.asarray(diameters),
        lengths=lengths[:, 0],
        visible_lengths=lengths[:, 1],
        centre_lines=[(line - middle) / np.float32(_SAMPLING) for line in lines],
        fibres=fibres,
        orientation=np.where(fibres >= 0, canvas.direction[at_centres], np.float32(np.nan)),
        look=look,
        blur=drawn["blur"],
        contrast_to_noise=drawn["contrast_to_noise"],
    )
    return np.clip(image, 0, 1).astype(np.float32), truth


class _Domains:
    """Regions with a direction each, and the area between, where directions are random."""

    def __init__(self, rng: Generator, shape: tuple[int, int], aligned: float) -> None:
        self._shape = np.asarray(shape)
        self._size = _DOMAIN * min(shape)
        relief = smooth_noise(rng, shape, self._size)
        level = np.quantile(relief, 1 - aligned) if 0 < aligned < 1 else np.inf * (0.5 - aligned)
        n = int(np.ceil(shape[0] * shape[1] / (1.6 * self._size) ** 2))
        centres = rng.uniform(0, 1, (n, 2)) * self._shape
        nearest, least = np.zeros(shape, dtype=np.intp), np.full(shape, np.inf)
        for number, centre in enumerate(centres):
            rows, columns = rows_and_columns(shape, centre)
            distance = rows**2 + columns**2
            nearest[distance < least] = number
            np.minimum(least, distance, out=least)
        self._domain = np.where(relief > level, nearest, -1)
        self._headings = rng.uniform(0, np.pi, n)

    def _at(self, points: NDArray[np.floating]) -> NDArray[np.intp]:
        row, column = np.clip(np.asarray(points).astype(int), 0, self._shape - 1).T
        return np.asarray(self._domain[row, column])

    def heading(self, rng: Generator, anchor: NDArray[np.floating]) -> NDArray[np.floating]:
        own = int(self._at(anchor)[0])
        if own < 0:
            return rng.uniform(0, np.pi, 1)
        return np.asarray(self._headings[[own]] + rng.normal(0, _SCATTER))

    def cut(self, rng: Generator, line: FloatMap) -> FloatMap:
        """Return the part of a line in the domain of its middle, or hardly longer."""
        domain, middle = self._at(line), len(line) // 2
        step = max(float(np.linalg.norm(line[1] - line[0])), 1e-6)
        overhang = rng.uniform(0, _OVERHANG * self._size / step, 2).astype(int)
        outside = np.flatnonzero(domain != domain[middle])
        first = outside[outside < middle].max(initial=-1) + 1 - overhang[0]
        last = outside[outside >= middle].min(initial=len(line)) + overhang[1]
        return line[max(first, 0) : max(last, middle + 2)]


def _draw_line(
    rng: Generator,
    shape: tuple[int, int],
    drawn: dict[str, float],
    diameter: float,
    domains: _Domains | None,
) -> FloatMap:
    """Return the points of a centre line, at most a pixel apart, in points of the canvas."""
    diagonal = float(np.hypot(*shape))
    length = min(drawn["length"] * _SAMPLING, 2.2 * diagonal)
    anchor = rng.uniform(0, 1, (1, 2)) * np.asarray(shape)
    heading = rng.uniform(0, np.pi, 1) if domains is None else domains.heading(rng, anchor)
    if drawn["curl"] == 0:
        steps = np.linspace(-length / 2, length / 2, max(2, int(length / _SAMPLING)))
        direction = np.array([[np.sin(heading[0]), np.cos(heading[0])]])
        line = np.asarray(anchor + steps[:, None] * direction, dtype=np.float32)
    else:
        line = worm_like_chains(
            rng,
            anchors=anchor,
            headings=heading,
            length=np.array([length]),
            persistence=diagonal / drawn["curl"] ** 2 / 2,
            step=float(_SAMPLING),
            stiffness=max(3 * diameter, 0.08 * diagonal),
        )[0]
    return line if domains is None else domains.cut(rng, line)


class _Canvas:
    """Points of the fibres' bodies, with their place across the uppermost fibre."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape = shape
        self.fibre = np.full(shape, -1, dtype=np.int32)
        self.place = np.zeros(shape, dtype=np.float32)  # 0 at the centre line, 1 at an edge
        self.thickness = np.zeros(shape, dtype=np.float32)
        self.direction = np.zeros(shape, dtype=np.float32)  # radians, y up
        self.light = np.ones(shape, dtype=np.float32)  # less than 1 in shadows
        self.n_fibres = 0
        self._nearest = np.full(shape, np.inf, dtype=np.float32)  # squared distance

    @property
    def cover(self) -> float:
        return np.count_nonzero(self.fibre >= 0) / self.fibre.size

    def paint(self, line: FloatMap, radius: float) -> None:
        points = self._measure(line, radius)  # some repeated, but added to once
        place = np.sqrt(self._nearest.ravel()[points]) / np.float32(radius)
        self.fibre.ravel()[points] = self.n_fibres
        self.place.ravel()[points] = place
        self.light.ravel()[points] = 1
        self.thickness.ravel()[points] += 2 * radius * np.sqrt(np.maximum(1 - place**2, 0))
        self._nearest.ravel()[points] = np.inf
        self.n_fibres += 1

    def darken(
        self, line: FloatMap, radius: float, depth: float, reach: float, power: float
    ) -> None:
        """Let a fibre that is painted next throw a shadow to both sides."""
        if not depth:
            return
        extent, direction = 2 * radius * reach, self.direction.copy()
        points = self._measure(line, radius + 1.5 * extent)  # some repeated, but darkened once
        self.direction = direction
        apart = np.maximum(np.sqrt(self._nearest.ravel()[points]) - radius, 0) / extent
        fall = np.exp(-2 * apart**power) - np.exp(-2 * 1.5**power)  # without a step at its end
        self.light.ravel()[points] *= 1 - depth * np.maximum(fall, 0)
        self._nearest.ravel()[points] = np.inf

    def _measure(self, line: FloatMap, radius: float) -> NDArray[np.intp]:
        """Set `_nearest` of the points on a fibre, and return their flat indices."""
        stride = max(1, int(radius / _SAMPLING / 2)) if len(line) > 2 else 1
        nodes = line[np.r_[0 : len(line) - 1 : stride, len(line) - 1]] @ np.array([1, 1j])
        ends = radius * np.sign(np.diff(nodes)[[0, -1]])
        nodes = np.r_[nodes[0] - ends[0], nodes, nodes[-1] + ends[1]]
        step = np.diff(nodes)
        along = np.sign(step) + 1e-12 * (1 + 1j)  # divided by
        angles = np.arctan2(-along.real, along.imag) % np.float32(np.pi)
        centre, high = nodes[:-1] + step / 2, np.abs(step) / 2
        # Points lie beside their nearest piece; where the line turns, also beyond it.
        turn = along[1:] * along[:-1].conj()
        bent = np.pad(np.where(turn.real > 0, np.abs(turn.imag), 1), 1)
        half = high + radius * np.maximum(bent[1:], bent[:-1]) + 0.01  # for rounding
        low = -high
        low[0], high[-1] = high[0], low[-1]  # what lies beyond an end is near that end
        n_rows, n_columns = self.shape
        within = np.clip(centre.real, 0, n_rows) + 1j * np.clip(centre.imag, 0, n_columns)
        seen = np.flatnonzero(np.abs(centre - within) < half + radius)
        n_at_once = max(1, int(_MAX_WINDOWS / (4 * radius * half.mean())))
        found = [np.empty(0, dtype=np.intp)]
        for i in range(0, len(seen), n_at_once):
            some = seen[i : i + n_at_once, None]
            row, column, reach = centre[some].real, centre[some].imag, half[some]
            sine, cosine = along[some].real, along[some].imag
            # All pieces get windows of as many rows, and as many columns in each row.
            extent = np.abs(sine) * reach + np.abs(cosine) * radius
            top = np.maximum(np.ceil(row - extent), 0)
            bottom = np.minimum(row + extent, n_rows - 1)
            window = np.arange(int((bottom - top).max(initial=0)) + 1)
            rows = np.minimum(top, n_rows - len(window)).astype(int) + window
            y = rows - row
            middle = np.stack([-y * sine / cosine, y * cosine / sine])
            wide = np.abs(np.stack([reach / cosine, radius / sine]))
            left = np.maximum(np.ceil((middle - wide).max(axis=0) + column), 0)
            right = np.minimum((middle + wide).min(axis=0) + column, n_columns - 1)
            window = np.arange(int((right - left).max(initial=0)) + 1)
            left = np.minimum(left, n_columns - len(window)).astype(int)
            turned = (y + 1j * (left - column)) * along[some].conj()
            across = turned.imag[..., None] + (sine * window)[:, None]
            beyond = turned.real[..., None] + (cosine * window)[:, None]
            beside = np.abs(beyond) <= reach[..., None]
            beyond -= np.clip(beyond, low[some, None], high[some, None])
            square = across**2 + beyond**2
            near = np.flatnonzero(beside & (square < radius**2))
            found.append(((rows * n_columns + left)[..., None] + window).ravel()[near])
            squares = square.ravel()[near].astype(np.float32)
            np.minimum.at(self._nearest.ravel(), found[-1], squares)
            nearest = self._nearest.ravel()[found[-1]] == squares
            towards = angles[seen[i + near[nearest] // square[0].size]]
            self.direction.ravel()[found[-1][nearest]] = towards
        return np.concatenate(found)

    def shaded(self, rng: Generator, look: str, style: FibreStyle) -> FloatMap:
        on_fibre: BoolMap = self.fibre >= 0
        if look == _TRANSMITTED:
            mean = float(self.thickness[on_fibre].mean()) * 4 / np.pi
            return np.asarray(np.exp(-style.absorption * self.thickness / mean))
        rank = (np.arange(self.n_fibres) + 1) / self.n_fibres
        level = style.darkest + (1 - style.darkest) * rank
        level *= rng.uniform(style.least, 1, self.n_fibres)
        up = np.sqrt(np.maximum(1 - self.place**2, 0))
        middle, rim = style.rims
        shape = {
            "flat": np.ones_like(up),
            "round": style.rounded + (1 - style.rounded) * up,
            "rims": middle + (1 - middle) * (1 / np.maximum(up, rim) - 1) / (1 / rim - 1),
        }[look]
        strength, side = style.lit
        if strength:
            down, right = np.gradient(self.place)
            facing = (np.sin(side) * down + np.cos(side) * right) / (np.hypot(down, right) + 1e-6)
            shape = shape * (1 + strength * self.place * facing)
        light = self.light if style.shaded else np.where(on_fibre, 1, self.light)
        return light * np.where(on_fibre, level[self.fibre] * shape, np.float32(style.background))

    def lengths(self, index: int, line: FloatMap, look: str) -> tuple[float, float]:
        """Return the length of a centre line within the canvas, and the visible one."""
        # Pieces between points count, not points.
        row, column = np.rint((line[1:] + line[:-1]) / 2).astype(int).T
        height, width = self.shape
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        visible = inside.copy()
        if look != _TRANSMITTED:
            visible[inside] = self.fibre[row[inside], column[inside]] == index
        step = float(np.linalg.norm(line[1] - line[0]))
        return step * int(inside.sum()), step * int(visible.sum())
