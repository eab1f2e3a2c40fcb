"""From a list of images to batches for a network: reading in order, preparing, batching."""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import asdict, astuple, dataclass, field, replace
from typing import Any, Literal, Protocol, TypeAlias, TypeVar

from hypervlad.common.limits import MAX_INPUT_PIXELS
from hypervlad.common.progress import ProgressBar
from hypervlad.common.wording import counted, name_some, verb, warn_user
from hypervlad.features.cache import Cache, Memory, file_key
from hypervlad.features.hypercolumns import turned
from hypervlad.features.lazy_torch import torch
from hypervlad.features.registry import Preprocessing, prepare_mask
from hypervlad.images import (
    ImageReadError,
    Micrograph,
    ReadOptions,
    SkippedImage,
    SkippedImagesWarning,
    UnknownPixelSizeWarning,
)
from hypervlad.images.annotations import Annotation, annotation_mask, fill_annotations
from hypervlad.images.faults import MAX_SIDE, Faults, faults_of_input
from hypervlad.images.pixels import BLANK
from hypervlad.images.reading import (
    N_READERS,
    READING_VERSION,
    check_any_read,
    image_name,
    is_particle,
    read_in_order,
    read_named,
)
from hypervlad.images.resampling import middle
from hypervlad.images.sample import Annotations, annotations_of
from hypervlad.objects.measures import shape_measures

CPU_BATCH_PIXELS, GPU_BATCH_PIXELS = 8 * 224**2, 64 * 224**2
_MAX_PER_BATCH = 256
_USUAL_SIZE = 224  # pixels; decides the batch size where images keep their own size

#: Called with an image's key; returns what was computed from it before, or None.
Find: TypeAlias = Callable[[str], Any]


@dataclass(frozen=True)
class ImageInfo:
    """An image without its pixels.

    Attributes
    ----------
    digest : str
        Of its pixels: see :class:`hypervlad.Micrograph`.
    shape : tuple of int
        (H, W) or (H, W, 3), pixels.
    pixel_size : float or None
        Nanometres per pixel.
    dtype : str, default=""
        Of the pixels as stored, such as "uint8"; also for floats in [0, 1], which are scaled alike.
    outline : tuple of 7 floats or None, default=None
        The measures of a particle's outline, `SHAPE_MEASURES`; None for a whole image.
    faults : Faults or None, default=None
        Of the network's input; None for a particle, or if they were not looked for.
    """

    digest: str
    shape: tuple[int, ...]
    pixel_size: float | None
    dtype: str = ""
    outline: tuple[float, ...] | None = None
    faults: Faults | None = None

    @property
    def is_blank(self) -> bool:
        """Whether all pixels are equal; a particle, even without texture, is something."""
        return self.digest.endswith(BLANK)


@dataclass(frozen=True, eq=False)
class LoadedImage:
    """An image that was read, or whose result was found in the cache."""

    info: ImageInfo
    key: str  # of `ImageLoader.key`
    cached: Any = None  # what was computed from it before
    tensor: torch.Tensor | None = None  # (C, H, W), if nothing was found
    mask: torch.Tensor | None = None  # (H, W), of a particle: its share of each pixel
    annotations: Sequence[Annotation] = ()  # in whose place the tensor has the sample beside them


@dataclass(frozen=True)
class Batch:
    """Images of one size, or particles, ready for the network."""

    positions: list[int]  # in the list that the user gave
    keys: list[str]
    tensors: torch.Tensor  # (B, C, H, W), float32
    masks: torch.Tensor | None = None  # (B, H, W), float32, of particles: see `LoadedImage`
    outlines: torch.Tensor | None = None  # (B, 7), float32, of particles: see `ImageInfo`

    def turned(self, turn: int) -> Batch:
        """Return turned copies: see `hypercolumns.turned`."""
        masks = None if self.masks is None else turned(self.masks, turn)
        return replace(self, tensors=turned(self.tensors, turn), masks=masks)


@dataclass
class ReadReport:
    """What the user should know about a list of images: see `EncodedImages`."""

    n_images: int
    skipped: list[SkippedImage] = field(default_factory=list)
    unscaled: list[str] = field(default_factory=list)
    blank: list[str] = field(default_factory=list)

    def warn(self) -> None:
        """Warn of skipped images and of unknown pixel sizes; raise if no image could be read."""
        check_any_read(self.skipped, self.n_images)
        for warning in self.warnings:
            warn_user(warning)

    @property
    def warnings(self) -> list[Warning]:
        found: list[Warning] = []
        if self.skipped:
            found.append(SkippedImagesWarning.about(self.skipped, self.n_images))
        if self.unscaled:
            found.append(UnknownPixelSizeWarning.about(self.unscaled, self.n_images))
        return found


def warn_of_blank_training_images(blank: Sequence[str], n_images: int) -> None:
    if blank:
        warn_user(
            f"{len(blank)} of {counted(n_images, 'training image')} "
            f"{verb(len(blank), 'is', 'are')} blank, all pixels equal: {name_some(blank)}. Leave "
            f"{verb(len(blank), 'it', 'them')} out: what a model learns from such images means "
            "nothing"
        )


class _HasInfo(Protocol):
    @property
    def info(self) -> ImageInfo: ...


Loaded = TypeVar("Loaded", bound=_HasInfo)


@dataclass(frozen=True, eq=False, kw_only=True)
class ImageLoader:
    """How images are read, resized, normalised and batched: see `HypercolumnVLAD`."""

    image_size: int | None
    preprocessing: Preprocessing
    pixel_size: float | None = None
    read_options: ReadOptions = field(default_factory=ReadOptions)
    memory: Memory = None
    batch_size: int | None = None  # by default it depends on the size of images and the device
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    on_error: Literal["raise", "skip"] = "raise"
    verbose: bool = False
    of_particles: bool = False  # whether images are particles, or else whole
    annotations: Annotations = "keep"
    as_levels: bool = False  # not normalised, so that a grey image needs one channel
    with_faults: bool = False  # looking for them takes longer than all else for a small image

    # --- one image ------------------------------------------------------------------------------

    def load(self, image: Any, name: str, find: Find | None = None) -> LoadedImage:
        """Read and prepare an image, or find a cached result, for which a known file is not opened.

        An image that cannot be read or resampled is an ImageReadError.
        """
        if is_particle(image) != self.of_particles:
            given, needed = "a particle", "whole images"
            if self.of_particles:
                given, needed = "a whole image", "particles"
            raise ImageReadError(
                f"{name}: {given}, but the model is one of {needed}: vectors of particles, which "
                "cut_particles(image, outlines) returns, are not like those of whole images"
            )
        file, facts = self._known(image)
        if facts is not None and (found := self._look_up(ImageInfo(*facts), name, find)):
            return found
        is_searched = self.annotations == "leave_out"
        searched = {"with_bars": is_searched, "with_marks": is_searched}
        micrograph = read_named(image, self.read_options, name, **searched)
        info = _info_of(micrograph, self.pixel_size)
        loaded = self.prepare(micrograph, name, info)
        if found := self._look_up(info, name, find):
            loaded = replace(found, info=loaded.info)
        own = astuple(loaded.info)
        is_known = facts is not None and own[:-1] == facts[:-1]
        # Not of a file that has changed meanwhile.
        if file is not None and not is_known and file_key(image) == file:
            self._files.keep(file, own)
        return loaded

    def is_cached(self, image: Any, find: Find) -> bool:
        """Return whether a result can be found without reading the image."""
        _, facts = self._known(image)
        if facts is None:
            return False
        try:
            return self._look_up(ImageInfo(*facts), "image", find) is not None
        except ImageReadError:
            return False

    def _known(self, image: Any) -> tuple[str | None, Any]:
        """Return the key of a file and the facts of its image; None for what is not known."""
        file = None if self.memory is None else file_key(image)
        facts = None if file is None else self._files.find(file)
        if self.with_faults and not self.of_particles and facts is not None and facts[-1] is None:
            facts = None
        return file, facts

    def prepare(
        self, micrograph: Micrograph, name: str, info: ImageInfo | None = None
    ) -> LoadedImage:
        info = info or _info_of(micrograph, self.pixel_size)
        size, pixels = self.input_size(info, name), micrograph.pixels
        found = annotations_of(micrograph) if self.annotations == "leave_out" else []
        seen = ~annotation_mask(found, (pixels.shape[0], pixels.shape[1]))
        if found and seen.any():
            pixels = fill_annotations(pixels, seen, found, mirrored=True)
        prepare = self.preprocessing.levels if self.as_levels else self.preprocessing.prepare
        tensor = prepare(pixels, size)
        if self.with_faults and micrograph.mask is None:
            part = tensor[:, *middle(size, MAX_SIDE)]
            levels = part if self.as_levels else self.preprocessing.grey_levels(part)
            info = replace(info, faults=faults_of_input(levels.mean(dim=0).numpy()))
        mask = None if micrograph.mask is None else prepare_mask(micrograph.mask, size)
        return LoadedImage(info, self.key(info), tensor=tensor, mask=mask, annotations=found)

    def input_size(self, info: ImageInfo, name: str) -> tuple[int, int]:
        """Return the input size (height, width); an ImageReadError if too small or too large.

        A particle has half the side of an image, and is never too small.
        """
        minimum, is_whole = self.preprocessing.minimum_size, info.outline is None
        least = minimum if is_whole else 0
        size = size_at_scale(info.shape, info.pixel_size, self.pixel_size, least, name)
        if size is None and self.image_size is not None:
            side = self.image_size if is_whole else self.image_size // 2
            size = side, side
        height, width = size or info.shape[:2]
        return max(minimum, height), max(minimum, width)

    def key(self, info: ImageInfo) -> str:
        """Return the digest of an image, and of its pixel size if it will be resampled."""
        if info.pixel_size is None or self.pixel_size is None:
            return info.digest
        stated = f"{info.digest} {float(info.pixel_size)!r} nm"
        return hashlib.sha256(stated.encode("ascii")).hexdigest() + BLANK * info.is_blank

    def load_batch(self, image: Any) -> Batch:
        (batch,) = self.batches([(0, self.load(image, image_name(image)))])
        return batch

    def _look_up(self, info: ImageInfo, name: str, find: Find | None) -> LoadedImage | None:
        self.input_size(info, name)  # an image that cannot be scaled is an error, cached or not
        if find is None:
            return None
        key = self.key(info)
        cached = find(key)
        return None if cached is None else LoadedImage(info, key, cached)

    @functools.cached_property
    def _files(self) -> Cache:
        """The facts of images by file, which tell the key of their vectors."""
        options = asdict(self.read_options)
        options["pixel_size"] = repr(options["pixel_size"])
        of_input = {
            "size": self.image_size,
            "pixel_size": self.pixel_size,
            "annotations": self.annotations,
        }
        return Cache(self.memory, {"reading": options, "version": READING_VERSION, **of_input})

    # --- many images ----------------------------------------------------------------------------

    def stream(
        self,
        images: list[Any],
        desc: str,
        load: Callable[[Any, str], Loaded],
        report: ReadReport | None = None,
    ) -> Iterator[tuple[int, Loaded]]:
        """Load images in their order, with their positions; two threads read ahead.

        ``load`` is called in any thread. Without a report to fill, the user is warned at the end.
        """
        # With two batches readers are never idle, but so many images of their own size are large.
        is_one_size = self.image_size is not None and self.pixel_size is None
        n_ahead = 2 * self.n_per_batch if is_one_size else 0
        outcomes = read_in_order(enumerate(images), load, N_READERS, n_ahead)
        return self.reported(outcomes, images, desc, report)

    def reported(
        self,
        outcomes: Generator[Loaded | SkippedImage, None, None],
        images: list[Any],
        desc: str,
        report: ReadReport | None = None,
    ) -> Iterator[tuple[int, Loaded]]:
        """Give what :meth:`stream` gives, of images that are loaded elsewhere."""
        notes = ReadReport(len(images)) if report is None else report
        # Closing stops the readers if the caller stops early.
        with (
            contextlib.closing(outcomes),
            ProgressBar(outcomes, desc, len(images), unit="image", shown=self.verbose) as progress,
        ):
            for position, outcome in enumerate(progress):
                if not isinstance(outcome, SkippedImage):
                    if self.pixel_size is not None and outcome.info.pixel_size is None:
                        notes.unscaled.append(image_name(images[position], position))
                    if outcome.info.is_blank:
                        notes.blank.append(image_name(images[position], position))
                    yield position, outcome
                elif self.on_error == "skip":
                    notes.skipped.append(outcome)
                else:
                    raise ImageReadError(outcome.reason)
        if report is None:
            notes.warn()

    # --- batches --------------------------------------------------------------------------------

    @property
    def n_per_batch(self) -> int:
        """Images per batch; of many sizes, a typical one."""
        if self.batch_size is not None:
            return self.batch_size
        return _n_fitting(self._batch_pixels, (self.image_size or _USUAL_SIZE) ** 2)

    def batches(self, images: Iterable[tuple[int, LoadedImage]]) -> Iterator[Batch]:
        """Cut a stream by position; within a cut, gather images of equal size.

        Leaving out images, such as those with a cached result, moves no other image into another
        cut. The images that wait have at most five times the pixels of a batch.
        """
        waiting: _Waiting = {}
        for position, image in images:
            if image.tensor is None:
                continue
            yield from _batches_of(self._complete(waiting, position))
            height, width = image.tensor.shape[1:]
            kind = height, width, image.mask is None
            waiting.setdefault(kind, []).append((position, image))
        yield from _batches_of(waiting)

    def _complete(self, waiting: _Waiting, position: int) -> _Waiting:
        """Remove and return the images whose cut ends before this position."""
        complete: _Waiting = {}
        for kind in list(waiting):
            n_images = self.batch_size or _n_fitting(self._batch_pixels, kind[0] * kind[1])
            if waiting[kind][0][0] // n_images != position // n_images:
                complete[kind] = waiting.pop(kind)
        return complete

    @property
    def _batch_pixels(self) -> int:
        return CPU_BATCH_PIXELS if self.device.type == "cpu" else GPU_BATCH_PIXELS


# Position and image, by height, width and whether it is a whole one.
_Waiting: TypeAlias = dict[tuple[int, int, bool], list[tuple[int, LoadedImage]]]


def _batches_of(cut: _Waiting) -> Iterator[Batch]:
    for members in cut.values():
        positions, images = zip(*members, strict=True)
        tensors = [image.tensor for image in images if image.tensor is not None]
        batch = Batch(list(positions), [image.key for image in images], torch.stack(tensors))
        if masks := [image.mask for image in images if image.mask is not None]:
            outlines = torch.tensor([image.info.outline for image in images])
            batch = replace(batch, masks=torch.stack(masks), outlines=outlines)
        yield batch


def _n_fitting(batch_pixels: int, n_pixels: int) -> int:
    return max(1, min(_MAX_PER_BATCH, batch_pixels // n_pixels))


def _info_of(micrograph: Micrograph, pixel_size: float | None) -> ImageInfo:
    pixels, stored = micrograph.pixels, micrograph.metadata.get("dtype", "")
    if stored.startswith("float") and micrograph.metadata.get("scaling") == "limits":
        stored = "uint8"
    size, mask = micrograph.pixel_size, micrograph.mask
    scale = 1.0 if size is None or pixel_size is None else size / pixel_size
    outline = None if mask is None else shape_measures(mask, scale)
    return ImageInfo(micrograph.digest, pixels.shape, size, stored, outline)


# --- the common scale -----------------------------------------------------------------------------


def resampled_size(
    shape: tuple[int, ...], own_pixel_size: float, pixel_size: float
) -> tuple[int, int]:
    """Return height and width of an image at another scale; pixel sizes are in nanometres.

    >>> resampled_size((600, 1200), own_pixel_size=0.5, pixel_size=2.0)
    (150, 300)
    """
    # Absurd metadata may lead to infinity, which has no whole number.
    height, width = (round(min(n * own_pixel_size / pixel_size, 1e12)) for n in shape[:2])
    return height, width


def size_at_scale(
    shape: tuple[int, ...],
    own_pixel_size: float | None,
    pixel_size: float | None,
    minimum: int,
    name: str = "image",
) -> tuple[int, int] | None:
    """Return the size at which an image has this pixel size; None if one of the two is None.

    An ImageReadError if a side would be below ``minimum``, or height x width above the limit.
    """
    if pixel_size is None or own_pixel_size is None:
        return None
    size = resampled_size(shape, own_pixel_size, pixel_size)
    if min(size) >= minimum and size[0] * size[1] <= MAX_INPUT_PIXELS:
        return size
    if size[0] * size[1] > MAX_INPUT_PIXELS:
        limit = f"more than the limit of {MAX_INPUT_PIXELS:,} pixels"
        remedy = "a larger pixel_size"
    else:
        limit = f"less than the {minimum} pixels per side that the network needs"
        remedy = "a smaller pixel_size"
    height, width = shape[:2]
    raise ImageReadError(
        f"{name}: its {height} x {width} pixels of {own_pixel_size:.4g} nm would become "
        f"{size[0]:,} x {size[1]:,} at pixel_size={pixel_size:g} nm, {limit}; use {remedy}, "
        "correct the pixel size in the file if it is wrong, or leave the image out"
    )
