"""Do fitted models keep their promises for new specimens, if they know few or many of them?

    python -m benchmarks.uncertainty.specimens

Synthetic mats: the images of a specimen share its diameter, cover, curl, blur and noise. Defect
scorers and classifiers are fitted again and again on as many images of 2 to 40 specimens, with and
without `groups=`, and asked about images of new specimens, one of each.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.common.program import new_parser, parse
from benchmarks.common.results import RESULTS, Facts, origin, save_result
from benchmarks.common.scores import mean_of_sets
from benchmarks.common.tables import table, with_interval
from hypervlad import (
    BoostedSoftmaxClassifier,
    MicrographClassifier,
    PatchDefectScorer,
    default_encoder,
    default_patch_encoder,
)
from hypervlad.data import make_fibre_images
from hypervlad.defects.thresholds import threshold_at_rate

SIZE = 96
N_IMAGES = 40  # to learn from, in all or of each class
N_SPECIMENS = {"scorer": (2, 4, 8, 20, 40), "classifier": (2, 4, 8, 40)}
N_FITS = {"scorer": 24, "classifier": 12}
N_NEW = 40  # specimens, in all or of each class
SPECIMENS = {
    "cover": (0.3, 0.6),
    "curl": (0.0, 0.5),
    "blur": (0.6, 1.5),
    "contrast_to_noise": (5.0, 20.0),
}
DIAMETERS = (10.0, 20.0)
CLASSES = (10.0, 20.0, 40.0)  # mean diameters
OF_SPECIMEN = 0.12  # standard deviation of the logarithm of a specimen's diameter within a class
RATES = (0.05, 0.25)
COVERAGES = (0.9, 0.8)
MAX_ERRORS = (0.1, 0.2)
CHEAP = {"taps": ("features.6",), "n_codewords": 8, "runtime": "torch"}
Images = list[np.ndarray]


def specimen(rng: np.random.Generator, diameter: float, n_images: int) -> Images:
    drawn = {name: float(rng.uniform(*bounds)) for name, bounds in SPECIMENS.items()}
    seed = int(rng.integers(2**31))
    return make_fibre_images(n_images, diameter=diameter, **drawn, size=SIZE, random_state=seed)[0]


def defect_free(rng: np.random.Generator, n_specimens: int, n_images: int) -> Images:
    made = [specimen(rng, rng.uniform(*DIAMETERS), n_images) for _ in range(n_specimens)]
    return [image for own in made for image in own]


def classified(rng: np.random.Generator, n_specimens: int, n_images: int) -> Images:
    """Return images of as many specimens of each class, class by class."""
    return [
        image
        for mean in CLASSES
        for _ in range(n_specimens)
        for image in specimen(rng, mean * np.exp(OF_SPECIMEN * rng.standard_normal()), n_images)
    ]


def warned(call: Callable[[], Any], text: str) -> tuple[Any, bool]:
    """Return what a function returns, and whether it gave a warning with this text."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        value = call()
    return value, any(text in str(each.message) for each in caught)


def false_alarms(images: Images, groups: np.ndarray | None, new: Images, seed: int) -> Facts:
    """Return the share of new images that are called anomalous, by rate."""
    encoder = default_patch_encoder(**CHEAP)
    scorer = PatchDefectScorer(encoder, n_planted=0, n_codewords=16, random_state=seed)
    (scorer, _), found = warned(lambda: scorer.fit(images, groups=groups), ""), {}
    scores, held_out = scorer.score_samples(new), scorer.held_out_
    for rate in RATES:
        threshold, has_warned = warned(
            lambda rate=rate: threshold_at_rate(held_out.scores, held_out.groups, rate),
            "the threshold is extrapolated",
        )
        found[f"flagged {rate:g}"] = float((scores >= threshold).mean())
        found[f"warned {rate:g}"] = has_warned
    return found


def doubts(images: Images, groups: np.ndarray | None, new: Images, seed: int) -> Facts:
    """Return accuracy, coverage and size of sets, and sure answers, for new images."""
    encoder = default_encoder(image_size=SIZE, turns=1, blocks=("joint",), **CHEAP)
    learner = BoostedSoftmaxClassifier(n_estimators=0)
    model = MicrographClassifier(encoder, boosting=learner, random_state=seed)
    labels, truth = (np.repeat(np.arange(len(CLASSES)), n) for n in (N_IMAGES, N_NEW))
    warned(lambda: model.fit(images, labels, groups=groups), "")
    vectors, found = model.encoder_.transform(new), {}
    for error in MAX_ERRORS:
        judged, has_warned = warned(
            lambda error=error: model.judge_vectors(vectors, error), "no answer is sure"
        )
        is_sure, is_wrong = judged.kind == "sure", judged.proba.argmax(axis=1) != truth
        found[f"sure {error:g}"] = float(is_sure.mean())
        found[f"wrong {error:g}"] = float((is_sure & is_wrong).mean())
        found[f"unsure {error:g}"] = has_warned
    by_learner = model.held_out_.by_learner(vectors, judged.proba)
    for coverage in COVERAGES:
        sets = model.held_out_.sets(by_learner, judged.proba, judged.novelty, coverage)
        _, has_warned = warned(
            lambda coverage=coverage: model.held_out_.warn_of_sets(coverage), "too few groups"
        )
        found[f"covered {coverage:g}"] = float(sets[np.arange(len(new)), truth].mean())
        found[f"size {coverage:g}"] = float(sets.sum(axis=1).mean())
        found[f"warned {coverage:g}"] = has_warned
    return found | {"accuracy": float(1 - is_wrong.mean())}


def measure() -> list[Facts]:
    """Return what each fit gives, for each number of specimens."""
    rows: dict[tuple[str, int, bool], list[Facts]] = {}
    tasks = (("scorer", defect_free, false_alarms), ("classifier", classified, doubts))
    for name, make, ask in tasks:
        for seed in range(N_FITS[name]):
            rng = np.random.default_rng([seed, len(name)])
            new = make(rng, N_NEW, 1)
            for n_specimens in N_SPECIMENS[name]:
                n_each = N_IMAGES // n_specimens
                images = make(rng, n_specimens, n_each)
                groups = np.arange(len(images)) // n_each
                for given in (groups, None)[: 1 if n_each == 1 else 2]:
                    found = ask(images, given, new, seed)
                    rows.setdefault((name, n_specimens, given is not None), []).append(found)
                    print(name, seed, n_specimens, given is not None, found, flush=True)
    return [
        {"model": name, "n_specimens": n, "groups": given, "fits": fits}
        for (name, n, given), fits in rows.items()
    ]


def false_alarms_table(result: Facts) -> str:
    """Return the share of new images that are called anomalous, by number of specimens and rate."""
    rows = _by_specimens(result, "scorer")
    heads = [f"fpr={rate:g}, {way}" for rate in RATES for way in ("groups given", "not given")]
    lines = []
    for n_specimens, of_way in rows.items():
        cells = []
        for rate in RATES:
            for is_given in (True, False):
                fits = of_way.get(is_given)
                cells.append(_share(fits, f"flagged {rate:g}") + _warned(fits, f"warned {rate:g}"))
        lines.append([f"{n_specimens} x {N_IMAGES // n_specimens}", *cells])
    return table(["specimens x images", *heads], lines)


def doubts_table(result: Facts) -> str:
    """Return coverage and sure answers, by number of specimens of each class."""
    heads = ["specimens x images of each class", "accuracy"]
    heads += [f"sets of {coverage:.0%}" for coverage in COVERAGES]
    heads += [f"sure, at most {error:.0%} wrong" for error in MAX_ERRORS]
    lines = []
    for n_specimens, of_way in _by_specimens(result, "classifier").items():
        for is_given, fits in of_way.items():
            name = f"{n_specimens} x {N_IMAGES // n_specimens}"
            cells = [name if is_given else f"{name}, groups not given"]
            cells.append(f"{_mean(fits, 'accuracy'):.2f}")
            for coverage in COVERAGES:
                size = f"; {_mean(fits, f'size {coverage:g}'):.1f} classes"
                warning = _warned(fits, f"warned {coverage:g}")
                cells.append(_share(fits, f"covered {coverage:g}") + size + warning)
            cells += [_sure(fits, error) for error in MAX_ERRORS]
            lines.append(cells)
    return table(heads, lines)


def _by_specimens(result: Facts, model: str) -> dict[int, dict[bool, list[Facts]]]:
    found: dict[int, dict[bool, list[Facts]]] = {}
    for row in result["rows"]:
        if row["model"] == model:
            found.setdefault(row["n_specimens"], {})[row["groups"]] = row["fits"]
    return found


def _mean(fits: list[Facts], name: str) -> float:
    return float(np.mean([fit[name] for fit in fits]))


def _share(fits: list[Facts] | None, name: str) -> str:
    """Return the mean over fits in percent, with its interval; a dash if there are none."""
    if fits is None:
        return "–"
    mean, interval = mean_of_sets([np.array([100 * fit[name] for fit in fits])])
    return with_interval(mean, np.clip(interval, 0, 100), ".1f") + " %"


def _warned(fits: list[Facts] | None, name: str) -> str:
    share = _mean(fits, name) if fits else 0
    return {0: "", 1: "; warned"}.get(share, f"; warned in {share:.0%}")


def _sure(fits: list[Facts], error: float) -> str:
    sure, wrong = (
        np.array([fit[f"{name} {error:g}"] for fit in fits]) for name in ("sure", "wrong")
    )
    warning = _warned(fits, f"unsure {error:g}")
    if not sure.any():
        return f"none{warning}"
    n_above = int((wrong > error * sure).sum())
    return (
        f"{sure.mean():.0%}, {wrong.sum() / sure.sum():.1%} wrong; more than requested in "
        f"{n_above} of {len(fits)}{warning}"
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = new_parser(__doc__, RESULTS / "uncertainty" / "specimens.json", threads=1)
    options = parse(parser, argv)
    result = {"rows": measure(), "origin": origin()}
    save_result(options.out, result, indent=None)
    print(f"{false_alarms_table(result)}\n\n{doubts_table(result)}")


if __name__ == "__main__":
    main()
