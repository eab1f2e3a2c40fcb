"""Do masks help to classify images of one particle in front of a disturbing background?

    python -m benchmarks.particles.masks

Synthetic bright-field images of one structure of 4 or 8 classes of carbon nanotubes, with dirt,
stains and a support with holes or bars.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from benchmarks.common.checkpoints import load_or_run
from benchmarks.common.program import add_network, new_parser, parse
from benchmarks.common.results import RESULTS, Facts, origin, save_result
from benchmarks.common.tables import table, with_interval
from benchmarks.particles.mixed import accuracy, cut_all
from hypervlad import (
    HypercolumnSegmenter,
    MicrographClassifier,
    default_encoder,
    make_particle_fields,
)
from hypervlad.datasets.tem import TEM_CLASSES, TEM_FINE_CLASSES

SEED, SIZE, EXTENT, N_OUTLINED = 1, 256, (61, 154), 15
CLASSES = {4: TEM_CLASSES, 8: tuple(TEM_FINE_CLASSES)}


def largest(labels: np.ndarray) -> np.ndarray:
    """Return the mask of the largest particle that was found, or without any of all pixels."""
    areas = np.bincount(labels.ravel())
    areas[0] = 0
    return (labels == areas.argmax())[None]


def measure(n_classes: int, n_train: int, n_test: int, **network: str) -> dict[str, np.ndarray]:
    """Return which test images are classified correctly from each kind of input."""
    images, truths = make_particle_fields(
        n_train + n_test,
        classes=CLASSES[n_classes],
        n_particles=1,
        background="cluttered",
        extent=EXTENT,
        size=SIZE,
        random_state=SEED,
    )
    y = np.concatenate([truth.classes for truth in truths])
    outlines = [truth.outlines for truth in truths]
    segmenter = HypercolumnSegmenter(**network, random_state=SEED)
    segmenter.fit(images[:N_OUTLINED], outlines[:N_OUTLINED])
    found = cut_all(images, list(map(largest, segmenter.predict(images))))
    own, right = cut_all(images, outlines), {}
    for kind, given in (
        ("whole images", images),
        ("boxes of the particles, with their background", [each.image for each in own]),
        ("particles, found outlines, also to learn from", found),
        ("particles, true outlines", own),
    ):
        is_cut = kind.startswith("particles")
        encoder = default_encoder(particles=is_cut, **network)
        model = MicrographClassifier(encoder, calibrate=False, random_state=SEED)
        model.fit(given[:n_train], y[:n_train])
        right[kind] = model.predict(given[n_train:]) == y[n_train:]
    of_found = model.predict(found[n_train:]) == y[n_train:]
    return right | {"particles, found outlines, true ones to learn from": of_found}


def masks_table(result: Facts) -> str:
    """Return accuracy and gain over whole images, by number of classes."""
    lines = [
        [
            str(row["n_classes"]),
            row["name"],
            with_interval(row["accuracy"], row["interval"]),
            with_interval(row["change"], row["change_interval"], "+.3f"),
        ]
        for row in result["rows"]
    ]
    return table(["classes", "what is classified", "accuracy", "gain over whole images"], lines)


def main(argv: Sequence[str] | None = None) -> None:
    out = RESULTS / "particles" / "masks.json"
    parser = new_parser(__doc__, out, checkpoints="particles", threads=2)
    parser.add_argument("--train", type=int, default=300, help="images to learn from")
    parser.add_argument("--test", type=int, default=300, help="images to test")
    add_network(parser)
    options = parse(parser, argv)
    network: dict[str, Any] = {"backbone": options.backbone, "weights": options.weights}
    rows: list[dict[str, Any]] = []
    for n_classes in CLASSES:
        numbers = (n_classes, options.train, options.test)
        path = options.checkpoints / f"masks-{n_classes}.json"
        run = partial(measure, *numbers, **network)
        right = load_or_run(path, {"numbers": numbers} | network, run)
        whole = right["whole images"]
        of_all = [accuracy(kind, own, base=whole) for kind, own in right.items()]
        rows += [{"n_classes": n_classes} | row for row in of_all]
    result = {"rows": rows, "n_train": options.train, "n_test": options.test}
    save_result(options.out, result | {"origin": origin()})
    print(masks_table(result))


if __name__ == "__main__":
    main()
