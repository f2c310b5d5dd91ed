"""Stores of points: embedded Qdrant (`edge`) or a Qdrant server (`server`), behind one protocol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from rag_index.stores.protocol import SPARSE, Condition, ServerCollections, Store, StoreReader, server_collections

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rag_index.documents.batches import CommitMark
    from rag_index.settings import StoreSettings
    from rag_index.stores.server.store import ServerStore

__all__ = [
    "Condition",
    "commit_marks",
    "count_indexed",
    "REST_REMEDY",
    "SPARSE",
    "ServerCollections",
    "Store",
    "StoreCatalog",
    "StoreReader",
    "live_aliases",
    "open_reader",
    "open_store",
    "read_catalog",
    "server_collections",
]

T = TypeVar("T")

REST_REMEDY = "set [store.server] grpc_port to the port where it does (0 if REST is meant)"
"""What to do if a server does not answer gRPC."""
LOOK_SECONDS = 2.0
"""How long a request of a command that only shows the status may take; it is repeated for half as long."""
BRIEF_SECONDS = 60.0
"""How long an opener of the embedded store waits for a batch of a watch, which ends soon."""


def open_store(
    settings: StoreSettings,
    *,
    wait: float = 0.0,
    timeout: float | None = None,
    patience: float | None = None,
    brief: bool = False,
) -> Store:
    """Open the store that the settings name. The embedded one is locked; `wait` is how long to wait for its holder.

    A holder that is `brief`, because it writes one batch, is waited for in any case; a brief opener waits for nobody.
    A request to a server may take `timeout` seconds (default: as the settings say), and one with a passing fault is
    retried for `patience` seconds (default: 30).
    """
    if settings.url is None:
        from rag_index.stores.edge.store import EdgeStore

        return EdgeStore(settings.path, wait=wait, brief=brief, brief_wait=0.0 if brief else BRIEF_SECONDS)
    return _open_server(settings, settings.url, timeout=timeout, patience=patience)


def open_reader(
    settings: StoreSettings, *, wait: float = 0.0, timeout: float | None = None, patience: float | None = None
) -> StoreReader:
    """Open the store that the settings name for reading. The embedded one may be written by another process meanwhile.

    `wait` is how long that process may take to let go of a collection. `timeout` and `patience` are as for
    `open_store`; an embedded store with a `timeout` is read in other processes, because nothing else can end a call.
    """
    if settings.url is None:
        from rag_index.stores.edge.reader import EdgeReader

        return EdgeReader(settings.path, wait=wait, timeout=timeout)
    return _open_server(settings, settings.url, timeout=timeout, patience=patience)


def _open_server(settings: StoreSettings, url: str, *, timeout: float | None, patience: float | None) -> ServerStore:
    from rag_index.stores.server.store import ServerStore

    return ServerStore(
        url,
        api_key=settings.secret_api_key(),
        timeout=settings.timeout if timeout is None else timeout,
        patience=30.0 if patience is None else patience,
        settings=settings.server,
    )


def live_aliases(settings: StoreSettings) -> dict[str, str]:
    """Return the collection of each alias, without locking the embedded store: its catalog is replaced as a whole.

    A server has `LOOK_SECONDS` to answer, because a person waits.
    """
    if settings.url is None:
        from rag_index.stores.edge.catalog import Catalog

        return Catalog(settings.path / "catalog.json").aliases()
    store = _open_to_look(settings, settings.url)
    try:
        return store.aliases()
    finally:
        store.close()


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

        there, folders = Catalog(settings.path / "catalog.json").collections(), settings.path / "collections"
        with folder_errors(settings.path):
            return {name: read_mark(folders / there[name].newest) for name in names if name in there}
    return _look(settings, settings.url, names, lambda store, name: store.commit_mark(name))


def _look(
    settings: StoreSettings, url: str, names: Iterable[str], read: Callable[[ServerStore, str], T]
) -> dict[str, T]:
    """Return what `read` returns for those of these collections that a server has."""
    store = _open_to_look(settings, url)
    try:
        there = store.names()
        return {name: read(store, name) for name in names if name in there}
    finally:
        store.close()


def _open_to_look(settings: StoreSettings, url: str) -> ServerStore:
    return _open_server(settings, url, timeout=min(settings.timeout, LOOK_SECONDS), patience=LOOK_SECONDS / 2)


@dataclass(frozen=True, slots=True)
class StoreCatalog:
    """The names in a store at one time: `collections` and `aliases` as `Store` returns them."""

    _collections: dict[str, dict[str, Any]]
    _aliases: dict[str, str]

    def collections(self) -> dict[str, dict[str, Any]]:
        """As `Store.collections`."""
        return self._collections

    def aliases(self) -> dict[str, str]:
        """As `Store.aliases`."""
        return self._aliases


def read_catalog(settings: StoreSettings) -> StoreCatalog:
    """Return the names in the store, without locking the embedded store: its catalog is replaced as a whole."""
    if settings.url is None:
        from rag_index.stores.edge.catalog import Catalog

        catalog = Catalog(settings.path / "catalog.json")
        return StoreCatalog({name: one.metadata for name, one in catalog.collections().items()}, catalog.aliases())
    store = open_store(settings)
    try:
        return StoreCatalog(store.collections(), store.aliases())
    finally:
        store.close()
