"""How many labels does the review workflow need, compared with random order and plain margins?

A simulation: a few images of a pool are labelled, a model is trained on them and chooses the next
ones, which are labelled, and so on. Accuracy is measured on images of other groups. The codebook,
which needs no labels, is learnt once from the whole pool (the review's own retraining learns it
from labelled images). All remaining images are in the queue, also those of sure answers.

    python -m benchmarks.review.labelling --data ../shared/data
"""

from __future__ import annotations

import argparse
import functools
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import recall_score

from benchmarks.common.checkpoints import load_or_run
from benchmarks.common.folds import DATA_SETS, DataSet, random_splits
from benchmarks.common.results import CHECKPOINTS, RESULTS, save_result
from benchmarks.common.sources import origin
from hypervlad import default_encoder
from hypervlad.boosting import BoostedSoftmaxClassifier
from hypervlad.classifier.novelty import TrainingImages, empty_vectors, project_vectors
from hypervlad.review.ranking import informativeness, rank

SEED = 3000
N_FIRST = 2  # labels of each class at the start
STEP_SHARE = 0.05  # of the pool, labelled before the model is trained again
MAX_SHARE = 0.8  # of the pool: beyond it, the orders cannot differ much
CODE = ("review/labelling", "common/folds")


class Pool:
    """Vectors of the images that may be labelled, and of those that measure accuracy."""

    def __init__(self, data: DataSet, train: np.ndarray, test: np.ndarray, seed: int) -> None:
        encoder = default_encoder(random_state=seed)
        self.X = encoder.fit_transform(list(data.paths[train]))
        self.X_test = encoder.transform(list(data.paths[test]))
        self.y, self.y_test = data.y[train], data.y[test]
        self.groups = np.unique(data.groups[train], return_inverse=True)[1]
        self.points = project_vectors(self.X)
        self.empty = project_vectors(empty_vectors(encoder))
        self.blocks = list(encoder.feature_blocks.values())
        self.seed = seed

    def model(self, chosen: np.ndarray) -> BoostedSoftmaxClassifier:
        """Train on the images labelled so far."""
        learner = BoostedSoftmaxClassifier(prior="sqrt", random_state=self.seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about classes of two images
            return learner.fit(
                self.X[chosen], self.y[chosen], groups=self.groups[chosen], blocks=self.blocks
            )

    def scores(self, model: BoostedSoftmaxClassifier) -> list[float]:
        """Return accuracy and balanced accuracy on the test images."""
        predicted, known = model.predict(self.X_test), np.unique(self.y_test)
        balanced = recall_score(self.y_test, predicted, labels=known, average="macro")
        return [float((predicted == self.y_test).mean()), float(balanced)]

    def first(self, rng: np.random.Generator) -> np.ndarray:
        """Choose a few images of each class at random."""
        of_each = [
            rng.permutation(np.flatnonzero(self.y == label))[:N_FIRST]
            for label in np.unique(self.y)
        ]
        return np.concatenate(of_each)


Order = Callable[[Pool, BoostedSoftmaxClassifier, np.ndarray, np.ndarray, np.random.Generator], Any]


def workflow(
    pool: Pool, model: Any, chosen: np.ndarray, left: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Order images as the review queue does."""
    return rank(scores_of(pool, model, chosen, left), pool.points[left])


def weighted(
    pool: Pool, model: Any, chosen: np.ndarray, left: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Sample images with their scores as weights, near-duplicates far apart.

    A. Kirsch, S. Farquhar, P. Atighehchian, A. Jesson, F. Branchaud-Charron and Y. Gal,
    "Stochastic batch acquisition", TMLR 2023: the largest of values times exp(Gumbel noise).
    """
    noise = np.exp(rng.gumbel(size=len(left)))
    return rank(scores_of(pool, model, chosen, left) * noise, pool.points[left])


def scores_of(pool: Pool, model: Any, chosen: np.ndarray, left: np.ndarray) -> np.ndarray:
    """Return the queue's scores of the unlabelled images."""
    known = TrainingImages.of(
        [""] * len(chosen),
        pool.y[chosen],
        pool.groups[chosen],
        chosen,
        np.zeros((len(chosen), 32), dtype=np.uint8),  # no digest is needed
        pool.points[chosen],
        pool.empty,
        pool.X.shape[1],
    )
    novelty = known.nearest(pool.points[left])[1]
    return informativeness(model.predict_proba(pool.X[left]), novelty)


def margin(
    pool: Pool, model: Any, chosen: np.ndarray, left: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Order images by the lead of the most probable class."""
    highest = np.sort(model.predict_proba(pool.X[left]), axis=1)
    return np.argsort(highest[:, -1] - highest[:, -2], kind="stable")


def at_random(
    pool: Pool, model: Any, chosen: np.ndarray, left: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Order images at random."""
    return rng.permutation(len(left))


ORDERS: dict[str, Order] = {
    "workflow": workflow,
    "weighted": weighted,
    "margin": margin,
    "random": at_random,
}


def curves(data: DataSet, train: np.ndarray, test: np.ndarray, seed: int) -> dict[str, Any]:
    """Return numbers of labels, the scores of each order, and the scores with all labels.

    A score is accuracy and balanced accuracy.
    """
    pool = Pool(data, train, test, seed)
    step = max(1, round(STEP_SHARE * len(train)))
    found: dict[str, Any] = {"full": pool.scores(pool.model(np.arange(len(train)))), "step": step}
    for name, order in ORDERS.items():
        rng = np.random.default_rng(seed)
        chosen = pool.first(rng)
        numbers, scores = [], []
        while True:
            model = pool.model(chosen)
            numbers.append(len(chosen))
            scores.append(pool.scores(model))
            if len(chosen) + step > MAX_SHARE * len(train):
                break
            left = np.setdiff1d(np.arange(len(train)), chosen)
            first = order(pool, model, chosen, left, rng)[:step]
            chosen = np.concatenate([chosen, left[first]])
        found[name] = scores
        found["labels"] = numbers
    return {**found, "pool": len(train)}


def needed(found: list[dict[str, Any]], name: str, below: float = 0.01) -> float | None:
    """Return the share of labels from which the mean accuracy stays within 0.01 of the full one.

    Such curves vary by as much by chance. None if this is not reached.
    """
    mean = np.mean([each[name] for each in found], axis=0)[:, 0]
    full = np.mean([each["full"] for each in found], axis=0)[0]
    short = np.flatnonzero(mean < full - below)
    first = short[-1] + 1 if len(short) else 0
    share = np.mean([np.array(each["labels"]) / each["pool"] for each in found], axis=0)
    return float(share[first]) if first < len(share) else None


def summary(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Return mean curves and the labels that each order needs."""
    shortest = min(len(each["labels"]) for each in found)
    cut = [{k: v[:shortest] if isinstance(v, list) else v for k, v in e.items()} for e in found]
    return {
        "pool": float(np.mean([each["pool"] for each in cut])),
        "full": np.mean([each["full"] for each in cut], axis=0).tolist(),
        "labels": np.mean([each["labels"] for each in cut], axis=0).tolist(),
        "curves": {name: np.mean([e[name] for e in cut], axis=0).tolist() for name in ORDERS},
        "needed": {name: needed(cut, name) for name in ORDERS},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=list(DATA_SETS))
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--checkpoints", type=Path, default=CHECKPOINTS / "labelling")
    parser.add_argument("--out", type=Path, default=RESULTS / "review" / "labelling.json")
    arguments = parser.parse_args()
    import torch  # after hypervlad, which lets waiting threads sleep

    torch.set_num_threads(arguments.threads)
    code_origin = origin(arguments.threads, *CODE)
    result: dict[str, Any] = {"repeats": arguments.repeats, "origin": code_origin, "sets": {}}
    for name in arguments.sets:
        data, found = DataSet.load(arguments.data / name), []
        for number, (train, test) in enumerate(random_splits(data, arguments.repeats, SEED)):
            run = functools.partial(curves, data, train, test, SEED + number)
            settings = {"data": data.digest, "repeat": number, "seed": SEED, "origin": code_origin}
            found.append(
                load_or_run(arguments.checkpoints / f"{name}-{number}.json", settings, run)
            )
            print(f"{name}: repeat {number + 1} of {arguments.repeats}", flush=True)
        result["sets"][name] = summary(found)
        print(json.dumps(result["sets"][name]["needed"]), flush=True)
    save_result(arguments.out, result)


if __name__ == "__main__":
    main()
