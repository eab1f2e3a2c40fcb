"""Scores of held-out images, and the thresholds from which on a score counts as defective."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.stats import gumbel_r, median_abs_deviation

from hypervlad.splits import group_folds, joined_groups
from hypervlad.windows import NORMAL
from hypervlad.windows.dataset import UNKNOWN, TrainingWindows

_GUMBEL_DEVIATION = 0.767049251325708  # median absolute deviation of the standard distribution
_TOP_FRACTION = 0.005  # of an image's windows
_N_FOLDS = 5


class WindowModel(Protocol):
    """A model of windows; a higher score is more defective."""

    def scores(self, windows: NDArray[np.float32]) -> NDArray[np.floating]: ...


def image_score(windows: NDArray[np.floating]) -> float:
    """Return the score of an image: the mean over the 0.5 % of its windows that score highest.

    The maximum alone varies by chance, and more so in larger images.
    """
    n_highest = max(1, round(_TOP_FRACTION * windows.size))
    return float(np.partition(windows, windows.size - n_highest, axis=None)[-n_highest:].mean())


@dataclass(frozen=True, eq=False)
class WindowScores:
    """Scores of the windows of one image whose labels are known.

    Attributes
    ----------
    scores : ndarray of float32, shape (n,)
    is_defective : ndarray of bool, shape (n,)
    """

    scores: NDArray[np.float32]
    is_defective: NDArray[np.bool_]

    @classmethod
    def of(cls, scores: NDArray[np.floating], labels: NDArray[np.str_]) -> WindowScores:
        """Leave out windows without a label."""
        known = labels != UNKNOWN
        return cls(scores[known].astype(np.float32), labels[known] != NORMAL)


def threshold_at_rate(images: Iterable[WindowScores], rate: float) -> float:
    """Return a score that about this share of such images reaches in a normal window.

    The highest score of an image is an extreme value. It is assumed to follow Gumbel's
    distribution with the median and the median absolute deviation of these images, which a few
    defective images among the normal ones hardly change.
    """
    highest = [
        image.scores[~image.is_defective].max() for image in images if not image.is_defective.all()
    ]
    above = (gumbel_r.isf(rate) - gumbel_r.median()) / _GUMBEL_DEVIATION
    estimate = np.float32(np.median(highest) + above * median_abs_deviation(highest))
    return float(np.nextafter(estimate, np.float32(np.inf)))


def threshold_at_patch_rate(images: Iterable[WindowScores], rate: float) -> float:
    """Return a score that at most this share of the normal windows of all images reaches."""
    scores = np.concatenate([image.scores[~image.is_defective] for image in images])
    return float(np.nextafter(np.quantile(scores, 1 - rate, method="higher"), np.float32(np.inf)))


def threshold_of_best_f1(images: Iterable[WindowScores]) -> float:
    """Return the score from which on calling windows defective has the best F1."""
    listed = list(images)
    scores = np.concatenate([image.scores for image in listed])
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


def held_out_scores(
    model: WindowModel,
    windows: TrainingWindows,
    all_scores: Callable[[WindowModel, int], WindowScores],
    fit: Callable[[TrainingWindows], WindowModel],
    groups: NDArray[Any],
    seed: int,
) -> Iterator[WindowScores]:
    """Score all windows of each image with a model trained on other groups of images.

    Images that are in no test fold are left out, unless windows of one class would be missing
    without them: then ``model``, which was trained on them, scores them.

    Parameters
    ----------
    model : WindowModel
        Trained on all of ``windows``.
    windows : TrainingWindows
    all_scores : callable
        From a model and the position of an image that is in ``windows.thinned`` to the scores of
        all of its windows.
    fit : callable
        From windows to a model.
    groups : ndarray of shape (n_images,)
    seed : int

    Yields
    ------
    WindowScores

    Warns
    -----
    UserWarning
        If images are scored by a model that was trained on them.
    """
    positions = np.array(list(windows.keys))  # in an order that does not depend on that of the list
    own = joined_groups(groups[positions], list(windows.keys.values()))
    defective = set(windows.image_index[windows.labels != NORMAL].tolist())
    model_of: dict[int, WindowModel] = {}
    for train, test in _folds([at in defective for at in positions.tolist()], own, seed):
        fold_model = fit(windows.of_images(positions[train]))
        model_of |= dict.fromkeys(positions[test].tolist(), fold_model)
    if not _has_all_classes(windows, list(model_of)):
        never_tested = [at for at in positions.tolist() if at not in model_of]
        warnings.warn(
            f"{len(never_tested)} of {len(positions)} images cannot be held out, because there are "
            "too few images, or groups of images (with defects, or without), so the threshold is "
            "chosen on images that the model was trained on; too much will be called defective. "
            "Give more images, of more groups, or set_threshold",
            UserWarning,
            stacklevel=4,
        )
        model_of |= dict.fromkeys(never_tested, model)
    yield from _scores_of_samples(windows, model_of)
    for at in windows.thinned & model_of.keys():
        yield all_scores(model_of[at], at)


def _scores_of_samples(
    windows: TrainingWindows, model_of: Mapping[int, WindowModel]
) -> Iterator[WindowScores]:
    """Score the images whose windows were all sampled, all those of one model at once."""
    for model in dict.fromkeys(model_of.values()):
        own = [at for at, its in model_of.items() if its is model and at not in windows.thinned]
        rows = np.flatnonzero(np.isin(windows.image_index, own))
        if len(rows):
            scores, images = model.scores(windows.X[rows]), windows.image_index[rows]
            for at in own:
                yield WindowScores.of(scores[images == at], windows.labels[rows[images == at]])


def _has_all_classes(windows: TrainingWindows, positions: list[int]) -> bool:
    """Return whether some images have normal and defective windows, if all images have them."""
    is_normal = windows.labels == NORMAL
    inside = np.isin(windows.image_index, positions)
    return bool(set(is_normal[inside].tolist()) == set(is_normal.tolist()))


def _folds(
    has_defects: list[bool], groups: NDArray[np.intp], seed: int
) -> Sequence[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    if len(np.unique(groups)) < 2:
        return []
    return group_folds(has_defects, groups, n_splits=_N_FOLDS, random_state=seed)
