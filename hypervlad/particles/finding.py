"""Particles found without training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hypervlad.common.constraints import Integer, OneOf, check_value
from hypervlad.common.progress import joined_notes
from hypervlad.common.wording import counted
from hypervlad.images import ReadOptions
from hypervlad.images.resampling import nearest
from hypervlad.images.sample import Annotations, Sample, drop_hidden, one_or_many, read_sample
from hypervlad.objects.detection import MIN_AREA, FindingRange
from hypervlad.objects.particle import Outlines
from hypervlad.objects.windows import LabelMap
from hypervlad.particles.contrast import pixel_noise
from hypervlad.particles.decoder import brightness_of
from hypervlad.particles.doubt import either_polarity, finding_range, main_doubt
from hypervlad.particles.fainter import STILL_FOUND, bare_regions, evened, faint_spots
from hypervlad.particles.layers import NO_LAYER, Layer, layer_alone
from hypervlad.particles.overlaps import silhouettes
from hypervlad.particles.polarity import OPPOSITE, SURE, Polarity, PolarityFound
from hypervlad.particles.scales import FEW, HALF, Scales, Search
from hypervlad.particles.soft_edges import to_soft_edges

# Regions too small for particles that are mentioned, for each particle.
_MANY_SPECKS = 0.05
_RANGES = (5, 10, 20)  # of grey values, as multiples of the noise
_OTHERS = (
    "{} regions look like particles, too, in this image ({:,}); if these are meant, say so by the "
    "polarity"
)
_OVERLAPS = (
    "regions between two particles that have the contrast of both together are taken for overlaps, "
    "not for particles"
)
_FOR_SPECKS = "lower min_area, or enlarge the image"
_SPECKS = f"{{}} of fewer than {{}} pixels are left out; if these are particles, {_FOR_SPECKS}"
_ENLARGED = (
    "many are small, so the image was searched at twice its size; particles have {} pixels or more "
    "there"
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
        the opposite one; by how many more there are, if hardly any were found before the image was
        enlarged. 1 if the polarity was given, 0 if nothing was found.
    doubts : dict of str to float
        What is doubtful, by which numbers and sizes may be wrong, such as "touching", the share of
        outlines between two particles; empty if nothing was found.
    n_unclear : int
        Number of regions that were left out as faint, too small, or at the image's edge, if nothing
        was found.
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

    A network that was trained on drawn fields outlines convex particles of about 4 pixels and more:
    flat or shaded ones, with bright rims or hollow, touching, overlapping or dense, in noise, grain
    and uneven light. Very large ones are looked at on a smaller scale. What overlaps is separated
    where outlines show it. Spheres in transmission, whose contrast fades towards the edge, are
    outlined where their thickness falls to zero. Where two particles overlap in transmission and
    the overlap has the contrast of both, it is part of one of them. Uneven light that takes more
    than an eighth of the range of grey values is removed first. Left out are
    regions of less than a fifth of the others' contrast, as dirt, but six or more that are alike,
    and those whose contrast the texture of the background has by chance: if it has that of most,
    all are but six or more that are much clearer, unless two fifths of the image look like
    particles, and so are five or fewer that are nearly as faint. Branched particles may be found in
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
        Particles of fewer pixels are left out. Where many are smaller, most are of at most 80
        pixels, and this is at most 20, an image of up to 1536 pixels is searched at twice its size,
        where they have so many pixels; a note says so.
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
    half = scales.of_half_the_size(polarity)
    if is_even := half.is_settled:
        sample, scales, _ = _in_even_light(
            sample, scales, half.every[half.known].labels, half.known, HALF
        )
    half = half.without_labels()
    search = scales.searched(half)
    is_given = polarity != "auto"
    if small := scales.with_small(search, sample.mask):
        twice = sample.at_twice_the_size()
        closer = Scales(twice.grey, min_area)
        again = closer.searched_after(small, search)
        found = _described(twice, closer, again, layer, is_given=is_given, is_even=is_even)
        if len(found) > len(search.every[small].areas):
            own = Outlines.of_labels(nearest(found.label_image(), sample.grey.shape))
            return replace(
                found,
                shape=own.shape,
                outlines=own.outlines,
                pixel_size=sample.pixel_size,
                annotations=sample.annotations,
                note=joined_notes([_ENLARGED.format(min_area), found.note]),
            )
    return _described(sample, scales, search, layer, is_given=is_given, is_even=is_even)


def _described(
    sample: Sample, scales: Scales, search: Search, layer: Layer, *, is_given: bool, is_even: bool
) -> FoundParticles:
    """Return the outlines of what was found, and how sure they are."""
    known, confidence, every = search
    labels, note, doubts, n_unclear = every[known].labels, "", dict[str, float](), 0
    if labels.any():
        if not is_even:
            sample, scales, labels = _in_even_light(sample, scales, labels, known)
        scales, labels = _again(scales.in_own_contrast(known, labels), scales, labels, known)
        scales, labels, note = _of_layer(scales, labels, known, layer)
        if not note:
            scales, labels, note = _without_overlaps(scales, labels, known)
    n_beside = drop_hidden(labels, sample, scales.min_area)
    if labels.any():
        scales, labels, missed, note_of_missed = _with_faint(scales, sample, labels, known)
        n_beside = max(n_beside, drop_hidden(labels, sample, scales.min_area))
    if labels.any():
        bare, note_of_bare = bare_regions(sample, labels, known)
        doubts = scales.facts(known, labels, sample.mask) | {"missed": missed, "bare": bare}
        of_edges, note_of_edges = to_soft_edges(sample.grey, labels, known)
        doubts |= of_edges
        labels[~sample.mask] = 0
        note = joined_notes([note, note_of_missed, note_of_bare, note_of_edges])
    found = Outlines.of_labels(labels)
    if len(found):
        if confidence < SURE:
            drop_hidden(of_others := every[OPPOSITE[known]].labels, sample, scales.min_area)
            if len(others := Outlines.of_labels(of_others)):
                doubts |= either_polarity(found, others)
                note = joined_notes([note, _OTHERS.format(OPPOSITE[known], len(others))])
        n_specks = scales.n_specks(known, labels, sample.mask)
        if n_specks > max(FEW, _MANY_SPECKS * len(found)):
            specks = _SPECKS.format(counted(n_specks, "region"), scales.min_area)
            note = joined_notes([note, specks])
    else:
        n_unclear = sum(own.n_unclear for own in every.values())
        n_specks = max(
            scales.n_specks(name, own.labels, sample.mask) for name, own in every.items()
        )
        other = scales.found(OPPOSITE[known]) if is_given else None
        note = _why_none(sample.grey, other, n_unclear, n_beside, n_specks)
        n_unclear += n_specks
    is_told = len(found) or is_given
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


def _in_even_light(
    sample: Sample, scales: Scales, labels: LabelMap, known: Polarity, scale: float = 1.0
) -> tuple[Sample, Scales, LabelMap]:
    """Return the same without uneven light, if that takes much of the range of grey values."""
    if (even := evened(sample, labels)) is not None:
        again, own = _again(Scales(even, scales.min_area), scales, labels, known, scale)
        if again is not scales:
            return sample._replace(grey=even), again, own
    return sample, scales, labels


def _again(
    again: Scales, scales: Scales, labels: LabelMap, known: Polarity, scale: float = 1.0
) -> tuple[Scales, LabelMap]:
    """Return what other scales show, if it is hardly less; else what was found before."""
    if again is not scales:
        own = again.found(known, scale).labels
        if own.max() >= STILL_FOUND * labels.max():
            return again, own
    return scales, labels


def _of_layer(
    scales: Scales, labels: LabelMap, known: Polarity, layer: Layer
) -> tuple[Scales, LabelMap, str]:
    """Return the outlines of the layer that is wanted, on what they are found, and a note."""
    if alone := layer_alone(scales.grey, labels, known, layer):
        again = Scales(alone.grey, scales.min_area)
        seen = again.found(known)
        again, own = _again(again.in_own_contrast(known, seen.labels), again, seen.labels, known)
        if (outlined := alone.outlined(own, labels, seen.concave)) is not None:
            return again, outlined, alone.note
    return scales, labels, NO_LAYER if layer != "auto" else ""


def _without_overlaps(
    scales: Scales, labels: LabelMap, known: Polarity
) -> tuple[Scales, LabelMap, str]:
    """Return the same without what two particles in transmission show where they overlap."""
    grey = silhouettes(scales.grey, labels, 1 if known == "bright" else -1)
    if grey is not None:
        again = Scales(grey, scales.min_area)
        own = again.found(known).labels
        if np.mean(own[labels > 0] > 0) >= STILL_FOUND:
            return again, own, _OVERLAPS
    return scales, labels, ""


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


def _why_none(
    grey: NDArray[np.float32],
    other: PolarityFound | None,
    n_unclear: int,
    n_beside: int,
    n_specks: int,
) -> str:
    """Say why nothing is found, and what to try."""
    left_out = []
    if other is not None and (n_other := int(other.labels.max())):
        left_out.append(f"{counted(n_other, 'region')} of the other polarity")
    if n_unclear:
        left_out.append(
            f"{counted(n_unclear, 'region')} too faint beside the background, or at an edge"
        )
    if n_specks:
        left_out.append(f"{counted(n_specks, 'region')} too small for a particle")
    if n_beside:
        left_out.append(f"{counted(n_beside, 'particle')} that annotations cover in part")
    if left_out:
        advice = f"; if small ones are particles, {_FOR_SPECKS}" if n_specks else ""
        return f"no particle is left; left out: {', '.join(left_out)}{advice}"
    ratio = brightness_of(grey)[1] / max(pixel_noise(grey), 1e-9)
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
