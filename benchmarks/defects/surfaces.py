"""Images of a surface with the kinds and masks of their defects, and their splits.

An image with a made defect is tested only where the one that it was made of is tested. Images of
one specimen are either learnt from or tested, and are resampled together.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from hypervlad import read_image
from hypervlad.data import IMAGE_DEFECTS, add_defect
from hypervlad.folders.groups import load_groups
from hypervlad.images import read_mask

FREE = "free"  # the kind of a defect-free image
_MAX_GAP = 100  # between the numbers of images of one magnetic tile


@dataclass(frozen=True)
class Surface:
    """Images of one kind of surface, and the masks of their defects.

    Attributes
    ----------
    name : str
    images, masks : list of n arrays
    kinds : ndarray of n str
        Of the defects; FREE where there is none.
    sources : ndarray of n int
        The image of which this one was made; its own index if it was not.
    specimens : ndarray of n int
        The first image of the same specimen.
    """

    name: str
    images: list[np.ndarray]
    masks: list[np.ndarray]
    kinds: np.ndarray
    sources: np.ndarray
    specimens: np.ndarray

    @classmethod
    def of(
        cls,
        name: str,
        examples: Sequence[tuple[str, np.ndarray, np.ndarray]],
        specimens: np.ndarray | None = None,
    ) -> Surface:
        """Return the surface of some (kind, image, mask), by default each of another specimen."""
        kinds, images, masks = (list(each) for each in zip(*examples, strict=True))
        each = np.arange(len(images))
        own = each if specimens is None else specimens
        return cls(name, images, masks, np.array(kinds), each, own)

    @property
    def digest(self) -> str:
        """SHA-256 of all images and masks."""
        digest = hashlib.sha256()
        for array in (*self.images, *self.masks):
            digest.update(repr((array.shape, array.dtype.str)).encode())
            digest.update(np.ascontiguousarray(array))
        return digest.hexdigest()

    @property
    def defective(self) -> np.ndarray:
        return self.kinds != FREE

    def kinds_of_defects(self) -> list[str]:
        """Return each kind of defect once, in the order of the images."""
        return list(dict.fromkeys(self.kinds[self.defective].tolist()))

    def with_made_defects(self) -> Surface:
        """Add a made defect of each kind to each defect-free image."""
        free = np.flatnonzero(~self.defective)
        images, masks = list(self.images), list(self.masks)
        for number, kind in enumerate(IMAGE_DEFECTS):
            for i in free.tolist():
                seed = len(IMAGE_DEFECTS) * i + number
                image, mask = add_defect(self.images[i], kind, random_state=seed)
                images.append(image)
                masks.append(mask)
        kinds = np.concatenate([self.kinds, np.repeat(IMAGE_DEFECTS, len(free))])
        sources = np.concatenate([self.sources, np.tile(free, len(IMAGE_DEFECTS))])
        return Surface(self.name, images, masks, kinds, sources, self.specimens[sources])


def read_surface(folder: Path, good: str = FREE, groups: Path | None = None) -> Surface:
    """Read images, and masks of those with defects.

    Parameters
    ----------
    folder : Path
        With images/KIND/* and masks/KIND/*.png, or with defect-free images only.
    good : str
        The defect-free kind.
    groups : Path, optional
        CSV file with the specimens of the images; by default, see `specimens_of`.
    """
    is_by_kind = (folder / "images").is_dir()
    surface = folder.name if is_by_kind else f"{folder.absolute().parent.name} {folder.name}"
    paths = sorted((folder / "images").glob("*/*") if is_by_kind else folder.glob("*"))
    examples = []
    for path in paths:
        image, kind = read_image(path), path.parent.name
        shape = (image.shape[0], image.shape[1])
        if kind == good or not is_by_kind:
            examples.append((FREE, image, np.zeros(shape, dtype=bool)))
        else:
            mask = read_mask(folder / "masks" / kind / f"{path.stem}.png", shape=shape)
            examples.append((kind, image, mask))
    if not examples:
        raise SystemExit(f"{folder}: no images, and none in images/*/")
    if groups is None:
        return Surface.of(surface, examples, specimens_of([path.stem for path in paths]))
    names = load_groups(paths, folder, groups)
    _, first, number = np.unique(names, return_index=True, return_inverse=True)
    return Surface.of(surface, examples, first[number])


def specimens_of(names: Sequence[str]) -> np.ndarray:
    """Return, for each file, the first one that shows the same specimen.

    Images of one magnetic tile have numbers close to each other: exp<exposure>_num_<number>.
    """
    found = (re.fullmatch(r"exp\d_num_(\d+)", name) for name in names)
    numbers = {i: int(match[1]) for i, match in enumerate(found) if match}
    tiles = np.arange(len(names))
    for before, i in pairwise(sorted(numbers, key=numbers.__getitem__)):
        if numbers[i] - numbers[before] <= _MAX_GAP:
            tiles[i] = tiles[before]
    return tiles


def split_surface(
    surface: Surface, n_train: int, n_test: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Choose defect-free images to learn from, and test images of all kinds, at random.

    Returns
    -------
    train : ndarray of n_train int
        Of one seed, more images include the fewer ones.
    test : ndarray of int
        ``n_test`` defect-free images of other specimens, the same for all ``n_train``, with all
        that were made of them; then images of other specimens with defects of their own. Fewer
        defect-free ones if the images of whole specimens do not add up.
    """
    free = np.flatnonzero(surface.kinds == FREE)
    if n_train + n_test > len(free):
        raise SystemExit(
            f"{surface.name}: {n_train} images to learn from and {n_test} to test, but only "
            f"{len(free)} defect-free ones; choose fewer with --train or --test"
        )
    order = np.random.default_rng(seed).permutation(np.unique(surface.specimens[free]))
    others, n_left = [], n_test
    for own in (free[surface.specimens[free] == each] for each in order):
        if len(own) <= n_left:
            n_left -= len(own)
        else:
            others.append(own)
    unused = np.concatenate(others)
    is_unused = np.isin(surface.specimens, surface.specimens[unused])
    return unused[:n_train], np.flatnonzero(~is_unused)
