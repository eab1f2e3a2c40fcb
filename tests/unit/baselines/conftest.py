"""What passes through torch's own `grid_sample`, by which training images are changed at random."""

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

Array = NDArray[Any]


class Sampled(NamedTuple):
    """Images before and after `grid_sample`, (n, p, p), and its maps of coordinates, (n, 2, 3)."""

    before: Array
    after: Array
    maps: Array  # of (x, y, 1) from -1 to 1


class Samples(list[Sampled]):
    """What was sampled, call by call."""

    @property
    def joined(self):
        return Sampled(*(np.concatenate(each) for each in zip(*self, strict=True)))


@pytest.fixture
def sampled(monkeypatch):
    found = Samples()
    original = torch.nn.functional.grid_sample

    def recorded(images, grid, **options):
        after = original(images, grid, **options)
        side = images.shape[-1]
        own = np.linspace(-1, 1, side) * (1 if options["align_corners"] else (side - 1) / side)
        x, y = np.meshgrid(own, own)
        base = np.stack([x, y, np.ones_like(x)], axis=-1).reshape(-1, 3)
        maps = [
            np.linalg.lstsq(base, each.reshape(-1, 2), rcond=None)[0].T for each in grid.numpy()
        ]
        found.append(Sampled(images[:, 0].numpy(), after[:, 0].numpy(), np.array(maps)))
        return after

    monkeypatch.setattr(torch.nn.functional, "grid_sample", recorded)
    return found
