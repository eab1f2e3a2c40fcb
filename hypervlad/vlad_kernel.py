"""Dense VLAD in one pass over an image's rows, without a map of scores: `hypervlad.vlad`, fused.

Row by row of the grid, each layer's scores are computed on its own cells and enlarged to the row,
so that only two rows of scores of each layer are kept; at each position the nearest codeword is
found and the enlarged features are added to its sum. Compiled by numba, which needs no compiler on
the user's machine and keeps what it compiled on disk.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
from numba import njit, uint64

from hypervlad.hypercolumns import axis_interpolation
from hypervlad.lazy_torch import torch

# Independent of threads and batches, so that the sums of an image are, too.
_CHUNKS = 4

# Offsets are unsigned: numba would otherwise check each for a negative index, one by one.
_U = uint64


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    try:
        found: Callable[..., Any] = njit(nogil=True, fastmath=True, cache=True)(function)
    except RuntimeError:  # there is no folder that can be written
        found = njit(nogil=True, fastmath=True)(function)
    return found


def dense_residual_sums(
    maps: Sequence[torch.Tensor], codewords: torch.Tensor, size: tuple[int, int]
) -> torch.Tensor:
    """Do the same as `hypervlad.vlad.dense_residual_sums`, on a CPU and in single precision."""
    widths = [layer.shape[-1] for layer in maps]
    n_words, n_features = codewords.shape
    n_images = len(maps[0])
    layers = [layer.contiguous().numpy().reshape(n_images, -1) for layer in maps]
    # Each layer's codewords (d_l, K), and a row with half their squared length.
    blocks = codewords.split(widths, dim=1)
    tables = [torch.cat([block.T, -0.5 * block.square().sum(1)[None]]) for block in blocks]
    table = torch.cat(tables).contiguous().numpy().ravel()
    starts = np.concatenate([[0], np.cumsum([n_words * len(each) for each in tables])[:-1]])
    shapes = np.array([[layer.shape[2], layer.shape[3]] for layer in maps])
    down = _interpolation([layer.shape[1] for layer in maps], size[0])
    across = _interpolation([layer.shape[2] for layer in maps], size[1])
    edges = [size[0] * i // _CHUNKS for i in range(_CHUNKS + 1)]
    sums = np.zeros((n_images, _CHUNKS, n_words * n_features), dtype=np.float32)
    counts = np.zeros((n_images, _CHUNKS, n_words), dtype=np.int64)

    def add(task: int) -> None:
        image, chunk = divmod(task, _CHUNKS)
        rows = edges[chunk], edges[chunk + 1]
        features = tuple(layer[image] for layer in layers)
        to = sums[image, chunk], counts[image, chunk]
        _add_rows(features, shapes, table, starts, n_features, *rows, *down, *across, *to)

    tasks = range(n_images * _CHUNKS)
    if torch.get_num_threads() == 1:
        for task in tasks:
            add(task)
    else:
        list(_threads(torch.get_num_threads()).map(add, tasks))
    total = torch.from_numpy(sums.sum(axis=1)).view(n_images, n_words, n_features)
    return total - torch.from_numpy(counts.sum(axis=1))[:, :, None] * codewords


@cache
def _threads(n: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(n, thread_name_prefix="hypervlad-vlad")


if hasattr(os, "register_at_fork"):  # a child has no threads
    os.register_at_fork(after_in_child=_threads.cache_clear)


def _interpolation(n_cells: Sequence[int], n_places: int) -> tuple[np.ndarray, ...]:
    """Return the cells and the weights of `axis_interpolation`, a row (n_places,) per layer."""
    axes = [axis_interpolation(n, n_places) for n in n_cells]
    columns = zip(*axes, strict=True)
    return tuple(np.stack([each.numpy() for each in column]) for column in columns)


@_compiled
def _add_rows(
    layers: Any,
    shapes: Any,
    table: Any,
    starts: Any,
    n_features: int,
    begin: int,
    end: int,
    row_low: Any,
    row_high: Any,
    row_weight: Any,
    low: Any,
    high: Any,
    weight: Any,
    sums: Any,
    counts: Any,
) -> None:
    """Add the rows from ``begin`` to ``end`` of an image's grid to the sums and counts.

    ``layers`` are flat maps, ``shapes`` their widths and channels.
    """
    n_layers, n, n_all = len(layers), _U(len(counts)), _U(n_features)
    most = 0
    for i in range(n_layers):
        most = max(most, shapes[i, 0])
    side = _U(most) * n
    own = np.empty(2 * n_layers * most * len(counts), np.float32)  # scores of two rows of cells
    kept = np.full((n_layers, 2), -1, np.int64)  # which rows these are
    scores = np.empty(n_layers * most * len(counts), np.float32)  # of a row of the grid, by column
    features = np.empty(most * n_features, np.float32)  # the same
    best = np.empty(len(counts) + 1, np.float32)
    marks = best.view(np.int32)
    bits = 0
    while (1 << bits) < len(counts):
        bits += 1
    mask = np.int32(-(1 << bits))
    zero = np.float32(0)
    for y in range(begin, end):
        first = _U(0)
        for i in range(n_layers):
            layer, width, d = layers[i], _U(shapes[i, 0]), _U(shapes[i, 1])
            above, below, share = row_low[i, y], row_high[i, y], row_weight[i, y]
            if share == zero:
                below = above
            for row in (above, below):
                if kept[i, row & 1] != row:
                    at = _U(2 * i + (row & 1)) * side
                    _scores_of_row(
                        layer, _U(row) * width * d, width, d, table, _U(starts[i]), n, own, at
                    )
                    kept[i, row & 1] = row
            upper, lower = _U(2 * i + (above & 1)) * side, _U(2 * i + (below & 1)) * side
            _mix(scores, _U(i) * side, own, upper, lower, share, width * n)
            upper, lower = _U(above) * width * d, _U(below) * width * d
            for x in range(width):
                _mix(features, x * n_all + first, layer, upper + x * d, lower + x * d, share, d)
            first += d
        for x in range(low.shape[1]):
            for k in range(n):
                best[k] = zero
            for i in range(n_layers):
                p, q = _U(i) * side + _U(low[i, x]) * n, _U(i) * side + _U(high[i, x]) * n
                _add(best, _U(0), scores, p, q, weight[i, x], n)
            word = _nearest(best, marks, n, mask)
            counts[word] += 1
            first = _U(0)
            for i in range(n_layers):
                d, p, q = _U(shapes[i, 1]), _U(low[i, x]) * n_all, _U(high[i, x]) * n_all
                at = word * n_all + first
                _add(sums, at, features, p + first, q + first, weight[i, x], d)
                first += d


@_compiled
def _scores_of_row(
    layer: Any, begin: Any, width: Any, d: Any, table: Any, first: Any, n: Any, scores: Any, at: Any
) -> None:
    """Write the scores (width, n) of a row of cells (width, d), four channels at a time."""
    four = _U(4)
    for x in range(width):
        to, cell = at + x * n, begin + x * d
        for k in range(n):
            scores[to + k] = table[first + d * n + k]
        c = _U(0)
        while c + four <= d:
            a, b = layer[cell + c], layer[cell + c + _U(1)]
            e, f = layer[cell + c + _U(2)], layer[cell + c + _U(3)]
            row = first + c * n
            for k in range(n):
                scores[to + k] += (
                    a * table[row + k]
                    + b * table[row + n + k]
                    + e * table[row + n + n + k]
                    + f * table[row + n + n + n + k]
                )
            c += four
        while c < d:
            a, row = layer[cell + c], first + c * n
            for k in range(n):
                scores[to + k] += a * table[row + k]
            c += _U(1)


@_compiled
def _mix(out: Any, at: Any, values: Any, p: Any, q: Any, weight: Any, n: Any) -> None:
    for k in range(n):
        out[at + k] = values[p + k] + weight * (values[q + k] - values[p + k])


@_compiled
def _add(out: Any, at: Any, values: Any, p: Any, q: Any, weight: Any, n: Any) -> None:
    if weight == np.float32(0):
        for k in range(n):
            out[at + k] += values[p + k]
    else:
        for k in range(n):
            out[at + k] += values[p + k] + weight * (values[q + k] - values[p + k])


@_compiled
def _nearest(scores: Any, marks: Any, n: Any, mask: Any) -> Any:
    """Return the codeword of the highest score, as `hypervlad.vlad` does: see ``_mark`` there."""
    for k in range(n):
        marks[k] = (marks[k] & mask) | np.int32(k)
    highest = scores[0]
    for k in range(n):
        highest = max(highest, scores[k])
    scores[n] = highest
    return min(_U(marks[n] & ~mask), n - _U(1))  # of NaN the bits are any
