"""A codebook's arrays: projections of the layers, and codewords."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np


class LayerProjection(NamedTuple):
    """The affine step of one layer: ``(x - mean) @ components.T``, or ``(x - mean) * scale``.

    ``mean`` and ``std``, a channel's over the pool, have shape (C_l,); the standard deviation of a
    constant channel is 1. ``components`` is (d_l, C_l) with the scale already in it, or None.
    """

    mean: np.ndarray
    std: np.ndarray
    scale: float
    components: np.ndarray | None

    def apply(self, features: np.ndarray) -> np.ndarray:
        """Project features (n, C_l) to (n, d_l)."""
        centred = features - self.mean
        return centred * self.scale if self.components is None else centred @ self.components.T


@dataclass(frozen=True)
class Codebook:
    """Projections and codewords.

    Attributes
    ----------
    projections : tuple of LayerProjection
        One a tapped layer.
    joint : ndarray of shape (K, sum of d_l), float32, or None
        The codewords over all layers stacked.
    per_layer : tuple of ndarray of shape (K, d_l), float32
        Those of each layer by itself; empty if there are none.
    """

    projections: tuple[LayerProjection, ...]
    joint: np.ndarray | None = None
    per_layer: tuple[np.ndarray, ...] = ()

    @property
    def codewords(self) -> tuple[np.ndarray, ...]:
        """All of them: the joint ones, if any, then each layer's."""
        return self.per_layer if self.joint is None else (self.joint, *self.per_layer)

    @property
    def spans(self) -> tuple[slice, ...]:
        """The layers that each array of codewords covers."""
        each = tuple(slice(i, i + 1) for i in range(len(self.per_layer)))
        return each if self.joint is None else (slice(None), *each)

    def with_codewords(self, codewords: Sequence[np.ndarray]) -> Codebook:
        """Return the same kind of codebook with other codewords."""
        if self.joint is None:
            return Codebook(self.projections, None, tuple(codewords))
        return Codebook(self.projections, codewords[0], tuple(codewords[1:]))

    def project(self, layers: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Project features, (n, C_l) a layer, into the space of each array of codewords."""
        return spaces(self.projections, layers, self.spans)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return everything as named arrays, for a file."""
        arrays = {f"codewords.{i}": words for i, words in enumerate(self.per_layer)}
        if self.joint is not None:
            arrays["codewords.joint"] = self.joint
        for i, (mean, std, scale, components) in enumerate(self.projections):
            arrays[f"projection.{i}.mean"] = mean
            arrays[f"projection.{i}.std"] = std
            arrays[f"projection.{i}.scale"] = np.float64(scale).reshape(1)
            if components is not None:
                arrays[f"projection.{i}.components"] = components
        return arrays

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> Codebook:
        """Undo :meth:`to_arrays`."""
        n_layers = sum(name.endswith(".mean") for name in arrays)
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
        return cls(projections, joint, tuple(arrays[f"codewords.{i}"] for i in range(n_books)))


def spaces(
    projections: Sequence[LayerProjection], layers: Sequence[np.ndarray], spans: Sequence[slice]
) -> list[np.ndarray]:
    """Project features, (n, C_l) a layer, and stack the layers of each span."""
    projected = [p.apply(layer) for p, layer in zip(projections, layers, strict=True)]
    return [np.concatenate(projected[span], axis=1) for span in spans]


def check_kind(kind: Any) -> None:
    """Raise ValueError unless ``kind`` names a kind of codebook."""
    if kind not in ("joint", "per_layer", "both"):
        raise ValueError(f'codebook must be "joint", "per_layer" or "both", not {kind!r}')
