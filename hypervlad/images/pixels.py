"""Pixels as arrays: checks, conversion, scaling onto [0, 1], digests."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hypervlad.common.wording import counted
from hypervlad.images.errors import ImageReadError
from hypervlad.images.options import ReadOptions

_DIGEST_BYTES = 32
BLANK = " blank"  # after the digest of an image whose pixels are all equal
_LAYOUT = "expected an array of shape (height, width), (height, width, 3) or (height, width, 4)"


def as_pixels(array: Any, name: str, max_pixels: int | None = None) -> NDArray[Any]:
    """Convert an array to pixels (H, W) or (H, W, 3) without changing finite values.

    A fourth channel is dropped. The result may share memory with the array.
    """
    pixels = _to_numpy(array, name)
    _check_type(pixels, name)
    pixels = _check_shape(pixels, name)
    height, width, *channels = pixels.shape
    check_size(height, width, name, max_pixels, math.prod(channels), pixels.itemsize)
    if pixels.dtype.kind == "f":
        pixels = _check_finite(pixels, name)
    elif pixels.dtype.kind == "b":
        pixels = pixels.view(np.uint8) != 0  # Pillow stores True as 255
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)


def check_size(
    height: int,
    width: int,
    name: str,
    max_pixels: int | None,
    n_channels: int = 1,
    n_bytes: int = 1,
) -> None:
    """Raise `ImageReadError` if an image has no pixels, or takes more memory than is allowed."""
    if height < 1 or width < 1:
        raise ImageReadError(
            f"{name}: an image of {height} x {width} pixels has no pixels; export or copy it again"
        )
    # Every value becomes a 32-bit float, and wider ones take more even before.
    n_pixels = height * width * n_channels * max(4, n_bytes) // 4
    if max_pixels is None or n_pixels <= max_pixels:
        return
    each = f" of {n_channels * n_bytes} bytes" if n_pixels > height * width else ""
    as_counted = f", counted as {n_pixels:,} of 4 bytes," if each else ""
    raise ImageReadError(
        f"{name}: {height} x {width} pixels{each}{as_counted} is more than "
        f"max_pixels={max_pixels:,}; crop or bin the image, or raise max_pixels (of "
        "read_options, or of hypervlad.load for a saved model) if you trust the file"
    )


def select_channel(array: Any, channel: int, name: str) -> NDArray[Any]:
    pixels = _to_numpy(array, name)
    if pixels.ndim not in (2, 3):
        return pixels  # its shape is an error anyway
    n_channels = pixels.shape[2] if pixels.ndim == 3 else 1
    if channel >= n_channels:
        raise ImageReadError(
            f"{name}: channel {channel} was requested, but the image has "
            f"{counted(n_channels, 'channel')}; channels are counted from 0"
        )
    return pixels[:, :, channel] if pixels.ndim == 3 else pixels


def _to_numpy(array: Any, name: str) -> NDArray[Any]:
    if isinstance(array, np.ma.MaskedArray) and np.ma.is_masked(array):
        raise ImageReadError(
            f"{name}: a masked array with masked pixels; fill them first with array.filled(value)"
        )
    try:
        return np.asarray(array)
    except Exception as error:  # a foreign __array__ may raise anything, e.g. a tensor on a GPU
        raise ImageReadError(
            f"{name}: this {type(array).__name__} does not convert to a NumPy array ({error}); "
            "convert it first (a torch tensor: tensor.detach().cpu().numpy())"
        ) from error


def _check_type(pixels: NDArray[Any], name: str) -> None:
    kind = pixels.dtype.kind
    if kind in "buif":
        return
    if kind == "c":
        raise ImageReadError(
            f"{name}: complex pixels ({pixels.dtype}), as of a Fourier transform; leave them out, "
            "or give their modulus, np.abs(image)"
        )
    if kind in "US":
        raise ImageReadError(
            f"{name}: an array of text ({pixels.dtype}), not of pixels; give paths in a list"
        )
    raise ImageReadError(
        f"{name}: an array of type {pixels.dtype}, not of numbers; expected bool, integers or "
        "floats (images of different sizes go in a list, one array per image)"
    )


def _check_shape(pixels: NDArray[Any], name: str) -> NDArray[Any]:
    shape = pixels.shape
    if 0 in shape:
        raise ImageReadError(f"{name}: an array of shape {shape} has no pixels; {_LAYOUT}")
    if pixels.ndim == 2:
        return pixels
    if pixels.ndim == 3:
        if shape[2] == 1:
            return pixels[:, :, 0]
        if shape[2] in (3, 4):
            return pixels[:, :, :3]
        if shape[0] in (1, 3, 4):
            raise ImageReadError(
                f"{name}: an array of shape {shape} has its channels first; {_LAYOUT}: "
                "use np.moveaxis(image, 0, -1)"
            )
        raise ImageReadError(
            f"{name}: an array of shape {shape} looks like a stack, not one image; {_LAYOUT}: "
            "read its images one by one, or as a list"
        )
    remedy = "read its images one by one, or as a list" if pixels.ndim > 3 else "reshape it"
    raise ImageReadError(
        f"{name}: an array of {pixels.ndim} dimensions, shape {shape}; {_LAYOUT}: {remedy}"
    )


def _check_finite(pixels: NDArray[Any], name: str) -> NDArray[Any]:
    if pixels.dtype.itemsize > 8:
        with np.errstate(over="ignore"):  # overflow to infinity is reported below
            pixels = pixels.astype(np.float64)
    finite = np.isfinite(pixels)
    if finite.all():
        return pixels
    n_nan = int(np.isnan(pixels).sum())
    n_infinite = finite.size - int(finite.sum()) - n_nan
    raise ImageReadError(
        f"{name}: {n_nan} NaN and {n_infinite} infinite values among {finite.size} pixel values; "
        "replace them first, for example with np.nan_to_num(image), or leave the image out"
    )


# Values are scaled block by block: a large image never exists in float64, and a block stays in the
# processor's cache.
_BLOCK = 1 << 17
_N_LEVELS = 1 << 16
_SAMPLE_STEP = 61  # a prime, so that a sample of pixels has all columns
_SAMPLED = 1 << 16  # fewer values are sorted as they are

Rule = tuple[str, float, float]


def scaling_rule(pixels: NDArray[Any], options: ReadOptions, name: str = "image") -> Rule:
    """Return the rule by which `options` scale these pixels, for their digest.

    ``("limits", low, high)``, ``("percentile", lower, upper)`` or ``("minmax", 0, 0)``: the same
    for options that give the same pixels.
    """
    scaling = options.scaling
    if isinstance(scaling, tuple):
        return ("limits", *scaling)
    if scaling == "minmax":
        return ("minmax", 0.0, 0.0)
    limits = None if scaling == "percentile" else _type_limits(pixels)
    if scaling == "dtype" and limits is None:
        raise ImageReadError(
            f"{name}: scaling='dtype' needs floats in [0, 1], but values run from "
            f"{pixels.min():g} to {pixels.max():g}; use scaling='percentile', 'minmax' or "
            "(low, high)"
        )
    if limits is not None and (
        scaling == "dtype" or pixels.dtype.kind not in "ui" or limits[1] == 255
    ):
        return ("limits", *limits)
    return ("percentile", *options.percentiles)


def scale_pixels(pixels: NDArray[Any], rule: Rule) -> NDArray[np.float32]:
    """Scale pixels to [0, 1] by a rule of `scaling_rule`, as a new array.

    An image of one value gives zeros, except under fixed limits.
    """
    name, low, high = rule
    if name == "percentile":
        low, high = percentile_limits(pixels, (low, high))
    if name == "minmax" or low == high:
        # Also if the percentiles are equal: an almost empty image keeps its few bright pixels.
        low, high = float(pixels.min()), float(pixels.max())
    if low == high:
        return np.zeros(pixels.shape, dtype=np.float32)
    if pixels.dtype == np.uint8 and (low, high) == (0.0, 255.0):
        return np.asarray(np.divide(pixels, np.float32(255), dtype=np.float32))
    if pixels.dtype == np.float32 and (low, high) == (0.0, 1.0):
        return np.asarray(np.clip(pixels, 0, 1))
    if pixels.dtype == np.uint16 and pixels.size > _N_LEVELS:
        # Scaling each level once and looking it up gives the same numbers several times faster.
        levels = _affine(np.arange(_N_LEVELS, dtype=np.uint16)[:, None], low, high)[:, 0]
        return _look_up(pixels, levels)
    return _affine(pixels, low, high)


def _look_up(pixels: NDArray[np.uint16], levels: NDArray[np.float32]) -> NDArray[np.float32]:
    found = np.empty(pixels.shape, dtype=np.float32)
    # NumPy converts indices to 64 bits. With "wrap" it does not copy the output; all are valid.
    rows = max(1, _BLOCK // pixels[0].size)
    for start in range(0, len(pixels), rows):
        part = slice(start, start + rows)
        np.take(levels, pixels[part], mode="wrap", out=found[part])
    return found


def percentile_limits(
    pixels: NDArray[Any], percentiles: tuple[float, float]
) -> tuple[float, float]:
    """Return two percentiles of all values, linearly interpolated between order statistics.

    As ``numpy.percentile``, but exact for all integers and faster: a sample tells which few values
    have to be sorted.
    """
    values = pixels.ravel()
    if values.dtype == bool:
        values = values.view(np.uint8)
    positions = [q / 100 * (values.size - 1) for q in percentiles]
    floors = [min(int(position), values.size - 1) for position in positions]
    ranks = sorted({r for f in floors for r in (f, min(f + 1, values.size - 1))})
    ordered = _order_statistics(values, ranks)
    low, high = (
        _between(ordered[f], ordered[min(f + 1, values.size - 1)], position - f)
        for f, position in zip(floors, positions, strict=True)
    )
    return low, high


def _type_limits(pixels: NDArray[Any]) -> tuple[float, float] | None:
    """Return black and white by the data type; None for floats beyond [0, 1]."""
    if pixels.dtype.kind in "ui":
        info = np.iinfo(pixels.dtype)
        return float(info.min), float(info.max)
    if pixels.dtype.kind == "f" and (pixels.min() < 0 or pixels.max() > 1):
        return None
    return 0.0, 1.0


def _order_statistics(values: NDArray[Any], ranks: list[int]) -> dict[int, float]:
    if len(values) < _SAMPLED:
        return _partitioned(values, ranks)
    sample = np.sort(values[::_SAMPLE_STEP])
    low = [rank for rank in ranks if 2 * rank < len(values)]
    high = [rank for rank in ranks if 2 * rank >= len(values)]
    found: dict[int, float] = {}
    if low:
        limit = sample[min(_n_sampled(max(low)), len(sample) - 1)]
        tail = values[values <= limit]
        found |= _partitioned(tail if len(tail) > max(low) else values, low)
    if high:
        limit = sample[-1 - min(_n_sampled(len(values) - 1 - min(high)), len(sample) - 1)]
        tail = values[values >= limit]
        n_below = len(values) - len(tail)
        tail, n_below = (values, 0) if n_below > min(high) else (tail, n_below)
        found |= _partitioned(tail, high, n_below)
    return found


def _n_sampled(n_values: int) -> int:
    """Return at how many sampled values a tail of so many values may be cut."""
    return 2 * (n_values // _SAMPLE_STEP) + 16  # twice the expected number: hardly ever too few


def _partitioned(values: NDArray[Any], ranks: list[int], n_below: int = 0) -> dict[int, float]:
    part = np.partition(values, [rank - n_below for rank in ranks])
    return {rank: float(part[rank - n_below]) for rank in ranks}


def _between(low: float, high: float, fraction: float) -> float:
    # A weighted mean, as high - low may overflow.
    return low if low == high else low * (1 - fraction) + high * fraction


def _affine(pixels: NDArray[Any], low: float, high: float) -> NDArray[np.float32]:
    scaled = np.empty(pixels.shape, dtype=np.float32)
    # Halved so that neither high - low nor value - low can overflow; exact, as halving is.
    half_low, half_span = low / 2, high / 2 - low / 2
    if half_span == 0:  # limits within a few subnormal steps of each other
        return (pixels >= high).astype(np.float32)
    rows = max(1, _BLOCK // max(1, pixels[0].size))
    for start in range(0, len(pixels), rows):
        block = pixels[start : start + rows].astype(np.float64)
        np.clip(block, low, high, out=block)
        block *= 0.5
        block -= half_low
        block /= half_span
        scaled[start : start + rows] = block
    return np.clip(scaled, 0.0, 1.0, out=scaled)


def is_blank(pixels: NDArray[Any]) -> bool:
    # Most images differ in their first row: the others need no comparison.
    return bool((pixels[0] == pixels[0, 0]).all() and (pixels == pixels[0, 0]).all())


def pixel_digest(pixels: NDArray[Any], rule: Rule) -> str:
    stored = np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("<"))
    header = json.dumps([stored.dtype.str, stored.shape, rule])
    digest = hashlib.sha256(header.encode("ascii"))
    digest.update(stored.data)
    return digest.hexdigest()


def may_have_copies(digest: str) -> bool:
    """Return whether an image is known and not blank: each blank one counts as its own."""
    return bool(digest) and not digest.endswith(BLANK)


def is_same_image(digest: str, before: str) -> bool:
    """Return whether an image has the pixels of before, or it is not known: "".

    Earlier versions did not note blank ones.
    """
    return not before or digest.removesuffix(BLANK) == before.removesuffix(BLANK)


def originals_of(digests: Sequence[str], *labels: Sequence[Hashable]) -> NDArray[np.intp]:
    """Return the position of the first image of the same pixels and labels as each, shape (n,).

    By this rule, all that counts images tells copies.

    >>> originals_of(["a", "a", "b blank", "b blank", "a"], [1, 1, 1, 1, 2]).tolist()
    [0, 0, 2, 3, 4]
    """
    first = dict[tuple[Hashable, ...], int]()
    own = enumerate(zip(digests, *labels, strict=True))
    found = [first.setdefault(each, i) if may_have_copies(each[0]) else i for i, each in own]
    return np.array(found, dtype=np.intp)


def are_copies(digests: Sequence[str], *labels: Sequence[Hashable]) -> NDArray[np.bool_]:
    """Return which images (n,) are copies of an earlier one, with the same labels."""
    return originals_of(digests, *labels) < np.arange(len(digests))


@dataclass(frozen=True, eq=False)
class ImageDigests:
    """Digests of many images, by which a model recognises its training images."""

    digests: NDArray[np.uint8]  # SHA-256 of their pixels, (n, 32)
    is_blank: NDArray[np.bool_]  # (n,)

    def __post_init__(self) -> None:
        array = self.digests
        if array.dtype != np.uint8 or array.ndim != 2 or array.shape[1] != _DIGEST_BYTES:
            raise ValueError(
                f"digests of images have type {array.dtype} and shape {array.shape}; expected "
                f"uint8 and (n, {_DIGEST_BYTES})"
            )

    @classmethod
    def of(cls, digests: Sequence[str]) -> ImageDigests:
        joined = bytes.fromhex("".join(each.removesuffix(BLANK) for each in digests))
        is_blank = np.array([each.endswith(BLANK) for each in digests], dtype=bool)
        return cls(np.frombuffer(joined, dtype=np.uint8).reshape(-1, _DIGEST_BYTES), is_blank)

    def __len__(self) -> int:
        return len(self.digests)

    def texts(self) -> list[str]:
        pairs = zip(self.digests, self.is_blank.tolist(), strict=True)
        return [digest.tobytes().hex() + BLANK * blank for digest, blank in pairs]

    @property
    def n_copies(self) -> int:
        return int(are_copies(self.texts()).sum())

    def contains(self, digests: Sequence[str]) -> NDArray[np.bool_]:
        """Return which of m digests are among these, shape (m,)."""
        distinct = {row.tobytes().hex() for row in self.digests}
        return np.array([each.removesuffix(BLANK) in distinct for each in digests], dtype=bool)

    def to_state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        return {"blank": np.flatnonzero(self.is_blank).tolist()}, {"digests": self.digests}

    @classmethod
    def from_state(
        cls, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
    ) -> ImageDigests:
        """Undo `to_state`; ValueError for arrays that cannot be digests."""
        digests = arrays["digests"]
        return cls(digests, np.isin(np.arange(len(digests)), header.get("blank", [])))
