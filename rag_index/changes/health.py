"""What is wrong with the log or the queue by which a watch learns of changes, for the doctor."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sqlalchemy import exc

from rag_index.changes.names import object_name
from rag_index.changes.queues import open_queue
from rag_index.changes.slot import SlotState, check_publication, check_server
from rag_index.changes.tables import plan_tables
from rag_index.errors import SettingsError, SourceError, SourceUnavailable
from rag_index.settings.index import SQL
from rag_index.sources.engine import open_read_only, source_error

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy.engine import Connection

    from rag_index.changes.rows import WatchedTable
    from rag_index.settings import Settings

__all__ = ["FeedHealth", "feed_health"]

HELD_BYTES = 256 << 20
"""How much log a slot may hold back before that is said."""
UNREAD_SECONDS = 600.0
"""How old the first row of a queue may be before that is said."""
MAX_COUNT = 1_000_000


@dataclass(slots=True)
class FeedHealth:
    """What keeps changes from being followed, and what may become a problem; a sentence each."""

    broken: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def feed_health(settings: Settings) -> FeedHealth:
    """Return what is wrong; nothing if `changes` is `poll`, or if the source does not answer."""
    health = FeedHealth()
    changes = settings.source.changes
    indexes = [index for index in settings.indexes if index.kind == SQL]
    if changes == "poll" or not indexes:
        return health
    try:
        tables = plan_tables(settings, indexes).tables
        with _connect(settings) as connection:
            if changes == "wal":
                _examine_slot(connection, tables, settings.project, health)
            else:
                _examine_queue(connection, tables, settings.project, health)
    except (SettingsError, SourceError) as error:
        health.broken.append(str(error))
    except SourceUnavailable:  # each index says so
        pass
    return health


@contextmanager
def _connect(settings: Settings) -> Iterator[Connection]:
    engine = open_read_only(settings.source_url)
    try:
        with engine.connect() as connection:
            yield connection
    except exc.SQLAlchemyError as error:
        raise source_error(error, settings.source_url, "the changes of the source") from error
    finally:
        engine.dispose()


def _examine_slot(connection: Connection, tables: Sequence[WatchedTable], project: str, health: FeedHealth) -> None:
    name = object_name(project)
    check_server(connection)
    state = SlotState.read(connection, name)
    if state.held_bytes > HELD_BYTES:
        health.warnings.append(
            f"slot {name} holds back {_size(state.held_bytes)} of the source's log: start `rag-index watch`, "
            f"or drop the slot: SELECT pg_drop_replication_slot('{name}')"
        )
    if state.exists and state.max_bytes is None:
        health.warnings.append(
            "the source has no max_slot_wal_keep_size, so its log fills the disk while nobody watches: "
            "ALTER SYSTEM SET max_slot_wal_keep_size = '20GB'; SELECT pg_reload_conf()"
        )
    if problem := state.problem():
        health.broken.append(problem)
    else:
        check_publication(connection, name, tables)


def _examine_queue(connection: Connection, tables: Sequence[WatchedTable], project: str, health: FeedHealth) -> None:
    queue = open_queue(connection.dialect.name, tables, project)
    health.broken += queue.problems(connection)
    if health.broken:
        return
    age = max((time.time() - row.changed_at for row in queue.read(connection, 1)), default=0.0)
    if age > UNREAD_SECONDS:
        count = queue.count(connection, MAX_COUNT)
        more = " or more" if count >= MAX_COUNT else ""
        health.warnings.append(
            f"the queue of changes has {count:,}{more} rows, the first of them {age / 3600:.1f} hours old: start "
            "`rag-index watch`, or remove the triggers as `rag-index watch --setup` says"
        )


def _size(count: int) -> str:
    return f"{count / (1 << 30):.1f} GB" if count >= 1 << 30 else f"{count / (1 << 20):.0f} MB"
