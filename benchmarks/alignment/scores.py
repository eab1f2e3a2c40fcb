"""Agreement of measured fractions with true ones.

Limits of agreement: bias and 1.96 standard deviations of the differences on either side (Bland and
Altman 1986, "Statistical methods for assessing agreement between two methods of clinical
measurement", Lancet 327). Windows of several sizes on one image form a group: intervals resample
images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.common.scores import GroupDraws

DEFAULT_WINDOW = 32
HARD_SNR = 2
FACTORS = ("density", "snr", "blur", "window", "aligned")
_LIMIT = 1.96  # standard deviations that hold 95 % of a normal distribution


@dataclass(frozen=True)
class Agreement:
    """Agreement of measured with true fractions; differences are measured minus true.

    Attributes
    ----------
    bias, mae, low, high : float
        Mean difference, mean absolute one, and 95 % limits of agreement.
    worst : float
        The difference that is largest in absolute value.
    """

    bias: float
    mae: float
    low: float
    high: float
    worst: float


def agreement(errors: np.ndarray) -> Agreement:
    """Summarise differences.

    Examples
    --------
    >>> found = agreement(np.array([0.1, -0.3, 0.2]))
    >>> round(found.bias, 6), round(found.mae, 6), found.worst
    (0.0, 0.2, -0.3)
    """
    bias = float(errors.mean())
    reach = _LIMIT * float(errors.std(ddof=1)) if errors.size > 1 else 0.0
    worst = float(errors.flat[np.abs(errors).argmax()])
    return Agreement(bias, float(np.abs(errors).mean()), bias - reach, bias + reach, worst)


@dataclass(frozen=True)
class Answers:
    """The truth about the images of a set, and the answers of each method.

    Attributes
    ----------
    scenes : list of dict
        Levels of the factors, image by image.
    windows : list of int
    truth : ndarray of shape (n_images, n_windows)
    fraction, right, background : dict of ndarray of shape (n_images, n_windows)
        By method: the fraction, 0 where a method finds only background; the share of windows
        classified correctly; the share of windows classified as background.
    """

    scenes: list[dict[str, Any]]
    windows: list[int]
    truth: np.ndarray
    fraction: dict[str, np.ndarray]
    right: dict[str, np.ndarray]
    background: dict[str, np.ndarray]

    @classmethod
    def of(cls, result: Mapping[str, Any], name: str) -> Answers:
        """Return the images of one set of a stored result."""
        chosen = [i for i, scene in enumerate(result["scenes"]) if scene["set"] == name]

        def table(by_window: Mapping[str, list[float | None]]) -> np.ndarray:
            columns = [by_window[str(window)] for window in result["windows"]]
            return np.array(columns, dtype=float).T[chosen]

        methods = result["methods"]
        return cls(
            [result["scenes"][i] for i in chosen],
            result["windows"],
            table(result["truth"]),
            {name: np.nan_to_num(table(each["fraction"])) for name, each in methods.items()},
            {name: table(each["right"]) for name, each in methods.items()},
            {name: table(each["background"]) for name, each in methods.items()},
        )

    def errors(self, method: str) -> np.ndarray:
        """Return measured minus true fractions, shape (n_images, n_windows)."""
        return self.fraction[method] - self.truth

    def levels(self, factor: str) -> np.ndarray:
        """Return the level of a factor for each image and window, as an array of objects."""
        if factor == "window":
            return np.array([self.windows] * len(self.scenes), dtype=object)
        column = np.array([scene[factor] for scene in self.scenes], dtype=object)
        return np.repeat(column[:, None], len(self.windows), axis=1)

    def where(self, **levels: Any) -> np.ndarray:
        """Return a mask of the images and windows with these levels."""
        chosen = np.ones(self.truth.shape, dtype=bool)
        for factor, level in levels.items():
            chosen &= np.equal(self.levels(factor), level).astype(bool)
        return chosen

    def orders(self, factor: str) -> list[Any]:
        """Return the levels of a factor in the order of the images."""
        return list(dict.fromkeys(self.levels(factor).ravel().tolist()))

    def mae_interval(self, method: str) -> list[float]:
        """Return the 95 % interval of the mean absolute error, images resampled."""
        return interval(np.abs(self.errors(method)), np.ones(self.truth.shape, dtype=bool))


def interval(values: np.ndarray, chosen: np.ndarray) -> list[float]:
    """Return the 95 % interval of the mean of the chosen values, images resampled.

    Parameters
    ----------
    values, chosen : ndarray of shape (n_images, n_windows)
    """
    images = np.nonzero(chosen)[0]
    return GroupDraws(images, "alignment").interval(values[chosen])


def hard_by_error(answers: Answers) -> np.ndarray:
    """Return the images, at windows of 32 px, on which the mean error of all methods is high.

    Their mean absolute error lies above its median over the images.
    """
    chosen = answers.where(window=DEFAULT_WINDOW)
    mean = np.mean([np.abs(answers.errors(name)) for name in answers.fraction], axis=0)
    return np.asarray(chosen & (mean > np.median(mean[chosen])))


def hard_by_noise(answers: Answers) -> np.ndarray:
    """Return the images, at windows of 32 px, with a signal-to-noise ratio of at most 2."""
    noisy = [level is not None and level <= HARD_SNR for level in answers.levels("snr").flat]
    return answers.where(window=DEFAULT_WINDOW) & np.reshape(noisy, answers.truth.shape)


HALVES: dict[str, Callable[[Answers], np.ndarray]] = {
    "high mean error of all methods": hard_by_error,
    f"signal-to-noise ratio of at most {HARD_SNR}": hard_by_noise,
}


def gain(answers: Answers, chosen: np.ndarray, one: str, other: str) -> tuple[float, list[float]]:
    """Return the difference of the mean absolute errors of two methods, and its 95 % interval.

    The error of the first minus that of the second: below 0, the first is better.
    """
    apart = np.abs(answers.errors(one)) - np.abs(answers.errors(other))
    return float(apart[chosen].mean()), interval(apart, chosen)


def within(answers: Answers, method: str, chosen: np.ndarray, limit: float) -> float:
    """Return the share of the chosen images whose error is at most the limit."""
    return float((np.abs(answers.errors(method)[chosen]) <= limit + 1e-9).mean())
