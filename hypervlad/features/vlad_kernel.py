"""Dense VLAD in one pass over an image, without a map of scores: `vlad.py` in numba.

The grid is cut into strips of columns. Of each layer, the scores and features of two rows of cells
at a time are enlarged across the strip; each row of the grid lies between two such rows. At each
position the nearest codeword is found, and the features are added to its sum.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numba
import numpy as np
from numba import njit, uint64
from numba.misc.appdirs import user_cache_dir

from hypervlad.features.hypercolumns import axis_interpolation
from hypervlad.features.lazy_torch import torch

# Columns of the grid at a time: few enough for what is kept of them to stay in the processor's
# cache. Independent of threads and batches, so that the sums of an image are, too.
_STRIP = 64
_STEP = 4  # cells, and channels, whose scores are computed at a time
_VECTOR = 16  # numbers that a processor adds at once, at most

# Offsets are unsigned: numba would otherwise check each for a negative index, one by one.
_U = uint64


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    # Not beside this file, as numba would: such files outlive the package, and Python then takes
    # their folder for it.
    settings: Any = numba.config
    before = settings.CACHE_DIR
    settings.CACHE_DIR = before or user_cache_dir("numba", appauthor=False)
    try:
        found: Callable[..., Any] = njit(nogil=True, fastmath=True, cache=True)(function)
    except RuntimeError:  # there is no folder that can be written
        found = njit(nogil=True, fastmath=True)(function)
    finally:
        settings.CACHE_DIR = before
    return found


def dense_residual_sums(
    maps: Sequence[torch.Tensor],
    codewords: torch.Tensor,
    size: tuple[int, int],
    inside: torch.Tensor | None = None,
) -> torch.Tensor:
    """Do the same as `vlad.dense_residual_sums`, on a CPU and in single precision."""
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
    masks = np.empty((n_images, 0, 0), bool) if inside is None else inside.numpy()

    def add(task: int) -> None:
        image, strip = divmod(task, n_strips)
        features = tuple(layer[image] for layer in layers)
        columns = edges[strip], edges[strip + 1]
        to = masks[image], sums[image, strip], counts[image, strip]
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
    """Return minus half the squared lengths of K codewords, then the codewords (d, K), flat.

    Zeros make d a multiple of ``_STEP``.
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
    inside: Any,
    sums: Any,
    counts: Any,
) -> None:
    """Add the columns from ``begin`` to ``end`` of an image's grid to the sums and counts.

    ``layers`` are flat maps, ``shapes`` their widths and channels; if ``inside`` is empty, all
    positions count.
    """
    n_layers, n, n_all, n_columns = len(layers), _U(len(counts)), _U(n_features), _U(end - begin)
    zero, one = np.float32(0), np.float32(1)
    most = n_columns
    for i in range(n_layers):
        most = max(most, _U(high[i, end - 1] - low[i, begin] + 1))
    side = (most + _U(_STEP)) * n  # with room for the rows of padding of _scores_of_row
    own = np.empty(side, np.float32)  # scores of a row of cells
    # Of two rows of cells of each layer, enlarged. They must be finite, as a weight may be zero.
    scores = np.zeros(_U(2 * n_layers) * side, np.float32)
    features = np.zeros(_U(2) * n_columns * n_all, np.float32)
    kept = np.full((n_layers, 2), -1, np.int64)  # which rows these are
    shares = np.zeros(_U(2) * n_all, np.float32)  # of their features in a row of the grid
    total = np.empty(n_columns * n, np.float32)  # scores of a row of the grid
    marks, numbers = total.view(np.int32), np.empty(len(total), np.int32)
    for j in range(len(numbers)):
        numbers[j] = j % len(counts)
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
                start, to = _U(row) * width * d, (_U(2 * i) + slot) * side
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
            p, q = (_U(2 * i) + p) * side, (_U(2 * i) + q) * side
            if i == 0:
                _mix(total, _U(0), scores, p, q, share, n_columns * n)
            else:
                _add(total, scores, p, q, share, n_columns * n)
            first += d
        # The nearest codeword has the highest score: see ``_mark`` of `hypervlad.features.vlad`.
        for j in range(_U(len(marks))):
            marks[j] = (marks[j] & mask) | numbers[j]
        for x in range(n_columns):
            if len(inside) and not inside[y, begin + x]:
                continue
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
    """Write the scores (n_cells, n) of cells (n_cells, d), and up to three rows of padding.

    Four cells and four channels at a time, so that less is read. Beyond the last cell and the last
    channel, these are repeated; the table has zeros there.
    """
    one, two, three = _U(1), _U(2), _U(3)
    last_cell, last = n_cells - one, d - one
    for x in range(_U(0), n_cells, _U(_STEP)):
        at0 = begin + x * d
        at1 = begin + min(x + one, last_cell) * d
        at2 = begin + min(x + two, last_cell) * d
        at3 = begin + min(x + three, last_cell) * d
        to0 = at + x * n
        to1, to2, to3 = to0 + n, to0 + two * n, to0 + three * n
        for k in range(n):
            scores[to0 + k] = scores[to1 + k] = scores[to2 + k] = scores[to3 + k] = table[k]
        for c in range(_U(0), d, _U(_STEP)):
            c1, c2, c3 = min(c + one, last), min(c + two, last), min(c + three, last)
            p0, p1, p2, p3 = layer[at0 + c], layer[at0 + c1], layer[at0 + c2], layer[at0 + c3]
            q0, q1, q2, q3 = layer[at1 + c], layer[at1 + c1], layer[at1 + c2], layer[at1 + c3]
            r0, r1, r2, r3 = layer[at2 + c], layer[at2 + c1], layer[at2 + c2], layer[at2 + c3]
            s0, s1, s2, s3 = layer[at3 + c], layer[at3 + c1], layer[at3 + c2], layer[at3 + c3]
            row0 = (c + one) * n
            row1, row2, row3 = row0 + n, row0 + two * n, row0 + three * n
            for k in range(n):
                w0, w1, w2, w3 = table[row0 + k], table[row1 + k], table[row2 + k], table[row3 + k]
                scores[to0 + k] += p0 * w0 + p1 * w1 + p2 * w2 + p3 * w3
                scores[to1 + k] += q0 * w0 + q1 * w1 + q2 * w2 + q3 * w3
                scores[to2 + k] += r0 * w0 + r1 * w1 + r2 * w2 + r3 * w3
                scores[to3 + k] += s0 * w0 + s1 * w1 + s2 * w2 + s3 * w3


@_compiled
def _mix(out: Any, at: Any, values: Any, p: Any, q: Any, weight: Any, n: Any) -> None:
    for k in range(n):
        out[at + k] = values[p + k] + weight * (values[q + k] - values[p + k])


@_compiled
def _add(out: Any, values: Any, p: Any, q: Any, weight: Any, n: Any) -> None:
    for k in range(n):
        out[k] += values[p + k] + weight * (values[q + k] - values[p + k])
