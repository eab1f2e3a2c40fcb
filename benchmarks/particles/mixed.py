"""Are the particles of mixed fields classified and counted? Beside the same ones, each alone.

    python -m benchmarks.particles.mixed

Synthetic bright-field images of four classes of carbon nanotubes: fields of several particles, and
images of one, in which the same structures are alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix

from benchmarks.common.checkpoints import load_or_run
from benchmarks.common.program import add_network, new_parser, parse
from benchmarks.common.results import RESULTS, Facts, origin, save_result
from benchmarks.common.scores import GroupDraws
from benchmarks.common.tables import table, with_interval
from hypervlad import (
    BoostedSoftmaxClassifier,
    HypercolumnSegmenter,
    HypercolumnVLAD,
    MicrographClassifier,
    default_encoder,
    make_particle_fields,
)
from hypervlad.datasets.tem import TEM_CLASSES
from hypervlad.evaluation import OutlineTally, accuracy_interval, group_folds, matched_labels
from hypervlad.particles import Field, Particle, count_particles, cut_particles, measure

SEED, EXTENT, SIZE, ALONE_SIZE = 0, (61, 154), 512, 256  # pixels
N_OUTLINED = 15  # fields that the segmenter learns
N_LEARNT, N_COUNTED = 40, 20  # fields that a classifier learns, and of a set that is counted
WAYS = ("true classes", "true outlines", "true outlines, not corrected", "found outlines")


class Scenes:
    """Fields, of which the first are learnt, and the particles of the fields, also alone."""

    def __init__(self, n_train: int, n_test: int, each: list[int], **network: str) -> None:
        self.n_train, self.network = n_train, network
        same: dict[str, Any] = {"classes": TEM_CLASSES, "extent": EXTENT, "random_state": SEED}
        n_fields = n_train + n_test
        self.images, self.truths = make_particle_fields(
            n_fields, n_particles=tuple(each), size=SIZE, **same
        )
        self.field = np.repeat(np.arange(n_fields), [len(truth.classes) for truth in self.truths])
        self.classes = np.concatenate([truth.classes for truth in self.truths])
        self.visible = np.concatenate([truth.visible for truth in self.truths])
        self.train = np.flatnonzero(self.field < n_train)
        self.test = np.flatnonzero(self.field >= n_train)
        n = len(self.field)
        self.alone, one = make_particle_fields(n, n_particles=1, size=ALONE_SIZE, **same)
        self.particles = {
            "in fields": cut_all(self.images, [truth.outlines for truth in self.truths]),
            "alone": cut_all(self.alone, [truth.outlines for truth in one]),
        }
        tests = self.truths[n_train:]
        self.counts = np.array([[(t.classes == k).sum() for k in TEM_CLASSES] for t in tests])

    @cached_property
    def found(self) -> list[np.ndarray]:
        """The label images of the test fields by a segmenter that learnt others."""
        segmenter = HypercolumnSegmenter(**self.network, random_state=SEED)
        segmenter.fit(self.images[:N_OUTLINED], [t.outlines for t in self.truths[:N_OUTLINED]])
        return segmenter.predict(self.images[self.n_train :])

    @cached_property
    def encoder(self) -> HypercolumnVLAD:
        encoder = default_encoder(particles=True, random_state=SEED, **self.network)
        return encoder.fit([self.particles["in fields"][i] for i in self.train])

    @cached_property
    def vectors(self) -> dict[str, np.ndarray]:
        self.particles["found"] = cut_all(self.images[self.n_train :], self.found, self.n_train)
        return {name: self.encoder.transform(each) for name, each in self.particles.items()}

    def learner(self, rows: np.ndarray, seed: int = SEED) -> BoostedSoftmaxClassifier:
        """Return the default learner of a classifier, fitted to some particles of fields."""
        learner = BoostedSoftmaxClassifier(prior="sqrt", random_state=seed)
        return learner.fit(
            self.vectors["in fields"][rows],
            self.classes[rows],
            groups=self.field[rows],
            blocks=list(self.encoder.feature_blocks.values()),
        )


def cut_all(
    images: Sequence[np.ndarray], outlines: Sequence[Any], first: int = 0
) -> list[Particle]:
    """Cut the particles out of all fields, which are named by their numbers."""
    fields = enumerate(zip(images, outlines, strict=True), first)
    return [each for i, pair in fields for each in cut_particles(*pair, name=str(i))]


def accuracies(scenes: Scenes) -> dict[str, Any]:
    """Return the accuracy of particles in fields and alone, and what whole images give."""
    tally, match, n_found = OutlineTally(), [], 0
    for truth, found in zip(scenes.truths[scenes.n_train :], scenes.found, strict=True):
        tally.add(truth.labels, found)
        own = np.full(len(truth.classes), -1)  # rows of the found particles
        for label, other in matched_labels(truth.labels, found)[0]:
            own[label - 1] = n_found + other - 1
        match.append(own)
        n_found += int(found.max())
    row_of = np.concatenate(match)
    field, truth = scenes.field[scenes.test], scenes.classes[scenes.test]
    learner = scenes.learner(scenes.train)
    proba = learner.predict_proba(scenes.vectors["in fields"][scenes.test])
    alone = learner.predict(scenes.vectors["alone"][scenes.test]) == truth
    right = learner.classes_[proba.argmax(axis=1)] == truth
    found = learner.predict(scenes.vectors["found"])[row_of] == truth
    is_whole, everything = scenes.visible[scenes.test] > 0.999, np.full(len(truth), True)
    rows = [
        accuracy(name, own[chosen], field[chosen], alone[chosen])
        for name, own, chosen in (
            ("alone", alone, everything),
            ("in fields", right, everything),
            ("in fields, wholly visible", right, is_whole),
            ("in fields, cut off or partly hidden", right, ~is_whole),
            ("in fields, those that are found", right, row_of >= 0),
            ("the same, found outlines", found, row_of >= 0),
        )
    ]
    # A classifier of whole images learns the same particles, each alone.
    whole = MicrographClassifier(default_encoder(**scenes.network), calibrate=False)
    whole.set_params(random_state=SEED).fit(
        [scenes.alone[i] for i in scenes.train], scenes.classes[scenes.train]
    )
    right = whole.predict([scenes.alone[i] for i in scenes.test]) == truth
    of_field = whole.predict_proba(scenes.images[scenes.n_train :])
    of_particles = np.zeros_like(of_field)
    np.add.at(of_particles, field - scenes.n_train, proba)
    filled = scenes.counts.any(axis=1)
    counts, of_field, of_particles = (
        each[filled] for each in (scenes.counts, of_field, of_particles)
    )
    most = counts[np.arange(len(counts)), of_field.argmax(axis=1)] == counts.max(axis=1)
    shares, of_particles = (n / n.sum(axis=1, keepdims=True) for n in (counts, of_particles))
    return {
        "particles": rows,
        "outlines": tally.scores(),
        "whole": [accuracy("alone", right, field), accuracy("most frequent", most)],
        "share_error": {
            "whole": np.abs(of_field - shares).mean(),
            "equal": np.abs(1 / len(TEM_CLASSES) - shares).mean(),
            "particles": np.abs(of_particles - shares).mean(),
        },
    }


def accuracy(
    name: str, right: np.ndarray, field: np.ndarray | None = None, base: np.ndarray | None = None
) -> dict[str, Any]:
    """Return an accuracy and the change from others of the same particles, with intervals."""
    groups = np.arange(len(right)) if field is None else field
    change = right.astype(float) - (right if base is None else base)
    return {
        "name": name,
        "n": len(right),
        "accuracy": right.mean(),
        "interval": accuracy_interval(right, groups.tolist()),
        "change": change.mean(),
        "change_interval": GroupDraws(groups).interval(change),
    }


def counted_sets(scenes: Scenes, n_sets: int, seed: int) -> dict[str, Any]:
    """Train a classifier on some fields, and count the particles of sets of others with it.

    Sets are drawn with replacement. In each, fields with more particles of some classes are more
    probable.
    """
    rng, vectors = np.random.default_rng([SEED, seed]), scenes.vectors
    learnt = rng.choice(scenes.n_train, min(N_LEARNT, scenes.n_train), replace=False)
    rows = np.flatnonzero(np.isin(scenes.field, learnt))
    y, confusion = scenes.classes[rows], np.zeros((len(TEM_CLASSES),) * 2)
    for train, held_out in group_folds(y, scenes.field[rows], random_state=seed):
        codes = scenes.learner(rows[train], seed).predict(vectors["in fields"][rows[held_out]])
        confusion += confusion_matrix(y[held_out], codes, labels=TEM_CLASSES)
    learner = scenes.learner(rows, seed)
    own = [scenes.particles["in fields"][i] for i in scenes.test]
    predicted = measure(own, learner.predict(vectors["in fields"][scenes.test]))
    found = measure(scenes.particles["found"], learner.predict(vectors["found"]))
    truth = predicted.assign(**{"class": scenes.classes[scenes.test]})
    ways = zip(WAYS, (truth, predicted, predicted, found), (None, confusion) * 2, strict=True)
    tables = [(way, dict(list(of_way.groupby("micrograph"))), own) for way, of_way, own in ways]
    fields = [Field(str(k), (SIZE, SIZE)) for k in range(N_COUNTED)]
    sets: dict[str, Any] = {way: [] for way in ("expected", *WAYS)}
    for _ in range(n_sets):
        tilt = (1 + scenes.counts @ rng.dirichlet(np.ones(len(TEM_CLASSES)))) ** 2
        tilt /= tilt.sum()
        chosen = scenes.n_train + rng.choice(len(tilt), N_COUNTED, p=tilt)
        sets["expected"].append((N_COUNTED * tilt @ scenes.counts).tolist())
        for way, of_field, matrix in tables:
            # A field that is drawn twice counts as two.
            drawn = pd.concat(
                of_field[str(i)].assign(micrograph=str(k))
                for k, i in enumerate(chosen)
                if str(i) in of_field
            )
            counts = count_particles(drawn, fields, classes=TEM_CLASSES, confusion=matrix)
            sets[way].append(counts[["count", "low", "high"]].to_numpy()[:-1].tolist())
    return sets


def particles_table(result: Facts) -> str:
    """Return the accuracy of particles alone and in fields."""
    heads = ["particles", "number", "accuracy", "change from the same ones alone"]
    lines = [
        [
            row["name"],
            f"{row['n']:,}",
            with_interval(row["accuracy"], row["interval"]),
            with_interval(row["change"], row["change_interval"], "+.3f") if number else "–",
        ]
        for number, row in enumerate(result["accuracy"]["particles"])
    ]
    outlines = result["accuracy"]["outlines"]
    found = f"{outlines['recall']:.0%} of the particles are found, and {outlines['precision']:.0%} "
    return f"{table(heads, lines)}\n\n{found}of what is found is a particle (IoU 0.5)."


def whole_table(result: Facts) -> str:
    """Return what a classifier of whole images says of mixed fields."""
    (alone, most), errors = result["accuracy"]["whole"], result["accuracy"]["share_error"]
    rows = [
        ["accuracy of images of one particle", with_interval(alone["accuracy"], alone["interval"])],
        [
            f"{most['n']} fields: the class is the most frequent, or one of them",
            with_interval(most["accuracy"], most["interval"]),
        ],
        ["mean error of the share of a class: probabilities", f"{errors['whole']:.3f}"],
        ["every class a quarter", f"{errors['equal']:.3f}"],
        ["mean probabilities of the particles, true outlines", f"{errors['particles']:.3f}"],
    ]
    return table(["classifier of whole images", ""], rows)


def counts_table(result: Facts) -> str:
    """Return how often the intervals of counts contain the expected ones, by class."""
    expected = np.array(result["counts"]["expected"])
    heads = ["counted", "all classes", *TEM_CLASSES, "interval too low, too high"]
    heads += ["count by truth", "width by truth"]
    lines = []
    for way in WAYS:
        value, low, high = np.moveaxis(np.array(result["counts"][way]), -1, 0)
        inside, ratio = (low <= expected) & (expected <= high), value.sum(0) / expected.sum(0)
        shares = [inside.mean(), *inside.mean(axis=0), (high < expected).mean()]
        cells = [f"{100 * share:.1f} %" for share in shares]
        cells[-1] += f", {100 * (low > expected).mean():.1f} %"
        ratios = f"{ratio.min():.2f} to {ratio.max():.2f}"
        lines.append([way, *cells, ratios, f"{np.median((high - low) / expected):.2f}"])
    return f"{len(expected)} sets.\n\n{table(heads, lines)}"


def main(argv: Sequence[str] | None = None) -> None:
    out = RESULTS / "particles" / "mixed.json"
    parser = new_parser(__doc__, out, checkpoints="particles", threads=2)
    parser.add_argument("--train", type=int, default=80, help="fields to learn from")
    parser.add_argument("--test", type=int, default=200, help="fields to test")
    parser.add_argument("--particles", type=int, nargs=2, default=[0, 12], help="of a field")
    parser.add_argument("--sets", type=int, default=20, help="sets that each classifier counts")
    parser.add_argument("--draws", type=int, default=10, help="classifiers that count")
    add_network(parser)
    options = parse(parser, argv)
    network = {"backbone": options.backbone, "weights": options.weights}
    numbers, scenes = (options.train, options.test, options.particles), list[Scenes]()

    def kept(name: str, function: Callable[..., dict[str, Any]], *arguments: int) -> dict[str, Any]:
        """Make the scenes only if a result of them is missing."""

        def run() -> dict[str, Any]:
            if not scenes:
                scenes.append(Scenes(*numbers, **network))
            return function(scenes[0], *arguments)

        settings = {"what": name, "fields": numbers, "arguments": arguments}
        found = load_or_run(options.checkpoints / f"mixed-{name}.json", settings | network, run)
        print(name, flush=True)
        return found

    result: dict[str, Any] = {"accuracy": kept("accuracy", accuracies), "origin": origin()}
    sets = [kept(f"sets-{k}", counted_sets, options.sets, k) for k in range(options.draws)]
    result["counts"] = {way: [each for some in sets for each in some[way]] for way in sets[0]}
    save_result(options.out, result, indent=None)
    print(particles_table(result), whole_table(result), counts_table(result), sep="\n\n")


if __name__ == "__main__":
    main()
