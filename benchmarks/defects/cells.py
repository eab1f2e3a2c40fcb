"""Distances of cells from defect-free ones, by the design of `hypervlad.defects` and by variants.

A `Part` is one way to look at an image. The default one is the first of those of
`hypervlad.defects.normal_images.NormalImages`; each field is a factor that can be varied. Maps of
the network and distances are kept on disk, so that parts share the first and variants the second.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch.nn import functional

from benchmarks.common.checkpoints import load_or_run
from benchmarks.common.sources import origin
from benchmarks.defects.surfaces import Surface
from hypervlad.backbones import TappedNetwork, build_network, get_backbone
from hypervlad.defects import normal_images
from hypervlad.defects.cells import Cells, Description, cells_of, describe
from hypervlad.defects.normal_images import NormalCells
from hypervlad.encoder.encoding import random_pixels
from hypervlad.hypercolumns import prepare
from hypervlad.windows import WindowGrid
from hypervlad.windows.maps import PaddedMaps, TiledNetwork
from hypervlad.windows.vectors import window_means as patch_means

BACKBONE, WEIGHTS = "mobilenet_v2", "imagenet"
TAPS = (3, 6, 13)  # of the network's features; all are kept
TILE = 2048  # pixels: larger than any image here
PATCH_STRIDE = 7  # pixels
HELD_OUT = 0.2  # share of the training images that only the usual distances are learned of
MODULES = ("backbones", "defects", "hypercolumns.py", "windows")

Size = Literal["own", "square", "small square", "half"]
SIDES = {"own": None, "square": 224, "small square": 112}  # pixels


@dataclass(frozen=True)
class Part:
    """One way to look at an image.

    Attributes
    ----------
    size : {"own", "square", "small square", "half"}
        Of the image: its own, a square of 224 or of 112 px, or half of its own.
    border : {"mirrored", "zeros"}
        What the network sees around the image.
    taps : tuple of int
    patch : int or None
        Side in pixels of windows whose mean hypercolumns are described, every 7 px, in place of
        the cells of the network's grid.
    window : int
        Cells along the side of a window whose mean is described.
    relative : bool
        Whether cells are relative to the mean and spread of their own image.
    trim : bool
        Whether the least likely training cells are left out.
    whitening : float
        Power of the whitening: 0 for none, 1 for equal variances in all directions.
    n_components : int or None
        Principal components kept; None for all.
    n_codewords : int
    search : {"codewords", "cells"}
        Whether the nearest codeword or the nearest of as many random training cells is searched.
    """

    size: Size = "own"
    border: Literal["mirrored", "zeros"] = "mirrored"
    taps: tuple[int, ...] = (6, 13)
    patch: int | None = None
    window: int = 1
    relative: bool = False
    trim: bool = True
    whitening: float = 1.0
    n_components: int | None = None
    n_codewords: int = 128
    search: Literal["codewords", "cells"] = "codewords"

    @property
    def grid(self) -> tuple[Any, ...]:
        """What the cells of an image depend on."""
        return self.size, self.border, self.taps, self.patch


@dataclass(frozen=True)
class Split:
    """Images to learn from and to test, by their numbers."""

    seed: int
    train: np.ndarray
    test: np.ndarray

    @property
    def held_out(self) -> np.ndarray:
        """The training images of which only the usual distances are learned."""
        return self.train[: max(1, round(HELD_OUT * len(self.train)))]

    @property
    def learned(self) -> np.ndarray:
        """The other training images."""
        return self.train[len(self.held_out) :]


@dataclass(frozen=True)
class Space:
    """Training cells (n, D), of which the least likely may be left out, and their whitening."""

    cells: np.ndarray
    mean: np.ndarray
    whitening: np.ndarray

    @classmethod
    def of(cls, cells: Cells, trim: bool) -> Space:
        """Whiten cells as `NormalCells.fit` does."""
        return cls(*normal_images.whitened(cells, normal_images._TRIM_ROUNDS if trim else 0))


class Learner:
    """Learns from the cells of images, found by their numbers; spaces are used again."""

    def __init__(self, cells: Callable[[int], Cells], key: Callable[[int], str]) -> None:
        self._cells = cells
        self._key = key
        self._spaces: dict[tuple[Any, ...], Space] = {}

    def distances(self, part: Part, split: Split) -> dict[str, np.ndarray]:
        """Return the distances (R, S) of held-out and test images, by number."""
        model = fit(part, self._space(part, split), split.seed)
        images = [*split.held_out.tolist(), *split.test.tolist()]
        return {str(i): model.distances(self._cells(i)) for i in images}

    def _space(self, part: Part, split: Split) -> Space:
        key = (part.window, part.relative, part.trim, split.seed)
        if key not in self._spaces:
            n_each = normal_images._MAX_CELLS // len(split.learned)
            rows = []
            for i in split.learned.tolist():
                flat = describe(self._cells(i), part.window, part.relative)
                rows.append(flat[random_pixels(split.seed, self._key(i), len(flat), n_each)])
            self._spaces = {key: Space.of(np.concatenate(rows), part.trim)}
        return self._spaces[key]


class CellBench:
    """Cells and distances of the images of a surface, kept below a folder."""

    def __init__(self, surface: Surface, folder: Path, threads: int) -> None:
        self.surface = surface
        self._folder = folder
        self._digest = surface.digest
        self._code = origin(threads, "defects/cells", modules=MODULES)

    def distances(self, parts: Sequence[Part], splits: Sequence[Split]) -> None:
        """Compute all distances, and say so; `distances_of` then finds them."""
        for grid in dict.fromkeys(part.grid for part in parts):
            own = sorted(
                (part for part in parts if part.grid == grid),
                key=lambda p: (p.window, p.relative, p.trim),
            )
            learner = Learner(functools.cache(functools.partial(self._cells, grid)), self._key)
            for split in splits:
                for part in own:
                    if not self.distances_of(part, split, learner)["reused"]:
                        print(f"{self.surface.name}: {part}, split {split.seed}", flush=True)

    def distances_of(
        self, part: Part, split: Split, learner: Learner | None = None
    ) -> dict[str, Any]:
        """Return the distances (R, S) of test images and of held-out training images, by number."""
        settings = {
            "part": asdict(part) | {"taps": list(part.taps)},
            "surface": self._digest,
            "train": split.train.tolist(),
            "test": split.test.tolist(),
            "seed": split.seed,
            "code": self._code,
        }
        path = self._folder / f"{self.surface.name}-cells-{split.seed}.json"
        own = learner or Learner(functools.partial(self._cells, part.grid), self._key)
        return load_or_run(path, settings, lambda: own.distances(part, split))

    def _key(self, i: int) -> str:
        return hashlib.sha256(self.surface.images[i].tobytes()).hexdigest()

    def _cells(self, grid: tuple[Any, ...], i: int) -> Cells:
        size, border, taps, patch = grid
        settings = {"image": self._key(i), "shape": self.surface.images[i].shape}
        settings |= {"size": size, "border": border, "code": self._code}
        kept = load_or_run(
            self._folder / "maps" / f"{self.surface.name}-{i}.json",
            settings,
            lambda: network_maps(self.surface.images[i], size, border),
        )
        layers = [torch.from_numpy(kept[str(tap)].astype(np.float32)) for tap in taps]
        maps = PaddedMaps(layers, tuple(kept["padded"]), kept["border"])
        extent = tuple(kept["extent"])
        return cells_of(maps, extent)[0] if patch is None else cells_of_patches(maps, extent, patch)


def network_maps(image: np.ndarray, size: Size, border: str) -> dict[str, Any]:
    """Return the maps of an image by tap, in half precision, and their geometry."""
    shape = image.shape[:2]
    tensor = prepare(np.asarray(image, np.float32), shape, get_backbone(BACKBONE).preprocessing)
    if size != "own":
        extent = (SIDES[size],) * 2 if size in SIDES else (shape[0] // 2, shape[1] // 2)
        tensor = functional.interpolate(tensor[None], extent, mode="bilinear", antialias=True)[0]
    options = {"border": 0} if border == "zeros" else {}
    maps = TiledNetwork(_network(), TILE, **options).padded_maps(tensor, "image")
    layers = {
        str(tap): layer.numpy().astype(np.float16)
        for tap, layer in zip(TAPS, maps.maps, strict=True)
    }
    return layers | {
        "padded": list(maps.size),
        "border": maps.border,
        "extent": list(tensor.shape[1:]),
    }


@functools.cache
def _network() -> TappedNetwork:
    return build_network(BACKBONE, WEIGHTS, [f"features.{tap}" for tap in TAPS])


def cells_of_patches(maps: PaddedMaps, extent: tuple[int, int], patch: int) -> Cells:
    """Return the mean hypercolumns (R, S, D) of windows, every 7 px."""
    grid = WindowGrid.cover(extent, patch, PATCH_STRIDE)
    corners = (grid.rows + maps.border, grid.columns + maps.border)
    return torch.cat(list(patch_means(maps.maps, maps.size, *corners, patch))).numpy()


def fit(part: Part, space: Space, seed: int) -> NormalCells:
    """Describe cells as `NormalCells.fit` does, for the default `Part`."""
    whitening = space.whitening[:, -part.n_components :] if part.n_components else space.whitening
    # A column is a direction divided by its standard deviation.
    whitening = whitening * np.linalg.norm(whitening, axis=0) ** (part.whitening - 1)
    if part.search == "cells":
        chosen = np.random.default_rng(seed).permutation(len(space.cells))[: part.n_codewords]
        codewords = (space.cells[chosen] - space.mean) @ whitening
    else:
        own = (space.cells, space.mean, whitening)
        codewords = normal_images.codewords_of(own, part.n_codewords, seed)
    found = (array.astype(np.float32) for array in (space.mean, whitening, codewords))
    return NormalCells(Description(SIDES.get(part.size), part.window, part.relative), *found)
