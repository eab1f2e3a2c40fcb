"""Feature maps of whole images, computed with a mirrored border and, for large images, in tiles."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hypervlad.backbones import Reach, TappedNetwork
from hypervlad.hypercolumns import feature_maps
from hypervlad.images import ImageReadError
from hypervlad.lazy_torch import torch

# Pixels around an image, mirrored. Networks pad with zeros, which look like a dark frame.
_BORDER = 32


@dataclass(frozen=True, eq=False)
class PaddedMaps:
    """Feature maps of an image with a mirrored border.

    Attributes
    ----------
    maps : list of Tensor of shape (h_l, w_l, C_l)
        Of image and border.
    size : (int, int)
        Height and width of image and border, pixels.
    border : int
        Pixels above and to the left of the image.
    """

    maps: list[torch.Tensor]
    size: tuple[int, int]
    border: int


class TiledNetwork:
    """A network that computes feature maps of images of any size.

    Images larger than a tile are cut into tiles that overlap by the network's receptive field, so
    that the maps are the same as those of the whole image.

    Parameters
    ----------
    network : TappedNetwork
    tile_size : int
        Side in pixels of the largest square that passes through the network at once.
    folder : path-like, optional
        Keeps maps that are needed again, so that no image passes through the network twice. A file
        takes about as much space as the image in single precision.
    border : int, default=32
        Pixels that are mirrored at each edge, at least; 0 for none.
    """

    def __init__(
        self,
        network: TappedNetwork,
        tile_size: int,
        folder: str | os.PathLike[str] | None = None,
        border: int = _BORDER,
    ) -> None:
        self.tile_size = tile_size
        self._border = border
        self._network = network
        self._folder = None if folder is None else Path(folder)

    def padded_maps(
        self, image: torch.Tensor, name: str, key: str | None = None, *, keep: bool = False
    ) -> PaddedMaps:
        """Return the feature maps of a prepared image.

        Parameters
        ----------
        image : Tensor of shape (C, H, W)
        name : str
            For error messages.
        key : str, optional
            The image's digest. Maps kept under it are not computed again.
        keep : bool
            Whether the folder keeps the maps after this call.

        Raises
        ------
        ImageReadError
            If the image is larger than a tile, and the network's maps cannot be put together from
            tiles.
        ValueError
            If the tiles are too small for the network.
        """
        if self._folder is None or key is None:
            return self._computed(image, name)
        path = self._path(key)
        is_kept = path.exists()
        maps = self.stored_maps(key) if is_kept else self._computed(image, name)
        if keep and not is_kept:
            layers = (layer.cpu().numpy() for layer in maps.maps)
            np.savez(path, *layers, size=maps.size, border=maps.border)
        elif is_kept and not keep:
            path.unlink()
        return maps

    def stored_maps(self, key: str) -> PaddedMaps:
        """Return maps that the folder keeps."""
        with np.load(self._path(key)) as stored:
            names = [name for name in stored.files if name.startswith("arr_")]
            layers = [torch.from_numpy(stored[name]).to(self._network.device) for name in names]
            height, width = stored["size"].tolist()
            return PaddedMaps(layers, (height, width), int(stored["border"]))

    def _path(self, key: str) -> Path:
        assert self._folder is not None
        return self._folder / f"{key}.npz"

    def _computed(self, image: torch.Tensor, name: str) -> PaddedMaps:
        reach = self._network.reach(len(image))
        stride = 32 if reach is None else reach.stride
        border = -(-self._border // stride) * stride
        widths = [(border, border + -extent % stride) for extent in image.shape[1:]]
        padded = np.pad(image.numpy(), [(0, 0), *widths], mode="symmetric")
        batch = torch.from_numpy(padded)[None]
        if max(image.shape[1:]) <= self.tile_size:
            maps = [layer[0] for layer in feature_maps(self._network, batch)]
        else:
            maps = self._stitched(batch, *self._tiling(reach, name))
        return PaddedMaps(maps, (padded.shape[1], padded.shape[2]), border)

    def _tiling(self, reach: Reach | None, name: str) -> tuple[Reach, int]:
        """Return the network's reach, and the side of a tile without its overlap."""
        if reach is None:
            raise ImageReadError(
                f"{name}: larger than tile_size={self.tile_size} pixels, but this network's maps "
                "cannot be put together from tiles, because each cell sees too much of the image; "
                "choose another backbone, or a tile_size as large as the image"
            )
        smallest = 4 * reach.margin
        if self.tile_size < smallest:
            raise ValueError(
                f"tile_size={self.tile_size} is too small for images larger than that, such as "
                f"{name}: tiles of this network overlap by {reach.margin} pixels to each "
                f"side, so tile_size must be at least {smallest}"
            )
        core = self.tile_size - 2 * reach.margin
        return reach, core // reach.stride * reach.stride

    def _stitched(self, image: torch.Tensor, reach: Reach, core: int) -> list[torch.Tensor]:
        """Put maps together from overlapping tiles that begin at multiples of the stride."""
        whole: list[torch.Tensor] = []
        height, width = image.shape[2:]
        for top in range(0, height, core):
            for left in range(0, width, core):
                upper, first = max(0, top - reach.margin), max(0, left - reach.margin)
                rows = slice(upper, min(height, top + core + reach.margin))
                columns = slice(first, min(width, left + core + reach.margin))
                tile = feature_maps(self._network, image[:, :, rows, columns])
                strides = [(rows.stop - rows.start) // layer.shape[1] for layer in tile]
                if not whole:
                    whole = [
                        layer.new_zeros(height // stride, width // stride, layer.shape[-1])
                        for layer, stride in zip(tile, strides, strict=True)
                    ]
                for layer, found, stride in zip(whole, tile, strides, strict=True):
                    y, x, n = top // stride, left // stride, core // stride
                    overlap = (top - upper) // stride, (left - first) // stride
                    inside = found[0, overlap[0] :, overlap[1] :][:n, :n]
                    layer[y : y + inside.shape[0], x : x + inside.shape[1]] = inside
        return whole
