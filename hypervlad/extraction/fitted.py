"""The encoder of a fitted model, and a digest of all that its vectors depend on."""

from __future__ import annotations

import copy
import os
from dataclasses import asdict
from typing import Any

from sklearn.utils.validation import check_is_fitted

from hypervlad.cache import Memory, absolute, cache_key
from hypervlad.encoder import HypercolumnVLAD
from hypervlad.encoder.parameters import check_run
from hypervlad.encoder.spreading import from_anywhere


def fitted_encoder(encoder: Any, memory: Memory) -> HypercolumnVLAD:
    """Return the encoder of a fitted model, with another memory if one is given.

    Raises
    ------
    ValueError
        If it is neither a HypercolumnVLAD nor a model with one.
    """
    if isinstance(encoder, str | os.PathLike):
        name = os.fspath(encoder)
        raise TypeError(f"encoder must be a fitted model, not a path; give load({name!r})")
    found = encoder if isinstance(encoder, HypercolumnVLAD) else getattr(encoder, "encoder_", None)
    if not isinstance(found, HypercolumnVLAD):
        check_is_fitted(encoder)
        raise ValueError(
            "encoder must be a fitted HypercolumnVLAD or MicrographClassifier, not "
            f"{type(encoder).__name__}"
        )
    check_is_fitted(found)
    own = copy.copy(found)
    network = getattr(found, "_tapped_network", None)
    if network is not None:
        own._tapped_network = network
    own.memory = absolute(own.memory if memory is None else memory)
    own.weights = from_anywhere(own.weights)
    check_run(own)
    return own


def digest_of(encoder: Any) -> str:
    """Return a digest of all that a fitted encoder's vectors depend on but the images."""
    fitted = fitted_encoder(encoder, None)
    reading = {"reading": asdict(fitted.fitted_params_.read_options)}
    return cache_key(fitted.fingerprint() | reading)
