"""The encoder's parameters: checks, those that stay as they were in ``fit``, and what runs it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib.util import find_spec
from typing import Any, Literal, TypeAlias

import numpy as np

from hypervlad.common.constraints import (
    Alternatives,
    InstanceOf,
    Integer,
    ListOf,
    Number,
    OneOf,
    RandomState,
)
from hypervlad.common.progress import n_announced
from hypervlad.features.backbones import get_backbone
from hypervlad.features.codebook import SAMPLINGS, Sampling
from hypervlad.images import ReadOptions
from hypervlad.images.options import check_read_options

Block: TypeAlias = Literal["joint", "per_layer", "pooled", "pooled_unit"]
Runtime: TypeAlias = Literal["torch", "openvino"]

#: Of the parameters of :class:`hypervlad.HypercolumnVLAD`, except those with separate checks:
#: the backbone, its taps, the image size, the memory and the device.
CONSTRAINTS: dict[str, Alternatives] = {
    "weights": [InstanceOf((str, os.PathLike), '"pretrained", "micronet", "random" or a path')],
    "pixel_size": [None, Number(above=0, meaning="nanometres per pixel, a number")],
    "grid": [
        OneOf("finest", "image"),
        Integer(at_most=2**18, meaning="a number of random pixels"),
    ],
    "turns": [OneOf(1, 2, 4, 8)],
    "n_codewords": [Integer()],
    "blocks": [
        OneOf("joint", "per_layer"),
        ListOf(OneOf("joint", "per_layer", "pooled", "pooled_unit"), "a sequence", at_most=3),
    ],
    "sampling": [Integer(meaning="a number of hypercolumns"), OneOf(*SAMPLINGS)],
    "read_options": [
        None,
        InstanceOf((ReadOptions, Mapping), 'a dict such as {"banner": "remove"} or a ReadOptions'),
    ],
    "batch_size": [Integer(), None],
    "runtime": [OneOf("auto", "torch", "openvino")],
    "n_jobs": [None, Integer(), Integer(at_least=None, at_most=-1)],
    "random_state": [RandomState(), None],
    "on_error": [OneOf("raise", "skip")],
}

_OWN_SIDE = 1024  # pixels: typical of images at their own size
_MIN_PIXELS = 2**23  # 170 passes at 224 px: fewer take less time than converting a network


@dataclass(frozen=True)
class EncoderParams:
    """The parameters of an encoder that must not change after ``fit``, plain Python values.

    Weights and taps are separate fitted attributes.
    """

    backbone: str
    image_size: int | None
    pixel_size: float | None
    grid: Literal["finest", "image"] | int
    turns: int
    n_codewords: int
    blocks: tuple[Block, ...]
    sampling: int | str
    read_options: ReadOptions

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> EncoderParams:
        """Return those of an encoder from its own, which have been checked."""
        values = {field.name: parameters[field.name] for field in fields(cls)}
        for name, value in values.items():
            if isinstance(value, np.generic):
                values[name] = value.item()
        blocks, size = values["blocks"], values["pixel_size"]
        values |= {
            "pixel_size": None if size is None else float(size),
            "blocks": (blocks,) if isinstance(blocks, str) else tuple(map(str, blocks)),
            "read_options": check_read_options(values["read_options"]),
        }
        return cls(**values)

    @property
    def is_pooled(self) -> bool:
        return "pooled" in self.blocks or self.has_unit_averages

    @property
    def has_unit_averages(self) -> bool:
        return "pooled_unit" in self.blocks

    @property
    def codebook_sampling(self) -> Sampling:
        return Sampling.of(self.sampling)

    def has_much_to_do(self) -> bool:
        """Return whether the announced images are worth converting a network."""
        side = _OWN_SIDE if self.image_size is None else self.image_size
        return n_announced() * self.turns * side**2 > _MIN_PIXELS

    def automatic_runtime(self) -> Runtime:
        """Return what ``runtime="auto"`` means for the announced images."""
        backbone = get_backbone(self.backbone)
        has_own_sizes = self.image_size is None or self.pixel_size
        is_faster = (
            backbone.is_faster_in_openvino
            and not (
                has_own_sizes and backbone.is_of_timm
            )  # each size would be converted by itself
            and self.has_much_to_do()
            and find_spec("openvino") is not None
        )
        return "openvino" if is_faster else "torch"


def check_blocks(blocks: Any) -> None:
    """Raise a ValueError unless feature blocks of valid names fit together."""
    names = [blocks] if isinstance(blocks, str) else list(blocks)
    if len(set(names)) != len(names) or not {"joint", "per_layer"} & set(names):
        raise ValueError(f"blocks must contain 'joint' or 'per_layer', and each once, not {names}")
    if {"pooled", "pooled_unit"} <= set(names):
        raise ValueError("blocks contain 'pooled' and 'pooled_unit': leave one of the two out")


def check_installed(runtime: str) -> None:
    """Raise a ValueError if a runtime needs a package that is not installed."""
    if runtime == "openvino" and find_spec("openvino") is None:
        raise ValueError(
            'runtime="openvino" needs OpenVINO: pip install "hypervlad[openvino]"; "auto" uses it '
            "where it is installed"
        )
