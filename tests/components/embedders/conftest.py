"""Fixtures: a fake server, and embedders that use it."""

from tests.fakes.embedders import make_embedder, server

__all__ = ["make_embedder", "server"]
