"""Labels from masks or of patches, and what distinguishes defective windows."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp
from sklearn.base import clone

from hypervlad.classify.boosting.classifier import BoostedSoftmaxClassifier
from hypervlad.classify.fitting import checked_labels, of_length
from hypervlad.defects.thresholds import WindowScores, held_out_scores
from hypervlad.features.encoder import HypercolumnVLAD
from hypervlad.features.patches import ANOMALOUS, NORMAL, WindowGrid, patch_means
from hypervlad.features.windows import (
    UNKNOWN,
    ImageWindows,
    PaddedMaps,
    PreparedImage,
    Tiling,
    TrainingWindows,
    WindowReader,
    WindowVectors,
)
from hypervlad.images import ImageReadError, read_mask
from hypervlad.statistics.splits import check_column

# Share of a cell's pixels from which on it is anomalous; the highest share if all are smaller.
_MIN_FRACTION = 0.3
_STEPS_PER_PATCH = 4  # overlap of windows


@dataclass(frozen=True, eq=False)
class LabelledWindows:
    """A fitted boosted softmax on window vectors; one of its classes is "normal"."""

    learner: BoostedSoftmaxClassifier

    @property
    def n_features(self) -> int:
        return self.learner.n_features_in_

    def scores(self, windows: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the log-odds (n,) that a window is not normal, from vectors (n, n_features)."""
        learner, coef = self.learner, self._coef
        if coef is None:
            margins = learner.decision_function(windows)
            return self._of_margins(margins[:, None] if margins.ndim == 1 else margins)
        # Without checks and a copy in double precision.
        return self._of_margins(windows @ coef + learner.linear_intercept_)

    def scores_in(
        self, vectors: WindowVectors, maps: PaddedMaps, grid: WindowGrid
    ) -> NDArray[np.float64]:
        """Return the log-odds (R S,) of the windows of an image."""
        if (coef := self._coef) is None:
            return np.concatenate([self.scores(block) for block in vectors.vectors(maps, grid)])
        products = np.concatenate(list(vectors.products(maps, grid, coef)))
        return self._of_margins(products + self.learner.linear_intercept_)

    @property
    def _coef(self) -> NDArray[np.float32] | None:
        """Weights (n_features, n_margins) in single precision; None if there are trees."""
        coef = self.learner.linear_coef_
        return None if coef is None or self.learner.booster_ else coef.astype(np.float32)

    def _of_margins(self, margins: NDArray[np.floating]) -> NDArray[np.float64]:
        is_normal = self.learner.classes_ == NORMAL
        if margins.shape[1] == 1:  # of the second class against the first
            return np.asarray(-margins[:, 0] if is_normal[1] else margins[:, 0], dtype=np.float64)
        others = logsumexp(margins[:, ~is_normal], axis=1)
        return np.asarray(others - margins[:, is_normal][:, 0], dtype=np.float64)

    def to_state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        return self.learner.to_state()

    @classmethod
    def from_state(
        cls, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
    ) -> LabelledWindows:
        """Undo `to_state`; ValueError if the learner has no class "normal"."""
        learner = BoostedSoftmaxClassifier.from_state(header, arrays)
        if NORMAL not in learner.classes_.tolist():
            raise ValueError(f"the learner has no class {NORMAL!r}")
        return cls(learner)


@dataclass(frozen=True, eq=False)
class DefectLabels:
    """Labels of the windows of training images: from masks, one for each patch, or none."""

    masks: list[Any] | None
    labels: NDArray[Any] | None  # of whole patches
    banner_rows: int | None  # as in `read_mask`
    # Of each mask that has defects, of those read so far.
    defective_shares: dict[int, float] = field(default_factory=dict)

    @classmethod
    def check(
        cls, n_images: int, y: Any, masks: Sequence[Any] | None, banner_rows: int | None
    ) -> DefectLabels:
        if y is not None and masks is not None:
            raise ValueError(
                "give y, a label for each patch, or masks, one for each image, but not both"
            )
        return cls(
            None if masks is None else _checked_masks(masks, n_images),
            None if y is None else _checked_patch_labels(y, n_images),
            banner_rows,
        )

    @property
    def is_known(self) -> bool:
        return self.labels is not None or self.masks is not None

    def of_windows(self, position: int, image: PreparedImage, grid: WindowGrid) -> NDArray[np.str_]:
        """Return the labels (n,) of the windows of the image at a position, row by row."""
        if self.labels is not None:
            if grid.size > 1:
                raise ImageReadError(
                    f"{image.name}: {image.shape[0]} x {image.shape[1]} pixels, where y labels "
                    f"patches of {grid.side} x {grid.side}; cut the image into patches "
                    "(hypervlad.features.cut_patches), or give masks instead of y"
                )
            return np.array([self.labels[position]])
        if self.masks is None or self.masks[position] is None:
            return np.full(grid.size, NORMAL)
        try:
            mask = read_mask(self.masks[position], shape=image.shape, banner_rows=self.banner_rows)
        except ImageReadError as error:
            raise ImageReadError(f"the mask of {image.name}: {error}") from error
        if mask.any():
            self.defective_shares[position] = float(mask.mean())
        if image.shape != image.size:  # images resampled to a common pixel size
            down, across = (
                np.arange(n) * old // n for n, old in zip(image.size, image.shape, strict=True)
            )
            mask = mask[down][:, across]
        shares = patch_means(mask, grid.positions, grid.side)
        labels = np.full(grid.size, UNKNOWN, dtype=f"<U{len(ANOMALOUS)}")
        labels[shares >= min(_MIN_FRACTION, shares.max())] = ANOMALOUS
        labels[shares == 0] = NORMAL
        return labels


def window_stride(patch: int) -> int:
    return max(1, patch // _STEPS_PER_PATCH)


def fit_labelled_windows(
    encoder: HypercolumnVLAD,
    learner: BoostedSoftmaxClassifier,
    images: list[Any],
    labels: DefectLabels,
    groups: NDArray[Any],
    *,
    patch: int,
    tiling: Tiling,
    seed: int,
) -> tuple[LabelledWindows, dict[int, WindowScores], Collection[str]]:
    """Return a model of labelled patches, held-out scores by position, and all digests."""
    vectors = WindowVectors(encoder, tiling)
    reader = WindowReader(encoder.loader(), patch)

    def read() -> Iterator[ImageWindows]:
        for position, image in reader.stream(images, "windows"):
            grid = WindowGrid.cover(image.size, patch, window_stride(patch))
            known = labels.of_windows(position, image, grid)
            maps = vectors.network.padded_maps(image.tensor, image.name, image.key)
            yield ImageWindows(position, image.key, vectors.vectors(maps, grid), known)

    def held_out(
        model: LabelledWindows, positions: list[int]
    ) -> Iterator[tuple[int, WindowScores]]:
        rows = np.flatnonzero(np.isin(windows.image_index, positions))
        scores, at = model.scores(windows.X[rows]), windows.image_index[rows]
        for own in positions:
            yield own, WindowScores.of(scores[at == own], windows.labels[rows[at == own]])

    def learn(windows: TrainingWindows) -> LabelledWindows:
        fitted = clone(learner).fit(
            windows.X,
            windows.labels,
            sample_weight=windows.weights,
            groups=windows.groups_of(groups),
            blocks=list(encoder.feature_blocks.values()),
        )
        return LabelledWindows(fitted)

    windows = TrainingWindows.sample(read(), len(images), seed)
    model = learn(windows)
    scored = dict(held_out_scores(model, windows, held_out, learn, groups, seed))
    return model, scored, windows.keys.values()


def _checked_masks(masks: Sequence[Any], n_images: int) -> list[Any]:
    if isinstance(masks, str | bytes):
        raise ValueError("masks is a list, a mask or None for each image; got one path")
    masks = list(masks)
    of_length("masks", np.empty(len(masks)), n_images)
    if all(mask is None for mask in masks):
        raise ValueError(
            "no image has a mask (all are None), so no defect can be learnt: fit on defect-free "
            "images alone, without masks"
        )
    for mask in masks:
        if isinstance(mask, str | os.PathLike) and not os.path.isfile(mask):
            raise ImageReadError(f"{os.fspath(mask)}: there is no such mask")
    return masks


def _checked_patch_labels(y: Any, n_images: int) -> NDArray[Any]:
    check_column("y", y)
    if any(np.ndim(each) > 1 for each in y):
        raise ValueError("y is a label for each patch, but holds arrays: give masks as masks=")
    labels = checked_labels(y, n_images).astype(str)
    if (labels == UNKNOWN).any():
        raise ValueError(f"the label (y) of image {labels.tolist().index(UNKNOWN)} is empty")
    if NORMAL not in labels or len(np.unique(labels)) < 2:
        raise ValueError(
            f"the labels (y) are {np.unique(labels).tolist()}; expected {NORMAL!r} and at least "
            f"one other, such as {ANOMALOUS!r}. Without labels (y), all images count as defect-free"
        )
    return labels
