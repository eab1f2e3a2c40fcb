"""Conformance to scikit-learn: on the tiny network, without other processes."""

from support.unit_rules import pytest_runtest_protocol

__all__ = ["pytest_runtest_protocol"]
