"""The encoder's parameters: checks of them, and those that stay as they were in ``fit``."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import numpy as np
import torch

from hypervlad.backbones import Backbone, get_backbone
from hypervlad.codebook import check_kind
from hypervlad.images import ReadOptions
from hypervlad.images.options import make_options
from hypervlad.vlad import NORMALIZATIONS, Normalization


def check_count(name: str, value: Any, minimum: int = 1) -> int:
    """Return ``value`` as an int of at least ``minimum``."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < minimum:
        raise ValueError(f"{name} must be a whole number of at least {minimum}, not {value!r}")
    return int(value)


def plain(value: Any) -> Any:
    """Return a number of numpy's as Python's own, which JSON knows; else what came."""
    return value.item() if isinstance(value, np.generic) else value


def check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Raise unless ``value`` is one of ``choices``."""
    if not (isinstance(value, str) and value in choices):
        listed = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"{name} must be one of {listed}, not {value!r}")


def check_pixel_size(pixel_size: Any) -> float | None:
    """Return nanometres per pixel as a float; None means no common scale."""
    if pixel_size is None:
        return None
    is_number = isinstance(pixel_size, numbers.Real) and not isinstance(pixel_size, bool)
    if not (is_number and math.isfinite(pixel_size) and pixel_size > 0):
        raise ValueError(
            f"pixel_size must be None or nanometres per pixel, a number above 0, not {pixel_size!r}"
        )
    return float(pixel_size)


def check_grid(grid: Any, codebook: str) -> None:
    """Raise unless ``grid`` names a grid or is a number of random pixels."""
    if isinstance(grid, str):
        check_choice("grid", grid, ("finest", "image", "own"))
        if grid == "own" and codebook != "per_layer":
            raise ValueError(
                'grid="own" assigns each layer at its own resolution, which only '
                'codebook="per_layer" can do; a joint codebook needs one grid for all layers: '
                '"finest", "image" or a number of random pixels'
            )
        return
    try:
        check_count("grid", grid)
    except ValueError:
        raise ValueError(
            'grid must be "finest", "image", "own" or a number of random pixels an image, '
            f"not {grid!r}"
        ) from None


def check_turns(turns: Any) -> None:
    """Raise unless ``turns`` is 1, 2, 4 or 8; 2.0 is no number of turns."""
    whole = isinstance(turns, numbers.Integral) and not isinstance(turns, bool)
    if not whole or turns not in (1, 2, 4, 8):
        raise ValueError(f"turns must be 1, 2, 4 or 8, not {turns!r}")


def check_normalize(normalize: Any) -> tuple[Normalization, ...]:
    """Return the steps of normalisation as a tuple; None and an empty one mean none."""
    steps = () if normalize is None else normalize
    steps = (steps,) if isinstance(steps, str) else tuple(steps)
    for step in steps:
        check_choice("each step of normalize", step, NORMALIZATIONS)
    return steps


def check_read_options(read_options: Any) -> ReadOptions:
    """Return reading options given as None, a dict or a ReadOptions."""
    if read_options is None:
        return ReadOptions()
    if isinstance(read_options, ReadOptions):
        return read_options
    if isinstance(read_options, Mapping):
        return make_options(dict(read_options))
    raise ValueError(
        'read_options must be a dict such as {"banner": "remove"} or a ReadOptions, '
        f"not {type(read_options).__name__}"
    )


def check_device(device: Any) -> torch.device:
    """Return a torch device; "auto" is the GPU where there is one."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f'device must be "auto", "cpu" or "cuda", not {device!r}') from error
    if chosen.type not in ("cpu", "cuda"):
        raise ValueError(f'device must be "auto", "cpu" or "cuda", not {device!r}')
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f'device={device!r}: torch sees no GPU here; use device="auto" or "cpu"')
    return torch.empty(0, device=chosen).device  # "cuda" becomes "cuda:0"


def check_what_decides(encoder: Any, backbone: Backbone) -> None:
    """Check the parameters that decide a vector; those with a value to return are checked there."""
    check_count("n_codewords", encoder.n_codewords)
    check_count("n_samples", encoder.n_samples)
    if encoder.image_size is not None:
        check_count("image_size", encoder.image_size, backbone.preprocessing.minimum_size)
    if encoder.layer_components is not None:
        check_count("layer_components", encoder.layer_components)
    check_choice("aspect", encoder.aspect, ("square", "own"))
    check_turns(encoder.turns)
    for name in ("pooled", "scale_layers"):
        value = getattr(encoder, name)
        if not isinstance(value, bool | np.bool_):
            raise ValueError(f"{name} must be True or False, not {value!r}")
    check_choice("kmeans", encoder.kmeans, ("lloyd", "minibatch"))
    check_kind(encoder.codebook)
    check_grid(encoder.grid, encoder.codebook)


def check_run(encoder: Any) -> None:
    """Check what may change between calls."""
    check_device(encoder.device)
    check_choice("on_error", encoder.on_error, ("raise", "skip"))
    if encoder.batch_size != "auto":
        check_count("batch_size", encoder.batch_size)


@dataclass(frozen=True)
class EncoderParams:
    """The parameters of an encoder that must not change after ``fit``.

    What a user sets later takes effect at the next ``fit``: a codebook means nothing with another
    grid or scale, and a classifier nothing with other vectors. All fields are plain Python values,
    as in :class:`hypervlad.HypercolumnVLAD`; weights and taps are fitted attributes of their own.
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
    pooled: bool
    n_samples: int
    read_options: ReadOptions

    @classmethod
    def of(cls, encoder: Any) -> EncoderParams:
        """Check an encoder's parameters and keep them.

        Raises
        ------
        ValueError
            That names the first parameter that is unusable.
        """
        check_what_decides(encoder, get_backbone(encoder.backbone))
        values = {field.name: plain(getattr(encoder, field.name)) for field in fields(cls)}
        values |= {
            "pixel_size": check_pixel_size(encoder.pixel_size),
            "normalize": check_normalize(encoder.normalize),
            "read_options": check_read_options(encoder.read_options),
        }
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return the parameters as JSON knows them."""
        return asdict(self) | {"normalize": list(self.normalize)}
