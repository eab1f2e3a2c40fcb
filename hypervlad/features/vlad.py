"""VLAD of dense hypercolumns, without ever computing a hypercolumn.

With hypercolumns x_p = concat_l (U_l F_l)_p (see ``hypercolumns.py``) and codewords
c_k = concat_l c_kl, VLAD (Jegou et al. 2010, "Aggregating local descriptors into a compact image
representation", CVPR) is

    a(p) = argmin_k ||x_p - c_k||^2          V_k = sum_{p: a(p) = k} (x_p - c_k)

Since U_l is linear, both sides move to the layer's own resolution:

- a(p) = argmax_k [sum_l 2 U_l <F_l, c_kl> - ||c_k||^2]_p: K score maps per layer are enlarged
  instead of sum(C_l) channels;
- block l of V_k = sum_q (U_l^T A_k)_q F_l,q - n_k c_kl, with A_k the one-hot map of codeword k: the
  weights of U_l are scattered back onto the layer's own cells, then one small matrix product.

The sums over a particle alone are those with A_k times its mask.

All functions are pure; maps are channels last, (B, h_l, w_l, d_l).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

from hypervlad.features.hypercolumns import ROWS_AT_ONCE, axis_interpolation
from hypervlad.features.lazy_torch import torch

# 4 MB of scores, and the weights of four images, at once: more is slower, because it does not stay
# in the processor's cache.
_VALUES_IN_FLIGHT = 1 << 20
_CODEWORDS_AT_LEAST = 64  # for which rows are counted: cells and weights take as much memory
_IMAGES_AT_ONCE = 4


def assign(hypercolumns: torch.Tensor, codewords: torch.Tensor) -> torch.Tensor:
    """Return the nearest codeword (K, D) of each hypercolumn (n, D): int64, (n,)."""
    bias = -0.5 * codewords.square().sum(1)
    return torch.addmm(bias, hypercolumns, codewords.T).max(1).indices


def residual_sums(
    hypercolumns: torch.Tensor, assignments: torch.Tensor, codewords: torch.Tensor
) -> torch.Tensor:
    """Sum hypercolumn (n, D) minus codeword (K, D) over the assignments (n,): (K, D)."""
    sums = torch.zeros_like(codewords).index_add_(0, assignments, hypercolumns)
    counts = torch.bincount(assignments, minlength=len(codewords))
    return sums - counts[:, None] * codewords


def dense_assign(
    maps: Sequence[torch.Tensor], codewords: torch.Tensor, size: tuple[int, int]
) -> torch.Tensor:
    """Return the nearest codeword at every position of a grid: int64, (B, height, width).

    From maps (B, h_l, w_l, d_l), none larger than the grid, and codewords (K, sum of d_l).
    """
    blocks = _codeword_blocks(maps, codewords)
    n_images, (height, width) = len(maps[0]), size
    if len(maps) == 1 and maps[0].shape[1:3] == size:  # nothing to enlarge: all are one tall image
        maps, size = [maps[0].flatten(0, 1)[None]], (n_images * height, width)
    found = torch.empty(len(maps[0]), *size, dtype=torch.int64, device=codewords.device)
    for number, own in enumerate(found):
        layers = [layer[number] for layer in maps]
        for rows in _strips(size, len(codewords)):
            own[slice(*rows)] = _nearest(_scores(layers, blocks, size, rows)).view(-1, width)
    return found.view(n_images, height, width)


def dense_residual_sums(
    maps: Sequence[torch.Tensor],
    codewords: torch.Tensor,
    size: tuple[int, int],
    inside: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return un-normalised VLAD (B, K, sum of d_l); parameters as in `dense_assign`.

    ``inside``, bool, (B, height, width): the positions that count, by default all.
    """
    return sums_of_assigned(maps, dense_assign(maps, codewords, size), codewords, inside)


def sums_of_assigned(
    maps: Sequence[torch.Tensor],
    assignments: torch.Tensor,
    codewords: torch.Tensor,
    inside: torch.Tensor | None = None,
) -> torch.Tensor:
    """Do the same as :func:`dense_residual_sums` with known codewords (B, height, width)."""
    if inside is not None:
        # What is outside gets a codeword of its own, whose sums are dropped.
        assignments = assignments.masked_fill(~inside, len(codewords))
        one_more = torch.nn.functional.pad(codewords, (0, 0, 0, 1))
        return sums_of_assigned(maps, assignments, one_more)[:, :-1]
    n_images, n_codewords = len(assignments), len(codewords)
    if n_images > _IMAGES_AT_ONCE and codewords.device.type == "cpu":
        chunks = zip(*(each.split(_IMAGES_AT_ONCE) for each in (*maps, assignments)), strict=True)
        return torch.cat([sums_of_assigned(own, of, codewords) for *own, of in chunks])
    first = torch.arange(n_images, device=assignments.device) * n_codewords
    assigned = assignments + first[:, None, None]
    counts = torch.bincount(assigned.flatten(), minlength=n_images * n_codewords)
    counts = counts.view(n_images, n_codewords, 1)
    return torch.cat(
        [
            _feature_sums(layer, assigned, n_codewords) - counts * block
            for layer, block in zip(maps, _codeword_blocks(maps, codewords), strict=True)
        ],
        dim=2,
    )


def projected_residuals(
    maps: Sequence[torch.Tensor],
    assignments: torch.Tensor,
    codewords: torch.Tensor,
    directions: torch.Tensor,
) -> torch.Tensor:
    """Project every position's residual on a direction of its codeword.

    e(p) = <u_a(p), x_p - c_a(p)>, so that the sum of e is that of <u_k, V_k> over the codewords.
    From one image's maps (h_l, w_l, d_l), assignments (height, width), codewords (K, D) and
    directions (M, K, D), return (M, height, width).
    """
    size = (assignments.shape[0], assignments.shape[1])
    total = maps[0].new_zeros(len(directions), *size)
    first = 0
    for layer, block in zip(maps, _codeword_blocks(maps, codewords), strict=True):
        height, width, n_features = layer.shape
        parts = directions[:, :, first : first + n_features]
        first += n_features
        for projected, part in zip(total, parts, strict=True):
            own = torch.addmm(-(block * part).sum(1), layer.reshape(-1, n_features), part.T)
            for rows in _strips(size, len(codewords)):
                strip = slice(*rows)
                for cells, weight in _corners((height, width), size, rows, layer.device):
                    projected[strip] += own[cells, assignments[strip]] * weight.to(own.dtype)
    return total


def window_residual_sums(
    hypercolumns: torch.Tensor,
    assignments: torch.Tensor,
    codewords: torch.Tensor,
    size: tuple[int, int],
    rows: ArrayLike,
    columns: ArrayLike,
    side: int,
) -> Iterator[torch.Tensor]:
    """Sum residuals over the positions of each window, a few rows of windows at a time.

    From hypercolumns (height, width, D) on a grid over the image, their assignments and codewords
    (K, D), yield tensors (n, S, K, D). A position is in a window if its centre is. Other parameters
    are those of :func:`hypervlad.features.hypercolumns.window_means`.
    """
    height, width = assignments.shape
    residuals = hypercolumns - codewords[assignments]
    low, high = _positions(width, size[1], columns, side)
    steps = np.arange(max(1, int((high - low).max(initial=0))))
    inside = torch.from_numpy(low[:, None] + steps < high[:, None])[:, :, None].to(residuals)
    at = torch.from_numpy(np.minimum(low[:, None] + steps, width - 1)).to(residuals.device)

    n_codewords, n_windows = len(codewords), len(low)
    first, last = _positions(height, size[0], rows, side)
    for start in range(0, len(first), ROWS_AT_ONCE):
        own = slice(start, start + ROWS_AT_ONCE)
        y = torch.arange(int(first[own].min()), int(last[own].max()), device=residuals.device)
        # Of each row of positions and each window's columns, then of each window's rows.
        places = torch.arange(len(y) * n_windows, device=y.device).view(-1, n_windows, 1)
        of_codeword = (places * n_codewords + assignments[y][:, at]).flatten()
        added = (residuals[y][:, at] * inside).flatten(0, 2)
        of_row = added.new_zeros(len(y) * n_windows * n_codewords, added.shape[1])
        of_row.index_add_(0, of_codeword, added)
        low_y, high_y = (torch.from_numpy(edge[own, None]).to(y.device) for edge in (first, last))
        is_in = ((y >= low_y) & (y < high_y)).to(residuals.dtype)
        yield torch.tensordot(is_in, of_row.view(len(y), n_windows, *codewords.shape), dims=1)


def _positions(
    n_positions: int, n_pixels: int, starts: ArrayLike, side: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the first position of each window along an axis, and the one after its last."""
    centres = (np.arange(n_positions) + 0.5) * (n_pixels / n_positions)
    edges = np.asarray(starts, dtype=np.int64)
    return np.searchsorted(centres, edges), np.searchsorted(centres, edges + side)


def normalize(sums: Sequence[torch.Tensor]) -> torch.Tensor:
    """Normalise the VLAD (B, K_i, D_i) of codebooks and join them to vectors (B, sum of K_i D_i).

    Each codeword's block is divided by its length (Arandjelovic and Zisserman 2013, "All about
    VLAD", CVPR), then the whole vector by its own. What is zero stays zero.
    """
    flat = [torch.nn.functional.normalize(block, dim=2).flatten(1) for block in sums]
    joined = flat[0] if len(flat) == 1 else torch.cat(flat, 1)  # of one, without a copy
    return torch.nn.functional.normalize(joined, dim=1)


def _codeword_blocks(
    maps: Sequence[torch.Tensor], codewords: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """Split the codewords into c_kl, a block of columns per layer."""
    widths = [layer.shape[-1] for layer in maps]
    if sum(widths) != codewords.shape[1]:
        raise ValueError(
            f"codewords of {codewords.shape[1]} dimensions do not fit maps of {sum(widths)}"
        )
    blocks: tuple[torch.Tensor, ...] = codewords.split(widths, dim=1)
    return blocks


def _scores(
    maps: Sequence[torch.Tensor],
    blocks: Sequence[torch.Tensor],
    size: tuple[int, int],
    rows: tuple[int, int],
) -> torch.Tensor:
    """Return half of ||x||^2 - ||x - c_k||^2 in rows of the grid: (rows x width, K)."""
    shapes = tuple((layer.shape[0], layer.shape[1]) for layer in maps)
    # Weights of an enlargement sum to one, so that the offset can enter before it.
    offsets = [-0.5 * block.square().sum(1) for block in blocks]
    if shapes == (size,):
        return torch.addmm(offsets[0], maps[0][slice(*rows)].flatten(0, 1), blocks[0].T)
    bounds, cells, weights = _enlargement(shapes, size, rows, maps[0].device)
    parts = [layer[slice(*own)].flatten(0, 1) for layer, own in zip(maps, bounds, strict=True)]
    scores = parts[0].new_empty(sum(map(len, parts)), len(blocks[0]))
    places = scores.split([*map(len, parts)])
    for own, part, block, offset in zip(places, parts, blocks, offsets, strict=True):
        torch.addmm(offset, part, block.T, out=own)
    # One pass over the grid: enlarging and adding the maps one by one takes three times as long.
    enlarged: torch.Tensor = torch.nn.functional.embedding_bag(
        cells, scores, mode="sum", per_sample_weights=weights
    )
    return enlarged


@lru_cache(maxsize=16)
def _enlargement(
    shapes: tuple[tuple[int, int], ...],
    size: tuple[int, int],
    rows: tuple[int, int],
    device: torch.device,
) -> tuple[list[tuple[int, int]], torch.Tensor, torch.Tensor]:
    """Return what enlarges several maps, (h_l, w_l) each, to rows of a grid, and adds them.

    That is which rows of each map are read; and for each position of the grid, the cells to add,
    as places in a list of these rows' cells, map by map, and their weights.
    """
    bounds, cells, weights, n_before = [], [], [], 0
    for height, width in shapes:
        is_grid = (height, width) == size  # each position is a cell: the first of the corners
        low, high, _ = (part[slice(*rows)] for part in axis_interpolation(height, size[0], device))
        first, end = int(low[0]), int((low if is_grid else high)[-1]) + 1
        for cell, weight in _corners((height, width), size, rows, device)[: 1 if is_grid else 4]:
            cells.append(cell.flatten() + (n_before - first * width))
            weights.append(weight.flatten())
        bounds.append((first, end))
        n_before += (end - first) * width
    return bounds, torch.stack(cells, dim=1), torch.stack(weights, dim=1)


def _nearest(scores: torch.Tensor) -> torch.Tensor:
    """Return the place of the highest of K float32 scores (n, K), which are overwritten.

    The last bits of each score are made its place, which the maximum then carries: faster than
    torch's argmax. Two codewords whose scores agree to 2**(bits - 23) may change places.
    """
    n_codewords = scores.shape[1]
    bits = (n_codewords - 1).bit_length()
    places = torch.arange(n_codewords, dtype=torch.int32, device=scores.device)
    scores.view(torch.int32).bitwise_and_(-(1 << bits)).bitwise_or_(places)
    return scores.amax(1).view(torch.int32).bitwise_and_((1 << bits) - 1)


def _feature_sums(layer: torch.Tensor, assigned: torch.Tensor, n_codewords: int) -> torch.Tensor:
    """Sum a layer's enlarged features over each codeword's positions: (B, K, d_l).

    ``assigned`` (B, H, W) holds image * K + codeword.
    """
    n_images, height, width, n_features = layer.shape
    grid = (assigned.shape[1], assigned.shape[2])
    if (height, width) == grid:
        sums = layer.new_zeros(n_images * n_codewords, n_features)
        sums.index_add_(0, assigned.flatten(), layer.reshape(-1, n_features))
        return sums.view(n_images, n_codewords, n_features)
    n_weights = n_images * n_codewords * height * width
    weights = layer.new_zeros(n_weights)
    index = torch.int32 if n_weights < 2**31 else torch.int64  # half the memory to move
    for rows in _strips(grid, n_codewords):
        first_cell = assigned[:, slice(*rows)].to(index) * (height * width)
        corners = _corners((height, width), grid, rows, layer.device)
        cells, shares = (torch.stack(each)[:, None] for each in zip(*corners, strict=True))
        of_word = (first_cell + cells).flatten()
        shares = shares.to(layer.dtype).expand(4, *first_cell.shape)
        weights += torch.bincount(of_word, shares.flatten(), n_weights)
    return weights.view(n_images, n_codewords, -1) @ layer.flatten(1, 2)


def _strips(size: tuple[int, int], n_codewords: int) -> Iterator[tuple[int, int]]:
    """Yield the first row, and the one after the last, of parts of a grid."""
    n_rows = max(1, _VALUES_IN_FLIGHT // (size[1] * max(n_codewords, _CODEWORDS_AT_LEAST)))
    for top in range(0, size[0], n_rows):
        yield top, min(top + n_rows, size[0])


@lru_cache(maxsize=16)
def _corners(
    size: tuple[int, int], grid: tuple[int, int], rows: tuple[int, int], device: torch.device
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return the four cells, as flat indices, that enlargement reads at each position, and weights.

    Both tensors have the shape of these rows of the grid.
    """
    down = [part[slice(*rows)] for part in axis_interpolation(size[0], grid[0], device)]
    across = axis_interpolation(size[1], grid[1], device)
    return [
        ((row[:, None] * size[1] + col).int(), row_weight[:, None] * col_weight)
        for row, row_weight in ((down[0], 1 - down[2]), (down[1], down[2]))
        for col, col_weight in ((across.low, 1 - across.weight), (across.high, across.weight))
    ]
