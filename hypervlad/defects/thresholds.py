"""Scores of held-out images, and the thresholds from which on a score counts as defective."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.stats import gumbel_r, median_abs_deviation

from hypervlad.common.progress import by_reader
from hypervlad.common.stored import Array, StoredPart
from hypervlad.common.wording import counted, interval_words, percent, verb, warn_user
from hypervlad.features.patches import NORMAL
from hypervlad.features.windows import UNKNOWN, TrainingWindows
from hypervlad.statistics.classification import accuracy_interval
from hypervlad.statistics.conformal import n_groups_needed, weighted_limit
from hypervlad.statistics.splits import group_folds

_GUMBEL_DEVIATION = 0.767049251325708  # median absolute deviation of the standard distribution
_TOP_SHARE = 0.01  # of an image's places
_TOP_LABELLED_SHARE = 0.003  # of places that are scored by labels, which show smaller defects
_N_FOLDS = 5
_MAX_NAMED = 5  # training images with the highest scores

Model = TypeVar("Model")
#: The scores (R, S) of an image's places, and the score of the image.
PlaceScores = tuple[NDArray[np.float32], float]


def image_score(places: NDArray[np.floating], share: float = _TOP_SHARE) -> float:
    """Return the mean over the highest share of an image's places: the maximum varies by chance."""
    n_highest = max(1, round(share * places.size))
    return float(np.partition(places, places.size - n_highest, axis=None)[-n_highest:].mean())


def labelled_image_score(places: NDArray[np.floating]) -> float:
    """Return the score of an image, from the log-odds of its cells or windows."""
    return image_score(places, _TOP_LABELLED_SHARE)


@dataclass(frozen=True, eq=False)
class WindowScores:
    """Scores (n,) of the places of one image whose labels are known, and of the image."""

    scores: NDArray[np.float32]
    is_defective: NDArray[np.bool_]
    image: float

    @classmethod
    def of(cls, scores: NDArray[np.floating], labels: NDArray[np.str_]) -> WindowScores:
        """Leave out windows without a label."""
        known = labels != UNKNOWN
        own = scores[known].astype(np.float32)
        return cls(own, labels[known] != NORMAL, labelled_image_score(own))

    @property
    def image_without_defects(self) -> float:
        normal = self.scores[~self.is_defective]
        return self.image if len(normal) == len(self.scores) else labelled_image_score(normal)


def _score_text(score: float, threshold: float) -> str:
    """Return a score; rounded, one below the threshold may look like it."""
    text = f"{score:.4g}"
    is_alike = score < threshold and text == f"{threshold:.4g}"
    return f"{text}, just below the threshold" if is_alike else text


@dataclass(frozen=True, eq=False)
class HeldOutScores(StoredPart):
    """Scores of defect-free training images, by models that were trained without them.

    Of the n images, or of their defect-free places, with the positions of the images in the list of
    training images, and the numbers of their groups; all (n,).
    """

    scores: Annotated[NDArray[np.float32], Array("float32", 1)]
    images: Annotated[NDArray[np.int64], Array("int64", 1, 0)]
    groups: Annotated[NDArray[np.int64], Array("int64", 1, 0)]

    def __post_init__(self) -> None:
        lengths = [len(self.scores), len(self.images), len(self.groups)]
        if not lengths[0] or len(set(lengths)) > 1:
            raise ValueError(f"the held-out scores do not fit: lengths {lengths}")

    @classmethod
    def of(cls, images: Mapping[int, WindowScores], groups: NDArray[np.intp]) -> HeldOutScores:
        """Summarise images by position, of which at least one has a defect-free place.

        ``groups`` are those of all training images.
        """
        tested = [(at, own) for at, own in sorted(images.items()) if not own.is_defective.all()]
        scores = {at: own.image_without_defects for at, own in tested}
        positions = np.array(list(scores), np.int64)
        own = np.asarray(groups, np.int64)[positions]
        return cls(np.array(list(scores.values()), np.float32), positions, own)

    @property
    def n_groups(self) -> int:
        return len(np.unique(self.groups))

    def n_images_above(self, threshold: float) -> int:
        """Return how many of these images a threshold falsely calls anomalous."""
        return int((self.scores >= np.float32(threshold)).sum())

    def share_above(self, threshold: float) -> str:
        """Return in words their share, with its interval in images of new groups."""
        is_above = self.scores >= np.float32(threshold)
        interval = accuracy_interval(is_above, self.groups.tolist())
        return f"{percent(float(is_above.mean()))}, {interval_words(interval)}"

    def lines(self, threshold: float, names: Sequence[str], *, with_masks: bool) -> list[str]:
        """Return how many reach a threshold, and without masks, the highest and their images."""
        n_images, n_above = len(self.scores), self.n_images_above(threshold)
        what = "defect-free parts of images" if with_masks else "images"
        line = (
            f"threshold: {threshold:.4g}; when held out from training, {n_above} of {n_images} "
            f"{what} {verb(n_above, 'reaches', 'reach')} it ({self.share_above(threshold)})"
        )
        if with_masks:
            return [line]
        order = (-self.scores).argsort()
        n_named = max(1, min(n_above, _MAX_NAMED))
        shown = [_score_text(score, threshold) for score in self.scores[order].tolist()]
        listed = [
            f"{names[self.images[i]]} ({score})"
            for i, score in zip(order[:n_named], shown, strict=False)
        ]
        following = [f"the next: {score}" for score in shown[n_named : n_named + 1]]
        highest = ", ".join(listed + following)
        return [
            line,
            f"look for defects in the images with the highest scores: {highest}",
            "if one has any, it may set the threshold: leave it out, and fit again",
        ]


def threshold_at_rate(scores: NDArray[np.floating], groups: NDArray[Any], rate: float) -> float:
    """Return a score that at most this share of images of new groups reaches, on average.

    From too few groups, it is extrapolated by Gumbel's distribution, with a warning.
    """
    n_groups, needed = len(np.unique(groups)), n_groups_needed(rate)
    if n_groups >= needed:
        estimate = weighted_limit(scores, groups, rate)
    else:
        what = "defect-free images" if n_groups == len(scores) else "groups of defect-free images"
        warn_user(
            f"the threshold is extrapolated: a rate of {rate:g} needs at least {needed} {what}, "
            f"got {n_groups}; it may be far too low or too high. Give more images, of more "
            "specimens, "
            + by_reader("choose a larger fpr, or set_threshold", "or allow more false alarms")
        )
        above = (gumbel_r.isf(rate) - gumbel_r.median()) / _GUMBEL_DEVIATION
        estimate = np.median(scores) + above * median_abs_deviation(scores)
    return float(np.nextafter(np.float32(estimate), np.float32(np.inf)))


def threshold_of_best_f1(images: Iterable[WindowScores]) -> float:
    """Return the score from which on calling windows defective has the best F1."""
    listed = list(images)
    # None above that of the image: a place is defective only if its image is.
    scores = np.concatenate([np.minimum(own.scores, np.float32(own.image)) for own in listed])
    defective = np.concatenate([image.is_defective for image in listed])
    order = np.argsort(-scores, kind="stable")
    scores, hits = scores[order], np.cumsum(defective[order])
    called = np.arange(1, len(scores) + 1)
    f1 = 2 * hits / (called + defective.sum())
    is_last = np.append(scores[1:] < scores[:-1], True)  # equal scores go together
    best = int(np.argmax(np.where(is_last, f1, -1)))
    following = scores[best + 1] if best + 1 < len(scores) else scores[best] - 1
    between = (scores[best] + following) / np.float32(2)
    return float(between if between > following else scores[best])


def models_without(
    keys: Mapping[int, str],
    defective: set[int],
    groups: NDArray[Any],
    seed: int,
    fit: Callable[[NDArray[np.intp]], Model],
) -> dict[int, Model]:
    """Return, by position, a model that was trained without the group of each image in a test fold.

    ``keys`` are digests by position, ``defective`` the positions of images with defects, of which
    each fold gets its share; ``fit`` makes a model of positions.
    """
    positions = np.array(list(keys))
    own = groups[positions]
    if len(np.unique(own)) < 2:
        return {}
    has_defects = [at in defective for at in positions.tolist()]
    model_of: dict[int, Model] = {}
    for train, test in group_folds(has_defects, own, n_splits=_N_FOLDS, random_state=seed):
        model_of |= dict.fromkeys(positions[test].tolist(), fit(positions[train]))
    return model_of


def warn_of_known_images(n_known: int, n_images: int) -> None:
    warn_user(
        f"{n_known} of {counted(n_images, 'image')} cannot be held out, because there are "
        "too few images, or groups of images (with defects, or without), so the threshold is "
        "chosen on images that the model was trained on; too much will be called defective. "
        "Give more images, of more groups, or set_threshold"
    )


def fitted_with_scores(
    windows: TrainingWindows,
    scores_of: Callable[[Model, list[int]], Iterable[tuple[int, WindowScores]]],
    fit: Callable[[TrainingWindows], Model],
    groups: NDArray[Any],
    seed: int,
) -> tuple[Model, dict[int, WindowScores]]:
    """Return the model of all images, and scores of each by models of other groups, by position.

    Images in no test fold are left out, unless windows of one class would then be missing: they are
    scored by the model of all, with a warning. ``scores_of`` scores images by model and positions.
    """
    model = fit(windows)
    is_normal = windows.labels == NORMAL
    defective = set(windows.image_index[~is_normal].tolist())
    model_of = models_without(
        windows.keys, defective, groups, seed, lambda train: fit(windows.of_images(train))
    )
    of_tested = is_normal[np.isin(windows.image_index, list(model_of))]
    if set(of_tested.tolist()) != set(is_normal.tolist()):  # one kind was never tested
        never_tested = [at for at in windows.keys if at not in model_of]
        warn_of_known_images(len(never_tested), len(windows.keys))
        model_of |= dict.fromkeys(never_tested, model)
    scored = dict[int, WindowScores]()
    for own in dict.fromkeys(model_of.values()):
        scored |= scores_of(own, [at for at, its in model_of.items() if its is own])
    return model, scored
