"""Images to train an `AlignmentClassifier` with where nobody has labelled any."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_random_state

from hypervlad.datasets._arguments import check_count
from hypervlad.datasets.nanowires import Drawn, NanowireTruth, make_nanowire_images

_RANGES: dict[str, Drawn] = {
    "aligned": (0.0, 1.0),
    "density": (0.2, 0.9),
    "width": (4.0, 12.0),
    "blur": (0.4, 3.3),
    "tilt": (0.0, 0.9),
    "overlap": (0.0, 1.0),
}
_SNR = (0.7, 20.0)  # drawn evenly in its logarithm: as many images of 1 to 2 as of 2 to 4
_NO_NOISE = 0.15  # share of the images


def make_alignment_examples(
    n: int,
    *,
    size: int | tuple[int, int] = (384, 512),
    random_state: int | np.random.RandomState | None = None,
) -> tuple[list[NDArray[np.float32]], list[NanowireTruth]]:
    """Make images of nanowires of all kinds, for a classifier to learn what aligned looks like.

    `make_nanowire_images` with everything drawn anew for each image: sparse to dense, thin to
    thick, sharp to blurred, flat to tilted, and from no noise to more noise than contrast.

    Parameters
    ----------
    n : int
        Number of images, at least 1.
    size : int or (int, int), default=(384, 512)
        Height and width in pixels, each at least 64.
    random_state : int, RandomState or None, default=None
        Seed. With the same integer, image ``i`` is the same whatever ``n`` is.

    Returns
    -------
    images : list of n arrays of shape (H, W), float32 in [0, 1]
    truths : list of n NanowireTruth
        ``truth.aligned_map(window)`` is what `AlignmentClassifier.fit` takes.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Examples
    --------
    >>> from hypervlad.datasets import make_alignment_examples
    >>> images, truths = make_alignment_examples(2, size=96, random_state=0)
    >>> images[0].shape, truths[0].aligned_map(window=32).shape
    ((96, 96), (96, 96))
    """
    n = check_count(n)
    seed = int(check_random_state(random_state).randint(2**31 - 1))
    made = [_make(np.random.default_rng([3, seed, i]), size) for i in range(n)]
    return [image for image, _ in made], [truth for _, truth in made]


def _make(
    rng: np.random.Generator, size: int | tuple[int, int]
) -> tuple[NDArray[np.float32], NanowireTruth]:
    noisy = rng.random() >= _NO_NOISE
    snr = float(np.exp(rng.uniform(*np.log(_SNR)))) if noisy else np.inf
    own = int(rng.integers(2**31 - 1))
    (image,), (truth,) = make_nanowire_images(1, **_RANGES, snr=snr, size=size, random_state=own)
    return image, truth
