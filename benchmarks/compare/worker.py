"""One side of the comparison: runs the package of one checkout in a separate process.

It reads one command per line, as JSON, and answers each with one line. The script is started by its
path, with the checkout on ``PYTHONPATH``, and imports nothing else of the benchmarks.

The first half takes fitted models apart into plain arrays, which have the same names in all states
of the code, and puts them together: a state that renames an attribute needs a change there only.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import hypervlad

Arrays = dict[str, np.ndarray]


# --- models as plain arrays -----------------------------------------------------------------------


def codebook_arrays(codebook: Any) -> Arrays:
    """Return the projections and codewords of a codebook."""
    arrays: Arrays = {}
    for i, (mean, std, scale, components) in enumerate(codebook.projections):
        arrays |= {f"mean.{i}": mean, f"std.{i}": std, f"scale.{i}": np.array([scale])}
        if components is not None:
            arrays[f"components.{i}"] = components
    if codebook.joint is not None:
        arrays["joint"] = codebook.joint
    return arrays | {f"per_layer.{i}": words for i, words in enumerate(codebook.per_layer)}


def codebook_of(arrays: Arrays, like: Any) -> Any:
    """Return a codebook of the class of another one."""
    layer = type(like.projections[0])
    projections = tuple(
        layer(
            arrays[f"mean.{i}"],
            arrays[f"std.{i}"],
            float(arrays[f"scale.{i}"][0]),
            arrays.get(f"components.{i}"),
        )
        for i in range(_count(arrays, "mean."))
    )
    own = tuple(arrays[f"per_layer.{i}"] for i in range(_count(arrays, "per_layer.")))
    return type(like)(projections, arrays.get("joint"), own)


def boosting_arrays(boosting: Any) -> Arrays:
    """Return the linear part and the trees of a boosted softmax."""
    arrays: Arrays = {
        "classes": np.asarray(boosting.classes_, dtype=str),
        "intercept": boosting.linear_intercept_,
        "n_estimators": np.array([boosting.n_estimators_]),
    }
    if boosting.linear_coef_ is not None:
        arrays["coef"] = boosting.linear_coef_
    if boosting.booster_ is not None:
        arrays["block_widths"] = np.array(boosting.block_widths_ or (), dtype=int)
        arrays["booster"] = np.frombuffer(bytes(boosting.booster_.save_raw("ubj")), np.uint8)
    return arrays


def put_boosting(arrays: Arrays, into: Any) -> None:
    """Replace what a fitted boosted softmax has learnt."""
    import xgboost  # after hypervlad, which lets waiting threads sleep

    into.classes_ = arrays["classes"].astype(into.classes_.dtype)
    into.linear_intercept_ = arrays["intercept"]
    into.linear_coef_ = arrays.get("coef")
    into.n_estimators_ = int(arrays["n_estimators"][0])
    into.booster_ = None
    if "booster" in arrays:
        into.block_widths_ = tuple(arrays["block_widths"].tolist()) or None
        into.booster_ = xgboost.Booster(model_file=bytearray(arrays["booster"].tobytes()))


def window_model_arrays(model: Any) -> Arrays:
    """Return what a defect scorer has learnt: of defect-free images, or a boosted softmax."""
    learner = getattr(model, "learner", None)
    if learner is not None:
        return _under("boosting.", boosting_arrays(learner))
    return _under("normal.", model.to_state()[1])


def window_model_of(arrays: Arrays, like: Any) -> Any:
    """Return a window model of the class of another one."""
    normal = _below("normal.", arrays)
    if normal:
        return type(like).from_state(like.to_state()[0], normal)
    model = copy.deepcopy(like)
    put_boosting(_below("boosting.", arrays), model.learner)
    return model


def arrays_of(kind: str, model: Any) -> Arrays:
    """Return everything that a fitted estimator needs to answer, as plain arrays."""
    arrays = _under("codebook.", codebook_arrays(model.encoder_.codebook_))
    if "scorer" in kind:
        arrays |= _under("windows.", window_model_arrays(model.model_))
        return arrays | {"threshold": np.array([model.threshold_])}
    return arrays | _under("boosting.", boosting_arrays(model.boosting_))


def with_arrays(kind: str, model: Any, arrays: Arrays) -> Any:
    """Return a copy of a fitted estimator that has learnt what the arrays say."""
    model = copy.deepcopy(model)
    encoder = model.encoder_
    encoder.codebook_ = codebook_of(_below("codebook.", arrays), encoder.codebook_)
    if "scorer" in kind:
        model.model_ = window_model_of(_below("windows.", arrays), model.model_)
        model.threshold_ = float(arrays["threshold"][0])
    else:
        put_boosting(_below("boosting.", arrays), model.boosting_)
    return model


def _count(arrays: Arrays, prefix: str) -> int:
    return sum(name.startswith(prefix) for name in arrays)


def _under(prefix: str, arrays: Arrays) -> Arrays:
    return {prefix + name: array for name, array in arrays.items()}


def _below(prefix: str, arrays: Arrays) -> Arrays:
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


# --- commands -------------------------------------------------------------------------------------


class Side:
    """The estimators of one checkout, fitted on the images of a plan."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self.plan = plan
        self.models: dict[str, Any] = {}

    def fit(self, kind: str, name: str, **options: Any) -> dict[str, Any]:
        """Fit an estimator under a name; ``options`` are its encoder's, except ``random_state``."""
        plan, seed = self.plan, options.pop("random_state", 0)
        options = {**plan["encoder"], **options}
        began = time.perf_counter()
        if kind == "classifier":
            encoder = hypervlad.default_encoder(**options | plan["image_options"])
            model = hypervlad.MicrographClassifier(encoder, random_state=seed)
            model.fit(plan["train"], plan["labels"], groups=plan["groups"])
        elif kind == "alignment":
            from hypervlad.models import default_alignment_encoder

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
        np.savez(path, **arrays_of(kind, self.models[name]))
        return {}

    def adopt(self, kind: str, name: str, path: str, adopted: str) -> dict[str, Any]:
        """Make a model that has learnt what another side's model has learnt."""
        with np.load(path, allow_pickle=False) as arrays:
            model = with_arrays(kind, self.models[name], dict(arrays))
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
