"""The fixtures of all tests of extraction."""

from support.extraction_fixtures import complete, computed, encoder, extract, folder, out, read

__all__ = ["complete", "computed", "encoder", "extract", "folder", "out", "read"]
