"""A service desk on a database that can be killed, a server or a file; its index, and what the
index should show."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from sqlalchemy.engine import URL, make_url

from rag_index.components.stores import open_reader
from rag_index.core.settings import load_settings
from tests.fakes.qdrant import FakeQdrant
from tests.live.mariadb import MariadbServer, find_mariadb
from tests.live.postgres import PostgresServer, find_postgres
from tests.live.sessions import Session

WAYS = ("postgresql", "sqlite", "mariadb", "postgresql-server")
"""The database, and whether the store is a server of its own."""
NOW = {
    "postgresql": "SELECT extract(epoch FROM clock_timestamp())",
    "sqlite": "SELECT (julianday('now') - 2440587.5) * 86400.0",
    "mariadb": "SELECT unix_timestamp(now(6))",
}
"""The time of each database, in seconds since 1970."""
JOINED = (
    "SELECT t.id, t.body, t.state, t.customer_id, c.name FROM ticket t JOIN customer c ON c.id ="
    " t.customer_id"
)
SETTINGS = """\
project = "chaos"
[source]
url = "{url}"
[run]
delete_guard = 1.0
{services}
[[indexes]]
name = "tickets"
query = "{joined}"
key = "id"
text = "{{name}}: {{body}} of ticket {{id_text}}"
payload = ["customer_id", "state"]
[[indexes]]
name = "customers"
table = "customer"
key = "id"
text = "name"
"""


class Desk:
    """Tickets that show their customers."""

    def __init__(self, folder: Path, url: URL, *, services: str = "", tickets: int = 1000) -> None:
        self.folder, self.url, backend = folder, url, url.get_backend_name()
        self.tickets, self.customers = tickets, max(2, tickets // 25)
        self.begin, self.now = "BEGIN IMMEDIATE" if backend == "sqlite" else "BEGIN", NOW[backend]
        self.config = folder / "rag-index.toml"
        text = SETTINGS.format(
            url=url.render_as_string(hide_password=False), joined=JOINED, services=services
        )
        cast = "CAST(t.id AS CHAR(12))" if backend == "mariadb" else "CAST(t.id AS TEXT)"
        self.config.write_text(text.replace("SELECT t.id,", f"SELECT t.id, {cast} AS id_text,"))
        self._fill()

    def session(self) -> Session:
        return Session(self.url)

    def expected(self) -> dict[str, dict[str, tuple[str, Any, Any]]]:
        """Return text and payload of what the source has, by index and document id."""
        with closing(self.session()) as session:
            joined = session.run(JOINED)
            customers = session.run("SELECT id, name FROM customer")
        return {
            "tickets": {
                str(i): (f"{name}: {body} of ticket {i}", who, state)
                for i, body, state, who, name in joined
            },
            "customers": {str(number): (name, None, None) for number, name in customers},
        }

    def indexed(self) -> dict[str, dict[str, tuple[str, Any, Any]]]:
        """Return text and payload of what the store has, as `expected`. Each document is one
        point."""
        settings = load_settings(self.config)
        found: dict[str, dict[str, tuple[str, Any, Any]]] = {"tickets": {}, "customers": {}}
        with closing(open_reader(settings.store, wait=10)) as reader:
            for name, documents in found.items():
                for point in reader.points(settings.alias(name)).scroll():
                    ours = point.payload["_rag"]
                    assert ours["document_id"] not in documents, "two points of a document"
                    documents[ours["document_id"]] = (
                        ours["text"].strip(),
                        point.payload.get("customer_id"),
                        point.payload.get("state"),
                    )
        return found

    def differences(self) -> dict[str, list[str]]:
        """Return the ids of the documents that differ, by index."""
        indexed, wrong = self.indexed(), {}
        for name, documents in self.expected().items():
            ids = documents.keys() | indexed[name].keys()
            if differing := sorted(
                one for one in ids if documents.get(one) != indexed[name].get(one)
            ):
                wrong[name] = differing
        return wrong

    def _fill(self) -> None:
        with closing(self.session()) as session:
            session.run("CREATE TABLE customer (id integer PRIMARY KEY, name varchar(200))")
            columns = (
                "id integer PRIMARY KEY, body varchar(200), state varchar(50), customer_id integer"
            )
            session.run(f"CREATE TABLE ticket ({columns})")
            session.run("CREATE INDEX ticket_customer ON ticket (customer_id)")
            session.run(self.begin)
            for number in range(self.customers):
                session.run(f"INSERT INTO customer VALUES ({number}, 'customer {number}')")
            for number in range(self.tickets):
                session.run(
                    f"INSERT INTO ticket VALUES ({number}, 'first', 'new',"
                    f" {number % self.customers})"
                )
            session.run("COMMIT")


def crash(server: Any) -> None:
    """Kill a database server as a power cut of its processes would, and start it again."""
    process = server._process
    os.kill(process.pid, signal.SIGQUIT if "Postgres" in type(server).__name__ else signal.SIGKILL)
    process.wait(timeout=60)
    server.start()


class Missing(Exception):
    """A program that is not installed here."""


def open_desk(
    stack: ExitStack, folder: Path, way: str, *, tickets: int, services: str = ""
) -> tuple[Desk, dict]:
    """Return a desk, and what of it a trial may kill."""
    database, *store = way.split("-")
    what: dict[str, Any] = {}
    if store:
        what["qdrant"] = stack.enter_context(FakeQdrant())
        services += f'[store]\nurl = "{what["qdrant"].url}"'
    if database == "sqlite":
        url = make_url(f"sqlite:///{folder}/source.db")
        with closing(Session(url)) as session:
            session.run("PRAGMA journal_mode = WAL")
    elif database == "postgresql":
        programs = find_postgres()
        if isinstance(programs, str):
            raise Missing(programs)
        what["server"] = stack.enter_context(PostgresServer(programs))
        url = what["server"].url(stack.enter_context(what["server"].database()))
    else:
        found = find_mariadb()
        if isinstance(found, str):
            raise Missing(found)
        url = stack.enter_context(
            MariadbServer(*found)
        ).url  # it loses commits when it is killed: that is not tried
    return Desk(folder, url, services=services, tickets=tickets), what
