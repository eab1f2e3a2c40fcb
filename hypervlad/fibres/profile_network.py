"""A small network that looks at profiles across lines: is there a fibre, and how wide is it?

It was trained on synthetic mats whose diameters are exact, with the steps of
``benchmarks/fibres/train.py``. Each profile is judged beside all others of its image, which share
their blur and their look.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
from scipy.special import expit

from hypervlad.common.dense import DenseLayers
from hypervlad.common.progress import one_blas_thread
from hypervlad.fibres.contrast import FloatMap, Values

N_ROWS, N_SAMPLES = 6, 40  # of a profile: along the fibre, and across it
N_FREQUENCIES = 24
FibreLook: TypeAlias = Literal["flat", "rims", "round", "transmission"]
LOOKS: tuple[str, ...] = get_args(FibreLook)
_FREQUENCIES = np.geomspace(0.08, np.pi, N_FREQUENCIES + 1)  # radians per pixel
SPECTRUM_FACTOR = 0.2
LOG_ERRORS = (-4.5, 1.0)
_MAX_SIDE = 2048  # of the part that a spectrum is taken from
_BATCH = 4096


@dataclass(frozen=True, eq=False)
class Judged:
    """What the network says about the n profiles of an image."""

    probability: Values  # that a fibre lies here, both edges visible
    log_ratio: Values  # logarithm of its diameter over the guessed one
    error: Values  # of the same
    offset: Values  # of the centre line, along the normal, over the guessed diameter
    turn: Values  # to the fibre's direction, radians, from the tangent away from the normal
    looks: Values  # (n_looks,), how well each of `LOOKS` fits the image
    blur: float  # standard deviation in pixels


class ProfileNetwork(DenseLayers):
    """Two dense layers per profile, their averages over the image, and two more layers.

    `weights` has those of the layers, and what depends on an image's places as a whole:
    ``acceptance``, by which power of the diameter more length of thick fibres is measured, and
    ``interval``, the half-width of the median's interval.
    """

    @classmethod
    def pretrained(cls) -> ProfileNetwork:
        return cls.stored(__package__, "profile_network.npz")

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits, which other weights would hardly share."""
        content = b"".join(self.weights[name].tobytes() for name in sorted(self.weights))
        return f"{zlib.crc32(content):08x}"

    def __call__(self, profiles: FloatMap, facts: FloatMap, spectrum: FloatMap) -> Judged:
        """Judge the profiles of one image.

        Parameters
        ----------
        profiles : ndarray of float32, shape (n, N_ROWS, N_SAMPLES)
            Brightness, of any gain and offset.
        facts : ndarray of float32, shape (n, n_facts)
            Sizes and contrasts that profiles do not show by themselves.
        spectrum : ndarray of float32, shape (N_FREQUENCIES,)
            As `log_spectrum` returns it.
        """
        with one_blas_thread():
            return self._judged(seen_by_network(profiles, facts), spectrum)

    def _judged(self, seen: FloatMap, spectrum: FloatMap) -> Judged:
        batches = (seen[i : i + _BATCH] for i in range(0, len(seen), _BATCH))
        hidden = np.concatenate([self.hidden(each, "first", "second") for each in batches])
        trust = expit(self.layer("trust", hidden))
        image = [hidden.mean(axis=0), (trust * hidden).sum(axis=0) / (trust.sum() + 1)]
        context = self.hidden(np.concatenate([*image, SPECTRUM_FACTOR * spectrum]), "context")
        beside = np.broadcast_to(context, (len(hidden), len(context)))
        last = self.hidden(np.concatenate([hidden, beside], axis=1), "third")
        presence, ratio, error, offset, turn = self.layer("profile", last).astype(np.float64).T
        *looks, log_blur = self.layer("image", context)
        return Judged(
            probability=expit(presence),
            log_ratio=ratio,
            error=np.exp(np.clip(error, *LOG_ERRORS)),
            offset=offset,
            turn=turn,
            looks=np.asarray(looks, dtype=np.float64),
            blur=float(np.exp(log_blur)),
        )


def seen_by_network(profiles: FloatMap, facts: FloatMap) -> FloatMap:
    """Return the input of the first layer: profiles of mean 0 and deviation 1, and the facts."""
    flat = profiles.reshape(len(profiles), -1)
    mean, deviation = flat.mean(axis=1, keepdims=True), flat.std(axis=1, keepdims=True)
    standardised = (flat - mean) / (deviation + 1e-4)
    return np.concatenate([standardised, facts], axis=1).astype(np.float32)


def log_spectrum(contrast: FloatMap) -> FloatMap:
    """Return the logarithm of the power at `N_FREQUENCIES` frequencies, over the variance."""
    height, width = (min(extent, _MAX_SIDE) for extent in contrast.shape)
    top, left = (contrast.shape[0] - height) // 2, (contrast.shape[1] - width) // 2
    part = contrast[top : top + height, left : left + width]
    window = np.hanning(height + 2)[1:-1, None] * np.hanning(width + 2)[None, 1:-1]
    power = np.abs(np.fft.rfft2((part - part.mean()) * window)) ** 2 / (window**2).sum()
    frequency = 2 * np.pi * np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    number = np.digitize(frequency.ravel(), _FREQUENCIES) - 1
    inside = (number >= 0) & (number < N_FREQUENCIES)
    count = np.bincount(number[inside], minlength=N_FREQUENCIES)
    total = np.bincount(number[inside], power.ravel()[inside], minlength=N_FREQUENCIES)
    mean = total / np.maximum(count, 1) / max(float(part.var()), 1e-9)
    return np.log(np.maximum(mean, 1e-9)).astype(np.float32)
