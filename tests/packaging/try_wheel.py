"""Install a wheel into an environment of its own and use it: ``make wheel`` and CI run this.

    python tests/packaging/try_wheel.py dist/*.whl             # with the dependencies here
    python tests/packaging/try_wheel.py dist/*.whl --download  # pip downloads them

The wheel must contain every file of the package, and must run with nothing but its declared
dependencies. Downloading these takes minutes, most of it for PyTorch. So by default the environment
gets links to the dependencies that this Python already has: to those that the wheel declares, and
to theirs, and to nothing else. ``--system-site-packages`` and a path to another environment would
also show what the wheel does not declare, such as pytest, and could import the checkout.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import venv
import zipfile
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PACKAGE = Path(__file__).parents[2] / "hypervlad"
N_IMAGES = 24


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--download", action="store_true", help="let pip download dependencies")
    options = parser.parse_args()

    check_contents(options.wheel)
    with tempfile.TemporaryDirectory() as folder:
        environment = Path(folder, "environment")
        venv.create(environment, with_pip=True, symlinks=os.name != "nt")
        python = environment / ("Scripts" if os.name == "nt" else "bin") / "python"
        install = [python, "-m", "pip", "install", "--quiet", options.wheel.resolve()]
        if not options.download:
            link_dependencies(options.wheel, python)
            install.append("--no-deps")
        run(*install, cwd=folder)
        run(python, "-m", "pip", "check", cwd=folder)
        use(python.with_name("hypervlad"), Path(folder))
    print(f"{options.wheel.name}: complete, installs and runs")


def check_contents(wheel: Path) -> None:
    """Compare the wheel with the files of the package in this checkout."""
    here = {
        path.relative_to(PACKAGE.parent).as_posix()
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    names = set(zipfile.ZipFile(wheel).namelist())
    there = {name for name in names if name.startswith("hypervlad/")}
    weights = {name for name in there if name.endswith(".pth")}
    if not weights:
        sys.exit(f"{wheel.name} has no weights of the default network")
    if here - there or there - here - weights:
        sys.exit(f"missing: {sorted(here - there)}; too many: {sorted(there - here - weights)}")
    if not any(".dist-info/licenses/" in name for name in names):
        sys.exit(f"{wheel.name} has no licence")


def link_dependencies(wheel: Path, python: Path) -> None:
    """Link the dependencies of the wheel, and theirs, into the environment of ``python``."""
    question = "import sysconfig; print(sysconfig.get_path('purelib'))"
    target = Path(subprocess.check_output([python, "-c", question], text=True).strip())
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = archive.read(name).decode()
    lines = metadata.partition("\n\n")[0].splitlines()
    required = [line.partition(": ")[2] for line in lines if line.startswith("Requires-Dist: ")]
    for found in closure(required):
        for top in sorted({file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}):
            source, link = Path(str(found.locate_file(top))), target / top
            if source.exists() and not link.exists():
                link.symlink_to(source, target_is_directory=source.is_dir())


def closure(required: list[str]) -> Iterator[Distribution]:
    """Yield the installed distributions that the requirements need, directly or not."""
    todo = [(Requirement(text), frozenset({""})) for text in required]
    done: set[tuple[str, frozenset[str]]] = set()
    while todo:
        requirement, extras = todo.pop()
        marker = requirement.marker
        if marker and not any(marker.evaluate({"extra": extra}) for extra in extras):
            continue
        key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if key in done:
            continue
        done.add(key)
        try:
            found = distribution(requirement.name)
        except PackageNotFoundError:
            sys.exit(f"{requirement} is not installed here")
        yield found
        for text in found.requires or ():
            todo.append((Requirement(text), frozenset({"", *requirement.extras})))


def use(hypervlad: Path, folder: Path) -> None:
    """Train, report and predict on a few synthetic images, with the weights in the wheel."""
    run(hypervlad, "--version", cwd=folder)
    run(hypervlad, "demo", "--quiet", "--n-images", N_IMAGES, "-o", "report", cwd=folder)
    (images,) = folder.glob("report/synthetic-*")
    (model,) = folder.glob("report/*.hvlad")
    run(hypervlad, "predict", model, images, "-o", "predictions.csv", "--quiet", cwd=folder)
    lines = (folder / "predictions.csv").read_text(encoding="utf-8").splitlines()
    if len(lines) != N_IMAGES + 1 or not (folder / "report" / "index.html").is_file():
        sys.exit(f"{len(lines) - 1} of {N_IMAGES} images were classified")


def run(*command: object, cwd: Path | str) -> None:
    """Run a command outside the checkout, without this environment's paths and without a cache."""
    environ = {name: text for name, text in os.environ.items() if not name.startswith("PYTHON")}
    environ["PYTHONDONTWRITEBYTECODE"] = "1"  # links lead to files of another environment
    subprocess.run([str(word) for word in command], cwd=cwd, env=environ, check=True)


if __name__ == "__main__":
    main()
