"""How images become the input of a network: resized, antialiased, and normalised."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from scipy.sparse import csr_array

from hypervlad.common.constraints import Constraint, Integer, ListOf, Number, OneOf, check_value
from hypervlad.features.lazy_torch import torch

_FIELDS: Mapping[str, Constraint] = {
    "mean": ListOf(Number(at_least=-1e6, at_most=1e6), "a number for each channel"),
    "std": ListOf(Number(at_least=1e-6, at_most=1e6), "a number for each channel"),
    "minimum_size": Integer(meaning="a whole number of pixels"),
    "interpolation": OneOf("bilinear", "bicubic"),
    "version": Integer(),
}


@dataclass(frozen=True)
class Preprocessing:
    """How pixels in [0, 1] are prepared for a network.

    Parameters
    ----------
    mean, std : tuple of float
        Of each channel of the input, by default those of ImageNet's three; one value means that the
        network takes grey images.
    minimum_size : int, default=32
        Shortest image side that the network takes, in pixels.
    interpolation : {"bilinear", "bicubic"}, default="bilinear"
        How images are resized, antialiased.
    version : int, default=2
        Increased when the arithmetic changes.
    """

    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    minimum_size: int = 32
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    version: int = 2

    def __post_init__(self) -> None:
        for name, allowed in _FIELDS.items():
            check_value(name, getattr(self, name), [allowed])
        if len(self.mean) != len(self.std):
            raise ValueError(f"{len(self.mean)} means and {len(self.std)} standard deviations")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON knows them."""
        return asdict(self) | {"mean": list(self.mean), "std": list(self.std)}

    def prepare(self, pixels: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
        """Resize an image (H, W) or (H, W, 3) and normalise it: (C, height, width)."""
        # Without torch, whose threads wait actively after each small step and hold up other work.
        image = pixels if pixels.ndim == 3 else pixels[:, :, None]
        if image.shape[:2] != size:
            image = _resized(image, size, self.interpolation)
        if image.shape[2] != len(self.mean):
            image = image.mean(axis=2, keepdims=True)
        mean, std = (np.array(each, np.float32)[:, None, None] for each in (self.mean, self.std))
        tensor = np.subtract(np.moveaxis(image, 2, 0), mean, order="C")
        return torch.from_numpy(np.divide(tensor, std, out=tensor))

    def normalised(self, images: torch.Tensor) -> torch.Tensor:
        """Normalise images (..., C, H, W) in [0, 1], channel by channel."""
        mean, std = self._by_channel(images.device)
        return (images - mean) / std

    def grey_levels(self, images: torch.Tensor) -> torch.Tensor:
        """Undo `normalised`: return images (..., C, H, W) in [0, 1]."""
        mean, std = self._by_channel(images.device)
        return images * std + mean

    def _by_channel(self, device: torch.device) -> Iterator[torch.Tensor]:
        return (torch.tensor(v, device=device)[:, None, None] for v in (self.mean, self.std))


def prepare_mask(mask: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
    """Resize a mask (H, W) like its image: its share of each pixel, (height, width)."""
    shares = mask[:, :, None].astype(np.float32)
    if mask.shape != size:
        shares = _resized(shares, size, "bilinear")
    return torch.from_numpy(np.ascontiguousarray(shares[:, :, 0]))


def _resized(image: np.ndarray, size: tuple[int, int], mode: str) -> np.ndarray:
    """Resize an image (H, W, C) to (height, width, C), antialiased, as Pillow and torch do."""
    for n_out in size:
        if len(image) != n_out:
            rows = axis_weights(len(image), n_out, mode) @ image.reshape(len(image), -1)
            image = rows.reshape(n_out, *image.shape[1:])
        image = np.ascontiguousarray(image.swapaxes(0, 1))
    # Bicubic interpolation overshoots at edges.
    return image.clip(0, 1) if mode == "bicubic" else image


@functools.lru_cache(256)  # particles have as many sizes
def axis_weights(n_in: int, n_out: int, mode: str) -> csr_array:
    """Return the weights (n_out, n_in) that resize an axis; rows sum to 1.

    A triangle, or for "bicubic" Keys' cubic with -0.5, widened by ``n_in / n_out`` if above 1.
    """
    scale = n_in / n_out
    width = max(scale, 1.0)
    reach = width if mode == "bilinear" else 2 * width
    centre = ((np.arange(n_out) + 0.5) * scale)[:, None]
    columns = np.floor(centre - reach).astype(int) + np.arange(math.ceil(2 * reach) + 2)
    distance = np.abs(columns + 0.5 - centre) / width
    weights = np.maximum(1 - distance, 0) if mode == "bilinear" else _cubic(distance)
    weights[(columns < 0) | (columns >= n_in)] = 0.0
    weights /= weights.sum(axis=1, keepdims=True)
    row, column = np.nonzero(weights)
    entries = weights[row, column].astype(np.float32), (row, columns[row, column])
    return csr_array(entries, shape=(n_out, n_in))


def _cubic(x: np.ndarray) -> np.ndarray:
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))
