"""``LabelledCells``: what distinguishes defective cells of images, learnt from masks."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from hypervlad.classify.boosting.classifier import BoostedSoftmaxClassifier
from hypervlad.common.base import Array
from hypervlad.defects.cells import (
    CellMaps,
    Cells,
    Description,
    describe,
    mean_and_deviation,
    resized,
    window_means,
)
from hypervlad.defects.labelled_windows import DefectLabels
from hypervlad.defects.thresholds import WindowScores, held_out_scores, labelled_image_score
from hypervlad.features.encoder import HypercolumnVLAD
from hypervlad.features.patches import ANOMALOUS, NORMAL, WindowGrid
from hypervlad.features.windows import (
    ImageWindows,
    PreparedImage,
    Tiling,
    TrainingWindows,
    WindowReader,
)
from hypervlad.images.masks import warn_if_inverted

_DEVIATION_RIDGE = 0.3  # of the mean standard deviation of features, added to that of each
_DESCRIPTIONS = (
    Description(None, 1, relative=False),  # single cells show where a defect ends
    Description(None, 3, relative=False),
    Description(None, 3, relative=True),
    Description(112, 1, relative=False),
)
_SIDES = (None, 112)


@dataclass(frozen=True, eq=False)
class LabelledCells:
    """A fitted linear model of hypercolumns: descriptions of a cell at several sizes, joined."""

    learner: BoostedSoftmaxClassifier
    scale: NDArray[np.float32]  # (n,), by which hypercolumns are multiplied first

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
        return (
            places,
            WindowGrid.of_cells(places.shape, found[None][1]),
            labelled_image_score(places),
        )

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

    def to_state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        header, arrays = self.learner.to_state()
        return header, arrays | {"scale": self.scale}

    @classmethod
    def from_state(
        cls, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
    ) -> LabelledCells:
        """Undo `to_state`; ValueError if the learner is no linear model of hypercolumns."""
        own = dict(arrays)
        scale = Array("float32", 1, 0).checked(own.pop("scale"), "scale")
        learner = BoostedSoftmaxClassifier.from_state(header, own)
        if learner.classes_.tolist() != [ANOMALOUS, NORMAL]:
            raise ValueError(
                f"the classes of cells are {learner.classes_.tolist()}; expected "
                f"{[ANOMALOUS, NORMAL]}"
            )
        if learner.linear_coef_ is None or learner.booster_ is not None:
            raise ValueError("the learner of cells is not linear")
        if scale.shape != (learner.n_features_in_,) or len(scale) % len(_DESCRIPTIONS):
            raise ValueError(
                f"the scale of {learner.n_features_in_} features has shape {scale.shape}; "
                f"expected a multiple of {len(_DESCRIPTIONS)}"
            )
        return cls(learner, scale)


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
    patch: int,
    tiling: Tiling,
    seed: int,
) -> tuple[LabelledCells, dict[int, WindowScores], Collection[str]]:
    """Return a model of labelled cells, held-out scores by position, and all digests."""
    maps = CellMaps(encoder, tiling)
    reader = WindowReader(encoder.loader(), patch)
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
            linear.set_params(prior=_shares(windows))
        deviation = windows.X.std(axis=0)
        scale = 1 / (deviation + _DEVIATION_RIDGE * float(deviation.mean() or 1))
        groups_of_cells = windows.groups_of(groups)
        weights = root_weights(windows)
        linear.fit(windows.X * scale, windows.labels, sample_weight=weights, groups=groups_of_cells)
        return LabelledCells(linear, scale)

    windows = TrainingWindows.sample(read(), len(images), seed)
    _check_both_classes(windows)
    warn_if_inverted(list(labels.defective_shares.values()))
    model = learn(windows)
    scored = dict(held_out_scores(model, windows, held_out, learn, groups, seed))
    return model, scored, windows.keys.values()


def _check_both_classes(windows: TrainingWindows) -> None:
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


def _shares(windows: TrainingWindows) -> dict[str, float]:
    """Return the share of each class among all cells of the images."""
    names, codes = np.unique(windows.labels, return_inverse=True)
    counts = np.bincount(codes, windows.weights)
    return dict(zip(names.tolist(), (counts / counts.sum()).tolist(), strict=True))


def root_weights(windows: TrainingWindows) -> NDArray[np.float64]:
    """Return weights (n,), whose sums over an image and class are the roots of the cells' numbers.

    By their numbers alone, large defects would hide small ones, and the surface all defects.
    """
    pairs = np.column_stack([windows.image_index, windows.labels != NORMAL])
    _, number = np.unique(pairs, axis=0, return_inverse=True)
    return np.asarray(windows.weights / np.sqrt(np.bincount(number, windows.weights))[number])
