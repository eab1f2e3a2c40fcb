"""Errors and warnings about images, and how they name an image."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from hypervlad.common.wording import counted, name_some, verb


class ImageReadError(ValueError):
    """An image or a list of images that cannot be read as requested.

    The message starts with the file (or ``image 3 of the list``), and ends with what to do.
    """


def broken_link(path: str | os.PathLike[str], name: str) -> ImageReadError:
    return ImageReadError(f"{name}: a link to {os.readlink(path)}, which is not there")


class SkippedImage(NamedTuple):
    """An image that ``on_error="skip"`` left out.

    Attributes
    ----------
    position : int
        Position of the image in the list, from 0.
    name : str
        Path of the image; of an array, its position, as in ``image 3 of the list``.
    reason : str
        Why it cannot be read, and what to do.
    """

    position: int
    name: str
    reason: str


_N_SHOWN = 20


def list_reasons(skipped: Sequence[SkippedImage]) -> str:
    """List why images were skipped, each reason once, with the first twenty names."""
    lines = []
    shown = [(image.name, image.reason) for image in skipped[:_N_SHOWN]]
    for reason, names in _names_by_reason(shown).items():
        if len(names) == 1:
            lines.append(f"  {names[0]}: {reason}")
        else:
            lines += [f"  {reason}:", *(f"    {name}" for name in names)]
    if len(skipped) > _N_SHOWN:
        lines.append(f"  … and {len(skipped) - _N_SHOWN} more")
    return "\n".join(lines)


def reasons_in_line(reasons: Sequence[str]) -> str:
    """Join reasons that begin with the name of an image, each once.

    >>> print(reasons_in_line(["a.png: too small", "b.png: damaged", "c.png: too small"]))
    too small (2 images: a.png, c.png); b.png: damaged
    """
    pairs = [(reason.partition(": ")[0], reason) for reason in reasons]
    return "; ".join(
        f"{names[0]}: {reason}"
        if len(names) == 1
        else f"{reason} ({counted(len(names), 'image')}: {name_some(names)})"
        for reason, names in _names_by_reason(pairs).items()
    )


def _names_by_reason(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, reason in pairs:
        found.setdefault(reason.removeprefix(f"{name}: "), []).append(name)
    return found


class SkippedImagesWarning(UserWarning):
    """Images left out by ``on_error="skip"``.

    Attributes
    ----------
    skipped : tuple of SkippedImage
        All images left out, in order; the message shows the first twenty.
    """

    def __init__(self, message: str, skipped: Sequence[SkippedImage] = ()) -> None:
        super().__init__(message)
        self.skipped = tuple(skipped)

    @classmethod
    def about(cls, skipped: Sequence[SkippedImage], n_images: int) -> SkippedImagesWarning:
        head = f"{len(skipped)} of {counted(n_images, 'image')} could not be read and were skipped:"
        return cls(f"{head}\n{list_reasons(skipped)}", skipped)


class PartlyReadWarning(UserWarning):
    """Files of several pages, sections or frames in a folder, of which only the first was read.

    It is not given if the reading options contain a ``page``, even 0.
    """


class UnknownPixelSizeWarning(UserWarning):
    """Images of unknown pixel size that should be resampled to a common pixel size.

    Attributes
    ----------
    names : tuple of str
        All such images, in order; the message shows the first few.
    """

    def __init__(self, message: str, names: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.names = tuple(names)

    @classmethod
    def about(cls, names: Sequence[str], n_images: int) -> UnknownPixelSizeWarning:
        return cls(
            f"{len(names)} of {counted(n_images, 'image')} without a known pixel size could not be "
            f"resampled to pixel_size, and resized to image_size instead: {name_some(names)}. Use "
            "the microscope's original files, with the .txt or .hdr files beside them, or give the "
            "nm per pixel of images that state none (--pixel-size; read_options in Python), or set "
            "the scale (for example in ImageJ) and save the images as TIFF, or do not set "
            "pixel_size (--resample-to).",
            names,
        )


class TrainingImagesWarning(UserWarning):
    """A model is tested on images that it was trained on."""

    @classmethod
    def about(cls, n_known: int, n_images: int) -> TrainingImagesWarning:
        known = training_images_text(n_known, n_images)
        return cls(f"{known}, so the result is too good for new images")


def training_images_text(n_known: int, n_images: int, what: str = "image") -> str:
    are = verb(n_known, f"is a training {what}", f"are training {what}s")
    return f"{n_known} of {counted(n_images, what)} {are} (the same pixels)"


def unlike_training_text(n_unlike: int, n_images: int) -> str:
    are = verb(n_unlike, "is", "are")
    return f"{n_unlike} of {counted(n_images, 'image')} {are} unlike all training images"
