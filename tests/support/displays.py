"""What a display has drawn."""

import numpy as np


def texts(display):
    return [text.get_text() for text in display.ax_.texts]


def pictures(display):
    """The pixels of all pictures, those of the legend last."""
    return [np.asarray(image.get_array()) for image in display.ax_.images]
