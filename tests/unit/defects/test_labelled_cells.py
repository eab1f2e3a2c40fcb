"""Hypercolumns of cells, and their linear model, against a slow way to the same numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from support.labelled_windows import some_images
from support.surfaces import CELL, PATCH, blotted

from hypervlad import BoostedSoftmaxClassifier, default_patch_encoder
from hypervlad.features.windows import ANOMALOUS, NORMAL
from hypervlad.features.windows.dataset import TrainingWindows
from hypervlad.features.windows.vectors import Tiling
from hypervlad.models.defects.cells import Cells, describe
from hypervlad.models.defects.labelled_cells import (
    LabelledCells,
    fit_labelled_cells,
    hypercolumns,
    root_weights,
)
from hypervlad.models.defects.labelled_windows import DefectLabels

N_CHANNELS, SHAPE = 3, (11, 9)


@pytest.fixture
def of_side() -> dict[int | None, Cells]:
    rng = np.random.default_rng(0)
    shapes = {None: SHAPE, 112: (6, 5)}
    return {side: rng.random((*s, N_CHANNELS)).astype(np.float32) for side, s in shapes.items()}


def bilinear(cells: Cells, row: int, column: int) -> Cells:
    """Interpolate linearly between the centres of cells, constant beyond."""
    found = cells.astype(np.float64)
    for index, n in ((row, SHAPE[0]), (column, SHAPE[1])):
        place = np.clip((index + 0.5) * len(found) / n - 0.5, 0, len(found) - 1)
        low = int(place)
        high = min(low + 1, len(found) - 1)
        found = found[low] * (low + 1 - place) + found[high] * (place - low)
    return found


def test_hypercolumns_join_descriptions_of_all_sizes(of_side: dict[int | None, Cells]) -> None:
    found = hypercolumns(of_side).reshape(*SHAPE, 4, N_CHANNELS)
    own = of_side[None]
    padded = np.pad(own, [(1, 1), (1, 1), (0, 0)], mode="edge")
    small = describe(of_side[112], 1, relative=False).reshape(of_side[112].shape)
    for row, column in np.ndindex(SHAPE):
        np.testing.assert_array_equal(found[row, column, 0], own[row, column])
        around = padded[row : row + 3, column : column + 3].mean(axis=(0, 1))
        np.testing.assert_allclose(found[row, column, 1], around, atol=1e-6)
        np.testing.assert_allclose(found[row, column, 3], bilinear(small, row, column), atol=1e-6)


@pytest.fixture
def model(of_side: dict[int | None, Cells]) -> LabelledCells:
    return fitted(hypercolumns(of_side))


def fitted(columns: NDArray[np.float32], n_estimators: int = 0) -> LabelledCells:
    rng = np.random.default_rng(1)
    scale = rng.uniform(0.5, 2, columns.shape[1]).astype(np.float32)
    labels = np.where(rng.random(len(columns)) < 0.3, ANOMALOUS, NORMAL)
    learner = BoostedSoftmaxClassifier(
        Cs=1.0, n_estimators=n_estimators, n_iter_no_change=None, random_state=0
    )
    return LabelledCells(learner.fit(columns * scale, labels), scale)


def test_cells_score_as_their_hypercolumns_do(
    model: LabelledCells, of_side: dict[int | None, Cells]
) -> None:
    columns = hypercolumns(of_side) * model.scale
    expected = -model.learner.decision_function(columns).reshape(SHAPE)  # of "normal"
    np.testing.assert_allclose(model.places(of_side), expected, atol=1e-5)
    assert model.n_features == N_CHANNELS


def test_a_state_that_does_not_fit_is_an_error(
    model: LabelledCells, of_side: dict[int | None, Cells]
) -> None:
    header, arrays = model.to_state()
    np.testing.assert_array_equal(LabelledCells.from_state(header, arrays).scale, model.scale)
    with pytest.raises(ValueError, match=r"the scale of 12 features has shape \(8,\)"):
        LabelledCells.from_state(header, arrays | {"scale": model.scale[:8]})
    with pytest.raises(ValueError, match="the learner of cells is not linear"):
        LabelledCells.from_state(*fitted(hypercolumns(of_side), n_estimators=2).to_state())


def test_large_defects_do_not_hide_small_ones_nor_the_surface_all_defects(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hypervlad.features.windows.dataset._MIN_PER_IMAGE", 4)
    monkeypatch.setattr("hypervlad.features.windows.dataset._MAX_WINDOWS", 4)
    windows = TrainingWindows.sample(iter(some_images(6)), 6, seed=0)
    weights = root_weights(windows)
    for image in some_images(6):
        for label in (ANOMALOUS, NORMAL):
            own = (windows.image_index == image.position) & (windows.labels == label)
            expected = np.sqrt((image.labels == label).sum())
            assert weights[own].sum() == pytest.approx(expected)


def test_all_cells_are_scored_if_only_some_are_learnt_from(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("hypervlad.features.windows.dataset._MIN_PER_IMAGE", 10)
    monkeypatch.setattr("hypervlad.features.windows.dataset._MAX_WINDOWS", 10)
    images, masks = zip(*(blotted(i, (20, 30)) for i in range(6)), strict=True)
    encoder = default_patch_encoder(backbone="tiny", weights="random", taps=["1", "4"])
    _, held_out, _ = fit_labelled_cells(
        encoder.set_params(n_codewords=4).fit(list(images)),
        BoostedSoftmaxClassifier(Cs=1.0, prior="uniform"),
        list(images),
        DefectLabels.check(6, None, masks, 0),
        np.arange(6),
        patch=PATCH,
        tiling=Tiling(64, tmp_path),
        seed=0,
    )
    assert len(held_out) == 6
    for at, own in held_out.items():
        is_defective = labelled(masks[at])
        assert len(own.scores) == np.isfinite(is_defective).sum()
        assert own.is_defective.sum() == np.nansum(is_defective)
        assert own.scores[own.is_defective].mean() > own.normal.max()


def labelled(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return which cells are defective, 1 or 0, or neither, NaN."""
    share = mask.reshape(mask.shape[0] // CELL, CELL, -1, CELL).mean(axis=(1, 3))
    return np.where(share >= 0.3, 1, np.where(share == 0, 0, np.nan))
