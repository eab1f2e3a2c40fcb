"""Tests on larger networks give back their memory one by one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.memory import return_memory


@pytest.fixture(autouse=True)
def memory_of_a_test_is_returned() -> Iterator[None]:
    """Free networks after each test, not only after a module's."""
    yield
    return_memory()
