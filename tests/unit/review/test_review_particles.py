"""Particles of a queue: stored without pixels, cut again, and shown with their outline."""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from support.review_queues import write_particle_queue, write_queue

from hypervlad.apps.review import Queue, QueueError
from hypervlad.apps.review.labels import write_classes
from hypervlad.apps.review.particles import QueuedParticle, restored, stored
from hypervlad.apps.review.server import SCREEN, THUMBNAIL, jpeg, make_app
from hypervlad.images import ImageReadError, ReadOptions
from hypervlad.particles import FoundFolder, write_outlines


@pytest.fixture
def particles(tmp_path: Path) -> Iterator[list[QueuedParticle]]:
    """Of the first field: at the edge, small, and large."""
    with contextlib.closing(Queue(write_particle_queue(tmp_path))) as queue:
        found = [queue.image_of(item) for item in (1, 2, 3)]
        assert queue.image_of_training(0) == found[0]
        yield [particle for particle in found if isinstance(particle, QueuedParticle)]


@pytest.mark.parametrize(
    ("write", "unit"), [(write_particle_queue, "particle"), (write_queue, "image")]
)
def test_pages_say_what_is_labelled(
    tmp_path: Path, write: Callable[[Path], Path], unit: str
) -> None:
    with contextlib.closing(Queue(write(tmp_path))) as queue:
        client = make_app(queue, "t", 80).test_client()
        labels, page = (
            client.get(f"/t/{name}").get_data(as_text=True) for name in ("labels.html", "")
        )
        assert queue.unit == unit
    assert f"No {unit} has such a label." in labels
    assert f"Nearest training {unit}s" in page
    assert ("Not a particle" in page) == ("Not a particle" in labels) == (unit == "particle")
    assert ('value="all" selected' in labels) == (unit == "particle")


def test_a_reason_keeps_the_names_of_classes(tmp_path: Path) -> None:
    with contextlib.closing(Queue(write_particle_queue(tmp_path))) as queue:
        queue.add_category("image a")
        queue.connection.execute("UPDATE items SET reason = 'unlike all images (image a)'")
        (item,) = queue.next("a", 1).items
    assert item.reason == "unlike all particles (image a)"


def test_a_particle_is_cut_again_as_it_was_found(particles: list[QueuedParticle]) -> None:
    own = FoundFolder(particles[0].found).particles("a.png")
    assert len(particles) == len(own) == 3
    for particle, expected in zip(particles, own, strict=True):
        cut = particle.cut()
        np.testing.assert_array_equal(cut.image, expected.image)
        np.testing.assert_array_equal(cut.mask, expected.mask)
        assert (cut.label, cut.box) == (expected.label, expected.box)
        assert Path(cut.micrograph).is_file()
        assert particle.name == cut.name


@pytest.mark.parametrize("image", [Path("/x/[1].png"), QueuedParticle("/ü\udcff", "[a", 7, "ab")])
def test_cells_are_files_or_particles(image: Path | QueuedParticle) -> None:
    assert restored(stored(image)) == image


@pytest.mark.parametrize("cell", [b"[", b"[1]", b'["a", "b", "7", "c"]', 7])
def test_damaged_cells_are_errors(cell: bytes) -> None:
    with pytest.raises((ValueError, TypeError)):
        restored(cell)


@pytest.mark.parametrize(("number", "longer"), [(0, 16 + 2 * 16), (1, 12 + 2 * 16), (2, 180)])
def test_the_outline_is_drawn_beside_the_particle(
    particles: list[QueuedParticle], number: int, longer: int
) -> None:
    particle = particles[number]
    for side, least in ((100, 100), (longer, 1)):
        shown = particle.picture(side, least)
        assert max(shown.shape[:2]) == side
        line = (shown[..., 0] == 1) & (shown[..., 2] == 0)
        bright = (shown.min(axis=2) > 0.4) & ~line
        regions, n = ndimage.label(~line)
        assert n == 2, "inside and outside"
        inside = regions == np.argmax(np.bincount(regions[bright]))
        area = particle.cut().mask.sum() * (side / longer) ** 2
        assert inside.sum() == pytest.approx(area, rel=0.15)


def test_small_ones_fill_the_screen_and_thumbnails_are_small(
    particles: list[QueuedParticle],
) -> None:
    for side in (THUMBNAIL, SCREEN):
        with Image.open(io.BytesIO(jpeg(particles[1], side, ReadOptions()))) as image:
            assert max(image.size) == side


def test_another_outline_is_not_shown(particles: list[QueuedParticle]) -> None:
    found = FoundFolder(particles[0].found)
    labels = found.outlines("a.png").label_image()
    labels[labels == particles[0].number] = 0
    rows, columns = np.nonzero(labels == particles[1].number)
    labels[rows[0], columns[0]] = 0
    assert particles[2].outline_now() == particles[2].outline
    write_outlines(found.outlines_file("a.png"), labels)
    for particle, words in zip(particles, ("has gone", "has changed"), strict=False):
        with pytest.raises(
            ImageReadError, match=f"particle {particle.number}: its outline {words}"
        ):
            particle.picture(100, 100)
    assert particles[0].outline_now() is None
    assert particles[2].cut().label == 3
    (found.path / "run.json").unlink()
    moved = QueuedParticle(str(found.path) + "/", *(particles[2].field, 3, "ab"))
    with pytest.raises(ImageReadError, match="no folder of found particles"):
        moved.cut()


def test_classes_are_written_into_a_folder_that_was_moved(tmp_path: Path) -> None:
    with contextlib.closing(Queue(write_particle_queue(tmp_path))) as queue:
        table = FoundFolder(tmp_path / "found").table.assign(**{"class": "matrix"})
        table.to_csv(tmp_path / "found" / "particles.csv", index=False)
        queue.label("window-1", "click-1", 1, queue.add_category("fibre").id)
        copy = shutil.copytree(tmp_path / "found", tmp_path / "copy")
        with pytest.raises(QueueError, match="has the particles of"):
            write_classes(queue, copy)
        shutil.rmtree(tmp_path / "found")
        assert write_classes(queue, copy) == (1, 0)
    assert FoundFolder(copy).table["class"].tolist().count("fibre") == 1
