"""Images to train an `AlignmentClassifier` with where nobody has labelled any."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_random_state

from hypervlad.datasets._arguments import check_count
from hypervlad.datasets.nanowires import Drawn, make_nanowire_images
from hypervlad.fibres.rule import DEFAULT_TOLERANCE, DEFAULT_WINDOW

_RANGES: dict[str, Drawn] = {
    "aligned": (0.0, 1.0),
    "density": (0.2, 0.9),
    "width": (4.0, 12.0),
    "blur": (0.4, 3.0),
    "tilt": (0.0, 0.6),
    "overlap": (0.0, 1.0),
}
_SNR = (1.0, 30.0)  # drawn evenly in its logarithm: half of the images are below 5.5


def make_alignment_examples(
    n: int,
    *,
    window: int = DEFAULT_WINDOW,
    tolerance: float = DEFAULT_TOLERANCE,
    size: int | tuple[int, int] = (384, 512),
    random_state: int | np.random.RandomState | None = None,
) -> tuple[list[NDArray[np.float32]], list[NDArray[np.float32]]]:
    """Make images of nanowires of many kinds, and maps of where they are aligned.

    Anything from sparse to dense, thin to thick, sharp to blurred, and clean to hardly visible.

    Parameters
    ----------
    n : int
        Number of images, at least 1.
    window : int, default=32
    tolerance : float, default=20 degrees
        Radians. What is aligned, as in `hypervlad.fibres.aligned_fraction`.
    size : int or (int, int), default=(384, 512)
        Height and width in pixels, each at least 64.
    random_state : int, RandomState or None, default=None
        Seed. With the same integer, image ``i`` is the same whatever ``n`` is.

    Returns
    -------
    images : list of n arrays of shape (H, W), float32 in [0, 1]
    maps : list of n arrays of shape (H, W), float32
        1 in aligned windows, 0 in others, not-a-number in those of the background.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Examples
    --------
    >>> from hypervlad.datasets import make_alignment_examples
    >>> images, maps = make_alignment_examples(2, size=96, random_state=0)
    >>> images[0].shape, maps[0].shape
    ((96, 96), (96, 96))
    """
    n = check_count(n)
    seed = int(check_random_state(random_state).randint(2**31 - 1))
    images, maps = [], []
    for i in range(n):
        rng = np.random.default_rng([3, seed, i])
        snr = float(np.exp(rng.uniform(*np.log(_SNR))))
        (image,), (truth,) = make_nanowire_images(
            1, **_RANGES, snr=snr, size=size, random_state=int(rng.integers(2**31 - 1))
        )
        images.append(image)
        maps.append(truth.aligned_map(window, tolerance))
    return images, maps
