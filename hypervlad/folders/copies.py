"""Near copies among many images: candidates from keypoints, confirmed in the pixels."""

# Keypoints and registration are ours: SIFT or ORB of scikit-image with RANSAC found half of the
# copies among lattices in several times the time (docs/explanation/decisions.md).

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from scipy.ndimage import maximum_filter

from hypervlad.folders.registration import Registration, Transformation, register
from hypervlad.images.resampling import smoothed
from hypervlad.statistics.splits import linked_groups

Thumbnail = NDArray[np.int8]
FloatMap = NDArray[np.float32]
IntArray = NDArray[np.intp]

_SIDE = 160
_STRETCH = 1 / np.sqrt(8), np.sqrt(8)
_QUANTUM = 24.0
_SMOOTH, _LOCAL = 0.8, 13.0
# A frame: the largest part of a side, differences of its level as a part of the image's range, and
# shares of a row that have this level, within it and beyond its edge.
_MAX_FRAME, _FRAME_TOLERANCE = 0.2, 0.05
_FLAT, _EDGE_SHARE = 0.95, 0.5


def find_near_copies(
    thumbnails: Sequence[Thumbnail],
    folders: ArrayLike,
    progress: Callable[[int], object],
) -> tuple[NDArray[np.intp], NDArray[np.float32], NDArray[np.float32]]:
    """Find pairs of images that show the same part of the same specimen.

    A pair in which keypoints agree on a transformation is registered, and counts if the overlap is
    similar and no other shift is nearly as good, as it is for two images of one crystal lattice.
    Only pairs across `folders`, (n,), are looked for.

    Returned are the sorted pairs ``i < j``, (n_pairs, 2), their similarities from 0 to 1, and
    overlaps: the part of the smaller view that both show.
    """
    points = [find_keypoints(thumbnail) for thumbnail in thumbnails]
    table = _Table(points, folders)
    found: dict[tuple[int, int], Registration] = {}
    for i in range(len(points)):
        for candidate in table.candidates(i):
            pair = candidate.first, candidate.second
            first, second = (thumbnails[k].astype(np.float32) for k in pair)
            match = None if pair in found else register(first, second, candidate.transformation)
            if match is not None and match.is_copy:
                found[pair] = match
        progress(1)
    pairs = np.array(sorted(found), dtype=np.intp).reshape(-1, 2)
    similarity = [found[pair].similarity for pair in sorted(found)]
    shapes = [thumbnail.shape for thumbnail in thumbnails]
    overlap = [_overlap(shapes[i], shapes[j], found[i, j].transformation) for i, j in sorted(found)]
    return pairs, np.array(similarity, dtype=np.float32), np.array(overlap, dtype=np.float32)


def _overlap(first: tuple[int, ...], second: tuple[int, ...], there: Transformation) -> float:
    """Return the part of the smaller of two thumbnails that lies in the other one."""
    ways = (first, second, there), (second, first, there.inverse())
    return max(_share(*way) for way in ways)


def _share(own: tuple[int, ...], other: tuple[int, ...], there: Transformation) -> float:
    extents = [np.linspace(0, extent - 1, 33) for extent in own]
    points = np.stack(np.meshgrid(*extents, indexing="ij"), axis=-1).reshape(-1, 2)
    places = points @ there.matrix.T + there.offset
    # Copies of the same frame may be registered to within a pixel.
    inside = (places >= -1) & (places <= np.array(other))
    return float(inside.all(axis=1).mean())


def group_copies(pairs: NDArray[np.intp], n_images: int) -> list[list[int]]:
    member_of = linked_groups(pairs, n_images).tolist()
    sets = defaultdict[int, list[int]](list)
    for i in np.unique(pairs).tolist():
        sets[member_of[i]].append(i)
    return sorted(sets.values())


def make_thumbnail(pixels: NDArray[np.float32]) -> Thumbnail:
    """Resize an image to the area of 160 x 160 and remove local brightness and contrast.

    Frames and bars with a caption are cut off first. Proportions stay, up to 8 : 1.
    """
    grey = _without_frame(pixels if pixels.ndim == 2 else pixels.mean(axis=2))
    stretch = float(np.clip(np.sqrt(grey.shape[1] / grey.shape[0]), *_STRETCH))
    size = round(_SIDE * stretch), round(_SIDE / stretch)
    image = Image.fromarray(np.ascontiguousarray(grey, dtype=np.float32))
    small = np.asarray(image.resize(size, Image.Resampling.BILINEAR))
    # Detail that half a pixel of shift would change does not help.
    small = smoothed(small, _SMOOTH, mode="edge")
    detail = small - smoothed(small, _LOCAL, mode="edge")
    spread = np.sqrt(smoothed(detail * detail, _LOCAL, mode="edge"))
    # The second term keeps the noise of an empty area from becoming as strong as an object.
    normal: NDArray[np.floating] = detail / (spread + 0.2 * detail.std() + 1e-5)
    return np.clip(np.round(normal * _QUANTUM), -127, 127).astype(np.int8)


def _without_frame(grey: NDArray[np.floating]) -> NDArray[np.floating]:
    tolerance = _FRAME_TOLERANCE * float(np.ptp(grey))
    for _ in range(2):  # a frame may lie in another
        for _ in range(4):
            grey = np.rot90(grey[_frame_height(grey, tolerance) :])
    return grey


def _frame_height(grey: NDArray[np.floating], tolerance: float) -> int:
    """Return how many rows at the top are a frame: of one level, up to a straight edge."""
    level = np.median(grey[0])
    if (np.abs(grey[0] - level) <= tolerance).mean() < _FLAT:
        return 0
    # Compression and resizing blur the edge a little; a background ends more slowly.
    blur = min(8, len(grey) // 32 + 1)
    band = grey[: int(_MAX_FRAME * len(grey)) + blur]
    flat = (np.abs(band - level) <= tolerance).mean(axis=1)
    edge = int(np.argmax(flat < _EDGE_SHARE))  # 0 if there is none
    before, beyond = flat[max(edge - blur, 0) : edge], flat[edge : edge + blur + 1]
    if edge == 0 or before.max() < _FLAT or beyond[-1] >= _EDGE_SHARE:
        return 0
    return edge + 2


# --- candidates: keypoints that shifts, crops, turns and reflections hardly change ---------------

# A keypoint of the fine level, the thumbnail, is compared with those of the coarse level too: an
# image cropped to three quarters shows its content larger in a thumbnail of the same area.
_LEVELS = (0.75, 1.0)
# The strongest keypoints of each of 3 x 3 cells, so that every part of an image has some.
_N_CELLS, _PER_CELL = 3, 4
_N_KEYPOINTS = _PER_CELL * _N_CELLS**2
_MAX_POINTS = _N_KEYPOINTS * len(_LEVELS)
_BORDER, _SPACING, _MIN_RESPONSE = 8, 7, 1.0
_BLOB = 1.2, 2.5  # standard deviations whose difference responds to spots and corners
# The patch of a keypoint: 7 x 7 points, 3 pixels apart.
_REACH, _STEP = 3, 3
_PATCH_SIDE = 2 * _REACH + 1
_N_NEIGHBOURS = 5  # most similar images to each keypoint
_MIN_COSINE = 0.75
_MIN_VOTES = 3
_BIN = 24.0  # pixels within which keypoints must agree where the image's centre lies
_N_CANDIDATES = 6
_MAX_MAGNIFICATION = 1.35  # beyond that of the levels


# The four turns of a square, then its four reflections.
_TURNS = [np.linalg.matrix_power(np.array([[0.0, 1.0], [-1.0, 0.0]]), k) for k in range(4)]
_SYMMETRIES = np.stack([*_TURNS, *(np.diag([1.0, -1.0]) @ turn for turn in _TURNS)])
_GRID = np.stack(np.meshgrid(*[np.arange(-_REACH, _REACH + 1)] * 2, indexing="ij"), axis=-1)
_GRID = _GRID.reshape(-1, 2)
# Point p of a patch moved by a symmetry S has the value of the point S^-1 p.
_MOVED_FROM = np.rint((_GRID @ _SYMMETRIES + _REACH) @ np.array([_PATCH_SIDE, 1])).astype(np.intp)
_WEIGHT = np.exp(-(_GRID**2).sum(axis=1) / (2 * (0.75 * _REACH) ** 2)).astype(np.float32)


def _template() -> FloatMap:
    """Return a smooth pattern without symmetry: patches are moved to resemble it most."""
    row, column = _GRID.T / (_REACH + 1)
    pattern: NDArray[np.floating] = row + 0.45 * column + 1.2 * row * column * (row - 0.6)
    pattern = (pattern + 0.8 * (row**2 - column**2) * column) * _WEIGHT
    return pattern.astype(np.float32)


_TEMPLATE = _template()


@dataclass(frozen=True)
class Keypoints:
    """Distinct places of a thumbnail, first those of the coarse level."""

    centre: NDArray[np.float64]  # of the thumbnail, in pixels, row first
    positions: FloatMap  # (n, 2), in pixels
    n_coarse: int
    symmetries: IntArray  # (2, n): the best two, because noise may decide between them
    descriptors: FloatMap  # (2, n, 49): the patch after either, as a unit vector


@dataclass(frozen=True)
class Candidate:
    first: int
    second: int
    transformation: Transformation


def find_keypoints(thumbnail: NDArray[np.int8]) -> Keypoints:
    """Find and describe spots and corners of a thumbnail, at most 36 on each of two levels.

    A descriptor is the neighbourhood of a keypoint, moved by the turn or reflection that makes it
    most like a fixed pattern without symmetry: it is the same in a mirrored or turned image.
    """
    found = [_keypoints_of_level(thumbnail.astype(np.float32), scale) for scale in _LEVELS]
    return Keypoints(
        (np.array(thumbnail.shape) - 1) / 2,
        np.concatenate([positions for positions, _, _ in found]),
        len(found[0][0]),
        np.concatenate([symmetries for _, symmetries, _ in found], axis=1),
        np.concatenate([descriptors for _, _, descriptors in found], axis=1),
    )


def _keypoints_of_level(thumbnail: FloatMap, scale: float) -> tuple[FloatMap, IntArray, FloatMap]:
    height, width = (round(extent * scale) for extent in thumbnail.shape)
    image = Image.fromarray(thumbnail)
    level = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    fine, coarse = (smoothed(level, deviation) for deviation in _BLOB)
    points = _strongest(np.abs(fine - coarse))
    reach = _REACH * _STEP
    rows, columns = (points[:, None] + reach + _STEP * _GRID).transpose(2, 0, 1)
    patches = np.pad(fine, reach, mode="symmetric")[rows, columns]
    patches -= (patches @ _WEIGHT / _WEIGHT.sum())[:, None]
    patches *= np.sqrt(_WEIGHT)
    patches /= np.maximum(np.linalg.norm(patches, axis=1, keepdims=True), 1e-6)
    likeness = patches @ _TEMPLATE[np.argsort(_MOVED_FROM, axis=1)].T
    symmetries = np.argsort(-likeness, axis=1, kind="stable")[:, :2].T
    descriptors = np.take_along_axis(patches[None], _MOVED_FROM[symmetries], axis=2)
    ratio = np.array(thumbnail.shape) / np.array(level.shape)
    positions = (points + 0.5) * ratio - 0.5
    return positions.astype(np.float32), symmetries, descriptors


def _strongest(response: FloatMap) -> IntArray:
    """Return the highest maxima (row, column) of each cell, none near the edges."""
    peaks = (maximum_filter(response, _SPACING) == response) & (response > _MIN_RESPONSE)
    inner = np.zeros_like(peaks)
    inner[_BORDER:-_BORDER, _BORDER:-_BORDER] = True
    points = np.argwhere(peaks & inner)
    cells = (points * _N_CELLS // response.shape) @ np.array([_N_CELLS, 1])
    order = np.lexsort((-response[tuple(points.T)], cells))
    rank = np.arange(len(order)) - np.searchsorted(cells[order], cells[order])
    return np.asarray(points[order[rank < _PER_CELL]])


class _Table:
    """Coarse keypoints of all images, among which those of each image are looked for."""

    def __init__(self, keypoints: Sequence[Keypoints], folders: ArrayLike) -> None:
        self.keypoints = keypoints
        self.folders = np.asarray(folders)
        n = len(keypoints)
        descriptors = np.zeros((_N_KEYPOINTS, n, len(_GRID)), np.float32)
        self.positions = np.zeros((_N_KEYPOINTS, n, 2))
        self.symmetries = np.zeros((_N_KEYPOINTS, n), np.intp)
        for i, points in enumerate(keypoints):
            k = points.n_coarse
            descriptors[:k, i] = points.descriptors[0, :k]
            self.positions[:k, i] = points.positions[:k]
            self.symmetries[:k, i] = points.symmetries[0, :k]
        self.descriptors = np.ascontiguousarray(descriptors.reshape(-1, len(_GRID)).T)
        self.cosines = np.empty((4 * _N_KEYPOINTS, _N_KEYPOINTS * n), np.float32)

    def candidates(self, i: int) -> list[Candidate]:
        """Return up to six pairs of an image with likely copies, the best first.

        Each keypoint votes for each of the five images (of other folders) that have the most
        similar coarse keypoints: for the turn or reflection and the shift that brings both
        together.
        """
        points = self.keypoints[i]
        queries = points.descriptors.reshape(-1, len(_GRID))
        n_images = len(self.keypoints)
        if len(queries) == 0 or n_images < 2:
            return []
        cosines = np.matmul(queries, self.descriptors, out=self.cosines[: len(queries)])
        cosines = cosines.reshape(len(queries), _N_KEYPOINTS, n_images)
        best = cosines.max(axis=1)
        best[:, self.folders == self.folders[i]] = -1
        n_nearest = min(_N_NEIGHBOURS, n_images - 1)
        nearest = np.argpartition(-best, n_nearest - 1, axis=1)[:, :n_nearest]
        query, rank = np.nonzero(np.take_along_axis(best, nearest, axis=1) > _MIN_COSINE)
        image = nearest[query, rank]
        spot = cosines[query, :, image].argmax(axis=1)
        own = query % len(points.positions)
        # S_i (patch of i) = S_j (patch of j), so that S_j^-1 S_i brings one to the other.
        towards = _SYMMETRIES[points.symmetries.reshape(-1)[query]]
        back = _SYMMETRIES[self.symmetries[spot, image]].transpose(0, 2, 1)
        scale = np.where(own < points.n_coarse, 1, _LEVELS[1] / _LEVELS[0])
        votes = _Votes(
            image,
            own,
            back @ towards * scale[:, None, None],
            points.positions[own].astype(np.float64),
            self.positions[spot, image],
            best[query, image] - 0.5,
        )
        return [
            Candidate(i, j, found) if i < j else Candidate(j, i, found.inverse())
            for j, found in votes.winners(points.centre)
        ]


@dataclass(frozen=True)
class _Votes:
    image: IntArray
    own: IntArray
    matrices: NDArray[np.float64]
    places: NDArray[np.float64]
    goals: NDArray[np.float64]
    weights: FloatMap

    def winners(self, centre: NDArray[np.float64]) -> list[tuple[int, Transformation]]:
        """Return the images on whose transformation most keypoints agree, the best first."""
        moved = np.einsum("nij,nj->ni", self.matrices, centre - self.places)
        landing = (self.goals + moved) / _BIN
        # Matrices differ in one entry at least; four grids, lest a bin's edge separates votes.
        shapes = np.rint(self.matrices.reshape(-1, 4) * 4).astype(np.intp)
        grids = np.array([[0, 0], [0, 0.5], [0.5, 0], [0.5, 0.5]])
        bins = np.floor(landing[None] + grids[:, None]).astype(np.intp)
        # One number for all: entries of matrices are within 8, places within 128 bins.
        bases = 16 ** np.arange(3, -1, -1)
        common = self.image * 16**4 + (shapes + 8) @ bases
        keys = ((common * 256 + bins[..., 0] + 128) * 256 + bins[..., 1] + 128) * 4
        _, group = np.unique(keys + np.arange(4)[:, None], return_inverse=True)
        group = group.reshape(-1)
        total = np.bincount(group, weights=np.tile(self.weights, 4))
        # How many keypoints of the image vote for each.
        voters = np.unique(group * _MAX_POINTS + np.tile(self.own, 4)) // _MAX_POINTS
        enough = np.flatnonzero(np.bincount(voters, minlength=len(total)) >= _MIN_VOTES)
        found: dict[int, Transformation] = {}
        for g in enough[np.argsort(-total[enough], kind="stable")]:
            agreeing = np.flatnonzero(group == g) % len(self.image)
            image = int(self.image[agreeing[0]])
            if image not in found:
                found[image] = self._fit(agreeing)
                if len(found) == _N_CANDIDATES:
                    break
        return list(found.items())

    def _fit(self, agreeing: IntArray) -> Transformation:
        matrix = self.matrices[agreeing[0]]
        place, goal = self.places[agreeing].mean(axis=0), self.goals[agreeing].mean(axis=0)
        turned = (self.places[agreeing] - place) @ matrix.T
        square = float((turned**2).sum())
        magnification = 1.0
        if square > _BIN**2:  # closer keypoints determine no magnification
            product = float((turned * (self.goals[agreeing] - goal)).sum())
            bounds = 1 / _MAX_MAGNIFICATION, _MAX_MAGNIFICATION
            magnification = float(np.clip(product / square, *bounds))
        matrix = matrix * magnification
        return Transformation(matrix, goal - matrix @ place)
