"""Queues without a model."""

from support.review_queues import clock, make, queue

__all__ = ["clock", "make", "queue"]
