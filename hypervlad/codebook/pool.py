"""What a codebook is learnt from: a bounded sample of hypercolumns."""

from __future__ import annotations

import numpy as np


class HypercolumnPool:
    """A bounded, order-independent sample of hypercolumns from a stream of images.

    Parameters
    ----------
    capacity : int
        How many hypercolumns to keep at most. Images that would overfill the pool are kept or
        dropped by their digest, so that neither order nor neighbours matter.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._blocks: dict[str, list[np.ndarray]] = {}
        self._n_rows = 0

    def add(self, digest: str, blocks: list[np.ndarray]) -> None:
        """Add one image's sample: a block (n, C_l) a layer. An image already there is ignored."""
        if digest in self._blocks:
            return
        self._blocks[digest] = blocks
        self._n_rows += len(blocks[0])
        if self._n_rows > 2 * self.capacity:
            self._thin()

    def _thin(self) -> None:
        """Drop the images of the highest digests until the pool fits, keeping at least one."""
        for digest in sorted(self._blocks, reverse=True)[:-1]:
            n_rows = len(self._blocks[digest][0])
            if self._n_rows - n_rows < self.capacity:
                break
            del self._blocks[digest]
            self._n_rows -= n_rows

    def layers(self) -> list[np.ndarray]:
        """Empty the pool: one float32 array (n, C_l) a layer, images in the order of digests."""
        self._thin()
        in_order = [self._blocks[digest] for digest in sorted(self._blocks)]
        self._blocks, self._n_rows = {}, 0
        layers: list[np.ndarray] = []
        while in_order and in_order[0]:
            # Layer by layer from the last, so that pool and result are never both whole.
            layers.append(np.concatenate([blocks.pop() for blocks in in_order]).astype("f4"))
        return layers[::-1]

    def __len__(self) -> int:
        return self._n_rows
