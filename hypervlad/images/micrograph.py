"""One image: from a path or an array to a `Micrograph`."""

from __future__ import annotations

import os
import re
import stat
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from hypervlad.images.banner import find_banner
from hypervlad.images.errors import ImageReadError, PartlyReadWarning, broken_link
from hypervlad.images.formats import (
    N_HEAD,
    RASTER_KINDS,
    DecodedImage,
    check_single_page,
    decode_raster,
    describe_non_image,
    file_kind,
    image_pixels,
)
from hypervlad.images.microscopy import MICROSCOPY_KINDS, decode_microscopy
from hypervlad.images.options import ReadOptions
from hypervlad.images.pixels import (
    as_pixels,
    pixel_digest,
    scale_pixels,
    scaling_rule,
    select_channel,
)
from hypervlad.images.tiff import decode_tiff

# Part of the key under which facts of a file are cached: increase it when pixels of a file change,
# or the facts that are cached.
READING_VERSION = 6


@dataclass(frozen=True, eq=False)
class Micrograph:
    """One image as read.

    Attributes
    ----------
    pixels : ndarray of float32, shape (H, W) or (H, W, 3)
        In [0, 1]; a new array, not a view of the source.
    pixel_size : float or None
        Nanometres per pixel, if the file contains it and pixels are square within 1 %.
    digest : str
        SHA-256, in hexadecimal, of the decoded pixels (without a removed banner) and of the rule
        that scaled them: independent of the file name and the lossless format.
    metadata : dict
        Values that JSON can store: ``"format"``, ``"dtype"`` as stored, ``"banner_rows"`` removed,
        ``"page"`` and ``"n_pages"``, the instrument's metadata (``"fei"``, ``"zeiss"``,
        ``"imagej"``, ``"gatan"``), and ``"pixel_sides_nm"`` of pixels that are not square.
    source : str or None
        The path as given; None for an array.
    """

    pixels: NDArray[np.float32]
    pixel_size: float | None
    digest: str
    metadata: dict[str, Any] = field(default_factory=dict)
    source: str | None = None

    def __repr__(self) -> str:
        # Without the metadata, which are pages long and contain the operator's name.
        return (
            f"Micrograph(source={self.source!r}, shape={self.pixels.shape}, "
            f"dtype={self.pixels.dtype}, pixel_size={self.pixel_size})"
        )


def read_one(source: Any, options: ReadOptions, name: str, *, with_digest: bool) -> Micrograph:
    """Read a path or an array; without a digest, its field is empty."""
    is_path = isinstance(source, (str, os.PathLike))
    decoded = (_decode_path if is_path else _decode_array)(source, options, name)
    if options.page is None and decoded.metadata.get("n_pages", 1) > 1:
        _warn_of_pages(name, decoded.metadata["format"])
    if options.channel is not None:
        decoded.pixels = select_channel(decoded.pixels, options.channel, name)
    pixels = as_pixels(decoded.pixels, name, options.max_pixels)
    stored_type = str(pixels.dtype)
    n_banner = _banner_rows(pixels, decoded.scan_rows) if options.banner == "remove" else 0
    # The banner is removed first, as its white text would change the percentiles.
    pixels = pixels[: pixels.shape[0] - n_banner]
    rule = scaling_rule(pixels, options, name)
    return Micrograph(
        pixels=scale_pixels(pixels, rule),
        pixel_size=decoded.pixel_size,
        digest=pixel_digest(pixels, rule) if with_digest else "",
        metadata={**decoded.metadata, "dtype": stored_type, "banner_rows": n_banner},
        source=name if is_path else None,
    )


def read_stored(path: Any, name: str) -> NDArray[Any]:
    """Read the values of a file without scaling, (H, W) or (H, W, 3)."""
    options = ReadOptions()
    return as_pixels(_decode_path(path, options, name).pixels, name, options.max_pixels)


def _warn_of_pages(name: str, kind: str) -> None:
    # The same text, from this line, in whatever thread, for all files of a folder: Python shows it
    # once, whichever lines of the user's code read them.
    others = (
        f"export others of a {kind} file as images of their own"
        if kind in RASTER_KINDS
        else "1 reads the second"
    )
    warnings.warn(
        f"{os.path.dirname(name) or os.curdir}: files of several pages, sections or frames, of "
        f"which only the first is read ('hypervlad check' lists them); --image-page 0, where a "
        f'model is trained, confirms the first (in Python, read_options={{"page": 0}}); {others}',
        PartlyReadWarning,
        stacklevel=1,
    )


def _banner_rows(pixels: NDArray[Any], scan_rows: int | None) -> int:
    return find_banner(pixels) if scan_rows is None else pixels.shape[0] - scan_rows


def _decode_array(source: Any, options: ReadOptions, name: str) -> DecodedImage:
    # Looked up on the type: on a Pillow image the attribute would decode it.
    if not any(hasattr(type(source), hook) for hook in ("__array__", "__array_interface__")):
        raise ImageReadError(
            f"{name}: expected a path or an array, got {type(source).__name__}; "
            "read_image takes one image, read_micrographs a list; nested lists go through "
            "np.asarray"
        )
    if options.page:
        raise ImageReadError(
            f"{name}: page {options.page} was requested, but an array has one page: "
            "pass stack[page]"
        )
    if hasattr(source, "getbands"):  # a Pillow image, whose palette np.asarray would lose
        try:
            source = image_pixels(source)
        except Exception as error:  # it is decoded here, which can raise anything
            raise ImageReadError(f"{name}: this Pillow image does not decode ({error})") from error
    return DecodedImage(source, metadata={"format": "array"})


def _decode_path(source: Any, options: ReadOptions, name: str) -> DecodedImage:
    path = _as_path(source, name)
    with _open_file(path, name) as file:
        head = file.read(N_HEAD)
        file.seek(0)
        if not head:
            raise ImageReadError(f"{name}: the file is empty (0 bytes); copy or export it again")
        kind = file_kind(head, path.suffix.lower())
        if kind is None:
            raise ImageReadError(f"{name}: {describe_non_image(head)}")
        try:
            return _decode_file(file, path, kind, options, name)
        except ImageReadError:
            raise
        except MemoryError as error:
            raise ImageReadError(
                f"{name}: not enough memory to decode it; crop or bin the image, or use a larger "
                "machine"
            ) from error
        except Exception as error:  # decoders raise anything for damaged files
            raise ImageReadError(
                f"{name}: damaged or truncated {kind} file ({type(error).__name__}: {error}); "
                "copy or export it again"
            ) from error


def _decode_file(
    file: BinaryIO, path: Path, kind: str, options: ReadOptions, name: str
) -> DecodedImage:
    if kind == "TIFF":
        return decode_tiff(file, options, name)
    page = options.page or 0
    if kind in MICROSCOPY_KINDS:
        return decode_microscopy(path, kind, page, name, options.max_pixels)
    check_single_page(page, name, kind)
    return decode_raster(file, kind, name, options.max_pixels)


def _as_path(source: Any, name: str) -> Path:
    text = os.fspath(source)
    if not isinstance(text, str):
        raise ImageReadError(f"{name}: a path of bytes; decode it first with os.fsdecode")
    if not text.strip():
        raise ImageReadError(f"{name}: an empty path; give the path of an image file")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text):
        raise ImageReadError(f"{name}: a web address, not a file; download it first")
    return Path(text)


def _open_file(path: Path, name: str) -> BinaryIO:
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise ImageReadError(
                f"{name}: a folder, not an image file; hypervlad.images.find_images(folder) lists "
                "the images in it"
            )
        if not stat.S_ISREG(mode):
            raise ImageReadError(f"{name}: not a regular file (a device or a pipe); give a file")
        return path.open("rb")
    except ImageReadError:
        raise
    except FileNotFoundError as error:
        if path.is_symlink():
            raise broken_link(path, name) from None
        raise ImageReadError(
            f"{name}: no such file{_looked_in(path)}; check the path for typing errors"
        ) from error
    except PermissionError as error:
        raise ImageReadError(
            f"{name}: permission denied; ask its owner for read access, or close the program that "
            "has it open"
        ) from error
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
        reason = getattr(error, "strerror", None) or error
        raise ImageReadError(f"{name}: cannot be opened ({reason}); check the path") from error


def _looked_in(path: Path) -> str:
    """Return the working directory for a relative path: why it is not found."""
    return "" if path.is_absolute() else f" (looked in {Path.cwd()})"
