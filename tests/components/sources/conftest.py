"""Databases for the tests of sources."""

from types import SimpleNamespace

import pytest

from rag_index.components.sources.attachments import FileReader
from rag_index.components.sources.text import NotText
from tests.components.sources.databases import KINDS, open_database
from tests.live.mariadb import mariadb

__all__ = ["mariadb"]


@pytest.fixture(scope="session")
def kept_database(postgres):
    """The server, and the name of a database that each test empties which asks for one."""
    with postgres.database() as name:
        yield postgres, name


@pytest.fixture(params=KINDS)
def database(request, tmp_path):
    """An empty database of each kind."""
    with open_database(request.param, request, tmp_path) as opened:
        yield opened


@pytest.fixture
def sqlite(request, tmp_path):
    """An empty database in a file."""
    with open_database("sqlite", request, tmp_path) as opened:
        yield opened


@pytest.fixture
def desk(request, tmp_path):
    """An empty database of PostgreSQL."""
    with open_database("postgresql", request, tmp_path) as opened:
        yield opened


@pytest.fixture
def mariadb_desk(request, tmp_path):
    """An empty database of MariaDB."""
    with open_database("mariadb", request, tmp_path) as opened:
        yield opened


@pytest.fixture(scope="module")
def read():
    """Return a function that returns the pages of a file, and the reason if something could not be read."""
    reader = FileReader(SimpleNamespace(files=None))

    def pages(data):
        found = []
        try:
            found.extend(reader.take(data, "file", None).read())
        except NotText as error:
            return found, str(error)
        return found, ""

    yield pages
    reader.close()
