"""Worm-like chains: the centre lines of nanotubes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d


def worm_like_chains(
    rng: np.random.Generator,
    *,
    anchors: NDArray[np.floating],
    headings: NDArray[np.floating],
    length: NDArray[np.floating],
    persistence: float,
    step: float,
    stiffness: float,
    anchor_at: NDArray[np.floating] | float = 0.5,
) -> NDArray[np.float32]:
    """Draw smooth random curves whose direction diffuses along their length.

    The direction of a worm-like chain does a random walk with variance ``step / persistence`` per
    step: the standard model of a semi-flexible filament, and a good one for nanotubes lying on a
    film.

    Parameters
    ----------
    rng : numpy.random.Generator
    anchors : array of shape (n, 2)
        A point (row, column), in pixels, that each chain goes through.
    headings : array of shape (n,)
        Direction of each chain at its anchor, radians.
    length : array of shape (n,)
        Contour lengths in pixels. All chains have as many points as the longest needs; shorter ones
        are sampled finer.
    persistence : float
        Persistence length in pixels: the larger, the straighter.
    step : float
        Distance of neighbouring points on the longest chain, in pixels.
    stiffness : float
        Length in pixels below which a chain does not bend; of the order of the tube's radius, so
        that no bend is tighter than the tube is wide.
    anchor_at : float or array of shape (n,)
        Where along the chain the anchor lies: 0 is its start, 1 its end.

    Returns
    -------
    array of shape (n, n_points, 2), float32
        Points (row, column) in pixels.
    """
    n_chains = len(anchors)
    n_points = max(8, int(np.ceil(float(np.max(length)) / step)))
    spacing = (np.asarray(length) / n_points)[:, None]
    turns = rng.standard_normal((n_chains, n_points)) * np.sqrt(spacing / persistence)
    sigma = min(stiffness * n_points / float(np.mean(length)), n_points / 3)
    angle = gaussian_filter1d(np.cumsum(turns, axis=1), sigma, axis=1, mode="nearest", truncate=2.5)
    rows = np.arange(n_chains)
    anchor_index = np.broadcast_to(
        np.round(np.asarray(anchor_at) * (n_points - 1)).astype(int), (n_chains,)
    )
    angle += (np.asarray(headings) - angle[rows, anchor_index])[:, None]
    points = np.cumsum(
        np.stack([np.sin(angle), np.cos(angle)], axis=-1) * spacing[..., None], axis=1
    )
    points += (np.asarray(anchors) - points[rows, anchor_index])[:, None, :]
    return points.astype(np.float32)
