"""Feature blocks of image vectors in many variants, all from the same passes of the network.

Codebooks are learnt once per data set, without labels, from the images of all folds: the variants
can be compared with each other, but not with results whose codebooks use training images only.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from benchmarks.common.folds import DataSet
from hypervlad import vlad
from hypervlad.backbones import Preprocessing, TappedNetwork
from hypervlad.codebook import HypercolumnPool, learn_codebook
from hypervlad.encoder import ImageLoader
from hypervlad.encoder.encoding import TorchCodebook, finish_pooled, random_pixels
from hypervlad.encoder.loading import Batch
from hypervlad.hypercolumns import feature_maps, hypercolumns_at, turned

N_SAMPLES = 30_000
INTRA = ("intra", "l2")
Sums = list[torch.Tensor]


@dataclass(frozen=True)
class Block:
    """A feature block: the settings of a codebook, its grid, and the statistic of its maps.

    Positions whose distance from the border of the network's input is below `margin`, in its
    pixels, count neither for the codebook nor for the statistic.
    """

    kind: str = "joint"
    n_codewords: int = 64
    components: int = 32
    grid: str = "finest"
    normalize: tuple[str, ...] = INTRA
    statistic: str = "vlad"
    first_tap: int = 0
    max_turns: int = 2
    margin: int = 0


MARGINS = (16, 32)  # one cell of the last tap but one, and of the last
BLOCKS = {
    "joint": Block(max_turns=8),
    "per layer": Block("per_layer", grid="own", max_turns=8),
    "pooled": Block(statistic="mean", max_turns=8),
    "pooled, not of unit length": Block(statistic="mean", normalize=(), max_turns=8),
    "pooled mean and deviation": Block(statistic="mean and deviation"),
    "pooled last layer": Block(statistic="mean", first_tap=-1),
    "covariance": Block("per_layer", statistic="covariance"),
    "per layer, soft": Block("per_layer", 32, grid="own", statistic="soft"),
    "per layer, finest grid": Block("per_layer"),
    "joint, every pixel": Block(grid="image"),
    **{f"joint, K {k}": Block(n_codewords=k) for k in (16, 32, 128, 256)},
    **{f"per layer, K {k}": Block("per_layer", k, grid="own") for k in (16, 32, 128, 256)},
    **{f"joint, {c} components": Block(components=c) for c in (16, 64)},
    "joint, power": Block(normalize=("power", "l2")),
    "joint, plain": Block(normalize=("l2",)),
    **{f"joint, last {n} taps": Block(first_tap=-n) for n in (2, 3, 4)},
    **{f"pooled, last {n} taps": Block(statistic="mean", first_tap=-n) for n in (2, 3, 4)},
    **{f"joint, margin {m}": Block(margin=m) for m in MARGINS},
    **{f"per layer, margin {m}": Block("per_layer", grid="own", margin=m) for m in MARGINS},
    **{f"pooled, margin {m}": Block(statistic="mean", margin=m) for m in MARGINS},
}
DEFAULT_BLOCKS = ("joint", "per layer", "pooled")


@dataclass(frozen=True)
class Input:
    """How images enter the network: their size, and what convolutions see beyond their border."""

    size: int = 224
    aspect: Literal["square", "own"] = "square"
    padding: Literal["zeros", "reflect"] = "zeros"


class Extraction:
    """All blocks of a data set's images at one input of the network."""

    def __init__(
        self,
        network: TappedNetwork,
        preprocessing: Preprocessing,
        names: tuple[str, ...],
        given: Input,
        turns: int,
    ) -> None:
        self.network = network if given.padding == "zeros" else with_reflection(network)
        self.loader = ImageLoader(
            image_size=given.size,
            aspect=given.aspect,
            preprocessing=preprocessing,
            batch_size=max(1, 8 * 224**2 // given.size**2),
        )
        self.blocks = {name: BLOCKS[name] for name in names}
        self.turns = turns

    def __call__(self, data: DataSet, folder: Path) -> None:
        """Write an array (n, d) for each block and number of turns, ``block @turns.npy``.

        Batches are written at once: all blocks of a few hundred images fill gigabytes.
        """
        folder.mkdir(parents=True, exist_ok=True)
        codebooks = self._codebooks(data)
        rows: dict[str, np.ndarray] = {}
        for batch in self._batches(data):
            for name, vectors in self._vectors(batch, codebooks):
                if name not in rows:
                    shape = (len(data.paths), vectors.shape[1])
                    rows[name] = np.lib.format.open_memmap(
                        folder / f"{name}.npy", "w+", np.float32, shape
                    )
                rows[name][list(batch.positions)] = vectors

    def _batches(self, data: DataSet) -> Iterator[Batch]:
        loaded = (self.loader.load(path, str(path)) for path in data.paths)
        return self.loader.batches(enumerate(loaded))

    def _codebooks(self, data: DataSet) -> dict[Block, TorchCodebook]:
        pools = {block.margin: HypercolumnPool(N_SAMPLES) for block in self.blocks.values()}
        for batch in self._batches(data):
            maps = feature_maps(self.network, batch.tensors)
            height, width = batch.tensors.shape[2:]
            for i, key in enumerate(batch.keys):
                n_each = -(-N_SAMPLES // len(data.paths))
                for margin, pool in pools.items():
                    points = pixels_inside((height, width), margin)
                    points = points[random_pixels(0, key, len(points), n_each)]
                    blocks = hypercolumns_at([layer[i] for layer in maps], points, (height, width))
                    pool.add(key, [block.cpu().numpy() for block in blocks])
        layers_of = {margin: pool.layers() for margin, pool in pools.items()}
        known: dict[tuple[Any, ...], TorchCodebook] = {}
        books = {}
        for block in self.blocks.values():
            key = (block.kind, block.n_codewords, block.components, block.first_tap, block.margin)
            if key not in known:
                book = learn_codebook(
                    layers_of[block.margin][block.first_tap :],
                    block.n_codewords,
                    kind=block.kind,
                    layer_components=block.components,
                )
                known[key] = TorchCodebook(book, torch.device("cpu"))
            books[block] = known[key]
        return books

    def _vectors(
        self, batch: Batch, codebooks: dict[Block, TorchCodebook]
    ) -> Iterator[tuple[str, np.ndarray]]:
        totals: dict[str, Sums] = {}
        for turn in range(self.turns):
            images = turned(batch.tensors, turn)
            maps = feature_maps(self.network, images)
            for name, block in self.blocks.items():
                if turn >= block.max_turns:
                    continue
                found = _statistic(block, codebooks[block], maps[block.first_tap :], images)
                known = totals.get(name)
                totals[name] = (
                    found if known is None else [a + b for a, b in zip(known, found, strict=True)]
                )
                if turn + 1 in (1, 2, 4, 8):
                    yield f"{name} @{turn + 1}", _finished(block, totals[name], turn + 1)


def with_reflection(network: TappedNetwork) -> TappedNetwork:
    """Return a copy whose convolutions see mirrored maps beyond the border, instead of zeros."""
    module = copy.deepcopy(network.module)
    for layer in module.modules():
        if isinstance(layer, torch.nn.Conv2d) and any(layer.padding):
            layer.padding_mode = "reflect"
    return TappedNetwork(module, network.taps, network.digest)


def pixels_inside(size: tuple[int, int], margin: int) -> np.ndarray:
    """Return the flat indices of the pixels of an input at least `margin` from its border."""
    rows, columns = (np.arange(margin, extent - margin) for extent in size)
    return (rows[:, None] * size[1] + columns).ravel()


def cells_inside(n_cells: int, extent: int, margin: int) -> slice:
    """Return the cells along one axis whose centres are at least `margin` pixels from its ends.

    Examples
    --------
    >>> cells_inside(14, 224, 16), cells_inside(7, 224, 16), cells_inside(7, 224, 32)
    (slice(1, 13, None), slice(0, 7, None), slice(1, 6, None))
    """
    centres = (np.arange(n_cells) + 0.5) * extent / n_cells
    first = int((centres < margin).sum())
    return slice(first, n_cells - first)


def sums_inside(
    book: TorchCodebook, maps: Sums, grid: str, image_size: Sequence[int], margin: int
) -> Sums:
    """Return the residual sums (B, K, D) of every codebook, without positions in the margin."""
    sums = []
    for part, words in book.blocks(maps):
        size = book.size_of(part, maps, grid, image_size)
        assigned = vlad.dense_assign(part, words, size)
        rows, columns = (
            cells_inside(n, extent, margin) for n, extent in zip(size, image_size, strict=True)
        )
        # Those in the margin belong to one more codeword, whose sums are dropped.
        counted = torch.full_like(assigned, len(words))
        counted[:, rows, columns] = assigned[:, rows, columns]
        one_more = torch.cat([words, torch.zeros_like(words[:1])])
        sums.append(vlad.sums_of_assigned(part, counted, one_more)[:, :-1])
    return sums


def _statistic(block: Block, book: TorchCodebook, raw: Sums, images: torch.Tensor) -> Sums:
    """Return the statistics that are summed over turned copies."""
    image_size = images.shape[2:]
    if block.statistic == "mean":
        rows, columns = (
            [cells_inside(layer.shape[axis + 1], image_size[axis], block.margin) for layer in raw]
            for axis in (0, 1)
        )
        inside = [
            layer[:, row, column] for layer, row, column in zip(raw, rows, columns, strict=True)
        ]
        return [book.pooled(inside)]
    if block.statistic == "mean and deviation":
        return [book.pooled(raw), _deviations(book, raw)]
    maps = book.project(raw)
    if block.statistic == "vlad":
        if block.margin:
            return sums_inside(book, maps, block.grid, image_size, block.margin)
        return book.dense_sums(maps, block.grid, image_size)
    flat = [layer.flatten(1, 2) for layer in maps]
    if block.statistic == "soft":
        return [_soft_sums(f, words) for f, words in zip(flat, book.codewords, strict=True)]
    means = [f.mean(dim=1) for f in flat]
    return means + [f.transpose(1, 2) @ f / f.shape[1] for f in flat]


def _deviations(book: TorchCodebook, raw: Sums) -> torch.Tensor:
    """Each channel's standard deviation over the image, scaled like the pooled means."""
    pairs = zip(raw, book.layers, strict=True)
    scaled = torch.cat([layer.flatten(1, 2).std(dim=1) / of.std for layer, of in pairs], dim=1)
    return scaled / scaled.shape[1] ** 0.5


def _soft_sums(features: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
    """Sum the residuals to all codewords, weighted by a softmax of their distances.

    The unit of distance is the mean distance to the nearest codeword.
    """
    squares = features.square().sum(2, keepdim=True) + words.square().sum(1)
    distances = squares - 2 * features @ words.T
    unit = distances.amin(2).mean(1)[:, None, None]
    shares = torch.softmax(-2 * distances / unit, dim=2)
    return shares.transpose(1, 2) @ features - shares.sum(1)[:, :, None] * words


def _finished(block: Block, totals: Sums, turns: int) -> np.ndarray:
    if block.statistic in ("vlad", "soft"):
        return vlad.normalize(totals, block.normalize).numpy()
    if block.statistic.startswith("mean"):
        unit = "unit" if block.normalize else True
        return finish_pooled(torch.cat(totals, dim=1).div(turns), unit).numpy()
    n_layers = len(totals) // 2
    pairs = zip(totals[:n_layers], totals[n_layers:], strict=True)
    return torch.cat([_log_covariance(m / turns, s / turns) for m, s in pairs], dim=1).numpy()


def _log_covariance(mean: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Upper triangle of the matrix logarithm, (B, d (d + 1) / 2): log-Euclidean pooling."""
    covariance = second - mean[:, :, None] * mean[:, None, :]
    n = covariance.shape[1]
    ridge = 1e-4 * covariance.diagonal(dim1=1, dim2=2).mean(1)
    values, vectors = torch.linalg.eigh(covariance + ridge[:, None, None] * torch.eye(n))
    logs = values.clamp_min(1e-9).log()
    logarithm = (vectors * logs[:, None]) @ vectors.transpose(1, 2)
    rows, columns = torch.triu_indices(n, n)
    return logarithm[:, rows, columns]
