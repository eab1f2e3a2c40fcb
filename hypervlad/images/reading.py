"""Reading micrographs: one image, or many in order and ahead of the caller."""

from __future__ import annotations

import contextlib
import glob
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import joblib
import numpy as np
from numpy.typing import NDArray

from hypervlad.common.wording import warn_user
from hypervlad.images.errors import (
    ImageReadError,
    SkippedImage,
    SkippedImagesWarning,
    list_reasons,
)
from hypervlad.images.files import parts_below
from hypervlad.images.micrograph import Micrograph, read_one
from hypervlad.images.options import ReadOptions, make_options

_N_AHEAD = 2  # images that each thread reads ahead, which bounds the memory
_N_READERS = 2  # with large TIFFs a third faster than one thread, with small images as fast

T = TypeVar("T")


def read_image(source: Any, **options: Any) -> NDArray[np.float32]:
    """Read one image as float32 in [0, 1].

    Parameters
    ----------
    source : path or array
        An image file (TIFF, PNG, JPEG, DM4, MRC and others), recognised by its content, or an array
        (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) of bool, integers or floats. Alpha is dropped; a
        declared orientation is not applied.
    **options
        The fields of `ReadOptions`.

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
    return read_one(source, make_options(options), image_name(source), with_digest=False).pixels


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


def read_named(source: Any, options: ReadOptions, name: str) -> Micrograph:
    """Read one image like `read_micrograph`; errors use the name."""
    return read_one(source, options, name, with_digest=True)


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
    on_error : {"raise", "skip"}, default "raise"
        With "skip", images that cannot be read are left out, and a `SkippedImagesWarning` after the
        last image lists them with the reasons.
    n_jobs : int, optional
        Number of threads that read ahead, a few images each; -1 for all cores, None for no threads.

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
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error={on_error!r}: expected 'raise' or 'skip'")
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
        0 if n_jobs is None else n_reader_threads(n_jobs),
    )
    return raise_or_skip(outcomes, len(listed), skip=on_error == "skip")


def check_image_list(images: Any) -> list[Any]:
    """Return `images` as a list; the error says how to pass them."""
    if isinstance(images, (str, os.PathLike)):
        shown = os.fspath(images)
        if os.path.isdir(shown) or glob.has_magic(str(shown)):
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


def image_name(source: Any, index: int | None = None) -> str:
    if isinstance(source, (str, os.PathLike)):
        text = os.fspath(source)
        return text if isinstance(text, str) and text.strip() else repr(text)
    return "image" if index is None else f"image {index} of the list (counted from 0)"


def relative_names(images: Sequence[Any], root: str | os.PathLike[str] | None = None) -> list[str]:
    """Name files by their paths relative to a folder, with forward slashes; arrays are "".

    The folder need not contain them; by default it is the common folder of all files.

    Examples
    --------
    >>> relative_names(["/data/a/1.png", "/data/b/2.png"])
    ['a/1.png', 'b/2.png']
    """
    files = [
        Path(os.path.abspath(image)) if isinstance(image, str | os.PathLike) else None
        for image in images
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
                ahead.append(readers.submit(outcome, position, image))
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
    warn_skipped(skipped, n_images)


def n_reader_threads(n_jobs: int | None) -> int:
    return _N_READERS if n_jobs is None else joblib.effective_n_jobs(n_jobs)


def warn_skipped(skipped: list[SkippedImage], n_images: int) -> None:
    check_any_read(skipped, n_images)
    if skipped:
        warn_user(SkippedImagesWarning.about(skipped, n_images))


def check_any_read(skipped: list[SkippedImage], n_images: int) -> None:
    if skipped and len(skipped) == n_images:
        raise ImageReadError(f"none of the images could be read:\n{list_reasons(skipped)}")
