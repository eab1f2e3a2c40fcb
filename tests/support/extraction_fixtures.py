"""A fitted encoder that takes milliseconds, a folder of images, and a count of what is computed."""

from __future__ import annotations

import contextlib
import functools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import pytest
from support.feature_folders import write_folder

from hypervlad import HypercolumnVLAD, extract_features, load_features
from hypervlad.data import Extraction
from hypervlad.data.extraction.manifest import TaskFolder
from hypervlad.features.encoder import loading
from hypervlad.features.encoder.encoding import BatchEncoder

#: Extracts the features of the folder, with any options.
Extract: TypeAlias = Callable[..., Extraction]


class StopError(Exception):
    """Raised to interrupt."""


@pytest.fixture
def encoder(tiny_encoder: HypercolumnVLAD) -> HypercolumnVLAD:
    """Fitted; four images per batch."""
    rng = np.random.default_rng(1)
    images = list(rng.random((8, 20, 24)).astype(np.float32))
    tiny_encoder.batch_size = 4
    return tiny_encoder.fit(images)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twenty images: eight of class a, eight of class b, four beside the classes."""
    return write_folder(tmp_path / "images")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where the features go."""
    return tmp_path / "f.parquet"


@pytest.fixture
def extract(encoder: HypercolumnVLAD, folder: Path, out: Path) -> Extract:
    """Extracts the features of the folder, with any options."""
    return functools.partial(extract_features, folder, encoder, out=out)


@pytest.fixture
def complete(extract: Extract) -> Path:
    """The features of the folder."""
    return extract().path


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Digests of the images that the network was given, in order."""
    seen: list[str] = []
    original = BatchEncoder.__call__

    def counted(self: BatchEncoder, batch: Any) -> np.ndarray:
        seen.extend(batch.keys)
        return original(self, batch)

    monkeypatch.setattr(BatchEncoder, "__call__", counted)
    return seen


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the images that were read."""
    names: list[str] = []
    original = loading.read_named

    def noted(image: Any, options: Any, name: str) -> Any:
        names.append(name)
        return original(image, options, name)

    monkeypatch.setattr(loading, "read_named", noted)
    return names


def extracted(images: Any, encoder: Any, **options: Any) -> tuple[np.ndarray, pd.DataFrame]:
    """Extract features to a file in a temporary folder; return its vectors and table."""
    with tempfile.TemporaryDirectory() as folder:
        done = extract_features(images, encoder, out=Path(folder, "f.parquet"), **options)
        return load_features(done.path, mmap=False)


@contextlib.contextmanager
def stopping_after(n_tasks: int, error: type[BaseException] = StopError) -> Iterator[None]:
    """Let extractions keep this many tasks, and raise an error at the next one."""
    original, left = TaskFolder.keep, [n_tasks]

    def keep(self: TaskFolder, *arguments: Any) -> None:
        if not left[0]:
            raise error
        left[0] -= 1
        original(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TaskFolder, "keep", keep)
        yield


def interrupt(extract: Callable[[], Any], n_tasks: int) -> None:
    """Begin an extraction, and stop it after this many tasks."""
    with stopping_after(n_tasks), pytest.raises(StopError):
        extract()
