"""Scores of defect maps against masks: by pixel, region and patch, image by image and over all.

Higher scores are more defective, and a mask is True where there is a defect.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, field
from hashlib import sha256
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import label
from sklearn.metrics import auc, roc_auc_score

from hypervlad.common.progress import ProgressBar, announced, joined_notes, noted
from hypervlad.common.wording import counted, note_of_copies, warn_user
from hypervlad.features.patches import DEFECTIVE_SHARE, patch_means, patch_positions
from hypervlad.images import ImageReadError, TrainingImagesWarning, read_mask
from hypervlad.images.errors import reasons_in_line
from hypervlad.images.masks import as_mask, mask_banner_rows, warn_if_inverted
from hypervlad.images.morphology import EIGHT
from hypervlad.images.pixels import may_have_copies
from hypervlad.pages.numbers import share_of
from hypervlad.statistics.classification import accuracy_interval

Mask: TypeAlias = NDArray[np.bool_]
_MAX_RATE = 0.3  # of false positives, up to which the overlap is integrated
_BIN_BITS = 21  # sign, eight of the exponent, twelve of the digits
N_BINS = 1 << _BIN_BITS
_MIN_SIDE = 3  # scores on either side of the gap
_MIN_DEVIATIONS_BELOW = 4.0
_MIN_DEVIATIONS_ABOVE = 1.0  # the scores of defects vary more than those of defect-free images


class PixelTally:
    """Scores of pixels, from maps that are added one by one; its memory does not grow.

    Scores are rounded to 1 part in 4,096. Add log-odds rather than probabilities, because
    probabilities close to 1 would become equal.

    Examples
    --------
    >>> from hypervlad.evaluation import PixelTally
    >>> tally = PixelTally()
    >>> tally.add([[0.1, 0.9]], [[0, 1]])
    >>> tally.add([[0.4, 0.3]], [[0, 1]])
    >>> tally.auroc()
    0.75
    """

    def __init__(self) -> None:
        self._defect_free, self._defective = (np.zeros(N_BINS, dtype=np.int64) for _ in range(2))
        self._shares = np.zeros(N_BINS)  # of the regions; those of a region add up to 1
        self._n_regions = 0.0

    def add(self, score_map: ArrayLike, mask: ArrayLike) -> None:
        """Add the scores of an image and its mask, both of shape (H, W).

        Scores are finite. The mask is True (or 1, or 255) where there is a defect. A ValueError for
        anything else.
        """
        scores, truth = np.asarray(score_map), as_mask(mask, "mask")
        if scores.dtype.kind != "f":
            scores = scores.astype(np.float64)
        if not np.isfinite(scores).all():
            raise ValueError("the score map holds NaN or infinity.")
        _check_same_shape("score map", scores, truth)
        bins, flat = score_bins(scores).ravel(), truth.ravel()
        self._defect_free += np.bincount(bins[~flat], minlength=N_BINS)
        if flat.any():
            shares = _shares_of_regions(truth)[flat]
            self._defective += np.bincount(bins[flat], minlength=N_BINS)
            self._shares += np.bincount(bins[flat], shares, minlength=N_BINS)
            self._n_regions += shares.sum()

    def auroc(self) -> float:
        """The area under the ROC curve of pixels; NaN unless there are pixels of both kinds."""
        if not self._has_both():
            return float("nan")
        return float(auc(_reached(self._defect_free), _reached(self._defective)))

    def average_precision(self) -> float:
        """The average precision of pixels; NaN unless there are pixels of both kinds."""
        if not self._has_both():
            return float("nan")
        found, called = self._found_and_called()
        precision = found / np.maximum(called, 1)
        return float((self._defective[::-1] * precision).sum() / found[-1])

    def per_region_overlap(self) -> float:
        """The area under the per-region overlap (AU-PRO): 1 for perfect maps, 0.15 for random ones.

        The mean share of each region's pixels that reach a threshold is integrated over the
        false-positive rate from 0 to 0.3 and divided by 0.3 [1]_. Regions are connected components
        of masks, also across corners. NaN unless there are pixels of both kinds.

        References
        ----------
        .. [1] P. Bergmann et al., "The MVTec anomaly detection dataset", International Journal of
           Computer Vision 129, 2021, section 5.
        """
        if not self._has_both():
            return float("nan")
        overlap = np.append(0.0, np.cumsum(self._shares[::-1]) / self._n_regions)
        rate = _reached(self._defect_free)
        inside = rate <= _MAX_RATE
        rates = np.append(rate[inside], _MAX_RATE)
        overlaps = np.append(overlap[inside], np.interp(_MAX_RATE, rate, overlap))
        return float(auc(rates, overlaps) / _MAX_RATE)

    def best_f1(self) -> float:
        """The highest F1 of pixels at any threshold; NaN unless there are pixels of both kinds."""
        if not self._has_both():
            return float("nan")
        found, called = self._found_and_called()
        return float((2 * found / (called + found[-1])).max())

    def _found_and_called(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Count defective and all pixels in each bin or above, the highest bin first."""
        found = np.cumsum(self._defective[::-1])
        return found, found + np.cumsum(self._defect_free[::-1])

    def _has_both(self) -> bool:
        return bool(self._defect_free.any() and self._defective.any())


def _check_same_shape(name: str, values: NDArray[Any], mask: Mask) -> None:
    if values.shape != mask.shape:
        raise ValueError(
            f"{name} and mask are of the same image: expected equal shapes, got {values.shape} "
            f"and {mask.shape}."
        )


def score_bins(scores: NDArray[np.floating[Any]]) -> NDArray[np.uint32]:
    """Return the bin of each score, in the order of the scores: its first binary digits."""
    digits = np.ascontiguousarray(scores + 0.0, dtype=np.float32).view(np.uint32)  # no -0.0
    negative = digits >> 31 == 1
    ordered = np.where(negative, ~digits, digits | np.uint32(1 << 31))
    return np.asarray(ordered >> (32 - _BIN_BITS))


def _reached(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the share of the pixels in each bin or above, the highest bin first, from 0 on."""
    return np.append(0.0, np.cumsum(counts[::-1]) / counts.sum())


def _shares_of_regions(truth: Mask) -> NDArray[np.float64]:
    """Return each pixel's share of the area of its region, flat; 0 outside all regions."""
    regions, _ = label(truth, structure=EIGHT)
    shares = 1 / np.maximum(np.bincount(regions.ravel()), 1)  # there may be no pixel outside
    shares[0] = 0.0
    return np.asarray(shares[regions.ravel()])


@dataclass(frozen=True)
class PatchConfusion:
    """Numbers of patches by truth and prediction, of one image or of many; positive is defective.

    Attributes
    ----------
    true_positives, false_positives, false_negatives, true_negatives : int
    """

    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int

    @classmethod
    def total(cls, confusions: Iterable[PatchConfusion]) -> PatchConfusion:
        """Return the sum of the counts of several images."""
        counts = [(0,) * 4, *map(astuple, confusions)]
        return cls(*map(sum, zip(*counts, strict=True)))

    @property
    def precision(self) -> float:
        """Share of the patches called defective that are; NaN if none is called defective."""
        return _ratio(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall(self) -> float:
        """Share of the defective patches that are called so; NaN if there is none."""
        return _ratio(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; NaN if nothing is defective or called so."""
        wrong = self.false_positives + self.false_negatives
        return _ratio(2 * self.true_positives, 2 * self.true_positives + wrong)

    @property
    def accuracy(self) -> float:
        """Share of the patches that are classified correctly; NaN without patches."""
        right = self.true_positives + self.true_negatives
        return _ratio(right, right + self.false_positives + self.false_negatives)


def patch_confusion(predicted: ArrayLike, mask: ArrayLike, patch: int = 29) -> PatchConfusion:
    """Compare a defect map with a mask, patch by patch.

    The image is cut into squares from its upper left corner; those at the right and lower edges may
    be narrower. A square is defective if at least a tenth of its pixels are [1]_.

    Parameters
    ----------
    predicted, mask : array of shape (H, W)
        True (or 1, or 255) where there is a defect. A ValueError for anything else.
    patch : int, default=29
        Side of the squares in pixels.

    Returns
    -------
    PatchConfusion

    References
    ----------
    .. [1] F. Carrillo Pérez, "Defect detection in nanofibers by image
       classification", 2020.

    Examples
    --------
    >>> import numpy as np
    >>> from hypervlad.evaluation import patch_confusion
    >>> mask = np.zeros((58, 58), dtype=bool)
    >>> mask[:29] = True  # the upper two of four squares
    >>> confusion = patch_confusion(mask.T, mask)
    >>> confusion.true_positives, confusion.false_positives, confusion.f1
    (1, 1, 0.5)
    """
    found, truth = as_mask(predicted, "predicted"), as_mask(mask, "mask")
    _check_same_shape("predicted", found, truth)
    called, true = _defective_patches(found, patch), _defective_patches(truth, patch)
    pairs = (called, true), (called, ~true), (~called, true), (~called, ~true)
    return PatchConfusion(*(int((one & other).sum()) for one, other in pairs))


def _defective_patches(mask: Mask, patch: int) -> NDArray[np.bool_]:
    """Return for each square whether at least a tenth of it is defective."""
    corners = patch_positions((mask.shape[0], mask.shape[1]), patch, None, "pad")
    return np.asarray(patch_means(mask, corners, patch) >= DEFECTIVE_SHARE)


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


# --- images and sets of images -------------------------------------------------------------------


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
    notes : dict of str
        What was warned of images, such as blur, by their names.
    copies : list of str
        The names of images that are copies of others, and not counted.
    """

    threshold: float
    patch: int
    n_shown: int = 12
    images: list[ImageResult] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    copies: list[str] = field(default_factory=list)
    _known: set[tuple[str, bytes]] = field(default_factory=set)
    _pixels: PixelTally = field(default_factory=PixelTally)
    _worst: list[tuple[tuple[float, float, int], MapWithMask]] = field(default_factory=list)

    def add(self, position: int, name: str, found: Any, mask: NDArray[np.bool_]) -> bool:
        """Add an image by its `hypervlad.models.Finding` and its mask, unless it is a copy.

        Returns whether it was added: one with the same pixels and mask is no further evidence.
        """
        own = found.digest, sha256(np.ascontiguousarray(mask).data).digest()
        if may_have_copies(found.digest) and own in self._known:
            return False
        self._known.add(own)
        result = ImageResult(
            position,
            name,
            score=found.score,
            is_defective=bool(mask.any()),
            is_called=found.is_defective,
            true_fraction=float(mask.mean()),
            found_fraction=float(found.mask.mean()),
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
        return True

    def false_alarms(self) -> str:
        """Return in words how many images without defects are called anomalous."""
        called = [each.is_called for each in self.images if not each.is_defective]
        if not called:
            return "unknown, as all images have defects"
        return share_of(sum(called), len(called), accuracy_interval(called))

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
        Without images that cannot be read, are smaller than a patch or unlike their mask in size.

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
    UserWarning
        If images are copies of others, which are not counted again.

    Examples
    --------
    >>> from hypervlad import PatchDefectScorer, add_defect, default_patch_encoder
    >>> from hypervlad import make_fibre_images
    >>> from hypervlad.evaluation import evaluate_defects
    >>> good, _ = make_fibre_images(4, size=64, random_state=0)
    >>> encoder = default_patch_encoder(weights="random")
    >>> scorer = PatchDefectScorer(encoder, fpr=0.25, random_state=0).fit(good)
    >>> made = [add_defect(mat, "stain", random_state=0) for mat in good[:2]]
    >>> images, masks = [image for image, _ in made], [mask for _, mask in made]
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
    with announced():
        bar = ProgressBar(given, total=len(names), unit="image", shown=progress)
        for i, (image, mask, name) in enumerate(bar):
            try:
                with noted() as notes:
                    found = scorer.find(image)
                truth = np.zeros(found.map.shape, dtype=bool)
                if mask is not None:
                    truth = read_mask(mask, shape=found.map.shape, banner_rows=rows)
            except ImageReadError as error:
                result.left_out.append(str(error))
                continue
            if not result.add(i, name, found, truth):
                result.copies.append(name)
            elif notes:
                result.notes[name] = joined_notes(notes)
    if result.copies:
        warn_user(f"the figures are {note_of_copies(result.copies)}")
    warn_if_inverted([image.true_fraction for image in result.images if image.is_defective])
    if result.n_in_training:
        warn_user(TrainingImagesWarning.about(result.n_in_training, len(result.images)))
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
