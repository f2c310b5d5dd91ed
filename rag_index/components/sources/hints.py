"""Hints: whether an index's source may have been written since an earlier look. A look costs a
query of about a millisecond, with the rights of a reader. It is taken before a run reads, so that
the next one says whether that run has seen all. What no hint sees (foreign tables, functions of the
time, tables without transactions) is left to the run that comes after a while in any case.

    hints = Hints(settings, settings.indexes)
    before = hints.look()
    ...  # a run of comments
    hints.moved("comments", before["comments"], hints.look()["comments"])
"""

from __future__ import annotations

import os
import sqlite3
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from rag_index.components.sources.code import RACY_SECONDS
from rag_index.components.sources.engine import errors_as_ours, limited, open_read_only
from rag_index.components.sources.listing import list_files
from rag_index.components.sources.source_tables import relations_read, tables_read
from rag_index.core.settings.index import CODE, SQL
from rag_index.errors import RagIndexError, SourceError, SourceUnavailable, TransientError

if TYPE_CHECKING:
    from rag_index.core.settings import IndexSettings, Settings

LOOK_TIMEOUT = 5.0
BLIND_SECONDS = 60.0
"""How long a database that could not be asked twice in a row is not asked. Chosen; nothing depends
on it."""
TABLES_SECONDS = 15.0
"""How long after the last commit the tables' counters are read: PostgreSQL's come up to 11 seconds
late."""
LISTING_SHARE = 0.05
"""The share of the time that may go to listing a folder."""
SEVERAL = "its connections lead to several servers"
CONNECTIONS = 3
"""New connections that are asked for their server: a balancer may send each to another one."""


class Moved(IntEnum):
    """Whether an index's tables were written between two looks."""

    NO = 0
    """Nothing that readers can see was."""
    PERHAPS = 1
    """Something was, but not these tables, as far as their counters tell."""
    YES = 2


@dataclass(frozen=True, slots=True)
class Look:
    """What a source said at one moment. What has to count as written since is a new object, which
    equals no other."""

    at: float
    """Everything that was committed before this time could be read then."""
    exact: object
    """It is the same as long as nothing was written."""
    tables: Mapping[str, object] = field(default_factory=dict)
    """What changes with each table, sooner or later."""
    folder: object = None


class ServerHint(ABC):
    """The hint of a server, for all indexes. `blind` says why it cannot be one; "" if it can. It
    keeps a connection; after an error, another object is needed."""

    server: str
    """The columns of what tells one server, and one start of it, from another."""
    now: str
    """The column of the time, in seconds since 1970, by which a reader sees all that was
    committed."""
    exact: str = ""
    """Columns that change with each commit that wrote, not before readers can see it, if one query
    has them all."""

    def __init__(self, settings: Settings, tables: Sequence[IndexSettings]) -> None:
        self._url, self._me = (
            settings.source_url,
            object(),
        )  # what two connections say cannot be compared
        self._engine = open_read_only(self._url)
        self._connection: Any = None
        self._read: dict[str, set[str]] = {}
        try:
            with errors_as_ours(self._url, "whether it was written"):
                self._servers = [self._asked() for _ in range(CONNECTIONS)]
                self._connection = self._engine.connect().execution_options(
                    isolation_level="AUTOCOMMIT"
                )
                for index in tables:
                    named = relations_read(index.model_dump(by_alias=True))
                    self._read[index.name] = tables_read(self._connection, named)
        except BaseException:
            self.close()
            raise
        self.every = sorted({one for some in self._read.values() for one in some})
        self.blind = SEVERAL if len({*self._servers}) > 1 else ""

    def _asked(self) -> tuple[Any, ...]:
        with self._engine.connect() as connection:
            found = tuple(connection.exec_driver_sql(f"SELECT {self.server}").one())
            connection.invalidate()
        return found

    def look(self) -> Look:
        """Return what the database says now. Raises SourceUnavailable, SourceError and
        SettingsError."""
        columns = ", ".join(filter(None, (self.now, self.server, self.exact)))
        with (
            errors_as_ours(self._url, "whether it was written"),
            limited(self._connection, LOOK_TIMEOUT, "whether the source was written"),
        ):
            began = time.time()
            at, *found = self._connection.exec_driver_sql(f"SELECT {columns}").one()
            server = tuple(found[: len(self._servers[-1])])
            if server != self._servers[-1]:
                self.blind = SEVERAL if server in self._servers else ""
                self._servers.append(server)
            exact = (self._me, *found, *self._exact())
            return Look(min(began, float(at or 0.0)), exact, self._tables(exact))

    def tables_of(self, index: IndexSettings) -> set[str]:
        """Return the tables that an index reads, as far as the database tells, if they have
        counters."""
        return self._read.get(index.name, set())

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._engine.dispose()

    def _exact(self) -> tuple[Any, ...]:
        """Return what is as `exact`, and has a query of its own."""
        return ()

    @abstractmethod
    def _tables(self, exact: object) -> Mapping[str, object]:
        """Return what tells of each table whether it was written."""


class PostgresqlHint(ServerHint):
    """The snapshot of a reader stays the same until a transaction that wrote has ended: a late one
    too, and one of two phases. It is that of all databases of the server. The tables' counters tell
    these apart later, and TRUNCATE changes the file. On a standby the snapshot is not exact, and no
    table is counted: there the place in the log decides."""

    server = (
        "pg_postmaster_start_time(), inet_server_addr()::text, inet_server_port(),"
        " pg_is_in_recovery()"
    )
    now = """extract(epoch FROM CASE WHEN pg_is_in_recovery() THEN pg_last_xact_replay_timestamp()
        ELSE statement_timestamp() END)"""  # that is before the snapshot, as the replay's time is before its place
    exact = """CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()::text
        ELSE pg_current_snapshot()::text END"""
    TABLES = sa.text("""WITH RECURSIVE named AS (
            SELECT oid, relname::text AS top FROM pg_class WHERE relname = ANY (:names) AND relkind IN ('r', 'p', 'm')
            UNION SELECT inhrelid, top FROM pg_inherits JOIN named ON inhparent = named.oid)
        SELECT top, pg_is_in_recovery(), sum(pg_stat_get_tuples_inserted(oid) + pg_stat_get_tuples_updated(oid)
            + pg_stat_get_tuples_deleted(oid))::text, string_agg(concat_ws(' ', oid, pg_relation_filenode(oid)), ' '
            ORDER BY oid) FROM named GROUP BY top""")
    _last: tuple[object, float, Mapping[str, object]] = (None, 0.0, {})

    def _tables(self, exact: object) -> Mapping[str, object]:
        last, since, tables = self._last
        now = time.monotonic()
        since = since if exact == last else now
        if now - since <= TABLES_SECONDS:
            rows = self._connection.execute(self.TABLES, {"names": self.every})
            tables = {top: object() if standby else tuple(rest) for top, standby, *rest in rows}
        self._last = exact, since, tables
        return tables


class MariadbHint(ServerHint):
    """InnoDB counts up when a transaction begins to write, and when it is committed. `UPDATE_TIME`
    says in whole seconds when a transaction that wrote a table was committed, but for XA COMMIT,
    TRUNCATE and ALTER TABLE.

    Views and functions are replaced without InnoDB. The server counts each such statement when it
    begins. A statement that waits for the lock of a backup takes effect later, so `Syncs` counts
    too: the server writes files to disk before the statement ends. No other session can read the
    view between that and its end."""

    server = "@@hostname, @@port, @@server_id"
    now = "unix_timestamp(now(6))"
    COMMITS = "Innodb_max_trx_id"
    DEFINITIONS = (
        "Syncs",
        "Com_create_view",
        "Com_drop_view",
        "Com_rename_table",
        "Com_drop_db",
        "Com_create_function",
        "Com_alter_function",
        "Com_drop_function",
        "Com_create_udf",
        "Com_create_procedure",
        "Com_alter_procedure",
        "Com_drop_procedure",
        "Com_create_package",
        "Com_create_package_body",
        "Com_drop_package",
        "Com_drop_package_body",
    )
    """What changes with the definitions that a query may use. ALTER VIEW counts as
    Com_create_view."""
    COUNTED_SINCE = ("Uptime", "Uptime_since_flush_status")
    """The ages of the counters. Less than the server's time, they are the moments when counting
    began again."""
    COUNTERS = sa.text("""SELECT variable_name,
            IF(variable_name IN :ages, unix_timestamp() - variable_value, variable_value)
        FROM information_schema.global_status WHERE variable_name IN :ages OR variable_name IN :counters
        ORDER BY variable_name""").bindparams(
        sa.bindparam("ages", COUNTED_SINCE, expanding=True),
        sa.bindparam("counters", (COMMITS, *DEFINITIONS), expanding=True),
    )
    TABLES = sa.text(
        """SELECT table_name, update_time, now() - INTERVAL 2 SECOND > update_time
        FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name IN :names"""
    ).bindparams(sa.bindparam("names", expanding=True))

    def __init__(self, settings: Settings, tables: Sequence[IndexSettings]) -> None:
        super().__init__(settings, tables)
        commits = self._connection.exec_driver_sql(f"SHOW GLOBAL STATUS LIKE '{self.COMMITS}'")
        if commits.first() is None:
            self.blind = "it does not tell when it was last written"  # MySQL

    def _exact(self) -> tuple[Any, ...]:
        if self.blind:
            return ()
        rows = self._connection.execute(self.COUNTERS)
        return tuple(tuple(row) for row in rows)

    def _tables(self, exact: object) -> Mapping[str, object]:
        rows = self._connection.execute(self.TABLES, {"names": self.every})
        return {
            name: time if settled is None or settled else object() for name, time, settled in rows
        }


class SqliteHint:
    """The same of a SQLite file. `data_version` of a kept connection changes when another one
    commits, whatever the journal. A file that was put in the place of another one is noticed by its
    number."""

    blind = ""

    def __init__(self, settings: Settings, tables: Sequence[IndexSettings]) -> None:
        self._url, self._file = (
            settings.source_url,
            Path(str(settings.source_url.database)).absolute(),
        )
        open_read_only(self._url).dispose()  # raises if there is no file
        given = f"{self._file.as_uri()}?mode=ro"
        self._opened, self._me = self._number(), object()
        self._connection = sqlite3.connect(given, uri=True, timeout=LOOK_TIMEOUT)
        try:
            self._connection.execute("PRAGMA data_version")
        except sqlite3.OperationalError as error:  # a log on a read-only mount
            self._connection.close()
            raise SourceError(
                f"source {self._file} does not tell when it was written: {error}"
            ) from error

    def look(self) -> Look:
        at = time.time()
        try:
            same = self._number() == self._opened
            version = self._connection.execute("PRAGMA data_version").fetchone()
        except (sqlite3.Error, OSError) as error:
            raise SourceUnavailable(
                f"source {self._file} cannot be asked whether it was written: {error}"
            ) from error
        if not same:
            raise SourceUnavailable(f"source {self._file} is another file than before")
        return Look(at, (self._me, version))

    def tables_of(self, index: IndexSettings) -> set[str]:
        return set()

    def close(self) -> None:
        self._connection.close()

    def _number(self) -> tuple[int, int]:
        found = self._file.stat()
        return found.st_dev, found.st_ino


DATABASES: Mapping[str, Callable[[Settings, Sequence[IndexSettings]], ServerHint | SqliteHint]] = {
    "postgresql": PostgresqlHint,
    "mariadb": MariadbHint,
    "mysql": MariadbHint,
    "sqlite": SqliteHint,
}


class FolderHint:
    """The names, sizes and times of the files in a folder: of source code by its rules, else of
    all."""

    def __init__(self, root: Path, index: IndexSettings) -> None:
        self._root, self._index = root, index
        self._due, self._last = 0.0, (0.0, object())

    def look(self) -> tuple[float, object]:
        """Return the time of the last listing, and what it was. A folder that is large is listed
        seldom."""
        began = time.monotonic()
        if began >= self._due:
            at = time.time()
            try:
                newest, stamps = self._list()
                seen: object = blake2b(repr(sorted(stamps)).encode(), digest_size=16).digest()
                seen = (
                    seen if newest < at - RACY_SECONDS else object()
                )  # its file may change within that time again
            except (RagIndexError, OSError):
                seen = object()  # a run says it
            self._last = at, seen
            now = time.monotonic()
            self._due = now + (now - began) / LISTING_SHARE
        return self._last

    def _list(self) -> tuple[float, list[tuple[Any, ...]]]:
        index, stamps, newest = self._index, list[tuple[Any, ...]](), 0.0
        if index.kind == CODE:
            listing = list_files(self._root, index.include, index.exclude, index.languages)
            stamps = [
                *((file.path, file.stamp) for file in listing.files),
                *((one.key,) for one in listing.failures),
            ]
            return max((file.changed_at for file in listing.files), default=0.0), stamps
        for folder, _, names in os.walk(self._root):
            for name in names:
                found = (path := Path(folder, name)).lstat()
                stamps.append(
                    (str(path), found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)
                )
                newest = max(newest, found.st_mtime, found.st_ctime)
        return newest, stamps


class Hints:
    """The hints of some indexes. `blind` says of each index without one why, by its name."""

    def __init__(self, settings: Settings, indexes: Sequence[IndexSettings]) -> None:
        self._settings = settings
        self._sql = [index for index in indexes if index.kind == SQL]
        roots = {index.name: _folder(settings, index) for index in indexes}
        self._folders = {
            i.name: FolderHint(root, i) for i in indexes if (root := roots[i.name]) is not None
        }
        self._names = [index.name for index in indexes]
        self._database: ServerHint | SqliteHint | None = None
        kinds = "a source of its own does not tell when it was written"
        self.blind = {i.name: kinds for i in indexes if i.kind not in (SQL, CODE)}
        self._has_failed = False
        """Whether the last look at the database ended with an error that does not pass by
        itself."""
        self._ask_again_at: float | None = None
        """When a database that failed twice is asked again; None if it is asked at each look."""
        if self._sql and settings.source_url.get_backend_name() not in DATABASES:
            self.blind |= {
                index.name: "its database does not tell when it was last written"
                for index in self._sql
            }

    def look(self) -> dict[str, Look]:
        """Return what is known of each index's source now. What cannot be asked counts as
        written."""
        self._see_again_if_due()
        at, folders = time.time(), {name: hint.look() for name, hint in self._folders.items()}
        sql = Look(at, object())
        if any(index.name not in self.blind for index in self._sql):
            try:
                if self._database is None:
                    self._database = DATABASES[self._settings.source_url.get_backend_name()](
                        self._settings, self._sql
                    )
                sql = self._database.look()
                if self._database.blind:
                    self._leave(self._database.blind)
            except (TransientError, OSError):
                self.close()
            except RagIndexError as error:
                self._note_failure(str(error))
            else:
                self._has_failed = False
        others = Look(at, object())
        looks = dict.fromkeys(self._names, others) | {index.name: sql for index in self._sql}
        for name, (listed_at, seen) in folders.items():
            one = looks[name]
            exact = one.exact if one is sql else None
            looks[name] = Look(min(listed_at, one.at), exact, one.tables, seen)
        return looks

    def moved(self, name: str, before: Look, now: Look) -> Moved:
        """Return whether the source of an index may have been written between two looks."""
        if before.folder != now.folder:
            return Moved.YES
        index = next((one for one in self._sql if one.name == name), None)
        ours = (
            self._database.tables_of(index)
            if index is not None and self._database is not None
            else set()
        )
        same = all(before.tables.get(table) == now.tables.get(table) for table in ours)
        if before.exact == now.exact:
            return Moved.NO
        return Moved.PERHAPS if ours and same else Moved.YES

    def close(self) -> None:
        """Close the connection to the database. The next look opens another one, after which all
        counts as written."""
        if self._database is not None:
            self._database.close()
        self._database = None

    def _note_failure(self, why: str) -> None:
        """Do without the hint for a while, once the database failed twice in a row.

        The first failure counts as written: the run that follows says what is wrong with the
        database. One that is restored is missing for a moment, such as between DROP DATABASE and
        ALTER DATABASE … RENAME.
        """
        if not self._has_failed:
            self._has_failed = True
            self.close()
            return
        self._leave(why)
        self._ask_again_at = time.monotonic() + BLIND_SECONDS

    def _see_again_if_due(self) -> None:
        """Ask a database again a while after it failed twice."""
        if self._ask_again_at is None or time.monotonic() < self._ask_again_at:
            return
        self._ask_again_at = None
        for index in self._sql:
            self.blind.pop(index.name, None)

    def _leave(self, why: str) -> None:
        self.close()
        self.blind |= {index.name: why for index in self._sql}


def _folder(settings: Settings, index: IndexSettings) -> Path | None:
    if index.kind == CODE:
        return settings.root(index)
    return settings.folder / index.files.expanduser() if index.files is not None else None
