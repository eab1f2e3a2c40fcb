"""Particles found without training."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_array
from skimage.transform import resize

from hypervlad.common.constraints import Integer, OneOf, check_value
from hypervlad.common.wording import counted
from hypervlad.features.lazy_torch import check_device, usual_torch
from hypervlad.features.network import build_network
from hypervlad.features.registry import get_backbone
from hypervlad.images import ReadOptions
from hypervlad.images.sample import Annotations, drop_hidden, one_or_many, read_sample
from hypervlad.objects.detection import MIN_AREA
from hypervlad.objects.particle import Outlines
from hypervlad.objects.splitting import (
    EIGHT,
    areas_of,
    larger_window,
    numbers_of,
    renumbered,
    separate_at_necks,
    values_of,
)
from hypervlad.particles.decoder import (
    MIN_CONTRAST,
    PRETRAINED,
    FieldNetwork,
    contrast_of,
    pretrained_decoder,
    separated,
)
from hypervlad.particles.training_fields import at_own_scale
from hypervlad.statistics.groups import weighted_quantiles

_SEPARATION = 0.8  # of fields that were drawn as those of the training, where it counts best
_TILE = 1024  # pixels, of the side of what is looked at at once
_ROWS = 1024  # that are compared at once
_RING = 3  # pixels to both sides of an outline, between which grey values step
_EDGE = 80  # of 255: probability of background at outlines, with which diameters are right
# Least mean probability of a particle, by scale: what is found in noise and grain has less.
_CERTAIN = {1.0: 0.88, 0.5: 0.86, 0.25: 0.83, 0.125: 0.86}
_MAX_AT_EDGE = 0.5  # of an outline, that the image's edge is: corners that light leaves dark
_MIN_SEEN = 12  # pixels of a particle on the scale on which it is found
_MAX_PIECES = 0.6  # likewise, of pieces that are less probable
_MAX_SPECKS = 0.1  # of what is found on a smaller scale, that was found on it before and makes way
_NECK = 0.4  # pixels, as the network's outlines are smooth
_MIN_PART = 0.15  # of a particle's area, that a neck cuts off
_MIN_STEP = 0.2  # of the step of most of the particles' area: dirt is fainter
_MIN_RANGE = 0.08  # of the range of grey values: light and clouds have no such steps
_RANGES = (5, 10, 20)  # of grey values, as multiples of the noise
_MIN_FREE = 0.25  # of the pixels around a particle, which no other one has


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class FoundParticles(Outlines):
    """The outlines of the particles that `find_particles` found, and how it found them.

    Attributes
    ----------
    polarity : {"bright", "dark"} or None
        Whether particles are brighter or darker than the background; None if not given and
        nothing was found.
    confidence : float
        Of the polarity, from 0 to 1: by how much more area and contrast it has than the opposite
        one. 1 if the polarity was given, 0 if nothing was found.
    """

    polarity: Literal["bright", "dark"] | None
    confidence: float


@one_or_many()
def find_particles(
    image: Any,
    *,
    polarity: Literal["auto", "bright", "dark"] = "auto",
    min_area: int = MIN_AREA,
    annotations: Annotations = "leave_out",
    read_options: Mapping[str, Any] | ReadOptions | None = None,
) -> FoundParticles:
    """Find particles that are brighter or darker than the background, without training.

    A network that was trained on drawn fields outlines convex particles of about 5 pixels and more:
    flat or shaded ones, with bright rims or hollow, touching, overlapping or dense, in noise, grain
    and uneven light. Very large ones are looked at on a smaller scale. What overlaps is separated
    where outlines show it. Regions of less than a fifth of the others' contrast are left out as
    dirt. Holes of rings are filled, and branched or curved particles may be found in pieces.

    Parameters
    ----------
    image : path or array, or list of these
        As in :func:`hypervlad.read_micrograph`. Colours are averaged.
    polarity : {"auto", "bright", "dark"}, default="auto"
        "auto" chooses that of most of what is found, by area and contrast.
    min_area : int, default=20
        Particles of fewer pixels are left out.
    annotations : {"leave_out", "keep"}, default="leave_out"
        Whether what was drawn into the image, as :func:`hypervlad.images.find_annotations` finds
        it, is left out.
    read_options : dict or ReadOptions, optional
        The fields of :class:`hypervlad.images.ReadOptions`; ``scaling="auto"`` is "minmax" here.

    Returns
    -------
    FoundParticles, or list of them
        The `Outlines`; ``np.asarray`` of it is a label image. A list of images gives a list.

    Raises
    ------
    ValueError
        If a parameter is out of range, or an image cannot be read (`ImageReadError`); it is named.

    Examples
    --------
    >>> import numpy as np
    >>> from hypervlad.particles import find_particles
    >>> image = np.random.default_rng(0).normal(0.7, 0.02, (64, 64))
    >>> image[10:20, 10:20] -= 0.3
    >>> image[40:55, 30:40] -= 0.3
    >>> found = find_particles(image.clip(0, 1))
    >>> len(found), found.polarity, np.asarray(found).shape
    (2, 'dark', (64, 64))
    """
    check_value("polarity", polarity, [OneOf("auto", "bright", "dark")])
    check_value("min_area", min_area, [Integer()])
    sample = read_sample(image, annotations=annotations, read_options=read_options)
    with usual_torch():
        labels = _labelled(sample.grey, min_area)
    steps = _steps(sample.grey, labels)
    areas = np.bincount(labels.ravel(), minlength=len(steps) + 1)[1:]
    weights = areas * np.abs(steps)
    bright, dark = float(weights[steps > 0].sum()), float(weights[steps < 0].sum())
    known: Literal["bright", "dark"] = "bright" if bright > dark else "dark"
    known = known if polarity == "auto" else polarity
    has_polarity = np.sign(steps) == (1 if known == "bright" else -1)
    typical = weighted_quantiles(np.abs(steps), areas, [0.5])[0] if len(steps) else 0.0
    least = max(_MIN_STEP * typical, _MIN_RANGE * contrast_of(sample.grey))
    is_outlined = (np.abs(steps) >= least) & ~_is_cut_off(labels)
    is_kept = np.concatenate([[False], has_polarity & is_outlined])
    labels = values_of(labels, numbers_of(is_kept), labels)
    n_beside = drop_hidden(labels, sample.mask)
    found = Outlines.of_labels(labels)
    confidence = abs(bright - dark) / (bright + dark) if len(found) else 0.0
    return FoundParticles(
        found.shape,
        found.outlines,
        sample.pixel_size,
        annotations=sample.annotations,
        n_beside=n_beside,
        note="" if len(found) else _why_none(sample.grey, polarity, has_polarity, n_beside),
        polarity=known if len(found) or polarity != "auto" else None,
        confidence=confidence if polarity == "auto" else 1.0,
    )


@functools.cache
def _finder() -> FieldNetwork:
    known = get_backbone(PRETRAINED)
    device = check_device("auto")
    network = build_network(PRETRAINED, "pretrained", known.taps[:-1], device)
    decoder = pretrained_decoder().to(device)
    return FieldNetwork(network, decoder, known.preprocessing, MIN_CONTRAST)


def _labelled(grey: NDArray[np.float32], min_area: int) -> NDArray[np.int32]:
    """Label what the finder takes for particles, on each scale.

    Large particles are seen whole on a smaller scale only, and grain is finer there.
    """
    labels, probabilities = np.zeros(grey.shape, np.int32), np.zeros(1)
    for scale, least in _CERTAIN.items():
        size = tuple(max(1, round(extent * scale)) for extent in grey.shape)
        seen = grey if scale == 1 else resize(grey, size, order=1, anti_aliasing=True)
        smallest = max(round(min_area * scale**2), min(min_area, _MIN_SEEN))
        fields = _finder().fields(seen, _TILE)
        more, own = separated(fields, _SEPARATION, smallest, edge=_EDGE, least=least)
        del seen, fields
        if scale < 1:
            more = at_own_scale(more, grey.shape)
        probabilities = _add(labels, probabilities, more, np.array([0, *own]))
    # What was found twice, or lies below others, may have no pixel left.
    labels = renumbered(labels)
    _split_at_necks(labels)
    return labels


def _add(
    labels: NDArray[np.int32],
    probabilities: NDArray[np.float64],
    more: NDArray[np.int32],
    own: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Add, in place, what is found on a smaller scale; return all probabilities, by label.

    It makes way for what is at least as probable, unless these are specks on it; what is not makes
    way for it, such as pieces that grain breaks off.
    """
    shared = coo_array((len(own), len(probabilities))).tocsr()
    for top in range(0, len(labels), _ROWS):
        above, below = more[top : top + _ROWS], labels[top : top + _ROWS]
        both = (above > 0) & (below > 0)
        pairs = above[both], below[both]
        shared = shared + coo_array((np.ones(len(pairs[0])), pairs), shared.shape).tocsr()
    cover = shared.sum(axis=1)
    areas = areas_of(more, len(own) - 1)
    is_worse = (shared @ probabilities < cover * own) & (cover < _MAX_PIECES * areas)
    is_new = (areas > 0) & ((cover <= _MAX_SPECKS * areas) | is_worse)
    is_new[0] = False
    goes = shared[is_new].sum(axis=0) > 0.5 * areas_of(labels, len(probabilities) - 1)
    numbers = numbers_of(~goes)
    labels[...] = numbers[labels]
    new_numbers = np.where(is_new, numbers.max() + np.cumsum(is_new), 0).astype(np.int32)
    free = labels == 0
    labels[free] = new_numbers[more[free]]
    return np.concatenate([[0], probabilities[numbers > 0], own[is_new]])


def _split_at_necks(labels: NDArray[np.int32]) -> None:
    """Separate, in place, particles that overlap where the outline alone shows it."""
    n = int(labels.max(initial=0))
    for number, window in enumerate(ndimage.find_objects(labels), start=1):
        inside = labels[window] == number
        parts = separate_at_necks(inside, _NECK)
        areas = np.bincount(parts[inside])[1:]
        if len(areas) > 1 and areas.min() >= _MIN_PART * areas.sum():
            others = parts > 1
            labels[window][others] = n + parts[others] - 1
            n += len(areas) - 1


def _steps(grey: NDArray[np.float32], labels: NDArray[np.int32]) -> NDArray[np.float64]:
    """Return by how much grey values within each outline are above those beyond it."""
    steps = list[float]()
    for number, window in enumerate(ndimage.find_objects(labels), start=1):
        around, _ = larger_window(window)
        own, values = labels[around] == number, grey[around]
        within = own & ~ndimage.binary_erosion(own, EIGHT, iterations=_RING, border_value=1)
        beyond = ndimage.binary_dilation(own, EIGHT, iterations=_RING) & ~own
        free = beyond & (labels[around] == 0)
        if free.sum() >= _MIN_FREE * beyond.sum():
            beyond = free
        inner = within if within.any() else own
        is_whole = not beyond.any()  # of an image that is one particle
        steps.append(0.0 if is_whole else float(values[inner].mean() - values[beyond].mean()))
    return np.array(steps)


def _is_cut_off(labels: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Return which outlines are mostly the edge of the image."""
    n = int(labels.max(initial=0))
    ends = (labels[0], labels[-1], labels[1:-1, 0], labels[1:-1, -1])
    at_edge = np.bincount(np.concatenate(ends), minlength=n + 1)[1:]
    outlines = np.empty(n)
    for number, window in enumerate(ndimage.find_objects(labels)):
        own = labels[window] == number + 1
        outlines[number] = np.count_nonzero(own & ~ndimage.binary_erosion(own))
    return at_edge > _MAX_AT_EDGE * outlines


def _why_none(
    grey: NDArray[np.float32], polarity: str, has_polarity: NDArray[np.bool_], n_beside: int
) -> str:
    """Say why nothing is found, and what to try."""
    left_out = []
    if n_wrong := int(np.count_nonzero(~has_polarity)):
        left_out.append(f"{counted(n_wrong, 'region')} of the other polarity than {polarity!r}")
    if n_beside:
        left_out.append(f"{counted(n_beside, 'particle')} that annotations cover in part")
    if left_out:
        return "no particle is left: " + " and ".join(left_out) + " were left out"
    noise = float(np.median(np.abs(grey - ndimage.gaussian_filter(grey, 1)))) / 0.6745
    ratio = contrast_of(grey) / max(noise, 1e-9)
    limit = next((each for each in _RANGES if ratio < each), None)
    if not np.ptp(grey):
        why = "all pixels are alike"
    elif limit is None:
        why = "nothing has the outline of a particle"
    else:
        why = f"grey values range over less than {limit} times the noise from pixel to pixel"
    return (
        f"no particle is found: {why}; if you see particles, try a smaller min_area, or outline "
        "them in a few images, and train a segmenter with these"
    )
