"""Training fields with their outlines, at one scale and in an order of their own."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import expand_labels
from skimage.transform import resize

from hypervlad.common.limits import MAX_PIXELS
from hypervlad.common.wording import counted, name_some, verb, warn_user
from hypervlad.features.loading import resampled_size
from hypervlad.images import ImageReadError, ReadOptions
from hypervlad.images.faults import Faults, faults_of_input
from hypervlad.images.masks import mask_banner_rows
from hypervlad.images.morphology import EIGHT
from hypervlad.images.reading import image_name
from hypervlad.images.resampling import nearest
from hypervlad.images.sample import Sample, read_grey
from hypervlad.objects.detection import MIN_AREA
from hypervlad.objects.measures import shape_measures
from hypervlad.objects.outlines import read_outlines
from hypervlad.objects.particle import Outlines
from hypervlad.objects.windows import side_by_side
from hypervlad.particles.decoder import Targets, brightness_of
from hypervlad.particles.fainter import faint_spots

_SAME_SCALE = 0.05  # difference of pixel sizes for which pixels stay as they are
_MIN_SIDE = 8  # pixels, of a field at the scale of training
_MAX_ENLARGED = 8  # times: a particle that was learnt would have less than a pixel or two
_USUAL = (5, 95)  # percentiles of training particles' diameters
_ROWS = 256  # that are enlarged at once
_AT_MOST = 1 << 22  # pixels, of which a median is taken
MIN_FOUND = 5  # particles, of which medians and quarters say something


class OutlinedFields:
    """Images with their outlines, read one by one, so that not all are in memory at once.

    They are in the `order` of their digests, so that the order in which they were given has no
    influence, and at one scale where their pixel sizes are known.
    """

    def __init__(self, images: list[Any], outlines: Any, options: ReadOptions) -> None:
        if not np.iterable(outlines) or isinstance(outlines, str):
            raise ValueError(
                f"outlines: expected a list with those of each image, got {outlines!r}; for a "
                "folder, give hypervlad.particles.find_outlines(images, folder)"
            )
        self.images, self.outlines, self.options = images, list(outlines), options
        if len(self.outlines) != len(images):
            raise ValueError(
                f"{counted(len(self.outlines), 'label image')} for "
                f"{counted(len(images), 'image')}: give the outlines of each image"
            )
        self.order = np.arange(len(images))
        self.pixel_size: float | None = None
        self.leave_out_faint = False  # spots that are alike, and much fainter than particles
        self._areas = list[int]()
        self._check()

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[tuple[NDArray[np.float32], Targets]]:
        for number in range(len(self)):
            grey, outlines, _ = self.read(number)
            yield grey, Targets.of_outlines(outlines)

    @property
    def n_particles(self) -> int:
        return len(self._areas)

    def usual_diameters(self) -> tuple[float, ...]:
        return tuple(np.percentile(np.sqrt(4 / np.pi * np.array(self._areas)), _USUAL).tolist())

    def read(self, number: int) -> tuple[NDArray[np.float32], Outlines, float | None]:
        """Read an image, its outlines, and its pixel size; errors name the image."""
        position = int(self.order[number])
        image, source = self.images[position], self.outlines[position]
        name = image_name(image, position)
        micrograph = read_grey(image, self.options, name)
        grey, shape, own = micrograph.pixels, micrograph.pixels.shape, micrograph.pixel_size
        size = trained_size(shape, own, self.pixel_size, name)
        if size is not None:
            grey = resize(grey, size, order=1, anti_aliasing=True)
        if source is None:
            raise ImageReadError(
                f"the outlines of {name} are missing: give them, or leave the image out"
            )
        outlines = read_outlines(
            source,
            shape=(shape[0], shape[1]),
            banner_rows=mask_banner_rows(self.options),
            image=image if isinstance(image, str | os.PathLike) else None,
            name=f"the outlines of {name}",
        )
        if size is not None:
            outlines = Outlines.of_labels(nearest(outlines.label_image(), size))
        return grey, outlines, own

    def _check(self) -> None:
        """Read everything once, before anything is learnt, and put it into order."""
        digests, contrasts, sizes = list[str](), list[float](), list[float | None]()
        areas, shapes = list[list[int]](), list[tuple[int, ...]]()
        self.faults = list[Faults]()
        for number in range(len(self)):
            grey, outlines, size = self.read(number)
            digest, labels = hashlib.sha256(grey.tobytes()), outlines.label_image()
            digest.update(labels.tobytes())
            digests.append(digest.hexdigest())
            contrasts.append(brightness_of(grey)[1])
            self.faults.append(look_of(grey, outlines))
            if not self.leave_out_faint:  # one image with such spots is enough
                sample = Sample(grey, np.ones(grey.shape, bool), size, [])
                spots = faint_spots(sample, labels, None, MIN_AREA)
                self.leave_out_faint = bool(spots and spots.missed(labels)[0])
            shapes.append(grey.shape)
            sizes.append(size)
            areas.append([int(outline.mask.sum()) for outline in outlines])
        if not any(areas):
            raise ValueError("no particle is outlined in any image: outline some")
        self.order = np.argsort(digests, kind="stable")
        if known := [size for size in sizes if size]:
            self.pixel_size = float(np.median(known))
        if 0 < len(known) < len(sizes):
            names = [
                image_name(image, number)
                for number, (image, size) in enumerate(zip(self.images, sizes, strict=True))
                if not size
            ]
            warn_user(
                f"the pixel size of {counted(len(names), 'image')} is unknown, {name_some(names)}, "
                f"and {verb(len(names), 'is', 'are')} taken to be that of the others, "
                f"{self.pixel_size:.4g} nm"
            )
        scales = [size / (self.pixel_size or 1.0) if size else 1.0 for size in sizes]
        sides = [max(shape) * scale for shape, scale in zip(shapes, scales, strict=True)]
        self.largest = round(max(sides))  # side of an image
        self.contrasts = [contrasts[number] for number in self.order]
        self.has_particles = [bool(areas[number]) for number in self.order]
        self._areas = [
            round(area * scale**2) for own, scale in zip(areas, scales, strict=True) for area in own
        ]


def look_of(grey: NDArray[np.float32], outlines: Outlines) -> Faults:
    """Describe how an image looks and, if several are whole, how its particles do."""
    look, labels = faults_of_input(grey), outlines.label_image()
    whole = [each for each in outlines.as_particles() if not each.touches_edge]
    if len(whole) < MIN_FOUND or labels.all():
        return look
    shapes = [shape_measures(each.mask) for each in whole]
    width, solidity = np.quantile(shapes, 0.25, axis=0)[[1, 3]].tolist()
    means = np.array([grey[each.window][each.mask].mean() for each in whole])
    some = np.s_[:: 1 + labels.size // _AT_MOST]  # of the largest images, copies are large
    middle = np.median(grey.ravel()[some][labels.ravel()[some] == 0])
    faint, clear = np.quantile(np.abs(means - middle), (0.25, 0.75)).tolist()
    evenness = faint / max(clear, 1e-9)
    return look._replace(elongation=1 / width, solidity=solidity, evenness=evenness)


def trained_size(
    shape: tuple[int, ...], own: float | None, trained: float | None, name: str
) -> tuple[int, int] | None:
    """Return the size of an image at the scale of training; None if it stays as it is.

    It is segmented in tiles, so the limit of images applies.
    """
    if own is None or trained is None or abs(own / trained - 1) <= _SAME_SCALE:
        return None
    size = resampled_size(shape, own, trained)
    if size[0] * size[1] > MAX_PIXELS:
        limit = f"more than {MAX_PIXELS:,} pixels"
    elif own > _MAX_ENLARGED * trained:
        limit = f"enlarged more than {_MAX_ENLARGED} times"
    elif min(size) < _MIN_SIDE:
        limit = f"a side below {_MIN_SIDE} pixels"
    else:
        return size
    raise ImageReadError(
        f"{name}: its {shape[0]:,} x {shape[1]:,} pixels of {own:.4g} nm would be {size[0]:,} x "
        f"{size[1]:,} of {trained:.4g} nm, as in training, {limit}; correct its pixel size if it "
        "is wrong, or leave the image out"
    )


def at_own_scale(labels: NDArray[np.int32], size: tuple[int, ...]) -> NDArray[np.int32]:
    """Bring labels to another size, with smooth outlines, each in one piece; few may be lost."""
    places = [
        ((np.arange(n) + 0.5) * own / n - 0.5).clip(0, own - 1)
        for n, own in zip(size, labels.shape, strict=True)
    ]
    smoothing = [max(0, own / n - 1) / 2 for n, own in zip(size, labels.shape, strict=True)]
    inside = (labels > 0).astype(np.float32)
    ndimage.gaussian_filter(inside, smoothing, output=inside)
    found, columns = np.empty(size, labels.dtype), places[1]
    for top in range(0, size[0], _ROWS):
        rows = places[0][top : top + _ROWS]
        first, last = max(0, int(rows[0]) - 3), int(rows[-1]) + 5  # expanded by less
        expanded, rows = expand_labels(labels[first:last], 2), rows - first
        own = expanded[np.ix_(*((each + 0.5).astype(np.intp) for each in (rows, columns)))]
        smooth = _between(_between(inside[first:last], rows).T, columns).T
        found[top : top + _ROWS] = own * (smooth >= 0.5)
    for some in side_by_side(found, 1):  # where a particle is thin, it may fall into pieces
        own = some.own(found)
        pieces = ndimage.label(own, EIGHT)[0]
        some.put(found, own & (pieces != some.largest(*some.parts(pieces))[some.at]), 0)
    return found


def _between(values: NDArray[np.float32], places: NDArray[np.float64]) -> NDArray[np.float32]:
    """Interpolate values linearly along the first axis."""
    first = places.astype(np.intp)
    share = (places - first).astype(np.float32)[:, None]
    after = values[np.minimum(first + 1, len(values) - 1)]
    return np.asarray(values[first] * (1 - share) + after * share)
