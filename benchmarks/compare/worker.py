"""One side of the comparison: runs the package of one checkout in a process of its own.

It reads one command per line from standard input, as JSON, and answers each with one line. The
script is started by its path, with the checkout on ``PYTHONPATH``; it imports nothing else of the
benchmarks than `states`, which lies beside it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import states

import hypervlad

#: Model by kind of answer, for what is timed and compared.
KINDS = ("classifier", "scorer", "masked scorer", "alignment")


class Side:
    """The estimators of one checkout, fitted on the images of a plan.

    Parameters
    ----------
    plan : dict
        Paths and labels; see `benchmarks.compare.__main__.make_plan`.
    """

    def __init__(self, plan: dict[str, Any]) -> None:
        self.plan = plan
        self.models: dict[str, Any] = {}

    def fit(self, kind: str, name: str, **options: Any) -> dict[str, Any]:
        """Fit an estimator under a name; options are of its encoder, but for ``random_state``."""
        plan, seed = self.plan, options.pop("random_state", 0)
        options = {**plan["encoder"], **options}
        began = time.perf_counter()
        if kind == "classifier":
            encoder = hypervlad.default_encoder(**options | plan["image_options"])
            model = hypervlad.MicrographClassifier(encoder, random_state=seed)
            model.fit(plan["train"], plan["labels"], groups=plan["groups"])
        elif kind == "alignment":
            from hypervlad.alignment import default_alignment_encoder

            encoder = default_alignment_encoder(**options)
            model = hypervlad.AlignmentClassifier(encoder, random_state=seed)
            model.fit(plan["fibres"], [np.load(path) for path in plan["fibre_maps"]])
        else:
            encoder = hypervlad.default_patch_encoder(**options)
            model = hypervlad.PatchDefectScorer(encoder, random_state=seed)
            if kind == "scorer":
                model.fit(plan["good"])
            else:
                model.fit([*plan["good"], *plan["defective"]], masks=plan["masks"])
        self.models[name] = model
        return {"seconds": time.perf_counter() - began}

    def export(self, kind: str, name: str, path: str) -> dict[str, Any]:
        """Write what a fitted model has learnt as plain arrays."""
        np.savez(path, **states.arrays_of(kind, self.models[name]))
        return {}

    def adopt(self, kind: str, name: str, path: str, adopted: str) -> dict[str, Any]:
        """Make a model that has learnt what another side's model has learnt."""
        with np.load(path, allow_pickle=False) as arrays:
            model = states.with_arrays(kind, self.models[name], dict(arrays))
        with tempfile.TemporaryDirectory() as folder:
            # Written and read, so that nothing computed from the replaced arrays is left over.
            model.save(Path(folder, "model.hvlad"))
            self.models[adopted] = hypervlad.load(Path(folder, "model.hvlad"))
        return {}

    def save(self, name: str, path: str) -> dict[str, Any]:
        """Save a model."""
        self.models[name].save(path)
        return {}

    def answer(self, kind: str, name: str, path: str) -> dict[str, Any]:
        """Write the answers of a model about the test images."""
        np.savez(path, **self._answers(kind, self.models[name]))
        return {}

    def _answers(self, kind: str, model: Any) -> dict[str, np.ndarray]:
        plan = self.plan
        if kind == "classifier":
            vectors = model.encoder_.transform(plan["test"])
            return {"vectors": vectors, "predictions": model.predict_proba(plan["test"])}
        if kind == "alignment":
            found = [model.aligned_fraction(path) for path in plan["fibre_test"]]
            return {f"map {i}": each.proba for i, each in enumerate(found)}
        return {f"map {i}": model.score_map(path) for i, path in enumerate(plan["surface_test"])}

    def time(self, what: str, name: str) -> dict[str, Any]:
        """Time the answers of a model about the test images, or an extraction of their vectors."""
        model, plan = self.models[name], self.plan
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            if what == "encoding":
                model.encoder_.transform(plan["extraction"])
            elif what == "extraction":
                hypervlad.extract_features(
                    plan["extraction"],
                    model,
                    out=Path(folder, "features.parquet"),
                    root=plan["root"],
                )
            elif what == "alignment map":
                for path in plan["fibre_test"]:
                    model.aligned_fraction(path)
            else:
                for path in plan["surface_test"]:
                    model.score_map(path)
            return {"seconds": time.perf_counter() - began}


def serve(side: Side) -> None:
    """Answer commands until there are no more."""
    for line in sys.stdin:
        command = json.loads(line)
        result = getattr(side, command.pop("do"))(**command)
        print(json.dumps(result), flush=True)


def extract(plan: dict[str, Any], model: str, out: str) -> None:
    """Extract the features of the plan's images, resuming what is there already."""
    loaded = hypervlad.load(model)
    print("ready", flush=True)
    hypervlad.extract_features(plan["extraction"], loaded, out=out, root=plan["root"], resume=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkout", type=Path, required=True)
    parser.add_argument("--plan", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--extract", nargs=2, metavar=("MODEL", "OUT"))
    arguments = parser.parse_args()
    package = Path(hypervlad.__file__).resolve()
    if not package.is_relative_to(arguments.checkout.resolve()):
        sys.exit(f"hypervlad was imported from {package}, not from {arguments.checkout}")
    import torch  # after hypervlad, which lets waiting threads sleep

    torch.set_num_threads(arguments.threads)
    plan = json.loads(arguments.plan.read_text(encoding="utf-8"))
    if arguments.extract:
        extract(plan, *arguments.extract)
    else:
        serve(Side(plan))


if __name__ == "__main__":
    main()
