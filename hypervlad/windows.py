"""Windows over an image's feature maps: the mean hypercolumn and the residual sums of each.

The image goes through the network once, whole; no window is cut out of it. Let U_l enlarge layer
l bilinearly to the image's pixels. The mean hypercolumn of a window w is then linear in the map,

    mean_w x = concat_l sum_q m_l(w, q) F_l,q      m_l(w, q) = mean of U_l over the pixels of w

and m_l is a product of one small matrix for the rows and one for the columns. Residual sums are
taken over the positions of a grid whose centres lie in the window, word by word, a row of windows
at a time: all vectors of a large image never lie in memory together.

All functions are pure. Windows are given by their upper and left edges, in pixels, and one side.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike

from hypervlad.hypercolumns import axis_interpolation


def window_means(
    maps: Sequence[torch.Tensor],
    size: tuple[int, int],
    rows: ArrayLike,
    columns: ArrayLike,
    side: int,
) -> torch.Tensor:
    """Average the hypercolumns of all pixels of each window.

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

    Returns
    -------
    Tensor of shape (R, S, sum of C_l)

    Examples
    --------
    >>> import torch
    >>> from hypervlad.windows import window_means
    >>> ramp = torch.arange(4.0).view(1, 4, 1)
    >>> window_means([ramp], (1, 4), rows=[0], columns=[0, 2], side=1).flatten().tolist()
    [0.0, 2.0]
    """
    means = []
    for layer in maps:
        height, width, n_channels = layer.shape
        down = _axis_means(height, size[0], rows, side, layer)
        across = _axis_means(width, size[1], columns, side, layer)
        narrow = (down @ layer.reshape(height, -1)).view(-1, width, n_channels)
        means.append(across @ narrow)
    return torch.cat(means, dim=-1)


def window_residual_sums(
    hypercolumns: torch.Tensor,
    assignments: torch.Tensor,
    codewords: torch.Tensor,
    size: tuple[int, int],
    rows: ArrayLike,
    columns: ArrayLike,
    side: int,
) -> Iterator[torch.Tensor]:
    """Sum residuals over the positions of each window, a row of windows at a time.

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
    Tensor of shape (S, K, D)
        For each of ``rows``: un-normalised VLAD of its windows.
    """
    (height, width), (n_words, n_features) = assignments.shape, codewords.shape
    residuals = hypercolumns - codewords[assignments]
    of_window = [
        _positions(n, pixels, starts, side)
        for n, pixels, starts in ((height, size[0], rows), (width, size[1], columns))
    ]
    first_word = torch.arange(width, device=assignments.device) * n_words
    places = first_word + assignments
    for low, high in zip(*of_window[0], strict=True):
        in_column = residuals.new_zeros(width * n_words, n_features)
        in_column.index_add_(0, places[low:high].flatten(), residuals[low:high].flatten(0, 1))
        yield _over_columns(in_column.view(width, n_words, n_features), *of_window[1])


def _over_columns(in_column: torch.Tensor, low: np.ndarray, high: np.ndarray) -> torch.Tensor:
    """Add up columns low to high of (width, K, D), without differences that leave dust behind.

    Windows that hold equally many columns are gathered at once; there are at most a few such
    numbers.
    """
    sums = in_column.new_zeros(len(low), *in_column.shape[1:])
    counts = high - low
    for count in np.unique(counts[counts > 0]):
        chosen = np.flatnonzero(counts == count)
        first = torch.from_numpy(low[chosen]).to(in_column.device)
        at = torch.from_numpy(chosen).to(in_column.device)
        total = in_column[first].clone()
        for step in range(1, int(count)):
            total += in_column[first + step]
        sums[at] = total
    return sums


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
