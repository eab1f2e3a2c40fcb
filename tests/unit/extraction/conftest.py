"""The fixtures of all tests of extraction."""

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

__all__ = ["complete", "encoder", "expected", "extract", "folder", "network", "opened", "out"]
