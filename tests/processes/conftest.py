"""Queues without a model, and a server of one in a separate process."""

from support.review_queues import clock, make, served

__all__ = ["clock", "make", "served"]
