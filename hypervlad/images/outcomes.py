"""What became of each of many images, which are read in order and a few ahead."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from hypervlad.images.errors import ImageReadError, SkippedImage, SkippedImagesWarning

_READ_AHEAD = 2  # images a thread, which bounds the memory

T = TypeVar("T")


def outcomes_of(
    images: Iterable[tuple[int, Any]],
    read: Callable[[Any, str], T],
    n_threads: int = 0,
    n_ahead: int = 0,
) -> Generator[T | SkippedImage, None, None]:
    """Read each image of a list or stream, in order.

    Parameters
    ----------
    images : iterable of (int, path or array)
        Images and their positions, which name arrays in errors. Drawn from as they are needed, in
        the caller's thread.
    read : callable
        Called with an image and what errors call it, in any thread.
    n_threads : int, default=0
        That read ahead of the caller, two images each; 0 reads when asked.
    n_ahead : int, default=0
        How many images they read ahead at least.

    Yields
    ------
    outcome : what ``read`` returned, or SkippedImage
        The second where it raised `ImageReadError`.
    """

    def outcome(position: int, image: Any) -> T | SkippedImage:
        name = name_of(image, position)
        try:
            return read(image, name)
        except ImageReadError as error:
            return SkippedImage(position, name, str(error))

    if not n_threads:
        yield from (outcome(position, image) for position, image in images)
        return
    most = max(_READ_AHEAD * n_threads, n_ahead)
    with ThreadPoolExecutor(n_threads) as readers:
        ahead: deque[Future[T | SkippedImage]] = deque()
        try:
            for position, image in images:
                ahead.append(readers.submit(outcome, position, image))
                if len(ahead) > most:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for unread in ahead:
                unread.cancel()


def readable(
    outcomes: Generator[T | SkippedImage, None, None], n_images: int, *, skip: bool
) -> Iterator[tuple[int, T]]:
    """Pass on what was read, with its position; stop at an image that was not, or leave it out.

    Raises
    ------
    ImageReadError
        At the first image that could not be read; with ``skip``, after the last, if none could.

    Warns
    -----
    SkippedImagesWarning
        Once, after the last image, with all that were left out.
    """
    skipped: list[SkippedImage] = []
    with contextlib.closing(outcomes):  # stops the readers if the caller stops early
        for index, outcome in enumerate(outcomes):
            if not isinstance(outcome, SkippedImage):
                yield index, outcome
            elif skip:
                skipped.append(outcome)
            else:
                raise ImageReadError(outcome.reason)
    warn_of_skipped(skipped, n_images)


def warn_of_skipped(skipped: list[SkippedImage], n_images: int) -> None:
    """Warn of images that were left out; raise if they are all that there were."""
    if not skipped:
        return
    warning = SkippedImagesWarning.about(skipped, n_images)
    if len(skipped) == n_images:
        raise ImageReadError(f"image list: none of the images could be read. {warning}")
    warnings.warn(warning, stacklevel=3)


def name_of(source: Any, index: int | None = None) -> str:
    """What errors call the image: its path, or its place in the list."""
    if isinstance(source, (str, os.PathLike)):
        text = os.fspath(source)
        return text if isinstance(text, str) and text.strip() else repr(text)
    return "image" if index is None else f"image {index} of the list (counted from 0)"
