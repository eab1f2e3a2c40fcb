"""From a pool of hypercolumns to a codebook."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Literal

import numpy as np
from sklearn.cluster import KMeans, kmeans_plusplus
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from tqdm.auto import tqdm

from hypervlad.codebook.arrays import Codebook, LayerProjection, spaces


def learn_codebook(
    layers: Sequence[np.ndarray],
    n_codewords: int,
    *,
    kind: Literal["joint", "per_layer", "both"] = "joint",
    layer_components: int | None = 32,
    scale_layers: bool = True,
    start_only: bool = False,
    random_state: int = 0,
    verbose: bool = False,
) -> Codebook:
    """Learn projections and codewords from a pool of hypercolumns.

    Parameters
    ----------
    layers : sequence of ndarray of shape (n, C_l)
        The same n positions seen by each layer.
    n_codewords : int
        K, of the joint codebook or of each layer's.
    kind : {"joint", "per_layer", "both"}, default="joint"
    layer_components : int or None, default=32
        Principal components to keep a layer (fewer where a layer or the pool has fewer), or None
        for all channels as they are.
    scale_layers : bool, default=True
        Divide each layer by its total standard deviation (the root of the sum of its channels'
        variances), so that no layer rules the distances of a joint codebook.
    start_only : bool, default=False
        The codewords are where K-means would start (k-means++), for :class:`StreamedCodewords` to
        go on from.
    random_state : int, default=0
    verbose : bool, default=False
        Show progress bars.

    Returns
    -------
    Codebook

    Raises
    ------
    ValueError
        If there are fewer hypercolumns than codewords.
    """
    n_samples = len(layers[0])
    check_enough(n_samples, n_codewords)
    hidden = None if verbose else True
    projections = tuple(
        _learn_projection(layer, layer_components, scale_layers, random_state)
        for layer in tqdm(layers, desc="components", unit="layer", disable=hidden)
    )
    whole = [] if kind == "per_layer" else [slice(None)]
    each = [] if kind == "joint" else [slice(i, i + 1) for i in range(len(layers))]
    learn = _start if start_only else _kmeans
    codewords = [
        learn(space, n_codewords, random_state)
        for space in tqdm(
            spaces(projections, layers, [*whole, *each]),
            desc="codewords",
            unit="codebook",
            disable=hidden,
        )
    ]
    joint = codewords.pop(0) if whole else None
    return Codebook(projections, joint, tuple(codewords))


def check_enough(n_samples: int, n_codewords: int) -> None:
    """Raise ValueError if there are fewer hypercolumns than codewords."""
    if n_samples < n_codewords:
        raise ValueError(
            f"{n_codewords} codewords cannot be learnt from {n_samples} hypercolumns: give more "
            "or larger images, let it see more of them (n_samples=), or ask for fewer codewords "
            "(n_codewords=)"
        )


def _learn_projection(
    layer: np.ndarray, n_components: int | None, scale_layer: bool, random_state: int
) -> LayerProjection:
    mean = layer.mean(axis=0, dtype=np.float64).astype(np.float32)
    centred = layer - mean
    variances = np.einsum("ij,ij->j", centred, centred, dtype=np.float64) / len(layer)
    total_std = float(np.sqrt(variances.sum()))
    std = np.sqrt(np.where(variances > 0, variances, 1.0)).astype(np.float32)
    scale = 1.0 / total_std if scale_layer and total_std > 0 else 1.0
    if n_components is None:
        return LayerProjection(mean, std, scale, None)
    n_components = min(n_components, *layer.shape)
    pca = PCA(n_components, svd_solver="covariance_eigh", random_state=random_state)
    with np.errstate(invalid="ignore"):  # a constant layer has no variance to explain
        components = pca.fit(centred).components_
    # In C order, as a file brings it back: another order would take another path through BLAS.
    scaled = np.ascontiguousarray(components * scale, np.float32)
    return LayerProjection(mean, std, scale, scaled)


# In double precision: K-means magnifies rounding errors. In single, a last digit that differs, as
# between machines or numbers of threads, gave other words altogether.


def _kmeans(samples: np.ndarray, n_codewords: int, random_state: int) -> np.ndarray:
    kmeans = KMeans(n_codewords, n_init=1, max_iter=100, random_state=random_state)
    with warnings.catch_warnings():
        # Flat images have fewer distinct hypercolumns than words; then words repeat, which is fine.
        warnings.simplefilter("ignore", ConvergenceWarning)
        kmeans.fit(samples.astype(np.float64))
    return np.ascontiguousarray(kmeans.cluster_centers_, np.float32)


def _start(samples: np.ndarray, n_codewords: int, random_state: int) -> np.ndarray:
    # One thread: its products are small. On a busy machine two waited for each other ten times as
    # long as one took.
    with threadpool_limits(1, user_api="blas"):
        words, _ = kmeans_plusplus(
            samples.astype(np.float64), n_codewords, random_state=random_state
        )
    return np.ascontiguousarray(words, np.float32)
