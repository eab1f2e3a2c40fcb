"""Synthetic scanning electron micrographs of nanowires, with their directions."""

from __future__ import annotations

import numbers
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_random_state

from hypervlad.datasets._arguments import check_count, check_size
from hypervlad.datasets._wire_scan import block_means, scan_wires
from hypervlad.datasets._wires import Deposit, lay_wires
from hypervlad.fibres import AlignedFraction, aligned_fraction_of_map
from hypervlad.fibres.alignment import DEFAULT_TOLERANCE, DEFAULT_WINDOW
from hypervlad.fibres.axial import direction_of
from hypervlad.fibres.tiles import TileGrid

SMALLEST_SIZE = 64
_SAMPLING = 2  # points of the surface a pixel, each way: wires without steps
#: One value for all images, or bounds between which each image draws its own.
Drawn: TypeAlias = float | tuple[float, float]
_BOUNDS = {
    "aligned": (0.0, 1.0),
    "density": (0.0, 0.95),
    "width": (2.0, 100.0),
    "snr": (0.1, np.inf),
    "blur": (0.0, 20.0),
    "tilt": (0.0, 1.4),
    "overlap": (0.0, 1.0),
}


@dataclass(frozen=True, eq=False)
class NanowireTruth:
    """What an image of `make_nanowire_images` shows.

    Attributes
    ----------
    orientation : ndarray of float32, shape (H, W)
        Direction along the uppermost wire, radians in [0, pi), counter-clockwise from the +x axis
        of the image as seen (y up); not-a-number off wires.
    domains : ndarray of bool, shape (H, W)
        Where wires were laid parallel.
    aligned, density, width, snr, blur, tilt, overlap : float
        What was asked for, or drawn.
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

    def aligned_fraction(
        self, window: int = DEFAULT_WINDOW, tolerance: float = DEFAULT_TOLERANCE
    ) -> AlignedFraction:
        """Return the true aligned fraction: the rule of `fibres.aligned_fraction`, true directions.

        Every wire pixel has the same weight.

        Parameters
        ----------
        window : int, default=32
        tolerance : float, default=20 degrees
            Radians.

        Returns
        -------
        AlignedFraction
        """
        return aligned_fraction_of_map(self.orientation, window=window, tolerance=tolerance)

    def aligned_map(
        self, window: int = DEFAULT_WINDOW, tolerance: float = DEFAULT_TOLERANCE
    ) -> NDArray[np.float32]:
        """Return where windows are aligned, to train an `AlignmentClassifier` with.

        Parameters
        ----------
        window : int, default=32
        tolerance : float, default=20 degrees
            Radians.

        Returns
        -------
        ndarray of float32, shape (H, W)
            1 in aligned windows, 0 in others, not-a-number in those of the background.
        """
        found = self.aligned_fraction(window, tolerance)
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
    random_state: int | np.random.Generator | np.random.RandomState | None = None,
) -> tuple[list[NDArray[np.float32]], list[NanowireTruth]]:
    """Make synthetic SEM images of nanowires on a substrate, and the direction of every wire.

    Domains in which wires lie parallel, each in a direction of its own, among wires that lie
    anyhow. Wires are bright at their edges, and shadow each other.

    All but `n`, `size` and `random_state` are one number for all images, or a pair of bounds
    between which each image draws its own.

    Parameters
    ----------
    n : int
        Number of images, at least 1.
    aligned : float or pair, default=(0, 1)
        Share of the area that is laid in parallel. What is coherently aligned by a given rule
        differs a little from it: see `NanowireTruth.aligned_fraction`.
    density : float or pair, default=(0.4, 0.8)
        Share of the area that wires cover, at most 0.95; less where they find no room.
    width : float or pair, default=(5, 10)
        Mean diameter of the wires in pixels, at least 2.
    snr : float or pair, default=(4, 20)
        Contrast over the standard deviation of the noise, at least 0.1; infinite for none. The
        contrast is what is left of it in the blurred image: the mean brightness of the pixels that
        are wire less that of the others.
    blur : float or pair, default=(0.5, 1.2)
        Standard deviation of the beam's profile in pixels.
    tilt : float or pair, default=0
        Angle by which the specimen is tilted about the x axis, radians, at most 1.4: what lies
        up and down looks shorter, and directions change with it.
    overlap : float or pair, default=0.6
        Share of its own area that a wire may lie on others: 0 side by side, 1 anyhow.
    size : int or (int, int), default=(384, 512)
        Height and width in pixels, each at least 64.
    random_state : int, Generator, RandomState or None, default=None
        Seed. With the same integer, image ``i`` is the same whatever ``n`` is.

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
    >>> from hypervlad.datasets import make_nanowire_images
    >>> (image,), (truth,) = make_nanowire_images(1, aligned=1.0, size=96, random_state=0)
    >>> image.shape, truth.aligned_fraction(window=24).fraction > 0.8
    ((96, 96), True)
    """
    n = check_count(n)
    height, width_ = check_size(size, SMALLEST_SIZE)
    asked = {
        "aligned": aligned,
        "density": density,
        "width": width,
        "snr": snr,
        "blur": blur,
        "tilt": tilt,
        "overlap": overlap,
    }
    bounds = {name: _check_drawn(name, value) for name, value in asked.items()}
    seed = _drawn_seed(random_state)
    made = [
        _make_image(np.random.default_rng([2, seed, i]), bounds, height, width_) for i in range(n)
    ]
    return [image for image, _ in made], [truth for _, truth in made]


def _drawn_seed(random_state: int | np.random.Generator | np.random.RandomState | None) -> int:
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(2**31 - 1))
    return int(check_random_state(random_state).randint(2**31 - 1))


def _make_image(
    rng: np.random.Generator, bounds: dict[str, tuple[float, float]], height: int, width: int
) -> tuple[NDArray[np.float32], NanowireTruth]:
    drawn = {
        name: low if low == high else float(rng.uniform(low, high))
        for name, (low, high) in bounds.items()
    }
    deposit = Deposit(
        aligned=drawn["aligned"],
        density=drawn["density"],
        width=drawn["width"] * _SAMPLING,
        tilt=drawn["tilt"],
        overlap=drawn["overlap"],
    )
    surface, domains = lay_wires(rng, (height * _SAMPLING, width * _SAMPLING), deposit)
    image = scan_wires(
        surface,
        rng,
        sampling=_SAMPLING,
        width=deposit.width,
        blur=drawn["blur"],
        snr=drawn["snr"],
    )
    truth = NanowireTruth(
        orientation=_orientation_of_pixels(surface.along),
        domains=block_means(domains, _SAMPLING) >= 0.5,
        **drawn,
    )
    return image, truth


def _orientation_of_pixels(along: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the mean axis of the points of each pixel; none where fewer than half are wire."""
    on_wire = np.isfinite(along)
    axes = np.where(on_wire, np.exp(2j * np.where(on_wire, along, 0)), 0)
    seen = block_means(on_wire, _SAMPLING) >= 0.5
    angle = direction_of(block_means(axes, _SAMPLING))
    return np.where(seen, angle, np.nan).astype(np.float32)


def _check_drawn(name: str, value: Any) -> tuple[float, float]:
    low, high = _BOUNDS[name]
    pair = value if isinstance(value, tuple | list) else (value, value)
    fine = len(pair) == 2 and all(
        isinstance(each, numbers.Real) and not isinstance(each, bool) and low <= float(each) <= high
        for each in pair
    )
    if not fine or pair[0] > pair[1] or (pair[0] != pair[1] and not np.isfinite(pair[1])):
        raise ValueError(
            f"{name}={value!r}: expected a number from {low:g} to {high:g}, or a pair of them, the "
            "lower first."
        )
    return float(pair[0]), float(pair[1])
