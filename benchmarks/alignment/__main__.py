"""How accurate is the aligned fraction of nanowires? Compared with OrientationJ and FibrilTool.

    python -m benchmarks.alignment

Synthetic images whose true aligned fraction is known, varied in density, noise, blur and share of
parallel wires. All methods classify the same windows by the same rule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from benchmarks.alignment.figures import agreement_figure, save
from benchmarks.alignment.methods import (
    all_methods,
    answers,
    orientation_errors,
    true_fractions,
)
from benchmarks.alignment.scenes import WINDOWS, scenes
from benchmarks.alignment.tables import TITLES, Answers, overall_table
from benchmarks.common.checkpoints import load_or_run
from benchmarks.common.program import new_parser, parse
from benchmarks.common.results import RESULTS, Facts, origin, save_result

ORIENTATION_SET = "clean"
Pieces = Mapping[str, list[dict[str, Any]]]


def measure(names: Sequence[str], n_training: int, checkpoints: Path) -> Pieces:
    """Return every measurement of every image, which is made only if one of them is missing."""
    methods = all_methods(n_training)
    measures: dict[str, Callable[..., Mapping[str, Any]]] = {
        name: partial(answers, methods[name], windows=WINDOWS) for name in names
    }
    measures["truth"] = lambda _, truth: {"fraction": true_fractions(truth, WINDOWS)}
    measures["orientation"] = lambda *made: {"errors": orientation_errors(*made)}
    pieces: dict[str, list[dict[str, Any]]] = {name: [] for name in measures}
    every = list(scenes())
    for done, scene in enumerate(every, start=1):
        made = cache(scene.make)
        for name, function in measures.items():
            if name == "orientation" and scene.set != ORIENTATION_SET:
                continue
            settings = {"what": name, "windows": WINDOWS, "n_training": n_training}
            settings |= {"scene": scene.facts}
            path = checkpoints / name / f"{scene.set}-{scene.seed}.json"
            pieces[name].append(load_or_run(path, settings, lambda f=function, m=made: f(*m())))
        if done % 25 == 0 or done == len(every):
            print(f"{done} of {len(every)} images", flush=True)
    return pieces


def result_of(pieces: Pieces) -> Facts:
    """Return the content of the results file: images, truth and answers by image."""

    def by_window(name: str, part: str) -> dict[str, list[float | None]]:
        return {str(w): [piece[part][str(w)] for piece in pieces[name]] for w in WINDOWS}

    return {
        "windows": list(WINDOWS),
        "scenes": [scene.facts for scene in scenes()],
        "truth": by_window("truth", "fraction"),
        "methods": {
            name: {part: by_window(name, part) for part in ("fraction", "right", "background")}
            for name in pieces
            if name in TITLES
        },
        "orientation": {"errors": [piece["errors"] for piece in pieces["orientation"]]},
        "origin": origin(),
    }


def main(argv: Sequence[str] | None = None) -> None:
    out = RESULTS / "alignment" / "alignment.json"
    parser = new_parser(__doc__, out, checkpoints="alignment", threads=2)
    parser.add_argument("--methods", nargs="+", choices=TITLES, default=list(TITLES))
    parser.add_argument("--training", type=int, default=60, help="number of training images")
    parser.add_argument("--figure", type=Path, help="PNG file of the differences")
    options = parse(parser, argv)
    result = result_of(measure(options.methods, options.training, options.checkpoints))
    save_result(options.out, result, indent=None, separators=(",", ":"), allow_nan=False)
    grid = Answers.of(result, "grid")
    print(overall_table(grid))
    if options.figure:
        save(agreement_figure(grid), options.figure)


if __name__ == "__main__":
    main()
