"""Models that commands have trained, and queues without a model with a server of one."""

import pytest
from support.commands import folder, model, run, save
from support.review_queues import clock, make, served
from support.surfaces import PATCH, surface

__all__ = ["clock", "folder", "make", "model", "served"]

SCORER = ["--backbone", "tiny", "--weights", "random", "--set", f"patch={PATCH}", "-q"]


@pytest.fixture(scope="session")
def surfaces(tmp_path_factory):
    """Defect-free images of a striped surface."""
    root = tmp_path_factory.mktemp("good")
    for seed in range(6):
        save(root / f"{seed}.png", surface(seed))
    return root


@pytest.fixture(scope="session")
def scorer(surfaces, tmp_path_factory):
    """A scorer of defects on this surface."""
    path = tmp_path_factory.mktemp("scorer") / "scorer.hvlad"
    run("defects", "fit", surfaces, "-o", path, *SCORER)
    return path
