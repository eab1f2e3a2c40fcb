"""Brightness across a fibre: bodies convolved with the image's blur, and templates of them.

A profile is ``left (1 - P) + right M + odd + body``, where P and M are the blurred steps at the two
edges, the body is one of `SHAPES`, and the odd part is light from one side. Profiles are sampled
in units of a first guess of the diameter, so that one bank of templates, at a grid of centres and
diameters, serves all places of the same blur in these units: a fit is a matrix product.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

Values = NDArray[np.float64]
N_SAMPLES = 36  # across
BLUR_STEP = 1.15  # ratio of neighbouring blurs in units of the diameter, from which banks are made
_LOWEST_BLUR = 0.004  # of these
_N_BLURS = 40
_MARGIN = (0.3, 2.5)  # beside the edges: in diameters and in blurs, the larger of the two
_REACH = 0.6  # of the sampled profile from the centre, in diameters, without the margin
_CENTRES = np.linspace(-0.24, 0.24, 9)  # in diameters
_LOGS = np.linspace(-0.42, 0.42, 13)  # of the diameter
_N_LEVELS = 160
_N_NODES = 320  # of a table, across half a fibre and its surroundings
_TABLE_BLURS = (0.008, 4.0, 56)  # over half the diameter
_NEAR = 0.02  # distance from the edge below which nodes are evenly spaced, in half diameters
_TABLE_REACH = 18.0  # in half diameters


def _rims(strength: float, place: Values) -> Values:
    """Return the yield of secondary electrons, which grows towards the edges, bounded."""
    rise = (1 / np.sqrt(np.maximum(1 - place**2, 1 / 9)) - 1) / 2
    return np.asarray(1 + strength * rise)


def _round(least: float, place: Values) -> Values:
    return np.asarray(least + (1 - least) * np.sqrt(np.maximum(1 - place**2, 0)))


def _absorbed(depth: float, place: Values) -> Values:
    return np.asarray(1 - np.exp(-depth * np.sqrt(np.maximum(1 - place**2, 0))))


def _line(place: Values) -> Values:
    return np.asarray(np.exp(-3.0 * place**2))


@dataclass(frozen=True)
class Shape:
    """A model of the brightness between the edges of a fibre.

    `body` is a function of the distance from the centre line over half the diameter, constant if
    None. Behind a body that is `clear`, the background goes on from one side to the other.
    """

    name: str
    body: Callable[[Values], Values] | None
    clear: bool = False

    @property
    def mean(self) -> float:
        return (
            1.0 if self.body is None else float(self.body(np.linspace(-0.999, 0.999, 999)).mean())
        )


FLAT = Shape("flat", None)
RIMS = Shape("rims", partial(_rims, 1.3))
#: Fixed shapes: a free share of rims or of a round body could hide an error of the diameter.
SHAPES: tuple[Shape, ...] = (
    FLAT,
    *(Shape("rims", partial(_rims, strength)) for strength in (0.3, 0.7)),
    RIMS,
    *(Shape("rims", partial(_rims, strength)) for strength in (2.2, 4.0)),
    Shape("round", partial(_round, 0.0), clear=True),
    *(Shape("round", partial(_round, least)) for least in (0.05, 0.15, 0.3, 0.5)),
    *(Shape("transmission", partial(_absorbed, d), clear=True) for d in (0.7, 1.2, 2.4)),
)
LINE = Shape("line", _line)


@lru_cache(maxsize=64)
def _table(body: Callable[[Values], Values]) -> Values:
    """Return a body convolved with Gaussians, (blurs, nodes), as a sum of nested slabs."""
    inner = np.sin(np.linspace(0, np.pi / 2, _N_LEVELS + 1))
    levels = body((inner[1:] + inner[:-1]) / 2)
    steps = levels - np.append(levels[1:], 0)
    nodes = np.linspace(_node(0.0), _node(_TABLE_REACH), _N_NODES)
    place = 1 + _NEAR * np.sinh(nodes)
    rows = [
        (ndtr((place[:, None] + inner[1:]) / blur) - ndtr((place[:, None] - inner[1:]) / blur))
        @ steps
        for blur in np.geomspace(*_TABLE_BLURS)
    ]
    return np.asarray(rows)


def _node(place: ArrayLike) -> Values:
    return np.asarray(np.arcsinh((np.asarray(place) - 1) / _NEAR))


def _looked_up(table: Values, place: Values, blur: Values) -> Values:
    least, most, n_blurs = _TABLE_BLURS
    low, high = _node(0.0), _node(_TABLE_REACH)
    place = np.minimum(np.abs(place), _TABLE_REACH)
    column = (_node(place) - low) * ((_N_NODES - 1) / (high - low))
    row = np.log(np.clip(blur, least, most) / least) * ((n_blurs - 1) / np.log(most / least))
    i = np.minimum(row.astype(np.intp), n_blurs - 2)
    j = np.minimum(column.astype(np.intp), _N_NODES - 2)
    down, right = row - i, column - j
    flat, first = table.ravel(), i * _N_NODES + j
    upper = flat[first] * (1 - right) + flat[first + 1] * right
    first = first + _N_NODES
    lower = flat[first] * (1 - right) + flat[first + 1] * right
    return np.asarray(upper * (1 - down) + lower * down)


def basis(shape: Shape, across: Values, centre: Values, diameter: Values, blur: Values) -> Values:
    """Return the linear parts of profiles: left, right, odd, and the body.

    Parameters
    ----------
    shape : Shape
    across : ndarray of shape (n, n_samples)
    centre, diameter, blur : ndarray of shape (n,)
        In the unit of `across`; the blur is the standard deviation of a Gaussian.

    Returns
    -------
    ndarray of shape (n, n_samples, 4)
    """
    half = diameter[:, None] / 2
    place, beta = (across - centre[:, None]) / half, blur[:, None] / half
    upper, lower = (place + 1) / beta, (place - 1) / beta
    begun, ended = ndtr(upper), ndtr(lower)
    slab = begun - ended
    tails = (np.exp(-(upper**2) / 2) - np.exp(-(lower**2) / 2)) / np.sqrt(2 * np.pi)
    odd = place * slab + beta * tails
    left, right = 1 - begun, ended
    if shape.clear:
        left, right = left + (slab - odd) / 2, right + (slab + odd) / 2
    beta = np.broadcast_to(beta, place.shape)
    body = slab if shape.body is None else _looked_up(_table(shape.body), place, beta)
    return np.stack([left, right, odd, body], axis=-1)


def sampled_diameter(
    diameter: Values, blur: float, coarse: int = 1
) -> tuple[Values, NDArray[np.intp]]:
    """Return diameters near the given ones whose blur is on the grid, and its number there."""
    steps = np.log(blur / diameter / _LOWEST_BLUR) / np.log(BLUR_STEP)
    number = np.clip(np.rint(steps / coarse) * coarse, 0, _N_BLURS - 1).astype(np.intp)
    return blur / (_LOWEST_BLUR * BLUR_STEP**number), number


@dataclass(frozen=True, eq=False)
class Bank:
    """Templates at a grid of blurs, centres and diameters, in units of the sampled diameter."""

    across: Values  # (n_samples,)
    ortho: Values  # (n_samples, 4 * n_templates), orthonormal parts, the first of all at first
    factor: Values  # (n_templates, 4, 4), of these: factors of the parts themselves
    centres: Values
    logs: Values
    n_blurs: int

    def fitted(self, template: NDArray[np.intp], profiles: Values) -> tuple[Values, Values]:
        """Return the factors of the four parts, (n, 4), and the modelled profiles."""
        parts = self.ortho.reshape(N_SAMPLES, 4, -1)[:, :, template]
        held = np.einsum("ns,skn->nk", profiles, parts)
        factors = np.einsum("nkj,nk->nj", self.factor[template], held)
        return factors, np.einsum("skn,nk->ns", parts, held)


@lru_cache(maxsize=600)
def bank(shape: Shape, number: int, wide: bool = False, steps: tuple[int, ...] = (0,)) -> Bank:
    """Return templates of a shape at the blurs of the given number, and steps away from it."""
    blurs = _LOWEST_BLUR * BLUR_STEP ** (number + np.asarray(steps, dtype=float))
    half = _REACH + max(_MARGIN[0], _MARGIN[1] * _LOWEST_BLUR * BLUR_STEP**number)
    centres, logs = _CENTRES, _LOGS
    if wide:
        half += 0.15
        centres, logs = np.linspace(-0.12, 0.12, 5), np.linspace(-0.4, 0.56, 13)
    across = np.linspace(-half, half, N_SAMPLES)
    blur, centre, log = (each.ravel() for each in np.meshgrid(blurs, centres, logs, indexing="ij"))
    parts = basis(shape, np.broadcast_to(across, (len(log), N_SAMPLES)), centre, np.exp(log), blur)
    normal = np.matmul(parts.transpose(0, 2, 1), parts)
    normal += np.eye(4) * 1e-9 * np.trace(normal, axis1=1, axis2=2)[:, None, None]
    factor = np.asarray(np.linalg.inv(np.linalg.cholesky(normal)), dtype=np.float64)
    ortho = np.matmul(parts, factor.transpose(0, 2, 1)).transpose(1, 2, 0)
    return Bank(across, ortho.reshape(N_SAMPLES, -1), factor, centres, logs, len(blurs))


@dataclass(frozen=True, eq=False)
class Match:
    """The best templates of n profiles, (n, n_blurs) each."""

    centre: Values
    log: Values  # of the diameter, over the sampled one
    energy: Values  # sum of squared residuals
    variance: Values  # of `log`, over the variance of a sample
    template: NDArray[np.intp]
    inside: NDArray[np.bool_]  # of the grid


def match(bank: Bank, profiles: Values) -> Match:
    """Find the best centre and diameter of each profile, between those of the grid.

    Parameters
    ----------
    bank : Bank
    profiles : ndarray of shape (n, n_samples)
    """
    n, n_centres, n_logs = len(profiles), len(bank.centres), len(bank.logs)
    held = np.square(profiles @ bank.ortho).reshape(n, 4, bank.n_blurs, n_centres * n_logs)
    energy = (profiles**2).sum(axis=1)[:, None, None] - held.sum(axis=1)
    best = energy.argmin(axis=2)
    row, column = np.divmod(best, n_logs)
    inside = (row > 0) & (row < n_centres - 1) & (column > 0) & (column < n_logs - 1)
    row, column = np.clip(row, 1, n_centres - 2), np.clip(column, 1, n_logs - 2)
    middle = row * n_logs + column
    around = (np.arange(-1, 2)[:, None] * n_logs + np.arange(-1, 2)).ravel()
    near = np.take_along_axis(energy, middle[..., None] + around, axis=2).reshape(
        *middle.shape, 3, 3
    )
    # A parabola through the nine values.
    slope_c = (near[..., 2, 1] - near[..., 0, 1]) / 2
    slope_l = (near[..., 1, 2] - near[..., 1, 0]) / 2
    bend_c = np.maximum(near[..., 2, 1] + near[..., 0, 1] - 2 * near[..., 1, 1], 1e-12)
    bend_l = np.maximum(near[..., 1, 2] + near[..., 1, 0] - 2 * near[..., 1, 1], 1e-12)
    twist = (near[..., 2, 2] + near[..., 0, 0] - near[..., 2, 0] - near[..., 0, 2]) / 4
    size = np.maximum(bend_c * bend_l - twist**2, 0.05 * bend_c * bend_l)
    step_c = np.clip((twist * slope_l - bend_l * slope_c) / size, -1, 1)
    step_l = np.clip((twist * slope_c - bend_c * slope_l) / size, -1, 1)
    spacing = bank.logs[1] - bank.logs[0]
    return Match(
        centre=bank.centres[row] + step_c * (bank.centres[1] - bank.centres[0]),
        log=bank.logs[column] + step_l * spacing,
        energy=np.maximum(near[..., 1, 1] + (slope_c * step_c + slope_l * step_l) / 2, 0),
        variance=2 * bend_c / size * spacing**2,
        template=middle + np.arange(bank.n_blurs) * n_centres * n_logs,
        inside=inside,
    )


def weighted_quantiles(values: ArrayLike, weights: ArrayLike, shares: Sequence[float]) -> Values:
    """Return values below which the given shares of the weight lie, interpolated; NaN if none."""
    ordered = np.argsort(np.asarray(values))
    value, weight = np.asarray(values, float)[ordered], np.asarray(weights, float)[ordered]
    if not weight.sum() > 0:
        return np.full(len(shares), np.nan)
    middle = (np.cumsum(weight) - weight / 2) / weight.sum()
    return np.asarray(np.interp(shares, middle, value))
