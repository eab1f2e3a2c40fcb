"""By how much numbers and sizes of found particles may be wrong, and which of them are doubtful."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from hypervlad.images.resampling import areas_of
from hypervlad.objects.detection import FindingRange
from hypervlad.objects.particle import Outlines
from hypervlad.objects.splitting import borders_of
from hypervlad.objects.windows import BoolMap, LabelMap

if TYPE_CHECKING:
    import pandas as pd

_LEAST_SHARE = 0.05  # of a particle's area, of pieces that may be particles of their own
# From how few to how many particles there may be, to be mentioned: by joins alone, as a difference
# of logarithms, and by all facts, as a factor.
_MAX_OF_JOINS, _MAX_OF_ALL = 0.15, 3.0
# By how much logarithms of true over found numbers and sizes may be lower, and higher, within 95 %,
# for one more of each fact: by `python -m benchmarks.particles.train_doubt`.
_WIDTHS: dict[str, tuple[float, float, float, float]] = {
    "split": (0.99, 0, 0, 0.18),
    "joined": (0, 0.25, 0.19, 0),
    "unclaimed": (0, 0.12, 0, 0.21),
    "outside": (0, 0.86, 0.3, 0.02),
    "touching": (0.86, 0.33, 0.9, 0),
    "concave": (1.97, 0, 0.07, 2.29),
    "faint": (1.52, 0.19, 0.63, 0),
    "unsure": (0, 3.4, 2.45, 0),
    # Not learnt: of faint spots, regions without outline, soft edges, shells, fringes, pairs, and
    # numbers and sizes of the other polarity logarithms themselves; of lumps whether they are some,
    # as of drawn agglomerates of overlapping spheres, which have 1 to 30 times the number.
    "missed": (0, 1, 0, 0),
    "bare": (0, 1, 0, 0),
    "soft": (0, 0, 0, 1),
    "shell": (0, 0, 0, 1),
    "fringe": (0, 0, 1, 0),
    "fewer": (1, 0, 0, 0),
    "more": (0, 1, 0, 0),
    "smaller": (0, 0, 1, 0),
    "larger": (0, 0, 0, 1),
    "lumps": (0, 2.4, 0.7, 0),
    "paired": (0, 0, 0, 0.5),  # the number is in "split"
}
# The area in concave outlines, of all; and how many times fewer or more particles there are by how
# pieces are joined, as a logarithm.
_CONCAVE_AREA, _DIVIDED = 0.3, 0.9
# Of particles that touch exactly one other, as halves of dumbbells do: so many pairs, and more than
# such a share of all, which agglomerates do not have by chance.
_MIN_PAIRS, _MOSTLY = 3, 0.6
#: What is doubtful of an image, in words where it is the main reason.
FACTS = dict.fromkeys(("split", "joined"), "it is uncertain which pieces are one particle")
FACTS |= dict.fromkeys(("unclaimed", "outside"), "more looks like particles than was outlined")
FACTS |= {
    "touching": "many touch each other",
    "concave": "outlines are not convex",
    "faint": "some are faint beside the texture",
    "unsure": "their edges are uncertain",
}
_WORDS = FACTS | {
    "missed": "faint spots have no outline",
    "bare": "regions as strong as particles have no outline",
    **dict.fromkeys(("fewer", "more"), "either the bright or the dark regions may be particles"),
    "lumps": "outlines are those of lumps, whose parts cannot be told apart",
}

# How much a lack of solidity counts, beside the logarithm of the area by the median of the image:
# chosen from 2, 4 and 8 in 40 drawn fields, where the network's own background told no more.
_OF_SOLIDITY = 8.0


@dataclass(frozen=True, eq=False)
class Doubt:
    """The n pieces of a field that sure joins leave, and which may be one particle."""

    pixels: NDArray[np.int64]  # the index of the deepest pixel of each piece
    areas: NDArray[np.float64]  # in pixels
    background: NDArray[np.float64]  # the mean probability that its pixels are none of a particle
    possible: NDArray[np.int64]  # as of `Joined`

    def within(self, mask: BoolMap) -> Doubt:
        """Return the pieces that are not left out."""
        own = mask.ravel()[self.pixels]
        areas, background = self.areas[own], self.background[own]
        return Doubt(self.pixels[own], areas, background, self.possible[own])

    def between(self, particles: LabelMap, min_area: int) -> tuple[int, int]:
        """Return how few and how many particles there may be, by how pieces are joined.

        Pieces of fewer pixels than `min_area`, or than a twentieth of their particle, as those of a
        texture, do not count; particles that were found otherwise than of pieces count once.
        """
        n = int(particles.max(initial=0))
        own, areas = particles.ravel()[self.pixels], areas_of(particles, n)
        covered = np.bincount(own, self.areas, n + 1)
        is_known = (own > 0) & (covered > areas / 2)[own]
        # Particles, and possible ones, that have a piece in common.
        ends = own[is_known] - 1, n + self.possible[is_known]
        size = n + int(self.possible.max(initial=-1)) + 1
        shared = coo_array((np.ones(len(ends[0])), ends), (size, size))
        is_there = areas[1:] > 0  # labels may have been dropped
        unions = connected_components(shared, directed=False)[1] if size else np.zeros(0, int)
        is_large = is_known & (self.areas >= np.maximum(min_area, _LEAST_SHARE * areas[own]))
        counts = np.bincount(own[is_large], minlength=n + 1)[1:]
        fewest, most = np.unique(unions[:n][is_there]), np.maximum(counts, 1)[is_there]
        return len(fewest), int(most.sum())

    def facts(
        self, particles: LabelMap, min_area: int, likely: int, seen: Mapping[str, float]
    ) -> dict[str, float]:
        """Describe what is doubtful of some particles, each 0 or more; more is more doubtful.

        `likely` is how many pixels look like particles, and `seen` has the facts that grey values
        and outlines show.
        """
        areas = areas_of(particles, int(particles.max(initial=0)))[1:]
        n, own = int(np.count_nonzero(areas)), particles.ravel()[self.pixels]
        fewest, most = self.between(particles, min_area)
        is_in = own > 0
        inside, (pairs, lengths) = self.areas[is_in], borders_of(particles)
        paired = _paired(pairs[pairs[:, 0] > 0], n) * float(np.log(2))
        return {
            "split": max(float(np.log((n + 0.5) / (fewest + 0.5))), paired),
            "joined": float(np.log((most + 0.5) / (n + 0.5))),
            "unclaimed": float(np.log(max(likely / areas.sum(), 1))),
            "outside": float(np.log1p(np.count_nonzero(~is_in) / n)),
            "touching": float(lengths[pairs[:, 0] > 0].sum() / max(lengths.sum(), 1)),
            "unsure": float(self.background[is_in] @ inside / max(inside.sum(), 1)),
            "paired": paired,
            **seen,
        }


def _paired(touching: NDArray[np.int64], n: int) -> float:
    """Return which share of n particles touch exactly one other; 0 if most may do so by chance."""
    counts = np.bincount(touching.ravel())
    n_pairs = np.count_nonzero((counts[touching] == 1).all(axis=1))
    share = float(2 * n_pairs / n)
    return share if n_pairs >= _MIN_PAIRS and share > _MOSTLY else 0.0


def are_lumps(facts: Mapping[str, float], concave_area: float) -> bool:
    """Return whether what is outlined may be any number of particles."""
    return concave_area > _CONCAVE_AREA or facts["split"] + facts["joined"] > _DIVIDED


def either_polarity(found: Outlines, others: Outlines) -> dict[str, float]:
    """Return the doubt whether those of the other polarity are the particles, towards these."""
    areas = [np.median([np.sum(each.mask) for each in own]) for own in (found, others)]
    number, size = np.log([len(others) / len(found), (areas[1] / areas[0]) ** 0.5]).tolist()
    ways = {"fewer": -number, "more": number, "smaller": -size, "larger": size}
    return {name: max(way, 0.0) for name, way in ways.items()}


def finding_range(facts: Mapping[str, float]) -> FindingRange:
    """Return between which factors what is true of particles lies, by what is known of these."""
    widths = np.array([_WIDTHS[name] for name in facts], np.float64)
    low, high, smaller, larger = np.array([*facts.values()]) @ widths
    return FindingRange(*np.exp([-low, high, -smaller, larger]).tolist())


def main_doubt(facts: Mapping[str, float]) -> str:
    """Return, in words, why a number is uncertain: by joins, or by what widens its range most."""
    is_known = not facts.get("lumps")
    if is_known and facts["split"] + facts["joined"] > _MAX_OF_JOINS:
        return FACTS["split"]
    low, high, _, _ = finding_range(facts)
    if high < _MAX_OF_ALL * low:
        return ""
    said = [name for name in facts if name in _WORDS]
    return _WORDS[max(said, key=lambda name: facts[name] * sum(_WIDTHS[name][:2]))]


def doubtful_outlines(table: pd.DataFrame) -> list[tuple[Any, ...]]:
    """Return the outlines of a table of particles, the most doubtful first.

    By size and shape beside the others of its image, or, if it was classified, by its class:
    whichever makes it come earlier. Of each, image, label, whether it is left out, and why it is
    doubtful.
    """
    areas = table["area_px2"].astype(float)
    size = np.log(areas / areas.groupby(table["micrograph"]).transform("median"))
    hollow = _OF_SOLIDITY * (1 - table["solidity"].astype(float))
    why = np.where(size < 0, "smaller than most here", "larger than most here").astype(object)
    why[hollow > size.abs()] = "not convex"
    rank = (size.abs() + hollow).rank(ascending=False)
    if "confidence" in table:
        of_class = table["confidence"].astype(float).rank()
        why[of_class < rank] = "its class is unsure"
        rank = np.fmin(rank, of_class)
    found = table.reindex(columns=["micrograph", "particle", "left_out"]).assign(why=why)
    return list(found.iloc[np.argsort(rank, kind="stable")].itertuples(index=False, name=None))
