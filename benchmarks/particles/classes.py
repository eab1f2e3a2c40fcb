"""Is each particle classified, in outlines drawn by hand and in found ones?

    python -m benchmarks.particles.classes --data ../shared/data/particles/sem

The folder has images/*, outlines/* and classes/*, label images of the classes. Folds are those of
the outlines, which are found by the segmenter that learnt the other folds.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common.checkpoints import load_or_run
from benchmarks.common.logistic import TunedLogisticRegression
from benchmarks.common.program import add_network, new_parser, parse
from benchmarks.common.results import RESULTS, Facts, origin, save_result
from benchmarks.common.tables import table, with_interval
from benchmarks.particles.fields import N_FOLDS, OutlinedFields
from benchmarks.particles.methods import SEGMENTER
from hypervlad import BoostedSoftmaxClassifier, default_encoder
from hypervlad.evaluation import accuracy_interval, balanced_accuracy_interval, matched_labels
from hypervlad.objects.measures import shape_measures
from hypervlad.particles import Particle, cut_particles

MIN_AREA = 20
TITLES = {
    "default": "hypervlad",
    "both": "hypervlad, found outlines also to learn from",
    "uniform": 'hypervlad, prior="uniform"',
    "box": "hypervlad, boxes with their background",
    "shape": "seven measures of shape, logistic regression",
}
PARTS = {
    "given": "outlined by hand",
    "the same": "those that are found, outlined by hand",
    "found": "the same, found outlines",
}


def labelled(
    fields: OutlinedFields, i: int, found: np.ndarray | None = None
) -> list[tuple[Particle, int, Particle | None]]:
    """Return the outlined particles of an image, their classes, and how each was found, if so."""
    labels, classes, rows = fields.labels(i), fields.labels(i, "classes"), []
    found = np.zeros_like(labels) if found is None else found
    match = dict(matched_labels(labels, found)[0].tolist())
    found_of = {each.label: each for each in cut_particles(fields.paths[i], found)}
    for particle in cut_particles(fields.paths[i], labels):
        top, left, bottom, right = particle.box
        kind = int(np.bincount(classes[top:bottom, left:right][particle.mask]).argmax())
        if kind and particle.mask.sum() >= MIN_AREA:
            rows.append((particle, kind, found_of.get(match.get(particle.label))))
    return rows


def predict(
    learnt: list[tuple[Particle, int]],
    also: list[tuple[Particle, int]],
    test: list[Particle],
    seed: int,
    options: Any,
) -> dict[str, np.ndarray]:
    """Return the classes of test particles by each method; "both" learns `also`."""
    found = {}
    network = {"backbone": options.backbone, "weights": options.weights}
    kinds = {"default": ("default", "uniform"), "both": ("both",), "box": ("box",)}
    for kind, titles in kinds.items():
        particles, y = zip(*learnt, *(also if kind == "both" else []), strict=True)
        groups = [particle.micrograph for particle in particles]
        encoder = default_encoder(particles=kind != "box", random_state=seed, **network)
        X, Z = (
            [each.image if kind == "box" else each for each in some] for some in (particles, test)
        )
        X, Z = encoder.fit(X).transform(X), encoder.transform(Z)
        blocks = list(encoder.feature_blocks.values())
        for title in titles:
            prior = "uniform" if title == "uniform" else "sqrt"
            learner = BoostedSoftmaxClassifier(prior=prior, random_state=seed)
            found[title] = learner.fit(X, list(y), groups=groups, blocks=blocks).predict(Z)
    particles, y = zip(*learnt, strict=True)
    X, Z = (np.array([shape_measures(each.mask) for each in some]) for some in (particles, test))
    groups = np.array([particle.micrograph for particle in particles])
    return found | {"shape": TunedLogisticRegression().fit(X, np.array(y), groups).predict(Z)}


def predict_fold(fields: OutlinedFields, fold: int, options: Any) -> dict[str, np.ndarray]:
    """Return fields and classes of the test particles, whether found, and all predictions."""
    folds, outlines = fields.folds(), dict[int, np.ndarray]()
    for k, (train, _) in enumerate(folds):  # each image by the segmenter that did not learn it
        outlines |= fields.found(SEGMENTER, k, len(train), options)
    train, test = folds[fold]
    rows = [row for i in train for row in labelled(fields, i, outlines[i])]
    learnt = [(particle, kind) for particle, kind, _ in rows]
    also = [(other, kind) for _, kind, other in rows if other is not None]
    rows = [(i, *row) for i in test for row in labelled(fields, i, outlines[i])]
    field, given, truth, others = zip(*rows, strict=True)
    is_found = np.array([each is not None for each in others])
    given += tuple(filter(None, others))
    result = {"field": np.array(field), "truth": np.array(truth), "is_found": is_found}
    for title, codes in predict(learnt, also, list(given), fold, options).items():
        result[title], result[f"{title}, found"] = codes[: len(rows)], np.zeros(len(rows), int)
        result[f"{title}, found"][is_found] = codes[len(rows) :]
    return result


def scores(predicted: np.ndarray, truth: np.ndarray, field: np.ndarray) -> dict[str, Any]:
    """Return accuracy and balanced accuracy with intervals over fields."""
    right, groups = predicted == truth, field.tolist()
    recalls = [right[truth == kind].mean() for kind in np.unique(truth)]
    return {
        "accuracy": right.mean(),
        "accuracy_interval": accuracy_interval(right, groups),
        "balanced": np.mean(recalls),
        "balanced_interval": balanced_accuracy_interval(right, truth.tolist(), groups),
        "recalls": recalls,
    }


def classes_table(result: Facts) -> str:
    """Return accuracy and balanced accuracy in outlines drawn by hand and in found ones."""
    heads = ["method, accuracy / balanced accuracy", *PARTS.values()]
    lines = [
        [
            TITLES[row["method"]],
            *(
                " / ".join(
                    with_interval(row[part][kind], row[part][f"{kind}_interval"], ".2f")
                    for kind in ("accuracy", "balanced")
                )
                for part in PARTS
            ),
        ]
        for row in result["methods"]
    ]
    head = f"{result['n']:,} particles, of which {result['n_found']:,} are found (IoU 0.5)."
    return f"{head}\n\n{table(heads, lines)}"


def main(argv: Sequence[str] | None = None) -> None:
    out = RESULTS / "particles" / "classes.json"
    parser = new_parser(__doc__, out, checkpoints="particles", threads=2)
    parser.add_argument("--data", type=Path, required=True, help="folder of one set")
    add_network(parser)
    options = parse(parser, argv)
    fields, folds = OutlinedFields.load(options.data), []
    for fold in range(N_FOLDS):
        settings = {"digest": fields.digest, "fold": fold}
        settings |= {"backbone": options.backbone, "weights": options.weights}
        path = options.checkpoints / fields.name / f"classes-{fold}.json"
        folds.append(load_or_run(path, settings, partial(predict_fold, fields, fold, options)))
        print(f"fold {fold + 1} of {N_FOLDS}", flush=True)
    rows = {name: np.concatenate([each[name] for each in folds]) for name in folds[0]}
    truth, field, found = rows["truth"], rows["field"], rows["is_found"]
    methods = [
        {
            "method": title,
            "given": scores(rows[title], truth, field),
            "the same": scores(rows[title][found], truth[found], field[found]),
            "found": scores(rows[f"{title}, found"][found], truth[found], field[found]),
        }
        for title in TITLES
    ]
    result = {"n": len(truth), "n_found": int(found.sum()), "methods": methods}
    save_result(options.out, result | {"origin": origin()})
    print(classes_table(result))


if __name__ == "__main__":
    main()
