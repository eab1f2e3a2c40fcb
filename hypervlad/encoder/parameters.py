"""The encoder's parameters: checks of them, and those that stay as they were in ``fit``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np

from hypervlad.constraints import (
    Alternatives,
    Boolean,
    InstanceOf,
    Integer,
    ListOf,
    Number,
    OneOf,
    RandomState,
)
from hypervlad.images import ReadOptions
from hypervlad.images.options import check_read_options
from hypervlad.vlad import NORMALIZATIONS, Normalization

#: Of the parameters of :class:`hypervlad.HypercolumnVLAD`, except those with separate checks:
#: the backbone, its taps, the image size, the memory and the device.
CONSTRAINTS: dict[str, Alternatives] = {
    "weights": [InstanceOf((str, os.PathLike), '"pretrained", "micronet", "random" or a path')],
    "aspect": [OneOf("square", "own")],
    "pixel_size": [None, Number(above=0, meaning="nanometres per pixel, a number")],
    "grid": [
        OneOf("finest", "image", "own"),
        Integer(at_most=2**18, meaning="a number of random pixels"),
    ],
    "turns": [OneOf(1, 2, 4, 8)],
    "n_codewords": [Integer()],
    "codebook": [OneOf("joint", "per_layer", "both")],
    "layer_components": [Integer(), None],
    "scale_layers": [Boolean()],
    "kmeans": [OneOf("lloyd", "minibatch")],
    "normalize": [
        None,
        OneOf(*NORMALIZATIONS),
        ListOf(OneOf(*NORMALIZATIONS), "a sequence of at most 8 steps", at_least=0, at_most=8),
    ],
    "pooled": [Boolean(), OneOf("unit")],
    "n_samples": [Integer()],
    "read_options": [
        None,
        InstanceOf((ReadOptions, Mapping), 'a dict such as {"banner": "remove"} or a ReadOptions'),
    ],
    "batch_size": [OneOf("auto"), Integer()],
    "runtime": [OneOf("auto", "torch", "openvino")],
    "n_jobs": [None, Integer(), Integer(at_least=None, at_most=-1)],
    "random_state": [RandomState(), None],
    "on_error": [OneOf("raise", "skip")],
}


@dataclass(frozen=True)
class EncoderParams:
    """The parameters of an encoder that must not change after ``fit``.

    What a user sets later takes effect at the next ``fit``: a codebook means nothing with another
    grid or scale, and a classifier nothing with other vectors. All fields are plain Python values,
    as in :class:`hypervlad.HypercolumnVLAD`; weights and taps are separate fitted attributes.
    """

    backbone: str
    image_size: int | None
    aspect: Literal["square", "own"]
    pixel_size: float | None
    grid: Literal["finest", "image", "own"] | int
    turns: int
    n_codewords: int
    codebook: Literal["joint", "per_layer", "both"]
    layer_components: int | None
    scale_layers: bool
    kmeans: Literal["lloyd", "minibatch"]
    normalize: tuple[Normalization, ...]
    pooled: bool | Literal["unit"]
    n_samples: int
    read_options: ReadOptions

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> EncoderParams:
        """Return the fitted parameters of an encoder from its own, which have been checked."""
        values = {field.name: parameters[field.name] for field in fields(cls)}
        for name, value in values.items():
            if isinstance(value, np.generic):
                values[name] = value.item()
        steps = () if values["normalize"] is None else values["normalize"]
        values |= {
            "pixel_size": None if values["pixel_size"] is None else float(values["pixel_size"]),
            "normalize": (steps,) if isinstance(steps, str) else tuple(steps),
            "read_options": check_read_options(values["read_options"]),
        }
        return cls(**values)
