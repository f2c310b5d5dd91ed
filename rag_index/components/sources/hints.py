"""Hints: whether the source of an index may have been written since an earlier look.

A look is a query of about a millisecond, with the rights of a reader. It is taken before a run
reads, so that the next look shows whether that run has seen everything. Some changes are in no hint
(of foreign tables, functions of the time, tables without transactions). A run that comes after a
while in any case finds them.

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
from types import MappingProxyType
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
"""Seconds of the time limit of a look. Chosen; nothing depends on it."""
BLIND_SECONDS = 60.0
"""Seconds without a look after two looks in a row failed. Chosen; nothing depends on it."""
TABLES_SECONDS = 15.0
"""Seconds after the last commit in which the counters of tables are read: PostgreSQL's are up to 11
seconds late."""
LISTING_SHARE = 0.05
"""The share of the time that listing a folder may take. Chosen; nothing depends on it."""
SEVERAL = "its connections lead to several servers"
CONNECTIONS = 3
"""New connections whose servers are compared: a balancer may send each to another one. Chosen;
nothing depends on it."""


class Moved(IntEnum):
    """Whether an index's tables were written between two looks."""

    NO = 0
    """Nothing was written that readers can see."""
    PERHAPS = 1
    """Something was written, but not these tables by their counters, which may be late."""
    YES = 2
    """The tables were written, or it is unknown."""


@dataclass(frozen=True, slots=True)
class Look:
    """The state of a source at one moment. A part of it that must count as written since is a new
    object, which equals no other."""

    at: float
    """Everything that was committed before this time could be read, in seconds since 1970."""
    exact: object
    """It equals that of an earlier look as long as nothing was written."""
    tables: Mapping[str, object] = field(default_factory=dict)
    """Values that change when a table is written, by its name; they may be late."""
    folder: object = None
    """The digest of the listing of its folder, if it has one."""


class ServerHint(ABC):
    """The hint of a server, for all indexes.

    `blind` is the reason why it cannot be one; "" if it can. The hint holds a connection; after an
    error, another hint is needed.
    """

    server: str
    """The columns that identify a server, and one start of it."""
    now: str
    """The column of the time, in seconds since 1970, up to which a reader sees all commits."""
    exact: str = ""
    """Columns that change with each commit that wrote, once readers can see it. "" if one query
    cannot have them all (`_exact`)."""

    def __init__(self, settings: Settings, tables: Sequence[IndexSettings]) -> None:
        self._url = settings.source_url
        # A part of each look: looks of two connections cannot be compared.
        self._me = object()
        self._engine = open_read_only(self._url)
        self._connection: Any = None
        self._read: dict[str, set[str]] = {}
        try:
            with errors_as_ours(self._url, "whether it was written"):
                self._servers = [self._server_of_new_connection() for _ in range(CONNECTIONS)]
                self._connection = self._engine.connect().execution_options(
                    isolation_level="AUTOCOMMIT"
                )
                for index in tables:
                    named = relations_read(index.model_dump(by_alias=True))
                    self._read[index.name] = tables_read(self._connection, named)
        except BaseException:
            self.close()
            raise
        self.every = sorted(set().union(*self._read.values()))
        """The tables of all indexes."""
        self.blind = SEVERAL if len(set(self._servers)) > 1 else ""

    def _server_of_new_connection(self) -> tuple[Any, ...]:
        with self._engine.connect() as connection:
            found = tuple(connection.exec_driver_sql(f"SELECT {self.server}").one())
            # The next connection must be a new one, not this one from the pool.
            connection.invalidate()
        return found

    def look(self) -> Look:
        """Return the state of the database now.

        Raises:
            SourceUnavailable: The database does not answer.
            SourceError: It refuses the query.
        """
        columns = ", ".join(filter(None, (self.now, self.server, self.exact)))
        with (
            errors_as_ours(self._url, "whether it was written"),
            limited(self._connection, LOOK_TIMEOUT, "whether the source was written"),
        ):
            began = time.time()
            at, *found = self._connection.exec_driver_sql(f"SELECT {columns}").one()
            server = tuple(found[: len(self._servers[-1])])
            # It was restarted, or a balancer leads to two servers in turn.
            if server != self._servers[-1]:
                self.blind = SEVERAL if server in self._servers else ""
                self._servers.append(server)
            # The same connection, the same server, and nothing written
            exact = (self._me, *found, *self._exact())
            return Look(min(began, float(at or 0.0)), exact, self._tables(exact))

    def tables_of(self, index: IndexSettings) -> set[str]:
        """Return the tables of an index that have counters."""
        return self._read.get(index.name, set())

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._engine.dispose()

    def _exact(self) -> tuple[Any, ...]:
        """Return values such as those of `exact` that need a query of their own."""
        return ()

    @abstractmethod
    def _tables(self, exact: object) -> Mapping[str, object]:
        """Return values that change when a table is written, by its name."""


class PostgresqlHint(ServerHint):
    """The hint of PostgreSQL: the snapshot of a reader.

    It stays the same until a transaction that wrote has ended, also a long one and one of two
    phases. It is the same for all databases of the server. The counters of tables show later which
    table was written, and TRUNCATE changes the file. On a standby the snapshot is not exact, and
    tables have no counters: there the position in the log is compared.
    """

    server = (
        "pg_postmaster_start_time(), inet_server_addr()::text, inet_server_port(),"
        " pg_is_in_recovery()"
    )
    now = """extract(epoch FROM CASE WHEN pg_is_in_recovery() THEN pg_last_xact_replay_timestamp()
        ELSE statement_timestamp() END)"""
    """It is before the snapshot, as the time of the replay is before its position."""
    exact = """CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()::text
        ELSE pg_current_snapshot()::text END"""
    TABLES = sa.text("""WITH RECURSIVE named AS (
            SELECT oid, relname::text AS top FROM pg_class WHERE relname = ANY (:names) AND relkind IN ('r', 'p', 'm')
            UNION SELECT inhrelid, top FROM pg_inherits JOIN named ON inhparent = named.oid)
        SELECT top, pg_is_in_recovery(), sum(pg_stat_get_tuples_inserted(oid) + pg_stat_get_tuples_updated(oid)
            + pg_stat_get_tuples_deleted(oid))::text, string_agg(concat_ws(' ', oid, pg_relation_filenode(oid)), ' '
            ORDER BY oid) FROM named GROUP BY top""")
    _exact_before: object = None
    _changed_at = 0.0
    """When the snapshot changed, in the seconds of `time.monotonic`."""
    _tables_before: Mapping[str, object] = MappingProxyType({})

    def _tables(self, exact: object) -> Mapping[str, object]:
        now = time.monotonic()
        if exact != self._exact_before:
            self._exact_before = exact
            self._changed_at = now
        if now - self._changed_at <= TABLES_SECONDS:
            rows = self._connection.execute(self.TABLES, {"names": self.every})
            tables: dict[str, object] = {}
            for table, on_standby, *counters in rows:
                tables[table] = object() if on_standby else tuple(counters)
            self._tables_before = tables
        return self._tables_before


class MariadbHint(ServerHint):
    """The hint of MariaDB: a counter of InnoDB, which rises when a transaction begins to write, and
    when it is committed.

    `UPDATE_TIME` of a table is the second of the last commit that wrote it, except for XA COMMIT,
    TRUNCATE and ALTER TABLE.

    Views and functions are replaced without InnoDB. The server counts each such statement when it
    begins. A statement that waits for the lock of a backup takes effect later, so `Syncs` counts
    too: the server writes files to disk before the statement ends. No other session can read the
    view between that and its end.
    """

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
    """Counters that rise when a definition changes that a query may use. ALTER VIEW counts as
    Com_create_view."""
    COUNTED_SINCE = ("Uptime", "Uptime_since_flush_status")
    """The ages of the counters. The server's time minus an age is the moment when counting began
    again."""
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
        # MySQL has no such counter.
        if commits.first() is None:
            self.blind = "it does not tell when it was last written"

    def _exact(self) -> tuple[Any, ...]:
        if self.blind:
            return ()
        rows = self._connection.execute(self.COUNTERS)
        return tuple(tuple(row) for row in rows)

    def _tables(self, exact: object) -> Mapping[str, object]:
        rows = self._connection.execute(self.TABLES, {"names": self.every})
        tables: dict[str, object] = {}
        for name, updated_at, is_settled in rows:
            # In the seconds after a commit, another one may have the same time.
            is_final = is_settled is None or is_settled
            tables[name] = updated_at if is_final else object()
        return tables


class SqliteHint:
    """The hint of an SQLite file: `data_version` of an open connection.

    It changes when another connection commits, whatever the journal. A file that replaced another
    one has another number.
    """

    blind = ""

    def __init__(self, settings: Settings, tables: Sequence[IndexSettings]) -> None:
        self._file = Path(str(settings.source_url.database)).absolute()
        # Raises SettingsError if there is no file.
        open_read_only(settings.source_url).dispose()
        uri = f"{self._file.as_uri()}?mode=ro"
        self._opened = self._number()
        self._me = object()
        self._connection = sqlite3.connect(uri, uri=True, timeout=LOOK_TIMEOUT)
        try:
            self._connection.execute("PRAGMA data_version")
        except sqlite3.OperationalError as error:
            # A file with a log on a read-only mount
            self._connection.close()
            raise SourceError(
                f"source {self._file} does not tell when it was written: {error}"
            ) from error

    def look(self) -> Look:
        """Return the state of the file now. Raises SourceUnavailable."""
        at = time.time()
        try:
            is_same = self._number() == self._opened
            version = self._connection.execute("PRAGMA data_version").fetchone()
        except (sqlite3.Error, OSError) as error:
            raise SourceUnavailable(
                f"source {self._file} cannot be asked whether it was written: {error}"
            ) from error
        if not is_same:
            raise SourceUnavailable(f"source {self._file} is another file than before")
        return Look(at, (self._me, version))

    def tables_of(self, index: IndexSettings) -> set[str]:
        """Return no tables: they have no counters."""
        return set()

    def close(self) -> None:
        self._connection.close()

    def _number(self) -> tuple[int, int]:
        """Return the device and the number of the file."""
        found = self._file.stat()
        return found.st_dev, found.st_ino


DATABASES: Mapping[str, Callable[[Settings, Sequence[IndexSettings]], ServerHint | SqliteHint]] = {
    "postgresql": PostgresqlHint,
    "mariadb": MariadbHint,
    "mysql": MariadbHint,
    "sqlite": SqliteHint,
}


class FolderHint:
    """The hint of a folder: the names, sizes and times of its files. Files that the rules of source
    code exclude do not count."""

    def __init__(self, root: Path, index: IndexSettings) -> None:
        self._root = root
        self._index = index
        self._due = 0.0
        self._last: tuple[float, object] = (0.0, object())

    def look(self) -> tuple[float, object]:
        """Return the time of the last listing, and its digest. A large folder is listed seldom."""
        began = time.monotonic()
        if began >= self._due:
            at = time.time()
            self._last = at, self._list(at)
            now = time.monotonic()
            self._due = now + (now - began) / LISTING_SHARE
        return self._last

    def _list(self, at: float) -> object:
        """Return the digest of a listing that begins at this time, or an object that equals no
        other."""
        try:
            newest, stamps = self._code() if self._index.kind == CODE else self._all_files()
        except (RagIndexError, OSError):
            # The run that follows reports it.
            return object()
        # The newest file may change a second time with the same time.
        if newest >= at - RACY_SECONDS:
            return object()
        return blake2b(repr(sorted(stamps)).encode(), digest_size=16).digest()

    def _code(self) -> tuple[float, list[tuple[Any, ...]]]:
        """Return the time of the newest file of source code, and the stamps of all files."""
        index = self._index
        listing = list_files(self._root, index.include, index.exclude, index.languages)
        stamps: list[tuple[Any, ...]] = [(file.path, file.stamp) for file in listing.files]
        stamps += [(failure.key,) for failure in listing.failures]
        newest = max((file.changed_at for file in listing.files), default=0.0)
        return newest, stamps

    def _all_files(self) -> tuple[float, list[tuple[Any, ...]]]:
        """Return the time of the newest file, and the stamps of all files."""
        newest = 0.0
        stamps: list[tuple[Any, ...]] = []
        for folder, _, names in os.walk(self._root):
            for name in names:
                path = Path(folder, name)
                found = path.lstat()
                times = (found.st_mtime_ns, found.st_ctime_ns)
                stamps.append((str(path), found.st_size, *times, found.st_ino))
                newest = max(newest, found.st_mtime, found.st_ctime)
        return newest, stamps


class Hints:
    """The hints of some indexes. `blind` has the reason of each index without a hint, by its
    name."""

    def __init__(self, settings: Settings, indexes: Sequence[IndexSettings]) -> None:
        self._settings = settings
        self._sql = [index for index in indexes if index.kind == SQL]
        self._names = [index.name for index in indexes]
        self._folders: dict[str, FolderHint] = {}
        self._database: ServerHint | SqliteHint | None = None
        self.blind: dict[str, str] = {}
        self._has_failed = False
        """Whether the last look at the database ended with an error that is not transient."""
        self._retry_at: float | None = None
        """When a database that failed twice is queried again, in the seconds of `time.monotonic`;
        None if each look queries it."""
        for index in indexes:
            root = _folder(settings, index)
            if root is not None:
                self._folders[index.name] = FolderHint(root, index)
            if index.kind not in (SQL, CODE):
                reason = "a source of its own does not tell when it was written"
                self.blind[index.name] = reason
        if self._sql and settings.source_url.get_backend_name() not in DATABASES:
            for index in self._sql:
                self.blind[index.name] = "its database does not tell when it was last written"

    def look(self) -> dict[str, Look]:
        """Return the state of each index's source now. A source that cannot be queried counts as
        written."""
        self._see_again_if_due()
        at = time.time()
        folders = {name: hint.look() for name, hint in self._folders.items()}
        of_database = Look(at, object())
        if any(index.name not in self.blind for index in self._sql):
            of_database = self._look_at_database() or of_database
        looks = dict.fromkeys(self._names, Look(at, object()))
        for index in self._sql:
            looks[index.name] = of_database
        for name, (listed_at, digest) in folders.items():
            look = looks[name]
            # Source code is in the folder alone; rows that name files are in both.
            exact = look.exact if look is of_database else None
            looks[name] = Look(min(listed_at, look.at), exact, look.tables, digest)
        return looks

    def _look_at_database(self) -> Look | None:
        """Return the state of the database; None if it could not be queried."""
        settings = self._settings
        found: Look | None = None
        try:
            if self._database is None:
                hint_of = DATABASES[settings.source_url.get_backend_name()]
                self._database = hint_of(settings, self._sql)
            found = self._database.look()
            if self._database.blind:
                self._leave(self._database.blind)
        except (TransientError, OSError):
            # The next look opens a new connection.
            self.close()
        except RagIndexError as error:
            self._note_failure(str(error))
        else:
            self._has_failed = False
        return found

    def moved(self, name: str, before: Look, now: Look) -> Moved:
        """Return whether the source of an index may have been written between two looks."""
        # A file changed.
        if before.folder != now.folder:
            return Moved.YES
        # Nothing was committed.
        if before.exact == now.exact:
            return Moved.NO
        # Something was committed: to these tables?
        tables = self._tables_of(name)
        is_same = all(before.tables.get(table) == now.tables.get(table) for table in tables)
        return Moved.PERHAPS if tables and is_same else Moved.YES

    def _tables_of(self, name: str) -> set[str]:
        """Return the tables of an index that have counters."""
        if self._database is None:
            return set()
        for index in self._sql:
            if index.name == name:
                return self._database.tables_of(index)
        return set()

    def close(self) -> None:
        """Close the connection to the database. The next look opens another one, and everything
        counts as written then."""
        if self._database is not None:
            self._database.close()
        self._database = None

    def _note_failure(self, why: str) -> None:
        """Do without the hint for a while, once the database failed twice in a row.

        The first failure counts as written: the run that follows reports what is wrong with the
        database. A database that is restored is missing for a moment, such as between DROP DATABASE and
        ALTER DATABASE … RENAME.
        """
        if not self._has_failed:
            self._has_failed = True
            self.close()
            return
        self._leave(why)
        self._retry_at = time.monotonic() + BLIND_SECONDS

    def _see_again_if_due(self) -> None:
        """Use the hint of the database again a while after it failed twice."""
        if self._retry_at is None or time.monotonic() < self._retry_at:
            return
        self._retry_at = None
        for index in self._sql:
            self.blind.pop(index.name, None)

    def _leave(self, why: str) -> None:
        """Do without the hint of the database."""
        self.close()
        for index in self._sql:
            self.blind[index.name] = why


def _folder(settings: Settings, index: IndexSettings) -> Path | None:
    """Return the folder whose files an index reads, if any."""
    if index.kind == CODE:
        return settings.root(index)
    return settings.folder / index.files.expanduser() if index.files is not None else None
