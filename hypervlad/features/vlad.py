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

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike

from hypervlad.features.hypercolumns import ROWS_AT_ONCE, axis_interpolation, enlarge
from hypervlad.features.lazy_torch import torch

# 32 MB of scores at once; larger blocks are fresh pages from the system each time.
_VALUES_IN_FLIGHT = 1 << 23
_MIN_CODEWORDS = 16  # fewer at once would leave the processor's vector units half empty


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
    n_images = _images_at_once(size, codewords)
    chunks = zip(*(layer.split(n_images) for layer in maps), strict=True)
    return torch.cat([_assign_chunk(chunk, blocks, size) for chunk in chunks])


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
        corners = list(_corners((height, width), size, layer.device))
        for projected, part in zip(total, parts, strict=True):
            own = torch.addmm(-(block * part).sum(1), layer.reshape(-1, n_features), part.T)
            for cells, weight in corners:
                projected += own[cells, assignments] * weight.to(own.dtype)
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


def _assign_chunk(
    maps: Sequence[torch.Tensor], blocks: Sequence[torch.Tensor], size: tuple[int, int]
) -> torch.Tensor:
    n_images, n_codewords = len(maps[0]), len(blocks[0])
    n_at_once = max(_MIN_CODEWORDS, _VALUES_IN_FLIGHT // (n_images * math.prod(size)))
    bits = (n_codewords - 1).bit_length()
    best = None
    for first in range(0, n_codewords, n_at_once):
        some = [block[first : first + n_at_once] for block in blocks]
        scores = _scores(maps, some, size, _n_groups(n_images, len(some[0])))
        marked = _mark(scores, first, bits).amax(-1).amax(1)
        best = marked if best is None else torch.maximum(best, marked)
    assert best is not None
    return best.view(torch.int32).bitwise_and_((1 << bits) - 1).long()


def _scores(
    maps: Sequence[torch.Tensor],
    blocks: Sequence[torch.Tensor],
    size: tuple[int, int],
    n_groups: int,
) -> torch.Tensor:
    """Return half of ||x||^2 - ||x - c_k||^2 over the grid: (B, groups, H, W, K of a group)."""
    total = None
    for layer, block in zip(maps, blocks, strict=True):
        n_images, height, width, _ = layer.shape
        # Weights of an enlargement sum to one, so that the offset can enter before it.
        own = torch.addmm(-0.5 * block.square().sum(1), layer.flatten(0, 2), block.T)
        own = own.view(n_images, height, width, n_groups, -1).permute(0, 3, 1, 2, 4)
        enlarged = enlarge(own.flatten(0, 1), size)
        total = enlarged if total is None else total.add_(enlarged)
    assert total is not None
    scores: torch.Tensor = total.unflatten(0, (-1, n_groups))
    return scores


def _mark(scores: torch.Tensor, first: int, bits: int) -> torch.Tensor:
    """Write each codeword's number into the last bits of its float32 scores, in place.

    The maximum then carries its codeword, faster than torch's argmax. Two codewords whose scores
    agree to 2**(bits - 23) may change places.
    """
    n_groups, n_each = scores.shape[1], scores.shape[-1]
    last = first + n_groups * n_each
    numbers = torch.arange(first, last, dtype=torch.int32, device=scores.device)
    numbers = numbers.view(1, n_groups, 1, 1, n_each)
    scores.view(torch.int32).bitwise_and_(-(1 << bits)).bitwise_or_(numbers)
    return scores


def _images_at_once(size: tuple[int, int], codewords: torch.Tensor) -> int:
    fitting = _VALUES_IN_FLIGHT // (math.prod(size) * len(codewords))
    if codewords.device.type == "cpu":
        fitting = min(fitting, torch.get_num_threads())
    return max(1, fitting)


def _n_groups(n_images: int, n_codewords: int) -> int:
    """Return how many groups of codewords give every thread an image or a group.

    torch enlarges channels-last maps with one thread per image.
    """
    n_groups = max(1, torch.get_num_threads() // n_images)
    return n_groups if n_codewords % n_groups == 0 else 1


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
    weights = layer.new_zeros(n_images * n_codewords * height * width)
    index = torch.int32 if len(weights) < 2**31 else torch.int64  # half the memory to move
    first_cell = assigned.to(index) * (height * width)
    for cell, weight in _corners((height, width), grid, layer.device):
        cells = (first_cell + cell.to(index)).flatten()
        corner = weight.to(layer.dtype).expand(assigned.shape)
        weights.index_add_(0, cells, corner.flatten())
    return weights.view(n_images, n_codewords, -1) @ layer.flatten(1, 2)


def _corners(
    size: tuple[int, int], grid: tuple[int, int], device: torch.device
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield the four cells, as flat indices, that enlargement reads at each position, and weights.

    Both tensors have the shape of ``grid``.
    """
    rows = axis_interpolation(size[0], grid[0], device)
    cols = axis_interpolation(size[1], grid[1], device)
    for row, row_weight in ((rows.low, 1 - rows.weight), (rows.high, rows.weight)):
        for col, col_weight in ((cols.low, 1 - cols.weight), (cols.high, cols.weight)):
            yield row[:, None] * size[1] + col, row_weight[:, None] * col_weight
