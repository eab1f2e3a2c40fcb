"""From an image to what the network takes, or to what was computed of it before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, dataclass, replace
from typing import Any

from hypervlad.cache import IndexEntry, PathIndex
from hypervlad.encoder.batches import Preparation, Prepared
from hypervlad.encoder.scale import digest_at
from hypervlad.images import ImageReadError, ReadOptions
from hypervlad.images.reading import read_named


@dataclass(frozen=True)
class Facts:
    """What is known of an image without its pixels.

    Attributes
    ----------
    digest : str
        Of its pixels: see :class:`hypervlad.images.Micrograph`.
    shape : tuple of int
        (H, W) or (H, W, 3), pixels.
    pixel_size : float or None
        Nanometres per pixel.
    """

    digest: str
    shape: tuple[int, ...]
    pixel_size: float | None


@dataclass(frozen=True, eq=False)
class Taken:
    """An image that was taken in.

    Attributes
    ----------
    facts : Facts
    digest : str
        What the encoder knows the image by: where it will be brought to a common scale, its own
        pixel size is in it.
    found : object
        What was computed of it before; None if nothing was.
    prepared : Prepared or None
        None if something was found.
    """

    facts: Facts
    digest: str
    found: Any
    prepared: Prepared | None = None


@dataclass(frozen=True)
class Intake:
    """How images are read, looked up and prepared, each by itself and in any thread.

    Attributes
    ----------
    read_options : ReadOptions
    preparation : Preparation
    index : PathIndex or None
        Spares reading files that have not changed.
    find : callable
        Called with the digest that the encoder knows an image by; returns what was computed of it
        before, or None.
    """

    read_options: ReadOptions
    preparation: Preparation
    index: PathIndex | None
    find: Callable[[str], Any]

    def __call__(self, image: Any, name: str) -> Taken:
        """Take in an image.

        Raises
        ------
        ImageReadError
            If it cannot be read, or not be brought to the common scale.
        """
        entry = None if self.index is None else self.index.entry(image)
        taken = self._by(entry, name)
        if taken is not None and taken.found is not None:
            return taken
        micrograph = read_named(image, self.read_options, name)
        facts = Facts(micrograph.digest, micrograph.pixels.shape, micrograph.pixel_size)
        if entry is not None:
            entry.keep(astuple(facts))
        taken = self._looked_up(facts, name)
        if taken.found is not None:
            return taken
        size = self.preparation.size_of(facts.shape, facts.pixel_size, name)
        prepared = self.preparation.prepared(micrograph.pixels, size, taken.digest)
        return replace(taken, prepared=prepared)

    def knows(self, image: Any) -> bool:
        """Say whether something can be found of an image without reading it."""
        entry = None if self.index is None else self.index.entry(image)
        try:
            taken = self._by(entry, "image")
        except ImageReadError:
            return False
        return taken is not None and taken.found is not None

    def _by(self, entry: IndexEntry | None, name: str) -> Taken | None:
        if entry is None or entry.facts is None:
            return None
        return self._looked_up(Facts(*entry.facts), name)

    def _looked_up(self, facts: Facts, name: str) -> Taken:
        self.preparation.size_of(facts.shape, facts.pixel_size, name)  # an error comes first
        digest = digest_at(facts.digest, facts.pixel_size, self.preparation.pixel_size)
        return Taken(facts, digest, self.find(digest))
