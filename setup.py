"""Put the weights of the default network into the package; all else is in pyproject.toml."""

import runpy
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

FILE = Path(__file__).parent / "hypervlad" / "features" / "backbones" / "mobilenet_file.py"


class BuildWithWeights(build_py):
    """Download the weights before the files of the package are collected."""

    def run(self) -> None:
        weights = runpy.run_path(str(FILE))
        if not weights["is_intact"]():
            try:
                weights["fetch"]()
            except OSError as error:
                raise SystemExit(
                    f"the weights of the default network are not here and cannot be fetched "
                    f"({error}); put {weights['NAME']} of torchvision into {FILE.parent} and try "
                    "again"
                ) from error
        super().run()


setup(cmdclass={"build_py": BuildWithWeights})
