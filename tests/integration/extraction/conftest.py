"""The fixtures of all tests of extraction."""

from support.extraction_fixtures import computed, encoder, folder, read

__all__ = ["computed", "encoder", "folder", "read"]
