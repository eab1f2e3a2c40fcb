"""Evaluations in a few lines of plain text, as the commands print them."""

from __future__ import annotations

import contextlib
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hypervlad.common.wording import counted, interval_words, name_some, percent, verb
from hypervlad.images.errors import training_images_text, unlike_training_text
from hypervlad.pages.facts import joined_text, learner_text, shares_text, tested_text, words_of
from hypervlad.statistics.classification import ClassScores, Evaluation
from hypervlad.statistics.conformal import groups_for_error

ACCEPTED_ERRORS = (0.05, 0.1, 0.2)  # shares of wrong answers among the sure ones
_MAX_CLASSES = 6  # whose recalls are listed; of more, those with the lowest
_MAX_CONFUSIONS = 3
_MAX_ALIKE = 1.5  # largest class over the smallest, where shares are about equal


@contextlib.contextmanager
def noted_warnings() -> Iterator[list[str]]:
    """Collect the warnings of a block, which are shown all the same."""
    notes: list[str] = []
    with warnings.catch_warnings():
        show_outside = warnings.showwarning

        def show(message: Warning | str, *place: Any, **more: Any) -> None:
            notes.append(str(message))
            show_outside(message, *place, **more)

        warnings.showwarning = show
        yield notes


def evaluation_lines(result: Evaluation, *, forecast: bool = True) -> list[str]:
    lines = [*_accuracies(result, forecast), _recalls(result), *warning_lines(result)]
    if result.untested:
        lines.append(tested_text(result))
    if result.unknown:
        lines.append(f"classes that the model was not trained on: {', '.join(result.unknown)}")
    return lines


def leakage_text(result: Evaluation, n_known: int) -> str:
    n_images = len(result.true)
    known = training_images_text(n_known, n_images)
    if n_known == n_images:
        return f"{known}: the result is no forecast for new images"
    return (
        f"{known} and left out; with {verb(n_known, 'it', 'them')}, the accuracy would be "
        f"{percent(result.accuracy)}"
    )


def unlike_text(result: Evaluation, unlike_training: NDArray[np.bool_]) -> str:
    text = unlike_training_text(int(unlike_training.sum()), len(result.true))
    text += " (about 5 % of usual images are, and more with few training groups)"
    if (familiar := result.subset(~unlike_training)) is None:
        return text
    return f"{text}; accuracy on the other {len(familiar.true)}: {percent(familiar.accuracy)}"


def warning_lines(result: Evaluation) -> list[str]:
    """Return a warning for each known class that no image of it is recognised as."""
    n_predicted = Counter(result.predicted)
    return [
        f"warning: {score.label} is "
        + (
            f"predicted for {counted(n_predicted[score.label], 'image')}, always wrongly"
            if score.label not in result.never_predicted
            else "never predicted"
        )
        + f": {score.label} is not recognised in any of its {counted(score.support, 'image')}"
        for score in result.scores
        if score.known and score.support and not score.recall
    ]


def held_out_lines(model: Any) -> list[str]:
    learner = f"classifier: {learner_text(model.boosting_)}"
    if model.held_out_ is None:
        why = (
            "calibrate is False"
            if not model.calibrate
            else "the only group of a class is needed to train it"
        )
        return [f"accuracy: unknown, because no image was held out ({why})", learner]
    result = model.held_out_evaluation()
    shares = expected_shares_text(model, result)
    listed = result.confusions[:_MAX_CONFUSIONS]
    mistakes = ", ".join(f"{label} as {other} ({n})" for label, other, n in listed)
    lines = [
        held_out_text(model, result),
        *_accuracies(result),
        _recalls(result),
        *warning_lines(result),
        *_advice(result),
        *([f"most frequent mistakes: {mistakes}"] if mistakes else []),
        *_without_groups(model.training_),
        f"confidence: {calibration_text(result)}" + (f" (it is for {shares})" if shares else ""),
        f"sure answers: {_sure_text(model)}",
        learner,
    ]
    return list(map(words_of(model), lines))


def _without_groups(training: Any) -> list[str]:
    n_copies = training.digests.n_copies + training.n_joined
    if len(np.unique(training.groups)) + n_copies < len(training):
        return []
    return [
        "groups: each image counts as a sample of its own; if several show one sample or "
        "micrograph, say so with --groups, or these figures are too good"
    ]


def _advice(result: Evaluation) -> list[str]:
    if not result.never_predicted:
        return []
    return [
        f"to have {name_some(result.never_predicted)} predicted: more images of "
        f"{verb(len(result.never_predicted), 'this class', 'these classes')} help most; 'hypervlad "
        "train' with --set prior=uniform finds more images of rare classes"
    ]


def held_out_text(model: Any, result: Evaluation) -> str:
    held_out = model.held_out_
    n_training, n_groups = len(model.training_), len(np.unique(held_out.groups))
    of_groups = "" if result.groups is None else f" of {counted(n_groups, 'group')}"
    n_copies = model.training_.digests.n_copies
    if n_copies and of_groups:
        copies = verb(n_copies, "copy is", "copies are")
        of_groups += f" ({n_copies} {copies} in the group of the original)"
    of_groups += joined_text(model.training_.n_joined) if of_groups else ""
    of_fold = "images" if result.groups is None else "groups"
    how = (
        f"in {len(held_out.learners)} folds, each classified by a model trained without the "
        f"{of_fold} of its fold"
    )
    text = f"held out: {len(held_out)} of {counted(n_training, 'training image')}{of_groups}, {how}"
    if result.untested:
        text += f"; {tested_text(result)}, where this takes a second group"
    return text


def _accuracies(result: Evaluation, forecast: bool = True) -> list[str]:
    label, share = result.baseline
    classes = counted(len(set(result.true)), "class")
    interval = f"{interval_words(result.interval)}; " if forecast else ""
    balanced = f" ({interval_words(result.balanced_interval)})" if forecast else ""
    return [
        f"accuracy: {percent(result.accuracy)} of {counted(len(result.true), 'image')} "
        f"({interval}always predicting {label}: {percent(share)})",
        f"balanced accuracy: {percent(result.balanced_accuracy)}, the mean of {classes}{balanced}",
    ]


def _recalls(result: Evaluation) -> str:
    tested = sorted((s for s in result.scores if s.support), key=lambda s: (s.recall, -s.support))
    if len(tested) > _MAX_CLASSES and tested[0].recall == 1:
        return f"correct by class: all images of all {len(tested)} classes"
    if len(tested) <= _MAX_CLASSES + 1:  # one more takes no more words than "the other"
        return f"correct by class: {', '.join(map(_recall_text, tested))}"
    worst, others = tested[:_MAX_CLASSES], tested[_MAX_CLASSES:]
    at_least = others[0].recall
    return (
        f"correct by class, the worst: {', '.join(map(_recall_text, worst))}; the other "
        f"{len(others)}: {'all right' if at_least == 1 else f'{percent(at_least)} or more'}"
    )


def _recall_text(score: ClassScores) -> str:
    return f"{score.label} {round(score.recall * score.support)} of {score.support}"


def calibration_text(result: Evaluation) -> str:
    verdict = {
        "calibrated": "no more difference than by chance",
        "unknown": "too few images to tell whether the confidence is right",
        "overconfident": "the confidence is too high",
        "underconfident": "the confidence is too low",
    }[result.calibration]
    return (
        f"{percent(float(result.confidence.mean()))} on average, and {percent(result.accuracy)} "
        f"are correct: {verdict}"
    )


def expected_shares_text(model: Any, result: Evaluation) -> str:
    """Describe the class shares that a model expects, if held-out images have clearly others."""
    prior = getattr(model.boosting_, "prior", "training")
    counts = Counter(result.true).values()
    if prior == "training" or max(counts) <= _MAX_ALIKE * min(counts):
        return ""
    return shares_text(prior)


def _sure_text(model: Any) -> str:
    if len(model.held_out_.lone):
        return "none, as long as a class has images of a single group, or a single image"
    counts = [model.held_out_.sure_answers(error) for error in ACCEPTED_ERRORS]
    errors = " / ".join(f"{100 * each.max_error:.0f}" for each in counts)
    shares = [
        percent(each.n_sure / len(model.held_out_)) if each.n_sure else "0" for each in counts
    ]
    of_images = " / ".join(shares) if any(each.n_sure for each in counts) else "none"
    text = f"{of_images} of the images, if at most {errors} % of them may be wrong"
    n_groups = model.held_out_.calibration.n_groups
    needed = {error: groups_for_error(error) for error in ACCEPTED_ERRORS}
    if missing := {error: number for error, number in needed.items() if n_groups < number}:
        wanted = " / ".join(f"{100 * error:.0f}" for error in missing)
        numbers = " / ".join(map(str, missing.values()))
        text += (
            f" (for {wanted} %, the number of groups must be at least {numbers}; it is {n_groups})"
        )
    return text
