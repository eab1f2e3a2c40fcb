"""How accurate is the aligned fraction?

Synthetic fibres whose directions are known: an image for every combination of cover, noise, blur
and share of parallel fibres, on seeds on which no constant was tuned. The truth is the same rule
applied to the true directions.

    python -m benchmarks.alignment
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from benchmarks.common.program import new_parser, parse
from benchmarks.common.results import RESULTS, Facts, origin, save_result
from benchmarks.common.scores import GroupDraws
from benchmarks.common.tables import table
from hypervlad import AlignmentClassifier, make_fibre_images
from hypervlad.fibres import aligned_fraction

SIZE = (256, 384)
WINDOWS = (16, 32, 64)
FACTORS: dict[str, tuple[float, ...]] = {
    "cover": (0.5,),
    "contrast_to_noise": (1000.0, 8.0, 3.0, 1.5),
    "blur": (0.6, 2.0),
    "aligned": (0.0, 0.5, 1.0),
}
FIBRES: dict[str, Any] = {"diameter": (5, 10), "length": (100, 300), "look": "round"}
SEED, TRAINING_SEED = 50_719, 50_720


def learned(n_training: int) -> dict[int, AlignmentClassifier]:
    """Train a classifier for each window size, as align-train does, on images of another seed."""
    ranges = {"aligned": (0, 1), "cover": (0.2, 0.9), "blur": (0.4, 3.3)}
    images, truths = make_fibre_images(
        n_training, **FIBRES | ranges, contrast_to_noise=(1, 20), size=SIZE,
        random_state=TRAINING_SEED,
    )  # fmt: skip
    return {
        window: AlignmentClassifier(window=window, random_state=0).fit(
            images, [truth.aligned_map(window) for truth in truths]
        )
        for window in WINDOWS
    }


def measure(models: dict[int, AlignmentClassifier]) -> Iterator[Facts]:
    """Yield the true and the measured fractions of each image, by method, for each window size."""
    for number, levels in enumerate(itertools.product(*FACTORS.values())):
        condition = dict(zip(FACTORS, levels, strict=True))
        (image,), (truth,) = make_fibre_images(
            1, **FIBRES | condition, size=SIZE, random_state=SEED + number
        )
        known = {window: truth.aligned_fraction(window) for window in WINDOWS}
        true = [round(known[window].fraction, 4) for window in WINDOWS]
        row: Facts = {**condition, "true": true, "found": {}, "right": {}, "holds": {}}
        for name in ("structure tensor", "learned"):
            chosen = models if name == "learned" else dict.fromkeys(WINDOWS, "structure_tensor")
            found = [aligned_fraction(image, chosen[w], window=w) for w in WINDOWS]
            row["found"][name] = [round(float(np.nan_to_num(each.fraction)), 4) for each in found]
            ends = (each.fraction_interval for each in found)
            row["holds"][name] = [
                bool(own.low <= each <= own.high) for own, each in zip(ends, true, strict=True)
            ]
            row["right"][name] = [
                round(float((each.aligned == known[w].aligned)[~known[w].background].mean()), 4)
                for each, w in zip(found, WINDOWS, strict=True)
            ]
        yield row


def errors_of(rows: Sequence[Facts], method: str) -> np.ndarray:
    return np.array([np.subtract(row["found"][method], row["true"]) for row in rows])


def alignment_table(result: Facts) -> str:
    """Return the errors of each method; limits of agreement: bias and 1.96 standard deviations."""
    rows, lines = result["images"], []
    draws = GroupDraws(np.arange(len(rows)), "alignment")
    for method in rows[0]["found"]:
        errors = errors_of(rows, method)
        low, high = draws.interval(np.abs(errors).mean(axis=1))
        reach = 1.96 * errors.std(ddof=1)
        right, holds = (np.mean([row[each][method] for row in rows]) for each in ("right", "holds"))
        lines.append(
            [
                method,
                f"{errors.mean():+.3f}",
                f"{np.abs(errors).mean():.3f} ({low:.3f} to {high:.3f})",
                f"{errors.mean() - reach:+.3f} to {errors.mean() + reach:+.3f}",
                f"{errors.flat[np.abs(errors).argmax()]:+.3f}",
                f"{100 * right:.1f} %",
                f"{100 * holds:.0f} %",
            ]
        )
    heads = ["method", "bias", "mean absolute error", "95 % limits of agreement", "worst error"]
    text = table([*heads, "windows classified correctly", "interval holds"], lines)
    lines = []
    for name, levels in (*FACTORS.items(), ("window", WINDOWS)):
        for level in levels:
            cells = [f"{name.replace('_', ' ')} {level:g}"]
            for method in rows[0]["found"]:
                own = errors_of([row for row in rows if row.get(name, level) == level], method)
                if name == "window":
                    own = own[:, [WINDOWS.index(int(level))]]
                cells.append(f"{np.abs(own).mean():.3f} ({own.mean():+.3f})")
            lines.append(cells)
    factors = table(["mean absolute error (bias)", *rows[0]["found"]], lines)
    windows = ", ".join(map(str, WINDOWS))
    return f"{len(rows)} images, each in windows of {windows} px.\n\n{text}\n\n{factors}"


def main(argv: Sequence[str] | None = None) -> None:
    parser = new_parser(__doc__, RESULTS / "alignment" / "alignment.json", threads=1)
    parser.add_argument("--training", type=int, default=30, help="number of training images")
    options = parse(parser, argv)
    models = learned(options.training)
    result = {"images": list(measure(models)), "origin": origin()}
    save_result(options.out, result, indent=None)
    print(alignment_table(result))


if __name__ == "__main__":
    main()
