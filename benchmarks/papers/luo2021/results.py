"""From probabilities to the rows of the results file, with the figures of the paper."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats

from benchmarks.common.results import measured_now, save_result
from benchmarks.papers.luo2021.data import LabelledImages
from benchmarks.papers.luo2021.methods import BASELINES, Job
from benchmarks.papers.luo2021.stages import BOOSTER, KEEPING, SOFTMAX
from benchmarks.papers.luo2021.tables import accuracy_in_words
from hypervlad.metrics import accuracy_interval

SPLITS = ("random", "grouped")
#: Luo, Holm and Wang 2021: accuracy by number of classes, the fc2 baseline, hours for 3,200 images
#: and seconds per image, on an RTX 2070.
PAPER_ACCURACY = {4: 0.909, 8: 0.845}
PAPER_BASELINE = 0.843
PAPER_FIT_HOURS, PAPER_FIT_IMAGES, PAPER_IMAGE_SECONDS = 3.99, 3200, 0.69


def score_classifier(
    images: LabelledImages, job: Job, encoded: Mapping[str, Any], learnt: Mapping[str, Any]
) -> dict[str, Any]:
    """Join the pieces of a classifier: encoding from the first, boosting from the second."""
    fit, predict = _without_cache(encoded["fit_seconds"]), encoded["predict_seconds"]
    booster = learnt["fit_seconds"][BOOSTER]
    n_test = len(job.test)
    times = {
        "fit_stages": {**fit, BOOSTER: booster},
        "fit_seconds": sum(fit.values()) + booster,
        "cached_fit_seconds": sum(learnt["fit_seconds"].values()),
        "image_seconds": (
            sum(_without_cache(predict).values()) + learnt["predict_seconds"][BOOSTER]
        )
        / n_test,
        "cached_image_seconds": sum(learnt["predict_seconds"].values()) / n_test,
        "n_encoded_again": learnt["n_encoded_again"],
        "n_features": encoded["n_features"],
    }
    peaks = [encoded["peak_mb"], learnt["peak_mb"]]
    extra = {name: encoded[name] for name in ("shown", "coordinates") if name in encoded}
    return _score(images, job, learnt) | times | {"peak_mb": _highest(peaks)} | extra


def score_softmax(
    images: LabelledImages, job: Job, vectors: Mapping[str, Any], learnt: Mapping[str, Any]
) -> dict[str, Any]:
    """Join the pieces of a baseline; the time of its one pass is divided among the images."""
    n, n_train, n_test = len(images.paths), len(job.train), len(job.test)
    passed = {name: seconds / n for name, seconds in vectors["seconds"].items()}
    fitted = learnt["fit_seconds"][SOFTMAX]
    predicted = learnt["predict_seconds"][SOFTMAX] / n_test
    times = {
        "fit_stages": {**{k: v * n_train for k, v in passed.items()}, SOFTMAX: fitted},
        "fit_seconds": sum(passed.values()) * n_train + fitted,
        "cached_fit_seconds": fitted,
        "image_seconds": sum(passed.values()) + predicted,
        "cached_image_seconds": predicted,
        "n_features": int(vectors["vectors"].shape[1]),
        "C": learnt["C"],
    }
    return _score(images, job, learnt) | times | {"peak_mb": vectors["peak_mb"]}


def _score(images: LabelledImages, job: Job, learnt: Mapping[str, Any]) -> dict[str, Any]:
    classes = images.classes
    proba = np.zeros((len(job.test), len(classes)))
    proba[:, np.searchsorted(classes, learnt["classes"])] = learnt["proba"]
    true = np.searchsorted(classes, images.labels[job.test])
    predicted = proba.argmax(axis=1)
    confusion = np.zeros((len(classes), len(classes)), dtype=int)
    np.add.at(confusion, (true, predicted), 1)
    groups = None if images.groups is None else images.groups[job.test]
    rows = np.arange(len(true))
    return {
        "n_train": len(job.train),
        "n_test": len(job.test),
        "accuracy": float((true == predicted).mean()),
        "interval": list(accuracy_interval(true == predicted, groups)),
        "log_loss": float(-np.log(np.maximum(proba[rows, true], 1e-7)).mean()),
        "confusion": confusion,
        "test": job.test,
        "right": true == predicted,
    }


def row_of(
    images: LabelledImages,
    common: Mapping[str, Any],
    method: str,
    split: str,
    seeds: Sequence[int],
    scores: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Summarise the seeds of one method and split as a row of the results file."""
    accuracies = [score["accuracy"] for score in scores]
    changed = common["changed"]
    changes = f" ({', '.join(f'{k}={v}' for k, v in changed.items())})" if changed else ""
    kept = ("n_train", "n_test", "accuracy", "interval", "log_loss", "C", "n_encoded_again")
    return {
        "method": method,
        "label": method + changes,
        "split": split,
        "n_images": len(images.paths),
        "n_tested": sum(score["n_test"] for score in scores),
        "n_train": scores[0]["n_train"],
        "n_features": scores[0]["n_features"],
        "seeds": list(seeds),
        "accuracy": float(np.mean(accuracies)),
        "spread": float(np.std(accuracies, ddof=1)) if len(accuracies) > 1 else None,
        "interval": interval_of(scores, images.groups),
        "by_seed": [{name: s[name] for name in kept if name in s} for s in scores],
        "confusion": sum(score["confusion"] for score in scores).tolist(),
        "fit_seconds": _mean(scores, "fit_seconds"),
        "cached_fit_seconds": _mean(scores, "cached_fit_seconds"),
        "image_seconds": _mean(scores, "image_seconds"),
        "cached_image_seconds": _mean(scores, "cached_image_seconds"),
        "fit_stages": {
            stage: float(np.mean([score["fit_stages"][stage] for score in scores]))
            for stage in scores[0]["fit_stages"]
        },
        "peak_mb": _highest([score["peak_mb"] for score in scores]),
        "measured": measured_now(),
        "data_digest": images.digest[:16],
        "versions": dict(common["versions"]),
        "machine": dict(common["machine"]),
    }


def interval_of(scores: Sequence[Mapping[str, Any]], groups: np.ndarray | None) -> list[float]:
    """Return the 95 % interval of the mean accuracy of the seeds.

    Several random splits share images, so their intervals cannot simply be joined. Where groups
    are known, the score of an image is averaged over the splits that tested it, and the interval
    is that of the groups (`accuracy_interval`). Without groups it is Student's interval of the
    splits' accuracies, corrected for the images that they share (Nadeau and Bengio, "Inference for
    the generalization error", Machine Learning 52, 2003).
    """
    if len(scores) == 1:
        return list(scores[0]["interval"])
    if groups is None:
        return resampled_interval(scores)
    tested = np.concatenate([score["test"] for score in scores])
    right = np.bincount(tested, np.concatenate([score["right"] for score in scores]))
    rows, times = np.unique(tested, return_counts=True)
    return list(accuracy_interval(right[rows] / times, groups[rows]))


def resampled_interval(scores: Sequence[Mapping[str, Any]]) -> list[float]:
    """Return the interval of Nadeau and Bengio from the accuracies and sizes of several splits."""
    accuracies = np.array([score["accuracy"] for score in scores])
    n_test, n_train = scores[0]["n_test"], scores[0]["n_train"]
    error = np.sqrt((1 / len(scores) + n_test / n_train) * accuracies.var(ddof=1))
    half = float(scipy.stats.t.ppf(0.975, len(scores) - 1) * error)
    mean = float(accuracies.mean())
    return [max(0.0, mean - half), min(1.0, mean + half)]


def merge(path: Path, images: LabelledImages, row: Mapping[str, Any]) -> None:
    """Add a row to a results file; it replaces the row of the same method, split and size.

    Rows of the same number of other images are removed: they cannot be compared.
    """
    key = ("method", "label", "split", "n_images")
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
    rows = [
        old
        for old in rows
        if any(old[name] != row[name] for name in key)
        and (old["n_images"], True) != (row["n_images"], old["data_digest"] != row["data_digest"])
    ]
    rows.append(row)
    rows.sort(key=lambda r: (-r["n_images"], SPLITS.index(r["split"])))
    n_classes = len(images.classes)
    content = {
        "data": images.title,
        "synthetic": images.name == "synthetic",
        "classes": images.classes.tolist(),
        "paper": {
            "accuracy": PAPER_ACCURACY[n_classes],
            "baseline": PAPER_BASELINE if n_classes == 4 else None,
            "fit_hours": PAPER_FIT_HOURS,
            "fit_images": PAPER_FIT_IMAGES,
            "image_seconds": PAPER_IMAGE_SECONDS,
        },
        "rows": rows,
    }
    save_result(path, content)


def sentence(row: Mapping[str, Any], title: str) -> str:
    """Return a row as text for the terminal."""
    n_classes = len(row["confusion"])
    paper = f"paper, its own images: {100 * PAPER_ACCURACY[n_classes]:.1f} %"
    if row["method"] in BASELINES and n_classes == 4:
        paper += f", its fc2 baseline {100 * PAPER_BASELINE:.1f} %"
    peak = "" if row["peak_mb"] is None else f", peak {row['peak_mb']:.0f} MB"
    stages = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in row["fit_stages"].items())
    return (
        f"{row['label']}, {row['split']} split of {row['n_images']} ({title}, {n_classes} classes):"
        f" accuracy {accuracy_in_words(row)} ({paper})\n"
        f"    fit {row['fit_seconds']:.0f} s for {row['n_train']} images ({stages}), cached "
        f"{row['cached_fit_seconds']:.0f} s (paper: {PAPER_FIT_HOURS} h for {PAPER_FIT_IMAGES:,}); "
        f"predict {row['image_seconds']:.3f} s/image, cached {row['cached_image_seconds']:.3f} s"
        f" (paper: {PAPER_IMAGE_SECONDS} s){peak}"
    )


def _without_cache(seconds: Mapping[str, float]) -> dict[str, float]:
    """Leave out the time of filling the cache, which a run without ``memory=`` does not need."""
    return {name: value for name, value in seconds.items() if name != KEEPING}


def _highest(peaks: Iterable[float | None]) -> float | None:
    known = [peak for peak in peaks if peak is not None]
    return max(known) if known else None


def _mean(scores: Sequence[Mapping[str, Any]], name: str) -> float:
    return float(np.mean([score[name] for score in scores]))
