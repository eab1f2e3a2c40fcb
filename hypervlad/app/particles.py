"""Particles in a queue: each is cut out of its micrograph wherever its image is needed."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from dataclasses import asdict, astuple, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hypervlad.common.files import parse_json
from hypervlad.images import ImageReadError, Micrograph, read_image
from hypervlad.images.morphology import grown
from hypervlad.images.reading import is_particle

if TYPE_CHECKING:
    from hypervlad.objects.found_folder import FoundFolder
    from hypervlad.objects.particle import Outline, Particle

_MIN_MARGIN = 16  # pixels around the box of a particle that a picture shows
_MARGIN = 0.5  # the same, as a share of the longer side of the box
_COLOUR = 1.0, 0.35, 0.0  # of an outline, for bright and for dark images
_LINES = 400  # lines of an outline side by side in a picture
_reading = threading.Lock()  # a field is read once, although several threads need its particles


@dataclass(frozen=True)
class QueuedParticle:
    """A particle of a `FoundFolder` without its pixels, accepted wherever an image is."""

    found: str  # the folder, which has the outlines and knows where the images are
    field: str  # the micrograph, as the folder names it
    number: int  # in the outlines of the field
    outline: str  # digest of its outline when it was queued, which a person may change later

    def __str__(self) -> str:
        return f"{self.field}, particle {self.number}"

    @property
    def micrograph(self) -> str:
        """The file of the micrograph, by default the group of the particle."""
        return str(_opened(self.found).images / self.field)

    @property
    def name(self) -> str:
        return f"{self.micrograph}, particle {self.number}"

    def outline_now(self) -> str | None:
        """Return the digest of the outline that has its number now, None if there is none."""
        return _digests(self.found, self.field, self._time()).get(self.number)

    def cut(self) -> Particle:
        """Cut it out; an ImageReadError if its outline has changed, or a file cannot be read."""
        with _reading:
            particle = _particles(self.found, self.field, self._time()).get(self.number)
        if particle is None or outline_digest(particle) != self.outline:
            raise ImageReadError(
                f"{self}: its outline has {'changed' if particle else 'gone'} since the queue was "
                "made; start another queue to label what is there now"
            )
        return replace(particle, micrograph=self.micrograph)

    def as_micrograph(self) -> Micrograph:
        return self.cut().as_micrograph()

    def picture(self, side: int, least: int) -> NDArray[np.float32]:
        """Return its outline among its surroundings, (h, w, 3), at most `side` pixels long.

        Small ones are enlarged to `least` pixels, if `side` allows it.
        """
        particle = self.cut()
        top, left, bottom, right = particle.box
        margin = max(_MIN_MARGIN, round(_MARGIN * max(particle.mask.shape)))
        first_row, first_column = max(0, top - margin), max(0, left - margin)
        with _reading:
            field = _pixels(self.found, self.field)
        pixels = field[first_row : bottom + margin, first_column : right + margin]
        mask = np.zeros(pixels.shape[:2], bool)
        mask[top - first_row : bottom - first_row, left - first_column : right - first_column] = (
            particle.mask
        )
        height, width = pixels.shape[:2]
        zoom = min(side, max(least, height, width)) / max(height, width)
        size = max(1, round(zoom * width)), max(1, round(zoom * height))
        image = Image.fromarray(np.uint8(np.round(255 * pixels))).convert("RGB")
        shown = np.array(image.resize(size, Image.Resampling.BICUBIC), np.float32)
        shown /= 255
        inside = np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
        line = grown(inside, max(1, max(size) // _LINES)) & ~inside
        shown[line] = _COLOUR  # beside the particle, of which nothing is hidden
        return shown

    def _time(self) -> int:
        file = _opened(self.found).outlines_file(self.field)
        return file.stat().st_mtime_ns if file.exists() else 0


QueuedImage = Path | QueuedParticle


def queued_particles(found: FoundFolder) -> list[QueuedParticle]:
    """Return all particles of a folder; an ImageReadError if outlines cannot be read."""
    folder = os.path.abspath(found.path)
    return [
        QueuedParticle(folder, field.micrograph, outline.label, outline_digest(outline))
        for field in found.fields
        for outline in found.outlines(field.micrograph)
    ]


def queued_training(source: str | os.PathLike[str], data: Any) -> list[QueuedImage]:
    """Return the training images that `load_image_folder` found in a folder or a table."""
    if not any(map(is_particle, data.images)):
        return [Path(os.path.abspath(image)) for image in data.images]
    folder = os.path.dirname(os.path.abspath(source))
    return [
        QueuedParticle(folder, str(field), particle.label, outline_digest(particle))
        for field, particle in zip(data.groups, data.images, strict=True)
    ]


def outline_digest(outline: Outline | Particle) -> str:
    digest = hashlib.sha256(repr(tuple(map(int, outline.box))).encode())
    digest.update(np.packbits(outline.mask).tobytes())
    return digest.hexdigest()[:16]


# --- in the database ----------------------------------------------------------------------------


def stored(image: QueuedImage) -> bytes:
    """Return the cell of an image: its absolute path, or a list in JSON, which is no such path."""
    if isinstance(image, QueuedParticle):
        return json.dumps(astuple(image)).encode()
    return os.fsencode(image)


def is_stored_particle(cell: bytes) -> bool:
    return cell[:1] == b"["


def restored(cell: bytes) -> QueuedImage:
    """Return the image of a cell; a ValueError if it is damaged."""
    if not is_stored_particle(cell):
        return Path(os.fsdecode(cell))
    values = parse_json(cell)
    if list(map(type, values)) != [str, str, int, str]:
        raise ValueError(f"{values!r} is no particle")
    return QueuedParticle(*values)


# --- what was read last -------------------------------------------------------------------------


@lru_cache
def _opened(found: str) -> FoundFolder:
    from hypervlad.objects.found_folder import FoundFolder  # not above: importing it takes long

    try:
        folder = FoundFolder(found)
        assert folder.fields is not None  # read now
        return folder
    except ValueError as error:
        raise ImageReadError(str(error)) from error


@lru_cache(maxsize=2)
def _particles(found: str, field: str, time: int) -> dict[int, Particle]:
    return {particle.label: particle for particle in _opened(found).particles(field)}


@lru_cache(maxsize=2)
def _digests(found: str, field: str, time: int) -> dict[int, str]:
    return {each.label: outline_digest(each) for each in _opened(found).outlines(field)}


@lru_cache(maxsize=1)
def _pixels(found: str, field: str) -> NDArray[np.float32]:
    folder = _opened(found)
    return read_image(folder.image(field), **asdict(folder.read_options))
