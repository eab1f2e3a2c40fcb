"""Helpers of model files that other estimators still use."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from hypervlad.backbones import backbone_names
from hypervlad.modelfile import ModelFileError


def arrays_under(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the arrays whose names begin so, by the rest of their names."""
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def plain_seed(random_state: Any) -> int | None:
    """Return a seed as JSON knows it; a generator has moved on and cannot be repeated: None."""
    return int(random_state) if isinstance(random_state, int | np.integer) else None


def check_backbone(name: Any) -> None:
    """Raise unless the backbone that a model needs is registered here."""
    if name not in backbone_names():
        raise ModelFileError(
            f"the model needs the backbone {name!r}, which is not registered here: "
            "call hypervlad.register_backbone as in training, then load again"
        )


def portable_weights(weights: str | os.PathLike[str]) -> str:
    """Make a path hold from any folder; names stay names."""
    name = os.fspath(weights)
    return name if name in ("imagenet", "random") else os.path.abspath(name)
