"""The fixtures of all tests of extraction."""

# ruff: noqa: F401
from support.extraction_fixtures import (
    complete,
    encoder,
    expected,
    extract,
    folder,
    network,
    opened,
    out,
)
