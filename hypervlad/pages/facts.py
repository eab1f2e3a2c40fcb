"""Facts about a trained model as text, for ``hypervlad info`` and the tables of reports."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from hypervlad.common.files import file_digest
from hypervlad.common.wording import counted, name_some, of_particles, percent, verb
from hypervlad.features.registry import get_backbone
from hypervlad.features.weights import licence_of
from hypervlad.images import ReadOptions
from hypervlad.images.options import check_read_options
from hypervlad.objects.detection import numbers_text
from hypervlad.statistics.classification import Evaluation
from hypervlad.statistics.conformal import n_groups_needed


def model_facts(model: Any) -> dict[str, str]:
    """Describe a fitted estimator of hypervlad: its training, network, options and accuracy.

    Parameters
    ----------
    model : fitted estimator

    Returns
    -------
    dict of str to str
        The names of the facts, and the facts, for people to read.

    Examples
    --------
    >>> from hypervlad import HypercolumnVLAD, make_tem_images
    >>> from hypervlad.results import model_facts
    >>> images, _ = make_tem_images(8, size=64, random_state=0)
    >>> encoder = HypercolumnVLAD(weights="random", image_size=64, n_codewords=4, sampling=900)
    >>> model_facts(encoder.fit(images))["kind of model"]
    'HypercolumnVLAD'
    """
    facts = {"kind of model": type(model).__name__}
    if hasattr(model, "classes_"):
        names = [str(name) for name in model.classes_]
        facts["classes"] = f"{len(names)}: {', '.join(names)}"
    if hasattr(model, "curves_"):
        return facts | _patch_cnn_facts(model)
    if hasattr(model, "classes_"):
        facts["trained on"] = counted(model.n_images_, "image")
    if hasattr(model, "head_"):
        return facts | _transfer_facts(model)
    if hasattr(model, "decoder_"):
        return facts | _segmenter_facts(model)
    encoder = getattr(model, "encoder_", model)
    if hasattr(model, "threshold_"):
        facts |= _scorer_facts(model)
    if hasattr(model, "aligned_share_"):
        facts |= _alignment_facts(model)
    facts |= _encoder_facts(encoder)
    if hasattr(model, "classes_"):
        facts |= _classifier_facts(model)
    words = words_of(model)
    return {words(name): words(text) for name, text in facts.items()}


def record_of(path: Path, model: Any) -> dict[str, str]:
    """Return what a folder of results keeps of a model: its file's digest, and held-out scores."""
    held_out = [own for name, own in model_facts(model).items() if name.startswith("when held out")]
    return {"model": file_digest(path), **({"held_out": held_out[0]} if held_out else {})}


def words_of(model: Any, names: Iterable[Any] = ()) -> Callable[[str], str]:
    """Return what changes sentences about images to what a model classifies, but no names."""
    encoder = getattr(model, "encoder_", model)
    kept = [*names, *getattr(model, "classes_", ()), encoder.weights]
    return partial(of_particles, names=kept) if encoder.is_of_particles_ else str


def page_facts(model: Any) -> dict[str, str]:
    """Return `model_facts`, and the versions of the installed libraries."""
    versions = []
    libraries = "numpy", "scikit-learn", "torch", "torchvision", "xgboost", "xgboost-cpu"
    for name in ("hypervlad", *libraries):
        # hypervlad itself may run from its source folder, and of xgboost one of both is there.
        with contextlib.suppress(PackageNotFoundError):
            versions.append(f"{name} {version(name)}")
    return {**model_facts(model), "versions": ", ".join(versions)}


def _patch_cnn_facts(model: Any) -> dict[str, str]:
    channels = "grey" if model.n_channels_ == 1 else f"{model.n_channels_} channels"
    return {
        "patches": f"{model.patch_} x {model.patch_} pixels, {channels}",
        "network": f"{model.n_parameters_:,} parameters",
        "trained for": counted(len(model.curves_), "epoch"),
    }


def _transfer_facts(model: Any) -> dict[str, str]:
    side = model.image_size_
    return {
        **_network_facts(model.backbone_, model),
        "fine-tuned": _fine_tuned_text(model.history_),
        "image size": f"{side} x {side} pixels, stretched to a square",
        "how files are read": _reading_text(model.read_options_),
        "classifier": f"softmax regression on {len(model.head_.mean):,} features",
    }


def _segmenter_facts(model: Any) -> dict[str, str]:
    outlined = counted(model.n_particles_, "particle")
    return {
        "trained on": f"{counted(model.n_images_, 'image')} with {outlined}",
        "when held out": _held_out_outlines(model),
        **_network_facts(model.backbone_, model),
        "taps": ", ".join(model.taps_),
        "how files are read": _reading_text(check_read_options(model.read_options)),
    }


def _held_out_outlines(model: Any) -> str:
    if (held_out := model.held_out_) is None:
        return "none, because this takes four images, or groups, at least"
    parts = [f"the area of particles agrees by {percent(held_out.iou)} (intersection over union)"]
    if held_out.f1 is not None:
        parts.append(
            f"{numbers_text(held_out.n_matched, held_out.n_particles, held_out.n_found)} (F1 score "
            f"{held_out.f1:.2f})"
        )
    if held_out.diameter_ratio is not None:
        parts.append(f"the median diameter is {held_out.diameter_ratio:.2f} of the true one")
    return f"{counted(held_out.n_images, 'image')}; {'; '.join(parts)}"


def _network_facts(backbone: str, model: Any) -> dict[str, str]:
    digest = f"SHA-256 {model.weights_digest_[:12]}…"
    if model.weights in ("pretrained", "imagenet") and get_backbone(backbone).tag is not None:
        digest = f"{get_backbone(backbone).tag}, {digest}"
    place = "in the file" if model.network_state_ else "not in the file"
    return {
        "network": backbone,
        "network's weights": f"{model.weights} ({digest}), {place}",
        "licence of the weights": licence_of(backbone, model.weights),
    }


def _fine_tuned_text(history: Any) -> str:
    if history is None:
        return "no"
    epochs = f"{len(history)} {verb(len(history), 'epoch', 'epochs')}"
    if history.best_epoch < 0:
        return f"no: {epochs} did not improve it"
    return f"all of its layers, for {history.best_epoch + 1} of {epochs}"


def is_extrapolated(scorer: Any) -> bool:
    """Return whether the threshold of a scorer is a guess, from too few defect-free images."""
    needed = n_groups_needed(scorer.fpr)
    return scorer.threshold_rule_ == "fpr" and bool(scorer.held_out_.n_groups < needed)


def _scorer_facts(scorer: Any) -> dict[str, str]:
    learner = getattr(scorer.model_, "learner", None)
    if learner is None:
        n_codewords = ", ".join(f"{len(part.codewords)}" for part in scorer.model_.parts)
        source = {"trained with": f"defect-free images: codebooks of {n_codewords} codewords"}
    else:
        kinds = ", ".join(str(name) for name in learner.classes_)
        unit = "cells" if hasattr(scorer.model_, "scale") else "windows"
        source = {"trained with": f"labelled {unit} ({kinds}): {learner_text(learner)}"}
        if unit == "windows":
            source["windows"] = f"{scorer.patch_} x {scorer.patch_} pixels, {scorer.stride_} apart"
    rule = {
        "fpr": f"rule in training: at most {percent(scorer.fpr)} of defect-free images reach it",
        "f1": "rule in training: the best F1",
        "given": "given, not chosen in training",
    }
    held_out = scorer.held_out_
    n_above = held_out.n_images_above(scorer.threshold_)
    chosen = rule[scorer.threshold_rule_]
    if is_extrapolated(scorer):
        chosen += ", extrapolated from too few groups"
    return {
        "trained on": counted(scorer.n_images_, "image"),
        **source,
        "threshold": f"{scorer.threshold_:.4g} ({chosen})",
        "when held out from training": f"{n_above} of {counted(len(held_out.scores), 'image')} "
        f"reach it ({held_out.share_above(scorer.threshold_)})",
        "lowest peak of a region": f"{scorer.region_rule_.least:.4g}",
        **{
            f"{kind} at 20 % contrast": text
            for kind, text in scorer.limits_.sentences(contrast=0.2).items()
        },
    }


def _alignment_facts(model: Any) -> dict[str, str]:
    return {
        "trained on": counted(model.n_images_, "image"),
        "windows": f"{model.window_} x {model.window_} pixels, in four turns of the image",
        "trained with": f"{counted(model.n_windows_, 'window')}, "
        f"{percent(model.aligned_share_)} aligned",
        "classifier": learner_text(model.boosting_),
    }


def _encoder_facts(encoder: Any) -> dict[str, str]:
    n_taps = len(encoder.codebook_.projections)
    each = len(encoder.codebook_.codewords[0])
    of_blocks = {
        "joint": f"{each}, common to all taps",
        "per_layer": f"{each} for each of {n_taps} taps",
    }
    described = [text for name, text in of_blocks.items() if name in encoder.feature_blocks]
    blocks = " + ".join(f"{n:,} {name}" for name, n in encoder.feature_blocks.items())
    turns = encoder.fitted_params_.turns
    backbone = str(encoder.fitted_params_.backbone)
    return {
        **_network_facts(backbone, encoder),
        "taps": ", ".join(encoder.taps_),
        "image size": _size_text(encoder),
        "how files are read": _reading_text(encoder.fitted_params_.read_options),
        "codewords": ", and ".join(described),
        "features of an image": blocks + f", over {turns} turned copies" * (turns != 1),
        "seed of the codebook": f"{encoder.seed_}",
    }


def _classifier_facts(model: Any) -> dict[str, str]:
    images = Counter(str(label) for label in model.training_.labels)
    n_groups = len(np.unique(model.training_.groups))
    facts = {
        "images of the classes": ", ".join(f"{name} {images[str(name)]}" for name in model.classes_)
        + f" (in {counted(n_groups, 'group')}{joined_text(model.training_.n_joined)})",
        "classifier": learner_text(model.boosting_),
    }
    if hasattr(model.boosting_, "prior"):
        facts["probabilities are for"] = shares_text(model.boosting_.prior)
    if model.held_out_ is not None:
        result = model.held_out_evaluation()
        tested = f" ({tested_text(result)})" if result.untested else ""
        facts["accuracy when held out"] = (
            f"{percent(result.accuracy)} of {counted(len(result.true), 'image')}{tested}"
        )
        facts["balanced accuracy when held out"] = percent(result.balanced_accuracy)
    return facts


def joined_text(n_joined: int) -> str:
    """Say after a number of groups how many near copies have joined to these."""
    each = verb(n_joined, "another was", "others were")
    return f", to which {n_joined} {each} joined for near copies" if n_joined else ""


def tested_text(result: Evaluation) -> str:
    n_classes, untested = len(result.classes), result.untested
    tested = f"{n_classes - len(untested)} of {counted(n_classes, 'class')} tested"
    return f"{tested}, none of {name_some(untested)}" if untested else tested


def shares_text(prior: Mapping[Any, float] | str) -> str:
    if not isinstance(prior, str):
        return "the class shares " + ", ".join(f"{name} {share:g}" for name, share in prior.items())
    return {
        "sqrt": "class shares halfway between those of the training images and equal ones",
        "training": "the class shares of the training images",
        "uniform": "equal class shares",
    }[prior]


def learner_text(learner: Any) -> str:
    if not hasattr(learner, "block_weights_"):  # not a BoostedSoftmaxClassifier
        return type(learner).__name__
    rounds = f"{counted(learner.n_estimators_, 'round')} of boosted trees"
    if learner.linear_coef_ is None:
        return rounds
    if learner.n_estimators_:
        return f"logistic regression, then {rounds}"
    was_tried = learner.tree_gain_ is not None
    return "logistic regression" + ("; boosted trees did not help" if was_tried else "")


def _size_text(encoder: Any) -> str:
    params, size = encoder.fitted_params_, "the image's own"
    if params.image_size is not None:
        side = params.image_size // (2 if encoder.is_of_particles_ else 1)
        size = f"{side} x {side} pixels, stretched to a square"
    if params.pixel_size is None:
        return size
    return f"{params.pixel_size:g} nm per pixel; if the pixel size is unknown: {size}"


def _reading_text(options: ReadOptions) -> str:
    defaults = asdict(ReadOptions())
    values = asdict(options).items()
    changed = [f"{name}={value!r}" for name, value in values if value != defaults[name]]
    return ", ".join(changed) if changed else "by default (8-bit by 255, others by percentiles)"
