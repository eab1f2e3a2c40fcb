"""What distinguishes defective cells, learnt from masks, or windows, from labelled patches."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp
from sklearn.base import clone

from hypervlad.classify.boosting.classifier import BoostedSoftmaxClassifier
from hypervlad.classify.fitting import checked_labels, of_length
from hypervlad.common.stored import Array, Part, StoredPart
from hypervlad.defects.cells import (
    CellMaps,
    Cells,
    Description,
    covered_cells,
    describe,
    mean_and_deviation,
    resized,
    window_means,
    without_covered,
)
from hypervlad.defects.thresholds import WindowScores, fitted_with_scores, labelled_image_score
from hypervlad.features.encoder import HypercolumnVLAD
from hypervlad.features.patches import ANOMALOUS, NORMAL, WindowGrid, patch_means
from hypervlad.features.windows import (
    UNKNOWN,
    ImageWindows,
    PreparedImage,
    Tiling,
    TrainingWindows,
    WindowReader,
    WindowVectors,
)
from hypervlad.images import ImageReadError, read_mask
from hypervlad.images.masks import warn_if_inverted
from hypervlad.statistics.splits import check_column

# Share of a cell's pixels from which on it is anomalous; the highest share if all are smaller.
_MIN_FRACTION = 0.3
_STEPS_PER_PATCH = 4  # overlap of windows
_DEVIATION_RIDGE = 0.3  # of the mean standard deviation of features, added to that of each
_DESCRIPTIONS = (
    Description(None, 1, relative=False),  # single cells show where a defect ends
    Description(None, 3, relative=False),
    Description(None, 3, relative=True),
    Description(112, 1, relative=False),
)
_SIDES = (None, 112)


@dataclass(frozen=True, eq=False)
class LabelledWindows(StoredPart):
    """A fitted boosted softmax on window vectors; one of its classes is "normal"."""

    learner: Annotated[BoostedSoftmaxClassifier, Part(BoostedSoftmaxClassifier)]

    def __post_init__(self) -> None:
        if NORMAL not in self.learner.classes_.tolist():
            raise ValueError(f"the learner has no class {NORMAL!r}")

    @property
    def n_features(self) -> int:
        return self.learner.n_features_in_

    def scores(self, windows: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the log-odds (n,) that a window is not normal, from vectors (n, n_features)."""
        margins = self.learner.decision_function(windows)
        is_normal = self.learner.classes_ == NORMAL
        if margins.ndim == 1:  # of the second class against the first
            return -margins if is_normal[1] else margins
        others = logsumexp(margins[:, ~is_normal], axis=1)
        return np.asarray(others - margins[:, is_normal][:, 0], dtype=np.float64)


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

    def of_whole_images(self) -> NDArray[Any] | None:
        """Return the class (n,) of each image: its label, or whether it has a mask."""
        if self.masks is None:
            return self.labels
        return np.array([mask is not None for mask in self.masks])

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
        mask = image.at_input_size(mask)
        shares = patch_means(mask, grid.positions, grid.side)
        labels = np.full(grid.size, UNKNOWN, dtype=f"<U{len(ANOMALOUS)}")
        labels[shares >= min(_MIN_FRACTION, shares.max())] = ANOMALOUS
        labels[shares == 0] = NORMAL
        if image.annotations:
            labels[patch_means(image.covered, grid.positions, grid.side) > 0] = UNKNOWN
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
    reader: WindowReader,
    tiling: Tiling,
    seed: int,
) -> tuple[LabelledWindows, dict[int, WindowScores], Collection[str]]:
    """Return a model of labelled patches, held-out scores by position, and all digests."""
    vectors, patch = WindowVectors(encoder, tiling), reader.min_side

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
            groups=groups[windows.image_index],
            blocks=list(encoder.feature_blocks.values()),
        )
        return LabelledWindows(fitted)

    windows = TrainingWindows.sample(read(), len(images), seed)
    return *fitted_with_scores(windows, held_out, learn, groups, seed), windows.keys.values()


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


# --- cells ---------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class LabelledCells(StoredPart):
    """A fitted linear model of hypercolumns: descriptions of a cell at several sizes, joined."""

    learner: Annotated[BoostedSoftmaxClassifier, Part(BoostedSoftmaxClassifier)]
    # (n,), by which hypercolumns are multiplied first
    scale: Annotated[NDArray[np.float32], Array("float32", 1, 0)]

    def __post_init__(self) -> None:
        learner, scale = self.learner, self.scale
        if learner.classes_.tolist() != [ANOMALOUS, NORMAL]:
            raise ValueError(
                f"the classes of cells are {learner.classes_.tolist()}; expected "
                f"{[ANOMALOUS, NORMAL]}"
            )
        if learner.linear_coef_ is None or learner.trees_ is not None:
            raise ValueError("the learner of cells is not linear")
        if scale.shape != (learner.n_features_in_,) or len(scale) % len(_DESCRIPTIONS):
            raise ValueError(
                f"the scale of {learner.n_features_in_} features has shape {scale.shape}; "
                f"expected a multiple of {len(_DESCRIPTIONS)}"
            )

    @property
    def n_features(self) -> int:
        """Channels of all layers together."""
        return len(self.scale) // len(_DESCRIPTIONS)

    def scores(
        self, maps: CellMaps, image: PreparedImage
    ) -> tuple[NDArray[np.float32], WindowGrid, float]:
        """Return the scores (R, S) of an image's cells, their grid, and the image's score."""
        found = {side: maps.cells(image, side) for side in _SIDES}
        places = self.places({side: cells for side, (cells, _) in found.items()})
        places = without_covered(places, covered_cells(image.covered, places.shape, 1))
        grid = WindowGrid.of_cells(places.shape, found[None][1])
        return places, grid, labelled_image_score(places)

    def places(self, of_side: Mapping[int | None, Cells]) -> NDArray[np.float32]:
        """Return the log-odds (R, S) that a cell is defective, from those of each size.

        They are linear, so each size is scored on its own grid, and its scores are enlarged.
        """
        shape = of_side[None].shape[:2]
        coef = self.learner.linear_coef_
        assert coef is not None
        # Margins are those of "normal", the second class.
        total = np.full(shape, -self.learner.linear_intercept_[0], np.float32)
        parts = (-coef[:, 0] * self.scale).astype(np.float32).reshape(len(_DESCRIPTIONS), -1)
        for (side, window, relative), own in zip(_DESCRIPTIONS, parts, strict=True):
            cells, usual, weights = of_side[side], 0.0, own
            if relative:  # weights are divided faster than all cells
                mean, deviation = mean_and_deviation(cells)
                weights = own / deviation
                usual = float(mean @ weights)
            products = window_means((cells @ weights)[..., None], window)[..., 0]
            total += resized(products - np.float32(usual), shape)
        return total


def hypercolumns(of_side: Mapping[int | None, Cells]) -> NDArray[np.float32]:
    """Return the descriptions (R S, n) of each cell of an image, of all sizes."""
    n_rows, n_columns, n_channels = of_side[None].shape
    found = np.empty((n_rows, n_columns, len(_DESCRIPTIONS) * n_channels), np.float32)
    for i, (side, window, relative) in enumerate(_DESCRIPTIONS):
        own = describe(of_side[side], window, relative).reshape(of_side[side].shape)
        found[..., i * n_channels :][..., :n_channels] = resized(own, (n_rows, n_columns))
    return found.reshape(n_rows * n_columns, -1)


def fit_labelled_cells(
    encoder: HypercolumnVLAD,
    learner: BoostedSoftmaxClassifier,
    images: list[Any],
    labels: DefectLabels,
    groups: NDArray[Any],
    *,
    reader: WindowReader,
    tiling: Tiling,
    seed: int,
) -> tuple[LabelledCells, dict[int, WindowScores], Collection[str]]:
    """Return a model of labelled cells, held-out scores by position, and all digests."""
    maps = CellMaps(encoder, tiling)
    known = dict[int, tuple[Any, ...]]()

    def read() -> Iterator[ImageWindows]:
        for position, image in reader.stream(images, "cells"):
            found = {side: maps.cells(image, side) for side in _SIDES}
            cells, stride = found[None]
            own = labels.of_windows(position, image, WindowGrid.of_cells(cells.shape[:2], stride))
            names, codes = np.unique(own, return_inverse=True)
            known[position] = image.key, image.size, names, codes.astype(np.uint8)
            columns = hypercolumns({side: cells for side, (cells, _) in found.items()})
            yield ImageWindows(position, image.key, iter([columns]), own)

    def held_out(model: LabelledCells, positions: list[int]) -> Iterator[tuple[int, WindowScores]]:
        for at in positions:
            key, size, names, codes = known[at]
            places = model.places({side: maps.kept_cells(key, size, side) for side in _SIDES})
            yield at, WindowScores.of(places.ravel(), names[codes])

    def learn(windows: TrainingWindows) -> LabelledCells:
        # The linear part only, because its scores are those of a few small grids.
        linear = clone(learner).set_params(init="linear", n_estimators=0)
        if linear.prior == "training":
            names, codes = np.unique(windows.labels, return_inverse=True)
            counts = np.bincount(codes, windows.weights)
            shares = (counts / counts.sum()).tolist()
            linear.set_params(prior=dict(zip(names.tolist(), shares, strict=True)))
        deviation = windows.X.std(axis=0)
        scale = 1 / (deviation + _DEVIATION_RIDGE * float(deviation.mean() or 1))
        own, weights = groups[windows.image_index], root_weights(windows)
        linear.fit(windows.X * scale, windows.labels, sample_weight=weights, groups=own)
        # With the parameters as given, with which a loaded scorer can be fitted again.
        return LabelledCells(linear.set_params(**learner.get_params()), scale)

    windows = TrainingWindows.sample(read(), len(images), seed)
    is_normal = windows.labels == NORMAL
    if is_normal.all():
        raise ValueError(
            "the masks mark no cell as defective: fit on defect-free images alone, without masks"
        )
    if not is_normal.any():
        raise ValueError(
            "the masks leave no cell without defects, so none shows what is normal: add images. In "
            "a mask, white (or True) is the defect"
        )
    warn_if_inverted(list(labels.defective_shares.values()))
    return *fitted_with_scores(windows, held_out, learn, groups, seed), windows.keys.values()


def root_weights(windows: TrainingWindows) -> NDArray[np.float64]:
    """Return weights (n,), whose sums over an image and class are the roots of the cells' numbers.

    By their numbers alone, large defects would hide small ones, and the surface all defects.
    """
    number = 2 * windows.image_index + (windows.labels != NORMAL)
    return np.asarray(windows.weights / np.sqrt(np.bincount(number, windows.weights))[number])
