"""Programs that measure how accurate, reliable and fast hypervlad is."""

import hypervlad  # noqa: F401 (before torch, whose waiting threads then sleep)
