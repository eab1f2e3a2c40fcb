"""Confidence intervals of an accuracy and of a balanced accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student_t

from hypervlad.common.wording import counted

_Z95 = 1.959963984540054


def wilson_interval(share: float, n: float) -> tuple[float, float]:
    """The 95 % score interval of a proportion [1]_.

    Parameters
    ----------
    share : float
        The observed proportion.
    n : float
        Number of independent trials.

    Returns
    -------
    low, high : float

    References
    ----------
    .. [1] E. B. Wilson, "Probable inference, the law of succession, and statistical inference",
       Journal of the American Statistical Association 22, 1927.

    Examples
    --------
    >>> low, high = wilson_interval(1.0, 20)
    >>> f"{low:.3f} {high:.3f}"
    '0.839 1.000'
    """
    square = _Z95**2
    centre = (share + square / (2 * n)) / (1 + square / n)
    half = _Z95 * np.sqrt(share * (1 - share) / n + square / (4 * n**2)) / (1 + square / n)
    # The limits of everything and of nothing are exact, which rounding would hide.
    return (
        0.0 if share <= 0 else max(0.0, float(centre - half)),
        1.0 if share >= 1 else min(1.0, float(centre + half)),
    )


def accuracy_interval(
    correct: ArrayLike, groups: Sequence[Any] | None = None
) -> tuple[float, float]:
    """The 95 % interval of an accuracy: Wilson's, for as many trials as the images are worth.

    With groups, they are worth as many independent images as would have the variance between the
    groups [1]_, and fewer if that is found from few groups [2]_ or few with a mistake or a correct
    answer. Without a mistake, they are worth no more than the number of groups.

    Parameters
    ----------
    correct : array-like of bool of shape (n,)
    groups : sequence of n hashables, optional
        Images of one group are not independent of each other.

    Returns
    -------
    low, high : float

    Raises
    ------
    ValueError
        If there are no images, or the lengths differ.

    References
    ----------
    .. [1] J. N. K. Rao and A. J. Scott, "A simple method for the analysis of clustered binary
       data", Biometrics 48, 1992.
    .. [2] E. L. Korn and B. I. Graubard, "Confidence intervals for proportions with small expected
       number of positive counts estimated from survey data", Survey Methodology 24, 1998.

    Examples
    --------
    >>> low, high = accuracy_interval([1] * 27 + [0] * 3, [i // 3 for i in range(30)])
    >>> f"{low:.2f} {high:.2f}"
    '0.52 0.99'
    """
    right = np.asarray(correct, dtype=float)
    return _weighted_interval(right, np.ones(len(right)), groups)


def balanced_accuracy_interval(
    correct: ArrayLike, y_true: Sequence[Any], groups: Sequence[Any] | None = None
) -> tuple[float, float]:
    """The 95 % interval of a balanced accuracy, the mean of the recalls of the classes.

    As `accuracy_interval`, with images that count more if their class has fewer images.

    Parameters
    ----------
    correct, groups
        As in `accuracy_interval`.
    y_true : sequence of n labels

    Returns
    -------
    low, high : float

    Examples
    --------
    >>> low, high = balanced_accuracy_interval([1] * 30 + [0, 1], ["a"] * 30 + ["b"] * 2)
    >>> f"{low:.2f} {high:.2f}"
    '0.33 0.95'
    """
    right = np.asarray(correct, dtype=float)
    if len(y_true) != len(right):
        labels, images = counted(len(y_true), "label"), counted(len(right), "image")
        raise ValueError(f"got {labels} for {images}")
    codes = np.unique([str(label) for label in y_true], return_inverse=True)[1].ravel()
    return _weighted_interval(right, 1 / np.bincount(codes)[codes], groups)


def _weighted_interval(
    right: NDArray[np.float64], weights: NDArray[np.float64], groups: Sequence[Any] | None
) -> tuple[float, float]:
    n_images = len(right)
    if not n_images or (groups is not None and len(groups) != n_images):
        of_groups = "" if groups is None else f" and {counted(len(groups), 'group')}"
        raise ValueError(
            "expected at least one image, and a group for each if there are groups; got "
            f"{counted(n_images, 'image')}{of_groups}"
        )
    total = float(weights @ np.ones(n_images))  # as rounded as the sum of right answers
    share = float(weights @ right) / total
    codes = (
        np.arange(n_images)
        if groups is None
        else np.unique([str(group) for group in groups], return_inverse=True)[1].ravel()
    )
    n_equal = total**2 / float(weights @ weights)  # images, as many as if of equal weight
    sizes, hits = np.bincount(codes, weights), np.bincount(codes, weights * right)
    if len(sizes) == 1:
        return wilson_interval(share, 1)
    are_groups = len(sizes) < n_images
    residuals = hits - share * sizes
    if are_groups:  # whose residuals are smaller the larger their part in the share
        residuals /= np.sqrt(1 - sizes / total)
    variance = float(residuals @ residuals) / total**2
    n_worth = min(share * (1 - share) / variance, n_equal) if variance else n_equal
    if are_groups:
        n_groups = total**2 / float(sizes @ sizes)  # as many as if of equal size
        with_mistake = len(np.unique(codes[right < 1]))
        with_correct = len(np.unique(codes[right > 0]))
        mixed = min(float(with_mistake), float(with_correct), n_groups)
        n_worth = max(n_worth * _of_few(mixed), min(n_worth * _of_few(n_groups), n_groups))
    return wilson_interval(share, max(1.0, n_worth))


def _of_few(n_groups: float) -> float:
    """By what factor a number of trials is smaller if its variance is found from few groups."""
    return float(_Z95 / student_t.ppf(0.975, n_groups - 1)) ** 2 if n_groups > 1 else 0.0
