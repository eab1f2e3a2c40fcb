"""Tables of the alignment benchmarks, made from the stored results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from benchmarks.alignment.scores import (
    DEFAULT_WINDOW,
    FACTORS,
    HALVES,
    HARD_SNR,
    Answers,
    agreement,
    gain,
    within,
)
from benchmarks.common.tables import table

LEARNED, REFERENCE = "learned", "lgo"
CLEAN_LIMIT, NOISY_LIMIT = 0.03, 0.08
TITLES = {
    "structure_tensor": "structure tensor",
    "lgo": "lgo",
    "learned": "learned",
    "orientationj": "OrientationJ",
    "orientationj_wide": "OrientationJ, 3.5 px",
    "fibriltool": "FibrilTool",
}
_FACTOR_TITLES = {
    "density": "density",
    "snr": "SNR",
    "blur": "blur, px",
    "window": "window, px",
    "aligned": "laid in parallel",
}


def alignment_section(result: Mapping[str, Any]) -> str:
    """Return the agreement of methods with the truth over the grid, and level by level."""
    answers = Answers.of(result, "grid")
    head = (
        f"{len(answers.scenes)} images, each in windows of "
        f"{', '.join(map(str, answers.windows))} px.{_missing(answers)}"
    )
    parts = [head, overall_table(answers), factor_table(answers), best_table(answers)]
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
    for factor in FACTORS:
        for level in answers.orders(factor):
            chosen = answers.where(**{factor: level})
            rows.append([f"{_FACTOR_TITLES[factor]} {_level(level)}", *_cells(answers, chosen)])
    return table(["mean absolute error (bias)", *_titles(answers)], rows)


def best_table(answers: Answers) -> str:
    """Return the method with the smallest error for each signal-to-noise ratio and blur."""
    blurs = answers.orders("blur")
    rows = []
    for snr in answers.orders("snr"):
        cells = []
        for blur in blurs:
            chosen = answers.where(snr=snr, blur=blur)
            mae = {name: agreement(answers.errors(name)[chosen]).mae for name in answers.fraction}
            best = min(mae, key=lambda name: mae[name])
            cells.append(f"{TITLES[best]} {mae[best]:.3f}")
        rows.append([f"SNR {_level(snr)}", *cells])
    return table(["smallest error", *(f"blur {blur:g} px" for blur in blurs)], rows)


def background_sentence(answers: Answers) -> str:
    """Return how many windows are classified as background, by noise."""
    parts = []
    for name in answers.fraction:
        shares = [answers.background[name][answers.where(snr=s)] for s in answers.orders("snr")]
        parts.append(f"{TITLES[name]} {', '.join(f'{100 * each.mean():.0f}' for each in shares)} %")
    levels = ", ".join(_level(level) for level in answers.orders("snr"))
    return f"Windows classified as background, SNR {levels}: {'; '.join(parts)}."


def hard_section(result: Mapping[str, Any]) -> str:
    """Return the errors on the hard half of the grid, by both definitions of it."""
    answers = Answers.of(result, "grid")
    lines = []
    rows = []
    for title, choose in HALVES.items():
        chosen = choose(answers)
        rows.append([f"{title} ({_images(chosen)})", *_cells(answers, chosen)])
        lines.append(f"- On images with a {title}: {_compared(answers, chosen)}")
    heads = [f"mean absolute error (bias), windows of {DEFAULT_WINDOW} px", *_titles(answers)]
    return "\n".join([table(heads, rows), "", *lines])


def clean_section(result: Mapping[str, Any]) -> str:
    """Return the errors on clean images, on crossing or tilted wires, and on noise alone."""
    parts = [limit_table(result), direction_table(result), extras_table(result)]
    return "\n\n".join([*parts, noise_sentence(result)])


def limit_table(result: Mapping[str, Any]) -> str:
    """Return the shares of images whose error is within a limit."""
    clean, grid = Answers.of(result, "clean"), Answers.of(result, "grid")
    window = DEFAULT_WINDOW
    cases = {f"clean, overlap {o:g}": (clean, {"overlap": o}) for o in clean.orders("overlap")}
    cases |= {
        f"SNR {HARD_SNR}, blur {blur:g} px": (grid, {"snr": HARD_SNR, "blur": blur})
        for blur in grid.orders("blur")
    }
    rows = []
    for title, (answers, levels) in cases.items():
        chosen = answers.where(window=window, **levels)
        limit = CLEAN_LIMIT if answers is clean else NOISY_LIMIT
        shares = [within(answers, name, chosen, limit) for name in answers.fraction]
        cells = [
            f"{100 * share:.0f} %, {agreement(answers.errors(name)[chosen]).mae:.3f}"
            for name, share in zip(answers.fraction, shares, strict=True)
        ]
        rows.append([f"{title} ({_images(chosen)}): within {limit:g}", *cells])
    heads = [f"share of images, mean absolute error; windows of {window} px", *_titles(clean)]
    return table(heads, rows)


def direction_table(result: Mapping[str, Any]) -> str:
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


def extras_table(result: Mapping[str, Any]) -> str:
    """Return the errors where wires cross freely and where the specimen is tilted."""
    answers = Answers.of(result, "extras")
    rows = []
    for overlap in answers.orders("overlap"):
        for tilt in answers.orders("tilt"):
            chosen = answers.where(overlap=overlap, tilt=tilt)
            title = f"overlap {overlap:g}, tilt {tilt:g} rad"
            rows.append([f"{title} ({_images(chosen)})", *_cells(answers, chosen)])
    return table(["mean absolute error (bias)", *_titles(answers)], rows)


def noise_sentence(result: Mapping[str, Any]) -> str:
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


def speed_table(result: Mapping[str, Any]) -> str:
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


def _compared(answers: Answers, chosen: np.ndarray) -> str:
    if LEARNED not in answers.fraction:
        return f"{LEARNED} not measured yet."
    apart, (low, high) = gain(answers, chosen, LEARNED, REFERENCE)
    return (
        f"the mean absolute error of {TITLES[LEARNED]} minus that of {TITLES[REFERENCE]} is "
        f"{apart:+.3f} (95 % {low:+.3f} to {high:+.3f}, the same images resampled for both)."
    )


def _cells(answers: Answers, chosen: np.ndarray) -> list[str]:
    found = [agreement(answers.errors(name)[chosen]) for name in answers.fraction]
    return [f"{each.mae:.3f} ({each.bias:+.3f})" for each in found]


def _titles(answers: Answers) -> list[str]:
    return [TITLES[name] for name in answers.fraction]


def _missing(answers: Answers) -> str:
    missing = [title for name, title in TITLES.items() if name not in answers.fraction]
    return f" Not measured yet: {', '.join(missing)}." if missing else ""


def _images(chosen: np.ndarray) -> str:
    n = int(chosen.any(axis=1).sum())
    return f"{n} image" if n == 1 else f"{n} images"


def _values(errors: Iterable[Mapping[str, Any]], sigma: str, name: str, kind: str) -> np.ndarray:
    return np.array([each[sigma][name][kind] for each in errors], dtype=float)


def _level(level: Any) -> str:
    return "without noise" if level is None else f"{level:g}"
