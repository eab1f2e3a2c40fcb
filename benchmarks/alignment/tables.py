"""Agreement of measured fractions with true ones, and its tables.

Limits of agreement: bias and 1.96 standard deviations of the differences on either side (Bland and
Altman 1986, Lancet 327). Windows of several sizes on one image form a group: intervals resample
images.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.common.results import Facts
from benchmarks.common.scores import GroupDraws
from benchmarks.common.tables import table

DEFAULT_WINDOW = 32
_LIMIT = 1.96  # standard deviations that hold 95 % of a normal distribution
TITLES = {
    "structure_tensor": "structure tensor",
    "learned": "learned",
    "orientationj": "OrientationJ",
    "orientationj_wide": "OrientationJ, 3.5 px",
    "fibriltool": "FibrilTool",
}
FACTORS = {
    "density": "density",
    "snr": "SNR",
    "blur": "blur, px",
    "window": "window, px",
    "aligned": "laid in parallel",
}


@dataclass(frozen=True)
class Agreement:
    """Mean difference (measured minus true), mean absolute one, 95 % limits, and the largest."""

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
        By method; see `benchmarks.alignment.methods.answers`. A fraction is 0 where a method finds
        only background.
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
        """Return the levels of a factor."""
        return list(dict.fromkeys(self.levels(factor).ravel().tolist()))

    def mae_interval(self, method: str) -> list[float]:
        """Return the 95 % interval of the mean absolute error, images resampled."""
        images = np.nonzero(np.ones(self.truth.shape))[0]
        return GroupDraws(images, "alignment").interval(np.abs(self.errors(method)).ravel())


def alignment_section(result: Facts) -> str:
    """Return the agreement of methods with the truth over the grid, and level by level."""
    answers = Answers.of(result, "grid")
    head = (
        f"{len(answers.scenes)} images, each in windows of "
        f"{', '.join(map(str, answers.windows))} px."
    )
    parts = [head, overall_table(answers), factor_table(answers)]
    return "\n\n".join([*parts, background_sentence(answers)])


def overall_table(answers: Answers) -> str:
    """Return bias, error and limits of agreement of each method, over all images and windows."""
    heads = ["method", "bias", "mean absolute error", "95 % limits of agreement", "worst error"]
    heads += ["windows classified correctly", "without an answer"]
    rows = []
    for name in answers.fraction:
        found = agreement(answers.errors(name))
        low, high = answers.mae_interval(name)
        silent = (answers.background[name] == 1).sum()
        rows.append(
            [
                TITLES[name],
                f"{found.bias:+.3f}",
                f"{found.mae:.3f} ({low:.3f} to {high:.3f})",
                f"{found.low:+.3f} to {found.high:+.3f}",
                f"{found.worst:+.3f}",
                f"{100 * np.nanmean(answers.right[name]):.1f} %",
                f"{silent} of {answers.truth.size}" if silent else "none",
            ]
        )
    return table(heads, rows)


def factor_table(answers: Answers) -> str:
    """Return mean absolute error and bias of each method at every level of every factor."""
    rows = []
    for factor, title in FACTORS.items():
        for level in answers.orders(factor):
            chosen = answers.where(**{factor: level})
            rows.append([f"{title} {_level(level)}", *_cells(answers, chosen)])
    return table(["mean absolute error (bias)", *_titles(answers)], rows)


def background_sentence(answers: Answers) -> str:
    """Return how many windows are classified as background, by noise."""
    parts = []
    for name in answers.fraction:
        shares = [answers.background[name][answers.where(snr=s)] for s in answers.orders("snr")]
        parts.append(f"{TITLES[name]} {', '.join(f'{100 * each.mean():.0f}' for each in shares)} %")
    levels = ", ".join(_level(level) for level in answers.orders("snr"))
    return f"Windows classified as background, SNR {levels}: {'; '.join(parts)}."


def clean_section(result: Facts) -> str:
    """Return the errors on clean images, on crossing or tilted wires, and on noise alone."""
    parts = [direction_table(result), extras_table(result), noise_sentence(result)]
    return "\n\n".join(parts)


def direction_table(result: Facts) -> str:
    """Return the errors of directions on the pixels of wires, for clean images."""
    scenes = [scene for scene in result["scenes"] if scene["set"] == "clean"]
    errors = result["orientation"]["errors"]
    rows = []
    for overlap in dict.fromkeys(scene["overlap"] for scene in scenes):
        chosen = [e for e, s in zip(errors, scenes, strict=True) if s["overlap"] == overlap]
        for sigma, by_method in chosen[0].items():
            for name in sorted(by_method, key=list(TITLES).index):
                each = {kind: _values(chosen, sigma, name, kind) for kind in by_method[name]}
                rows.append(
                    [
                        f"overlap {overlap:g}",
                        f"{sigma} px",
                        TITLES[name],
                        f"{each['median'].mean():.2f}°",
                        f"{each['median'].max():.2f}°",
                        f"{each['upper'].mean():.1f}°",
                        f"{100 * each['far_off'].mean():.1f} %",
                        f"{100 * each['lost'].mean():.1f} %",
                    ]
                )
    heads = ["images", "sigma", "method", "median error", "worst image"]
    heads += ["90 % are below", "errors over 10°", "wire pixels lost to background"]
    return table(heads, rows)


def extras_table(result: Facts) -> str:
    """Return the errors where wires cross freely and where the specimen is tilted."""
    answers = Answers.of(result, "extras")
    rows = []
    for overlap in answers.orders("overlap"):
        for tilt in answers.orders("tilt"):
            chosen = answers.where(overlap=overlap, tilt=tilt)
            title = f"overlap {overlap:g}, tilt {tilt:g} rad"
            rows.append([f"{title} ({_images(chosen)})", *_cells(answers, chosen)])
    return table(["mean absolute error (bias)", *_titles(answers)], rows)


def noise_sentence(result: Facts) -> str:
    """Return the answers for images of noise alone."""
    answers = Answers.of(result, "noise")
    parts = []
    for name in answers.fraction:
        found = 1 - answers.background[name]
        # The fraction is of what is not background; this is of the whole image.
        aligned = (answers.fraction[name] * found).mean()
        parts.append(f"{TITLES[name]} {100 * found.mean():.1f} %, {100 * aligned:.1f} %")
    return (
        f"On {_images(answers.where())} of noise alone, windows classified as fibres, and as "
        f"aligned: {'; '.join(parts)}."
    )


def speed_table(result: Facts) -> str:
    """Return times relative to scikit-image's structure tensor, as medians over rounds."""
    seconds = {name: np.array(values) for name, values in result["seconds"].items()}
    baseline = seconds[result["baseline"]]
    height, width = result["size"]
    megapixels = height * width / 1e6
    heads = [f"{width} x {height} pixels", "time", "seconds per megapixel"]
    heads.append(f"relative to {result['baseline']}")
    rows = [
        [
            name,
            f"{1000 * np.median(own):.0f} ms",
            f"{np.median(own) / megapixels:.3f}",
            f"{np.median(own / baseline):.2f} x",
        ]
        for name, own in seconds.items()
    ]
    return table(heads, rows)


def _cells(answers: Answers, chosen: np.ndarray) -> list[str]:
    found = [agreement(answers.errors(name)[chosen]) for name in answers.fraction]
    return [f"{each.mae:.3f} ({each.bias:+.3f})" for each in found]


def _titles(answers: Answers) -> list[str]:
    return [TITLES[name] for name in answers.fraction]


def _images(chosen: np.ndarray) -> str:
    n = int(chosen.any(axis=1).sum())
    return f"{n} image" if n == 1 else f"{n} images"


def _values(errors: Iterable[Mapping[str, Any]], sigma: str, name: str, kind: str) -> np.ndarray:
    return np.array([each[sigma][name][kind] for each in errors], dtype=float)


def _level(level: Any) -> str:
    return "without noise" if level is None else f"{level:g}"
