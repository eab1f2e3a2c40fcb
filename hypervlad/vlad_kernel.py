"""Dense VLAD in one pass over an image, without a map of scores: `hypervlad.vlad`, fused.

The grid is cut into strips of columns. Of each layer, the scores and features of two rows of cells
at a time are enlarged across the strip; each row of the grid lies between two such rows. At each
position the nearest codeword is found, and the features are added to its sum. Compiled by numba,
which needs no compiler on the user's machine and keeps what it compiled on disk.
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

# Columns of the grid at a time: few enough for what is kept of them to stay in the processor's
# cache. Independent of threads and batches, so that the sums of an image are, too.
_STRIP = 64
_STEP = 4  # cells and channels at a time
_VECTOR = 16  # numbers that a processor adds at once, at most

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
    n_padded = -(-n_features // _VECTOR) * _VECTOR
    n_images = len(maps[0])
    layers = [layer.contiguous().numpy().reshape(n_images, -1) for layer in maps]
    tables = [_score_table(block) for block in codewords.split(widths, dim=1)]
    starts = np.cumsum([0, *map(len, tables[:-1])])
    shapes = np.array([[layer.shape[2], layer.shape[3]] for layer in maps])
    down = _interpolation([layer.shape[1] for layer in maps], size[0])
    across = _interpolation([layer.shape[2] for layer in maps], size[1])
    n_strips = -(-size[1] // _STRIP)
    edges = [size[1] * i // n_strips for i in range(n_strips + 1)]
    sums = np.zeros((n_images, n_strips, n_words * n_padded), dtype=np.float32)
    counts = np.zeros((n_images, n_strips, n_words), dtype=np.int64)
    table = np.concatenate(tables)

    def add(task: int) -> None:
        image, strip = divmod(task, n_strips)
        features = tuple(layer[image] for layer in layers)
        columns = edges[strip], edges[strip + 1]
        to = sums[image, strip], counts[image, strip]
        _add_strip(features, shapes, table, starts, n_padded, *columns, *down, *across, *to)

    tasks = range(n_images * n_strips)
    if torch.get_num_threads() == 1:
        for task in tasks:
            add(task)
    else:
        list(_threads(torch.get_num_threads()).map(add, tasks))
    total = torch.from_numpy(sums.sum(axis=1)).view(n_images, n_words, n_padded)
    n_of_word = torch.from_numpy(counts.sum(axis=1))[:, :, None]
    return total[:, :, :n_features] - n_of_word * codewords


@cache
def _threads(n: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(n, thread_name_prefix="hypervlad-vlad")


if hasattr(os, "register_at_fork"):  # a child has no threads
    os.register_at_fork(after_in_child=_threads.cache_clear)


def _score_table(codewords: torch.Tensor) -> np.ndarray:
    """Return half the squared lengths of K codewords, negative, and the codewords (d, K).

    Flat; zeros are added to d.
    """
    lengths = -0.5 * codewords.square().sum(1)[None]
    more = codewords.new_zeros(-codewords.shape[1] % _STEP, len(codewords))
    return torch.cat([lengths, codewords.T, more]).contiguous().numpy().ravel()


def _interpolation(n_cells: Sequence[int], n_places: int) -> tuple[np.ndarray, ...]:
    """Return the cells and the weights of `axis_interpolation`, a row (n_places,) per layer."""
    axes = [axis_interpolation(n, n_places) for n in n_cells]
    columns = zip(*axes, strict=True)
    return tuple(np.stack([each.numpy() for each in column]) for column in columns)


@_compiled
def _add_strip(
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
    """Add the columns from ``begin`` to ``end`` of an image's grid to the sums and counts.

    ``layers`` are flat maps, ``shapes`` their widths and channels.
    """
    n_layers, n, n_all, n_columns = len(layers), _U(len(counts)), _U(n_features), _U(end - begin)
    zero, one = np.float32(0), np.float32(1)
    most = n_columns
    for i in range(n_layers):
        most = max(most, _U(high[i, end - 1] - low[i, begin] + 1))
    spare = (most + _U(_STEP)) * n  # of which _scores_of_row may write
    own = np.empty(spare, np.float32)  # scores of a row of cells
    # Of two rows of cells of each layer, enlarged. They must be finite, as a weight may be zero.
    scores = np.zeros(_U(2 * n_layers) * spare, np.float32)
    features = np.zeros(_U(2) * n_columns * n_all, np.float32)
    kept = np.full((n_layers, 2), -1, np.int64)  # which rows these are
    shares = np.zeros(_U(2) * n_all, np.float32)  # of their features in a row of the grid
    total = np.empty(n_columns * n, np.float32)  # scores of a row of the grid
    marks, names = total.view(np.int32), np.empty(len(total), np.int32)
    for j in range(len(names)):
        names[j] = j % len(counts)
    highest = np.empty(1, np.float32)
    mark = highest.view(np.int32)
    bits = 0
    while (1 << bits) < len(counts):
        bits += 1
    mask = np.int32(-(1 << bits))
    for y in range(row_low.shape[1]):
        first = _U(0)
        for i in range(n_layers):
            layer, width, d = layers[i], _U(shapes[i, 0]), _U(shapes[i, 1])
            above, below, share = row_low[i, y], row_high[i, y], row_weight[i, y]
            if share == zero or above == below:
                below, share = above, zero
            left, right = _U(low[i, begin]), _U(high[i, end - 1])
            for row in (above, below):
                slot = _U(row & 1)
                if kept[i, slot] == row:
                    continue
                kept[i, slot] = row
                start, to = _U(row) * width * d, (_U(2 * i) + slot) * spare
                n_cells, from_cell = right + _U(1) - left, start + left * d
                words = table[starts[i] :]
                if width == _U(low.shape[1]):  # as many cells as the grid has columns
                    _scores_of_row(layer, from_cell, n_cells, d, words, n, scores, to)
                else:
                    _scores_of_row(layer, from_cell, n_cells, d, words, n, own, _U(0))
                    for x in range(n_columns):
                        p, q = _U(low[i, begin + x]) - left, _U(high[i, begin + x]) - left
                        _mix(scores, to + x * n, own, p * n, q * n, weight[i, begin + x], n)
                to = slot * n_columns * n_all + first
                for x in range(n_columns):
                    p, q = start + _U(low[i, begin + x]) * d, start + _U(high[i, begin + x]) * d
                    _mix(features, to + x * n_all, layer, p, q, weight[i, begin + x], d)
            p, q = _U(above & 1), _U(below & 1)
            shares[(_U(1) - p) * n_all + first : (_U(1) - p) * n_all + first + d] = zero
            shares[q * n_all + first : q * n_all + first + d] = share
            shares[p * n_all + first : p * n_all + first + d] = one - share
            p, q = (_U(2 * i) + p) * spare, (_U(2 * i) + q) * spare
            if i == 0:
                _mix(total, _U(0), scores, p, q, share, n_columns * n)
            else:
                _add(total, scores, p, q, share, n_columns * n)
            first += d
        # The nearest codeword has the highest score: see ``_mark`` of `hypervlad.vlad`.
        for j in range(_U(len(marks))):
            marks[j] = (marks[j] & mask) | names[j]
        for x in range(n_columns):
            best = total[x * n]
            for k in range(n):
                best = max(best, total[x * n + k])
            highest[0] = best
            word = min(_U(mark[0] & ~mask), n - _U(1))  # of NaN the bits are any
            counts[word] += 1
            to, p = word * n_all, x * n_all
            q = p + n_columns * n_all
            for c in range(n_all):
                sums[to + c] += shares[c] * features[p + c] + shares[n_all + c] * features[q + c]


@_compiled
def _scores_of_row(
    layer: Any, begin: Any, n_cells: Any, d: Any, table: Any, n: Any, scores: Any, at: Any
) -> None:
    """Write the scores (n_cells, n) of cells (n_cells, d), and up to three rows of anything."""
    one, last = _U(1), d - _U(1)
    for x in range(_U(0), n_cells, _U(_STEP)):
        # Beyond the last cell and channel these are repeated; the latter's table is zero.
        p = begin + x * d
        q = begin + min(x + one, n_cells - one) * d
        r = begin + min(x + one + one, n_cells - one) * d
        s = begin + min(x + one + one + one, n_cells - one) * d
        e = at + x * n
        f, g, h = e + n, e + n + n, e + n + n + n
        for k in range(n):
            scores[e + k] = scores[f + k] = scores[g + k] = scores[h + k] = table[k]
        for a in range(_U(0), d, _U(_STEP)):
            b, c = min(a + one, last), min(a + one + one, last)
            o = min(a + one + one + one, last)
            pa, pb, pc, po = layer[p + a], layer[p + b], layer[p + c], layer[p + o]
            qa, qb, qc, qo = layer[q + a], layer[q + b], layer[q + c], layer[q + o]
            ra, rb, rc, ro = layer[r + a], layer[r + b], layer[r + c], layer[r + o]
            sa, sb, sc, so = layer[s + a], layer[s + b], layer[s + c], layer[s + o]
            w = (a + one) * n
            u, v, z = w + n, w + n + n, w + n + n + n
            for k in range(n):
                ta, tb, tc, to = table[w + k], table[u + k], table[v + k], table[z + k]
                scores[e + k] += pa * ta + pb * tb + pc * tc + po * to
                scores[f + k] += qa * ta + qb * tb + qc * tc + qo * to
                scores[g + k] += ra * ta + rb * tb + rc * tc + ro * to
                scores[h + k] += sa * ta + sb * tb + sc * tc + so * to


@_compiled
def _mix(out: Any, at: Any, values: Any, p: Any, q: Any, weight: Any, n: Any) -> None:
    for k in range(n):
        out[at + k] = values[p + k] + weight * (values[q + k] - values[p + k])


@_compiled
def _add(out: Any, values: Any, p: Any, q: Any, weight: Any, n: Any) -> None:
    for k in range(n):
        out[k] += values[p + k] + weight * (values[q + k] - values[p + k])
