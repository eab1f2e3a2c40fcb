"""Small normalised pictures by which copies of a micrograph are recognised."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import fft
from scipy.ndimage import gaussian_filter

SIDE = 64
# Half band of the Fourier magnitudes: periods of 64 down to 3.2 thumbnail pixels.
_BAND = 20
_QUANTUM = 24.0
_SMOOTH, _LOCAL = 0.7, 6.4

Thumbnail = NDArray[np.int8]


def make_thumbnail(pixels: NDArray[np.float32]) -> Thumbnail:
    """Shrink an image to 64 x 64 and take out brightness, contrast and shading, place by place.

    What stays is the same for two exposures, two file qualities or two sizes of one picture. The
    aspect ratio is not kept, so that a rescaled copy falls on its original.

    Parameters
    ----------
    pixels : array of shape (H, W) or (H, W, 3)

    Returns
    -------
    array of shape (64, 64), int8
        Local mean 0 and local standard deviation about 24; all 0 for a blank image.
    """
    grey = pixels if pixels.ndim == 2 else pixels.mean(axis=2)
    small = np.asarray(
        Image.fromarray(np.ascontiguousarray(grey, dtype=np.float32)).resize(
            (SIDE, SIDE), Image.Resampling.BILINEAR
        )
    )
    # Detail that half a pixel of shift would already change is no help.
    small = gaussian_filter(small, _SMOOTH, mode="nearest")
    detail = small - gaussian_filter(small, _LOCAL, mode="nearest")
    spread = np.sqrt(gaussian_filter(detail * detail, _LOCAL, mode="nearest"))
    # The second term keeps the noise of an empty place from becoming as strong as an object.
    normal = detail / (spread + 0.2 * detail.std() + 1e-5)
    return np.clip(np.round(normal * _QUANTUM), -127, 127).astype(np.int8)


def position_descriptor(thumbnails: NDArray[np.int8]) -> NDArray[np.float32]:
    """Blurred thumbnails: alike for copies shifted by up to about 3 % of the frame.

    Parameters
    ----------
    thumbnails : array of shape (n, 64, 64)

    Returns
    -------
    array of shape (n, 256), float32, rows of unit length (or 0)
    """
    blurred = gaussian_filter(thumbnails.astype(np.float32), (0, 2, 2), mode="nearest")
    cells = blurred.reshape(len(blurred), 16, SIDE // 16, 16, SIDE // 16).mean(axis=(2, 4))
    return unit_rows(cells.reshape(len(cells), -1))


def spectrum_descriptor(thumbnails: NDArray[np.int8]) -> NDArray[np.float32]:
    """Magnitudes of the Fourier transform: alike for copies shifted by any small amount.

    Square roots, so that a few strong components do not decide alone. Not centred: subtract the
    mean over all images before comparing, since all spectra fall off alike.

    Parameters
    ----------
    thumbnails : array of shape (n, 64, 64)

    Returns
    -------
    array of shape (n, 780), float32
    """
    window = np.hanning(SIDE).astype(np.float32)
    windowed = thumbnails.astype(np.float32)
    windowed -= windowed.mean(axis=(1, 2), keepdims=True)
    windowed *= window[:, None] * window[None, :]
    spectrum = np.abs(fft.rfft2(windowed))
    band = np.concatenate([spectrum[:, :_BAND, :_BAND], spectrum[:, 1 - _BAND :, :_BAND]], axis=1)
    return np.sqrt(band).reshape(len(band), -1).astype(np.float32)


def unit_rows(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows minus their mean, scaled to unit length; a row without variation becomes 0."""
    values = values - values.mean(axis=1, keepdims=True)
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return (values / np.maximum(length, 1e-6)).astype(np.float32)
