"""The blocks of code of the README and of the documentation's pages, and how they are run."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from support.paths import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("[!_]*/*.md"))]


def blocks(page: Path) -> list[tuple[str, str]]:
    """Return the language and the text of a page's blocks of Python and of commands, in order."""
    text = page.read_text(encoding="utf-8")
    return re.findall(r"^```(python|console)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def run(
    command: list[str], folder: Path, *, input: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command as a reader would; it must succeed."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        input=input,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done
