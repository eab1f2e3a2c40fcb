"""The public names, and the cost of importing them."""

from __future__ import annotations

import os
import pkgutil
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image
from support.documents import PACKAGES

import hypervlad

OFFERING = pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)


@OFFERING
def test_public_names_are_sorted_and_unknown_ones_raise(package: ModuleType) -> None:
    assert package.__all__ == sorted(package.__all__, key=str)
    assert set(package.__all__) <= set(dir(package))
    with pytest.raises(AttributeError, match=r"attribute '?HyperVLAD'?$"):
        _ = package.HyperVLAD


def imported(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sorted({{n.split('.')[0] for n in sys.modules}}))"
    return set(subprocess.check_output([sys.executable, "-c", code], text=True).split())


HEAVY = {"torch", "torchvision", "xgboost", "sklearn", "skimage", "scipy", "matplotlib", "numpy"}
HELP = "import hypervlad.apps.cli as cli; cli.app(['train', '--help'], standalone_mode=False)"


@pytest.mark.parametrize(
    ("statement", "unwanted"),
    [
        (
            "import hypervlad.images",
            {"torch", "tifffile", "skimage", "sklearn", "ncempy", "h5py"},
        ),
        ("import hypervlad, hypervlad.results", HEAVY),
        (
            "from hypervlad import HypercolumnVLAD, load, make_tem_images, read_image",
            {"torch", "xgboost"},
        ),
        (
            "from hypervlad import AlignmentClassifier, MicrographClassifier, PatchDefectScorer",
            {"torch"},
        ),
        (HELP, HEAVY - {"numpy"} | {"pandas"}),
        ("import hypervlad.apps.review.server", {"torch", "pandas"}),
        ("import hypervlad.results.reports.diameters", HEAVY - {"numpy", "scipy", "matplotlib"}),
        ("from hypervlad.results import OrientationDisplay", {"torch", "matplotlib"}),
    ],
)
def test_modules_import_only_what_they_need(statement: str, unwanted: set[str]) -> None:
    assert not imported(statement) & unwanted


def test_drawing_leaves_the_backend_of_matplotlib_alone() -> None:
    code = (
        "import io, sys, numpy as np, matplotlib\n"
        "before = dict.__getitem__(matplotlib.rcParams, 'backend')\n"
        "from hypervlad.results import ContactSheetDisplay, save_png\n"
        "sheet = ContactSheetDisplay([np.eye(4)], [['a']])\n"
        "save_png(lambda ax: sheet.plot(ax=ax), io.BytesIO())\n"
        "assert dict.__getitem__(matplotlib.rcParams, 'backend') is before\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_aligning_needs_neither_torch_nor_xgboost(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    paths = [str(tmp_path / "a.png"), "-o", str(tmp_path / "out")]
    run = f"hypervlad.apps.cli.app(['align', '--quiet', *{paths!r}], standalone_mode=False)"
    found = imported(f"import hypervlad.apps.cli; {run}")
    assert "matplotlib" in found, "figures were made"
    assert not found & {"torch", "torchvision", "xgboost"}


def test_a_model_is_loaded_and_described_without_torch(tmp_path: Path) -> None:
    path = str(tmp_path / "model.hvlad")
    images, labels = hypervlad.make_tem_images(12, size=64, random_state=0)
    encoder = hypervlad.HypercolumnVLAD(weights="random", image_size=64, n_codewords=2)
    boosting = hypervlad.BoostedSoftmaxClassifier(n_estimators=0, Cs=1.0)
    model = hypervlad.MicrographClassifier(encoder, boosting=boosting, calibration_size=0)
    model.fit(images, labels).save(path)
    run = f"hypervlad.apps.cli.app(['info', {path!r}], standalone_mode=False)"
    found = imported(f"import hypervlad.apps.cli; {run}")
    assert "sklearn" in found, "the model was loaded"
    assert not found & {"torch", "torchvision"}


def test_the_default_network_needs_neither_torchvision_nor_torchs_compiler(tmp_path: Path) -> None:
    """Each takes as long to import as torch itself."""
    code = f"""if True:
        import sys, torch
        from hypervlad.features.backbones import build_network
        path = {str(tmp_path / "weights.pth")!r}
        torch.save(build_network("mobilenet_v2", "random").original.state_dict(), path)
        build_network("mobilenet_v2", path)(torch.rand(1, 3, 64, 64))
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


def test_importing_takes_at_most_0_3_seconds() -> None:
    """The best of five, minus the time of an empty Python, since noise affects both."""

    def best(code: str) -> float:
        times = []
        for _ in range(5):
            started = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            times.append(time.perf_counter() - started)
        return min(times)

    assert best("import hypervlad") - best("pass") < 0.3


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
