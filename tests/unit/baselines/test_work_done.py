"""How often the baselines read an image, and pass it through their network."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hypervlad.features.backbones import TappedNetwork
from hypervlad.images import reading
from hypervlad.models.baselines import PatchCNNClassifier, TransferClassifier

Images = tuple[list[np.ndarray], np.ndarray]
Files = tuple[list[Path], np.ndarray]

pytestmark = pytest.mark.filterwarnings("ignore:fine-tuning is validated on:UserWarning")


@pytest.fixture
def files(texture_images: Images, tmp_path: Path) -> Files:
    images, labels = texture_images
    paths = [tmp_path / f"{i:02d}.png" for i in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(np.round(255 * image[:, :20]).astype(np.uint8)).save(path)
    return paths, labels


@pytest.fixture
def n_reads(monkeypatch: pytest.MonkeyPatch) -> Counter[Any]:
    """How often each file was read."""
    counts: Counter[Any] = Counter()
    original = reading.decode_raster

    def counting(file: Any, kind: str, name: str, max_pixels: int | None) -> Any:
        counts[Path(name)] += 1
        return original(file, kind, name, max_pixels)

    monkeypatch.setattr(reading, "decode_raster", counting)
    return counts


@pytest.fixture
def n_passes(monkeypatch: pytest.MonkeyPatch) -> Counter[bytes]:
    """How often each prepared image was passed through a frozen network."""
    counts: Counter[bytes] = Counter()
    original = TappedNetwork.__call__

    def counting(self: TappedNetwork, batch: torch.Tensor) -> Any:
        counts.update(image.contiguous().numpy().tobytes() for image in batch)
        return original(self, batch)

    monkeypatch.setattr(TappedNetwork, "__call__", counting)
    return counts


@pytest.mark.parametrize("mode", ["features", "finetune"])
def test_transfer_reads_and_encodes_each_image_once(
    mode: Any, files: Files, n_reads: Counter[Any], n_passes: Counter[bytes]
) -> None:
    paths, labels = files
    model = TransferClassifier(
        "tiny", "random", mode=mode, image_size=16, max_epochs=2, random_state=0
    )
    model.fit(paths, labels)
    assert n_reads == dict.fromkeys(paths, 1)
    assert sorted(n_passes.values()) == [1] * len(paths)
    n_reads.clear()
    n_passes.clear()
    model.predict(paths)
    assert n_reads == dict.fromkeys(paths, 1)
    assert sorted(n_passes.values()) == [1] * len(paths)


def test_the_patch_cnn_reads_each_image_once(
    files: Files, n_reads: Counter[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hypervlad.models.baselines.patch_cnn._MAX_BATCH", 8)
    paths, labels = files
    for path in paths:
        Image.open(path).resize((28, 28)).save(path)
    model = PatchCNNClassifier(max_epochs=2, random_state=0)
    classes = np.where(labels == "flat", "normal", "anomalous")
    model.fit(paths, classes)
    assert n_reads == dict.fromkeys(paths, 1)
    n_reads.clear()
    model.score_map(paths[0], stride=5, edges="shift")
    assert n_reads == {paths[0]: 1}
