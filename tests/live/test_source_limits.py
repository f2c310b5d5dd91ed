"""The time limit of a query on real servers: their own limit, and a connection that is broken off."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from rag_index.errors import SourceTimedOut
from rag_index.sources.engine import limit_on_server, limited, open_read_only
from tests.live.mariadb import mariadb
from tests.live.postgres import postgres

__all__ = ["mariadb", "postgres"]

SLEEP = {"postgres": "SELECT pg_sleep(300)", "mariadb": "SELECT SLEEP(300)"}


@pytest.fixture(params=SLEEP)
def server(request):
    made = request.getfixturevalue(request.param)
    engine = open_read_only(made.url if request.param == "mariadb" else made.url("postgres"))
    yield engine, SLEEP[request.param]
    engine.dispose()


def sleep_in(engine: sa.Engine, statement: str, *, told: bool) -> None:
    """Run a statement with a limit of a second, of which the server is told or not."""
    with engine.connect() as connection, limited(connection, 1.0, "source x"):
        if told:
            limit_on_server(connection, 1.0, streams=False)
        connection.exec_driver_sql(statement)


def test_the_server_ends_a_query_that_takes_too_long(server, monkeypatch):
    monkeypatch.setattr("rag_index.sources.engine.GRACE_SECONDS", 200.0)
    with pytest.raises(SourceTimedOut, match="source x did not answer a query within 1 s"):
        sleep_in(*server, told=True)


def test_a_connection_that_stays_silent_is_broken_off(server, monkeypatch):
    monkeypatch.setattr("rag_index.sources.engine.GRACE_SECONDS", 0.0)
    with pytest.raises(SourceTimedOut, match="source x did not answer a query within 1 s"):
        sleep_in(*server, told=False)
    with server[0].connect() as connection:
        assert connection.scalar(sa.text("SELECT 1")) == 1, "the pool has another connection"
