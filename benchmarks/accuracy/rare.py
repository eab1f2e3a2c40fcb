"""Which classes are found when one is rare? Class weights and expected shares of the learner.

Sets as they are, and with each class in turn thinned to a tenth of its groups (at least five).
Codebooks are learnt once per set, without labels: compare the scores with each other only.

    python -m benchmarks.accuracy.rare --data ../shared/data
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.utils.class_weight import compute_sample_weight

from benchmarks.common.checkpoints import load_or_run
from benchmarks.common.data import DATA_SETS, DataSet, folds_of, tem_set
from benchmarks.common.program import new_parser, parse
from benchmarks.common.results import RESULTS, origin, save_result
from benchmarks.common.tables import table
from hypervlad import BoostedSoftmaxClassifier, default_encoder

SETS = (*DATA_SETS, "magnetic_tile/images")
SEED = 2000
THINNED = 0.1
MIN_GROUPS = 5
N_DRAWS = 1000
DEFAULT = "prior sqrt (default)"
LEARNERS: Mapping[str, Mapping[str, Any]] = {
    "prior training": {"prior": "training"},
    DEFAULT: {"prior": "sqrt"},
    "prior uniform": {"prior": "uniform"},
    "class weights balanced": {"is_balanced": True},
}
SCORES = ("accuracy", "balanced accuracy", "mean of both", "log-loss", "lowest recall")


def vectors(data: DataSet) -> tuple[np.ndarray, list[int]]:
    """Return the vectors of all images, and the widths of their feature blocks."""
    encoder = default_encoder(random_state=0).fit(list(data.paths))
    return encoder.transform(list(data.paths)), list(encoder.feature_blocks.values())


def thinned(data: DataSet) -> Iterator[np.ndarray]:
    """Yield, for each class of enough groups, the rows that stay when it is thinned."""
    for number, label in enumerate(data.classes):
        groups = np.unique(data.groups[data.y == label])
        n_kept = max(MIN_GROUPS, round(THINNED * len(groups)))
        if n_kept <= len(groups) / 2:
            rng = np.random.default_rng([SEED, number])
            kept = rng.choice(groups, n_kept, replace=False)
            yield np.flatnonzero((data.y != label) | np.isin(data.groups, kept))


def subset(data: DataSet, rows: np.ndarray) -> DataSet:
    return replace(data, paths=data.paths[rows], y=data.y[rows], groups=data.groups[rows])


def out_of_fold(
    data: DataSet, X: np.ndarray, widths: list[int], learner: Mapping[str, Any], repeats: int
) -> np.ndarray:
    """Return out-of-fold probabilities (n_repeats, n, n_classes)."""
    proba = np.full((repeats, len(data.y), len(data.classes)), np.nan)
    for fold in folds_of(data, repeats, SEED):
        prior = learner.get("prior", "training")
        model = BoostedSoftmaxClassifier(n_estimators=0, random_state=fold.seed, prior=prior)
        weight = compute_sample_weight("balanced", fold.y) if "is_balanced" in learner else None
        model.fit(X[fold.train], fold.y, weight, groups=fold.groups, blocks=widths)
        proba[fold.repeat, fold.test] = model.predict_proba(X[fold.test])
    return proba


def measure(data: DataSet, repeats: int) -> dict[str, np.ndarray]:
    """Return the probabilities of each learner on the set and on its thinned versions."""
    X, widths = vectors(data)
    found = {}
    for name, learner in LEARNERS.items():
        found[f"whole {name}"] = out_of_fold(data, X, widths, learner, repeats)
        for number, rows in enumerate(thinned(data)):
            proba = out_of_fold(subset(data, rows), X[rows], widths, learner, 1)
            found[f"{number} {name}"] = proba
    return found


def scores(codes: np.ndarray, proba: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    """Return the SCORES of probabilities (n_repeats, n, n_classes); NaN rows are not counted."""
    weight = np.ones(len(codes)) if weight is None else weight
    weight = np.where(np.isnan(proba[0, :, 0]), 0.0, weight)
    right = (proba.argmax(axis=2) == codes).mean(axis=0)
    of_truth = np.nan_to_num(proba[:, np.arange(len(codes)), codes], nan=1.0)
    loss = -np.log(np.maximum(of_truth, np.finfo(float).eps)).mean(axis=0)
    counts = np.bincount(codes, weight)
    with np.errstate(invalid="ignore"):
        recall = np.bincount(codes, weight * right) / counts
    accuracy = weight @ right / weight.sum()
    balanced = np.nanmean(recall)
    mean = (accuracy + balanced) / 2
    return np.array([accuracy, balanced, mean, weight @ loss / weight.sum(), np.nanmin(recall)])


def drawn_scores(data: DataSet, proba: np.ndarray) -> np.ndarray:
    """Return the scores of `N_DRAWS` samples of groups, the same for every learner."""
    _, group_of_row = np.unique(data.groups, return_inverse=True)
    n_groups = group_of_row.max() + 1
    rng = np.random.default_rng(SEED)
    codes = data.codes
    draws = []
    for _ in range(N_DRAWS):
        times = np.bincount(rng.integers(n_groups, size=n_groups), minlength=n_groups)
        draws.append(scores(codes, proba, times[group_of_row].astype(float)))
    return np.array(draws)


def versions_of(data: DataSet) -> dict[str, list[tuple[str, DataSet]]]:
    """Return the set as it is and its thinned versions: key in the results, and data."""
    thin = [(str(i), subset(data, rows)) for i, rows in enumerate(thinned(data))]
    found = {data.name: [("whole", data)]}
    return found | ({f"{data.name}, one class rare": thin} if thin else {})


def rows_of(data: DataSet, found: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """Return the scores of each learner on each version, and the draws of their differences."""
    rows = []
    for name, versions in versions_of(data).items():
        drawn: dict[str, np.ndarray] = {}
        for learner in LEARNERS:
            values, draws = [], []
            for key, part in versions:
                proba = found[f"{key} {learner}"]
                values.append(scores(part.codes, proba))
                draws.append(drawn_scores(part, proba))
            drawn[learner] = np.mean(draws, axis=0)
            rows.append({"set": name, "learner": learner, "values": np.mean(values, 0).tolist()})
        for row in rows[-len(LEARNERS) :]:
            gains = drawn[row["learner"]] - drawn["prior training"]
            row["gain_draws"] = gains.round(5).tolist()
    return rows


def summary(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return means over the versions of all sets, with intervals of the gains on prior training."""
    found = []
    for learner in LEARNERS:
        own = [row for row in rows if row["learner"] == learner]
        base = [row for row in rows if row["learner"] == "prior training"]
        values = np.mean([row["values"] for row in own], axis=0)
        gain = values - np.mean([row["values"] for row in base], axis=0)
        drawn = np.mean([row["gain_draws"] for row in own], axis=0)
        low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
        found.append(
            {
                "learner": learner,
                "values": values.tolist(),
                "gain": gain.tolist(),
                "low": low.tolist(),
                "high": high.tolist(),
            }
        )
    return found


def rare_section(facts: Mapping[str, Any]) -> str:
    """Return the tables of a stored result."""
    lines = [
        [row["set"], row["learner"], *(f"{value:.3f}" for value in row["values"])]
        for row in facts["rows"]
    ]
    means = []
    for row in facts["means"]:
        cells = [row["learner"]]
        for value, gain, low, high in zip(
            row["values"], row["gain"], row["low"], row["high"], strict=True
        ):
            against = f" ({gain:+.3f} [{low:+.3f}, {high:+.3f}])"
            cells.append(f"{value:.3f}{against if gain or low or high else ''}")
        means.append(cells)
    return "\n\n".join(
        [
            table(["set", "learner", *SCORES], lines),
            "Means over the rows above, and the gain on the training shares [95 % interval, groups "
            "resampled within each set]:",
            table(["learner", *SCORES], means),
        ]
    )


def main(argv: Sequence[str] | None = None) -> None:
    out = RESULTS / "accuracy" / "rare.json"
    parser = new_parser(__doc__, out, checkpoints="rare", threads=2)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--tem", type=int, default=400, help="synthetic TEM images; 0: none")
    parser.add_argument("--repeats", type=int, default=2)
    options = parse(parser, argv)
    sets = [DataSet.load(options.data / name, name=name) for name in options.sets]
    if options.tem:
        sets.append(tem_set(options.checkpoints / "images", options.tem))
    rows: list[dict[str, Any]] = []
    for data in sets:
        settings = {"data": data.digest, "repeats": options.repeats}
        path = options.checkpoints / f"{data.name.replace('/', '_')}.json"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about classes of one or two groups
            found = load_or_run(path, settings, lambda d=data: measure(d, options.repeats))
        rows += rows_of(data, found)
    shown = [{k: v for k, v in row.items() if k != "gain_draws"} for row in rows]
    facts = {"rows": shown, "means": summary(rows), "origin": origin()}
    save_result(options.out, facts)
    print(rare_section(facts))


if __name__ == "__main__":
    main()
