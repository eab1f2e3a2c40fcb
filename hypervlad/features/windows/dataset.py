"""Images with labelled windows: reading, the codebook of tiled images, windows to train on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hypervlad.features.codebook import Codebook
from hypervlad.features.encoder.codebook_fit import CodebookFit, is_chosen
from hypervlad.features.encoder.encoding import random_pixels
from hypervlad.features.encoder.loading import ImageInfo, ImageLoader, ReadReport
from hypervlad.features.hypercolumns import hypercolumns_at
from hypervlad.features.lazy_torch import torch
from hypervlad.features.windows.vectors import TiledNetwork, Tiling
from hypervlad.images import ImageReadError
from hypervlad.statistics.splits import joined_groups

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
    tensor: torch.Tensor  # (C, h, w); of the image's size unless the encoder has a pixel_size
    converted: NDArray[np.float32] | None = None  # what the reader's ``convert`` returned

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the image, pixels."""
        return self.info.shape[0], self.info.shape[1]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the network's input, pixels."""
        return self.tensor.shape[1], self.tensor.shape[2]


class WindowReader:
    """Reads images for windows, at their own size or at the encoder's ``pixel_size``.

    Images smaller than ``min_side`` are refused.
    """

    def __init__(self, loader: ImageLoader, min_side: int, convert: Convert | None = None) -> None:
        # No image is too small for the network, because all get a border.
        loader = replace(loader, preprocessing=replace(loader.preprocessing, minimum_size=1))
        if convert is not None:  # it chooses page and channel, and removes the banner
            options = replace(loader.read_options, banner="keep", page=0, channel=None)
            loader = replace(loader, read_options=options)
        self._loader = loader
        self._min_side = min_side
        self._convert = convert

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
        if min(height, width) < self._min_side:
            scale = self._loader.pixel_size
            at = "" if scale is None else f" at {scale:g} nm per pixel"
            side = self._min_side
            raise ImageReadError(
                f"{name}: {height} x {width} pixels{at}, smaller than a patch of {side} x {side}; "
                "leave it out, or train with a smaller patch"
            )
        return PreparedImage(loaded.info, loaded.key, name, loaded.tensor, converted)


def fit_tiled_codebook(
    images: list[Any],
    fit: CodebookFit,
    *,
    tiling: Tiling,
    min_side: int,
    convert: Convert | None = None,
) -> tuple[Codebook, int]:
    """Learn a codebook from images with border and in tiles; return also how many were read."""
    network = TiledNetwork(fit.network, tiling)
    reader = WindowReader(fit.loader, min_side, convert)
    n_each, shares = fit.sampling_plan(len(images))
    pool = fit.new_pool()

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
        n_most = max_windows_per_class(n_images)
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

    def groups_of(self, groups: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return the group of each window; copies of an image share one."""
        positions = np.array(list(self.keys))
        joined = np.zeros(len(groups), dtype=np.intp)
        joined[positions] = joined_groups(groups[positions], list(self.keys.values()))
        return joined[self.image_index]

    def of_images(self, positions: NDArray[np.intp]) -> TrainingWindows:
        rows = np.isin(self.image_index, positions)
        return replace(
            self,
            X=self.X[rows],
            labels=self.labels[rows],
            weights=self.weights[rows],
            image_index=self.image_index[rows],
        )


def max_windows_per_class(n_images: int) -> int:
    return max(_MIN_PER_IMAGE, _MAX_WINDOWS // n_images)


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
