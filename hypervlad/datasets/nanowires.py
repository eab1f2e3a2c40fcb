"""Synthetic scanning electron micrographs of nanowires, with their directions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from hypervlad.datasets.drawing import (
    BoolMap,
    Drawn,
    FloatMap,
    check_count,
    check_drawn,
    check_size,
    draw_seed,
    log_uniform,
    smooth_noise,
    worm_like_chains,
)
from hypervlad.datasets.sem import SAMPLING, Strands, Surface, block_means, scan_wires
from hypervlad.fibres import AlignedFraction, aligned_fraction_of_map
from hypervlad.fibres.alignment import DEFAULT_WINDOW
from hypervlad.fibres.axial import direction_of
from hypervlad.fibres.regions import TileGrid

_BOUNDS = {
    "aligned": (0.0, 1.0),
    "density": (0.0, 0.95),
    "width": (2.0, 100.0),
    "snr": (0.1, np.inf),
    "blur": (0.0, 20.0),
    "tilt": (0.0, 1.4),
    "overlap": (0.0, 1.0),
}

_SCATTER = np.deg2rad(4.0)  # standard deviation of directions within a domain
_LENGTH = 24.0  # typical length over width
_MIN_LENGTH = 2.5  # length over width below which a piece is dropped
_PERSISTENCE = 400.0  # over width: wires are nearly straight
_DOMAIN = 0.45  # size of a domain over the shorter side of the image
_OVERHANG = 0.06  # how far wires extend beyond their domain, over its size
_MAX_TRIES = 60  # mean number of positions tried per wire

# Of `make_alignment_examples`.
_RANGES: dict[str, Drawn] = {
    "aligned": (0.0, 1.0),
    "density": (0.2, 0.9),
    "width": (4.0, 12.0),
    "blur": (0.4, 3.3),
    "tilt": (0.0, 0.9),
    "overlap": (0.0, 1.0),
}
_SNR = (0.7, 20.0)  # uniform in its logarithm: as many images of 1 to 2 as of 2 to 4
_NO_NOISE = 0.15  # share of the images


@dataclass(frozen=True, eq=False)
class NanowireTruth:
    """The truth of an image of `make_nanowire_images`.

    Attributes
    ----------
    orientation : ndarray of float32, shape (H, W)
        Direction along the uppermost wire, radians in [0, pi), counter-clockwise from the +x axis
        of the displayed image (y up); NaN beside wires.
    domains : ndarray of bool, shape (H, W)
        Where wires are parallel.
    aligned, density, width, snr, blur, tilt, overlap : float
        The given or drawn values.
    """

    orientation: NDArray[np.float32]
    domains: NDArray[np.bool_]
    aligned: float
    density: float
    width: float
    snr: float
    blur: float
    tilt: float
    overlap: float

    @property
    def wires(self) -> NDArray[np.bool_]:
        """Where there is a wire."""
        return np.isfinite(self.orientation)

    def aligned_fraction(self, window: int = DEFAULT_WINDOW) -> AlignedFraction:
        """Return `aligned_fraction_of_map` of the true directions.

        Parameters
        ----------
        window : int, default=32
            Side of a window in pixels.

        Returns
        -------
        AlignedFraction
        """
        return aligned_fraction_of_map(self.orientation, window=window)

    def aligned_map(self, window: int = DEFAULT_WINDOW) -> NDArray[np.float32]:
        """Return a map of aligned windows, to train an `AlignmentClassifier`.

        Parameters
        ----------
        window : int, default=32
            Side of a window in pixels.

        Returns
        -------
        ndarray of float32, shape (H, W)
            1 in aligned windows, 0 in others, NaN in windows of the background.
        """
        found = self.aligned_fraction(window)
        values = np.where(found.background, np.nan, found.aligned).astype(np.float32)
        return TileGrid(found.rows, found.columns).expand(values)


def make_nanowire_images(
    n: int,
    *,
    aligned: Drawn = (0.0, 1.0),
    density: Drawn = (0.4, 0.8),
    width: Drawn = (5.0, 10.0),
    snr: Drawn = (4.0, 20.0),
    blur: Drawn = (0.5, 1.2),
    tilt: Drawn = 0.0,
    overlap: Drawn = 0.6,
    size: int | tuple[int, int] = (384, 512),
    random_state: int | np.random.RandomState | None = None,
) -> tuple[list[NDArray[np.float32]], list[NanowireTruth]]:
    """Make synthetic SEM images of nanowires, parallel in some domains, and their directions.

    A pair as a parameter gives the bounds of a value drawn for each image.

    Parameters
    ----------
    n : int
        Number of images, at least 1.
    aligned : float or pair, default=(0, 1)
        Share of the area with parallel wires; measured fractions differ slightly.
    density : float or pair, default=(0.4, 0.8)
        Share of the area that wires cover, at most 0.95; less where no more wires fit.
    width : float or pair, default=(5, 10)
        Mean diameter of the wires in pixels, at least 2.
    snr : float or pair, default=(4, 20)
        Contrast of wires over the standard deviation of the noise, at least 0.1; may be infinite.
    blur : float or pair, default=(0.5, 1.2)
        Standard deviation of the beam's profile in pixels.
    tilt : float or pair, default=0
        Tilt of the specimen about the x axis, radians, at most 1.4.
    overlap : float or pair, default=0.6
        Share of a wire's area that may overlap others.
    size : int or (int, int), default=(384, 512)
        Height and width in pixels, each at least 64.
    random_state : int, RandomState or None, default=None
        As in `make_tem_images`.

    Returns
    -------
    images : list of n arrays of shape (H, W), float32 in [0, 1]
    truths : list of n NanowireTruth

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Examples
    --------
    >>> from hypervlad.data import make_nanowire_images
    >>> (image,), (truth,) = make_nanowire_images(1, aligned=1.0, size=96, random_state=0)
    >>> image.shape, truth.aligned_fraction(window=24).fraction > 0.8
    ((96, 96), True)
    """
    n = check_count(n)
    height, width_ = check_size(size)
    asked = {
        "aligned": aligned,
        "density": density,
        "width": width,
        "snr": snr,
        "blur": blur,
        "tilt": tilt,
        "overlap": overlap,
    }
    bounds = {name: check_drawn(name, value, *_BOUNDS[name]) for name, value in asked.items()}
    seed = draw_seed(random_state)
    made = [
        _make_image(np.random.default_rng([2, seed, i]), bounds, height, width_) for i in range(n)
    ]
    return [image for image, _ in made], [truth for _, truth in made]


def make_alignment_examples(
    n: int,
    *,
    size: int | tuple[int, int] = (384, 512),
    random_state: int | np.random.RandomState | None = None,
) -> tuple[list[NDArray[np.float32]], list[NanowireTruth]]:
    """Make images of nanowires that vary widely, to train an `AlignmentClassifier`.

    Parameters
    ----------
    n, size, random_state
        As in `make_nanowire_images`.

    Returns
    -------
    images : list of n arrays of shape (H, W), float32 in [0, 1]
    truths : list of n NanowireTruth
        ``truth.aligned_map(window)`` is a label map for `AlignmentClassifier.fit`.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Examples
    --------
    >>> from hypervlad.data import make_alignment_examples
    >>> images, truths = make_alignment_examples(2, size=96, random_state=0)
    >>> images[0].shape, truths[0].aligned_map(window=32).shape
    ((96, 96), (96, 96))
    """
    n = check_count(n)
    seed = draw_seed(random_state)
    made = [_make(np.random.default_rng([3, seed, i]), size) for i in range(n)]
    return [image for image, _ in made], [truth for _, truth in made]


def _make(rng: Generator, size: int | tuple[int, int]) -> tuple[FloatMap, NanowireTruth]:
    noisy = rng.random() >= _NO_NOISE
    snr = float(log_uniform(rng, *_SNR)) if noisy else np.inf
    own = int(rng.integers(2**31 - 1))
    (image,), (truth,) = make_nanowire_images(1, **_RANGES, snr=snr, size=size, random_state=own)
    return image, truth


def _make_image(
    rng: Generator, bounds: dict[str, tuple[float, float]], height: int, width: int
) -> tuple[FloatMap, NanowireTruth]:
    drawn = {
        name: low if low == high else float(rng.uniform(low, high))
        for name, (low, high) in bounds.items()
    }
    deposit = Deposit(
        aligned=drawn["aligned"],
        density=drawn["density"],
        width=drawn["width"] * SAMPLING,
        tilt=drawn["tilt"],
        overlap=drawn["overlap"],
    )
    surface, domains = lay_wires(rng, (height * SAMPLING, width * SAMPLING), deposit)
    image = scan_wires(
        surface,
        rng,
        width=deposit.width,
        blur=drawn["blur"],
        snr=drawn["snr"],
    )
    truth = NanowireTruth(
        orientation=_orientation_of_pixels(surface.along),
        domains=block_means(domains) >= 0.5,
        **drawn,
    )
    return image, truth


def _orientation_of_pixels(along: FloatMap) -> FloatMap:
    """Return the mean axis in each pixel; NaN where less than half is wire."""
    on_wire = np.isfinite(along)
    axes = np.where(on_wire, np.exp(2j * np.where(on_wire, along, 0)), 0)
    visible = block_means(on_wire) >= 0.5
    angle = direction_of(block_means(axes))
    return np.where(visible, angle, np.nan).astype(np.float32)


@dataclass(frozen=True)
class Deposit:
    aligned: float
    density: float
    width: float  # in points of the surface
    tilt: float
    overlap: float


@dataclass(frozen=True)
class _Domains:
    relief: FloatMap  # (H, W): above 0 in the domains, in units of the size of a domain
    distance: FloatMap  # (n_domains, H, W): from the centre of each, in the same unit
    directions: NDArray[np.float64]  # (n_domains,), radians


def lay_wires(rng: Generator, shape: tuple[int, int], deposit: Deposit) -> tuple[Surface, BoolMap]:
    domains = _draw_domains(rng, shape, deposit.aligned)
    parallel = domains.relief > 0
    substrate = 0.16 * (1 + 0.06 * smooth_noise(rng, shape, 0.1 * min(shape), octaves=3))
    surface = Surface(shape, np.maximum(substrate, 0.02), 0.12 / deposit.width)
    covered = np.zeros(shape, dtype=bool)
    wires = [
        wire
        for zone, aligned in ((parallel, True), (~parallel, False))
        for wire in _fill(rng, deposit, domains, zone, covered, aligned)
    ]
    for rank, number in enumerate(rng.permutation(len(wires))):
        line, radius = wires[number]
        surface.paint_strands(_as_strands(rng, line, radius, rank / len(wires)))
    return surface, parallel


def _draw_domains(rng: Generator, shape: tuple[int, int], aligned: float) -> _Domains:
    size = _DOMAIN * min(shape)
    relief = smooth_noise(rng, shape, size)
    level = np.quantile(relief, 1 - aligned) if 0 < aligned < 1 else np.inf * (0.5 - aligned)
    n_domains = int(np.ceil(shape[0] * shape[1] / (1.6 * size) ** 2))
    middles = rng.uniform(0, 1, (n_domains, 2)) * np.asarray(shape)
    rows = np.arange(shape[0], dtype=np.float32)[:, None] - middles[:, 0, None, None]
    columns = np.arange(shape[1], dtype=np.float32)[None] - middles[:, 1, None, None]
    return _Domains(
        relief=np.asarray(relief - np.float32(level)),
        distance=(np.hypot(rows, columns) / size).astype(np.float32),
        directions=rng.uniform(0, np.pi, n_domains),
    )


def _fill(
    rng: Generator,
    deposit: Deposit,
    domains: _Domains,
    zone: BoolMap,
    covered: BoolMap,
    aligned: bool,
) -> list[tuple[FloatMap, float]]:
    """Lay wires in a zone up to the wanted cover; return centre lines and radii."""
    places = np.argwhere(zone)
    wanted = deposit.density * len(places)
    found: list[tuple[FloatMap, float]] = []
    if not wanted:
        return found
    left = int(_MAX_TRIES * max(10, wanted / (_LENGTH * deposit.width**2)))
    while left and np.count_nonzero(covered & zone) < wanted:
        # Measuring the cover takes longer than laying a wire.
        for _ in range(min(left, 5)):
            left -= 1
            anchor = places[rng.integers(len(places))]
            radius = deposit.width / 2 * float(np.exp(rng.normal(0, 0.15)))
            line = _within(
                rng, domains, anchor, _draw_line(rng, deposit, domains, anchor, aligned), aligned
            )
            if len(line) < _MIN_LENGTH * deposit.width:
                continue
            body = _body(line, radius, covered.shape)
            if deposit.overlap < 1 and covered[body].mean() > deposit.overlap:
                continue
            covered[body] = True
            found.append((line, radius))
    return found


def _draw_line(
    rng: Generator, deposit: Deposit, domains: _Domains, anchor: NDArray[np.intp], aligned: bool
) -> FloatMap:
    if aligned:
        own = domains.distance[:, anchor[0], anchor[1]].argmin()
        heading = domains.directions[own] + rng.normal(0, _SCATTER)
    else:
        heading = rng.uniform(0, np.pi)
    # The tilt about the x axis shortens vertical lengths.
    across, up = np.cos(heading), np.sin(heading) * np.cos(deposit.tilt)
    length = _LENGTH * deposit.width * float(np.exp(rng.normal(0, 0.4))) * np.hypot(across, up)
    line: FloatMap = worm_like_chains(
        rng,
        anchors=anchor[None] + rng.uniform(0, 1, (1, 2)),
        headings=np.array([np.arctan2(-up, across)]),
        length=np.array([length]),
        persistence=_PERSISTENCE * deposit.width,
        step=1.0,
        stiffness=2 * deposit.width,
    )[0]
    return line


def _within(
    rng: Generator, domains: _Domains, anchor: NDArray[np.intp], line: FloatMap, aligned: bool
) -> FloatMap:
    shape = domains.relief.shape
    row, column = np.clip(np.rint(line).astype(int), 0, np.asarray(shape) - 1).T
    reach = _OVERHANG * rng.uniform(0, 1)
    if aligned:
        own = domains.distance[:, anchor[0], anchor[1]].argmin()
        here = domains.distance[:, row, column]
        inside = (domains.relief[row, column] > -reach) & (here[own] <= here.min(axis=0) + reach)
    else:
        inside = domains.relief[row, column] < reach
    middle = len(line) // 2
    outside = np.flatnonzero(~inside)
    first = outside[outside < middle].max(initial=-1) + 1
    last = outside[outside >= middle].min(initial=len(line))
    return line[first:last]


def _body(
    line: FloatMap, radius: float, shape: tuple[int, ...]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    along = np.gradient(line, axis=0)
    along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-6)
    offset = np.arange(-int(radius), int(radius) + 1)
    row = np.rint(line[:, :1] + along[:, 1:] * offset).astype(int)
    column = np.rint(line[:, 1:] - along[:, :1] * offset).astype(int)
    inside = (row >= 0) & (row < shape[0]) & (column >= 0) & (column < shape[1])
    return row[inside], column[inside]


def _as_strands(rng: Generator, line: FloatMap, radius: float, height: float) -> Strands:
    n = len(line)
    step = float(np.linalg.norm(np.diff(line[:2], axis=0)))
    from_end = np.minimum(np.arange(n), np.arange(n)[::-1]) * step
    cap = np.sqrt(1 - np.clip(1 - from_end / radius, 0, 0.98) ** 2)
    # Wires cross others: they do not stay at one height.
    slope = rng.normal(0, 0.05) * np.linspace(-1, 1, n)
    return Strands(
        chains=line[None],
        radius=(radius * cap)[None].astype(np.float32),
        height=(height + slope)[None].astype(np.float32),
        brightness=rng.uniform(0.88, 1.12, 1).astype(np.float32),
        defect=np.zeros((1, n), dtype=bool),
    )
