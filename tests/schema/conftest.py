"""Fixtures of the tests of `init`."""

from tests.live.mariadb import mariadb
from tests.schema.proposals import propose

__all__ = ["mariadb", "propose"]
