"""The codebook: projections and codewords learnt from a pool of hypercolumns, as plain arrays."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, NamedTuple

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from hypervlad.common.constraints import Number
from hypervlad.common.limits import MAX_CODEBOOK_VALUE
from hypervlad.common.progress import ProgressBar, one_blas_thread
from hypervlad.common.stored import Array, Each, Maybe, Part, StoredPart, Value
from hypervlad.common.wording import counted
from hypervlad.objects.measures import SHAPE_MEASURES

_MIN_ROWS_PER_STEP = 1024  # of minibatch K-means: scikit-learn's own default
# Of K-means. Another 70 steps lower the distances by less than another seed changes them.
_MAX_ITER = 30


class Sampling(NamedTuple):
    n_samples: int = 20_000  # hypercolumns in the pool
    n_components: int | None = 32  # principal components of each layer; None keeps all channels
    is_scaled: bool = True  # each layer is divided by its total standard deviation
    is_minibatch: bool = False  # the pool gives initial codewords, all images the final ones

    @classmethod
    def of(cls, sampling: int | str) -> Sampling:
        return SAMPLINGS[sampling] if isinstance(sampling, str) else cls(sampling)


#: Of windows of images, and of papers: see :class:`hypervlad.HypercolumnVLAD`.
SAMPLINGS = {
    "windows": Sampling(n_components=16),
    "luo2021": Sampling(50_000, n_components=None, is_scaled=False, is_minibatch=True),
    "anyloc": Sampling(n_components=None, is_scaled=False),
}

_VECTOR = Array("float32", 1, -MAX_CODEBOOK_VALUE, MAX_CODEBOOK_VALUE)
_MATRIX = Array("float32", 2, -MAX_CODEBOOK_VALUE, MAX_CODEBOOK_VALUE)
_DEVIATIONS = Array("float32", 1, 1 / MAX_CODEBOOK_VALUE, MAX_CODEBOOK_VALUE)
_SCALE = Value(float, Number(above=0, at_most=MAX_CODEBOOK_VALUE))


@dataclass(frozen=True, eq=False)
class LayerProjection(StoredPart):
    """The affine step of one layer: ``(x - mean) @ components.T``, or ``(x - mean) * scale``."""

    mean: Annotated[np.ndarray, _VECTOR]  # over the pool, (C_l,)
    std: Annotated[np.ndarray, _DEVIATIONS]  # (C_l,), 1 for constant channels
    scale: Annotated[float, _SCALE] = 1.0
    # (d_l, C_l), with the scale already in it
    components: Annotated[np.ndarray | None, Maybe(_MATRIX)] = None

    def __post_init__(self) -> None:
        n, components = len(self.mean), self.components
        fits = components is None or (len(components) and components.shape[1] == n)
        if not n or len(self.std) != n or not fits:
            shape = None if components is None else components.shape
            raise ValueError(
                f"a projection of {n} channels has {len(self.std)} deviations, and components of "
                f"shape {shape}"
            )

    def apply(self, features: np.ndarray) -> np.ndarray:
        """Project features (n, C_l) to (n, d_l)."""
        centred: np.ndarray = features - self.mean
        return centred * self.scale if self.components is None else centred @ self.components.T


_PROJECTION = Part(LayerProjection)


@dataclass(frozen=True, eq=False)
class Codebook(StoredPart):
    """Projections and codewords."""

    # Of the layers with codewords
    projections: Annotated[tuple[LayerProjection, ...], Each(_PROJECTION)]
    joint: Annotated[np.ndarray | None, Maybe(_MATRIX)] = None  # (K, sum of d_l)
    per_layer: Annotated[tuple[np.ndarray, ...], Each(_MATRIX)] = ()  # (K, d_l) each
    # Of class tokens, the last layers
    only_pooled: Annotated[tuple[LayerProjection, ...], Each(_PROJECTION)] = ()
    # Of the measures of particles' outlines
    shape: Annotated[LayerProjection | None, Maybe(_PROJECTION)] = None

    @property
    def codewords(self) -> tuple[np.ndarray, ...]:
        """All codewords: the joint ones, if any, then each layer's."""
        return self.per_layer if self.joint is None else (self.joint, *self.per_layer)

    def names(self, taps: Sequence[str]) -> list[str]:
        """Return the names of `codewords`, for explanations."""
        names = [] if self.joint is None else ["joint"]
        layers = taps[: len(self.projections)] if self.per_layer else ()
        return names + [f"per_layer.{tap}" for tap in layers]

    def block_widths(self, *, is_pooled: bool) -> dict[str, int]:
        """Return the blocks of a vector, and how many features each has."""
        widths = {} if self.joint is None else {"joint": self.joint.size}
        if self.per_layer:
            widths["per_layer"] = sum(words.size for words in self.per_layer)
        if is_pooled:
            every = (*self.projections, *self.only_pooled)
            widths["pooled"] = sum(len(layer.mean) for layer in every)
        if self.shape is not None:
            widths["shape"] = len(self.shape.mean)
        return widths

    @property
    def spans(self) -> tuple[slice, ...]:
        """The layers that each array of codewords covers."""
        each = tuple(slice(i, i + 1) for i in range(len(self.per_layer)))
        return each if self.joint is None else (slice(None), *each)

    def with_codewords(self, codewords: Sequence[np.ndarray]) -> Codebook:
        if self.joint is None:
            return replace(self, per_layer=tuple(codewords))
        return replace(self, joint=codewords[0], per_layer=tuple(codewords[1:]))

    def project(self, layers: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Project features, (n, C_l) per layer, into the space of each array of codewords."""
        return _spaces(self.projections, layers[: len(self.projections)], self.spans)

    def check(
        self,
        n_layers: int,
        n_codewords: int,
        blocks: Sequence[str],
        n_components: int | None,
        n_only_pooled: int = 0,
    ) -> None:
        """Raise a ValueError unless a codebook from a file is one of `learn_codebook`'s."""
        widths = []
        for own in self.projections:
            n_own = None if own.components is None else len(own.components)
            if (n_own is None) != (n_components is None) or (n_own or 0) > (n_components or 0):
                n = n_components or "no"
                raise ValueError(f"a projection to {n_own} components does not fit {n} components")
            widths.append(len(own.mean) if n_own is None else n_own)
        n_measures = 0 if self.shape is None else len(self.shape.mean)
        if n_measures != (len(SHAPE_MEASURES) if "shape" in blocks else 0):
            raise ValueError(f"{n_measures} measures of particles do not fit the blocks {blocks}")
        if len(self.only_pooled) != n_only_pooled:
            raise ValueError(
                f"{len(self.only_pooled)} layers without codewords; expected {n_only_pooled}"
            )
        joint = [(n_codewords, sum(widths))] if "joint" in blocks else []
        each = [(n_codewords, width) for width in widths] if "per_layer" in blocks else []
        shapes = [words.shape for words in self.codewords]
        has_joint = self.joint is not None
        if len(widths) != n_layers or shapes != joint + each or has_joint != bool(joint):
            raise ValueError(
                f"codewords of shapes {shapes} for {len(widths)} layers; expected {joint + each} "
                f"for {n_layers}"
            )


def _spaces(
    projections: Sequence[LayerProjection], layers: Sequence[np.ndarray], spans: Sequence[slice]
) -> list[np.ndarray]:
    """Project features, (n, C_l) per layer, and stack the layers of each span."""
    projected = [p.apply(layer) for p, layer in zip(projections, layers, strict=True)]
    return [np.concatenate(projected[span], axis=1) for span in spans]


class HypercolumnPool:
    """A bounded, order-independent sample of hypercolumns: images stay or go by their digest."""

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
    blocks: Sequence[str] = ("joint",),
    n_components: int | None = 32,
    is_scaled: bool = True,
    start_only: bool = False,
    n_only_pooled: int = 0,
    random_state: int = 0,
    verbose: bool = False,
) -> Codebook:
    """Learn projections and codewords from hypercolumns, a block (n, C_l) per layer.

    With ``start_only``, codewords are those with which K-means starts. The last ``n_only_pooled``
    layers get none. Other parameters are those of `Sampling` and :class:`HypercolumnVLAD`.
    """
    n_samples = len(layers[0])
    _check_enough(n_samples, n_codewords)
    n_layers = len(layers) - n_only_pooled
    layers, only_pooled = layers[:n_layers], layers[n_layers:]
    whole = [slice(None)] if "joint" in blocks else []
    each = [slice(i, i + 1) for i in range(len(layers))] if "per_layer" in blocks else []
    learn = _start if start_only else _kmeans
    # Products are small, except for one in each layer's components; K-means has own threads.
    with one_blas_thread():
        projections = tuple(
            _learn_projection(layer, n_components, is_scaled, random_state)
            for layer in ProgressBar(layers, desc="components", unit="layer", shown=verbose)
        )
        spaces = _spaces(projections, layers, [*whole, *each])
        shown = ProgressBar(spaces, desc="codewords", unit="codebook", shown=verbose)
        codewords = [learn(space, n_codewords, random_state) for space in shown]
    joint = codewords.pop(0) if whole else None
    moments = (_moments(layer)[:2] for layer in only_pooled)
    averages = tuple(LayerProjection(*each) for each in moments)
    return Codebook(projections, joint, tuple(codewords), averages)


def learn_scales(measures: np.ndarray) -> LayerProjection:
    """Return the means and deviations of the measures of outlines, (n, 7)."""
    mean, std, _, _ = _moments(measures.astype(np.float32))
    return LayerProjection(mean, std)


def _check_enough(n_samples: int, n_codewords: int) -> None:
    if n_samples < n_codewords:
        raise ValueError(
            f"{n_codewords} codewords cannot be learnt from {counted(n_samples, 'hypercolumn')}: "
            "give more or larger images, sample more of them (sampling=), or ask for fewer "
            "codewords (n_codewords=)"
        )


def _learn_projection(
    layer: np.ndarray, n_components: int | None, scale_layer: bool, random_state: int
) -> LayerProjection:
    mean, std, total_std, centred = _moments(layer)
    scale = 1.0 / total_std if scale_layer and total_std > 0 else 1.0
    if n_components is None:
        return LayerProjection(mean, std, scale)
    from sklearn.decomposition import PCA  # not above: only learning needs it, and K-means below

    n_components = min(n_components, *layer.shape)
    pca = PCA(n_components, svd_solver="covariance_eigh", random_state=random_state)
    with np.errstate(invalid="ignore"):  # a constant layer has no variance to explain
        components = pca.fit(centred).components_
    # In C order, as after loading from a file: BLAS treats other orders differently.
    scaled = np.ascontiguousarray(components * scale, np.float32)
    return LayerProjection(mean, std, scale, scaled)


def _moments(layer: np.ndarray) -> tuple[np.ndarray, np.ndarray, float, np.ndarray]:
    """Return channels' means and deviations (1 if constant), total deviation, and residuals."""
    mean = layer.mean(axis=0, dtype=np.float64).astype(np.float32)
    centred = layer - mean
    variances = np.einsum("ij,ij->j", centred, centred, dtype=np.float64) / len(layer)
    std = np.sqrt(np.where(variances > 0, variances, 1.0)).astype(np.float32)
    return mean, std, float(np.sqrt(variances.sum())), centred


# In double precision: K-means magnifies rounding errors. In single, another last digit, as
# between machines or numbers of threads, gave entirely different codewords.


def _kmeans(samples: np.ndarray, n_codewords: int, random_state: int) -> np.ndarray:
    from sklearn.cluster import KMeans

    kmeans = KMeans(n_codewords, n_init=1, max_iter=_MAX_ITER, random_state=random_state)
    with warnings.catch_warnings():
        # Flat images have fewer distinct hypercolumns than codewords; repeated ones are fine.
        warnings.simplefilter("ignore", ConvergenceWarning)
        kmeans.fit(samples.astype(np.float64))
    return np.ascontiguousarray(kmeans.cluster_centers_, np.float32)


def _start(samples: np.ndarray, n_codewords: int, random_state: int) -> np.ndarray:
    from sklearn.cluster import kmeans_plusplus

    codewords, _ = kmeans_plusplus(
        samples.astype(np.float64), n_codewords, random_state=random_state
    )
    return np.ascontiguousarray(codewords, np.float32)


class StreamedCodewords:
    """Minibatch K-means over a stream of samples, from a codebook whose projections are kept.

    Each image is a step of scikit-learn's :class:`~sklearn.cluster.MiniBatchKMeans`; images of few
    samples wait for each other. The order of images matters.
    """

    def __init__(self, start: Codebook, random_state: int) -> None:
        from sklearn.cluster import MiniBatchKMeans

        self._start = start
        self._waiting: list[list[np.ndarray]] = []
        self._n_waiting = 0
        self._learners = [
            MiniBatchKMeans(len(each), init=each, n_init=1, random_state=random_state)
            for each in start.codewords
        ]
        self.n_samples = 0

    def add(self, blocks: list[np.ndarray]) -> None:
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
        """Return the refined codebook; a ValueError if samples are fewer than codewords."""
        _check_enough(self.n_samples + self._n_waiting, len(self._start.codewords[0]))
        if self._waiting:
            self._step()
        codewords = [
            np.ascontiguousarray(learner.cluster_centers_, np.float32) for learner in self._learners
        ]
        return self._start.with_codewords(codewords)
