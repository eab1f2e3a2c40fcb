"""What the makers of images share: checked parameters, seeds, random numbers and shapes."""

from __future__ import annotations

import contextlib
import numbers
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from sklearn.utils import check_random_state

from hypervlad.common.constraints import Integer, ListOf, check_value, is_integer
from hypervlad.common.files import new_folder

FloatMap = NDArray[np.float32]
BoolMap = NDArray[np.bool_]
#: One value for all images, or bounds of a value drawn for each image.
Drawn: TypeAlias = float | tuple[float, float]

SMALLEST_SIZE = 64  # smaller features, such as defects, would be less than a pixel


def check_count(n: Any) -> int:
    check_value("n", n, [Integer(meaning="a whole number of images")])
    return int(n)


def check_size(size: Any, smallest: int = SMALLEST_SIZE) -> tuple[int, int]:
    side = Integer(smallest, meaning="a whole number of pixels")
    check_value("size", size, [side, ListOf(side, "height and width", 2, 2)])
    height, width = (size, size) if is_integer(size) else size
    return int(height), int(width)


def check_drawn(
    name: str, value: Any, low: float, high: float, *, integral: bool = False
) -> tuple[float, float]:
    """Return the bounds of a value that is drawn, equal where one value is given."""
    kind = numbers.Integral if integral else numbers.Real
    pair = value if isinstance(value, tuple | list) else (value, value)
    fine = len(pair) == 2 and all(
        not isinstance(each, bool) and isinstance(each, kind) and low <= float(each) <= high
        for each in pair
    )
    if not fine or pair[0] > pair[1] or (pair[0] != pair[1] and not np.isfinite(pair[1])):
        number = "an integer" if integral else "a number"
        raise ValueError(
            f"{name}={value!r}: expected {number} from {low:g} to {high:g}, or a pair of them, the "
            "lower first."
        )
    return float(pair[0]), float(pair[1])


def draw_seed(random_state: int | np.random.RandomState | None) -> int:
    return int(check_random_state(random_state).randint(2**31 - 1))


def log_uniform(rng: Generator, low: float, high: float) -> Any:
    return np.exp(rng.uniform(np.log(low), np.log(high)))


def rows_and_columns(shape: tuple[int, int], centre: Any) -> tuple[FloatMap, FloatMap]:
    """Return the coordinates of pixels relative to a centre, (H, 1) and (1, W)."""
    rows = np.arange(shape[0], dtype=np.float32)[:, None] - np.float32(centre[0])
    return rows, np.arange(shape[1], dtype=np.float32)[None, :] - np.float32(centre[1])


def smooth_noise(
    rng: Generator, shape: tuple[int, int], cell: float, *, octaves: int = 1
) -> FloatMap:
    """Return a random field of mean 0, standard deviation 1, and features of about ``cell`` pixels.

    Each further octave halves the features and their amplitude.
    """
    out = np.zeros(shape, np.float32)
    amplitude = 1.0
    for _ in range(octaves):
        nodes = tuple(int(np.ceil(extent / cell)) + 2 for extent in shape)
        values = rng.standard_normal(nodes, dtype=np.float32)
        axes = zip(nodes, shape, rng.uniform(0, 1, 2).tolist(), strict=True)
        down, across = (_spline_matrix(n, extent, cell, offset) for n, extent, offset in axes)
        out += amplitude * (down @ values @ across.T)
        amplitude *= 0.5
        cell = max(2.0, cell / 2)
    out -= out.mean()
    return out / max(float(out.std()), 1e-6)


def _spline_matrix(n_nodes: int, n_pixels: int, cell: float, offset: float) -> FloatMap:
    distance = np.abs((np.arange(n_pixels) / cell + offset)[:, None] - np.arange(n_nodes)[None, :])
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.maximum(0, 2 - distance) ** 3 / 6
    return np.where(distance < 1, near, far).astype(np.float32)


def worm_like_chains(
    rng: Generator,
    *,
    anchors: NDArray[np.floating],
    headings: NDArray[np.floating],
    length: NDArray[np.floating],
    persistence: float,
    step: float,
    stiffness: float,
    anchor_at: NDArray[np.floating] | float = 0.5,
) -> NDArray[np.float32]:
    """Draw smooth random curves, as points (row, column) of shape (n, n_points, 2).

    The direction of a worm-like chain performs a random walk with variance ``step / persistence``
    per step. Chains are straight over lengths of `stiffness`, and pass through their anchors,
    (n, 2), with headings in radians; `anchor_at` is 0 at the start of a chain, 1 at its end. All
    lengths are in pixels.
    """
    n_chains = len(anchors)
    n_points = max(8, int(np.ceil(float(np.max(length)) / step)))
    spacing = (np.asarray(length) / n_points)[:, None]
    turns = rng.standard_normal((n_chains, n_points)) * np.sqrt(spacing / persistence)
    sigma = min(stiffness * n_points / float(np.mean(length)), n_points / 3)
    angle = gaussian_filter1d(np.cumsum(turns, axis=1), sigma, axis=1, mode="nearest", truncate=2.5)
    rows = np.arange(n_chains)
    anchor_index = np.broadcast_to(
        np.round(np.asarray(anchor_at) * (n_points - 1)).astype(int), (n_chains,)
    )
    angle += (np.asarray(headings) - angle[rows, anchor_index])[:, None]
    points = np.cumsum(
        np.stack([np.sin(angle), np.cos(angle)], axis=-1) * spacing[..., None], axis=1
    )
    points += (np.asarray(anchors) - points[rows, anchor_index])[:, None, :]
    return points.astype(np.float32)


def eight_bits(image: FloatMap) -> NDArray[np.uint8]:
    return np.round(255 * image).astype(np.uint8)


@contextlib.contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Give a folder to write images into, which gets its name when all are written."""
    with (
        new_folder(folder.parent),
        tempfile.TemporaryDirectory(prefix=".images-", dir=folder.parent) as temporary,
    ):
        draft = Path(temporary, "draft")
        draft.mkdir()
        yield draft
        os.replace(draft, folder)
