"""Reading micrographs: one image, or many in order and ahead of the caller."""

from __future__ import annotations

import contextlib
import glob
import os
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import joblib
import numpy as np
from numpy.typing import NDArray

from hypervlad.common.constraints import OneOf, check_value
from hypervlad.common.progress import by_reader, unsaid, warn_of_image
from hypervlad.common.wording import counted, name_some, reason_of, warn_user
from hypervlad.images.annotations import coloured_marks
from hypervlad.images.banner import find_banner
from hypervlad.images.errors import (
    ImageReadError,
    PartlyReadWarning,
    SkippedImage,
    SkippedImagesWarning,
    list_reasons,
)
from hypervlad.images.files import add_sidecar, as_path, is_zarr, open_file, parts_below
from hypervlad.images.formats import (
    N_HEAD,
    RASTER_KINDS,
    DecodedImage,
    Reader,
    decode_raster,
    describe_non_image,
    file_kind,
    image_pixels,
    is_partly_transparent,
)
from hypervlad.images.hdf5 import decode_hdf5
from hypervlad.images.microscopy import decode_dm, decode_mrc, decode_ser
from hypervlad.images.ome_zarr import decode_ome_zarr
from hypervlad.images.options import PixelSizes, ReadOptions, make_options
from hypervlad.images.pixels import (
    BLANK,
    as_pixels,
    is_blank,
    pixel_digest,
    scale_pixels,
    scaling_rule,
    select_channel,
)
from hypervlad.images.tiff import decode_tiff

# Part of the key under which facts of a file are cached: increase it when pixels of a file change,
# or the facts that are cached.
READING_VERSION = 9
SIZE_TOLERANCE = 0.03  # by which two pixel sizes of one image may differ
_N_AHEAD = 2  # images that each thread reads ahead, which bounds the memory
N_READERS = 2  # with large TIFFs a third faster than one thread, with small images as fast

T = TypeVar("T")

#: Name of an array that is passed on alone, but comes from a list.
name_within: ContextVar[str] = ContextVar("name_within", default="image")


@dataclass(frozen=True, eq=False)
class Micrograph:
    """One image as read.

    Attributes
    ----------
    pixels : ndarray of float32, shape (H, W) or (H, W, 3)
        In [0, 1]; a new array, not a view of the source.
    pixel_size : float or None
        Nanometres per pixel, if it is stated and pixels are square within 1 %.
    digest : str
        SHA-256, in hexadecimal, of the decoded pixels (without a removed banner) and of the rule
        that scaled them: independent of the file name and the lossless format. If all pixels are
        equal, " blank" follows: such an image is not a copy of another.
    metadata : dict
        Values that JSON can store: ``"format"``, ``"dtype"`` as stored, ``"scaling"`` (by "limits"
        of the type or the reading options, by "percentile" or "minmax"), ``"banner_rows"`` removed,
        ``"page"`` and ``"n_pages"``, the instrument's metadata (``"fei"``, ``"zeiss"``,
        ``"imagej"`` and others), ``"pixel_size_from"``: where it is stated,
        ``"pixel_sides_nm"`` of pixels that are not square, and ``"implausible_pixel_sides_nm"``
        below 1 pm, above 1 mm, or of a print, a screen or a scan.
    source : str or None
        The path as given; None for an array.
    mask : ndarray of bool, shape (H, W), or None
        The pixels that count, of a particle that was cut out of a micrograph.
    """

    pixels: NDArray[np.float32]
    pixel_size: float | None
    digest: str
    metadata: dict[str, Any] = field(default_factory=dict)
    source: str | None = None
    mask: NDArray[np.bool_] | None = None

    def __repr__(self) -> str:
        # Without the metadata, which are pages long and contain the operator's name.
        return (
            f"Micrograph(source={self.source!r}, shape={self.pixels.shape}, "
            f"dtype={self.pixels.dtype}, pixel_size={self.pixel_size})"
        )


def read_image(source: Any, **options: Any) -> NDArray[np.float32]:
    """Read one image as float32 in [0, 1].

    Parameters
    ----------
    source : path or array
        An image file (TIFF, PNG, JPEG, DM4, EMD, MRC and others) or an OME-Zarr folder, recognised
        by its content, or an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) of bool, integers or
        floats. Alpha is dropped; a declared orientation is not applied.
    **options
        Fields of `ReadOptions`, with its defaults.

    Returns
    -------
    image : ndarray of float32, shape (H, W) or (H, W, 3)
        In [0, 1], finite; a new array.

    Raises
    ------
    ImageReadError
        If the file or the array cannot be read as requested.

    Examples
    --------
    >>> import numpy as np
    >>> read_image(np.array([[0, 51], [102, 255]], dtype=np.uint8))
    array([[0. , 0.2],
           [0.4, 1. ]], dtype=float32)
    """
    return read_named(source, make_options(options), image_name(source), with_digest=False).pixels


def read_micrograph(source: Any, **options: Any) -> Micrograph:
    """Read one image with its pixel size, digest and metadata.

    Parameters
    ----------
    source, **options
        As in `read_image`, with its errors.

    Returns
    -------
    micrograph : Micrograph

    Examples
    --------
    >>> import numpy as np
    >>> read_micrograph(np.zeros((4, 6), dtype=np.uint16))
    Micrograph(source=None, shape=(4, 6), dtype=float32, pixel_size=None)
    """
    return read_named(source, make_options(options), image_name(source))


def read_named(
    source: Any,
    options: ReadOptions,
    name: str,
    *,
    with_digest: bool = True,
    with_bars: bool = False,
    with_marks: bool = False,
) -> Micrograph:
    """Read one image like `read_micrograph`; errors use the name.

    A part of a micrograph that was read before, such as a particle, makes itself an image. With
    `with_bars`, ``"bar_rows"`` of the metadata are the heights of the information bars at the top
    and at the bottom of the stored image, removed or not; with `with_marks`, ``"coloured_marks"``
    are what `coloured_marks` finds in its levels.
    """
    if is_particle(source):
        found: Micrograph = source.as_micrograph()
        return found
    is_path = isinstance(source, (str, os.PathLike))
    decoded = (_decode_path if is_path else _decode_array)(source, options, name)
    if options.page is None and decoded.metadata.get("n_pages", 1) > 1:
        _warn_of_pages(name, decoded.metadata["format"])
    _set_pixel_size(decoded, source, options.pixel_size, name)
    if options.channel is not None:
        decoded.pixels = select_channel(decoded.pixels, options.channel, name)
    pixels = as_pixels(decoded.pixels, name, options.max_pixels)
    stored_type = str(pixels.dtype)
    n_bar = 0
    if options.banner == "remove" or with_bars:
        n_rows = decoded.scan_rows
        n_bar = find_banner(pixels) if n_rows is None else len(pixels) - n_rows
    if with_bars:
        decoded.metadata["bar_rows"] = [find_banner(pixels[::-1]), n_bar]
    n_banner = n_bar if options.banner == "remove" else 0
    # The banner is removed first, as its white text would change the percentiles.
    pixels = pixels[: len(pixels) - n_banner]
    if with_marks:
        decoded.metadata["coloured_marks"] = coloured_marks(pixels)
    rule = scaling_rule(pixels, options, name)
    digest = pixel_digest(pixels, rule) if with_digest else ""
    pixels = scale_pixels(pixels, rule)
    return Micrograph(
        pixels=pixels,
        pixel_size=decoded.pixel_size,
        digest=digest + BLANK * (with_digest and is_blank(pixels)),
        metadata={
            **decoded.metadata,
            "dtype": stored_type,
            "scaling": rule[0],
            "banner_rows": n_banner,
        },
        source=name if is_path else None,
    )


def read_identity(source: Any, options: ReadOptions, name: str) -> tuple[str, float | None]:
    """Return the digest and the pixel size of an image, on which all that is measured depends.

    A file beside the image may state the size, and a folder may be the image.
    """
    with unsaid():  # it was said when the image was measured
        read = read_named(source, options, name)
    return read.digest, read.pixel_size


def _set_pixel_size(
    decoded: DecodedImage, source: Any, given: float | PixelSizes | None, name: str
) -> None:
    """Use the given pixel size of an image that states none."""
    size = given.of(source) if isinstance(given, PixelSizes) else given
    if size is None:
        return
    stated = decoded.pixel_size
    if "pixel_size_from" not in decoded.metadata:
        decoded.set_pixel_sides((size, size), "reading options")
    elif stated and abs(size / stated - 1) > SIZE_TOLERANCE:
        warn_of_image(_other_size, name, (size, stated))


def _other_size(facts: Mapping[str, tuple[float, float]]) -> str:
    each = [f"{name} ({stated:.4g}, not {size:.4g})" for name, (size, stated) in facts.items()]
    return f"metadata state another pixel size, nm, than is given, and are used: {name_some(each)}"


def decode_stored(path: Any, name: str) -> DecodedImage:
    """Read the values of a file of one page as they are stored, (H, W) or (H, W, 3).

    That is how labels are written: a palette, or white for 0, only says how they are displayed.
    """
    options = ReadOptions()
    decoded = _decode_path(path, options, name)
    n_pages = decoded.metadata.get("n_pages", 1)
    if n_pages > 1:
        raise ImageReadError(
            f"{name}: a file of {counted(n_pages, 'page')}, of which none is read; save what "
            "belongs to the image as a file of one page"
        )
    if decoded.stored is None and is_partly_transparent(path):
        raise ImageReadError(f"{name}: with a transparent layer; export it flattened, on black")
    if decoded.stored is not None:
        levels = np.unique(decoded.stored)
        if len(levels) == 2 and levels[0] == 0 and "imagej" not in decoded.metadata:
            is_set, shown = decoded.stored != 0, decoded.pixels
            if shown[is_set].mean() < shown[~is_set].mean():
                warn_user(
                    f"{name}: read as it is stored, with 0 for background, but displayed the other "
                    "way round by its palette or its kind of TIFF; if its white is meant, save it "
                    "as grey values (in Fiji: Image > Lookup Tables > Grays, then Edit > Invert if "
                    "needed)"
                )
        decoded.pixels = decoded.stored
    decoded.pixels = as_pixels(decoded.pixels, name, options.max_pixels)
    return decoded


def _warn_of_pages(name: str, kind: str) -> None:
    # The same text, from this line, in whatever thread, for all files of a folder: Python shows it
    # once, whichever lines of the user's code read them.
    others = f"export others of a {kind} file as images of their own"
    how = by_reader(
        " ('hypervlad check' lists them); --set page=0, where a model is trained, confirms the "
        'first (in Python, read_options={"page": 0}); '
        + (others if kind in RASTER_KINDS else "1 reads the second"),
        f"; {others}",
    )
    warnings.warn(
        f"{os.path.dirname(name) or os.curdir}: files of several pages, sections or frames, of "
        f"which only the first is read{how}",
        PartlyReadWarning,
        stacklevel=1,
    )


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
    path = as_path(source, name)
    if is_zarr(path):
        with _clear_errors("OME-Zarr", name):
            return decode_ome_zarr(path, options, name)
    with open_file(path, name) as file:
        head = file.read(N_HEAD)
        file.seek(0)
        if not head:
            raise ImageReadError(f"{name}: the file is empty (0 bytes); copy or export it again")
        kind = file_kind(head, path.suffix.lower())
        if kind is None:
            raise ImageReadError(f"{name}: {describe_non_image(head, path)}")
        with _clear_errors(kind, name):
            decoded = _READERS[kind](file, options, name)
            has_sidecar = kind == "TIFF" or kind in RASTER_KINDS
            if has_sidecar and "pixel_size_from" not in decoded.metadata:
                add_sidecar(decoded, path)
            return decoded


_READERS: Mapping[str, Reader] = {
    "TIFF": decode_tiff,
    "HDF5": decode_hdf5,
    "DM": decode_dm,
    "MRC": decode_mrc,
    "SER": decode_ser,
} | {kind: partial(decode_raster, kind) for kind in RASTER_KINDS}

# Their words say nothing about a file to others: "277", "broken PNG file (chunk b'...')".
_OF_PROGRAMMERS = (AssertionError, AttributeError, LookupError, SyntaxError, TypeError)


@contextlib.contextmanager
def _clear_errors(kind: str, name: str) -> Iterator[None]:
    """Raise an ImageReadError for whatever a decoder raises."""
    try:
        yield
    except ImageReadError:
        raise
    except MemoryError as error:
        raise ImageReadError(
            f"{name}: not enough memory to decode it; crop or bin it, or use a larger machine"
        ) from error
    except Exception as error:  # decoders raise anything for damaged files
        why = "" if isinstance(error, _OF_PROGRAMMERS) else f" ({reason_of(error)})"
        raise ImageReadError(
            f"{name}: damaged or truncated {kind} file; copy or export it again{why}"
        ) from error


def read_micrographs(
    images: Any,
    *,
    options: ReadOptions | None = None,
    on_error: str = "raise",
    n_jobs: int | None = None,
) -> Iterator[tuple[int, Micrograph]]:
    """Read many images in order.

    Parameters
    ----------
    images : list of paths and arrays
        List, tuple, array or series of them, or one array (n, H, W) or (n, H, W, 3). Arguments are
        checked at once, images when they are requested.
    options : ReadOptions, optional
        By default ``ReadOptions()``.
    on_error : {"raise", "skip"}, default="raise"
        With "skip", images that cannot be read are left out, and a `SkippedImagesWarning` after the
        last image lists them with the reasons.
    n_jobs : int, optional
        Number of threads that read ahead, a few images each; -1 for all cores. By default, images
        are read without threads.

    Yields
    ------
    index : int
        Position in `images`.
    micrograph : Micrograph

    Raises
    ------
    ImageReadError
        At the first image that cannot be read; with "skip", after the last if no image was read.
    ValueError
        If `on_error` is invalid, or `n_jobs` is 0.

    Examples
    --------
    >>> import numpy as np
    >>> for index, micrograph in read_micrographs([np.eye(3), np.eye(5)]):
    ...     print(index, micrograph.pixels.shape)
    0 (3, 3)
    1 (5, 5)
    """
    check_value("on_error", on_error, [OneOf("raise", "skip")])
    if options is None:
        options = ReadOptions()
    elif not isinstance(options, ReadOptions):
        raise TypeError(
            f"options: expected a ReadOptions, got {type(options).__name__}; "
            "ReadOptions(**options)?"
        )
    chosen, listed = options, check_image_list(images)
    outcomes = read_in_order(
        enumerate(listed),
        lambda image, name: read_named(image, chosen, name),
        0 if n_jobs is None else joblib.effective_n_jobs(n_jobs),
    )
    return raise_or_skip(outcomes, len(listed), skip=on_error == "skip")


def check_image_list(images: Any) -> list[Any]:
    """Return `images` as a list; the error says how to pass them."""
    if isinstance(images, (str, os.PathLike)):
        shown = os.fspath(images)
        if (os.path.isdir(shown) and not is_zarr(shown)) or glob.has_magic(str(shown)):
            raise ImageReadError(
                f"{shown!s}: expected a list of images; hypervlad.images.find_images({shown!r}) "
                "lists those of a folder or pattern"
            )
        raise ImageReadError(
            f"{shown!s}: expected a list of images, got one path; wrap it in a list: [{shown!r}]"
        )
    is_series = hasattr(images, "iloc")
    if is_series and getattr(images, "ndim", 1) != 1:
        raise ImageReadError(
            "image list: expected a list of images, got a table; give its column of paths"
        )
    is_bytes = isinstance(images, (bytes, bytearray, memoryview))
    if hasattr(images, "__array__") and not is_series:
        listed = _list_of_array(images)
    elif (is_series or isinstance(images, Sequence)) and not is_bytes:
        listed = list(images)
    else:
        raise ImageReadError(
            f"image list: expected a list of paths or arrays, got {type(images).__name__}; "
            "wrap one image in a list, turn a generator into list(...)"
        )
    if not listed:
        raise ImageReadError(
            "image list: the list is empty; give at least one image (does the folder contain any? "
            "hypervlad.images.find_images(folder) lists them)"
        )
    return listed


def check_one_kind(images: Sequence[Any]) -> bool:
    """Return whether images are particles; a ValueError if they are among whole images."""
    kinds = [is_particle(image) for image in images]
    if any(kinds) and not all(kinds):
        whole = image_name(images[kinds.index(False)], kinds.index(False))
        raise ValueError(
            f"{sum(kinds)} of {counted(len(images), 'image')} are particles, and the others are "
            f"whole images, such as {whole}: fit one model to particles, another to whole images"
        )
    return any(kinds)


def _list_of_array(images: Any) -> list[Any]:
    array = np.asarray(images)
    if array.dtype.kind in "OUST" or array.dtype.names:
        if array.ndim == 1:
            found: list[Any] = array.tolist()
            return found
        raise ImageReadError(
            f"image list: an array of {array.dtype} with shape {array.shape}; expected a flat "
            "list of paths; use its ravel().tolist()"
        )
    if array.ndim in (0, 1):
        raise ImageReadError(
            f"image list: an array of numbers with shape {array.shape} contains no images; "
            "expected a list of paths or of (height, width) arrays"
        )
    is_one_colour_image = array.ndim == 3 and array.shape[2] in (1, 3, 4) and array.shape[0] != 0
    if array.ndim == 2 or is_one_colour_image:
        raise ImageReadError(
            f"image list: expected a list of images, got one image of shape {array.shape}; "
            "wrap it in a list: [image]"
        )
    return list(array)


def is_particle(source: Any) -> bool:
    """Return whether this is a part of a micrograph that was read before: see `Particle`."""
    return hasattr(type(source), "as_micrograph")


def image_name(source: Any, index: int | None = None) -> str:
    if is_particle(source):
        return str(source.name)
    if isinstance(source, (str, os.PathLike)):
        text = os.fspath(source)
        return text if isinstance(text, str) and text.strip() else repr(text)
    return name_within.get() if index is None else f"image {index} of the list (counted from 0)"


def relative_names(images: Sequence[Any], root: str | os.PathLike[str] | None = None) -> list[str]:
    """Name files by their paths relative to a folder, with forward slashes; arrays are "".

    The folder need not contain them; by default it is the common folder of all files. Particles
    are named in the same way by the path of their micrograph, and their number.

    >>> relative_names(["/data/a/1.png", "/data/b/2.png"])
    ['a/1.png', 'b/2.png']
    """
    named = [image.name if is_particle(image) else image for image in images]
    files = [
        Path(os.path.abspath(image)) if isinstance(image, str | os.PathLike) else None
        for image in named
    ]
    if root is not None:
        return ["" if file is None else "/".join(parts_below(file, root)) for file in files]
    parents = [str(file.parent) for file in files if file is not None]
    try:
        common = os.path.commonpath(parents or ["."])
    except ValueError:  # two drives of Windows
        return ["" if file is None else file.name for file in files]
    return ["" if file is None else file.relative_to(common).as_posix() for file in files]


def read_in_order(
    images: Iterable[tuple[int, Any]],
    read: Callable[[Any, str], T],
    n_threads: int = 0,
    n_ahead: int = 0,
) -> Generator[T | SkippedImage, None, None]:
    """Yield what `read` returns for each image, or a SkippedImage if it raised `ImageReadError`.

    Each of `n_threads` reads two images ahead, all together at least `n_ahead`.
    """

    def outcome(position: int, image: Any) -> T | SkippedImage:
        name = image_name(image, position)
        try:
            return read(image, name)
        except ImageReadError as error:
            return SkippedImage(position, name, str(error))

    if not n_threads:
        yield from (outcome(position, image) for position, image in images)
        return
    max_ahead = max(_N_AHEAD * n_threads, n_ahead)
    with ThreadPoolExecutor(n_threads) as readers:
        ahead: deque[Future[T | SkippedImage]] = deque()
        try:
            for position, image in images:
                # In the caller's context, which collects what is said of the images of a run.
                ahead.append(readers.submit(copy_context().run, outcome, position, image))
                if len(ahead) > max_ahead:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for unread in ahead:
                unread.cancel()


def raise_or_skip(
    outcomes: Generator[T | SkippedImage, None, None], n_images: int, *, skip: bool
) -> Iterator[tuple[int, T]]:
    """Yield the images that were read with their positions; skip the others, or raise an error."""
    skipped: list[SkippedImage] = []
    with contextlib.closing(outcomes):  # stops the threads if the caller stops early
        for index, outcome in enumerate(outcomes):
            if not isinstance(outcome, SkippedImage):
                yield index, outcome
            elif skip:
                skipped.append(outcome)
            else:
                raise ImageReadError(outcome.reason)
    check_any_read(skipped, n_images)
    if skipped:
        warn_user(SkippedImagesWarning.about(skipped, n_images))


def check_any_read(skipped: list[SkippedImage], n_images: int) -> None:
    if skipped and len(skipped) == n_images:
        raise ImageReadError(f"none of the images could be read:\n{list_reasons(skipped)}")
