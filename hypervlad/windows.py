"""Windows over an image's feature maps: the mean hypercolumn and the residual sums of each.

The image goes through the network once, whole; no window is cut out of it. Let U_l enlarge layer
l bilinearly to the image's pixels. The mean hypercolumn of a window w is then linear in the map,

    mean_w x = concat_l sum_q m_l(w, q) F_l,q      m_l(w, q) = mean of U_l over the pixels of w

and m_l is a product of one small matrix for the rows and one for the columns. Residual sums are
taken over the positions of a grid whose centres lie in the window, word by word. Both come some
rows of windows at a time: all vectors of a large image never lie in memory together.

All functions are pure. Windows are given by their upper and left edges, in pixels, and one side.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike

from hypervlad.hypercolumns import axis_interpolation

_ROWS_AT_ONCE = 16  # of windows: bounded memory, and no time lost on many small steps


def window_means(
    maps: Sequence[torch.Tensor],
    size: tuple[int, int],
    rows: ArrayLike,
    columns: ArrayLike,
    side: int,
) -> Iterator[torch.Tensor]:
    """Average the hypercolumns of all pixels of each window, some rows of windows at a time.

    Parameters
    ----------
    maps : sequence of Tensor of shape (h_l, w_l, C_l)
        One image's maps.
    size : (int, int)
        Height and width in pixels of what the maps show.
    rows, columns : array of int, shape (R,) and (S,)
        Upper and left edges, pixels; every row with every column is a window.
    side : int
        Of a window, pixels.

    Yields
    ------
    Tensor of shape (n, S, sum of C_l)
        For n of ``rows``, in their order.

    Examples
    --------
    >>> import torch
    >>> from hypervlad.windows import window_means
    >>> ramp = torch.arange(4.0).view(1, 4, 1)
    >>> (means,) = window_means([ramp], (1, 4), rows=[0], columns=[0, 2], side=1)
    >>> means.flatten().tolist()
    [0.0, 2.0]
    """
    axes = [
        (
            _axis_means(layer.shape[0], size[0], rows, side, layer).split(_ROWS_AT_ONCE),
            _axis_means(layer.shape[1], size[1], columns, side, layer),
        )
        for layer in maps
    ]
    for blocks in zip(*(down for down, _ in axes), strict=True):
        means = []
        for block, layer, (_, across) in zip(blocks, maps, axes, strict=True):
            height, width, n_channels = layer.shape
            narrow = (block @ layer.reshape(height, -1)).view(-1, width, n_channels)
            means.append(across @ narrow)
        yield torch.cat(means, dim=-1)


def window_residual_sums(
    hypercolumns: torch.Tensor,
    assignments: torch.Tensor,
    codewords: torch.Tensor,
    size: tuple[int, int],
    rows: ArrayLike,
    columns: ArrayLike,
    side: int,
) -> Iterator[torch.Tensor]:
    """Sum residuals over the positions of each window, some rows of windows at a time.

    Parameters
    ----------
    hypercolumns : Tensor of shape (height, width, D)
        On a grid over the image.
    assignments : Tensor of int64, shape (height, width)
        Each position's word.
    codewords : Tensor of shape (K, D)
    size, rows, columns, side
        As in :func:`window_means`. A position belongs to the windows that its centre lies in.

    Yields
    ------
    Tensor of shape (n, S, K, D)
        For n of ``rows``, in their order: un-normalised VLAD of their windows.
    """
    height, width = assignments.shape
    residuals = hypercolumns - codewords[assignments]
    low, high = _positions(width, size[1], columns, side)
    steps = np.arange(max(1, int((high - low).max(initial=0))))
    inside = torch.from_numpy(low[:, None] + steps < high[:, None]).to(residuals.device)
    at = torch.from_numpy(np.minimum(low[:, None] + steps, width - 1)).to(residuals.device)

    numbers = torch.arange(len(codewords), device=residuals.device)[:, None]
    first, last = _positions(height, size[0], rows, side)
    for start in range(0, len(first), _ROWS_AT_ONCE):
        own = slice(start, start + _ROWS_AT_ONCE)
        y = torch.arange(int(first[own].min()), int(last[own].max()), device=residuals.device)
        is_word = (assignments[y][:, at][:, :, None] == numbers) & inside[:, None]
        of_row = is_word.to(residuals.dtype) @ residuals[y][:, at]
        low_y, high_y = (torch.from_numpy(edge[own, None]).to(y.device) for edge in (first, last))
        is_in = ((y >= low_y) & (y < high_y)).to(residuals.dtype)
        yield torch.tensordot(is_in, of_row, dims=1)


def _positions(
    n_positions: int, n_pixels: int, starts: ArrayLike, side: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the first position of each window along an axis, and the one after its last."""
    centres = (np.arange(n_positions) + 0.5) * (n_pixels / n_positions)
    edges = np.asarray(starts, dtype=np.int64)
    return np.searchsorted(centres, edges), np.searchsorted(centres, edges + side)


def _axis_means(
    n_cells: int, n_pixels: int, starts: ArrayLike, side: int, like: torch.Tensor
) -> torch.Tensor:
    """Return which share of each cell a window's pixels hold along an axis: (windows, cells)."""
    edges = torch.as_tensor(np.asarray(starts, dtype=np.int64), device=like.device)
    axis = axis_interpolation(n_cells, n_pixels, like.device)
    pixels = edges[:, None] + torch.arange(side, device=like.device)
    window = torch.arange(len(edges), device=like.device)[:, None].expand_as(pixels)
    shares = torch.zeros(len(edges), n_cells, dtype=torch.float64, device=like.device)
    for cells, weight in ((axis.low, 1 - axis.weight), (axis.high, axis.weight)):
        shares.index_put_((window, cells[pixels]), weight[pixels].double(), accumulate=True)
    return (shares / side).to(like.dtype)
