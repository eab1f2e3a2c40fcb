"""What decides a vector, and the vectors of a batch of prepared images and of a list of images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from importlib.util import find_spec
from typing import Any, Literal, TypeAlias

import numpy as np

from hypervlad.common.modelfile import ModelFileError
from hypervlad.common.wording import counted, name_some, verb, warn_user
from hypervlad.features import loading, vlad
from hypervlad.features.cache import Cache
from hypervlad.features.codebook import Codebook, LayerProjection, Sampling
from hypervlad.features.hypercolumns import (
    cell_weights,
    feature_maps,
    hypercolumns_at,
    positions_inside,
)
from hypervlad.features.lazy_torch import torch, usual_torch
from hypervlad.features.loading import Batch, ImageInfo, ImageLoader, LoadedImage, ReadReport
from hypervlad.features.network import TappedNetwork, architecture
from hypervlad.features.registry import Preprocessing, Runtime, get_backbone
from hypervlad.images import ReadOptions, SkippedImage
from hypervlad.images.options import check_read_options
from hypervlad.images.reading import check_one_kind, image_name

# Part of every key: increase it when the vectors or samples of an image change.
ENCODING_VERSION = 3

Block: TypeAlias = Literal["joint", "per_layer", "pooled", "pooled_unit", "shape"]


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
    def has_shape(self) -> bool:
        return "shape" in self.blocks

    def check_kind(self, images: Sequence[Any]) -> bool:
        """Return whether images are particles; a ValueError unless they can be encoded."""
        of_particles = check_one_kind(images)
        if self.has_shape and not of_particles:
            raise ValueError(
                "blocks contain 'shape', the shape of a particle, but these are whole images: cut "
                "particles out with cut_particles(image, outlines), or leave 'shape' out"
            )
        return of_particles

    @property
    def codebook_sampling(self) -> Sampling:
        return Sampling.of(self.sampling)

    @property
    def automatic_runtime(self) -> Runtime:
        """What ``runtime="auto"`` means."""
        has_one_size = self.image_size is not None and self.pixel_size is None
        return get_backbone(self.backbone).automatic_runtime(has_one_size)


def check_blocks(blocks: Any) -> None:
    names = [blocks] if isinstance(blocks, str) else list(blocks)
    if len(set(names)) != len(names) or not {"joint", "per_layer"} & set(names):
        raise ValueError(f"blocks must contain 'joint' or 'per_layer', and each once, not {names}")
    if {"pooled", "pooled_unit"} <= set(names):
        raise ValueError("blocks contain 'pooled' and 'pooled_unit': leave one of the two out")


def check_installed(runtime: str) -> None:
    if runtime == "openvino" and find_spec("openvino") is None:
        raise ValueError(
            'runtime="openvino" needs OpenVINO: pip install "hypervlad[fast]"; "auto" uses it '
            "where it is installed"
        )


def maps_fingerprint(params: EncoderParams, preprocessing: Preprocessing) -> dict[str, Any]:
    """Return what feature maps depend on, except the image and the weights."""
    return {
        "version": ENCODING_VERSION,
        "network": architecture(get_backbone(params.backbone)),
        "size": [params.image_size, params.pixel_size],
        "preprocessing": preprocessing.to_dict(),
    }


@dataclass(frozen=True, eq=False)
class EncodedImages:
    """The vectors of a list of images, and which images were read or skipped.

    Attributes
    ----------
    vectors : ndarray of shape (n_read, n_features), float32
        Of the images that could be read, in the order of the list.
    positions : ndarray of int, shape (n_read,)
        Of these images in the list.
    info : tuple of n_read ImageInfo
        Of these images.
    skipped : tuple of SkippedImage
        Images that could not be read.
    unscaled : tuple of str
        Names of images that were not resampled, as their pixel size is unknown.
    n_images : int
        Length of the list.
    n_cached : int
        Vectors that were found in ``memory``.
    blank : tuple of str
        Names of images of which all pixels are equal.
    """

    vectors: np.ndarray
    positions: np.ndarray
    info: tuple[ImageInfo, ...]
    skipped: tuple[SkippedImage, ...]
    unscaled: tuple[str, ...]
    n_images: int
    n_cached: int
    blank: tuple[str, ...] = ()

    def __repr__(self) -> str:
        n_read, width = self.vectors.shape
        return (
            f"EncodedImages({n_read} of {counted(self.n_images, 'image')} read, {width} features)"
        )

    def with_missing(self, values: Any = None, fill: Any = np.nan) -> np.ndarray:
        """Return one row for each image of the list.

        Parameters
        ----------
        values : array-like of shape (n_read, ...), optional
            Of the images that were read; by default ``vectors``.
        fill : scalar, default=NaN
            Value in the rows of skipped images.

        Returns
        -------
        ndarray of shape (n_images, ...)
        """
        found = self.vectors if values is None else np.asarray(values)
        if not self.skipped:
            return found
        rows = np.full((self.n_images, *found.shape[1:]), fill, dtype=found.dtype)
        rows[self.positions] = found
        return rows

    @property
    def is_blank(self) -> np.ndarray:
        """Whether all pixels of each image that was read are equal, (n_read,)."""
        return np.array([image.is_blank for image in self.info], dtype=bool)

    @property
    def report(self) -> ReadReport:
        """Which images were skipped, or not resampled."""
        return ReadReport(self.n_images, list(self.skipped), list(self.unscaled))

    def warn(self) -> EncodedImages:
        """Warn of skipped images, unknown pixel sizes and blank images; return the same object.

        Raises
        ------
        ImageReadError
            If no image could be read.
        """
        self.report.warn()
        if self.blank:
            warn_user(self._of_blank)
        return self

    @property
    def messages(self) -> list[str]:
        """The texts of the warnings of `warn`."""
        return [*map(str, self.report.warnings), *([self._of_blank] if self.blank else [])]

    @property
    def _of_blank(self) -> str:
        n_blank = len(self.blank)
        return (
            f"{n_blank} of {counted(self.n_images, 'image')} {verb(n_blank, 'is', 'are')} blank, "
            f"all pixels equal: {name_some(self.blank)}. What is computed from such images means "
            "nothing"
        )


class NotFiniteError(ValueError):
    """Numbers computed from an image are not finite."""


def check_finite(values: np.ndarray, images: Sequence[Any]) -> np.ndarray:
    """Return rows (n, ...) computed from n images; a NotFiniteError if some are not finite."""
    invalid = np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(axis=1))
    if len(invalid):
        raise NotFiniteError(
            f"the network's outputs are not finite for {counted(len(invalid), 'image')}, starting "
            f"with {image_name(images[invalid[0]])}: are its weights damaged, or those of another "
            "network, or is the model file not from hypervlad?"
        )
    return values


def encode_loaded(
    loaded: Iterable[tuple[int, LoadedImage]],
    report: ReadReport,
    loader: ImageLoader,
    compute: Callable[[Batch], np.ndarray],
    n_features: int,
    cache: Cache | None = None,
) -> EncodedImages:
    """Compute the vectors (B, n_features) of each batch of loaded images, without warnings.

    The stream of images fills the report; ``cache`` keeps new vectors.
    """
    vectors = np.empty((report.n_images, n_features), dtype=np.float32)
    info: dict[int, ImageInfo] = {}
    n_cached = 0

    def not_cached() -> Iterator[tuple[int, LoadedImage]]:
        nonlocal n_cached
        for position, image in loaded:
            info[position] = image.info
            if image.tensor is None:
                vectors[position] = image.cached
                n_cached += 1
            else:
                yield position, image

    for batch in loader.batches(not_cached()):
        vectors[batch.positions] = compute(batch)
        if cache is not None:
            for position, key in zip(batch.positions, batch.keys, strict=True):
                cache.keep(key, vectors[position].copy())
    positions = np.fromiter(info, dtype=np.intp)
    return EncodedImages(
        vectors if len(positions) == len(vectors) else vectors[positions],
        positions,
        tuple(info.values()),
        tuple(report.skipped),
        tuple(report.unscaled),
        report.n_images,
        n_cached,
        tuple(report.blank),
    )


# --- the vectors of a batch -----------------------------------------------------------------------


@dataclass(frozen=True)
class BatchEncoder:
    """How batches become vectors; the seed chooses pixels where ``grid`` is a number."""

    network: TappedNetwork
    codebook: TorchCodebook
    params: EncoderParams
    seed: int

    @usual_torch()
    def __call__(self, batch: Batch) -> np.ndarray:
        """Return the vectors of a batch, (B, n_features)."""
        return self.of_maps(self.turned_maps(batch), batch.outlines)

    def turned_maps(self, batch: Batch) -> Iterator[tuple[list[torch.Tensor], Batch]]:
        """Yield the maps of each turned copy; copies of few images pass the network together."""
        (n_images, _, height, width), turns = batch.tensors.shape, self.params.turns
        fitting = loading.CPU_BATCH_PIXELS // max(1, n_images * height * width)
        n_together = max(1, fitting) if height == width else 1
        for first in range(0, turns, n_together):
            copies = [batch.turned(turn) for turn in range(turns)[first : first + n_together]]
            tensors = [copy.tensors for copy in copies]
            maps = feature_maps(self.network, torch.cat(tensors) if tensors[1:] else tensors[0])
            of_copies = zip(*(layer.split(n_images) for layer in maps), strict=True)
            yield from zip(map(list, of_copies), copies, strict=True)

    def of_maps(
        self,
        copies: Iterable[tuple[list[torch.Tensor], Batch]],
        outlines: torch.Tensor | None = None,
    ) -> np.ndarray:
        """Return the vectors of images from the maps of each turned copy of their batch."""
        statistics = (self._statistics(raw, copy) for raw, copy in copies)
        sums, means = next(statistics)
        for more_sums, more_means in statistics:
            sums = [total + more for total, more in zip(sums, more_sums, strict=True)]
            means = means + more_means
        parts = [vlad.normalize(part) for part in self.codebook.by_kind(sums)]
        parts.append(finish_pooled(means / self.params.turns, self.params))
        if self.params.has_shape and outlines is not None:
            parts.append(self.codebook.standardised_outlines(outlines))
        return torch.cat(parts, dim=1).cpu().numpy()

    def _statistics(
        self, raw: list[torch.Tensor], copy: Batch
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        size, grid = (copy.tensors.shape[2], copy.tensors.shape[3]), self.params.grid
        masks = None if copy.masks is None else copy.masks.to(raw[0].device)
        is_pooled, n_images = self.params.is_pooled, len(copy.keys)
        means = self.codebook.pooled(raw, masks) if is_pooled else raw[0].new_zeros(n_images, 0)
        maps = self.codebook.project(raw)
        if isinstance(grid, str):
            return self.codebook.dense_sums(maps, grid, size, masks), means
        return self.codebook.sampled_sums(maps, self.random_points(copy), size), means

    def random_points(self, copy: Batch) -> list[np.ndarray]:
        """Choose pixels of each image, where ``grid`` is a number."""
        assert isinstance(self.params.grid, int)
        masks = [None] * len(copy.keys) if copy.masks is None else copy.masks
        n_pixels = math.prod(copy.tensors.shape[2:])
        return [
            random_pixels(self.seed, key, n_pixels, self.params.grid, mask)
            for key, mask in zip(copy.keys, masks, strict=True)
        ]


def finish_pooled(means: torch.Tensor, params: EncoderParams) -> torch.Tensor:
    if not params.has_unit_averages:
        return means
    lengths: torch.Tensor = torch.linalg.vector_norm(means, dim=1, keepdim=True)
    return means / lengths.clamp_min(1e-12)


def random_pixels(
    seed: int, key: str, n_pixels: int, n_wanted: int, mask: torch.Tensor | None = None
) -> np.ndarray:
    """Choose pixels, inside a mask (H, W) if there is one, by seed and image alone."""
    generator = np.random.default_rng([seed, int(key[:16], 16)])
    pixels: Any = n_pixels
    if mask is not None:
        pixels = np.flatnonzero(positions_inside(mask[None], (mask.shape[0], mask.shape[1])))
        n_pixels = len(pixels)
    return generator.choice(pixels, min(n_wanted, n_pixels), replace=False, shuffle=False)


# --- the codebook on a device ---------------------------------------------------------------------


class TorchCodebook:
    """A :class:`Codebook` as tensors on a device."""

    def __init__(self, codebook: Codebook, device: torch.device) -> None:
        self._codebook = codebook
        self.codewords = [torch.tensor(words, device=device) for words in codebook.codewords]
        every = (*codebook.projections, *codebook.only_pooled)
        self.layers = [_Projection(projection, device) for projection in every]

    def project(self, maps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Apply each layer's affine step: (B, h_l, w_l, d_l) of the layers with codewords."""
        pairs = list(zip(self.layers, maps, strict=True))
        return [project(layer) for project, layer in pairs[: len(self._codebook.projections)]]

    def pooled(
        self, maps: Sequence[torch.Tensor], masks: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Average each channel, standardised, over the image or its mask: (B, sum of C_l).

        Divided by the root of the number of channels, they are about as long as a VLAD vector.
        """
        parts = [layer.average(m, masks) for layer, m in zip(self.layers, maps, strict=True)]
        means = torch.cat(parts, dim=1)
        return means / math.sqrt(means.shape[1])

    def grid_size(
        self, maps: Sequence[torch.Tensor], grid: str, image_size: Sequence[int]
    ) -> tuple[int, int]:
        if grid == "image":
            return int(image_size[0]), int(image_size[1])
        return max(layer.shape[1] for layer in maps), max(layer.shape[2] for layer in maps)

    def standardised_outlines(self, outlines: torch.Tensor) -> torch.Tensor:
        """Standardise the measures of outlines (B, 7), and divide them as :meth:`pooled` does."""
        assert self._codebook.shape is not None
        device = self.codewords[0].device
        own = _Projection(self._codebook.shape, device)
        values = own.standardised(outlines.to(device))
        return values / math.sqrt(values.shape[1])

    def dense_sums(
        self,
        maps: list[torch.Tensor],
        grid: str,
        image_size: Sequence[int],
        masks: torch.Tensor | None = None,
    ) -> list[torch.Tensor]:
        """Return the residual sums (B, K, D) of every codebook over a grid, or its masks."""
        grids = self.grids(maps, grid, image_size, masks)
        return [vlad.dense_residual_sums(*each) for each in grids]

    def by_kind(self, sums: list[torch.Tensor]) -> list[list[torch.Tensor]]:
        """Separate the sums of the joint codebook from those of the layers' codebooks."""
        n_joint = 0 if self._codebook.joint is None else 1
        return [part for part in (sums[:n_joint], sums[n_joint:]) if part]

    def sampled_sums(
        self, maps: list[torch.Tensor], points: Sequence[np.ndarray], size: tuple[int, int]
    ) -> list[torch.Tensor]:
        """Return the residual sums (B, K, D) of every codebook over chosen pixels."""
        sums = []
        for part, words in self.blocks(maps):
            rows = []
            for i, chosen in enumerate(points):
                blocks = hypercolumns_at([layer[i] for layer in part], chosen, size)
                columns = torch.cat(blocks, dim=1)
                rows.append(vlad.residual_sums(columns, vlad.assign(columns, words), words))
            sums.append(torch.stack(rows))
        return sums

    def assign(self, maps: list[torch.Tensor], size: tuple[int, int]) -> np.ndarray:
        """Return the codewords at every position of a grid: (n_codebooks, B, H, W)."""
        parts = [vlad.dense_assign(part, words, size) for part, words in self.blocks(maps)]
        return torch.stack(parts).cpu().numpy()

    def blocks(self, maps: list[torch.Tensor]) -> list[tuple[list[torch.Tensor], torch.Tensor]]:
        spans = self._codebook.spans
        return [(maps[span], words) for span, words in zip(spans, self.codewords, strict=True)]

    def grids(
        self,
        maps: list[torch.Tensor],
        grid: str,
        image_size: Sequence[int],
        masks: torch.Tensor | None = None,
    ) -> Iterator[tuple[list[torch.Tensor], torch.Tensor, tuple[int, int], torch.Tensor | None]]:
        """Yield the maps, codewords and grid of each codebook, and what is inside masks of it."""
        for part, words in self.blocks(maps):
            size = self.grid_size(maps, grid, image_size)
            if self._codebook.joint is not None and len(part) < len(maps):
                size = part[0].shape[1], part[0].shape[2]  # a layer's own, beside a joint codebook
            yield part, words, size, None if masks is None else positions_inside(masks, size)


class _Projection:
    def __init__(self, projection: LayerProjection, device: torch.device) -> None:
        self.scale, components = projection.scale, projection.components
        self.mean = torch.tensor(projection.mean, device=device)
        self.std = torch.tensor(projection.std, device=device)
        self.matrix = None if components is None else torch.tensor(components, device=device).T
        self.offset = None if self.matrix is None else -(self.mean @ self.matrix)

    def average(self, layer: torch.Tensor, masks: torch.Tensor | None) -> torch.Tensor:
        if masks is None:
            return self.standardised(layer.mean(dim=(1, 2)))
        weights = cell_weights(masks, layer)
        return self.standardised(torch.einsum("bhw,bhwc->bc", weights, layer))

    def standardised(self, layer: torch.Tensor) -> torch.Tensor:
        self._check_channels(layer)
        return (layer - self.mean) / self.std

    def __call__(self, layer: torch.Tensor) -> torch.Tensor:
        self._check_channels(layer)
        if self.matrix is None:
            return (layer - self.mean) * self.scale
        assert self.offset is not None
        flat = torch.addmm(self.offset, layer.reshape(-1, layer.shape[-1]), self.matrix)
        return flat.view(*layer.shape[:-1], -1)

    def _check_channels(self, layer: torch.Tensor) -> None:
        if layer.shape[-1] != len(self.mean):
            raise ModelFileError(
                f"the codebook is for a layer of {len(self.mean)} channels, but that of the "
                f"network has {layer.shape[-1]}: not written by hypervlad; train the model again"
            )
