"""Images with a dark spot, and a scorer of darkness."""

import functools
from typing import Any

import numpy as np
from support.surfaces import PATCH, surface

from hypervlad import HypercolumnVLAD, PatchDefectScorer
from hypervlad.images import ImageReadError, read_image
from hypervlad.models import DetectionLimits, Finding

HELD_OUT = (0.1, 0.2, 0.55)


@functools.cache
def _fitted():
    encoder = HypercolumnVLAD("tiny", weights="random", taps=["1"], image_size=None, n_codewords=2)
    scorer = PatchDefectScorer(encoder, patch=PATCH, n_codewords=2, fpr=0.25, random_state=0)
    return scorer.fit([surface(seed) for seed in range(4)])


class Darkness:
    """A fitted scorer whose score is how dark a pixel is, and of an image its darkest pixel."""

    def __init__(self, threshold=0.5, limits=None, patch=10):
        vars(self).update(vars(_fitted()))
        self.threshold_, self.patch_ = threshold, patch
        self.limits_ = DetectionLimits.none() if limits is None else limits
        numbers = np.arange(len(HELD_OUT))
        self.held_out_ = type(self.held_out_)(np.array(HELD_OUT, np.float32), numbers, numbers)

    held_out_: Any

    def find(self, image):
        pixels = read_image(image)
        if min(pixels.shape[:2]) < self.patch_:
            raise ImageReadError(f"{image}: too small")
        return Finding.of(1 - pixels, self.threshold_)


def spotted(darkness, side=8):
    image = np.ones((40, 60), np.float32)
    image[10 : 10 + side, 20 : 20 + side] = 1 - darkness
    return image
