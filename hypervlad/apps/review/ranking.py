"""The order of the queue: which images a person should label first."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Copies of images chosen before keep this share of their value, and so their order.
_MIN_VALUE_SHARE = 1e-3


def informativeness(proba: ArrayLike, novelty: ArrayLike) -> NDArray[np.float64]:
    """Return how informative the label of each image is, before others are labelled.

    ``1 - margin * (1 - surprise)`` (Settles, *Active Learning Literature Survey*, 2009, section
    3.1). The margin is the difference between the two largest probabilities. The surprise is 0 for
    an image at the usual distance from the training images, 1/2 at twice this distance.

    Parameters
    ----------
    proba : array-like of shape (n, n_classes)
        At least two classes.
    novelty : array-like of shape (n,)
        Distance to the nearest training images, divided by the usual one; may be infinite.

    Returns
    -------
    ndarray of shape (n,)
        In [0, 1].

    Raises
    ------
    ValueError
        If the shapes do not match, there are fewer than two classes, or a value is missing.

    Examples
    --------
    >>> informativeness([[1.0, 0.0], [0.5, 0.5], [1.0, 0.0]], [0.8, 0.8, 4.0]).tolist()
    [0.0, 1.0, 0.75]
    """
    table, far = np.asarray(proba, dtype=np.float64), np.asarray(novelty, dtype=np.float64)
    if table.ndim != 2 or table.shape[1] < 2 or far.shape != table.shape[:1]:
        raise ValueError(
            "expected probabilities (n, n_classes) of at least two classes and n novelties, got "
            f"shapes {table.shape} and {far.shape}"
        )
    if not np.isfinite(table).all() or np.isnan(far).any():
        raise ValueError("probabilities must be finite, novelties numbers; leave unread images out")
    highest = np.sort(table, axis=1)[:, -2:]
    margin = np.clip(highest[:, 1] - highest[:, 0], 0.0, 1.0)
    surprise = 1.0 - 1.0 / np.maximum(far, 1.0)
    return 1.0 - margin * (1.0 - surprise)


def rank(worth: ArrayLike, projected: ArrayLike) -> NDArray[np.intp]:
    """Order images so that each adds the most information to those before it.

    Greedy: the next image is the one with the largest ``worth * (1 - s ** 2)``, where ``s`` is its
    largest cosine similarity, after centring, to an image chosen before (0 if negative). This is
    maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998). Time grows with n² d.

    Parameters
    ----------
    worth : array-like of shape (n,)
        Not negative, as from `informativeness`.
    projected : array-like of shape (n, d)
        Vectors that images are compared by.

    Returns
    -------
    ndarray of int, shape (n,)
        Row numbers, the first to label first. Equal ones keep their order.

    Raises
    ------
    ValueError
        If the shapes do not match, or a value is negative or not finite.

    Examples
    --------
    >>> copies = [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]]
    >>> rank([1.0, 0.9, 0.5, 0.1], copies).tolist()
    [0, 2, 3, 1]
    """
    value, directions = _checked(worth, projected)
    floor = _MIN_VALUE_SHARE * value
    rows = np.arange(len(value))
    similarity = np.zeros(len(value), dtype=np.float32)
    order = np.empty(len(value), dtype=np.intp)
    waiting = np.ones(len(value), dtype=bool)
    for place in range(len(order)):
        gain = np.where(waiting, np.maximum(value * (1.0 - similarity**2), floor), -1.0)
        best = int(gain.argmax())
        order[place], waiting[best] = rows[best], False
        np.maximum(similarity, directions @ directions[best], out=similarity)
        if 4 * waiting.sum() < 3 * len(waiting):  # drop the chosen rows, which only cost time
            rows, value, floor = rows[waiting], value[waiting], floor[waiting]
            similarity, directions = similarity[waiting], directions[waiting]
            waiting = np.ones(len(rows), dtype=bool)
    return order


def _checked(
    worth: ArrayLike, projected: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Return the worths, and unit vectors from the mean to the images (0 at the mean)."""
    value, points = np.asarray(worth, dtype=np.float64), np.array(projected, dtype=np.float32)
    if value.ndim != 1 or points.ndim != 2 or len(points) != len(value):
        raise ValueError(
            f"expected n worths and n rows to compare, got shapes {value.shape}, {points.shape}"
        )
    if not (np.isfinite(value).all() and np.isfinite(points).all()) or (value < 0).any():
        raise ValueError("worths must be finite and not negative, rows to compare finite")
    if not len(points):
        return value, points
    points -= points.mean(axis=0, dtype=np.float64).astype(np.float32)
    lengths = np.linalg.norm(points, axis=1, keepdims=True)
    largest = float(lengths.max())
    points /= np.where(lengths > 1e-5 * largest, lengths, np.inf)  # at the mean: similar to none
    return value, points
