"""The connection that all parts of the ledger share: transactions, error messages, and lists of keys as parameters."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import event, exc
from sqlalchemy.sql.operators import custom_op

from rag_index.database.files import private_file
from rag_index.database.sqlite import insert_for, interrupts_deferred, set_pragmas
from rag_index.database.urls import first_line, is_file, is_transient, missing_driver, redacted_url
from rag_index.errors import LedgerError, LedgerUnavailable, SettingsError
from rag_index.ledger.migrations import migrate
from rag_index.ledger.tables import documents

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sqlalchemy.engine import URL, Connection, Engine

CONNECT_SECONDS = 10


class LedgerConnection:
    """One connection to the ledger's database, which threads of a process may share.

    Its methods raise LedgerUnavailable if another try may help, and LedgerError (or LedgerTooNew) if not.
    """

    def __init__(self, url: URL, *, clock: Callable[[], float] = time.time) -> None:
        self.redacted_url = redacted_url(url)
        self._url = url
        self.clock = clock
        self._lock = threading.RLock()
        self.engine = _engine(url)
        self._insert = insert_for(self.engine.dialect)
        with self._map_errors():
            self._connection = self.engine.connect()
        with self.transaction() as connection:
            migrate(connection, redacted_url=self.redacted_url)

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._connection.close()
            self.engine.dispose()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Run the statements of the block as one transaction. Signals are deferred until its end."""
        with interrupts_deferred(), self._lock, self._map_errors():
            if self._connection.in_transaction():
                yield self._connection
                return
            with self._connection.begin():
                yield self._connection

    def _execute_many(
        self, connection: Connection, statement: Any, names: Sequence[str], rows: list[tuple[Any, ...]]
    ) -> None:
        """Execute a statement for each row, whose values belong to the parameters `names`.

        On SQLite this skips SQLAlchemy's work for each value and is 4 times faster. Every document passes here.
        """
        compiled = statement.compile(dialect=self.engine.dialect)
        if compiled.positional and list(compiled.positiontup) == list(names):
            connection.exec_driver_sql(str(compiled), rows)
        else:
            connection.execute(statement, [dict(zip(names, row, strict=True)) for row in rows])

    def _is_in_index(self, collection_id: int) -> sa.ColumnElement[bool]:
        """Return the condition for a document of a collection, in a query that is for one of the small indexes.

        These have the pending, the held back and the empty documents. SQLite would rather look at all documents of the
        collection by the primary key, which a `+` before the column prevents.
        """
        column: sa.ColumnElement[int] = documents.c.collection_id
        if self.engine.dialect.name == "sqlite":
            column = sa.UnaryExpression(column, operator=custom_op("+"), type_=sa.Integer())
        return column == collection_id

    def _is_in_keys(self, column: Any) -> sa.ColumnElement[bool]:
        """Return the condition that `column` is one of `keys`, which is one bound parameter for any number of keys."""
        if self.engine.dialect.name == "sqlite":
            return column.in_(self._keys_as_rows())  # type: ignore[no-any-return]
        return column == sa.any_(sa.bindparam("keys", type_=_array(sa.Text)))  # type: ignore[no-any-return]

    def _keys_as_rows(self) -> sa.Select[Any]:
        """Return a SELECT with a row for each key of the bound parameter `keys`."""
        if self.engine.dialect.name == "sqlite":
            return sa.select(sa.func.json_each(sa.bindparam("keys")).table_valued("value").c.value)
        return sa.select(sa.func.unnest(sa.bindparam("keys", type_=_array(sa.Text))))

    def _bind_keys(self, keys: Sequence[str]) -> Any:
        """Return the value of the bound parameter `keys`."""
        return json.dumps(list(keys)) if self.engine.dialect.name == "sqlite" else list(keys)

    def _pairs_as_rows(self) -> sa.Select[Any]:
        """Return a SELECT with a row for each pair of a key and a number of `_bind_pairs`."""
        if self.engine.dialect.name == "sqlite":
            pair = sa.func.json_each(sa.bindparam("pairs")).table_valued("value").c.value
            return sa.select(sa.func.json_extract(pair, "$[0]"), sa.func.json_extract(pair, "$[1]"))
        keys = sa.bindparam("keys", type_=_array(sa.Text))
        numbers = sa.bindparam("numbers", type_=_array(sa.BigInteger))
        pairs = sa.func.unnest(keys, numbers).table_valued("key", "number").render_derived()
        return sa.select(pairs.c.key, pairs.c.number)

    def _bind_pairs(self, keys: Sequence[str], numbers: Sequence[int]) -> dict[str, Any]:
        """Return the bound parameters of `_pairs_as_rows`."""
        if self.engine.dialect.name == "sqlite":
            return {"pairs": json.dumps(list(zip(keys, numbers, strict=True)))}
        return {"keys": list(keys), "numbers": list(numbers)}

    @contextmanager
    def _map_errors(self) -> Iterator[None]:
        """Raise errors of SQLAlchemy as errors of the ledger."""
        try:
            yield
        except exc.SQLAlchemyError as error:
            raise _map_error(error, self._url) from error


def _array(of: Any) -> Any:
    """Return PostgreSQL's type of arrays. Its dialect is imported for it alone: that takes 20 ms."""
    from sqlalchemy.dialects import postgresql

    return postgresql.ARRAY(of)


def _engine(url: URL) -> Engine:
    if url.get_backend_name() not in ("sqlite", "postgresql"):
        raise SettingsError(f"ledger: {url.drivername!r} cannot hold a ledger; use sqlite or postgresql")
    is_sqlite = url.get_backend_name() == "sqlite"
    if is_file(url):
        try:
            private_file(Path(str(url.database)))
        except OSError as error:
            raise LedgerError(
                f"ledger: {url.database} cannot be created: {error.strerror}; set `data` to a folder that can be "
                "written, or set [ledger] url"
            ) from error
    try:
        engine = sa.create_engine(url, connect_args={} if is_sqlite else {"connect_timeout": CONNECT_SECONDS})
    except (exc.NoSuchModuleError, ModuleNotFoundError) as error:
        raise SettingsError(f"ledger: {missing_driver(url, error)}") from error
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _sqlite_pragmas)
    return engine


def _sqlite_pragmas(connection: Any, _record: object) -> None:
    pragmas = ("journal_mode=WAL", "synchronous=FULL", "temp_store=FILE", "cache_size=-16384", "secure_delete=ON")
    set_pragmas(connection, pragmas)


def _map_error(error: exc.SQLAlchemyError, url: URL) -> Exception:
    origin, name = first_line(error, url), redacted_url(url)
    lowered = origin.lower()
    if "full" in lowered:
        return LedgerError(f"ledger {name}: the disk is full ({origin}). Nothing is lost: make room and run again")
    if "readonly" in lowered or "read-only" in lowered:
        return LedgerError(f"ledger {name} cannot be written ({origin}); correct its permissions")
    if "malformed" in lowered or "not a database" in lowered:
        return LedgerError(f"ledger {name} is damaged ({origin}); rebuild it with `rag-index doctor --repair`")
    if is_transient(error):
        return LedgerUnavailable(
            f"ledger {name} does not answer: {origin}. Check that it runs and that the URL is right"
        )
    return LedgerError(f"ledger {name} refuses: {origin}")
