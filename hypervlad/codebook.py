"""The codebook: what is learnt from a pool of hypercolumns, as plain arrays.

Each layer is centred, scaled and, if asked, projected on its principal components; K-means then
finds the codewords, either in the stacked space of all layers or in each layer's own.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
from sklearn.cluster import KMeans, MiniBatchKMeans, kmeans_plusplus
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from hypervlad.base import Array
from hypervlad.terminal import ProgressBar
from hypervlad.wording import counted

# Rows that a step of minibatch K-means waits for: scikit-learn's own default. An image of the usual
# 5,000 pixels is one step.
_MIN_ROWS_PER_STEP = 1024
_MAX_VALUE = 1e20  # of a codebook in a file
# Of K-means. Another 70 steps lower the distances by less than another seed changes them.
_MAX_ITER = 30


class LayerProjection(NamedTuple):
    """The affine step of one layer: ``(x - mean) @ components.T``, or ``(x - mean) * scale``.

    ``mean`` and ``std`` of each channel over the pool have shape (C_l,); the standard deviation of
    a constant channel is 1. ``components`` is (d_l, C_l) with the scale already in it, or None.
    """

    mean: np.ndarray
    std: np.ndarray
    scale: float
    components: np.ndarray | None

    def apply(self, features: np.ndarray) -> np.ndarray:
        """Project features (n, C_l) to (n, d_l)."""
        centred: np.ndarray = features - self.mean
        return centred * self.scale if self.components is None else centred @ self.components.T


@dataclass(frozen=True)
class Codebook:
    """Projections and codewords.

    Attributes
    ----------
    projections : tuple of LayerProjection
        One per layer that has codewords.
    joint : ndarray of shape (K, sum of d_l), float32, or None
        The codewords over all layers stacked.
    per_layer : tuple of ndarray of shape (K, d_l), float32
        The codewords of each layer alone; empty if there are none.
    only_pooled : tuple of LayerProjection
        Of the layers after those, class tokens, which have no codewords.
    """

    projections: tuple[LayerProjection, ...]
    joint: np.ndarray | None = None
    per_layer: tuple[np.ndarray, ...] = ()
    only_pooled: tuple[LayerProjection, ...] = ()

    @property
    def n_pooled(self) -> int:
        """The channels of all layers."""
        return sum(len(layer.mean) for layer in (*self.projections, *self.only_pooled))

    @property
    def codewords(self) -> tuple[np.ndarray, ...]:
        """All codewords: the joint ones, if any, then each layer's."""
        return self.per_layer if self.joint is None else (self.joint, *self.per_layer)

    @property
    def spans(self) -> tuple[slice, ...]:
        """The layers that each array of codewords covers."""
        each = tuple(slice(i, i + 1) for i in range(len(self.per_layer)))
        return each if self.joint is None else (slice(None), *each)

    def with_codewords(self, codewords: Sequence[np.ndarray]) -> Codebook:
        """Return the same kind of codebook with other codewords."""
        if self.joint is None:
            return replace(self, per_layer=tuple(codewords))
        return replace(self, joint=codewords[0], per_layer=tuple(codewords[1:]))

    def project(self, layers: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Project features, (n, C_l) per layer, into the space of each array of codewords."""
        return _spaces(self.projections, layers[: len(self.projections)], self.spans)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return everything as named arrays, for a file."""
        arrays = {f"codewords.{i}": each for i, each in enumerate(self.per_layer)}
        if self.joint is not None:
            arrays["codewords.joint"] = self.joint
        for i, (mean, std, scale, components) in enumerate(self.projections):
            arrays[f"projection.{i}.mean"] = mean
            arrays[f"projection.{i}.std"] = std
            arrays[f"projection.{i}.scale"] = np.float64(scale).reshape(1)
            if components is not None:
                arrays[f"projection.{i}.components"] = components
        for i, layer in enumerate(self.only_pooled):
            arrays |= {f"only_pooled.{i}.mean": layer.mean, f"only_pooled.{i}.std": layer.std}
        return arrays

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> Codebook:
        """Undo :meth:`to_arrays`."""
        n_only_pooled, n_layers = (
            sum(name.startswith(kind) and name.endswith(".mean") for name in arrays)
            for kind in ("only_pooled.", "projection.")
        )
        projections = tuple(
            LayerProjection(
                arrays[f"projection.{i}.mean"],
                arrays[f"projection.{i}.std"],
                float(arrays[f"projection.{i}.scale"][0]),
                arrays.get(f"projection.{i}.components"),
            )
            for i in range(n_layers)
        )
        joint = arrays.get("codewords.joint")
        n_books = sum(name.startswith("codewords.") for name in arrays) - (joint is not None)
        if joint is None and not n_books:
            raise KeyError("codewords")
        per_layer = tuple(arrays[f"codewords.{i}"] for i in range(n_books))
        only_pooled = (
            LayerProjection(
                arrays[f"only_pooled.{i}.mean"], arrays[f"only_pooled.{i}.std"], 1.0, None
            )
            for i in range(n_only_pooled)
        )
        return cls(projections, joint, per_layer, tuple(only_pooled))

    def check(
        self,
        n_layers: int,
        n_codewords: int,
        kind: Literal["joint", "per_layer", "both"],
        layer_components: int | None,
        n_only_pooled: int = 0,
    ) -> None:
        """Raise a ValueError unless a codebook from a file is one of these parameters.

        Parameters
        ----------
        n_layers : int
            With codewords.
        n_only_pooled : int, default=0
            Layers without them.
        n_codewords, kind, layer_components
            As given to `learn_codebook`.
        """
        widths = []
        for mean, std, scale, components in self.projections:
            _VECTOR.checked(mean, "mean")
            _DEVIATIONS.checked(std, "std")
            if components is not None:
                _MATRIX.checked(components, "components")
            n_channels, shape = len(mean), None if components is None else components.shape
            if (
                not n_channels
                or len(std) != n_channels
                or not 0 < scale <= _MAX_VALUE
                or (components is None) != (layer_components is None)
                or (shape is not None and (shape[1] != n_channels or not shape[0]))
                or (shape is not None and shape[0] > (layer_components or 0))
            ):
                raise ValueError(
                    f"a projection of {n_channels} channels with components of shape {shape} and "
                    f"scale {scale} does not fit layer_components={layer_components}"
                )
            widths.append(n_channels if components is None else len(components))
        for mean, std, _, _ in self.only_pooled:
            n_channels = len(_VECTOR.checked(mean, "mean"))
            if not n_channels or len(_DEVIATIONS.checked(std, "std")) != n_channels:
                raise ValueError(f"{n_channels} means of a layer and {len(std)} deviations")
        if len(self.only_pooled) != n_only_pooled:
            raise ValueError(
                f"{len(self.only_pooled)} layers without codewords; expected {n_only_pooled}"
            )
        joint = [] if kind == "per_layer" else [(n_codewords, sum(widths))]
        each = [] if kind == "joint" else [(n_codewords, width) for width in widths]
        shapes = [_MATRIX.checked(words, "codewords").shape for words in self.codewords]
        has_joint = self.joint is not None
        if len(widths) != n_layers or shapes != joint + each or has_joint != bool(joint):
            raise ValueError(
                f"codewords of shapes {shapes} for {len(widths)} layers; expected {joint + each} "
                f"for {n_layers}"
            )


_VECTOR = Array("float32", 1, -_MAX_VALUE, _MAX_VALUE)
_MATRIX = Array("float32", 2, -_MAX_VALUE, _MAX_VALUE)
_DEVIATIONS = Array("float32", 1, 1 / _MAX_VALUE, _MAX_VALUE)


class CodebookField:
    """How a model file stores a codebook: see `hypervlad.base.Field`."""

    def pack(self, value: Codebook) -> tuple[Any, dict[str, np.ndarray]]:
        return {}, value.to_arrays()

    def unpack(self, packed: Any, arrays: dict[str, np.ndarray]) -> Codebook:
        codebook = Codebook.from_arrays(arrays)
        if unknown := arrays.keys() - codebook.to_arrays().keys():
            raise ValueError(f"unknown arrays of the codebook: {sorted(unknown)}")
        return codebook


def _spaces(
    projections: Sequence[LayerProjection], layers: Sequence[np.ndarray], spans: Sequence[slice]
) -> list[np.ndarray]:
    """Project features, (n, C_l) per layer, and stack the layers of each span."""
    projected = [p.apply(layer) for p, layer in zip(projections, layers, strict=True)]
    return [np.concatenate(projected[span], axis=1) for span in spans]


class HypercolumnPool:
    """A bounded, order-independent sample of hypercolumns from a stream of images.

    Parameters
    ----------
    capacity : int
        Maximum number of hypercolumns. Images that would overfill the pool are kept or
        dropped by their digest, so that neither order nor neighbours matter.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._blocks: dict[str, list[np.ndarray]] = {}
        self._n_rows = 0

    def add(self, digest: str, blocks: list[np.ndarray]) -> None:
        """Add one image's sample: a block (n, C_l) per layer. An image already there is ignored."""
        if digest in self._blocks:
            return
        self._blocks[digest] = blocks
        self._n_rows += len(blocks[0])
        if self._n_rows > 2 * self.capacity:
            self._thin()

    def _thin(self) -> None:
        """Drop the images of the highest digests until the pool fits, keeping at least one."""
        for digest in sorted(self._blocks, reverse=True)[:-1]:
            n_rows = len(self._blocks[digest][0])
            if self._n_rows - n_rows < self.capacity:
                break
            del self._blocks[digest]
            self._n_rows -= n_rows

    def layers(self) -> list[np.ndarray]:
        """Empty the pool: one float32 array (n, C_l) per layer, images in the order of digests."""
        self._thin()
        in_order = [self._blocks[digest] for digest in sorted(self._blocks)]
        self._blocks, self._n_rows = {}, 0
        layers: list[np.ndarray] = []
        while in_order and in_order[0]:
            # Layer by layer from the last, so that pool and result are never both whole.
            blocks_of_layer = [blocks.pop() for blocks in in_order]
            layers.append(np.concatenate(blocks_of_layer).astype("f4", copy=False))
        return layers[::-1]

    def __len__(self) -> int:
        return self._n_rows


def learn_codebook(
    layers: Sequence[np.ndarray],
    n_codewords: int,
    *,
    kind: Literal["joint", "per_layer", "both"] = "joint",
    layer_components: int | None = 32,
    scale_layers: bool = True,
    start_only: bool = False,
    n_only_pooled: int = 0,
    random_state: int = 0,
    verbose: bool = False,
) -> Codebook:
    """Learn projections and codewords from a pool of hypercolumns.

    Parameters
    ----------
    layers : sequence of ndarray of shape (n, C_l)
        Hypercolumns at the same n positions, one block per layer.
    n_codewords : int
        K, of the joint codebook or of each layer's.
    kind : {"joint", "per_layer", "both"}, default="joint"
    layer_components : int or None, default=32
        Principal components to keep per layer (fewer where a layer or the pool has fewer), or None
        for all channels.
    scale_layers : bool, default=True
        Divide each layer by its total standard deviation (the root of the sum of its channels'
        variances), so that no layer dominates the distances of a joint codebook.
    start_only : bool, default=False
        Return the initial codewords of K-means (k-means++), which :class:`StreamedCodewords`
        refines.
    n_only_pooled : int, default=0
        How many of the layers, the last ones, get no codewords.
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
    _check_enough(n_samples, n_codewords)
    hidden = None if verbose else True
    n_layers = len(layers) - n_only_pooled
    layers, only_pooled = layers[:n_layers], layers[n_layers:]
    whole = [] if kind == "per_layer" else [slice(None)]
    each = [] if kind == "joint" else [slice(i, i + 1) for i in range(len(layers))]
    learn = _start if start_only else _kmeans
    # One thread for matrix products. They are small, except for one in each layer's components, and
    # on a busy machine two threads spent ten times as long waiting for each other. K-means has
    # threads of its own.
    with threadpool_limits(1, user_api="blas"):
        projections = tuple(
            _learn_projection(layer, layer_components, scale_layers, random_state)
            for layer in ProgressBar(layers, desc="components", unit="layer", disable=hidden)
        )
        codewords = [
            learn(space, n_codewords, random_state)
            for space in ProgressBar(
                _spaces(projections, layers, [*whole, *each]),
                desc="codewords",
                unit="codebook",
                disable=hidden,
            )
        ]
    joint = codewords.pop(0) if whole else None
    moments = (_moments(layer)[:2] for layer in only_pooled)
    averages = tuple(LayerProjection(*each, 1.0, None) for each in moments)
    return Codebook(projections, joint, tuple(codewords), averages)


def _check_enough(n_samples: int, n_codewords: int) -> None:
    """Raise ValueError if there are fewer hypercolumns than codewords."""
    if n_samples < n_codewords:
        raise ValueError(
            f"{n_codewords} codewords cannot be learnt from {counted(n_samples, 'hypercolumn')}: "
            "give more or larger images, sample more of them (n_samples=), or ask for fewer "
            "codewords (n_codewords=)"
        )


def _learn_projection(
    layer: np.ndarray, n_components: int | None, scale_layer: bool, random_state: int
) -> LayerProjection:
    mean, std, total_std, centred = _moments(layer)
    scale = 1.0 / total_std if scale_layer and total_std > 0 else 1.0
    if n_components is None:
        return LayerProjection(mean, std, scale, None)
    n_components = min(n_components, *layer.shape)
    pca = PCA(n_components, svd_solver="covariance_eigh", random_state=random_state)
    with np.errstate(invalid="ignore"):  # a constant layer has no variance to explain
        components = pca.fit(centred).components_
    # In C order, as after loading from a file: BLAS treats other orders differently.
    scaled = np.ascontiguousarray(components * scale, np.float32)
    return LayerProjection(mean, std, scale, scaled)


def _moments(layer: np.ndarray) -> tuple[np.ndarray, np.ndarray, float, np.ndarray]:
    """Return each channel's mean and standard deviation (1 if constant), the total, and residuals.

    The residuals are the layer's features less their means.
    """
    mean = layer.mean(axis=0, dtype=np.float64).astype(np.float32)
    centred = layer - mean
    variances = np.einsum("ij,ij->j", centred, centred, dtype=np.float64) / len(layer)
    std = np.sqrt(np.where(variances > 0, variances, 1.0)).astype(np.float32)
    return mean, std, float(np.sqrt(variances.sum())), centred


# In double precision: K-means magnifies rounding errors. In single, another last digit, as
# between machines or numbers of threads, gave entirely different codewords.


def _kmeans(samples: np.ndarray, n_codewords: int, random_state: int) -> np.ndarray:
    kmeans = KMeans(n_codewords, n_init=1, max_iter=_MAX_ITER, random_state=random_state)
    with warnings.catch_warnings():
        # Flat images have fewer distinct hypercolumns than codewords; repeated ones are fine.
        warnings.simplefilter("ignore", ConvergenceWarning)
        kmeans.fit(samples.astype(np.float64))
    return np.ascontiguousarray(kmeans.cluster_centers_, np.float32)


def _start(samples: np.ndarray, n_codewords: int, random_state: int) -> np.ndarray:
    codewords, _ = kmeans_plusplus(
        samples.astype(np.float64), n_codewords, random_state=random_state
    )
    return np.ascontiguousarray(codewords, np.float32)


class StreamedCodewords:
    """Minibatch K-means over a stream of samples: every sample is used, few are in memory.

    Each image is one step of scikit-learn's :class:`~sklearn.cluster.MiniBatchKMeans`; images of
    few samples wait until there are enough of them. The result depends on the order of images, so
    give them in an order that is unrelated to their source, such as that of their digests.

    Parameters
    ----------
    start : Codebook
        Projections, which are kept, and initial codewords.
    random_state : int

    References
    ----------
    .. [1] D. Sculley, "Web-scale k-means clustering", WWW
       2010.
    """

    def __init__(self, start: Codebook, random_state: int) -> None:
        self._start = start
        self._waiting: list[list[np.ndarray]] = []
        self._n_waiting = 0
        self._learners = [
            MiniBatchKMeans(len(each), init=each, n_init=1, random_state=random_state)
            for each in start.codewords
        ]
        self.n_samples = 0

    def add(self, digest: str, blocks: list[np.ndarray]) -> None:
        """Add one image's sample: a block (n, C_l) per layer."""
        self._waiting.append(blocks)
        self._n_waiting += len(blocks[0])
        if self._n_waiting >= max(_MIN_ROWS_PER_STEP, len(self._start.codewords[0])):
            self._step()

    def _step(self) -> None:
        layers = [np.concatenate(blocks) for blocks in zip(*self._waiting, strict=True)]
        self.n_samples += self._n_waiting
        self._waiting, self._n_waiting = [], 0
        spaces = self._start.project(layers)
        for learner, space in zip(self._learners, spaces, strict=True):
            learner.partial_fit(space)

    def codebook(self) -> Codebook:
        """Return the refined codebook.

        Raises
        ------
        ValueError
            If there were fewer samples than codewords.
        """
        _check_enough(self.n_samples + self._n_waiting, len(self._start.codewords[0]))
        if self._waiting:
            self._step()
        codewords = [
            np.ascontiguousarray(learner.cluster_centers_, np.float32) for learner in self._learners
        ]
        return self._start.with_codewords(codewords)
