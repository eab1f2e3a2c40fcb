"""The gap between two groups of scores."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

_MIN_SIDE = 3  # scores on either side of the gap
_MIN_DEVIATIONS_BELOW = 4.0
_MIN_DEVIATIONS_ABOVE = 1.0  # the scores of defects vary more than those of defect-free images


def gap_between_modes(scores: ArrayLike) -> tuple[float, float] | None:
    """Find the gap between two groups of scores that are clearly separated.

    The gap is the widest distance between two consecutive scores. It has at least three scores on
    either side, is wider than four standard deviations of the scores below it and than one of
    those above, and at least twice as wide as all other distances: 2 + 20 / n times, because a few
    scores can leave a gap by chance. Such a gap is found in fewer than 1 % of samples of a single
    normal, Gumbel or lognormal distribution.

    Parameters
    ----------
    scores : array-like of shape (n,)
        Finite.

    Returns
    -------
    (float, float) or None
        The scores at both ends of the gap; None if there is none.

    Examples
    --------
    >>> from hypervlad.metrics import gap_between_modes
    >>> gap_between_modes([1.0, 1.2, 1.3, 1.5, 9.0, 9.5, 10.0, 10.4])
    (1.5, 9.0)
    >>> gap_between_modes([1.0, 1.2, 1.3, 1.5, 1.6, 1.8, 1.9, 2.0]) is None
    True
    """
    ordered = np.sort(np.asarray(scores, dtype=np.float64))
    n = len(ordered)
    if n < 2 * _MIN_SIDE:
        return None
    distances = np.diff(ordered)
    n_below = int(distances.argmax()) + 1
    below, above = ordered[:n_below], ordered[n_below:]
    gap = distances[n_below - 1]
    other = np.delete(distances, n_below - 1).max()
    is_clear = (
        min(len(below), len(above)) >= _MIN_SIDE
        and gap > _MIN_DEVIATIONS_BELOW * below.std()
        and gap > _MIN_DEVIATIONS_ABOVE * above.std()
        and gap > (2 + 20 / n) * other
    )
    return (float(below[-1]), float(above[0])) if is_clear else None
