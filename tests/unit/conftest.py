"""Unit tests: on the tiny network, without other processes, each well under a second."""

from support.unit_rules import pytest_runtest_protocol

__all__ = ["pytest_runtest_protocol"]
