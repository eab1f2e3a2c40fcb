"""Attacks with generated input: ``python -m tests.campaign --minutes 1``, or 480 for a night."""
