"""Which inputs help boosted trees? Block margins, discriminants and texture, beside whole vectors.

All trees of a model start from the same cross-fitted margins of the same linear part, and the rule
of the default learner decides how many rounds are kept. Sets and splits are those of ``trees.py``.

    python -m benchmarks.accuracy.tree_inputs --data ../shared/data
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.pipeline import make_pipeline

from benchmarks.accuracy.features import texture
from benchmarks.accuracy.trees import (
    CODE,
    SCORES,
    Split,
    classes_of,
    encoded_sets,
    parsed,
    row_of_splits,
)
from benchmarks.common.checkpoints import load_or_run
from benchmarks.common.folds import DataSet
from benchmarks.common.results import save_result
from benchmarks.common.sources import origin
from benchmarks.common.tables import table, with_interval
from hypervlad import BoostedSoftmaxClassifier
from hypervlad.boosting.linear import Folds, block_columns, block_margins, fit_blocks
from hypervlad.boosting.logistic import log_losses, n_margins
from hypervlad.boosting.rows import TrainingRows, prior_ratio, training_rows
from hypervlad.boosting.trees import fit_trees, tree_margins, xgboost_parameters
from hypervlad.splits import group_folds

N_DRAWS = 4  # at most, for each number of training images
N_COMPONENTS = 64
MAX_WHOLE = 500  # training images for trees on whole vectors, which are slow
SHIPPED = "block margins (as shipped)"
INPUTS = {
    SHIPPED: ("margins",),
    "discriminants": ("discriminants",),
    "texture": ("texture",),
    "all three": ("margins", "discriminants", "texture"),
    "block margins and whole vectors": ("margins", "vectors"),
}
TREE_PARAMETERS = ("learning_rate", "max_depth", "max_bin", "min_child_weight", "reg_lambda")
TREE_PARAMETERS += ("subsample", "colsample_bytree")


@dataclass(frozen=True)
class LinearPart:
    """The linear part of a default learner, and what trees may learn from.

    `rows` are the distinct training rows at the expected class shares, `cross_fitted` their margins
    and `margins` those of the test rows. `inputs` has the columns of both by name.
    """

    rows: TrainingRows
    folds: Folds
    cross_fitted: np.ndarray
    margins: np.ndarray
    codes: np.ndarray
    inputs: dict[str, tuple[np.ndarray, np.ndarray]]
    tree_seed: int

    @classmethod
    def of(cls, data: DataSet, found: Mapping[str, np.ndarray], split: Split) -> LinearPart:
        """Fit as BoostedSoftmaxClassifier does, with its seeds: it has the same linear part."""
        train, test, seed = split
        model, widths = _learner(), found["widths"].tolist()
        X, y = found["X"][train], data.y[train]
        classes, rows = training_rows(X, y, np.ones(len(y)), data.groups[train], None)
        n, ratio = len(classes), prior_ratio(model.prior, classes, rows)
        seeds = np.random.RandomState(seed).randint(np.iinfo(np.int32).max, size=3).tolist()
        folds = group_folds(rows.codes, rows.groups, n_splits=model.n_splits, random_state=seeds[0])
        options = {"ratio": ratio, "max_directions": model.max_linear_directions}
        linear = fit_blocks(rows, n, folds, list(model.Cs), widths, **options)
        new, of_images = found["X"][test], found["texture"]
        inputs = {
            "margins": (linear.by_block, block_margins(new, linear.coef, widths)),
            "discriminants": discriminant_scores(rows, new, folds, widths),
            "texture": (of_images[train][rows.at], of_images[test]),
        }
        if len(train) <= MAX_WHOLE:
            inputs["vectors"] = (rows.X, new)
        return cls(
            rows=rows.with_features(linear.by_block).reweighted(ratio),
            folds=folds,
            cross_fitted=linear.cross_fitted,
            margins=new @ linear.coef + linear.intercept,
            codes=np.searchsorted(classes, data.y[test]),
            inputs=inputs,
            tree_seed=seeds[2],
        )

    def with_trees(self, names: Sequence[str]) -> dict[str, Any]:
        """Return losses and hits (2, n) of the test rows, without trees and with those of inputs.

        As many rounds are kept as BoostedSoftmaxClassifier would keep.
        """
        known, new = (np.hstack([self.inputs[name][i] for name in names]) for i in (0, 1))
        model, n = _learner(), int(self.rows.codes.max()) + 1
        chosen = {name: getattr(model, name) for name in TREE_PARAMETERS}
        booster, search = fit_trees(
            self.rows.with_features(known),
            self.cross_fitted,
            self.folds,
            xgboost_parameters(n, nthread=1, seed=self.tree_seed, **chosen),
            max_rounds=model.n_estimators,
            patience=model.n_iter_no_change,
            may_be_none=True,
        )
        both = [self.margins, self.margins]
        if booster is not None:
            both[1] = self.margins + tree_margins(booster, new, n_margins(n))
        return {
            "losses": np.array([log_losses(each, self.codes) for each in both]),
            "right": np.array([classes_of(each) == self.codes for each in both], dtype=float),
            "rounds": booster.num_boosted_rounds() if booster is not None else 0,
            "gain": search.gain if search is not None else None,
        }


def _learner() -> BoostedSoftmaxClassifier:
    return BoostedSoftmaxClassifier(prior="sqrt")  # as in MicrographClassifier


def discriminant_scores(
    rows: TrainingRows, new: np.ndarray, folds: Folds, widths: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return linear discriminant scores of the rows and of new ones, by block and class.

    They are learnt from the principal components of each block. The scores of held-out rows are
    those of a model without their fold, principal components included. The axes of discriminants
    would not do: their signs and order differ between folds.
    """
    of_rows, of_new = [], []
    for columns in block_columns(widths):
        X = rows.X[:, columns]
        scores, scores_of_new = _scores(X, rows.codes, [X, new[:, columns]])
        for train, test in folds:
            scores[test] = _scores(X[train], rows.codes[train], [X[test]])[0]
        of_rows.append(scores)
        of_new.append(scores_of_new)
    return np.hstack(of_rows), np.hstack(of_new)


def _scores(X: np.ndarray, codes: np.ndarray, asked: Sequence[np.ndarray]) -> list[np.ndarray]:
    n_components = min(N_COMPONENTS, len(X) - 1, X.shape[1])
    model = make_pipeline(
        PCA(n_components, random_state=0),
        LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"),
    ).fit(X, codes)
    return [model.decision_function(each).reshape(len(each), -1) for each in asked]


def rows_of(
    data: DataSet, found: Mapping[str, np.ndarray], splits: Sequence[Split]
) -> list[dict[str, Any]]:
    """Return a row for each input; `over_shipped` compares its trees with the shipped ones."""
    models = [LinearPart.of(data, found, split) for split in splits]
    rows = []
    shipped: list[dict[str, Any]] = []
    for inputs, names in INPUTS.items():
        if any(name not in model.inputs for model in models for name in names):
            continue
        parts = [model.with_trees(names) for model in models]
        shipped = shipped or parts
        against = [
            part | {score: np.stack([base[score][1], part[score][1]]) for score in SCORES}
            for base, part in zip(shipped, parts, strict=True)
        ]
        compared = row_of_splits(data, splits, against)
        row = {"inputs": inputs} | row_of_splits(data, splits, parts)
        rows.append(row | {"over_shipped": {score: compared[score] for score in SCORES}})
        print(*row_texts(rows[-1]), flush=True)
    return rows


def row_texts(row: Mapping[str, Any]) -> list[str]:
    """Return the cells of a row of the table."""
    gains = [row["losses"], row["right"], row["over_shipped"]["losses"]]
    cells = [with_interval(each["gain"], each["interval"], "+.4f") for each in gains]
    if row["inputs"] == SHIPPED:
        cells[2] = "–"
    kept = f"{np.count_nonzero(row['rounds'])} of {row['n_models']}"
    return [row["set"], f"{row['n_train']:,}", row["inputs"], *cells, kept]


def tree_inputs_table(facts: Mapping[str, Any]) -> str:
    """Return the table of a stored result."""
    heads = ["set", "training images", "the trees see", "log-loss reduced by trees"]
    heads += ["accuracy gained", "log-loss below that of the shipped trees", "trees kept"]
    return table(heads, map(row_texts, facts["rows"]))


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parsed(__doc__, "tree_inputs", N_DRAWS, argv)
    code = origin(arguments.threads, *CODE, "accuracy/features", "accuracy/tree_inputs")
    of_texture = origin(arguments.threads, "accuracy/features", modules=("images",))
    rows: list[dict[str, Any]] = []
    for data, found, splits_of_rows in encoded_sets(arguments):
        path = arguments.checkpoints / f"{data.name} texture.json"
        found |= load_or_run(
            path,
            {"data": data.digest} | of_texture,
            lambda paths=list(data.paths): {"texture": texture(paths)},
        )
        for splits in splits_of_rows:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # about classes of one or two groups
                rows += rows_of(data, found, splits)
            save_result(arguments.out, {"origin": code, "rows": rows})


if __name__ == "__main__":
    main()
