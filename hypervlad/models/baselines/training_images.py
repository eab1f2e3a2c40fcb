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

from hypervlad.common.wording import counted, warn_user
from hypervlad.evaluation.splits import holdout_split
from hypervlad.features.encoder.loading import ImageLoader
from hypervlad.models.baselines.training import Samples

_MAX_IN_MEMORY = 2 * 1024**3  # bytes; more than this goes to a temporary file
_EVALUATION_BATCH = 32
_VALIDATION_FRACTION = 0.2
_MIN_GROUPS = 5  # held out; with fewer, their loss says little


@dataclass(frozen=True, eq=False)
class TrainingImages:
    """Prepared images, sorted by digest so that the order of the list has no effect."""

    pixels: NDArray[np.float32]  # (m, 1 or C, s, s) in [0, 1], in any order
    rows: NDArray[np.intp]  # where in the pixels each image is
    positions: NDArray[np.intp]  # in the user's list; skipped images are missing
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
    """Read and prepare square images, except for the normalisation, which follows augmentation."""
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


def hold_out(
    codes: NDArray[np.intp], groups: NDArray[np.intp], seed: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the rows for fine-tuning, and those that decide when it stops."""
    rows, held_out = holdout_split(codes, groups, test_size=_VALIDATION_FRACTION, random_state=seed)
    if not len(held_out):
        raise ValueError(
            "no group of images can be held out to decide when to stop, because each class has "
            'only one group; add images, or use mode="features"'
        )
    n_groups = len(np.unique(groups[held_out]))
    if n_groups < _MIN_GROUPS:
        warn_user(
            f"fine-tuning is validated on {counted(len(held_out), 'image')} of "
            f"{counted(n_groups, 'group')} only, so "
            "the epoch at which it stops and the calibration of the probabilities are largely "
            'a matter of chance. Add images of more specimens, or use mode="features"',
        )
    return rows, held_out


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
