"""Training images, read and prepared once for all epochs: in memory, or in a temporary file."""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hypervlad.baselines.training import Samples
from hypervlad.encoder.loading import ImageLoader

_MAX_IN_MEMORY = 2 * 1024**3  # bytes; more than this goes to a temporary file
_EVALUATION_BATCH = 32


@dataclass(frozen=True, eq=False)
class TrainingImages:
    """Prepared images, sorted by digest so that the order of the list has no effect.

    Attributes
    ----------
    pixels : ndarray of float32, shape (m, 1 or C, s, s)
        In [0, 1], neither augmented nor normalised, in any order; one channel if all are grey.
    rows : ndarray of int, shape (n,)
        Where in ``pixels`` each image is.
    positions : ndarray of int, shape (n,)
        Position of each image in the user's list; images that were skipped are missing.
    digests : list of n str
    """

    pixels: NDArray[np.float32]
    rows: NDArray[np.intp]
    positions: NDArray[np.intp]
    digests: list[str]

    def __len__(self) -> int:
        return len(self.rows)

    def samples(
        self, codes: NDArray[np.intp], device: torch.device, chosen: NDArray[np.intp] | None = None
    ) -> Samples:
        """Return all or some of the images, with their class numbers out of those of all (n,)."""
        chosen = np.arange(len(self)) if chosen is None else chosen
        return Samples(self.pixels, self.rows[chosen], codes[chosen], device, _EVALUATION_BATCH)

    def digest(self, *values: NDArray[Any] | None) -> str:
        """Return the SHA-256 of the images with a value each of other arrays: labels, groups."""
        digest = hashlib.sha256()
        for row, own in enumerate(self.digests):
            others = [None if each is None else each.tolist()[row] for each in values]
            digest.update(f"{own} {others!r}\n".encode())
        return digest.hexdigest()


def load_training_images(images: list[Any], loader: ImageLoader) -> TrainingImages:
    """Read and prepare images, except for the normalisation, which follows the augmentation.

    Parameters
    ----------
    images : list of paths and arrays
    loader : ImageLoader
        With an ``image_size``, square.

    Raises
    ------
    ImageReadError
        If an image cannot be read and ``on_error`` is "raise", or if none can be read.
    OSError
        If there is no room for the temporary file.
    """
    side = loader.image_size
    assert side is not None
    n_channels = len(loader.preprocessing.mean)
    identity = replace(loader.preprocessing, mean=(0.0,) * n_channels, std=(1.0,) * n_channels)
    loader = replace(loader, preprocessing=identity)
    pixels = _allocate(len(images), 1, side)
    positions: list[int] = []
    digests: list[str] = []
    for batch in loader.batches(loader.stream(images, "reading", loader.load)):
        prepared = batch.tensors.numpy()
        if pixels.shape[1] == 1 and (prepared != prepared[:, :1]).any():
            pixels = _with_channels(pixels, n_channels)
        pixels[len(digests) :][: len(prepared)] = prepared[:, : pixels.shape[1]]
        positions += batch.positions
        digests += batch.keys
    order = np.array(sorted(range(len(digests)), key=lambda row: (digests[row], positions[row])))
    return TrainingImages(pixels, order, np.array(positions)[order], [digests[i] for i in order])


def _allocate(n: int, n_channels: int, side: int) -> NDArray[np.float32]:
    shape = (n, n_channels, side, side)
    n_bytes = 4 * n * n_channels * side**2
    if n_bytes <= _MAX_IN_MEMORY:
        return np.empty(shape, dtype=np.float32)
    with tempfile.TemporaryFile() as file:  # it has no name and disappears with the array
        try:
            if hasattr(os, "posix_fallocate"):  # a full disk would kill a sparse file's process
                os.posix_fallocate(file.fileno(), 0, n_bytes)
        except OSError as error:
            raise OSError(
                error.errno,
                f"the prepared images need {n_bytes / 1024**3:.1f} GB in {tempfile.gettempdir()}, "
                f"which is not available ({error.strerror}); set TMPDIR to a folder on another "
                "disk, or use a smaller image_size",
            ) from error
        return np.memmap(file, dtype=np.float32, mode="w+", shape=shape)


def _with_channels(pixels: NDArray[np.float32], n_channels: int) -> NDArray[np.float32]:
    wider = _allocate(len(pixels), n_channels, pixels.shape[-1])
    wider[:] = pixels
    return wider
