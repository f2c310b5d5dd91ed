"""Fixtures of the tests of commands."""

from tests.search.conftest import kept_processes

__all__ = ["kept_processes"]
