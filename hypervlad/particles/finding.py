"""Particles found without training."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.transform import resize

from hypervlad.common.constraints import Integer, OneOf, check_value
from hypervlad.common.progress import joined_notes
from hypervlad.common.wording import counted
from hypervlad.features.lazy_torch import check_device, usual_torch
from hypervlad.features.network import build_network
from hypervlad.features.registry import get_backbone
from hypervlad.images import ReadOptions
from hypervlad.images.sample import Annotations, Sample, drop_hidden, one_or_many, read_sample
from hypervlad.objects.detection import MIN_AREA, FindingRange
from hypervlad.objects.measures import solidity
from hypervlad.objects.particle import Outlines
from hypervlad.objects.splitting import (
    EIGHT,
    LabelMap,
    areas_of,
    elongations,
    join_without_necks,
    numbers_of,
    renumbered,
    separate_at_necks,
    values_of,
)
from hypervlad.particles.contrast import Edges, edges_of, texture_of
from hypervlad.particles.decoder import (
    MIN_CONTRAST,
    PRETRAINED,
    FieldNetwork,
    brightness_of,
    likely_parts,
    parts_of,
    pretrained_decoder,
    release_memory,
)
from hypervlad.particles.doubt import Doubt, are_lumps, either_polarity, finding_range, main_doubt
from hypervlad.particles.fainter import faint_spots
from hypervlad.particles.joining import Joined, Joiner
from hypervlad.particles.layers import NO_LAYER, Layer, layer_alone
from hypervlad.particles.polarity import (
    OPPOSITE,
    SURE,
    Polarity,
    PolarityFound,
    chosen_polarity,
)
from hypervlad.particles.soft_edges import is_sphere, to_soft_edges
from hypervlad.particles.training_fields import nearest
from hypervlad.statistics.groups import weighted_quantiles

_SEPARATION, _MIN_PIECE = 0.95, 4  # of the parts that are then joined, the latter in pixels
_TILE = 1536  # pixels, of the side of what is looked at at once
_LIKELY = 128  # of 255: probability of background, with less of which it looks like a particle
_EDGE = 80  # of 255: probability of background at outlines, with which diameters are right
# Least mean probability of a particle, by scale: what is found in noise and grain has less.
_CERTAIN = {1.0: 0.88, 0.5: 0.86, 0.25: 0.83, 0.125: 0.86}
_LIKE_OTHERS = 0.7  # of the step of most of the particles' area
_MAX_AT_EDGE = 0.5  # of an outline, that the image's edge is, but in corners
_MIN_SEEN = 12  # pixels of a particle on the scale on which it is found
_MAX_SPECKS = 0.1  # share of a particle of a smaller scale; more of it was found before
_ROWS = 1024  # that are compared at once
_NECK = 0.4  # pixels, as the network's outlines are smooth
_MIN_PART = 0.15  # of a particle's area, that a neck cuts off
_MAX_LONG = 1.8  # elongation of parts: the width of long ones varies anyway
# Where grey values within so many pixels of particles vary by so little of the step, they do not
# show borders: only necks of the outline do. How much grey values of parts differ, at most.
_FLAT, _NECK_OF_FLAT, _MAX_DIFFER = 0.05, 0.2, 0.2
# Regions too small for particles, which are as surely none of the background, for each particle.
_MANY_SPECKS, _SURELY = 0.05, 32  # the latter of 255: probability of background
_MIN_STEP = 0.2  # of the step of most of the particles' area: dirt is fainter
_MIN_RANGE = 0.08  # of the range of grey values: light and clouds have no such steps
_HALF, _SETTLED = 0.5, 0.7  # scale on which the polarity is settled, if it is so sure there
_STANDS_OUT = 6.0  # times the median deviation of the background: four standard deviations
_RANGES = (5, 10, 20)  # of grey values, as multiples of the noise
# Contrast in standard deviations of as large parts of the background: the least of a particle, and
# of most of the particles' area. What the finder takes for particles in textures has 6 and less.
_MIN_CLARITY, _TYPICAL_CLARITY = 5.0, 8.0
# Of so few particles, most of the area is clearer, and its contrast, where the image's edge has
# none, this share of the range: holes, lights and clipped corners of empty fields have less.
_FEW, _CLARITY_OF_FEW, _RANGE_OF_FEW = 5, 10.0, 0.16
# Likewise, the mean probability that its pixels are none of a particle, on the scale on which that
# is least: inside, and how much more along edges, for a particle of one pixel.
_UNSURE, _UNSURE_EDGE = 0.04, 0.6
_LINE = 5.0  # elongation of few that the image's edge cuts: scratches and fibres
_CONVEX = 0.9  # solidity
_OTHERS = (
    "{} regions look like particles, too, in this image ({:,}); if these are meant, say so by the "
    "polarity"
)
_SPECKS = (
    "{} of fewer than {} pixels are left out; if these are particles, lower min_area, or enlarge "
    "the image"
)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class FoundParticles(Outlines):
    """The outlines of the particles that `find_particles` found, and how it found them.

    Attributes
    ----------
    polarity : {"bright", "dark"} or None
        Whether particles are brighter or darker than the background; None if not given and
        nothing was found.
    confidence : float
        Of the polarity, from 0 to 1: by how much more area, contrast and convexity it has than
        the opposite one. 1 if the polarity was given, 0 if nothing was found.
    doubts : dict of str to float
        What is doubtful, by which numbers and sizes may be wrong, such as "touching", the share of
        outlines between two particles; empty if nothing was found.
    n_unclear : int
        Number of regions that were left out as faint, or at the image's edge, if nothing was found.
    """

    polarity: Polarity | None
    confidence: float
    doubts: dict[str, float]
    n_unclear: int = 0

    @property
    def finding_range(self) -> FindingRange | None:
        """Between which factors true numbers and sizes are those found; None if nothing was."""
        return finding_range(self.doubts) if self.doubts else None

    @property
    def number_range(self) -> tuple[int, int] | None:
        """How few and how many there may be, within 95 %; None where the image does not tell it.

        Particles that annotations cover in part may be there. If no other is found, the most are
        these and what was left out as faint or at the image's edge.
        """
        if self.finding_range is None:
            return 0, self.n_beside + self.n_unclear
        if not self.finding_range.tells_number:
            return None
        logs = FindingRange.logs([self.finding_range], [len(self)], len(self))
        factors = np.exp(logs[0] * [-1, 1])
        # Half a particle more, as of none there is no logarithm.
        fewest, most = ((len(self) + 0.5) * factors - 0.5).round().astype(int).tolist()
        return max(0, fewest), most + self.n_beside


@one_or_many()
def find_particles(
    image: Any,
    *,
    polarity: Literal["auto", "bright", "dark"] = "auto",
    layer: Layer = "auto",
    min_area: int = MIN_AREA,
    annotations: Annotations = "leave_out",
    read_options: Mapping[str, Any] | ReadOptions | None = None,
) -> FoundParticles:
    """Find particles that are brighter or darker than the background, without training.

    A network that was trained on drawn fields outlines convex particles of about 5 pixels and more:
    flat or shaded ones, with bright rims or hollow, touching, overlapping or dense, in noise, grain
    and uneven light. Very large ones are looked at on a smaller scale. What overlaps is separated
    where outlines show it. Spheres in transmission, whose contrast fades towards the edge, are
    outlined where their thickness falls to zero. Left out are regions of less than a fifth of the
    others' contrast, as dirt, but six or more that are alike, and those whose contrast the texture
    of the background has by chance: if it has that of most, all are but six or more that are much
    clearer, and so are five or fewer that are nearly as faint. Branched particles may be found in
    pieces, which `number_range` says.

    Parameters
    ----------
    image : path or array, or list of these
        As in :func:`hypervlad.read_micrograph`. Colours are averaged.
    polarity : {"auto", "bright", "dark"}, default="auto"
        "auto" looks for both, and chooses that with more area and contrast in convex regions. Where
        a copy of half the size is sure enough, the image is only searched for that one.
    layer : {"auto", "outer", "inner"}, default="auto"
        What is outlined where cores show in shells, or small particles upon larger ones, as metal
        on its support: "auto" outlines shells, where at least a third of the particles and four
        show one, but small particles of which several lie upon a larger one, and a note says so.
    min_area : int, default=20
        Particles of fewer pixels are left out.
    annotations : {"leave_out", "keep"}, default="leave_out"
        Whether margins and what was drawn into the image are left out, as
        :func:`hypervlad.images.find_annotations` finds them.
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
    check_value("polarity", polarity, [OneOf("auto", *OPPOSITE)])
    check_value("layer", layer, [OneOf("auto", "outer", "inner")])
    check_value("min_area", min_area, [Integer()])
    sample = read_sample(image, annotations=annotations, read_options=read_options)
    scales = Scales(sample.grey, min_area)
    known, confidence, every = scales.searched(polarity)
    labels, note, doubts, n_unclear = every[known].labels, "", dict[str, float](), 0
    if labels.any():
        scales, labels, note = _of_layer(scales, labels, known, layer)
    n_beside = drop_hidden(labels, sample, min_area)
    if labels.any():
        scales, labels, missed, note_of_missed = _with_faint(scales, sample, labels, known)
        n_beside = max(n_beside, drop_hidden(labels, sample, min_area))
    if labels.any():
        doubts = scales.facts(known, labels) | {"missed": missed}
        doubts["soft"], note_of_edges = to_soft_edges(sample.grey, labels, known)
        labels[~sample.mask] = 0
        note = joined_notes([note, note_of_missed, note_of_edges])
    found = Outlines.of_labels(labels)
    if len(found):
        if confidence < SURE:
            drop_hidden(of_others := every[OPPOSITE[known]].labels, sample, min_area)
            if len(others := Outlines.of_labels(of_others)):
                doubts |= either_polarity(found, others)
                note = joined_notes([note, _OTHERS.format(OPPOSITE[known], len(others))])
        n_specks = scales.n_specks(known, labels)
        if n_specks > max(_FEW, _MANY_SPECKS * len(found)):
            specks = _SPECKS.format(counted(n_specks, "region"), min_area)
            note = joined_notes([note, specks])
    else:
        n_unclear = sum(own.n_unclear for own in every.values())
        other = None if polarity == "auto" else scales.found(OPPOSITE[polarity])
        note = _why_none(sample.grey, other, n_unclear, n_beside)
    is_told = len(found) or polarity != "auto"
    result = FoundParticles(
        found.shape,
        found.outlines,
        sample.pixel_size,
        annotations=sample.annotations,
        n_beside=n_beside,
        note=note,
        polarity=known if is_told else None,
        confidence=confidence if is_told else 0.0,
        doubts=doubts,
        n_unclear=n_unclear,
    )
    if result.doubts and (why := main_doubt(result.doubts)):
        doubt = f"how many particles there are cannot be told from this image, as {why}"
        if (range_ := result.number_range) is not None:
            fewest, most = range_
            doubt = f"there may be fewer or more in this image ({fewest:,} to {most:,}), as {why}"
        result = replace(result, note=joined_notes([note, doubt]))
    return result


class Scales:
    """An image on each scale, and what the finder takes for particles there.

    Large particles are seen whole on a smaller scale only, and grain is finer there.
    """

    def __init__(
        self, grey: NDArray[np.float32], min_area: int, joiner: Joiner | None = None
    ) -> None:
        self.grey, self.min_area = grey, min_area
        self._images = {1.0: grey}
        self._joiner = joiner or Joiner.pretrained()
        # Several tiles are computed in torch anyway. So are the smaller images of a large one here:
        # each may be one tile, and OpenVINO would keep the memory of the largest, 0.6 GB.
        self._network = finder_network()
        if max(grey.shape) > _TILE:
            self._network = self._network.run_by("torch")
        for scale in [*_CERTAIN][1:]:
            size = tuple(max(1, round(extent * scale)) for extent in grey.shape)
            self._images[scale] = resize(self._images[2 * scale], size, order=1, anti_aliasing=True)
        self._brightness = {scale: brightness_of(own) for scale, own in self._images.items()}
        self._seen = dict[tuple[Polarity, float], Joined]()
        # Of the whole image: its pieces, how many pixels look like particles, and further facts.
        self._doubt = dict[Polarity, Doubt]()
        self._likely = dict[Polarity, int]()
        self._shown = dict[Polarity, dict[str, float]]()
        self._lumps = dict[Polarity, float]()  # the share of area in concave outlines
        # The probability of background, in 255 steps, on each scale.
        self._background = dict[tuple[Polarity, float], NDArray[np.uint8]]()
        # A pixel of each region that is too small for a particle.
        self._specks = dict[Polarity, NDArray[np.intp]]()

    def found(self, polarity: Polarity, whole: float = 1.0) -> PolarityFound:
        """Return the particles of the image on one scale, of which smaller ones take part."""
        grey, sign = self._images[whole], 1 if polarity == "bright" else -1
        labels = self._labelled(polarity, whole)
        edges = edges_of(grey, labels, sign)
        known = edges.spreads[~np.isnan(edges.spreads)]
        if whole == 1 and len(known) and np.median(known) <= _FLAT:
            labels = _joined_without_necks(grey, labels, edges.steps, self._doubt[polarity])
            edges = edges_of(grey, labels, sign)
        steps, at_edge, contrasts, _ = edges
        areas = areas_of(labels, len(steps))[1:]
        is_large = (steps > 0) & (areas >= self._least_area(whole))
        is_kept = is_large & (at_edge <= _MAX_AT_EDGE)
        typical = _median(steps[is_kept], areas[is_kept])
        range_ = self._brightness[whole][1]
        is_kept &= steps >= max(_MIN_STEP * typical, _MIN_RANGE * range_)
        # Light leaves corners of the image dark, but particles there are like the others.
        in_corner = is_large & (at_edge > _MAX_AT_EDGE) & (steps >= _LIKE_OTHERS * typical)
        in_corner &= areas <= areas[is_kept].max(initial=0)
        clarity = np.zeros(len(steps))
        if is_kept.any():
            texture = texture_of(grey, labels, sign)
            for number in np.flatnonzero(is_kept | in_corner).tolist():
                own = contrasts[number]
                clarity[number] = max(contrast / texture(area) for contrast, area in own)
        is_clear = is_kept & (clarity >= _MIN_CLARITY)
        if np.count_nonzero(is_clear) <= _FEW:
            is_clear = self._clear_of_few(polarity, whole, labels, edges, clarity, is_clear)
        elif _median(clarity[is_clear], areas[is_clear]) < _TYPICAL_CLARITY:
            # More than a few that are as clear are not of the texture of the others.
            is_clear &= clarity >= _CLARITY_OF_FEW
            is_clear &= steps * (1 - at_edge) >= _RANGE_OF_FEW * range_
            is_clear &= np.count_nonzero(is_clear) > _FEW
        is_clear |= in_corner & (clarity >= _TYPICAL_CLARITY) & is_clear.any()
        labels = values_of(labels, numbers_of(np.concatenate([[False], is_clear])), labels)
        is_unclear = is_kept & ~is_clear
        if not is_clear.any():
            is_unclear |= is_large & (at_edge > _MAX_AT_EDGE) & (steps >= _MIN_RANGE * range_)
        n_unclear = int(np.count_nonzero(is_unclear))
        windows = enumerate(ndimage.find_objects(labels), start=1)
        solidities = np.array([solidity(labels[own] == number) for number, own in windows])
        areas, steps = areas[is_clear], steps[is_clear]
        weights = areas * steps * solidities**2  # gaps are less convex
        concave = float(1 - np.quantile(solidities, 0.1)) if is_clear.any() else 0.0
        if whole == 1 and is_clear.any():
            faint = float(1 / np.quantile(clarity[is_clear], 0.1))
            self._shown[polarity] = {"concave": concave, "faint": faint}
            is_concave = solidities < _CONVEX
            self._lumps[polarity] = float(areas @ is_concave / areas.sum())
        return PolarityFound(labels, areas, weights, n_unclear, concave)

    def _clear_of_few(
        self,
        polarity: Polarity,
        whole: float,
        labels: LabelMap,
        edges: Edges,
        clarity: NDArray[np.float64],
        is_clear: NDArray[np.bool_],
    ) -> NDArray[np.bool_]:
        """Return which of a few particles are clear: none if most of their area is not."""
        grey, sign = self._images[whole], 1 if polarity == "bright" else -1
        places, areas = ndimage.find_objects(labels), areas_of(labels, len(clarity))[1:]
        least, shown = _RANGE_OF_FEW * self._brightness[whole][1], edges.steps * (1 - edges.at_edge)
        for number in np.flatnonzero(is_clear).tolist():
            inside = labels[places[number]] == number + 1
            is_line = elongations(inside, inside.astype(np.int32))[0] > _LINE
            if edges.at_edge[number] and is_line:
                is_clear[number] = False
            # Spheres in transmission show more in their middles than at their edges.
            elif shown[number] < least and is_sphere(grey, labels, sign, number + 1):
                shown[number] = edges.contrasts[number][-1][0]
        unsure = (self._unsure(polarity, labels) - _UNSURE) * np.sqrt(areas)
        typical = (_median(own[is_clear], areas[is_clear]) for own in (clarity, shown, -unsure))
        limits = _CLARITY_OF_FEW, least, -_UNSURE_EDGE
        return is_clear & all(own >= limit for own, limit in zip(typical, limits, strict=True))

    def _unsure(self, polarity: Polarity, labels: LabelMap) -> NDArray[np.float64]:
        """Return the mean probability that pixels of particles are none, where it is least."""
        least = np.ones(n := int(labels.max(initial=0)))
        for background in (each for key, each in self._background.items() if key[0] == polarity):
            own = nearest(labels, background.shape).ravel()
            areas = np.bincount(own, minlength=n + 1)[1:]
            means = np.bincount(own, background.ravel(), n + 1)[1:] / 255 / areas.clip(1)
            least = np.where(areas >= _MIN_SEEN, np.minimum(least, means), least)
        return least

    def n_specks(self, polarity: Polarity, labels: LabelMap) -> int:
        """Return how many regions are too small for particles, beside those that were found."""
        return int(np.count_nonzero(labels.ravel()[self._specks[polarity]] == 0))

    def facts(self, polarity: Polarity, labels: LabelMap) -> dict[str, float]:
        """Return what is doubtful of some of the particles that were found; see `Doubt`."""
        likely, seen = self._likely[polarity], self._shown[polarity]
        facts = self._doubt[polarity].facts(labels, self.min_area, likely, seen)
        return facts | {"lumps": float(are_lumps(facts, self._lumps[polarity]))}

    def searched(
        self, polarity: Literal["auto", "bright", "dark"]
    ) -> tuple[Polarity, float, dict[Polarity, PolarityFound]]:
        """Return the polarity, how sure it is, and what was found of each that was looked for.

        Where half the size is sure enough, only one is.
        """
        if polarity != "auto":
            return polarity, 1.0, {polarity: self.found(polarity)}
        halves = {name: self.found(name, _HALF) for name in OPPOSITE}
        known, confidence = chosen_polarity(halves, self._images[_HALF])
        # What stands out on the other side may be particles too small to be found at half the size.
        grey = self._images[_HALF][~ndimage.binary_dilation(halves[known].labels > 0, iterations=2)]
        if confidence >= _SETTLED and len(grey):
            beyond = (np.median(grey) - grey) * (1 if known == "bright" else -1)
            other = beyond[beyond > _STANDS_OUT * np.median(np.abs(beyond))].sum()
            own = halves[known].weights.sum()
            confidence = min(confidence, float(2 * own / (own + other) - 1))
        if confidence >= _SETTLED:  # what is seen of the other polarity takes 89 MB of the largest
            self._seen = {key: each for key, each in self._seen.items() if key[0] == known}
            self._background = {k: each for k, each in self._background.items() if k[0] == known}
        every = {known: self.found(known)}
        if confidence < _SETTLED or not len(every[known].weights):
            every[OPPOSITE[known]] = self.found(OPPOSITE[known])
            known, confidence = chosen_polarity(every, self.grey)
        return known, confidence, every

    def _least_area(self, scale: float) -> int:
        return max(round(self.min_area * scale**2), min(self.min_area, _MIN_SEEN))

    def _labelled(self, polarity: Polarity, whole: float) -> LabelMap:
        labels = self._look(polarity, whole)
        for scale in (each for each in _CERTAIN if each < whole):
            if len(self._seen[polarity, scale].likely):
                more = self._in_size(polarity, scale, labels.shape)
                _add(labels, more.particles(more.pieces))
        # What was found twice, or lies below others, may have no pixel left.
        labels = renumbered(labels)
        _split_at_necks(labels)
        return labels

    def _in_size(self, polarity: Polarity, scale: float, size: tuple[int, ...]) -> Joined:
        """Return what is seen on a scale, in the size of another one."""
        if max(size) > _TILE:
            release_memory()  # of the largest images, this takes half a gigabyte
        return self._seen[polarity, scale].in_size(size)

    def _look(self, polarity: Polarity, scale: float) -> LabelMap:
        """Label what is seen on one scale; what a smaller one shows helps to join its parts."""
        if (polarity, scale) in self._seen:
            return self._seen[polarity, scale].particles()
        grey, least_area = self._images[scale], self._least_area(scale)
        if has_smaller := scale / 2 in _CERTAIN:
            self._look(polarity, scale / 2)
        with usual_torch():
            fields = self._network.fields(grey, _TILE, polarity == "dark", self._brightness[scale])
        self._background[polarity, scale] = fields[0].copy()
        limits = _EDGE, _CERTAIN[scale]
        parts = parts_of(fields, _SEPARATION, least_area, _MIN_PIECE, *limits)
        smaller = self._in_size(polarity, scale / 2, grey.shape) if has_smaller else None
        joined, doubt = self._joiner.join(parts, fields, smaller)
        del smaller  # of the largest images, it takes 256 MB
        # The whole image's are not needed as pieces: particles take their place.
        labels = joined.particles(None if scale < 1 else joined.pieces)
        labels = likely_parts(labels, fields[0], least_area, *limits)
        if scale < 1:
            # What is no brighter than its surroundings must not take the place of what lies on it.
            steps = edges_of(grey, labels, 1 if polarity == "bright" else -1).steps
            labels = values_of(labels, numbers_of(np.concatenate([[False], steps > 0])), labels)
            self._seen[polarity, scale] = joined.within(labels)
            return labels
        self._doubt[polarity] = doubt
        self._likely[polarity] = int(np.count_nonzero(fields[0] < _LIKELY))
        pieces, n = ndimage.label(fields[0] < _EDGE, EIGHT)
        areas = areas_of(pieces, n)
        is_speck = ((areas >= _MIN_PIECE) & (areas < least_area))[pieces]
        at = np.flatnonzero(is_speck & (fields[0] < _SURELY))
        self._specks[polarity] = at[np.unique(pieces.ravel()[at], return_index=True)[1]]
        return labels


def _of_layer(
    scales: Scales, labels: LabelMap, known: Polarity, layer: Layer
) -> tuple[Scales, LabelMap, str]:
    """Return the outlines of the layer that is wanted, on what they are found, and a note."""
    if alone := layer_alone(scales.grey, labels, known, layer):
        again = Scales(alone.grey, scales.min_area)
        seen = again.found(known)
        own = alone.outlined(seen.labels, labels, seen.concave)
        if own is not None:
            return again, own, alone.note
    return scales, labels, NO_LAYER if layer != "auto" else ""


def _with_faint(
    scales: Scales, sample: Sample, labels: LabelMap, known: Polarity
) -> tuple[Scales, LabelMap, float, str]:
    """Return the same with much fainter particles, and what `FaintSpots.missed` does."""
    spots = faint_spots(sample, labels, known, scales.min_area)
    if spots is None:
        return scales, labels, 0.0, ""
    again = Scales(spots.grey, scales.min_area)
    added = spots.added(labels, again.found(known).labels)
    return again if added is not labels else scales, added, *spots.missed(added)


def _median(values: NDArray[np.float64], areas: NDArray[np.int64]) -> float:
    return float(weighted_quantiles(values, areas, [0.5])[0]) if len(values) else 0.0


@functools.cache
def finder_network() -> FieldNetwork:
    """Return the network that finds particles, as it is stored."""
    known = get_backbone(PRETRAINED)
    device = check_device("auto")
    network = build_network(PRETRAINED, "pretrained", known.taps[:-1], device)
    decoder = pretrained_decoder().to(device)
    return FieldNetwork(network, decoder, known, MIN_CONTRAST)


def _add(labels: LabelMap, more: LabelMap) -> None:
    """Add, in place, what is found on a smaller scale where at most specks were, which make way."""
    n, n_more = int(labels.max(initial=0)), int(more.max(initial=0))
    rows = [slice(top, top + _ROWS) for top in range(0, len(labels), _ROWS)]
    covered = sum(areas_of(np.where(labels[own] > 0, more[own], 0), n_more) for own in rows)
    values_of(more, numbers_of(covered <= _MAX_SPECKS * areas_of(more, n_more)), more)
    within = sum(areas_of(np.where(more[own] > 0, labels[own], 0), n) for own in rows)
    numbers = numbers_of(within <= 0.5 * areas_of(labels, n))
    for own in rows:
        kept, added = numbers[labels[own]], more[own]
        labels[own] = np.where((kept == 0) & (added > 0), added + numbers.max(), kept)


def _split_at_necks(labels: LabelMap) -> None:
    """Separate, in place, what is apart, and particles of which the outline shows the overlap."""
    n = int(labels.max(initial=0))
    for number, window in enumerate(ndimage.find_objects(labels), start=1):
        pieces, n_pieces = ndimage.label(labels[window] == number, EIGHT)
        labels[window][pieces > 1] = n + pieces[pieces > 1] - 1
        n += n_pieces - 1
        inside = pieces == 1
        parts = separate_at_necks(inside, _NECK)
        areas = np.bincount(parts[inside])[1:]
        if len(areas) < 2 or areas.min() < _MIN_PART * areas.sum():
            continue
        if (elongations(inside, parts) <= _MAX_LONG).all():
            others = parts > 1
            labels[window][others] = n + parts[others] - 1
            n += len(areas) - 1


def _joined_without_necks(
    grey: NDArray[np.float32],
    labels: LabelMap,
    steps: NDArray[np.float64],
    doubt: Doubt,
) -> LabelMap:
    """Join what may be one particle by its depths, and is so by its outline and grey values."""
    own = labels.ravel()[doubt.pixels]  # the particle of each piece
    means = ndimage.mean(grey, labels, np.arange(len(steps) + 1))
    most = _MAX_DIFFER * np.median(steps[steps > 0])

    def may_join(now: NDArray[np.intp], one: int, other: int) -> bool:
        if abs(means[one] - means[other]) > most:
            return False
        first, second = (doubt.possible[now[own] == now[each]] for each in (one, other))
        return bool(np.isin(first, second).any())

    return join_without_necks(labels, _NECK_OF_FLAT, may_join)


def _why_none(
    grey: NDArray[np.float32], other: PolarityFound | None, n_unclear: int, n_beside: int
) -> str:
    """Say why nothing is found, and what to try."""
    left_out = []
    if other is not None and (n_other := int(other.labels.max())):
        left_out.append(f"{counted(n_other, 'region')} of the other polarity")
    if n_unclear:
        left_out.append(
            f"{counted(n_unclear, 'region')} too faint beside the background, or at an edge"
        )
    if n_beside:
        left_out.append(f"{counted(n_beside, 'particle')} that annotations cover in part")
    if left_out:
        return f"no particle is left; left out: {', '.join(left_out)}"
    noise = float(np.median(np.abs(grey - ndimage.gaussian_filter(grey, 1)))) / 0.6745
    ratio = brightness_of(grey)[1] / max(noise, 1e-9)
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
