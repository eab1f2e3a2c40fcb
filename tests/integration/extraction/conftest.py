"""The fixtures of all tests of extraction."""

from support.extraction_fixtures import *  # noqa: F403
