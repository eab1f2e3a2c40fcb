"""A stand-in of a fitted encoder for codeword maps, and the texts of a display."""

from types import SimpleNamespace

import numpy as np

from hypervlad.features.codebook import Codebook
from hypervlad.images import ReadOptions
from hypervlad.results.displays.base import Display


class TwoCodebooks:
    """An encoder with two codebooks, of three and of four codewords."""

    codebook_ = Codebook((), per_layer=(np.eye(3), np.arange(8.0).reshape(4, 2)))
    is_of_particles_, weights = False, "random"
    taps_ = ("layer1", "layer2")
    fitted_params_ = SimpleNamespace(read_options=ReadOptions())

    def codeword_maps(self, image):
        return np.stack([np.full((4, 4), 2), np.arange(16).reshape(4, 4) % 4])


def texts(display: Display) -> list[str]:
    return [text.get_text() for text in display.ax_.texts]
