"""Images with a dark spot, and a scorer of darkness, which needs no network."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

from hypervlad.images import ImageReadError, ReadOptions, read_image
from hypervlad.models import DetectionLimits, Finding

HELD_OUT = (0.1, 0.2, 0.55)


@dataclass
class Darkness:
    """A scorer whose score is how dark a pixel is, and of an image how dark its darkest pixel."""

    threshold_: float = 0.5
    patch_: int = 10
    limits_: DetectionLimits = field(default_factory=DetectionLimits.none)
    held_out_: Any = field(default_factory=lambda: SimpleNamespace(scores=HELD_OUT))
    encoder_: Any = field(
        default_factory=lambda: SimpleNamespace(
            fitted_params_=SimpleNamespace(read_options=ReadOptions())
        )
    )

    def find(self, image: Any) -> Finding:
        pixels = read_image(image)
        if min(pixels.shape[:2]) < self.patch_:
            raise ImageReadError(f"{image}: too small")
        return Finding.of(1 - pixels, self.threshold_)


def spotted(darkness: float, side: int = 8) -> np.ndarray:
    image = np.ones((40, 60), np.float32)
    image[10 : 10 + side, 20 : 20 + side] = 1 - darkness
    return image
