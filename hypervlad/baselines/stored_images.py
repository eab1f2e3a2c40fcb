"""Images read and prepared once for all epochs: in memory, or on the disk if they are many."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hypervlad.encoder.inputs import Inputs

_IN_MEMORY = 2 * 1024**3  # bytes; more images than this lie in a temporary file


@dataclass(frozen=True, eq=False)
class StoredImages:
    """Prepared images, in the order of their digests: that of the list then decides nothing.

    Attributes
    ----------
    pixels : ndarray of float32, shape (n, 1 or C, s, s)
        In [0, 1], neither changed nor normalised, in any order; one channel if all are grey.
    slots : ndarray of int, shape (n,)
        Where in ``pixels`` each image lies.
    positions : ndarray of int, shape (n,)
        Where each stands in the list that the user gave; images that were skipped are missing.
    digests : list of n str
    """

    pixels: NDArray[np.float32]
    slots: NDArray[np.intp]
    positions: NDArray[np.intp]
    digests: list[str]

    def side(
        self, rows: NDArray[np.intp], codes: NDArray[np.intp], device: torch.device
    ) -> StoredSide:
        """Return some of the images, with the class number of each of all (n,)."""
        return StoredSide(self.pixels, self.slots[rows], codes[rows], device)

    def digest(self, *beside: NDArray[Any] | None) -> str:
        """Return the SHA-256 of the images and of what belongs to each: labels, groups."""
        digest = hashlib.sha256()
        for row, own in enumerate(self.digests):
            told = [None if values is None else values.tolist()[row] for values in beside]
            digest.update(f"{own} {told!r}\n".encode())
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class StoredSide:
    """Images to learn from or to be judged by, with their class numbers, on a device when asked.

    Attributes
    ----------
    pixels : ndarray of shape (m, 1 or C, s, s)
        Of all images.
    slots : ndarray of int, shape (n,)
        Which of them these are.
    codes : ndarray of int, shape (n,)
    device : torch.device
    at_once : int
        Images that are judged together.
    """

    pixels: NDArray[np.float32]
    slots: NDArray[np.intp]
    codes: NDArray[np.intp]
    device: torch.device
    at_once: int = 32

    def __len__(self) -> int:
        return len(self.codes)

    def batch(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return images and class numbers of some rows."""
        at = rows.numpy()
        pixels = torch.from_numpy(np.ascontiguousarray(self.pixels[self.slots[at]]))
        return pixels.to(self.device), torch.from_numpy(self.codes[at]).to(self.device)

    def parts(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield all images and class numbers, in their order."""
        for rows in torch.arange(len(self)).split(self.at_once):
            yield self.batch(rows)


def store_images(images: list[Any], inputs: Inputs, side: int) -> StoredImages:
    """Read and prepare images as `inputs` says, but for the normalisation, which comes later.

    Parameters
    ----------
    images : list of paths and arrays
    inputs : Inputs
    side : int
        Of a prepared image, pixels.

    Raises
    ------
    ImageReadError
        If an image cannot be read and none are to be skipped.
    """
    n_channels = len(inputs.preprocessing.mean)
    plain = replace(inputs.preprocessing, mean=(0.0,) * n_channels, std=(1.0,) * n_channels)
    inputs = replace(inputs, preprocessing=plain)
    pixels = _empty(len(images), 1, side)
    positions: list[int] = []
    digests: list[str] = []
    for batch in inputs.batches(inputs.read(images, "reading", lambda digest: None)):
        prepared = batch.images.numpy()
        if pixels.shape[1] == 1 and (prepared != prepared[:, :1]).any():
            pixels = _in_colour(pixels, n_channels)
        pixels[len(digests) :][: len(prepared)] = prepared[:, : pixels.shape[1]]
        positions += batch.positions
        digests += batch.digests
    order = np.array(sorted(range(len(digests)), key=lambda row: (digests[row], positions[row])))
    return StoredImages(pixels, order, np.array(positions)[order], [digests[i] for i in order])


def _empty(n: int, n_channels: int, side: int) -> NDArray[np.float32]:
    shape = (n, n_channels, side, side)
    if 4 * n * n_channels * side**2 <= _IN_MEMORY:
        return np.empty(shape, dtype=np.float32)
    n_bytes = 4 * int(np.prod(shape))
    with tempfile.TemporaryFile() as file:  # without a name: it goes with the array
        try:
            if hasattr(os, "posix_fallocate"):  # on a full disk, a map of a sparse file kills
                os.posix_fallocate(file.fileno(), 0, n_bytes)
        except OSError as error:
            raise OSError(
                error.errno,
                f"the prepared images need {n_bytes / 1024**3:.1f} GB in {tempfile.gettempdir()}, "
                f"which cannot be had ({error.strerror}); set TMPDIR to a folder of another disk, "
                "or take a smaller image_size",
            ) from error
        return np.memmap(file, dtype=np.float32, mode="w+", shape=shape)


def _in_colour(pixels: NDArray[np.float32], n_channels: int) -> NDArray[np.float32]:
    wider = _empty(len(pixels), n_channels, pixels.shape[-1])
    wider[:] = pixels
    return wider
