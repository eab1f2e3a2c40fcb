"""A network that can be watched, a folder of images, and extractions that stop when told to."""

import functools
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from support.feature_folders import write_folder

from hypervlad import HypercolumnVLAD, extract_features, load_features, register_backbone
from hypervlad.features import Preprocessing

BATCH = 4  # images


class StopError(Exception):
    """Raised to interrupt."""


class Network:
    """What watched networks were given since `clear`, and what happens before a batch."""

    n_images = n_batches = 0
    before_batch = None  # is given the number of the batch

    def clear(self):
        self.n_images = self.n_batches = 0

    def note(self, n_images):
        if self.before_batch is not None:
            self.before_batch(self.n_batches)
        self.n_images += n_images
        self.n_batches += 1


NETWORK = Network()


class Watched(torch.nn.Sequential):
    """Tells `NETWORK` of each batch."""

    def forward(self, batch):
        NETWORK.note(len(batch))
        return super().forward(batch)


def build_watched():
    return Watched(
        torch.nn.Conv2d(3, 6, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(6, 8, 3, stride=2, padding=1),
    )


def noise(n, seed=1):
    return list(np.random.default_rng(seed).random((n, 20, 24)).astype(np.float32))


@pytest.fixture
def encoder():
    """Fitted, takes milliseconds; four images per batch."""
    register_backbone("watched", build_watched, ["1", "2"], Preprocessing(minimum_size=4))
    encoder = HypercolumnVLAD(
        "watched", weights="random", image_size=16, n_codewords=4, sampling=400, random_state=0
    )
    return encoder.set_params(batch_size=BATCH).fit(noise(8))


@pytest.fixture
def network(encoder):
    """The encoder's network, which has seen nothing yet."""
    NETWORK.clear()
    return NETWORK


@pytest.fixture
def folder(tmp_path):
    """Twenty images: eight of class a, eight of class b, four beside the classes."""
    return write_folder(tmp_path / "images")


@pytest.fixture
def out(tmp_path):
    """Where the features go."""
    return tmp_path / "f.parquet"


@pytest.fixture
def extract(encoder, folder, out):
    """Extracts the features of the folder, with any options."""
    return functools.partial(extract_features, folder, encoder, out=out)


@pytest.fixture
def complete(extract):
    """The features of the folder."""
    return extract().path


@pytest.fixture
def expected(extract, tmp_path_factory):
    """The file of an uninterrupted run, somewhere else."""
    return extract(out=tmp_path_factory.mktemp("whole") / "f.parquet").path.read_bytes()


@pytest.fixture
def opened(monkeypatch):
    """Names of the images that were opened."""
    names, original = [], Path.open

    def noted(path, *arguments, **options):
        if path.suffix == ".png":
            names.append(str(path))
        return original(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", noted)
    return names


def extracted(images, encoder, **options):
    """Extract features to a file in a temporary folder; return its vectors and table."""
    with tempfile.TemporaryDirectory() as folder:
        done = extract_features(images, encoder, out=Path(folder, "f.parquet"), **options)
        return load_features(done.path, mmap=False)


def during(batch, act, extract):
    """Extract, and do something when the network is about to be given a batch (from 0)."""

    def before(number):
        if number == batch:
            NETWORK.before_batch = None  # `act` may extract, too
            act()

    NETWORK.clear()
    NETWORK.before_batch = before
    try:
        return extract()
    finally:
        NETWORK.before_batch = None
        NETWORK.clear()


def stop(error=StopError):
    raise error


def interrupt(extract, n_tasks):
    """Begin an extraction, and stop it after this many tasks."""
    with pytest.raises(StopError):
        during(n_tasks, stop, extract)
