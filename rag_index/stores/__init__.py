"""Stores of points: embedded Qdrant (`edge`) or a Qdrant server (`server`), behind one protocol."""

from __future__ import annotations

from contextlib import closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from rag_index.errors import StoreMismatch
from rag_index.stores.protocol import (
    NAME,
    NO_WORDS,
    SPARSE,
    Condition,
    ServerCollections,
    Store,
    StoreNames,
    StoreReader,
    VectorQuery,
    WordCounts,
    WordPlaces,
    lend,
    server_collections,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from rag_index.documents.commits import CommitMark
    from rag_index.settings import StoreSettings
    from rag_index.stores.server.store import ServerStore

__all__ = [
    "Condition",
    "commit_marks",
    "count_indexed",
    "LiveName",
    "RENAME",
    "REST_REMEDY",
    "NO_WORDS",
    "SPARSE",
    "ServerCollections",
    "Store",
    "StoreNames",
    "StoreReader",
    "VectorQuery",
    "WordCounts",
    "WordPlaces",
    "find_live",
    "find_unlisted",
    "lend",
    "live_aliases",
    "open_names",
    "open_reader",
    "open_store",
    "server_collections",
]

T = TypeVar("T")

REST_REMEDY = "set [store.server] grpc_port to the port where it does (0 if REST is meant)"
"""What to do if a server does not answer gRPC."""
RENAME = "give this project another name (`project`, the first line of the settings)"
"""What to do if another project or program has a name that this one needs."""
LOOK_SECONDS = 2.0
"""How long a request of a command that only shows the status may take; it is repeated for half as long."""
BRIEF_SECONDS = 60.0
"""How long an opener of the embedded store waits for a batch of a watch, which ends soon."""


class LiveName(NamedTuple):
    """The live collection of an alias: its name, and the name to read it by.

    That is the alias if the API key may read no more; whose lists then leave the alias and the collection out.
    """

    name: str
    readable: str


def open_store(
    settings: StoreSettings,
    *,
    wait: float = 0.0,
    patience: float | None = None,
    brief: bool = False,
    lets_batches_in: bool = False,
) -> Store:
    """Open the store that the settings name. The embedded one is locked; `wait` is how long to wait for its holder.

    A holder that is `brief`, because it writes one batch, is waited for in any case. A brief opener waits for nobody
    but a holder that `lets_batches_in`, which then gives it the store within moments.
    A request to a server with a passing fault is retried for `patience` seconds (default: 30, and for as long as the
    server asks for pauses).
    """
    if settings.url is None:
        from rag_index.stores.edge.store import EdgeStore

        brief_wait = 0.0 if brief else BRIEF_SECONDS
        return EdgeStore(settings.path, wait=wait, brief=brief, brief_wait=brief_wait, lets_batches_in=lets_batches_in)
    return _open_server(settings, settings.url, patience=patience)


def open_reader(
    settings: StoreSettings, *, wait: float = 0.0, timeout: float | None = None, patience: float | None = None
) -> StoreReader:
    """Open the store that the settings name for reading. The embedded one may be written by another process meanwhile.

    `wait` is how long that process may take to let go of a collection. A request to a server may take `timeout`
    seconds (default: as the settings say), `patience` is as for `open_store`. An embedded store with a `timeout` is
    read in other processes, because nothing else can end a call.
    """
    if settings.url is None:
        from rag_index.stores.edge.reader import EdgeReader

        return EdgeReader(settings.path, wait=wait, timeout=timeout)
    return _open_server(settings, settings.url, timeout=timeout, patience=patience)


def _open_server(
    settings: StoreSettings, url: str, *, patience: float | None, timeout: float | None = None
) -> ServerStore:
    from rag_index.stores.server.store import ServerStore

    return ServerStore(
        url,
        api_key=settings.secret_api_key(),
        timeout=settings.timeout if timeout is None else timeout,
        patience=patience,
        settings=settings.server,
    )


def live_aliases(settings: StoreSettings, asked: Iterable[str] = ()) -> dict[str, str]:
    """Return the collection of each alias, without locking the embedded store. Those `asked` need not be listed.

    A server has `LOOK_SECONDS` to answer, because a person waits. Raises as `find_unlisted`.
    """
    with open_names(settings, brief=True) as store:
        found = store.aliases()
        for alias in asked:
            if alias not in found and (live := find_unlisted(store, alias)) is not None:
                found[alias] = live.name
        return found


def find_live(store: StoreNames, alias: str) -> LiveName | None:
    """Return the live collection of an alias, None if the store says that there is none. Raises as `find_unlisted`."""
    if (name := store.aliases().get(alias)) is not None:
        return LiveName(name, name)
    return find_unlisted(store, alias)


def find_unlisted(store: StoreNames, alias: str) -> LiveName | None:
    """Return the live collection of an alias that the store does not list, None if there is none.

    Raises StoreRefused if the API key may not ask for the alias, and StoreMismatch if a collection of another program
    has its name.
    """
    if (metadata := store.find(alias)) is None:
        return None
    if metadata.get("alias") != alias:
        raise StoreMismatch(
            f"the store has a collection named {alias}, which rag-index did not make, and searches need this name as "
            f"an alias: remove that collection, or {RENAME}"
        )
    return LiveName(metadata.get(NAME, alias), alias)


def count_indexed(settings: StoreSettings, names: Iterable[str]) -> dict[str, int]:
    """Return about how many points of each of these collections a server's search index has.

    It is empty for the embedded store, and leaves collections out that do not exist. A server has `LOOK_SECONDS` to
    answer. Raises as `StoreReader`.
    """
    return _look(settings, settings.url, names, lambda store, name: store.count_indexed(name)) if settings.url else {}


def commit_marks(settings: StoreSettings, names: Iterable[str]) -> dict[str, CommitMark]:
    """Return the marks of the last commits of those of these collections that exist, without locking an embedded store.

    A server has `LOOK_SECONDS` to answer. Raises as `StoreReader`.
    """
    if settings.url is None:
        from rag_index.stores.edge.catalog import Catalog
        from rag_index.stores.edge.folder import folder_errors
        from rag_index.stores.edge.shard_files import read_mark

        there, folders = Catalog(settings.path / "catalog.json").entries(), settings.path / "collections"
        with folder_errors(settings.path):
            return {name: read_mark(folders / there[name].newest) for name in names if name in there}
    return _look(settings, settings.url, names, lambda store, name: store.commit_mark(name))


def _look(
    settings: StoreSettings, url: str, names: Iterable[str], read: Callable[[ServerStore, str], T]
) -> dict[str, T]:
    """Return what `read` returns for those of these collections that a server has."""
    with closing(_open_to_look(settings, url)) as store:
        there = store.names()
        return {name: read(store, name) for name in names if name in there}


def _open_to_look(settings: StoreSettings, url: str) -> ServerStore:
    return _open_server(settings, url, timeout=min(settings.timeout, LOOK_SECONDS), patience=LOOK_SECONDS / 2)


@contextmanager
def open_names(settings: StoreSettings, *, brief: bool = False) -> Iterator[StoreNames]:
    """Open the names in the store. A server has `LOOK_SECONDS` to answer if `brief`, else as long as for a run."""
    if settings.url is None:
        from rag_index.stores.edge.catalog import Catalog

        yield Catalog(settings.path / "catalog.json")
        return
    opened = _open_to_look if brief else partial(_open_server, timeout=None, patience=None)
    with closing(opened(settings, settings.url)) as store:
        yield store
