"""Options of reading images, which models store so that prediction reads images as training did."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import math
import os
import textwrap
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hypervlad.common.constraints import (
    Alternatives,
    InstanceOf,
    Integer,
    Number,
    OneOf,
    check_parameters,
    check_value,
    is_number,
)
from hypervlad.common.limits import MAX_PIXELS
from hypervlad.common.wording import counted
from hypervlad.images.errors import ImageReadError

SCALINGS = ("auto", "dtype", "percentile", "minmax")
NANOMETRES = Number(above=0, meaning="nanometres per pixel")
ROUNDING = 1e-5  # by which two pixel sizes may differ that are one, as tables round them
_SHARE = Number(at_least=0, below=1)


class PixelSizes:
    """Pixel sizes of single files, however their paths are given later.

    `hypervlad.data.load_pixel_sizes` reads them from a table. Models are saved without them.

    Parameters
    ----------
    sizes : mapping from path to float
        Nanometres per pixel.
    errors : mapping from path to float, optional
        Of those that are from scale bars: by which share they may be wrong, within 95 %.

    Examples
    --------
    >>> from hypervlad.images import PixelSizes
    >>> sizes = PixelSizes({"images/a.png": 2.5})
    >>> sizes.of("images/../images/a.png"), sizes.of("b.png")
    (2.5, None)
    """

    is_unsaved = True

    def __init__(
        self,
        sizes: Mapping[str | os.PathLike[str], float],
        errors: Mapping[str | os.PathLike[str], float] | None = None,
    ) -> None:
        for path, size in sizes.items():
            check_value(f"pixel size of {os.fspath(path)}", size, [NANOMETRES])
        for path, share in (errors or {}).items():
            check_value(f"error of the pixel size of {os.fspath(path)}", share, [_SHARE])
        self._sizes = {_place_of(path): float(size) for path, size in sizes.items()}
        self._errors = {_place_of(path): float(own) for path, own in (errors or {}).items()}
        digest = hashlib.sha256()
        for place in sorted(self._sizes):
            digest.update(f"{place!a} {self._sizes[place]!r}\n".encode())
        self._digest = digest.hexdigest()

    def of(self, image: Any) -> float | None:
        """Return the pixel size of an image; None if it is not known, or the image is no file."""
        is_path = isinstance(image, str | os.PathLike)
        return self._sizes.get(_place_of(image)) if is_path else None

    def error_of(self, image: Any, used: float | None) -> float:
        """Return the error of the size that was used, if it is that of a scale bar, otherwise 0."""
        known = self.of(image)
        is_used = known and used and math.isclose(known, used, rel_tol=ROUNDING)
        return self._errors.get(_place_of(image), 0.0) if is_used else 0.0

    def __len__(self) -> int:
        return len(self._sizes)

    def __repr__(self) -> str:
        return f"PixelSizes({counted(len(self), 'image')}, {self._digest[:16]})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PixelSizes) and self._digest == other._digest

    def __hash__(self) -> int:
        return hash(self._digest)

    def __deepcopy__(self, memo: Any) -> PixelSizes:
        return self  # it never changes; `asdict` would copy thousands of paths for each image


def _place_of(path: str | os.PathLike[str]) -> str:
    """Return where a file is, of links their target, in composed Unicode."""
    place = os.path.normcase(os.path.realpath(os.fsdecode(path)))
    return unicodedata.normalize("NFC", place)


PIXEL_SIZE: Alternatives = [NANOMETRES, InstanceOf(PixelSizes, "a PixelSizes"), None]
_CONSTRAINTS: Mapping[str, Alternatives] = {
    "page": [Integer(at_least=0), None],
    "channel": [Integer(at_least=0), None],
    "banner": [OneOf("keep", "remove")],
    "max_pixels": [Integer(at_least=1), None],
    "pixel_size": PIXEL_SIZE,
}


@dataclass(frozen=True)
class ReadOptions:
    """Options of reading images.

    Parameters
    ----------
    page : int, optional
        Page, section, frame or slice of a file, counted from 0. By default the first, with a
        `PartlyReadWarning` if there are more.
    channel : int, optional
        One channel of the image, counted from 0, which is read as grey. By default, grey and RGB
        images are read, and a TIFF page of other samples is refused.
    scaling : {"auto", "dtype", "percentile", "minmax"} or (low, high), default="auto"
        How pixel values are mapped to [0, 1], all channels alike:

        - ``"auto"``: unsigned 8-bit values are divided by 255, True and False become 1 and 0,
          floats in [0, 1] are unchanged, and all others are scaled by ``"percentile"``;
        - ``"dtype"``: from the full range of the integer type; floats must be in [0, 1];
        - ``"percentile"``: from the two ``percentiles``, values beyond them clipped;
        - ``"minmax"``: from the smallest and the largest value;
        - ``(low, high)``: from these two values, values beyond them clipped.
    percentiles : (float, float), default=(0.1, 99.9)
        Lower and upper percentile, 0 <= lower < upper <= 100.
    banner : {"keep", "remove"}, default="keep"
        ``"remove"`` cuts off the instrument's information bar below the image: as given by the
        file's metadata, or else as found by `find_banner`.
    max_pixels : int or None, default=400_000_000
        Largest image that is decoded, in grey pixels of up to 32 bits: an RGB pixel counts as three
        of them, a 64-bit value as two. None for no limit. A loaded model has the limit given to
        :func:`hypervlad.load`, not the one of its training.
    pixel_size : float, PixelSizes or None, default=None
        Nanometres per pixel of images that state none between 1 pm and 1 mm: of files without it,
        and of arrays; or those of single files.

    Raises
    ------
    ImageReadError
        If a value is not allowed.

    Examples
    --------
    >>> from hypervlad.images import ReadOptions
    >>> ReadOptions(scaling=(0, 4095)).scaling
    (0.0, 4095.0)
    """

    page: int | None = None
    channel: int | None = None
    scaling: str | tuple[float, float] = "auto"
    percentiles: tuple[float, float] = (0.1, 99.9)
    banner: str = "keep"
    max_pixels: int | None = MAX_PIXELS
    pixel_size: float | PixelSizes | None = None

    def __post_init__(self) -> None:
        try:
            check_parameters(vars(self), _CONSTRAINTS)
        except ValueError as error:
            raise ImageReadError(str(error)) from error
        # Normalised here, so that options that were stored as JSON (tuples as lists) compare equal.
        set_field = object.__setattr__
        for name in ("page", "channel", "max_pixels"):
            number = getattr(self, name)
            set_field(self, name, None if number is None else int(number))
        if self.pixel_size is not None and not isinstance(self.pixel_size, PixelSizes):
            set_field(self, "pixel_size", float(self.pixel_size))
        set_field(self, "scaling", _checked_scaling(self.scaling))
        set_field(self, "percentiles", _checked_percentiles(self.percentiles))

    def without_files(self) -> dict[str, Any]:
        """Return the options that do not depend on the files, as JSON can store them."""
        of_files = isinstance(self.pixel_size, PixelSizes)
        return dataclasses.asdict(self) | ({"pixel_size": None} if of_files else {})


def make_options(options: dict[str, Any]) -> ReadOptions:
    """Return `ReadOptions` from keywords; errors for a wrong name list the valid ones."""
    names = [field.name for field in dataclasses.fields(ReadOptions)]
    for name in options:
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ImageReadError(
                f"unknown reading option {name!r}: expected one of {_quoted(names)}{hint}"
            )
    return ReadOptions(**options)


def check_read_options(read_options: Any) -> ReadOptions:
    if read_options is None:
        return ReadOptions()
    if isinstance(read_options, ReadOptions):
        return read_options
    if isinstance(read_options, Mapping):
        return make_options(dict(read_options))
    raise ValueError(
        'read_options must be a dict such as {"banner": "remove"} or a ReadOptions, '
        f"not {type(read_options).__name__}"
    )


def _quoted(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(repr(name) for name in names)


def _shown(value: Any) -> str:
    return textwrap.shorten(repr(value), 80, placeholder=" …")


def _number_pair(value: Any) -> tuple[float, float] | None:
    if not isinstance(value, (tuple, list)) or len(value) != 2 or not all(map(is_number, value)):
        return None
    low, high = float(value[0]), float(value[1])
    return (low, high) if low < high else None


def _checked_scaling(scaling: Any) -> str | tuple[float, float]:
    if isinstance(scaling, str) and scaling in SCALINGS:
        return scaling
    pair = _number_pair(scaling)
    if pair is None:
        raise ImageReadError(
            f"scaling={_shown(scaling)}: expected one of {_quoted(SCALINGS)}, "
            "or two finite numbers, low < high: (0, 4095), in a shell 0,4095"
        )
    return pair


def _checked_percentiles(percentiles: Any) -> tuple[float, float]:
    pair = _number_pair(percentiles)
    if pair is None or pair[0] < 0 or pair[1] > 100:
        raise ImageReadError(
            f"percentiles={_shown(percentiles)}: expected two numbers (lower, upper) with "
            "0 <= lower < upper <= 100, such as (0.1, 99.9)"
        )
    return pair
