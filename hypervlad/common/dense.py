"""Small networks of dense layers, whose weights come with the package."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray


def stored_arrays(source: Traversable) -> dict[str, NDArray[np.float32]]:
    """Return the arrays of an .npz file, in single precision."""
    with source.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
        return {name: stored[name].astype(np.float32) for name in stored.files}


class DenseLayers:
    """Layers by name: ``NAME.weight`` (n_out, n_in) and ``NAME.bias`` (n_out,), as of torch."""

    def __init__(self, weights: Mapping[str, NDArray[np.float32]]) -> None:
        self.weights = weights

    @classmethod
    @cache
    def stored(cls, package: str, name: str) -> Self:
        return cls(stored_arrays(files(package) / name))

    def layer(self, name: str, values: NDArray[Any]) -> NDArray[Any]:
        return values @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def hidden(self, values: NDArray[Any], *names: str) -> NDArray[Any]:
        """Return the output of layers one after the other, each rectified."""
        for name in names:
            values = np.maximum(self.layer(name, values), 0)
        return values
