"""What tests need and a machine may lack: tests are skipped without it, unless it is required."""

import os

import pytest


def skip_without(name, reason):
    """Skip the test, or fail it if HYPERVLAD_REQUIRED lists ``name``, as the workflows let it."""
    if name in os.environ.get("HYPERVLAD_REQUIRED", "").split():
        pytest.fail(f"{reason}; HYPERVLAD_REQUIRED lists {name}", pytrace=False)
    pytest.skip(reason)
