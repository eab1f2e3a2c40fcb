#!/usr/bin/env -S uv run --script
# /// script
# dependencies = ["nox>=2025.5"]
# ///
"""The checks of the Makefile for those who use nox: `nox`, or `nox -s docs`.

Each runs a target of the Makefile, which keeps the environment in .venv and the commands.
"""

import nox

nox.needs_version = ">=2025.5"
nox.options.default_venv_backend = "none"


@nox.session
def lint(session: nox.Session) -> None:
    """Style, types, imports and the files of the repository."""
    session.run("make", "lint", external=True)


@nox.session
def tests(session: nox.Session) -> None:
    """The tests that tell whether an installation works."""
    session.run("make", "test", f"ARGS={' '.join(session.posargs)}", external=True)


@nox.session(default=False)
def docs(session: nox.Session) -> None:
    """The documentation."""
    session.run("make", "docs", external=True)


@nox.session(default=False)
def build(session: nox.Session) -> None:
    """A source archive and a wheel, and a trial of the wheel."""
    session.run("make", "wheel", external=True)


if __name__ == "__main__":
    nox.main()
