"""`ReferenceCells`: distances from the nearest cell, which images are chosen, files, errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.base import clone
from support.surfaces import PATCH, blotted, surface

from hypervlad import PatchDefectScorer, load
from hypervlad.features.windows.dataset import WindowReader
from hypervlad.features.windows.vectors import Tiling
from hypervlad.models.defects.cells import CellMaps, ReferenceCells
from hypervlad.models.presets import anomalydino


@pytest.fixture(scope="module")
def scorer() -> PatchDefectScorer:
    return anomalydino("tiny", weights="random", n_references=3, fpr=0.2, random_state=0)


@pytest.fixture(scope="module")
def images() -> list[NDArray[np.float32]]:
    return [surface(seed) for seed in range(8)]


def test_scores_are_cosine_distances_from_the_nearest_cell_of_turned_images(
    scorer: PatchDefectScorer, images: list[NDArray[np.float32]]
) -> None:
    fitted = clone(scorer).set_params(n_references=8, fpr=0.4).fit(images[:2])
    maps = CellMaps(fitted.encoder_, Tiling(518))
    reader = WindowReader(fitted.encoder_.loader(), 29)

    def cells(image: NDArray[np.float32]) -> NDArray[np.float64]:
        found = maps.cells(reader.read(image, "image"), None)[0]
        return found.astype(np.float64)

    n_channels = fitted.model_.n_features
    references = [np.rot90(image, turn) for image in images[:2] for turn in range(4)]
    bank = np.concatenate(
        [cells(np.ascontiguousarray(r)).reshape(-1, n_channels) for r in references]
    )
    bank /= np.linalg.norm(bank, axis=1, keepdims=True)
    own = cells(images[2])
    own /= np.linalg.norm(own, axis=2, keepdims=True)
    expected = (1 - own @ bank.T).min(axis=-1)
    prepared = reader.read(images[2], "image")
    found, grid, score = fitted.model_.scores(maps, prepared)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert grid.shape == expected.shape
    highest = np.sort(expected, axis=None)[-max(1, round(0.01 * expected.size)) :]
    assert score == pytest.approx(highest.mean(), abs=1e-6)
    assert fitted.score_samples([np.rot90(images[0])])[0] == pytest.approx(0, abs=1e-6)


def test_defects_are_found_whatever_the_order_of_images(
    scorer: PatchDefectScorer, images: list[NDArray[np.float32]], tmp_path: Path
) -> None:
    fitted = clone(scorer).fit(images)
    np.testing.assert_array_equal(fitted.model_.cells, clone(scorer).fit(images[::-1]).model_.cells)
    bad, mask = blotted(20, (30, 20))
    found = fitted.find(bad)
    rows, columns = np.nonzero(mask)
    y, x = np.unravel_index(found.map.argmax(), found.map.shape)
    assert abs(y - rows.mean()) < PATCH
    assert abs(x - columns.mean()) < PATCH
    assert found.score > max(fitted.score_samples([surface(50), surface(51)]))
    fitted.save(tmp_path / "m.hvlad")
    loaded = load(tmp_path / "m.hvlad")
    np.testing.assert_array_equal(loaded.score_map(bad), found.map)


def test_images_are_scored_by_cells_of_others(
    scorer: PatchDefectScorer, images: list[NDArray[np.float32]]
) -> None:
    fitted = clone(scorer).set_params(n_references=8).fit(images)
    assert len(fitted.held_out_.scores) == len(images)
    assert fitted.held_out_.scores.min() > 1e-4  # with their own cells it would be 0
    np.testing.assert_allclose(fitted.score_samples(images), 0, atol=1e-6)


def test_of_many_cells_a_sample_is_kept(
    scorer: PatchDefectScorer,
    images: list[NDArray[np.float32]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = clone(scorer).fit(images).model_
    monkeypatch.setattr("hypervlad.models.defects.cells._MAX_CELLS", 240)
    sample = clone(scorer).fit(images).model_
    assert len(sample.cells) == 240
    assert {row.tobytes() for row in sample.cells} <= {row.tobytes() for row in whole.cells}


def test_unusable_parameters(scorer: PatchDefectScorer, images: list[NDArray[np.float32]]) -> None:
    with pytest.raises(ValueError, match=r"n_references .* cannot be used with aligned=True"):
        clone(scorer).set_params(aligned=True).fit(images)
    masks: list[Any] = [None, *[np.ones(images[0].shape, dtype=bool)] * 7]
    with pytest.raises(ValueError, match=r"n_references .* cannot be used with labels"):
        clone(scorer).fit(images, masks=masks)
    with pytest.raises(ValueError, match="n_references"):
        clone(scorer).set_params(n_references=0).fit(images)


def test_cells_of_other_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="not of unit length"):
        ReferenceCells.from_state({}, {"cells": np.full((2, 3), 0.5, np.float32)})
    with pytest.raises(ValueError, match="not of unit length"):
        ReferenceCells.from_state({}, {"cells": np.zeros((0, 3), np.float32)})
