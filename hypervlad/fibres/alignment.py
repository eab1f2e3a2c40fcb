"""What share of an image is coherently aligned."""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import uniform_filter1d

from hypervlad.fibres.background import DEFAULT_FLOOR, NO_ENERGY, beyond_noise, fibre_mask
from hypervlad.fibres.checks import (
    as_contrast,
    check_choice,
    check_mask,
    check_positive,
    check_share,
    check_sigma,
    check_tolerance,
    check_window,
    filled,
)
from hypervlad.fibres.gradients import (
    DEFAULT_GRADIENT_SIGMA,
    Tensor,
    averaged_tensor,
    gradients_of,
    smoothed,
)
from hypervlad.fibres.histograms import bin_axes, direction_histograms
from hypervlad.fibres.lattice import Lattice
from hypervlad.fibres.noise import BoolMap, GradientNoise, gradient_noise
from hypervlad.fibres.orientation import METHODS, OrientationMethod
from hypervlad.fibres.rule import (
    DEFAULT_MIN_FIBRE,
    DEFAULT_SIGMA,
    DEFAULT_TOLERANCE,
    DEFAULT_WINDOW,
    AlignedFraction,
    WindowSums,
    judged,
)

FloatMap = NDArray[np.float32]
_BINS = 36
_BASELINE_BINS = 9  # an eighth of a turn: wide enough for noise to average out
_BASELINE_SHARE = 0.1  # least of a baseline, over the mean of the histogram


@runtime_checkable
class AlignmentModel(Protocol):
    """Whatever tells aligned windows from others, such as a learnt classifier."""

    def aligned_proba(
        self, image: ArrayLike, rows: NDArray[np.intp], columns: NDArray[np.intp]
    ) -> ArrayLike:
        """Return how probable it is that each window is aligned.

        Parameters
        ----------
        image : array-like of shape (H, W)
            As the user gave it.
        rows, columns : ndarray of int, shape (n_rows + 1,) and (n_columns + 1,)
            Edges: window (i, j) is ``image[rows[i]:rows[i + 1], columns[j]:columns[j + 1]]``. The
            sides of windows differ by a pixel at most.

        Returns
        -------
        array-like of float, shape (n_rows, n_columns)
            0 to 1.
        """
        ...


AlignmentMethod: TypeAlias = OrientationMethod | AlignmentModel


def aligned_fraction(
    image: ArrayLike,
    method: AlignmentMethod = "structure_tensor",
    window: int = DEFAULT_WINDOW,
    tolerance: float = DEFAULT_TOLERANCE,
    *,
    sigma: float = DEFAULT_SIGMA,
    gradient_sigma: float = DEFAULT_GRADIENT_SIGMA,
    floor: float = DEFAULT_FLOOR,
    min_fibre: float = DEFAULT_MIN_FIBRE,
    mask: ArrayLike | None = None,
) -> AlignedFraction:
    """Find out what share of an image is coherently aligned, and its regions.

    The image is cut into windows, side by side. A window is aligned if its directions have an
    axial circular standard deviation, sqrt(-2 ln R) / 2, below the tolerance, and background if
    hardly any of it is fibre, or it holds no more than noise may give a window by chance. Aligned
    windows that share a side and whose mean directions differ by at most the tolerance are of one
    region.

    "structure_tensor": R is the length of the sum, over the window, of w exp(2 i theta), over the
    sum of w, the difference q of the eigenvalues times the square root of the coherence: each
    direction has as its weight the energy that points to it, and a little less where wires end or
    cross, as those places have no direction but much energy. Noise turns directions at random,
    which the sum of vectors averages out but the sum of their lengths does not; so
    sqrt(q^2 - v), the unbiased value for large q, is taken for q, v being the variance that noise
    gives it.

    "lgo": R is that of the histogram of the gradients' directions in the window, each weighted by
    its squared length (see `local_orientation`), above a baseline, as the Gaussian that
    Directionality fits stands on one. The baseline is what noise adds, and above that the lowest
    mean of nine neighbouring of 36 bins, at least a tenth of the mean: the ends, crossings and
    shadows of wires give gradients every which way.

    A model: it says how probable it is that each window is aligned, and those above one half are.
    Background, mean directions and regions are from the structure tensor.

    Parameters
    ----------
    image : array-like of shape (H, W)
        Grey; of any gain, offset and sign of the contrast.
    method : {"structure_tensor", "lgo"} or AlignmentModel, default="structure_tensor"
    window : int, default=32
        Side of a window in pixels. Where the image is no multiple of it, windows are a little
        larger or smaller, so that all of the image counts.
    tolerance : float, default=20 degrees
        Radians.
    sigma : float, default=1.75
        Over what length gradients are averaged, in pixels; of "lgo", to find the background only.
    gradient_sigma : float, default=1.0
        Of the Gaussian, in pixels, before gradients are taken.
    floor : float, default=0.05
        What is background, as in `local_orientation`.
    min_fibre : float, default=0.1
        Share of a window that must be fibre, else the window is background.
    mask : array-like of bool, shape (H, W), optional
        Where to look; all over by default. Elsewhere is background, as in `local_orientation`.

    Returns
    -------
    AlignedFraction

    Notes
    -----
    Of synthetic wires (`make_nanowire_images`) 7 pixels wide that cover half of the image, 384 to
    512 pixels a side, the fraction differs from the true one by 0.03 on average, by either method,
    without noise as where noise has half of the contrast for its standard deviation; five images
    from not at all to all aligned differ by up to 0.04 on average. Beyond that it errs more, by
    0.05 on average: too low where wires are 15 pixels wide, or cover a fifth of the image; by the
    structure tensor too high where they cover four fifths; and too low by 0.06, or 0.08 by "lgo",
    where the image is as noisy and blurred by 2.5 pixels besides.

    White noise is background, and its fraction not-a-number. Noise that is blurred, as in an
    enlarged image, is not told from fibres that lie anyhow: its windows count, and are not aligned;
    of those blurred by two pixels or more, one in a hundred may be.

    Raises
    ------
    ValueError
        If the image is flat, has colours, holds NaN or is smaller than the window, or a parameter
        is out of range, or a model does not say one probability for each window.

    Examples
    --------
    >>> import numpy as np
    >>> from hypervlad.fibres import aligned_fraction
    >>> y, x = np.mgrid[:128, :128]
    >>> image = np.sin(0.6 * np.where(x < 64, x, y))  # upright on the left, level on the right
    >>> found = aligned_fraction(image)
    >>> found.fraction, [round(float(np.rad2deg(r.mean_angle))) for r in found.regions]
    (1.0, [90, 0])
    """
    where = check_mask(mask, np.shape(image)[:2])
    contrast = as_contrast(image, where)
    side, limit = check_window(window, contrast.shape), check_tolerance(tolerance)
    least, share = check_share("min_fibre", min_fibre), check_share("floor", floor)
    inner = check_positive("gradient_sigma", gradient_sigma)
    scale = check_sigma(sigma, None, contrast.shape)
    model = _model_of(method)
    lattice = Lattice.over(contrast.shape, side)
    down, right = gradients_of(contrast, inner)
    noise = gradient_noise(contrast, scale, inner, where)
    summed = _gradient_sums if method == "lgo" else _tensor_sums
    sums = summed(down, right, lattice, scale, noise, share, where)
    proba = None
    if model is not None:
        looked_at = image if where is None else filled(image, where)
        proba = _proba_of(model, looked_at, lattice)
    return judged(sums, lattice, side, limit, least, proba)


def _tensor_sums(
    down: FloatMap,
    right: FloatMap,
    lattice: Lattice,
    sigma: float,
    noise: GradientNoise,
    floor: float,
    where: BoolMap | None,
) -> WindowSums:
    tensor = averaged_tensor(down, right, sigma)
    energy = tensor.energy
    energy -= np.float32(noise.energy)
    mask = fibre_mask(energy, noise, floor, where)
    fibre = lattice.sums(mask) * beyond_noise(energy, noise, lattice)
    np.maximum(energy, 0, out=energy)
    lengths = _lengths(tensor, noise)
    clear = _clearness(lengths, energy) * mask
    axes = lattice.sums(tensor.cosine * clear) + 1j * lattice.sums(tensor.sine * clear)
    weights = np.maximum(lattice.sums(lengths * clear), np.abs(axes))
    return WindowSums(axes, weights, fibre)


def _lengths(tensor: Tensor, noise: GradientNoise) -> FloatMap:
    """Return the differences of the eigenvalues, without what noise adds to them."""
    squares = tensor.cosine**2
    squares += tensor.sine**2
    # Noise on the edges of fibres, and noise on noise.
    squares -= tensor.energy * np.float32(2 * noise.energy * noise.axis_scatter**2)
    squares -= np.float32((noise.energy * noise.axis_scatter) ** 2)
    return np.asarray(np.sqrt(np.maximum(squares, 0, out=squares), out=squares))


def _clearness(lengths: FloatMap, energy: FloatMap) -> FloatMap:
    """Return the square root of the coherence: less where wires end or cross."""
    coherence = lengths / np.maximum(energy, np.float32(NO_ENERGY))
    np.minimum(coherence, 1, out=coherence)
    return np.asarray(np.sqrt(coherence, out=coherence))


def _gradient_sums(
    down: FloatMap,
    right: FloatMap,
    lattice: Lattice,
    sigma: float,
    noise: GradientNoise,
    floor: float,
    where: BoolMap | None,
) -> WindowSums:
    energy = smoothed(down * down + right * right, sigma)
    energy -= np.float32(noise.energy)
    mask = fibre_mask(energy, noise, floor, where)
    fibre = lattice.sums(mask) * beyond_noise(energy, noise, lattice)
    looked_at = lattice.areas
    if where is not None:
        down, right, looked_at = down * where, right * where, lattice.sums(where)
    table = direction_histograms(down, right, lattice, _BINS)
    axes = table @ bin_axes(_BINS)
    above = table.sum(axis=-1) - _BINS * _baseline(table, noise.energy * looked_at)
    return WindowSums(axes, np.maximum(above, np.abs(axes)), fibre)


def _baseline(table: NDArray[np.float64], noise: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the level on which a histogram's peaks stand."""
    of_noise = noise / _BINS
    lowest = uniform_filter1d(table, _BASELINE_BINS, axis=-1, mode="wrap").min(axis=-1)
    least = _BASELINE_SHARE * np.maximum(table.mean(axis=-1) - of_noise, 0)
    return np.asarray(of_noise + np.maximum(lowest - of_noise, least))


def _model_of(method: Any) -> AlignmentModel | None:
    if isinstance(method, AlignmentModel) and not isinstance(method, type):
        return method
    if not isinstance(method, str):
        raise ValueError(
            f"method={method!r}: expected one of {', '.join(map(repr, METHODS))}, or a model with "
            "a method aligned_proba(image, rows, columns)."
        )
    check_choice("method", method, METHODS)
    return None


def _proba_of(model: AlignmentModel, image: ArrayLike, lattice: Lattice) -> NDArray[np.float64]:
    said = model.aligned_proba(image, lattice.rows, lattice.columns)
    proba = np.asarray(said, dtype=np.float64)
    if proba.shape != lattice.shape or not ((proba >= 0) & (proba <= 1)).all():
        raise ValueError(
            f"{type(model).__name__}.aligned_proba: expected a probability, 0 to 1, for each of "
            f"{lattice.shape[0]} x {lattice.shape[1]} windows; got shape {proba.shape}."
        )
    return proba
