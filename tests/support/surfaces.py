"""A striped surface, with and without a dark spot, and three textures."""

import numpy as np

PATCH = 12  # pixels
CELL = 4  # pixels: of the coarsest layer of the tiny network


def texture_patterns(shape=(20, 24), stripes=2):
    """Patterns from -1 to 1 that even a random network can distinguish, by name."""
    y, x = np.mgrid[: shape[0], : shape[1]] / 4.0
    rings = np.cos(np.hypot(x - 3, y - 2) * 3)
    return {"flat": 0 * x, "rings": rings, "stripes": np.sin(stripes * x)}


def surface(seed, size=(48, 60)):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]]
    stripes = 0.5 + 0.15 * np.sin(0.9 * x + rng.uniform(0, 6)) + 0.05 * np.sin(0.3 * y)
    noisy = stripes + 0.02 * rng.standard_normal(size)
    return np.clip(noisy, 0, 1).astype(np.float32)


def blotted(seed, centre, radius=5, size=(48, 60)):
    image = surface(seed, size)
    y, x = np.mgrid[: size[0], : size[1]]
    mask = np.hypot(y - centre[0], x - centre[1]) <= radius
    image[mask] = 0.1 * image[mask]
    return image, mask
