"""A real PostgreSQL as source, as ledger, and as Prefect's database, with 200,000 rows."""

from __future__ import annotations

import time

import pytest

from rag_index.database.urls import database_url
from rag_index.ledger import Ledger
from tests.deployments.server import PrefectServer
from tests.live.postgres import postgres
from tests.project import Project

__all__ = ["postgres"]

pytestmark = pytest.mark.long

ROWS = 200_000
TABLE = f"""
CREATE SCHEMA desk;
CREATE TABLE desk.note (
    id bigint PRIMARY KEY, title text NOT NULL, body text, tags text[], about jsonb, updated_at timestamptz NOT NULL
);
INSERT INTO desk.note
SELECT i, 'Note ' || i, 'The printer of room ' || i % 977 || ' does not work since week ' || i % 53,
       ARRAY['t' || i % 7, 'x'], jsonb_build_object('room', i % 977),
       timestamptz '2026-01-01 UTC' + i * interval '1 second'
FROM generate_series(1, {ROWS}) AS i;
"""
SETTINGS = """\
project = "desk"
[source]
url = "{source}"
[ledger]
url = "{ledger}"
[[indexes]]
name = "notes"
table = "note"
schema = "desk"
key = "id"
text = ["title", "body"]
payload = ["tags", "about", "updated_at"]
"""


def test_a_night_on_postgresql_alone(postgres, tmp_path):
    with postgres.database() as source, postgres.database() as ledger, postgres.database() as prefect:
        with postgres.connect(source) as connection:
            connection.execute(TABLE)
        urls = {
            name: postgres.url(database).render_as_string(hide_password=False)
            for name, database in {"source": source, "ledger": ledger, "prefect": prefect}.items()
        }
        project = Project(tmp_path / "project")
        project.write_settings(SETTINGS.format(**urls))
        database = urls["prefect"].replace("+psycopg", "+asyncpg")
        with PrefectServer(tmp_path / "server", PREFECT_SERVER_DATABASE_CONNECTION_URL=database) as server:
            server.deploy()
            with server.worker(tmp_path / "elsewhere", RAG_INDEX_CONFIG=str(project.config)):
                first, seconds = night(server)
                assert f"{ROWS:,} documents indexed, 0 failed" in first
                print(f"\nfirst run, {ROWS:,} rows: {seconds:.1f} s")
                with postgres.connect(source) as connection:
                    connection.execute("UPDATE desk.note SET body = 'The lamp is broken.' WHERE id % 1000 = 0")
                    connection.execute("DELETE FROM desk.note WHERE id % 10000 = 1")
                second, seconds = night(server)
                assert f"200 documents indexed, 0 failed, 20 deleted, {ROWS - 220:,} unchanged" in second
                print(f"second run, 220 rows changed: {seconds:.1f} s")
        kept = Ledger(database_url(urls["ledger"], tmp_path))
        (collection,) = kept.collections("desk_notes")
        assert kept.totals(collection.id).documents == ROWS - 20
        kept.close()
        with postgres.connect(prefect) as connection:
            (runs,) = connection.execute("SELECT count(*) FROM flow_run WHERE state_type = 'COMPLETED'").fetchone()
            assert runs >= 4
            (written,) = connection.execute("SELECT count(*) FROM flow_run_state").fetchone()
            assert written > 0


def night(server) -> tuple[str, float]:
    """Run the deployment, and return the run's message and its seconds."""
    run = server.start("index-all/index-all")["id"]
    began = time.monotonic()
    ended = server.wait_for_end(run)
    assert ended["state_name"] == "Completed", ended["state"]["message"]
    return ended["state"]["message"], time.monotonic() - began
