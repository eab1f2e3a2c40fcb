"""``ReferenceCells``: all cells of a few defect-free images in four turns, as in AnomalyDINO."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import pairwise_distances_argmin_min
from sklearn.preprocessing import normalize

from hypervlad.common.base import Array
from hypervlad.features.encoder.encoding import random_pixels
from hypervlad.features.hypercolumns import turned
from hypervlad.features.windows import WindowGrid
from hypervlad.features.windows.dataset import PreparedImage
from hypervlad.models.defects.cells import CellMaps, Cells
from hypervlad.models.defects.thresholds import image_score

_N_TURNS = 4
_MAX_CELLS = 100_000  # of all reference images; of 384 channels they take 150 MB
_CELLS = Array("float32", 2, -1.001, 1.001)


@dataclass(frozen=True, eq=False)
class ReferenceCells:
    """Defect-free cells (n, D) of unit length, with which those of an image are compared.

    The score of a cell is its cosine distance from the nearest of them, that of an image the mean
    over the 1 % of its cells that score highest: see :func:`hypervlad.models.presets.anomalydino`.
    """

    cells: NDArray[np.float32]

    @property
    def n_features(self) -> int:
        n_features: int = self.cells.shape[1]
        return n_features

    def scores(
        self, maps: CellMaps, image: PreparedImage
    ) -> tuple[NDArray[np.float32], WindowGrid, float]:
        """Return the scores (R, S) of an image's cells, where they lie, and the image's score."""
        cells, stride = maps.cells(image, None)
        distances = self.distances(cells)
        return distances, WindowGrid.of_cells(distances.shape, stride), image_score(distances)

    def distances(self, cells: Cells) -> NDArray[np.float32]:
        """Return 1 - cosine, (R, S), between each cell (R, S, D) and the most similar one."""
        _, squares = pairwise_distances_argmin_min(
            of_unit_length(cells), self.cells, metric="sqeuclidean"
        )
        return np.asarray(squares / 2, dtype=np.float32).reshape(cells.shape[:2])

    def to_state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        return {}, {"cells": self.cells}

    @classmethod
    def from_state(
        cls, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
    ) -> ReferenceCells:
        """Undo `to_state`; ValueError if there are no cells, or they are not of unit length."""
        cells = _CELLS.checked(arrays["cells"], "cells")
        lengths = np.linalg.norm(cells, axis=1)
        if not cells.size or not ((np.abs(lengths - 1) < 1e-3) | (lengths == 0)).all():
            raise ValueError(f"the {len(cells)} reference cells are not of unit length")
        return cls(cells)


class ReferenceCellsFit:
    """Chooses the defect-free images to compare with, and scores each image by others.

    ``read`` reads an image again, by its position, if its cells are chosen.
    """

    def __init__(
        self,
        maps: CellMaps,
        read: Callable[[int], PreparedImage],
        n_references: int,
        seed: int,
    ) -> None:
        self.sizes: dict[int, tuple[int, int]] = {}
        self.keys: dict[int, str] = {}
        self._maps, self._read = maps, read
        self._n_references, self._seed = n_references, seed
        self._turned: dict[int, Cells] = {}

    def add(self, position: int, image: PreparedImage) -> None:
        self.keys[position], self.sizes[position] = image.key, image.size
        self._maps.cells(image, None)

    def parts(self, positions: Iterable[int]) -> ReferenceCells:
        """Choose among some images, by the seed and the images alone."""
        distinct = {self.keys[at]: at for at in sorted(positions, reverse=True)}
        order = np.random.default_rng(self._seed).permutation(sorted(distinct))
        chosen = [distinct[key] for key in order[: self._n_references]]
        return ReferenceCells(np.concatenate([self._turned_cells(at) for at in chosen]))

    def finish(
        self, model: ReferenceCells, of_image: Mapping[int, ReferenceCells]
    ) -> tuple[ReferenceCells, dict[int, tuple[NDArray[np.float32], float]]]:
        """Return the model, and the scores of each image and its cells by models without it."""
        scored = {}
        for at, own in of_image.items():
            cells = self._maps.kept_cells(self.keys[at], self.sizes[at], None)
            distances = own.distances(cells)
            scored[at] = distances, image_score(distances)
        return model, scored

    def _turned_cells(self, position: int) -> Cells:
        """Return the cells (n, D) of the turned copies of an image."""
        if position not in self._turned:
            image = self._read(position)
            copies = [
                replace(image, key=f"{image.key}-turn{turn}", tensor=turned(image.tensor, turn))
                for turn in range(1, _N_TURNS)
            ]
            cells = [self._maps.kept_cells(image.key, image.size, None)]
            cells += [self._maps.cells(copy, None, keep=False)[0] for copy in copies]
            n_each = -(-_MAX_CELLS // (_N_TURNS * self._n_references))
            samples = []
            for rows in map(of_unit_length, cells):
                chosen = random_pixels(self._seed, image.key, len(rows), n_each)
                samples.append(rows[np.sort(chosen)])
            self._turned[position] = np.concatenate(samples)
        return self._turned[position]


def of_unit_length(cells: Cells) -> Cells:
    """Return cells (R, S, D) as rows (R S, D) of unit length, or zero."""
    flat: Cells = normalize(cells.reshape(-1, cells.shape[-1]))
    return flat
