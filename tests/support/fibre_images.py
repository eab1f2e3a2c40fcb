"""Images whose directions are known by construction."""

import numpy as np


def stripes(angle, shape=(96, 96), period=11.0):
    """Stripes along a direction, radians, counter-clockwise in the displayed image."""
    rows, columns = np.indices(shape)
    across = columns * np.sin(angle) + rows * np.cos(angle)
    return np.sin(2 * np.pi / period * across).astype(np.float32)


def cells(angles, side=32):
    """Squares of stripes, each along its own angle."""
    n_rows, n_columns = angles.shape
    of_pixels = np.repeat(np.repeat(angles, side, axis=0), side, axis=1)
    rows, columns = np.indices((n_rows * side, n_columns * side))
    across = columns * np.sin(of_pixels) + rows * np.cos(of_pixels)
    return np.sin(2 * np.pi / 8 * across).astype(np.float32)
