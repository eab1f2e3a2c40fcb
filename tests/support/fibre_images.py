"""Images whose directions are known by construction, and diameters as if measured in some."""

import numpy as np

from hypervlad.fibres import FibreDiameters


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


def diameters_of(values, **known):
    """Diameters in nm as measured without errors, each on a fibre of its own, in a corner."""
    n = len(values)
    usual = {"errors": np.zeros(n), "positions": np.zeros((n, 2))}
    usual |= {"directions": np.zeros(n), "weights": np.ones(n), "fibres": np.arange(n)}
    usual |= {"refused": {}, "profile": "flat", "polarity": "bright", "blur": 1.0}
    return FibreDiameters(values, **{**usual, "unit": "nm", "reason": None, **known})
