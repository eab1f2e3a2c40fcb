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
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from hypervlad.features.hypercolumns import ROWS_AT_ONCE, axis_interpolation
from hypervlad.features.lazy_torch import torch

# 2 MB of scores, or of cells' weights, at once: more does not stay in the processor's cache, and
# is memory that the system gives anew each time.
_VALUES_IN_FLIGHT = 1 << 19
_CODEWORDS_AT_LEAST = 64  # for which rows are counted: cells and weights take as much memory


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
    # Weights of an enlargement sum to one, so that the offset can enter before it.
    offsets = [-0.5 * block.square().sum(1) for block in blocks]
    if len(maps) == 1 and maps[0].shape[1:3] == size:  # nothing to enlarge
        parts = maps[0].flatten(0, 2).split(max(1, _VALUES_IN_FLIGHT // len(codewords)))
        words = [_nearest(torch.addmm(offsets[0], cells, blocks[0].T)) for cells in parts]
        return torch.cat(words).view(maps[0].shape[:3]).long()
    found = torch.empty(len(maps[0]), *size, dtype=torch.int64, device=codewords.device)
    embedding_bag = torch.nn.functional.embedding_bag
    for part in _enlargements(maps, size, len(codewords)):
        scores = codewords.new_empty(sum(part.n_cells), len(codewords))
        each = scores.split(part.n_cells), maps, part.read, blocks, offsets
        cells, weights = part.cells.flatten(0, 1), part.weights.flatten(0, 1)
        for number, own in enumerate(found):
            for place, layer, read, block, offset in zip(*each, strict=True):
                torch.addmm(offset, layer[number, read].flatten(0, 1), block.T, out=place)
            # One pass over the grid: enlarging and adding the maps one by one is slower.
            enlarged = embedding_bag(cells, scores, mode="sum", per_sample_weights=weights)
            own[part.rows] = _nearest(enlarged).view(-1, size[1])
    return found


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
    first = torch.arange(0, n_images * n_codewords, n_codewords, device=assignments.device)
    assigned = assignments + first[:, None, None]
    counts = torch.bincount(assigned.flatten(), minlength=n_images * n_codewords)
    sums = codewords.new_zeros(n_images, *codewords.shape)
    size = (assignments.shape[1], assignments.shape[2])
    coarse = []
    for layer, own in zip(maps, sums.split([m.shape[-1] for m in maps], dim=2), strict=True):
        if layer.shape[1:3] == size:
            added = layer.new_zeros(n_images * n_codewords, layer.shape[-1])
            added.index_add_(0, assigned.flatten(), layer.flatten(0, 2))
            own[:] = added.view_as(own)
        else:
            coarse.append((layer, own))
    for part in _enlargements([layer for layer, _ in coarse], size, n_codewords):
        n_bins = n_codewords * sum(part.n_cells)
        n_at_once = max(1, _VALUES_IN_FLIGHT // n_bins)
        for start in range(0, n_images, n_at_once):
            images = slice(start, start + n_at_once)
            own_words = (assigned[images, part.rows, :, None] - start * n_codewords).int()
            bins = own_words * sum(part.n_cells) + part.cells
            weights = part.weights.to(codewords.dtype).expand(bins.shape).flatten()
            by_cell = torch.bincount(bins.flatten(), weights, len(bins) * n_bins)
            by_layer = by_cell.view(len(bins), n_codewords, -1).split(part.n_cells, dim=2)
            for shares, read, (layer, own) in zip(by_layer, part.read, coarse, strict=True):
                own[images] += shares @ layer[images, read].flatten(1, 2)
    return sums - counts.view(n_images, -1, 1) * codewords


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
        directions_of_layer = directions[:, :, first : first + layer.shape[-1]]
        first += layer.shape[-1]
        for part in _enlargements([layer[None]], size, len(codewords)):
            cells = layer[part.read[0]].flatten(0, 1)
            for projected, direction in zip(total, directions_of_layer, strict=True):
                own = torch.addmm(-(block * direction).sum(1), cells, direction.T)
                values = own[part.cells, assignments[part.rows, :, None]]
                projected[part.rows] += (values * part.weights).sum(2)
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


class _EnlargedRows(NamedTuple):
    """What enlarging several maps, (B, h_l, w_l, d_l) each, to rows of a grid reads and adds."""

    rows: slice  # of the grid
    read: list[slice]  # the rows of each map
    n_cells: list[int]  # in these rows, of each map
    cells: torch.Tensor  # int32, (rows, width, n): places in a list of these cells, map by map
    weights: torch.Tensor  # (rows, width, n), float32


def _enlargements(
    maps: Sequence[torch.Tensor], size: tuple[int, int], n_codewords: int
) -> Iterator[_EnlargedRows]:
    """Yield a few rows of the grid at a time."""
    shapes = tuple((layer.shape[1], layer.shape[2]) for layer in maps)
    n_rows = max(1, _VALUES_IN_FLIGHT // (size[1] * max(n_codewords, _CODEWORDS_AT_LEAST)))
    for top in range(0, size[0], n_rows) if maps else ():
        rows = slice(top, min(top + n_rows, size[0]))
        yield _enlarged_rows(shapes, size, (rows.start, rows.stop), maps[0].device)


@lru_cache(maxsize=16)  # for a batch after the other: those of an image of usual size
def _enlarged_rows(
    shapes: tuple[tuple[int, int], ...],
    size: tuple[int, int],
    rows: tuple[int, int],
    device: torch.device,
) -> _EnlargedRows:
    (down, down_weights), (across, across_weights) = _corners(shapes, size)
    first, last = down[rows[0]].tolist(), down[rows[1] - 1].tolist()
    read, n_cells, offsets = list[slice](), list[int](), list[int]()
    for (_, width), n_corners in zip(shapes, _n_corners(shapes, size), strict=True):
        start, end = first[len(offsets)], last[len(offsets) + n_corners - 1] + width
        read.append(slice(start // width, end // width))
        offsets += [sum(n_cells) - start] * n_corners
        n_cells.append(end - start)
    own = slice(*rows)
    cells = (down[own] + torch.tensor(offsets, dtype=torch.int32))[:, None] + across
    weights = down_weights[own, None] * across_weights
    return _EnlargedRows(own, read, n_cells, cells.to(device), weights.to(device))


@lru_cache(maxsize=4)
def _corners(
    shapes: tuple[tuple[int, int], ...], size: tuple[int, int]
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return the cells that rows of the grid read, and the columns, each with weights.

    Of each map two rows times two columns, side by side in tensors (height, n) and (width, n). Rows
    are given by their first cells.
    """
    corners = []
    for shape, n_corners in zip(shapes, _n_corners(shapes, size), strict=True):
        axes = [axis_interpolation(n, n_out) for n, n_out in zip(shape, size, strict=True)]
        (low, high, weight), across = axes
        rows = (low * shape[1], 1 - weight), (high * shape[1], weight)
        columns = (across.low, 1 - across.weight), (across.high, across.weight)
        corners += list(product(rows, columns))[:n_corners]
    lists = [list(zip(*axis, strict=True)) for axis in zip(*corners, strict=True)]
    return [(torch.stack(c, dim=1).int(), torch.stack(w, dim=1)) for c, w in lists]


def _n_corners(shapes: tuple[tuple[int, int], ...], size: tuple[int, int]) -> list[int]:
    """Return how many cells of each map a position reads: one where the map is the grid."""
    return [1 if shape == size else 4 for shape in shapes]


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
