"""Tests on larger networks give back their memory one by one."""

import pytest
from support.memory import return_memory


@pytest.fixture(autouse=True)
def memory_of_a_test_is_returned():
    """Free networks after each test, not only after a module's."""
    yield
    return_memory()
