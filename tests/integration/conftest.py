"""Models that commands have trained, and queues without a model with a server of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.commands import TINY, run, save, write_folder
from support.review_queues import clock, make, served
from support.surfaces import PATCH, surface

__all__ = ["clock", "make", "served"]

SCORER = ["--backbone", "tiny", "--weights", "random", "--patch", str(PATCH), "-q"]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, texture_images: Any) -> Path:
    """Images of three textures, in three folders; tests leave it as it is."""
    return write_folder(tmp_path_factory.mktemp("data") / "images", *texture_images)


@pytest.fixture(scope="session")
def model(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of these textures."""
    path = tmp_path_factory.mktemp("model") / "model.hvlad"
    run("train", folder, "-o", path, *TINY, "-q")
    return path


@pytest.fixture(scope="session")
def surfaces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Defect-free images of a striped surface."""
    root = tmp_path_factory.mktemp("good")
    for seed in range(6):
        save(root / f"{seed}.png", surface(seed))
    return root


@pytest.fixture(scope="session")
def scorer(surfaces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scorer of defects on this surface."""
    path = tmp_path_factory.mktemp("scorer") / "scorer.hvlad"
    run("defects", "fit", surfaces, "-o", path, *SCORER)
    return path
