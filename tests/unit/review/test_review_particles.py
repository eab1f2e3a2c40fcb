"""Particles of a queue: stored without pixels, cut again, and shown with their outline."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.review_queues import write_particle_queue

from hypervlad.apps.review import Queue
from hypervlad.images import ImageReadError
from hypervlad.particles import FoundFolder, write_outlines


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Queue]:
    with contextlib.closing(Queue(write_particle_queue(tmp_path_factory.mktemp("p")))) as queue:
        yield queue


@pytest.fixture(scope="module")
def particles(opened: Queue) -> list[Any]:
    """Of the first field: at the edge, small, and large."""
    return [opened.image_of(item) for item in (1, 2, 3)]


def test_particles_are_items_and_a_reason_keeps_the_names_of_classes(
    opened: Queue, particles: list[Any]
) -> None:
    assert (opened.unit, opened.categories()[-1].name) == ("particle", "not a particle")
    assert opened.image_of_training(0) == particles[0]
    opened.add_category("image a")
    opened.connection.execute("UPDATE items SET reason = 'unlike all images (image a)'")
    (item,) = opened.next("a", 1).items
    assert item.reason == "unlike all particles (image a)"


def test_a_particle_is_cut_again_as_it_was_found(particles: list[Any]) -> None:
    own = FoundFolder(particles[0].found).particles("a.png")
    assert len(particles) == len(own) == 3
    for particle, expected in zip(particles, own, strict=True):
        cut = particle.cut()
        np.testing.assert_array_equal(cut.image, expected.image)
        np.testing.assert_array_equal(cut.mask, expected.mask)
        assert (cut.label, cut.box) == (expected.label, expected.box)
        assert Path(cut.micrograph).is_file()
        assert particle.name == cut.name


def test_another_outline_is_not_shown(particles: list[Any]) -> None:  # changes the folder: last
    found = FoundFolder(particles[0].found)
    labels = found.outlines("a.png").label_image()
    labels[labels == particles[0].number] = 0
    rows, columns = np.nonzero(labels == particles[1].number)
    labels[rows[0], columns[0]] = 0
    write_outlines(found.outlines_file("a.png"), labels)
    for particle, word in zip(particles, ("gone", "changed"), strict=False):
        with pytest.raises(ImageReadError) as caught:
            particle.picture(100, 100)
        assert f"particle {particle.number}: its outline has {word}" in str(caught.value)
    assert particles[2].cut().label == 3
