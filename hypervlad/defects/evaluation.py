"""Evaluation of a defect scorer against masks, image by image and over all images."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import roc_auc_score

from hypervlad.common.progress import ProgressBar, announced
from hypervlad.common.wording import counted, warn_user
from hypervlad.defects.maps import PatchConfusion, PixelTally, patch_confusion
from hypervlad.images import ImageReadError, TrainingImagesWarning, read_mask
from hypervlad.images.errors import reasons_in_line
from hypervlad.images.masks import mask_banner_rows, warn_if_inverted

_MIN_SIDE = 3  # scores on either side of the gap
_MIN_DEVIATIONS_BELOW = 4.0
_MIN_DEVIATIONS_ABOVE = 1.0  # the scores of defects vary more than those of defect-free images


@dataclass(frozen=True)
class ImageResult:
    """The scores of one image."""

    position: int  # in the list that was evaluated
    name: str
    score: float
    is_defective: bool  # by its mask
    is_called: bool  # defective, by its score
    true_fraction: float  # of its pixels that are defective
    found_fraction: float
    confusion: PatchConfusion
    in_training: bool = False

    @property
    def n_wrong(self) -> int:
        """Number of misclassified patches."""
        return self.confusion.false_positives + self.confusion.false_negatives


@dataclass(frozen=True, eq=False)
class MapWithMask:
    """The score map of an image, the defective pixels found in it, and its mask, all (H, W)."""

    position: int
    name: str
    scores: NDArray[np.float32]
    found: NDArray[np.bool_]
    mask: NDArray[np.bool_]


@dataclass(eq=False)
class DefectEvaluation:
    """Score maps compared with masks, image by image.

    Attributes
    ----------
    threshold : float
        From this score on, an image is called anomalous.
    patch : int
        Side of the patches that are counted, in pixels.
    n_shown : int, default=12
        How many maps are kept: those of the images with the most misclassified patches.
    images : list of ImageResult
    left_out : list of str
        For each image left out, the reason.
    """

    threshold: float
    patch: int
    n_shown: int = 12
    images: list[ImageResult] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    _pixels: PixelTally = field(default_factory=PixelTally)
    _worst: list[tuple[tuple[float, float, int], MapWithMask]] = field(default_factory=list)

    def add(self, position: int, name: str, found: Any, mask: NDArray[np.bool_]) -> None:
        """Add an image by its `hypervlad.models.Finding` and its mask."""
        result = ImageResult(
            position,
            name,
            score=found.score,
            is_defective=bool(mask.any()),
            is_called=found.is_defective,
            true_fraction=float(mask.mean()),
            found_fraction=found.area_fraction,
            confusion=patch_confusion(found.mask, mask, self.patch),
            in_training=found.in_training,
        )
        self.images.append(result)
        self._pixels.add(found.map, mask)
        order = (result.n_wrong, result.score, -len(self.images))  # unique, so maps never compare
        kept = MapWithMask(position, name, found.map, found.mask, mask)
        heapq.heappush(self._worst, (order, kept))
        if len(self._worst) > self.n_shown:
            heapq.heappop(self._worst)

    @property
    def worst(self) -> list[MapWithMask]:
        """Maps of the images with the most misclassified patches, then the highest scores."""
        return [shown for _, shown in sorted(self._worst, key=lambda each: each[0], reverse=True)]

    @property
    def n_in_training(self) -> int:
        """Number of images that the scorer was trained on."""
        return sum(image.in_training for image in self.images)

    @property
    def confusion(self) -> PatchConfusion:
        """The patch confusion of all images together."""
        return PatchConfusion.total(image.confusion for image in self.images)

    @property
    def image_auroc(self) -> float:
        """Area under the ROC curve of images; NaN if all of them are defective, or none is."""
        truth = [image.is_defective for image in self.images]
        if len(set(truth)) < 2:
            return float("nan")
        return float(roc_auc_score(truth, [image.score for image in self.images]))

    def scores(self) -> dict[str, float]:
        """Return all scores by name; NaN where a score is not defined."""
        total = self.confusion
        errors = [abs(image.found_fraction - image.true_fraction) for image in self.images]
        return {
            "image AUROC": self.image_auroc,
            "pixel AUROC": self._pixels.auroc(),
            "pixel average precision": self._pixels.average_precision(),
            "per-region overlap": self._pixels.per_region_overlap(),
            "pixel F1, at the best threshold": self._pixels.best_f1(),
            "patch precision": total.precision,
            "patch recall": total.recall,
            "patch F1": total.f1,
            "mean error of the defective area": float(np.mean(errors)),
        }


def evaluate_defects(
    scorer: Any,
    images: Sequence[Any],
    masks: Sequence[Any],
    names: Sequence[str],
    *,
    progress: bool = False,
) -> DefectEvaluation:
    """Score images and compare the maps with masks.

    Parameters
    ----------
    scorer : fitted PatchDefectScorer
    images : sequence of n paths or arrays
    masks : sequence of n paths, arrays or None
        None for an image without defects.
    names : sequence of n str
        For reports and messages.
    progress : bool, default=False
        Show a progress bar.

    Returns
    -------
    DefectEvaluation
        Without images that cannot be read, are smaller than a patch or differ in size from their
        mask.

    Raises
    ------
    ValueError
        If the lengths differ.
    ImageReadError
        If no image is left.

    Warns
    -----
    TrainingImagesWarning
        If the scorer was trained on some of the images.

    Examples
    --------
    >>> from hypervlad import PatchDefectScorer, default_patch_encoder, make_nanofibre_images
    >>> from hypervlad.evaluation import evaluate_defects
    >>> good, _ = make_nanofibre_images(4, defective=0.0, size=64, random_state=0)
    >>> encoder = default_patch_encoder(weights="random")
    >>> scorer = PatchDefectScorer(encoder, fpr=0.25, random_state=0).fit(good)
    >>> images, masks = make_nanofibre_images(2, defective=1.0, size=64, random_state=1)
    >>> [image.name for image in evaluate_defects(scorer, images, masks, ["a", "b"]).images]
    ['a', 'b']
    """
    if not len(images) == len(masks) == len(names):
        raise ValueError(
            f"{counted(len(images), 'image')}, {counted(len(masks), 'mask')} and "
            f"{counted(len(names), 'name')}: give one each"
        )
    result = DefectEvaluation(scorer.threshold_, scorer.patch_)
    rows = mask_banner_rows(scorer.encoder_.fitted_params_.read_options)
    given = zip(images, masks, names, strict=True)
    hidden = None if progress else True
    with announced(len(images)):
        for i, (image, mask, name) in enumerate(
            ProgressBar(given, total=len(names), unit="image", disable=hidden)
        ):
            try:
                found = scorer.find(image)
                truth = np.zeros(found.map.shape, dtype=bool)
                if mask is not None:
                    truth = read_mask(mask, shape=found.map.shape, banner_rows=rows)
            except ImageReadError as error:
                result.left_out.append(str(error))
                continue
            result.add(i, name, found, truth)
    shares = [image.true_fraction for image in result.images if image.is_defective]
    warn_if_inverted(shares)
    if result.n_in_training:
        known = TrainingImagesWarning.about(result.n_in_training, len(result.images))
        warn_user(known)
    if not result.images:
        raise ImageReadError(f"no image is left to evaluate: {reasons_in_line(result.left_out)}")
    return result


def gap_between_modes(scores: ArrayLike) -> tuple[float, float] | None:
    """Return the scores (low, high) at the ends of a gap between two clear groups, or None.

    The gap is the widest distance between two consecutive scores (n,). It must have at least three
    scores on either side and be wider than four standard deviations of the scores below it, one of
    those above it, and 2 + 20 / n times any other distance.

    Examples
    --------
    >>> from hypervlad.evaluation import gap_between_modes
    >>> gap_between_modes([1.0, 1.2, 1.3, 1.5, 9.0, 9.5, 10.0, 10.4])
    (1.5, 9.0)
    """
    ordered = np.sort(np.asarray(scores, dtype=np.float64))
    n = len(ordered)
    if n < 2 * _MIN_SIDE:
        return None
    distances = np.diff(ordered)
    n_below = int(distances.argmax()) + 1
    below, above = ordered[:n_below], ordered[n_below:]
    gap = distances[n_below - 1]
    other = np.delete(distances, n_below - 1).max()
    is_clear = (
        min(len(below), len(above)) >= _MIN_SIDE
        and gap > _MIN_DEVIATIONS_BELOW * below.std()
        and gap > _MIN_DEVIATIONS_ABOVE * above.std()
        and gap > (2 + 20 / n) * other
    )
    return (float(below[-1]), float(above[0])) if is_clear else None
