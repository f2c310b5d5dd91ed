"""Stores of points: embedded Qdrant (`edge`) or a Qdrant server (`server`), behind one `protocol`.

A store has names; `store.points(name)` are the points of one collection, with all that is read and
written of it. Its calls are described once: reading in `reads`, writing in `protocol`. Here are the
keys of a collection's metadata, and how a store is opened.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from rag_index.errors import StoreMismatch

if TYPE_CHECKING:
    from rag_index.components.stores.edge.folder import Catalog
    from rag_index.components.stores.protocol import Store, StoreNames, StoreReader
    from rag_index.components.stores.server import ServerStore
    from rag_index.core.documents.batches import CommitMark
    from rag_index.core.settings import Alias, Settings, StoreSettings

REST_REMEDY = "set [store.server] grpc_port to the port where it does (0 if REST is meant)"
"""What to do if a server does not answer gRPC."""
RENAME = "give this project another name (`project`, the first line of the settings)"
"""What to do if another project or program has a name that this one needs."""
PERSON_SECONDS = 2.0
"""How long a request of a command that only shows the status may take; it is repeated for half as
long."""

BM25 = "bm25"
"""Key for the model that made the sparse vectors; a collection without them does not have it."""
CALIBRATION = "calibration"
"""Key for the weights of the calibrated score; a collection that has not learned any does not have
it."""
UNLEARNED = "documents"
"""Stands there beside weights that were not learned from the collection's own texts: how many
documents it had."""
CALIBRATION_RULE = 2
"""Stands there as `rule`: how weights are learned. A collection with weights of another rule learns
again."""
TRAITS = "embedder_traits"
"""Key for what was measured of the model: see `components.embedders.traits`."""
MAKER_KEYS = ("embedder_fingerprint", "chunking")
"""Keys that identify what made the vectors and the chunks; the ledger has columns of the same
names."""
UNKNOWN = "unknown"
"""Value of a maker key if neither ledger nor store knows the maker."""
INDEX_NAME = "name"
"""Key for the collection's own name, for a reader who may read it by its alias alone."""
OWNER = "owner"
"""Key for the project and the index that a collection is of; another pair of names may make the
same alias."""
OVERTAKEN = "overtaken"
"""Noted by a process that stood still while it wrote: its epoch. What it wrote may be older than
what was there."""
LEFT = "rolled_back"
"""Key that is true if a rollback has left this collection for an older one; else missing."""
SEAL = "citation_seal"
"""Key for what seals the citations of an index, in this collection and in those that take its
place."""
REPLACES = "replaces"
"""Key for the `store_id` of the collection whose place a copy takes that an erasure made; else
missing."""


def on_server(store: StoreReader) -> ServerStore | None:
    """Return the store as one on a server, whose collections have settings, and None if it is
    embedded."""
    return None if store.embedded else cast("ServerStore", store)


class _Lent:
    """A store without its `close`."""

    def __init__(self, store: StoreReader) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def close(self) -> None:
        pass


def lend(store: StoreReader) -> StoreReader:
    """Return the store for a user who closes what they use, such as a Retriever; its owner closes
    the store."""
    return cast("StoreReader", _Lent(store))


class LiveName(NamedTuple):
    """The live collection of an alias: its name, and the name to read it by. That is the alias if
    the API key may read no more; whose lists then leave the alias and the collection out."""

    name: str
    readable: str
    metadata: Mapping[str, Any]
    """The metadata of the collection, which its owner was read from."""


def location(settings: StoreSettings) -> str:
    """Return the address of the server, or the folder."""
    return settings.url or str(settings.path.absolute().resolve())


def open_store(
    settings: StoreSettings, *, wait: float = 0.0, patience: float | None = None
) -> Store:
    """Open the store that the settings name. Each collection of the embedded one is locked when it
    is first used; `wait` is how long to wait for its holder. A request to a server that is away or
    asks for pauses is retried for `patience` seconds (default: `link.USUAL_PATIENCE`)."""
    if settings.url is None:
        from rag_index.components.stores.edge.store import EdgeStore

        return EdgeStore(settings.path, wait=wait)
    return _open_server(settings, patience=patience)


def open_own_store(settings: Settings) -> Store:
    """Open the store of a project as `open_store` does, with the patience of its `[run]`."""
    return open_store(
        settings.store, wait=settings.run.wait, patience=settings.run.wait_for_recovery
    )


def open_reader(
    settings: StoreSettings,
    *,
    wait: float = 0.0,
    timeout: float | None = None,
    patience: float | None = None,
) -> StoreReader:
    """Open the store that the settings name for reading. The embedded one may be written by another
    process meanwhile. `wait` is how long that process may take to let go of a collection. A request
    to a server may take `timeout` seconds (default: as the settings say), and is retried for
    `patience` seconds (default: as for `open_store`)."""
    if settings.url is None:
        from rag_index.components.stores.edge.reader import EdgeReader

        return EdgeReader(settings.path, wait=wait)
    return _open_server(settings, timeout=timeout, patience=patience)


def _open_server(
    settings: StoreSettings, *, timeout: float | None = None, patience: float | None = None
) -> ServerStore:
    from rag_index.components.stores.server import ServerStore
    from rag_index.components.stores.server.link import USUAL_PATIENCE, ServerAccess

    if timeout is None:
        timeout = settings.timeout
    if patience is None:
        patience = USUAL_PATIENCE
    api_key, grpc_port = settings.secret_api_key(), settings.server.grpc_port
    access = ServerAccess(str(settings.url), api_key, timeout, patience, grpc_port)
    return ServerStore(access)


@contextmanager
def open_names(settings: StoreSettings, *, brief: bool = False) -> Iterator[StoreNames]:
    """Open the names in the store. A server has `PERSON_SECONDS` to answer if `brief`, else as long
    as for a run."""
    if settings.url is None:
        from rag_index.components.stores.edge.folder import Catalog

        yield Catalog(settings.path)
        return
    limits = (
        {"timeout": min(settings.timeout, PERSON_SECONDS), "patience": PERSON_SECONDS / 2}
        if brief
        else {}
    )
    with closing(_open_server(settings, **limits)) as store:
        yield store


def live_aliases(settings: StoreSettings, asked: Iterable[Alias] = ()) -> dict[str, str]:
    """Return the collection of each alias, without locking the embedded store. Those `asked` need
    not be listed. A server has `PERSON_SECONDS` to answer, because a person waits. Raises as
    `find_unlisted`."""
    with open_names(settings, brief=True) as store:
        found = store.aliases()
        for alias in asked:
            if alias not in found and (live := find_unlisted(store, alias)) is not None:
                found[alias] = live.name
        return found


def find_live(store: StoreNames, alias: Alias) -> LiveName | None:
    """Return the live collection of an alias, None if the store says that there is none. Raises
    StoreMismatch if the alias points at a collection of another index or project, and as
    `find_unlisted`."""
    if (name := store.aliases().get(alias)) is not None:
        check_alias(alias, name, metadata := store.find(name) or {})
        return LiveName(name, name, metadata)
    return find_unlisted(store, alias)


def check_alias(alias: Alias, collection: str, metadata: Mapping[str, Any]) -> None:
    """Raise StoreMismatch if a collection, whose metadata is given, was made for another alias than
    the one it has, or for another project."""
    if (made_for := metadata.get("alias") or alias) != alias:
        raise StoreMismatch(
            f"alias {alias} points at {collection}, which was made for {made_for}: another program"
            " moved it, and `rag-index doctor --repair` moves it back"
        )
    check_owner(alias, collection, metadata.get(OWNER))


def check_owner(alias: Alias, collection: str, owner: Any) -> None:
    """Raise StoreMismatch if a collection has another `owner` than its alias has here. None says
    that it has none."""
    if isinstance(owner, dict) and owner != alias.owner:
        theirs, ours = (
            f"index {one.get('index')} of project {one.get('project')}"
            for one in (owner, alias.owner)
        )
        raise StoreMismatch(
            f"{collection} belongs to {theirs}, and {ours} would have the same name: {RENAME}, or"
            " rename the index"
        )


def find_unlisted(store: StoreNames, alias: Alias) -> LiveName | None:
    """Return the live collection of an alias that the store does not list, None if there is none.
    Raises StoreRefused if the API key may not ask for the alias, and StoreMismatch if a collection
    of another program has its name, or the collection is of another project."""
    if (metadata := store.find(alias)) is None:
        return None
    if metadata.get("alias") != alias:
        raise StoreMismatch(
            f"the store has a collection named {alias}, which rag-index did not make, and searches"
            f" need this name as an alias: remove that collection, or {RENAME}"
        )
    check_owner(alias, metadata.get(INDEX_NAME, alias), metadata.get(OWNER))
    return LiveName(metadata.get(INDEX_NAME, alias), alias, metadata)


def count_indexed(settings: StoreSettings, names: Iterable[str]) -> dict[str, int]:
    """Return about how many points of each of these collections a server's search index has. It is
    empty for the embedded store, and leaves collections out that do not exist. A server has
    `PERSON_SECONDS` to answer. Raises as `StoreReader`."""
    if settings.url is None:
        return {}
    with open_names(settings, brief=True) as store:
        there, server = store.names(), cast("ServerStore", store)
        return {name: server.points(name).count_indexed() for name in names if name in there}


def commit_marks(settings: StoreSettings, names: Iterable[str]) -> dict[str, CommitMark]:
    """Return the marks of the last commits of those of these collections that exist, without
    locking an embedded store. A server has `PERSON_SECONDS` to answer. Raises as `StoreReader`."""
    with open_names(settings, brief=True) as store:
        there = store.names()
        wanted = [name for name in names if name in there]
        if settings.url is None:
            catalog = cast("Catalog", store)
            return {name: catalog.commit_mark(name) for name in wanted}
        server = cast("ServerStore", store)
        return {name: server.points(name).commit_mark() for name in wanted}
