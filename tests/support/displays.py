"""What a display has drawn."""

from typing import Any

import numpy as np


def texts(display: Any) -> list[str]:
    return [text.get_text() for text in display.ax_.texts]


def pictures(display: Any) -> list[np.ndarray]:
    """The pixels of all pictures, those of the legend last."""
    return [np.asarray(image.get_array()) for image in display.ax_.images]
