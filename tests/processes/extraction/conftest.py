"""The fixtures of all tests of extraction."""

from support.extraction_fixtures import encoder, folder, network

__all__ = ["encoder", "folder", "network"]
