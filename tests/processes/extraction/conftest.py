"""The fixtures of all tests of extraction."""

from support.extraction_fixtures import complete, computed, encoder, folder, out, read

__all__ = ["complete", "computed", "encoder", "folder", "out", "read"]
