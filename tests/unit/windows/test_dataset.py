"""Windows sampled from labelled images."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from support.labelled_windows import some_images

from hypervlad.features.windows import ANOMALOUS, NORMAL
from hypervlad.features.windows.dataset import TrainingWindows


def test_few_windows_are_all_sampled_whatever_the_order_of_images() -> None:
    one = TrainingWindows.sample(iter(some_images(6)), 6, seed=0)
    other = TrainingWindows.sample(iter(some_images(6)[::-1]), 6, seed=0)
    np.testing.assert_array_equal(one.X, other.X)
    np.testing.assert_array_equal(one.image_index, other.image_index)
    assert (one.weights == 1).all()
    images = [np.concatenate(list(image.blocks)) for image in some_images(6)]
    labels = [image.labels for image in some_images(6)]
    for position in range(6):
        own = one.of_images(np.array([position]))
        for label in (ANOMALOUS, NORMAL):
            np.testing.assert_array_equal(
                own.X[own.labels == label], images[position][labels[position] == label]
            )


def test_copies_of_an_image_share_a_group() -> None:
    images = some_images(4)
    images[3] = dataclasses.replace(some_images(1)[0], position=3)
    windows = TrainingWindows.sample(iter(images), 4, seed=0)
    groups = windows.groups_of(np.array([5, 5, 6, 7]))
    of_image = [set(groups[windows.image_index == position]) for position in range(4)]
    assert [len(found) for found in of_image] == [1] * 4
    assert of_image[0] == of_image[1] == of_image[3] != of_image[2]


def test_many_windows_are_thinned_and_weighted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hypervlad.features.windows.dataset._MIN_PER_IMAGE", 4)
    monkeypatch.setattr("hypervlad.features.windows.dataset._MAX_WINDOWS", 4)
    windows = TrainingWindows.sample(iter(some_images(6)), 6, seed=0)
    for image in some_images(6):
        own = windows.of_images(np.array([image.position]))
        all_rows = np.concatenate(list(image.blocks)).tolist()
        for label in (ANOMALOUS, NORMAL):
            chosen = own.labels == label
            assert chosen.sum() == min(4, (image.labels == label).sum())
            assert own.weights[chosen].sum() == pytest.approx((image.labels == label).sum())
            for row in own.X[chosen].tolist():
                assert image.labels[all_rows.index(row)] == label
