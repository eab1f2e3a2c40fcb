"""What does the system of the 2021 paper give, compared with ours and with simple baselines?

The experiment of Luo, Holm and Wang 2021: 80 % of the images for training, 20 % for testing, split
at random as in the paper and, where groups are given, also by group, over several seeds. Accuracy,
confusion, a t-SNE mosaic, the time of each stage with an empty and with a full cache, peaks of
memory. Every piece is kept in a checkpoint, so that an interrupted run resumes.

    python -m benchmarks.papers.luo2021 --data DIR --classes 4 --groups CSV --weights FILE \\
        --results DIR
    python -m benchmarks.papers.luo2021 --classes 8 --n-images 800 --weights FILE   # synthetic

The paper's images are not public; without --data the images are synthetic and the results say so.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common.checkpoints import load_or_run, settings_digest
from benchmarks.common.results import RESULTS
from benchmarks.common.sources import code_digest, machine, versions
from benchmarks.papers.luo2021 import methods
from benchmarks.papers.luo2021.data import LabelledImages, read_folder, synthetic_images
from benchmarks.papers.luo2021.results import (
    SPLITS,
    merge,
    row_of,
    score_classifier,
    score_softmax,
    sentence,
)

CODE = (
    "papers/luo2021/methods",
    "papers/luo2021/stages",
    "common/logistic",
)  # on which results depend
_MAX_IN_SMALL = 240


@dataclass(frozen=True)
class Run:
    """One run of this program.

    Attributes
    ----------
    images : LabelledImages
    options : argparse.Namespace
    common : mapping
        The settings on which every piece depends.
    """

    images: LabelledImages
    options: argparse.Namespace
    common: Mapping[str, Any]

    def scores(self, method: str, split: str, seed: int) -> dict[str, Any]:
        """Return the scores of one method on one split."""
        job = self._job(method, split, seed)
        at = {"split": split, "seed": seed, "rows": rows_digest(job.train, job.test)}
        if method in methods.BASELINES:
            vectors = self._piece("vectors", job, {}, methods.pooled_vectors, apart=True)
            fit = partial(methods.softmax, vectors=vectors["vectors"])
            # Small, and its memory is not reported: no separate process.
            learnt = self._piece("softmax", job, at, fit, apart=False)
            return score_softmax(self.images, job, vectors, learnt)
        encoded = self._piece("encode", job, {**at, "shown": job.shown}, methods.encode, apart=True)
        learnt = self._piece("learn", job, at, methods.learn, apart=True)
        shutil.rmtree(job.cache, ignore_errors=True)
        return score_classifier(self.images, job, encoded, learnt)

    def _job(self, method: str, split: str, seed: int) -> methods.Job:
        train, test = self.images.split(split, seed)
        settings = {**self.common, "method": method, "split": split, "seed": seed}
        return methods.Job(
            method=method,
            changed=self.options.changed,
            weights=self.options.weights,
            vgg16=self.options.vgg16,
            paths=self.images.paths,
            labels=self.images.labels,
            groups=self.images.groups if split == "grouped" else None,
            train=train,
            test=test,
            seed=seed,
            cache=self.options.out / "cache" / settings_digest(settings)[:12],
            threads=self.options.threads,
            shown=split == "random" and seed == self.options.seeds[0],
        )

    def _piece(
        self,
        name: str,
        job: methods.Job,
        settings: Mapping[str, Any],
        function: Callable[[methods.Job], dict[str, Any]],
        apart: bool,
    ) -> dict[str, Any]:
        """Return a piece from its checkpoint; compute it first if there is none."""
        settings = {**self.common, "piece": name, "method": job.method, **settings}
        settings["weights"] = methods.file_digest(job.network_weights)
        path = self.options.out / "checkpoints" / f"{self.images.name}-{job.method}-{name}.json"
        with contextlib.suppress(_NotThere):
            found = load_or_run(path, settings, _not_there)
            print(f"  {name}: from the checkpoint of an earlier run", flush=True)
            return found
        compute = partial(function, job)
        print(f"  {name}: started at {time.strftime('%H:%M:%S')}", flush=True)
        if apart and not self.options.in_process:
            # The peak of memory belongs to a process and never falls.
            run_apart(load_or_run, path, settings, compute)
        return load_or_run(path, settings, compute)


class _NotThere(Exception):  # noqa: N818 - a signal, not an error
    """There is no checkpoint yet."""


def _not_there() -> dict[str, Any]:
    raise _NotThere


def run_apart(function: Callable[..., object], *arguments: Any) -> None:
    """Call a function in a fresh process, which ends when this one does."""
    process = multiprocessing.get_context("spawn").Process(
        target=_run_watched, args=(function, *arguments)
    )
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"stopped (exit code {process.exitcode}); finished pieces are kept")


def _run_watched(function: Callable[..., object], *arguments: Any) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    function(*arguments)


def _end_with_parent() -> None:
    # A run that is started again must not share a cache with the orphan of a killed one.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def rows_digest(*rows: np.ndarray) -> str:
    """Return a SHA-256 of the training and test rows."""
    return settings_digest({str(part): row.tolist() for part, row in enumerate(rows)})


def make_figures(run: Run, rows: Sequence[Mapping[str, Any]], scores: Mapping[Any, Any]) -> None:
    """Write confusion matrices of all rows, and mosaics where there are coordinates."""
    from benchmarks.papers.luo2021.figures import write_confusion, write_mosaic

    folder = run.options.out / "figures"
    for row in rows:
        name = f"{run.images.name}_{run.options.classes}_{row['n_images']}_{row['method']}"
        title = f"{row['label']}, {row['split']} split\n{run.images.title}, n = {row['n_tested']}"
        path = folder / f"{name}_{row['split']}_confusion.png"
        write_confusion(path, np.array(row["confusion"]), run.images.classes, title)
        first = scores[row["method"], row["split"], row["seeds"][0]]
        if "coordinates" in first:
            title = f"{row['label']}: t-SNE of image vectors, {run.images.title}"
            # All images in a large file, and a few in a small one.
            for ending, few in (("", {}), ("_small", {"side": 1000, "n_greys": 40})):
                shown = first["shown"][: _MAX_IN_SMALL if few else None]
                write_mosaic(
                    folder / f"{name}_mosaic{ending}.png",
                    [run.images.paths[index] for index in shown],
                    run.images.labels[shown],
                    first["coordinates"][: len(shown)],
                    title,
                    **few,
                )
    print(f"figures in {folder}", flush=True)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the checked options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add(
        "--data",
        type=Path,
        help="folder with one sub-folder per class; by default, synthetic images",
    )
    add("--classes", type=int, choices=(4, 8), required=True)
    choices = (*methods.CLASSIFIERS, *methods.BASELINES)
    add("--preset", nargs="+", choices=choices, default=["luo2021", "default", "pooled-conv5_3"])
    add("--groups", type=Path, help="CSV with the columns path and group, for the grouped split")
    add("--n-images", type=int, help="by default all of the folder, or 800 synthetic ones")
    add("--seeds", type=int, nargs="+", default=[0])
    add("--vgg16", default="", help="torchvision's full state dict of VGG-16, for fc2")
    add("--weights", default="", help="convolutions of VGG-16 (.pth, .safetensors), or random")
    add("--set", nargs="+", default=[], metavar="NAME=VALUE", help="encoder__n_codewords=50 …")
    add("--threads", type=int, default=2)
    add("--out", type=Path, default=Path("luo2021-out"), help="images, checkpoints and figures")
    add("--results", type=Path, help="folder of the JSON file; needed but for synthetic images")
    add("--no-figures", action="store_true")
    add(
        "--in-process",
        action="store_true",
        help="no separate process per piece: peaks of memory mean little",
    )
    options = parser.parse_args(arguments)
    if options.groups and not options.data:
        parser.error("--groups goes with --data: synthetic images have no groups")
    if options.n_images is not None and options.n_images < 10 * options.classes:
        parser.error(f"--n-images: at least {10 * options.classes} for {options.classes} classes")
    if "fc2" in options.preset and not options.vgg16:
        parser.error("fc2 needs --vgg16 FILE: it is a fully connected layer of the full VGG-16")
    try:
        options.changed = dict(_parameter(text) for text in options.set)
        options.weights = options.weights or options.vgg16 or "imagenet"
        for method in options.preset:
            methods.check_changed(method, options.changed, options.weights)
    except ValueError as error:
        parser.error(str(error))
    if options.results is None:
        if options.data or options.set or options.weights == "random":
            parser.error(
                "give --results FOLDER: the project's own results use synthetic images, trained "
                "weights and no --set"
            )
        options.results = RESULTS / "papers"
    return options


def _parameter(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or "__" not in name:
        raise ValueError(f"--set {text}: expected part__name=value, as encoder__n_codewords=50")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def common_settings(images: LabelledImages, options: argparse.Namespace) -> dict[str, Any]:
    """Return the settings on which every result depends."""
    return {
        "data": images.digest,
        "n_images": len(images.paths),
        "changed": options.changed,
        "machine": machine(options.threads),
        "versions": versions(),
        "code": code_digest(*CODE),
    }


def list_images(options: argparse.Namespace) -> LabelledImages:
    """Return the images of the folder, or synthetic ones."""
    if options.data is None:
        n_images = options.n_images or 800
        images = synthetic_images(options.out / "images", n_images, options.classes)
    else:
        images = read_folder(options.data, options.classes, options.groups, options.n_images)
    print(f"{images.title}: {len(images.paths)} images, {options.classes} classes", flush=True)
    if images.groups is None:
        why = (
            "synthetic images are independent, so no split can share a specimen"
            if options.data is None
            else "images of one grid square or sample may lie on both sides of the random split, "
            "which makes its accuracy optimistic; give --groups FILE if you know them"
        )
        print(f"no groups, so no grouped split: {why}", flush=True)
    return images


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the experiment."""
    options = parse(arguments)
    if "fc2" in options.preset:
        check = methods.full_vgg16 if options.in_process else partial(run_apart, methods.full_vgg16)
        check(options.vgg16)  # before the long part of the run
    images = list_images(options)
    run = Run(images, options, common_settings(images, options))
    splits = [kind for kind in SPLITS if kind == "random" or images.groups is not None]
    scores, rows = {}, []
    for method in options.preset:
        for split in splits:
            for seed in options.seeds:
                print(f"{method}, {split} split, seed {seed}", flush=True)
                scores[method, split, seed] = run.scores(method, split, seed)
            of_seeds = [scores[method, split, seed] for seed in options.seeds]
            rows.append(row_of(images, run.common, method, split, options.seeds, of_seeds))
            # After each row, so that an interruption loses nothing.
            name = f"luo2021_{images.name}_{options.classes}.json"
            merge(options.results / name, images, rows[-1])
            print(sentence(rows[-1], images.title), flush=True)
    if not options.no_figures:
        make_figures(run, rows, scores)
    print("\nall results:", *(sentence(row, images.title) for row in rows), sep="\n", flush=True)


if __name__ == "__main__":
    main()
