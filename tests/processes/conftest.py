"""A model of three textures, queues without a model, and a server of one."""

from support.commands import folder, model
from support.review_queues import clock, make, served

__all__ = ["clock", "folder", "make", "model", "served"]
