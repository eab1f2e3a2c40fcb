"""Near copies among many images: candidates from keypoints, confirmed in the pixels."""

# Keypoints and registration are ours: SIFT or ORB of scikit-image with RANSAC found half of the
# copies among lattices in several times the time (docs/explanation/decisions.md).

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from hypervlad.data.folders.keypoints import candidate_pairs, find_keypoints
from hypervlad.data.folders.registration import Registration, Transformation, register
from hypervlad.evaluation.splits import linked_groups

Thumbnail = NDArray[np.int8]
Progress = Callable[[int], object]

_SIDE = 160
_STRETCH = 1 / np.sqrt(8), np.sqrt(8)
_QUANTUM = 24.0
_SMOOTH, _LOCAL = 0.8, 13.0
# A frame: the largest part of a side, differences of its level as a part of the image's range, and
# shares of a row that have this level, within it and beyond its edge.
_MAX_FRAME, _FRAME_TOLERANCE = 0.2, 0.05
_FLAT, _EDGE_SHARE = 0.95, 0.5

#: Lowest similarity of a pair that counts as near copies.
MIN_SIMILARITY = 0.8
# Images of one lattice reach 0.1, copies 0.65.
_MIN_DISTINCTNESS = 0.6
# Pairs above it need no support by other copies of the two images.
_STRONG = 0.9
_N_WITNESSES = 5


def find_near_copies(
    thumbnails: Sequence[Thumbnail],
    *,
    min_similarity: float = MIN_SIMILARITY,
    folders: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> tuple[NDArray[np.intp], NDArray[np.float32], NDArray[np.float32]]:
    """Find pairs of images that show the same part of the same specimen.

    Candidates are pairs in which keypoints agree on a transformation. A pair is registered, and
    counts if the overlap is similar, and no other shift is nearly as good, as it is for two images
    of one crystal lattice. A pair below 0.9 is dropped if other copies of the two images contradict
    it, so that doubtful pairs do not chain sets of copies together.

    With `folders`, only pairs across these are looked for. Returned are the sorted pairs ``i < j``,
    shape (n_pairs, 2), their similarities from 0 to 1, and overlaps: the part of the smaller view
    that both show.
    """
    finder = _Finder(thumbnails, min_similarity)
    points = [find_keypoints(thumbnail) for thumbnail in thumbnails]
    for candidates in candidate_pairs(points, folders):
        for candidate in candidates:
            finder.compare((candidate.first, candidate.second), candidate.transformation)
        if progress is not None:
            progress(1)
    found = {pair: match for pair, match in finder.confirmed.items() if finder.supported(pair)}
    pairs = np.array(sorted(found), dtype=np.intp).reshape(-1, 2)
    similarity = [found[pair].similarity for pair in sorted(found)]
    overlap = [finder.overlap(*pair) for pair in sorted(found)]
    return pairs, np.array(similarity, dtype=np.float32), np.array(overlap, dtype=np.float32)


class _Finder:
    def __init__(self, thumbnails: Sequence[Thumbnail], min_similarity: float) -> None:
        self.thumbnails = thumbnails
        self.min_similarity = min_similarity
        self.confirmed: dict[tuple[int, int], Registration] = {}

    def compare(self, pair: tuple[int, int], start: Transformation) -> None:
        """Confirm a pair, if its thumbnails agree near an estimated transformation."""
        match = None if pair in self.confirmed else self._match(pair, start)
        if match is not None:
            self.confirmed[pair] = match

    def supported(self, pair: tuple[int, int]) -> bool:
        """Return whether a confirmed pair is strong, or not contradicted by other strong ones."""
        match = self.confirmed[pair]
        if match.similarity >= _STRONG:
            return True
        a, b = pair
        there = match.transformation
        verdicts = []
        for end, other, across in ((a, b, there), (b, a, there.inverse())):
            witnesses = [(c, path) for c, path in self._strong_copies(end) if c != other]
            for witness, path in witnesses[:_N_WITNESSES]:
                start = path.then(across)
                if self._share(witness, other, start) >= 0.25:
                    verdicts.append(self._match((witness, other), start) is not None)
        return 2 * sum(verdicts) >= len(verdicts)

    def _match(self, pair: tuple[int, int], start: Transformation) -> Registration | None:
        first, second = (self.thumbnails[i].astype(np.float32) for i in pair)
        match = register(first, second, start)
        if (
            match is None
            or match.similarity < self.min_similarity
            or match.distinctness < _MIN_DISTINCTNESS
        ):
            return None
        return match

    def _strong_copies(self, image: int) -> list[tuple[int, Transformation]]:
        """Return the sure copies of an image, and how each is transformed to it."""
        return [
            (i + j - image, match.transformation if j == image else match.transformation.inverse())
            for (i, j), match in self.confirmed.items()
            if image in (i, j) and match.similarity >= _STRONG
        ]

    def overlap(self, first: int, second: int) -> float:
        """Return the part of the smaller view that a confirmed pair has in common."""
        there = self.confirmed[first, second].transformation
        back = there.inverse()
        return max(self._share(first, second, there), self._share(second, first, back))

    def _share(self, first: int, second: int, transformation: Transformation) -> float:
        """Return which part of the first thumbnail lies in the second."""
        extents = [np.linspace(0, extent - 1, 33) for extent in self.thumbnails[first].shape]
        points = np.stack(np.meshgrid(*extents, indexing="ij"), axis=-1).reshape(-1, 2)
        places = points @ transformation.matrix.T + transformation.offset
        # Copies of the same frame may be registered to within a pixel.
        inside = (places >= -1) & (places <= np.array(self.thumbnails[second].shape))
        return float(inside.all(axis=1).mean())


def group_copies(pairs: NDArray[np.intp], n_images: int) -> list[list[int]]:
    """Return the sets of images that chains of pairs connect, sorted by their first image."""
    if len(pairs) == 0:
        return []
    member_of = linked_groups(pairs, n_images)
    sets: dict[int, list[int]] = {}
    for i in np.unique(pairs):
        sets.setdefault(int(member_of[i]), []).append(int(i))
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
    small = gaussian_filter(small, _SMOOTH, mode="nearest")
    detail = small - gaussian_filter(small, _LOCAL, mode="nearest")
    spread = np.sqrt(gaussian_filter(detail * detail, _LOCAL, mode="nearest"))
    # The second term keeps the noise of an empty area from becoming as strong as an object.
    normal: NDArray[np.floating] = detail / (spread + 0.2 * detail.std() + 1e-5)
    return np.clip(np.round(normal * _QUANTUM), -127, 127).astype(np.int8)


def _without_frame(grey: NDArray[np.floating]) -> NDArray[np.floating]:
    """Cut off frames of one level, such as a black one, and bars with a caption."""
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
