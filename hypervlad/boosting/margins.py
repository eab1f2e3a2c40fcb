"""Margins, probabilities and log loss: the few formulas that the linear part and the trees share.

A margin is a class's score before the softmax. Several classes have margins of shape (n,
n_classes); two classes have one column, the log odds of the second, as in scikit-learn and
xgboost.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_softmax, softmax

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]


def n_margins(n_classes: int) -> int:
    """Columns of the margin matrix."""
    return 1 if n_classes == 2 else n_classes


def probabilities(margins: FloatArray) -> FloatArray:
    """Class probabilities of shape (n, n_classes)."""
    if margins.shape[1] == 1:
        # Both from expit: 1 - p would lose the small one of the two.
        return np.hstack([expit(-margins), expit(margins)])
    return softmax(margins, axis=1)


def log_losses(margins: FloatArray, codes: IntArray) -> FloatArray:
    """Negative log probability of each row's own class, shape (n,)."""
    if margins.shape[1] == 1:
        sign = np.where(codes == 1, 1.0, -1.0)
        return np.logaddexp(0.0, -sign * margins[:, 0])
    return -log_softmax(margins, axis=1)[np.arange(len(codes)), codes]


def prior_margins(codes: IntArray, weight: FloatArray, n_classes: int) -> FloatArray:
    """Log of the classes' weighted shares, as one row of margins, shape (n_margins,)."""
    log_prior = np.log(np.bincount(codes, weights=weight, minlength=n_classes) / weight.sum())
    return log_prior[1:] - log_prior[0] if n_classes == 2 else log_prior
