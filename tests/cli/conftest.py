"""Fixtures of the tests of commands."""

from tests.search.conftest import short_idle

__all__ = ["short_idle"]
