"""An image on several scales, and what the finder takes for particles on each."""

from __future__ import annotations

import functools
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import expand_labels
from skimage.transform import resize

from hypervlad.features.lazy_torch import check_device, usual_torch
from hypervlad.features.network import build_network
from hypervlad.features.registry import get_backbone
from hypervlad.images.morphology import EIGHT, convex_hull, grown, shrunk
from hypervlad.images.resampling import areas_of, middle, nearest
from hypervlad.objects.measures import shape_measures, solidities
from hypervlad.objects.splitting import (
    distance_within,
    elongations,
    join_without_necks,
    numbers_of,
    renumbered,
    separate_at_necks,
    values_of,
)
from hypervlad.objects.windows import BoolMap, LabelMap, grown_window, side_by_side
from hypervlad.particles.contrast import Edges, edges_of, pixel_noise, texture_of
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
from hypervlad.particles.doubt import Doubt, are_lumps
from hypervlad.particles.joining import Joined, Joiner
from hypervlad.particles.polarity import OPPOSITE, SURE, Polarity, PolarityFound, chosen_polarity
from hypervlad.particles.soft_edges import is_sphere
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
# What particles at edges of the image lack has such a share of their area, and differs from them by
# at most that of their contrast, as means of squares of pixels.
_MIN_MISSING, _LIKE_PARTICLE, _SMOOTH = 0.03, 0.2, 5
_MAX_EMPTY = 8  # times its area: what is around it, of particles that are not long
_ROWS, _PART = 512, 1024  # that are compared at once, or tell the noise
_BESIDE_NECKS = 2  # pixels around each: two are the gap that smoothing does not bridge
_NECK = 0.4  # pixels, as the network's outlines are smooth
_MIN_PART = 0.15  # of a particle's area, that a neck cuts off
_MAX_LONG = 1.8  # elongation of parts: the width of long ones varies anyway
# Where grey values within so many pixels of particles vary by so little of the step, they do not
# show borders: only necks of the outline do. How much grey values of parts differ, at most.
_FLAT, _NECK_OF_FLAT, _MAX_DIFFER = 0.05, 0.2, 0.2
# Regions too small for particles are as surely none of the background, by its probability of 255.
_SURELY = 32
# Of gaps between particles side by side that were outlined as one: how far lines across are below
# what is so many pixels to both sides, by the step of the particle and by the noise of pixels; the
# least share of each part, and of how many more parts than a few, as a share of the particles.
_LINE_DEPTH, _LINE_NOISE, _BESIDE_LINE = 0.12, 1.6, (2, 3)
_MIN_BESIDE_LINE, _MANY_LINES = 0.1, 0.2
_ROUND = 0.94  # circularity of spheres, which may have twins or stripes; of square blocks 0.92
_LINE_REACH = 5  # pixels: half the length of a line, and what is beside it
# Fringes and moiré patterns are as wide dim as bright, in a convex outline; between rods, one of
# both is not so. The share of dim pixels, beyond so many pixels from the outline; the solidity.
_FRINGES, _WITHIN_EDGE, _WHOLE = 0.41, 2, 0.94
# If they are so many, and more than this share of the particles, the image is searched at twice its
# size: unless it is large, only those of more pixels are wanted, or most of several have more than
# so many. Coarse noise has specks, too, beside large particles.
_MANY_SMALL, _SHARE_OF_SMALL, _SMALL, _LARGE = 20, 0.2, 20, 80
_MIN_STEP = 0.2  # of the step of most of the particles' area: dirt is fainter
_MIN_RANGE = 0.08  # of the range of grey values: light and clouds have no such steps
_LITTLE = 0.05  # of the image, that particles cover: the range of grey values may not contain them
HALF, _SETTLED = 0.5, 0.7  # scale on which the polarity is settled, if it is so sure there
_STANDS_OUT = 6.0  # times the median deviation of the background: four standard deviations
# Contrast in standard deviations of as large parts of the background: the least of a particle, and
# of most of the particles' area. What the finder takes for particles in textures has 6 and less.
_MIN_CLARITY, _TYPICAL_CLARITY = 5.0, 8.0
# Of pixels of the whole image that look like particles: what is beside these has no texture of its
# own. Piles have 0.5 and more; with 0.3, two more of 400 empty fields have false ones.
_CROWDED = 0.4
# Of so few particles, most of the area is clearer, and its contrast, where the image's edge has
# none, this share of the range: holes, lights and clipped corners of empty fields have less.
FEW, _CLARITY_OF_FEW, _RANGE_OF_FEW = 5, 10.0, 0.16
# Likewise, the mean probability that its pixels are none of a particle, on the scale on which that
# is least: inside, and how much more along edges, for a particle of one pixel.
_UNSURE, _UNSURE_EDGE = 0.04, 0.6
_LINE = 5.0  # elongation of few that the image's edge cuts: scratches and fibres
_CONVEX = 0.9  # solidity


class Search(NamedTuple):
    """The polarity of an image's particles, how sure it is, and what was found of each."""

    known: Polarity
    confidence: float
    every: dict[Polarity, PolarityFound]

    @property
    def is_settled(self) -> bool:
        """Whether there are particles, and their polarity is sure enough."""
        return self.confidence >= _SETTLED and len(self.every[self.known].areas) > 0

    def without_labels(self) -> Search:
        """Return the same without label images, which of the largest images take 134 MB."""
        none = np.zeros((0, 0), np.int32)
        return self._replace(every={k: own._replace(labels=none) for k, own in self.every.items()})


class Scales:
    """An image on each scale, and what the finder takes for particles there.

    Large particles are seen whole on a smaller scale only, and grain is finer there. Grey values
    are scaled by their range, but by the `contrast` of particles, if that is more.
    """

    def __init__(
        self,
        grey: NDArray[np.float32],
        min_area: int,
        joiner: Joiner | None = None,
        contrast: float = 0.0,
    ) -> None:
        self.grey, self.min_area = grey, min_area
        self._images = dict[float, NDArray[np.float32]]()
        self._joiner = joiner or Joiner.pretrained()
        # Several tiles are computed in torch anyway. So are the smaller images of a large one here:
        # each may be one tile, and OpenVINO would keep the memory of the largest, 0.6 GB.
        self._network = finder_network()
        if max(grey.shape) > _TILE:
            self._network = self._network.run_by("torch")
        self._brightness = dict[float, tuple[float, float]]()
        for scale in _CERTAIN:
            middle, range_ = brightness_of(self._image(scale))
            self._brightness[scale] = middle, max(range_, contrast)
        self._seen = dict[tuple[Polarity, float], Joined]()
        # The last of these that was brought to the size of another scale.
        self._in_last_size = dict[tuple[Polarity, float, tuple[int, ...]], Joined]()
        self._doubt = dict[Polarity, Doubt]()  # of the whole image: its pieces, and further facts
        self._shown = dict[Polarity, dict[str, float]]()
        self._lumps = dict[Polarity, float]()  # the share of area in concave outlines
        # The probability of background, in 255 steps, on each scale.
        self._background = dict[tuple[Polarity, float], NDArray[np.uint8]]()
        # A pixel of each region that is too small for a particle.
        self._specks = dict[Polarity, NDArray[np.intp]]()

    def _image(self, scale: float) -> NDArray[np.float32]:
        if scale == 1:
            return self.grey
        if scale not in self._images:
            size = tuple(max(1, round(extent * scale)) for extent in self.grey.shape)
            larger = self._image(2 * scale)
            self._images[scale] = resize(larger, size, order=1, anti_aliasing=True)
        return self._images[scale]

    def in_own_contrast(self, polarity: Polarity, labels: LabelMap) -> Scales:
        """Return the same, scaled by the contrast of particles that cover too little for the range.

        Otherwise their blurred edges would look like particles, too.
        """
        if np.mean(labels > 0) > _LITTLE:
            return self
        edges = edges_of(self.grey, labels, 1 if polarity == "bright" else -1)
        steps = edges.contrasts.max(axis=1)
        steps = steps[~np.isnan(steps)]
        contrast = float(np.median(steps)) if len(steps) else 0.0
        is_in_range = contrast <= self._brightness[1][1]
        return self if is_in_range else Scales(self.grey, self.min_area, self._joiner, contrast)

    def found(self, polarity: Polarity, whole: float = 1.0) -> PolarityFound:
        """Return the particles of the image on one scale, of which smaller ones take part."""
        grey, sign = self._image(whole), 1 if polarity == "bright" else -1
        labels = self._labelled(polarity, whole)
        edges = edges_of(grey, labels, sign)
        known = edges.spreads[~np.isnan(edges.spreads)]
        if whole == 1 and len(known) and np.median(known) <= _FLAT:
            labels = _joined_without_necks(grey, labels, edges.steps, self._doubt[polarity])
            if labels.max(initial=0) < len(edges.steps):
                edges = edges_of(grey, labels, sign)
        if whole == 1:
            parts = _cut_at_lines(grey, labels, edges.steps, sign, self.min_area)
            if parts is not labels:
                labels, edges = parts, edges_of(grey, parts, sign)
        steps, at_edge = edges.steps, edges.at_edge
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
            some, texture = is_kept | in_corner, texture_of(grey, labels, sign)
            clarity[some] = (edges.contrasts[some] / texture(edges.areas[some])).max(axis=1)
        is_clear = is_kept & (clarity >= _MIN_CLARITY)
        if np.count_nonzero(is_clear) <= FEW:
            is_clear = self._clear_of_few(polarity, whole, labels, edges, clarity, is_clear)
        elif _median(clarity[is_clear], areas[is_clear]) < _TYPICAL_CLARITY and not (
            whole == 1 and np.mean(self._background[polarity, 1] < _EDGE) > _CROWDED
        ):
            # More than a few that are as clear are not of the texture of the others.
            is_clear &= clarity >= _CLARITY_OF_FEW
            is_clear &= steps * (1 - at_edge) >= _RANGE_OF_FEW * range_
            is_clear &= np.count_nonzero(is_clear) > FEW
        is_clear |= in_corner & (clarity >= _TYPICAL_CLARITY) & is_clear.any()
        labels = values_of(labels, numbers_of(np.concatenate([[False], is_clear])), labels)
        is_unclear = is_kept & ~is_clear
        if not is_clear.any():
            is_unclear |= is_large & (at_edge > _MAX_AT_EDGE) & (steps >= _MIN_RANGE * range_)
        n_unclear = int(np.count_nonzero(is_unclear))
        solid = solidities(labels)
        areas, steps = areas[is_clear], steps[is_clear]
        weights = areas * steps * solid**2  # gaps are less convex
        concave = float(1 - np.quantile(solid, 0.1)) if is_clear.any() else 0.0
        if whole == 1 and is_clear.any():
            faint = float(1 / np.quantile(clarity[is_clear], 0.1))
            self._shown[polarity] = {"concave": concave, "faint": faint}
            is_concave = solid < _CONVEX
            self._lumps[polarity] = float(areas @ is_concave / areas.sum())
        self._release_memory()
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
        grey, sign = self._image(whole), 1 if polarity == "bright" else -1
        places, areas = ndimage.find_objects(labels), areas_of(labels, len(clarity))[1:]
        least, shown = _RANGE_OF_FEW * self._brightness[whole][1], edges.steps * (1 - edges.at_edge)
        for number in np.flatnonzero(is_clear).tolist():
            inside = labels[places[number]] == number + 1
            is_line = elongations(distance_within(inside), inside.astype(np.int32))[0] > _LINE
            if edges.at_edge[number] and is_line:
                is_clear[number] = False
            # Spheres in transmission show more in their middles than at their edges.
            elif shown[number] < least and is_sphere(grey, labels, sign, number + 1):
                shown[number] = edges.contrasts[number, 1]
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

    def n_specks(self, polarity: Polarity, labels: LabelMap, mask: BoolMap) -> int:
        """Return how many regions are too small for particles, beside those that were found."""
        specks = self._specks.get(polarity, np.zeros(0, np.intp))
        return int(np.count_nonzero(mask.ravel()[specks] & (labels.ravel()[specks] == 0)))

    def facts(self, polarity: Polarity, labels: LabelMap, mask: BoolMap) -> dict[str, float]:
        """Return what is doubtful of some of the particles that were found; see `Doubt`."""
        likely = int(np.count_nonzero(mask & (self._background[polarity, 1] < _LIKELY)))
        doubt, seen = self._doubt[polarity].within(mask), self._shown[polarity]
        facts = doubt.facts(labels, self.min_area, likely, seen)
        return facts | {"lumps": float(are_lumps(facts, self._lumps[polarity]))}

    def searched(self, half: Search) -> Search:
        """Look for particles of all polarities of `half`; where that is sure enough, of one."""
        known, confidence, halves = half
        if half.is_settled:  # what is not needed any more takes 176 MB of the largest images
            self._seen = {key: each for key, each in self._seen.items() if key[0] == known}
            self._background = {k: each for k, each in self._background.items() if k[0] == known}
            self._images.clear()
        every = {known: self.found(known)}
        if len(halves) > 1 and not (half.is_settled and len(every[known].areas)):
            every[OPPOSITE[known]] = self.found(OPPOSITE[known])
            known, confidence = chosen_polarity(every, self.grey)
        return Search(known, confidence, every)

    def of_half_the_size(self, polarity: Literal["auto", "bright", "dark"]) -> Search:
        """Look for particles of a polarity, or of both, at half the size."""
        if polarity != "auto":
            return Search(polarity, 1.0, {polarity: self.found(polarity, HALF)})
        halves = {name: self.found(name, HALF) for name in OPPOSITE}
        half = self._image(HALF)
        known, confidence = chosen_polarity(halves, half)
        # What stands out on the other side may be particles too small to be found at half the size.
        grey = half[~grown(halves[known].labels > 0, 2)]
        if confidence >= _SETTLED and len(grey):
            beyond = (np.median(grey) - grey) * (1 if known == "bright" else -1)
            other = beyond[beyond > _STANDS_OUT * np.median(np.abs(beyond))].sum()
            own = halves[known].weights.sum()
            confidence = min(confidence, float(2 * own / (own + other) - 1))
        return Search(known, confidence, halves)

    def with_small(self, search: Search, mask: BoolMap) -> Polarity | None:
        """Return the polarity of particles of which many are too small to be found, if any is."""
        if self.min_area > _SMALL or max(self.grey.shape) > _TILE:
            return None
        is_open = search.confidence < SURE and len(search.every[search.known].areas) <= FEW
        numbers = {
            name: self.n_specks(name, own.labels, mask)
            for name, own in search.every.items()
            if name == search.known or is_open
        }
        most = max(numbers, key=lambda name: numbers[name])
        areas = search.every[most].areas
        are_large = len(areas) > FEW and np.median(areas) > _LARGE
        least = max(_MANY_SMALL, _SHARE_OF_SMALL * len(areas))
        return most if numbers[most] > least and not are_large else None

    def searched_after(self, polarity: Polarity, before: Search) -> Search:
        """Look for particles of one polarity, beside what was found in a smaller image."""
        every = dict(before.every)
        for name, own in every.items():
            every[name] = own._replace(labels=nearest(own.labels, self.grey.shape))
        every[polarity] = seen = self.found(polarity)
        if polarity == before.known and len(before.every[polarity].areas):
            return Search(polarity, before.confidence, every)
        n_others = len(every[OPPOSITE[polarity]].areas) if len(every) > 1 else 0
        return Search(polarity, 1 - n_others / max(len(seen.areas), n_others, 1), every)

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
        _complete_at_edges(labels, self._image(whole))
        _split_at_necks(labels)
        return labels

    def _in_size(self, polarity: Polarity, scale: float, size: tuple[int, ...]) -> Joined:
        """Return what is seen on a scale, in the size of another one."""
        self._release_memory()
        last = self._in_last_size.pop((polarity, scale, size), None)
        return last or self._seen[polarity, scale].in_size(size)

    def _release_memory(self) -> None:
        if max(self.grey.shape) > _TILE:  # of the largest images, it takes half a gigabyte
            release_memory()

    def _look(self, polarity: Polarity, scale: float) -> LabelMap:
        """Label what is seen on one scale; what a smaller one shows helps to join its parts."""
        if (polarity, scale) in self._seen:
            return self._seen[polarity, scale].particles()
        grey, least_area = self._image(scale), self._least_area(scale)
        if has_smaller := scale / 2 in _CERTAIN:
            self._look(polarity, scale / 2)
        with usual_torch():
            fields = self._network.fields(grey, _TILE, polarity == "dark", self._brightness[scale])
        limits = _EDGE, _CERTAIN[scale]
        parts = parts_of(fields, _SEPARATION, least_area, _MIN_PIECE, *limits)
        smaller = self._in_size(polarity, scale / 2, grey.shape) if has_smaller else None
        joined, doubt = self._joiner.join(parts, fields, smaller)
        if smaller is not None and max(grey.shape) <= _TILE:  # of larger ones, it takes 256 MB
            self._in_last_size = {(polarity, scale / 2, grey.shape): smaller}
        self._background[polarity, scale] = background = fields[0].copy()
        del smaller, fields  # of the largest images, they take half a gigabyte
        self._release_memory()
        # The whole image's are not needed as pieces: particles take their place.
        labels = joined.particles(None if scale < 1 else joined.pieces)
        labels = likely_parts(labels, background, least_area, *limits)
        if scale < 1:
            # What is no brighter than its surroundings must not take the place of what lies on it.
            steps = edges_of(grey, labels, 1 if polarity == "bright" else -1).steps
            labels = values_of(labels, numbers_of(np.concatenate([[False], steps > 0])), labels)
            self._seen[polarity, scale] = joined.within(labels)
            return labels
        self._doubt[polarity] = doubt
        pieces, n = ndimage.label(background < _EDGE, EIGHT)
        areas = areas_of(pieces, n)
        is_small = (areas >= _MIN_PIECE) & (areas < least_area)
        is_speck: BoolMap = values_of(pieces, is_small, np.empty(pieces.shape, bool))
        is_speck &= background < _SURELY
        at = np.flatnonzero(is_speck)
        self._specks[polarity] = at[np.unique(pieces.ravel()[at], return_index=True)[1]]
        return labels


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


def _complete_at_edges(labels: LabelMap, grey: NDArray[np.float32]) -> None:
    """Give particles at edges of the image, in place, what is like them within their hulls.

    The network takes the middle of a large one, where nothing shows that it is one, for background.
    """
    at_edge = np.unique(np.concatenate([labels[[0, -1]].ravel(), labels[:, [0, -1]].ravel()]))
    windows = ndimage.find_objects(labels) if at_edge.any() else []
    for number in at_edge[at_edge > 0].tolist():
        # What is around it tells the background. Larger windows take too much memory.
        longest = max(side.stop - side.start for side in windows[number - 1])
        window = grown_window(windows[number - 1], longest // 4 + _SMOOTH)
        inside, is_free = labels[window] == number, labels[window] == 0
        area = np.count_nonzero(inside)
        if inside.size > min(_TILE**2, _MAX_EMPTY * area):
            continue
        hull = convex_hull(inside)
        around, missing = is_free & ~hull, is_free & hull
        if np.count_nonzero(missing) < _MIN_MISSING * area or not around.any():
            continue
        smooth = ndimage.uniform_filter(grey[window], _SMOOTH)
        own, beyond = np.median(smooth[inside]), np.median(smooth[around])
        missing &= np.abs(smooth - own) <= _LIKE_PARTICLE * abs(own - beyond)
        pieces = ndimage.label(inside | missing)[0]
        more = np.isin(pieces, np.unique(pieces[inside])) & missing  # those that touch it
        if np.count_nonzero(more) >= _MIN_MISSING * area:
            labels[window][more] = number


def _split_at_necks(labels: LabelMap) -> None:
    """Separate, in place, what is apart, and particles of which the outline shows the overlap."""
    before, new = int(labels.max(initial=0)), [np.zeros(0, np.int32)]  # the particles they are of
    for some in side_by_side(labels, _BESIDE_NECKS):
        pieces = ndimage.label(some.own(labels), EIGHT)[0]
        of_piece, _ = some.parts(pieces)
        inside = (pieces > 0) & ~_not_first(of_piece)[pieces]
        distance = distance_within(inside)
        parts = separate_at_necks(inside, _NECK, distance)
        of_part, areas = some.parts(parts)
        least, longest = np.full(len(some.numbers), np.inf), np.zeros(len(some.numbers))
        np.minimum.at(least, of_part, areas)
        np.maximum.at(longest, of_part, elongations(distance, parts))
        is_cut = (least >= _MIN_PART * some.counts(inside)) & (longest <= _MAX_LONG)
        for own, of, is_new in (
            (pieces, of_piece, _not_first(of_piece)),
            (parts, of_part, _not_first(of_part) & np.append(False, is_cut[of_part])),
        ):
            new_numbers = numbers_of(is_new)
            new_numbers[is_new] += before + sum(map(len, new))
            some.put(labels, is_new[own], new_numbers[own])
            new.append(some.numbers[of[is_new[1:]]])
    order = np.argsort(np.concatenate(new), kind="stable")  # not by the heights of windows
    numbers = np.arange(before + 1 + len(order))
    numbers[before + 1 + order] = numbers[before + 1 :].copy()
    values_of(labels, numbers, labels)


def _not_first(regions: NDArray[np.intp]) -> BoolMap:
    """Return which of labels 0 to n are parts of a region, of n given ones, but not its first."""
    is_later = np.ones(len(regions) + 1, bool)
    is_later[np.append(0, np.unique(regions, return_index=True)[1] + 1)] = False
    return is_later


def _cut_at_lines(
    grey: NDArray[np.float32], labels: LabelMap, steps: NDArray[np.float64], sign: int, least: int
) -> LabelMap:
    """Return particles cut at lines across, as between rods side by side, if these are many.

    Otherwise, what was given. Parts have the `least` area.
    """
    noise = _LINE_NOISE * pixel_noise(grey[middle(grey.shape, _PART)])
    limits = np.append(np.inf, np.maximum(_LINE_DEPTH * steps, noise)).astype(np.float32)
    is_line = np.zeros(labels.shape, bool)
    for top in range(0, len(labels), _ROWS):
        own, first = slice(top, top + _ROWS), max(0, top - _LINE_REACH)
        depths = _line_depths(sign * grey[first : top + _ROWS + _LINE_REACH])[top - first :]
        is_line[own] = depths[:_ROWS] >= limits[labels[own]]
    cut, n = labels, len(steps)
    for number, window in enumerate(ndimage.find_objects(labels), start=1):
        inside = labels[window] == number
        if not (inside & is_line[window]).any():
            continue
        pieces, n_pieces = ndimage.label(inside & ~is_line[window])
        is_part = areas_of(pieces, n_pieces) >= max(least, _MIN_BESIDE_LINE * inside.sum())
        is_part[0] = False
        n_parts = int(np.count_nonzero(is_part))
        if n_parts < 2 or shape_measures(inside)[2] > _ROUND:
            continue
        parts = expand_labels(numbers_of(is_part)[pieces], max(inside.shape)) * inside
        if (solidities(parts) >= _CONVEX).all() and not _has_fringes(  # textures are not convex
            sign * grey[window], inside, is_line[window]
        ):
            cut = labels.copy() if cut is labels else cut
            cut[window][parts > 1] = n + parts[parts > 1] - 1
            n += n_parts - 1
    return cut if n - len(steps) > max(FEW, _MANY_LINES * len(steps)) else labels


def _has_fringes(grey: NDArray[np.float32], inside: BoolMap, is_line: BoolMap) -> bool:
    """Return whether lines of a bright particle are its own fringes, rather than gaps."""
    core = shrunk(inside, _WITHIN_EDGE)
    if not (core & is_line).any() or solidities(inside.astype(np.int32))[0] < _WHOLE:
        return False
    smooth = ndimage.uniform_filter(grey, 3)
    middle_grey = (np.median(smooth[core & is_line]) + np.quantile(smooth[core], 0.8)) / 2
    return bool(np.mean(smooth[core] < middle_grey) > _FRINGES)


def _line_depths(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return how far below both sides lines of five pixels through each pixel are, at most."""
    depths = np.zeros(grey.shape, np.float32)
    padded, inner = np.pad(grey, _LINE_REACH, mode="edge"), np.s_[_LINE_REACH:-_LINE_REACH]
    for down, across in ((0, 1), (1, 0), (1, 1), (1, -1)):
        along = (np.roll(padded, (-k * across, k * down), (0, 1)) for k in range(-2, 3))
        line = sum(along, np.float32(0)) / 5
        for d in _BESIDE_LINE:
            shifts = ((d * down, d * across), (-d * down, -d * across))
            beside = np.minimum(*(np.roll(line, each, (0, 1)) for each in shifts)) - line
            np.maximum(depths, beside[inner, inner], out=depths)
    return depths


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
