"""How often the classifier reads an image, and how often it passes through the network."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.counting import CountingImage, count_passes

from hypervlad import MicrographClassifier
from hypervlad.models.classifier.novelty import empty_images

N_EMPTY = len(empty_images())  # images without content, which pass for their vectors


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    return count_passes(monkeypatch)


@pytest.fixture
def images(texture_images: Any) -> list[CountingImage]:
    return [CountingImage(image) for image in texture_images[0]]


@pytest.mark.parametrize("turns", [1, 4])
def test_fit_reads_twice_and_passes_once_for_codebook_and_vectors(
    model: MicrographClassifier,
    images: list[CountingImage],
    texture_images: Any,
    passes: list[int],
    turns: int,
) -> None:
    model.set_params(encoder__turns=turns).fit(images, texture_images[1])
    assert [image.n_reads for image in images] == [2] * 24
    assert sum(passes) == (1 + turns) * 24 + turns * N_EMPTY


def test_images_outside_the_codebook_sample_pass_for_their_vectors_only(
    model: MicrographClassifier,
    images: list[CountingImage],
    texture_images: Any,
    passes: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hypervlad.features.encoder.codebook_fit.MAX_SAMPLED_IMAGES", 12)
    model.fit(images, texture_images[1])
    assert [image.n_reads for image in images] == [2] * 24
    assert 24 < sum(passes) - N_EMPTY < 2 * 24


def test_calibration_images_pass_once_and_all_are_read_once_for_the_split(
    model: MicrographClassifier,
    images: list[CountingImage],
    texture_images: Any,
    passes: list[int],
) -> None:
    model.set_params(calibration_size=0.25).fit(images, texture_images[1])
    n_train = model.n_images_
    assert n_train == 18
    assert sorted(image.n_reads for image in images) == [2] * 6 + [3] * 18
    assert sum(passes) == 2 * n_train + 6 + N_EMPTY


@pytest.mark.parametrize("size", [0, 2.5])
def test_a_chunk_is_one_image_or_more(
    fitted_model: MicrographClassifier, texture_images: Any, size: Any
) -> None:
    with pytest.raises(ValueError, match="chunk_size must be a whole number of at least 1"):
        fitted_model.classify(texture_images[0], chunk_size=size)


def test_all_answers_need_one_pass(
    model: MicrographClassifier,
    images: list[CountingImage],
    texture_images: Any,
    passes: list[int],
) -> None:
    model.fit(*texture_images)
    passes.clear()
    found = model.classify(images, coverage=0.8, max_error=0.3, chunk_size=10)
    assert [image.n_reads for image in images] == [1] * 24
    assert sum(passes) == 24
    assert found.judgement is not None
    assert found.sets is not None


def test_chunks_give_the_same_answers(
    model: MicrographClassifier, texture_images: Any, tmp_path: Any
) -> None:
    images = [*texture_images[0], tmp_path / "gone.png"]
    model.set_params(encoder__on_error="skip").fit(*texture_images)
    whole = model.classify(images, coverage=0.8, max_error=0.3)
    progress: list[int] = []
    chunks = model.classify(
        images, coverage=0.8, max_error=0.3, chunk_size=8, progress=progress.append
    )
    assert progress == [8, 8, 8, 1]
    np.testing.assert_allclose(chunks.proba, whole.proba, atol=1e-6)
    np.testing.assert_array_equal(chunks.sets, whole.sets)
    np.testing.assert_array_equal(chunks.judgement.kind, whole.judgement.kind)
    assert chunks.images.positions.tolist() == whole.images.positions.tolist() == list(range(24))
    assert [skipped.position for skipped in chunks.images.skipped] == [24]
    assert chunks.images.vectors.shape == (24, 0)
    with pytest.warns(UserWarning, match=r"gone\.png"):
        chunks.images.warn()
