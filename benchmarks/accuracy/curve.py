"""How many images are needed? Learning curves of the default and of simple methods.

From each class, 1 to 50 images are learnt from, of as many groups as possible, and images of other
groups are tested, ten times. Sizes that leave fewer than ten test images for a class are left out.

    python -m benchmarks.accuracy.curve --data ../shared/data
"""

from __future__ import annotations

import argparse
import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler

from benchmarks.accuracy.methods import Taps
from benchmarks.accuracy.tables import DEFAULT
from benchmarks.common.checkpoints import load_or_run
from benchmarks.common.data import DATA_SETS, DataSet, tem_set
from benchmarks.common.logistic import TunedLogisticRegression
from benchmarks.common.program import add_network, new_parser, parse
from benchmarks.common.results import BENCHMARKS, RESULTS, origin, save_result
from benchmarks.common.tables import table
from hypervlad import MicrographClassifier, default_encoder

SETS = (*DATA_SETS, "magnetic_tile/images")
SIZES = (1, 2, 3, 5, 10, 20, 50)
N_DRAWS = 10
N_TESTED = (10, 12)  # images of each class: at least, at most
N_BOOTSTRAP = 2000
SEED = 3000
LOGISTIC = "pooled taps + tuned logistic regression"
MEANS = "pooled taps + nearest class mean"
NEIGHBOURS = "pooled taps + k nearest neighbours"
METHODS = (DEFAULT, LOGISTIC, MEANS, NEIGHBOURS)


def draw(data: DataSet, size: int, seed: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Return rows to learn from, `size` of each class, and rows of other groups to test.

    None if too few images are left to test.
    """
    rng = np.random.default_rng([SEED, size, seed])
    for _ in range(200):
        train = np.concatenate([_spread(data, label, size, rng) for label in data.classes])
        others = rng.permutation(np.flatnonzero(~np.isin(data.groups, data.groups[train])))
        tested = [others[data.y[others] == label] for label in data.classes]
        if len(train) == size * len(data.classes) and min(map(len, tested)) >= N_TESTED[0]:
            return train, np.concatenate([rows[: N_TESTED[1]] for rows in tested])
    return None


def _spread(data: DataSet, label: Any, size: int, rng: np.random.Generator) -> np.ndarray:
    """Choose images of a class; the second of a group only when each group has one."""
    rows = rng.permutation(np.flatnonzero(data.y == label))
    seen: dict[Any, int] = {}
    turns = []
    for group in data.groups[rows]:
        seen[group] = seen.get(group, 0) + 1
        turns.append(seen[group])
    return rows[np.argsort(turns, kind="stable")][:size]


def rivals(size: int, seed: int) -> dict[str, Any]:
    """Return the simple methods, on channels standardised by the images they learn from."""
    alike = [StandardScaler(), Normalizer()]  # the cosine is better than the distance
    return {
        LOGISTIC: TunedLogisticRegression(random_state=seed),
        MEANS: make_pipeline(*alike, NearestCentroid()),
        NEIGHBOURS: make_pipeline(*alike, KNeighborsClassifier(1 if size < 5 else 5)),
    }


def accuracies(
    data: DataSet, pooled: np.ndarray, size: int, seed: int, model: Callable[[], Any]
) -> dict[str, float]:
    """Return the mean recall of the classes by each method on one draw; empty if there is none."""
    rows = draw(data, size, seed)
    if rows is None:
        return {}
    train, test = rows
    y, truth = data.y[train], data.y[test]
    predicted = {}
    for name, rival in rivals(size, seed).items():
        given = {} if isinstance(rival, Pipeline) else {"groups": data.groups[train]}
        with np.errstate(invalid="ignore"):  # the spread of a class of one image
            predicted[name] = rival.fit(pooled[train], y, **given).predict(pooled[test])
    ours = model().set_params(random_state=seed)
    ours.fit(list(data.paths[train]), y, groups=data.groups[train])
    predicted[DEFAULT] = ours.predict(list(data.paths[test]))
    return {
        name: float(np.mean([(p[truth == c] == c).mean() for c in data.classes]))
        for name, p in predicted.items()
    }


def measure(data: DataSet, taps: Taps, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the accuracies of all draws on one set: ``size``, ``draw`` and one per method."""
    pooled, _ = data.features("pooled", taps.pooled)

    def model() -> MicrographClassifier:
        encoder = default_encoder(backbone=options.backbone, weights=options.weights)
        return MicrographClassifier(encoder, calibrate=False)

    rows: list[dict[str, Any]] = []
    for size in SIZES:
        of_size = []
        for seed in range(N_DRAWS):
            settings = {"data": data.digest, "size": size, "draw": seed, "seed": SEED}
            settings |= {"weights": taps.network.digest}
            path = options.checkpoints / data.name.replace("/", "_") / f"{size}_{seed}.json"
            run = functools.partial(accuracies, data, pooled, size, seed, model)
            found = load_or_run(path, settings, run)
            if DEFAULT not in found:
                return rows  # the set is too small for this size and larger ones
            of_size.append({"size": size, "draw": seed} | {n: found[n] for n in METHODS})
        rows += of_size
        means = [np.mean([row[name] for row in of_size]) for name in METHODS]
        print(data.name, size, np.round(means, 3), flush=True)
    return rows


def mean_curves(by_set: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, np.ndarray]:
    """Return the accuracy of each method at each size, averaged over the sets that have it."""
    return {name: _curve([_cells(rows, name) for rows in by_set.values()]) for name in METHODS}


def _cells(rows: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    """Return accuracies (sizes, draws); NaN where a set is too small."""
    cells = np.full((len(SIZES), N_DRAWS), np.nan)
    for row in rows:
        cells[SIZES.index(row["size"]), row["draw"]] = row[name]
    return cells


def _curve(cells: Sequence[np.ndarray]) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a size that no set has
        return np.asarray(np.nanmean([np.nanmean(each, axis=1) for each in cells], axis=0))


def leads(by_set: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Return the mean lead of the default over the whole curve on each rival, with its interval.

    Draws are resampled within each set and size, the same for both methods.
    """
    rng = np.random.default_rng(SEED)
    found = []
    for name in METHODS[1:]:
        gaps = [_cells(rows, DEFAULT) - _cells(rows, name) for rows in by_set.values()]
        drawn = []
        for _ in range(N_BOOTSTRAP):
            chosen = rng.integers(N_DRAWS, size=N_DRAWS)
            drawn.append(np.nanmean(_curve([gap[:, chosen] for gap in gaps])))
        low, high = np.percentile(drawn, [2.5, 97.5])
        lead = float(np.nanmean(_curve(gaps)))
        found.append({"rival": name, "lead": lead, "low": float(low), "high": float(high)})
    return found


def curve_section(facts: Mapping[str, Any]) -> str:
    """Return the tables of a stored result."""
    by_set = facts["rows"]
    means = mean_curves(by_set)
    heads = ["set", "method", *map(str, SIZES)]
    lines = [["mean of the sets", name, *_texts(means[name])] for name in METHODS]
    for data, rows in by_set.items():
        lines += [[data, name, *_texts(_curve([_cells(rows, name)]))] for name in METHODS]
    of_leads = [
        [row["rival"], f"{row['lead']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"]
        for row in facts["leads"]
    ]
    return "\n\n".join(
        [
            table(heads, lines),
            "The lead of the default, averaged over the whole curve:",
            table(["rival", "lead [95 % interval]"], of_leads),
        ]
    )


def _texts(values: np.ndarray) -> list[str]:
    return ["–" if np.isnan(value) else f"{value:.3f}" for value in values]


STYLES = (
    ("#0b5394", "-", "o"),
    ("#b45f06", "--", "s"),
    ("#38761d", ":", "^"),
    ("#666666", "-.", "D"),
)


def draw_figure(facts: Mapping[str, Any], path: Path) -> None:
    """Write the curves as a picture, one panel for each set."""
    from matplotlib.figure import Figure

    by_set = facts["rows"]
    figure = Figure(figsize=(3 * len(by_set), 3.6), layout="constrained")
    panels = figure.subplots(1, len(by_set), sharey=True, squeeze=False)[0]
    for axes, (data, rows) in zip(panels, by_set.items(), strict=True):
        for name, (colour, line, marker) in zip(METHODS, STYLES, strict=True):
            values = _curve([_cells(rows, name)])
            axes.plot(SIZES, values, color=colour, linestyle=line, marker=marker, label=name)
        axes.set_xscale("log")
        axes.set_xticks(SIZES, map(str, SIZES))
        axes.minorticks_off()
        axes.set_xlim(0.85, 60)
        axes.set_title(data, fontsize="medium")
        axes.grid(axis="y", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("balanced accuracy")
    figure.supxlabel("training images per class", fontsize="medium")
    lines, labels = panels[0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside upper center", ncols=2, frameon=False)
    figure.savefig(path, dpi=110)


def main(argv: Sequence[str] | None = None) -> None:
    out = RESULTS / "accuracy" / "curve.json"
    parser = new_parser(__doc__, out, checkpoints="accuracy", threads=2)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--tem", type=int, default=300, help="synthetic TEM images; 0: none")
    add_network(parser)
    options = parse(parser, argv)
    taps = Taps(options.backbone, options.weights)
    sets = [DataSet.load(options.data / name, name=name) for name in options.sets]
    if options.tem:
        sets.append(tem_set(options.checkpoints / "images", options.tem))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about classes of one or two groups
        by_set = {data.name: measure(data, taps, options) for data in sets}
    facts = {"rows": by_set, "leads": leads(by_set), "backbone": options.backbone}
    save_result(options.out, facts | {"origin": origin()})
    page = BENCHMARKS.parent / "docs" / "learning_curve.png"
    draw_figure(facts, page if options.out == out else options.out.with_suffix(".png"))
    print(curve_section(facts))


if __name__ == "__main__":
    main()
