"""Images that count how often they are read, and a count of images passing through a network."""

import numpy as np
from support.tiny import Tiny

_MEASURED = 448  # pixels: images of this side, and larger ones, measure the receptive field


class CountingImage:
    """An image, or a mask, that counts how often its pixels are requested."""

    def __init__(self, pixels):
        self.pixels = pixels
        self.n_reads = 0

    def __array__(self, dtype=None, copy=None):
        self.n_reads += 1
        return np.array(self.pixels, dtype=dtype)


def count_passes(monkeypatch):
    """Return a list that receives the number of images of each batch that passes "tiny"."""
    counts: list[int] = []
    _watch(monkeypatch, lambda shape: counts.append(shape[0]))
    return counts


def shapes_of_passes(monkeypatch):
    """Return a list that receives the shape (B, H, W) of each batch that passes "tiny"."""
    shapes: list[tuple[int, ...]] = []
    _watch(monkeypatch, shapes.append)
    return shapes


def _watch(monkeypatch, report):
    """Report each batch but those that only find the network's receptive field."""
    original = Tiny.forward

    def watched(self, batch):
        shape = (len(batch), *batch.shape[2:])
        if max(shape[1:]) < _MEASURED:
            report(shape)
        return original(self, batch)

    monkeypatch.setattr(Tiny, "forward", watched)
