"""What the README says of links, networks and installation is true."""

from __future__ import annotations

import re
import subprocess
import sys

from support.documents import README
from support.paths import ROOT


def test_links_have_targets() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    assert targets
    assert all((ROOT / target).exists() for target in targets if "://" not in target)


def test_all_networks_are_named() -> None:
    (paragraph,) = re.findall(r"Networks by name (.*?)and your own", README, flags=re.DOTALL)
    # In a separate process, since tests register further networks in this one.
    script = "from hypervlad.backbones import backbone_names; print(*backbone_names())"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(re.findall(r"`(\w+)`", paragraph)) == set(done.stdout.split())


def test_the_makefile_installs_the_same_as_the_readme() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (extras,) = re.findall(r'install "\.(\[\S+\])"', README.split("<!-- install -->")[1])
    assert f'-e ".{extras}"' in makefile
