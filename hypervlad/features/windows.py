"""Windows of images of any size: maps of the whole image, vectors, windows to train on.

A vector consists of residual sums and mean hypercolumns. Both are yielded for a few rows of windows
at a time, to save memory.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hypervlad.common.constraints import Integer, check_value
from hypervlad.common.files import naming
from hypervlad.common.progress import Sentence, warn_of_image
from hypervlad.common.wording import warn_user
from hypervlad.features import vlad
from hypervlad.features.codebook import Codebook, HypercolumnPool
from hypervlad.features.codebook_fit import CodebookFit, is_chosen
from hypervlad.features.encoder import HypercolumnVLAD
from hypervlad.features.encoding import TorchCodebook, finish_pooled, random_pixels
from hypervlad.features.hypercolumns import (
    dense_hypercolumns,
    feature_maps,
    hypercolumns_at,
    window_means,
)
from hypervlad.features.lazy_torch import torch
from hypervlad.features.loading import ImageInfo, ImageLoader, ReadReport
from hypervlad.features.network import TappedNetwork
from hypervlad.features.patches import IntArray, WindowGrid
from hypervlad.features.registry import Preprocessing, class_tokens, get_backbone
from hypervlad.features.tiles import MirroredImage, Tiles
from hypervlad.images import ImageReadError
from hypervlad.images.annotations import Annotation, annotation_mask, note_annotations
from hypervlad.images.sample import Annotations

# Pixels around an image, mirrored. Networks pad with zeros, which look like a dark frame.
_BORDER = 32
#: Sides of tiles in pixels.
TILE_SIDES = Integer(64, 2**16)


@dataclass(frozen=True)
class Tiling:
    """How large images go through a network: in tiles of ``side`` pixels.

    The ``folder`` keeps maps that are needed again. A model was fitted with tiles of
    ``fitted_side``.
    """

    side: int
    folder: str | os.PathLike[str] | None = None
    fitted_side: int | None = None

    @classmethod
    def of(cls, model: Any) -> Tiling:
        """Return that of a fitted model with a ``tile_size``; a ValueError if that is unusable."""
        check_value("tile_size", model.tile_size, [TILE_SIDES])
        return cls(model.tile_size, fitted_side=model.tile_size_)


@dataclass(frozen=True, eq=False)
class PaddedMaps:
    """Feature maps (h_l, w_l, C_l) of an image and its mirrored border; sizes in pixels.

    ``size`` is that of both together, ``border`` what is above and left.
    """

    maps: list[torch.Tensor]
    size: tuple[int, int]
    border: int

    def edges(self, grid: WindowGrid) -> tuple[IntArray, IntArray, int]:
        """Return the upper and left edges of windows of the image, and their side."""
        return grid.rows + self.border, grid.columns + self.border, grid.side


class TiledNetwork:
    """A network that computes feature maps of images of any size.

    Images larger than a tile are cut into tiles that overlap by the network's receptive
    field, so that the maps are those of the whole image. Where cells depend on the whole image, as
    in transformers, tiles overlap by a quarter at least, and are blended linearly. At least
    ``border`` pixels are mirrored at each edge.
    """

    def __init__(
        self,
        network: TappedNetwork,
        tiling: Tiling,
        preprocessing: Preprocessing,
        border: int = _BORDER,
    ) -> None:
        self._network, self._tiling, self._border = network, tiling, border
        self._preprocessing, self._n_channels = preprocessing, len(preprocessing.mean)
        self._folder = None if tiling.folder is None else Path(tiling.folder)

    def padded_maps(
        self, image: torch.Tensor, name: str, key: str | None = None, *, keep: bool = False
    ) -> PaddedMaps:
        """Return the maps of an image (1 or C, H, W), from the folder if it has the key.

        ``keep`` says whether the folder keeps them after this call.
        """
        if self._folder is None or key is None:
            return self._computed(image, name)
        path = self._path(key)
        is_kept = path.exists()
        maps = self.stored_maps(key) if is_kept else self._computed(image, name)
        if keep and not is_kept:
            layers = (layer.cpu().numpy() for layer in maps.maps)
            with naming(path):
                np.savez(path, *layers, size=maps.size, border=maps.border)
        elif is_kept and not keep:
            path.unlink()
        return maps

    def stored_maps(self, key: str) -> PaddedMaps:
        with np.load(self._path(key)) as stored:
            names = [name for name in stored.files if name.startswith("arr_")]
            layers = [torch.from_numpy(stored[name]).to(self._network.device) for name in names]
            height, width = stored["size"].tolist()
            return PaddedMaps(layers, (height, width), int(stored["border"]))

    def _path(self, key: str) -> Path:
        assert self._folder is not None
        return self._folder / f"{key}.npz"

    def _computed(self, image: torch.Tensor, name: str) -> PaddedMaps:
        stride = self._network.stride(self._n_channels) or 32
        border = -(-self._border // stride) * stride
        padded = MirroredImage.of(image, border, stride)
        tiles = Tiles(padded, self._tiling.side, self._maps_of)
        self._warn_of_other_tiles(image)
        if max(image.shape[1:]) <= self._tiling.side:
            maps, _ = tiles.maps(*(slice(0, extent) for extent in padded.size))
        else:
            maps = self._in_tiles(tiles, name)
            self._network.release_memory()
        return PaddedMaps(maps, padded.size, border)

    def _warn_of_other_tiles(self, image: torch.Tensor) -> None:
        side, fitted = self._tiling.side, self._tiling.fitted_side
        if fitted in (None, side) or max(image.shape[1:]) <= min(side, fitted):
            return
        reach = self._network.reach(self._n_channels)
        if reach is not None and reach.margin is None:
            warn_user(
                f"the model was fitted with tile_size={fitted} and is used with tile_size={side}; "
                "what this network finds in larger images depends on it, so thresholds may not "
                f"fit: use tile_size={fitted}"
            )

    def _maps_of(self, levels: torch.Tensor) -> list[torch.Tensor]:
        return feature_maps(self._network, self._preprocessing.normalised(levels))

    def _in_tiles(self, tiles: Tiles, name: str) -> list[torch.Tensor]:
        reach = self._network.reach(self._n_channels)
        if reach is None:
            raise ImageReadError(
                f"{name}: larger than tile_size={self._tiling.side} pixels, but this network's "
                "maps cannot be put together from tiles, because its cells do not form a regular "
                "grid; choose another backbone, or a tile_size as large as the image"
            )
        if reach.margin is None:
            return tiles.blended(reach.stride)
        return tiles.stitched(reach.stride, reach.margin, name)


class WindowVectors:
    """Vectors of windows, all from one pass of an image through a fitted encoder's network."""

    def __init__(self, encoder: HypercolumnVLAD, tiling: Tiling) -> None:
        network = encoder.network()
        self.network = TiledNetwork(network, tiling, encoder.preprocessing_)
        self._codebook = TorchCodebook(encoder.codebook_, network.device)
        self._params = encoder.fitted_params_

    def means(self, maps: PaddedMaps, grid: WindowGrid) -> Iterator[NDArray[np.float32]]:
        """Yield the mean standardised hypercolumns (n, channels) of a few rows of windows."""
        widths = [layer.shape[-1] for layer in maps.maps]
        for means in window_means(maps.maps, maps.size, *maps.edges(grid)):
            layers = means.flatten(0, 1).split(widths, dim=-1)
            pairs = zip(self._codebook.layers, layers, strict=True)
            yield torch.cat([own.standardised(part) for own, part in pairs], dim=-1).cpu().numpy()

    def residual_sums(self, maps: PaddedMaps, grid: WindowGrid) -> Iterator[list[torch.Tensor]]:
        """Yield un-normalised VLAD (n, S, K, D) of n rows of windows at a time, for each codebook.

        It is zero for a window without a position of the hypercolumns' grid.
        """
        projected = self._codebook.project([layer[None] for layer in maps.maps])
        spacing = self._params.grid if isinstance(self._params.grid, str) else "finest"
        of_codebooks = []
        for layers, codewords, size, _ in self._codebook.grids(projected, spacing, maps.size):
            columns = dense_hypercolumns(layers, size)[0]
            assignments = vlad.dense_assign(layers, codewords, size)[0]
            sums = vlad.window_residual_sums(
                columns, assignments, codewords, maps.size, *maps.edges(grid)
            )
            of_codebooks.append(sums)
        return map(list, zip(*of_codebooks, strict=True))

    def vectors(self, maps: PaddedMaps, grid: WindowGrid) -> Iterator[NDArray[np.float32]]:
        """Yield the vectors (n, n_features) of a few rows of windows at a time."""
        steps = zip(self.residual_sums(maps, grid), self.means(maps, grid), strict=True)
        for sums, means in steps:
            yield self.join([of_codebook.flatten(0, 1) for of_codebook in sums], means)

    def join(self, sums: list[torch.Tensor], means: NDArray[np.float32]) -> NDArray[np.float32]:
        """Join the residual sums (n, K, D) of each codebook and the means (n, C) to vectors."""
        kinds = self._codebook.by_kind(sums)
        blocks = [vlad.normalize(kind).cpu().numpy() for kind in kinds]
        if self._params.is_pooled:
            scaled = torch.from_numpy(means / np.sqrt(means.shape[1]))
            blocks.append(finish_pooled(scaled, self._params).numpy())
        return np.hstack(blocks)


def window_encoder(**parameters: Any) -> HypercolumnVLAD:
    """Return an encoder for windows of images at their own size, with the given parameters changed.

    It has the two taps before the network's last.
    """
    taps = get_backbone(parameters.get("backbone", "mobilenet_v2")).taps
    usual = {
        "taps": taps[-3:-1] or taps,
        "image_size": None,
        "n_codewords": 16,
        "blocks": ("joint", "pooled"),
        "sampling": "windows",
    }
    return HypercolumnVLAD(**usual | parameters)


def check_window_encoder(encoder: HypercolumnVLAD, purpose: str) -> None:
    """Raise a ValueError unless an encoder can encode windows."""
    if encoder.image_size is not None:
        raise ValueError(
            f"the encoder resizes images to {encoder.image_size} pixels, but {purpose} at "
            "an image's own size: give HypercolumnVLAD(image_size=None, ...)"
        )
    if (most := get_backbone(encoder.backbone).maximum_size) is not None:
        raise ValueError(
            f"{encoder.backbone!r} takes images of at most {most} x {most} pixels, but {purpose} "
            "in images of any size: choose another network"
        )
    if "shape" in encoder.blocks:
        raise ValueError("the encoder's blocks contain 'shape', which windows do not have")
    if encoder.sampling == "luo2021":
        raise ValueError("the encoder's sampling must not be 'luo2021' for windows")
    if encoder.taps is not None and (tokens := class_tokens(encoder.taps, encoder.backbone)):
        raise ValueError(f"{tokens[0]!r} is of a whole image, not of its windows: leave it out")
    if encoder.turns != 1:
        raise ValueError(f"the encoder's turns must be 1 for windows, not {encoder.turns}")


#: The label of a window that is not trained on: neither clearly of one class nor of another.
UNKNOWN = ""

_MAX_WINDOWS = 50_000  # of all images together, in each class
_MIN_PER_IMAGE = 20

#: From an image and its name to the array that is prepared for the network in its place.
Convert = Callable[[Any, str], NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class PreparedImage:
    info: ImageInfo
    key: str  # the digest by which the encoder knows the image
    name: str  # for error messages
    tensor: torch.Tensor  # (1 or 3, h, w); of the image's size unless the encoder has a pixel_size
    converted: NDArray[np.float32] | None = None  # what the reader's ``convert`` returned
    annotations: Sequence[Annotation] = ()

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the image, pixels."""
        return self.info.shape[0], self.info.shape[1]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the network's input, pixels."""
        return self.tensor.shape[1], self.tensor.shape[2]

    @property
    def levels(self) -> NDArray[np.float32]:
        """Grey levels (h, w), 0 to 1."""
        levels = self.tensor[0] if len(self.tensor) == 1 else self.tensor.mean(0)
        return np.asarray(levels.numpy())

    @cached_property
    def hidden(self) -> NDArray[np.bool_]:
        """Where annotations cover the image (H, W)."""
        return annotation_mask(self.annotations, self.shape)

    @property
    def covered(self) -> NDArray[np.bool_]:
        """Where they cover the network's input (h, w), which shows what is beside them."""
        return self.at_input_size(self.hidden)

    def at_input_size(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Bring a mask (H, W) of the image to the size of the network's input (h, w)."""
        if self.shape == self.size:
            return mask
        sides = zip(self.size, self.shape, strict=True)
        rows, columns = (np.arange(n) * old // n for n, old in sides)
        return mask[rows][:, columns]


class WindowReader:
    """Reads images for windows, at their own size or at the encoder's ``pixel_size``.

    Images smaller than ``min_side`` are refused. A warning names the annotations that are left out,
    and others what is given as its ``doubts``.
    """

    def __init__(
        self,
        loader: ImageLoader,
        min_side: int,
        convert: Convert | None = None,
        annotations: Annotations = "keep",
        doubts: Callable[[ImageInfo], Iterable[tuple[Sentence, Any]]] | None = None,
    ) -> None:
        # No image is too small for the network, because all get a border.
        preprocessing = replace(loader.preprocessing, minimum_size=1)
        loader = replace(loader, preprocessing=preprocessing, annotations=annotations)
        loader = replace(loader, as_levels=True, with_faults=True)
        if convert is not None:  # it chooses page and channel, and removes the banner
            options = replace(loader.read_options, banner="keep", page=0, channel=None)
            loader = replace(loader, read_options=options)
        self._loader = loader
        self.min_side = min_side
        self._convert = convert
        self._doubts = doubts
        self.info: dict[str, ImageInfo] = {}  # of the images that were read, by their keys

    def stream(
        self, images: list[Any], desc: str, report: ReadReport | None = None
    ) -> Iterator[tuple[int, PreparedImage]]:
        return self._loader.stream(images, desc, self.read, report)

    def read(self, image: Any, name: str) -> PreparedImage:
        """Read one image; an ImageReadError if that fails, or it is too small."""
        converted = None if self._convert is None else self._convert(image, name)
        loaded = self._loader.load(image if converted is None else converted, name)
        assert loaded.tensor is not None  # nothing is looked up in a cache
        height, width = loaded.tensor.shape[1:]
        if min(height, width) < self.min_side:
            scale = self._loader.pixel_size
            at = "" if scale is None else f" at {scale:g} nm per pixel"
            side = self.min_side
            raise ImageReadError(
                f"{name}: {height} x {width} pixels{at}, smaller than a patch of {side} x {side}; "
                "leave it out, or train with a smaller patch"
            )
        found = loaded.annotations
        note_annotations(name, found)
        self.info[loaded.key] = loaded.info
        for sentence, fact in self._doubts(loaded.info) if self._doubts else ():
            warn_of_image(sentence, name, fact)
        return PreparedImage(loaded.info, loaded.key, name, loaded.tensor, converted, found)


def fit_tiled_codebook(
    images: list[Any],
    fit: CodebookFit,
    *,
    tiling: Tiling,
    min_side: int,
    convert: Convert | None = None,
    annotations: Annotations = "keep",
) -> tuple[Codebook, int]:
    """Learn a codebook from images with border and in tiles; return also how many were read."""
    network = TiledNetwork(fit.network, tiling, fit.loader.preprocessing)
    reader = WindowReader(fit.loader, min_side, convert, annotations)
    n_each, shares = fit.sampling_plan(len(images))
    pool = HypercolumnPool(fit.sampling.n_samples)

    def sample(image: PreparedImage) -> None:
        maps = network.padded_maps(image.tensor, image.name, image.key, keep=True)
        height, width = image.size
        points = random_pixels(fit.seed, image.key, height * width, n_each)
        rows, columns = np.divmod(points, width)
        inside = (rows + maps.border) * maps.size[1] + columns + maps.border
        blocks = hypercolumns_at(maps.maps, inside, maps.size)
        pool.add(image.key, [block.cpu().numpy() for block in blocks])

    report, n_images = ReadReport(len(images)), 0
    sampled, left_out = set[str](), dict[str, Any]()
    for position, image in reader.stream(images, "codebook", report):
        n_images += 1
        if not is_chosen(image.key, shares[0]):
            left_out.setdefault(image.key, images[position])
        elif image.key not in sampled:  # copies add nothing
            sampled.add(image.key)
            sample(image)
    if not n_images:
        report.warn()  # raises; of single images the user is warned when the windows are read
    if len(pool) < fit.params.n_codewords and left_out:
        for _, image in reader.stream(list(left_out.values()), "codebook", report):
            sample(image)
    return fit.from_pool(pool), n_images


@dataclass(frozen=True, eq=False)
class ImageWindows:
    """The windows of an image in a list, with its digest."""

    position: int
    key: str
    blocks: Iterator[NDArray[np.float32]]  # (n, n_features): vectors of a few windows at a time
    labels: NDArray[np.str_]  # of all windows; `UNKNOWN` for those that are not trained on


@dataclass(frozen=True, eq=False)
class TrainingWindows:
    """Labelled windows of many images, (n,) each."""

    X: NDArray[np.float32]  # (n, n_features)
    labels: NDArray[np.str_]
    weights: NDArray[np.float64]  # how many windows of its image and class each represents
    image_index: NDArray[np.intp]  # position of the image that each is from
    keys: dict[int, str]  # digests of the images by position, in the order of the digests

    @classmethod
    def sample(cls, images: Iterable[ImageWindows], n_images: int, seed: int) -> TrainingWindows:
        """Sample windows of each image, up to the same number of each class, in order of digests.

        What is sampled depends on the seed and the image alone.
        """
        n_most = max(_MIN_PER_IMAGE, _MAX_WINDOWS // n_images)
        found = []
        for image in images:
            chosen, weights = _sampled(image.labels, n_most, image.key, seed)
            X = _rows_at(image.blocks, chosen)
            found.append((image.key, image.position, X, image.labels[chosen], weights))
        found.sort(key=lambda each: each[:2])
        counts = [len(X) for _, _, X, _, _ in found]
        return cls(
            X=np.concatenate([X for _, _, X, _, _ in found]),
            labels=np.concatenate([labels for *_, labels, _ in found]),
            weights=np.concatenate([weights for *_, weights in found]),
            image_index=np.repeat([position for _, position, *_ in found], counts),
            keys={position: key for key, position, *_ in found},
        )

    def of_images(self, positions: NDArray[np.intp]) -> TrainingWindows:
        rows = np.isin(self.image_index, positions)
        return replace(
            self,
            X=self.X[rows],
            labels=self.labels[rows],
            weights=self.weights[rows],
            image_index=self.image_index[rows],
        )


def _sampled(
    labels: NDArray[np.str_], n_most: int, key: str, seed: int
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    chosen, weights = [], []
    for label in np.unique(labels[labels != UNKNOWN]):
        rows = np.flatnonzero(labels == label)
        kept = rows
        if len(rows) > n_most:
            kept = np.sort(rows[random_pixels(seed, key, len(rows), n_most)])
        chosen.append(kept)
        weights.append(np.full(len(kept), len(rows) / len(kept)))
    if not chosen:
        return np.empty(0, dtype=np.intp), np.empty(0)
    return np.concatenate(chosen), np.concatenate(weights)


def _rows_at(
    blocks: Iterator[NDArray[np.float32]], chosen: NDArray[np.intp]
) -> NDArray[np.float32]:
    """Pick windows out of an image's blocks without keeping the others in memory."""
    found, start, order = [], 0, np.sort(chosen)
    for block in blocks:
        inside = order[(order >= start) & (order < start + len(block))]
        found.append(block[inside - start])
        start += len(block)
    back = np.argsort(np.argsort(chosen))
    return np.concatenate(found)[back]
