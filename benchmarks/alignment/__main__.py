"""How accurate is the aligned fraction of nanowires? Compared with OrientationJ and FibrilTool.

    python -m benchmarks.alignment

Synthetic images whose true aligned fraction is known, varied in density, noise, blur and share of
parallel wires. All methods classify the same windows by the same rule. An interrupted run resumes
where it stopped. ``--add`` adds methods to the stored results.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from benchmarks.alignment.methods import (
    LEARNED,
    all_methods,
    answers,
    orientation_errors,
    true_fractions,
)
from benchmarks.alignment.scenes import WINDOWS, scenes
from benchmarks.alignment.scores import Answers
from benchmarks.alignment.tables import overall_table
from benchmarks.common.checkpoints import load_or_run
from benchmarks.common.results import CHECKPOINTS, RESULTS, save_result
from benchmarks.common.sources import code_digest, origin

CODE = ("alignment/methods", "alignment/published")
IMAGE_CODE = ("alignment/scenes",)
# Modules on which images and truth depend, and those of all methods but the learned one.
IMAGE_MODULES, MODULES = ("synthetic", "fibres"), ("fibres", "images")
ORIENTATION_SET = "clean"


Measure = Callable[[Any, Any], Mapping[str, Any]]


class Study:
    """The measurements of every image. An image is made only if one of them is missing.

    Parameters
    ----------
    windows : sequence of int
        Sizes of windows.
    names : sequence of str
        Of the methods.
    n_training : int
        Images on which the learned method is trained.
    threads : int
    """

    def __init__(
        self, windows: Sequence[int], names: Sequence[str], n_training: int, threads: int
    ) -> None:
        self.windows = list(windows)
        self.images = code_digest(*IMAGE_CODE, modules=IMAGE_MODULES)
        methods = all_methods(n_training)
        classical = origin(threads, *CODE, modules=MODULES)
        # A classifier may use anything of the package.
        learned = {"n_training": n_training, "origin": origin(threads, *CODE)}
        self.facts = {name: {"origin": classical} for name in ("truth", *names, "orientation")}
        self.facts |= {name: learned for name in names if name == LEARNED}
        self._measures: dict[str, Measure] = {
            name: partial(answers, methods[name], windows=self.windows) for name in names
        }
        self._measures["truth"] = lambda _, truth: {"fraction": true_fractions(truth, windows)}
        self._measures["orientation"] = lambda *made: {"errors": orientation_errors(*made)}

    def run(self, checkpoints: Path) -> dict[str, list[dict[str, Any]]]:
        """Return every measurement of every image; directions are measured on one set only."""
        pieces: dict[str, list[dict[str, Any]]] = {name: [] for name in self._measures}
        every = list(scenes())
        for done, scene in enumerate(every, start=1):
            made = cache(scene.make)
            for name, measure in self._measures.items():
                if name == "orientation" and scene.set != ORIENTATION_SET:
                    continue
                settings = {"what": name, "windows": self.windows, "images": self.images}
                settings |= {"scene": scene.facts} | self.facts[name]
                path = checkpoints / name / f"{scene.set}-{scene.seed}.json"
                run = partial(_measured, measure, made)
                pieces[name].append(load_or_run(path, settings, run))
            if done % 25 == 0 or done == len(every):
                print(f"{done} of {len(every)} images", flush=True)
        return pieces

    def result(self, pieces: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
        """Return the content of the results file: images, truth and answers by image."""
        names = [name for name in pieces if name not in ("truth", "orientation")]
        return {
            "windows": self.windows,
            "image_code": self.images,
            "scenes": [scene.facts for scene in scenes()],
            "truth": self._by_window(pieces["truth"], "fraction"),
            "methods": {
                name: {
                    part: self._by_window(pieces[name], part)
                    for part in ("fraction", "right", "background")
                }
                | self.facts[name]
                for name in names
            },
            "orientation": {
                "errors": [piece["errors"] for piece in pieces["orientation"]],
            }
            | self.facts["orientation"],
        }

    def _by_window(self, pieces: list[dict[str, Any]], part: str) -> dict[str, list[float | None]]:
        return {str(window): [p[part][str(window)] for p in pieces] for window in self.windows}


def _measured(measure: Measure, made: Callable[[], Any]) -> Mapping[str, Any]:
    return measure(*made())


def with_earlier(result: dict[str, Any], out: Path) -> dict[str, Any]:
    """Add the methods of an earlier result; the images must be the same."""
    if not out.exists():
        return result
    earlier = json.loads(out.read_text(encoding="utf-8"))
    for key in ("windows", "image_code", "scenes", "truth"):
        if earlier[key] != result[key]:
            sys.exit(f"{out}: --add needs results of the same {key}; run all methods again")
    both = earlier["methods"] | result["methods"]
    order = [name for name in all_methods(0) if name in both]
    return result | {"methods": {name: both[name] for name in order}}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    known = list(all_methods(0))
    parser.add_argument("--methods", nargs="+", choices=known, default=known, metavar="NAME")
    parser.add_argument(
        "--add", action="store_true", help="keep the stored answers of other methods"
    )
    parser.add_argument("--training", type=int, default=60, help="number of training images")
    parser.add_argument("--figures", type=Path, help="folder for figures")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--checkpoints", type=Path, default=CHECKPOINTS / "alignment")
    parser.add_argument("--out", type=Path, default=RESULTS / "alignment" / "alignment.json")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parse(argv)
    import torch  # after hypervlad, which lets waiting threads sleep

    torch.set_num_threads(arguments.threads)
    study = Study(WINDOWS, arguments.methods, arguments.training, arguments.threads)
    result = study.result(study.run(arguments.checkpoints))
    if arguments.add:
        result = with_earlier(result, arguments.out)
    save_result(arguments.out, result, indent=None, separators=(",", ":"), allow_nan=False)
    print(overall_table(Answers.of(result, "grid")))
    if arguments.figures is not None:
        from benchmarks.alignment.figures import write_figures

        write_figures(arguments.figures, result)


if __name__ == "__main__":
    main()
