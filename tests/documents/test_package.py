"""The public names, and the cost of importing them."""

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
    assert done.returncode == (2 if "nowhere" in statement else 0), done.stderr
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
        (command("app", "nowhere"), {"torch"}),
    ],
)
def test_modules_import_only_what_they_need(statement: str, unwanted: set[str]) -> None:
    found = imported(statement)
    assert "hypervlad" in found
    assert not found & unwanted


def test_no_module_shadows_a_public_name() -> None:
    for package in PACKAGES:
        modules = {module.name for module in pkgutil.iter_modules(package.__path__)}
        for name in modules & set(package.__all__):
            assert isinstance(getattr(package, name), ModuleType)
