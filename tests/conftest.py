"""A tiny seeded network for all tests, and the real images and weights where there are any."""

import gc
import os
import sys
from pathlib import Path

import matplotlib.font_manager  # which runs other programs while it lists fonts
import matplotlib.pyplot
import numpy as np
import psutil
import pytest
import torch
from hypothesis import settings
from support.absent import skip_without
from support.memory import return_memory
from support.paths import SHARED
from support.surfaces import texture_patterns
from support.tiny import make_tiny_encoder, register_tiny

from hypervlad.features import WeightsNotFoundError, find_weights

# What anybody runs is reproducible: the same examples each time. "explore" draws new ones; each
# failure that it finds becomes an explicit ``@example`` of its test.
settings.register_profile(
    "reproducible", derandomize=True, database=None, deadline=None, print_blob=True
)
settings.register_profile("explore", deadline=None, print_blob=True)
settings.load_profile("reproducible")

_DEAR_EXAMPLES = (".HypercolumnSegmenter",)  # of docstrings: it trains for 20 s
_PEAKS = pytest.StashKey[dict[str, int]]()  # bytes, by worker


def peak_memory():
    """Return the largest memory, in bytes, that this process has had."""
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def pytest_collection_modifyitems(config, items):
    for item in items:
        if item.name.endswith(_DEAR_EXAMPLES):
            item.add_marker("full")
    if "full" not in config.option.markexpr:
        left_out = [item for item in items if item.get_closest_marker("full")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    # Networks first: they need the most memory, and processes grow.
    items.sort(key=lambda item: not item.nodeid.startswith("tests/networks/"))


def pytest_collection_finish(session):
    """Let garbage collection pass over the million objects that importing all tests has made."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish(session):
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["peak"] = peak_memory()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    peak = getattr(node, "workeroutput", {}).get("peak")
    if peak is not None:
        node.config.stash.setdefault(_PEAKS, {})[node.gateway.id] = peak


def pytest_terminal_summary(terminalreporter):
    peaks = terminalreporter.config.stash.get(_PEAKS, {}) or {"tests": peak_memory()}
    listed = ", ".join(f"{name} {peak / 1e9:.2f} GB" for name, peak in sorted(peaks.items()))
    terminalreporter.write_line(f"peak memory: {listed}")


@pytest.fixture(autouse=True, scope="session")
def tiny_backbone():
    register_tiny()


@pytest.fixture(autouse=True, scope="session")
def torch_home(tmp_path_factory):
    """Keep converted networks in a folder of the tests, which has the weights of torch's own."""
    weights = Path(torch.hub.get_dir()) / "checkpoints"
    folder = tmp_path_factory.mktemp("torch")
    (folder / "hub").mkdir()
    if weights.is_dir():
        (folder / "hub" / "checkpoints").symlink_to(weights.resolve())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(folder))
        yield


@pytest.fixture(autouse=True, scope="session")
def few_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1)))
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True, scope="module")
def memory_is_returned():
    """Free what a module's tests leave: figures, networks in cycles, and what malloc keeps."""
    yield
    matplotlib.pyplot.close("all")
    return_memory()


@pytest.fixture
def tiny_encoder():
    """An encoder that takes milliseconds."""
    return make_tiny_encoder()


@pytest.fixture(scope="session")
def texture_images():
    """Twenty-four small images of three textures that even a random network can distinguish."""
    rng, patterns = np.random.default_rng(0), texture_patterns()
    images, labels = [], []
    for i in range(24):
        name = list(patterns)[i % 3]
        noisy = 0.5 + 0.3 * patterns[name] + 0.05 * rng.standard_normal((20, 24))
        images.append(np.clip(noisy, 0, 1).astype(np.float32))
        labels.append(name)
    return images, np.array(labels)


@pytest.fixture(scope="session")
def shared():
    """The folder of real images beside the project."""
    if not SHARED.is_dir():
        pytest.skip("no folder of real images beside the project")
    return SHARED


@pytest.fixture(scope="session")
def mobilenet_weights():
    """The default backbone's ImageNet weights."""
    try:
        return find_weights("mobilenet_v2", download=False)
    except WeightsNotFoundError as error:
        skip_without("weights", str(error))
