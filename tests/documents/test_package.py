"""The public names, and the cost of importing them."""

from __future__ import annotations

import os
import pkgutil
import subprocess
import sys
from types import ModuleType

import pytest
from support.documents import PACKAGES

OFFERING = pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)


@OFFERING
def test_public_names_are_sorted_and_unknown_ones_raise(package: ModuleType) -> None:
    assert package.__all__ == sorted(package.__all__, key=str)
    assert set(package.__all__) <= set(dir(package))
    with pytest.raises(AttributeError):
        _ = package.HyperVLAD


def imported(statement: str) -> set[str]:
    """Return the modules that are there after a statement, which may end the process."""
    code = (
        "import atexit, sys\n"
        "atexit.register(lambda: print(*sorted({n.split('.')[0] for n in sys.modules})))\n"
    )
    done = subprocess.run([sys.executable, "-c", code + statement], capture_output=True, text=True)
    return set(done.stdout.splitlines()[-1].split())


def command(*words: str) -> str:
    """Return the statement that runs a command."""
    run = "runpy.run_module('hypervlad', run_name='__main__')"
    return f"import runpy; sys.argv[1:] = {list(words)!r}; {run}"


HEAVY = {"torch", "torchvision", "xgboost", "sklearn", "skimage", "scipy", "matplotlib", "numpy"}


@pytest.mark.parametrize(
    ("statement", "unwanted"),
    [
        ("import hypervlad, hypervlad.results", HEAVY),
        ("import hypervlad.images", {"torch", "tifffile", "skimage", "sklearn", "ncempy", "h5py"}),
        (
            "from hypervlad import HypercolumnVLAD, load, make_tem_images, read_image",
            {"torch", "xgboost"},
        ),
        (
            "from hypervlad import AlignmentClassifier, MicrographClassifier, PatchDefectScorer",
            {"torch"},
        ),
        ("from hypervlad.results import OrientationDisplay", {"torch", "matplotlib"}),
        (command("train", "--help"), HEAVY - {"numpy"} | {"pandas"}),
        (command("review", "serve", "nowhere"), {"torch", "pandas"}),
    ],
)
def test_modules_import_only_what_they_need(statement: str, unwanted: set[str]) -> None:
    found = imported(statement)
    assert "hypervlad" in found
    assert not found & unwanted


@pytest.mark.full  # fits the default network in another process
def test_the_default_network_needs_neither_torchvision_nor_torchs_compiler() -> None:
    """Each takes as long to import as torch itself."""
    code = """if True:
        import sys, numpy as np, hypervlad
        images = [np.random.default_rng(seed).random((40, 40)) for seed in range(2)]
        hypervlad.HypercolumnVLAD(weights="random", image_size=64, n_codewords=2).fit(images)
        print(*sys.modules)
    """
    found = set(subprocess.check_output([sys.executable, "-c", code], text=True).split())
    assert "torch" in found
    assert not found & {"torchvision", "torch._dynamo", "sympy"}


def test_no_module_shadows_a_public_name() -> None:
    for package in PACKAGES:
        modules = {module.name for module in pkgutil.iter_modules(package.__path__)}
        for name in modules & set(package.__all__):
            assert isinstance(getattr(package, name), ModuleType)


@pytest.mark.parametrize(("before", "after"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_waiting_threads_sleep_unless_the_user_sets_the_policy(
    before: str | None, after: str
) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    if before is not None:
        environment["OMP_WAIT_POLICY"] = before
    code = "import hypervlad, os; print(os.environ['OMP_WAIT_POLICY'])"
    output = subprocess.check_output([sys.executable, "-c", code], text=True, env=environment)
    assert output.strip() == after
