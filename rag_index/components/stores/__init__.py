"""Stores of points: embedded Qdrant (`edge`) or a Qdrant server (`server`), behind one `protocol`.

`store.points(name)` are the points of one collection. `reads` describes what is read of them and
`protocol` what is written; both stores share them, and `tests/components/stores/test_contract.py`
runs every call on each. This module has the keys of a collection's metadata, and opens stores.

The store imports `core` and no other component. A write is complete when its call returns, and
durable after `flush`. Points, commit mark and rows of the ledger are written in this order
(`tests/reliability/test_order_of_writes.py`).
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
"""Seconds for a request of a command that only shows the status. It is retried for half as long.
Chosen: a person waits."""

BM25 = "bm25"
"""The key of the model that made the sparse vectors; a collection without them does not have it."""
CALIBRATION = "calibration"
"""The key of the weights of the calibrated score; a collection that has not learned any does not
have it."""
UNLEARNED = "documents"
"""A key within the calibration, if its weights were not learned from the collection's own texts:
the number of its documents then."""
CALIBRATION_RULE = 2
"""The value of `rule` within the calibration: how weights are learned. A collection with another
rule learns again."""
TRAITS = "embedder_traits"
"""The key of the measured traits of the model: see `components.embedders.traits`."""
MAKER_KEYS = ("embedder_fingerprint", "chunking")
"""The keys that identify what made the vectors and the chunks; the ledger has columns of the same
names."""
UNKNOWN = "unknown"
"""The value of a maker key if neither ledger nor store has the maker."""
INDEX_NAME = "name"
"""The key of the collection's own name, for a reader that may read it only by its alias."""
OWNER = "owner"
"""The key of the project and the index of a collection. Another pair of names may make the same
alias."""
OVERTAKEN = "overtaken"
"""The key of the epoch of a process that was suspended while it wrote. Its points may be older than
those they replaced."""
LEFT = "rolled_back"
"""The key that is true if a rollback left this collection for an older one; else missing."""
SEAL = "citation_seal"
"""The key of the secret that seals the citations of an index, in this collection and in those that
replace it."""
REPLACES = "replaces"
"""The key of the `store_id` of the collection that an erasure replaced by this copy; else
missing."""


def on_server(store: StoreReader) -> ServerStore | None:
    """Return the store as a server's, whose collections have settings; None if it is embedded."""
    return None if store.embedded else cast("ServerStore", store)


class _Unclosed:
    """A store whose `close` does nothing."""

    def __init__(self, store: StoreReader) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def close(self) -> None:
        pass


def lend(store: StoreReader) -> StoreReader:
    """Return the store without its `close`, for a user who closes what they use, such as a
    Retriever. Its owner closes the store."""
    return cast("StoreReader", _Unclosed(store))


class LiveName(NamedTuple):
    """The live collection of an alias: its name, and the name to read it by. The latter is the
    alias if the API key may read only that; the server's lists then have neither."""

    name: str
    readable: str
    metadata: Mapping[str, Any]
    """The metadata of the collection, from which its owner was read."""


def location(settings: StoreSettings) -> str:
    """Return the address of the server, or the folder."""
    if settings.url:
        return settings.url
    return str(settings.path.absolute().resolve())


def open_store(
    settings: StoreSettings, *, wait: float = 0.0, patience: float | None = None
) -> Store:
    """Open the store of the settings. The embedded store locks each collection at its first use,
    and waits `wait` seconds for another holder. A request to an unavailable server is retried for
    `patience` seconds (default: `link.USUAL_PATIENCE`)."""
    if settings.url is None:
        from rag_index.components.stores.edge.store import EdgeStore

        return EdgeStore(settings.path, wait=wait)
    return _open_server(settings, patience=patience)


def open_own_store(settings: Settings) -> Store:
    """Open the store of a project as `open_store` does, with the patience of its `[run]`."""
    run = settings.run
    return open_store(settings.store, wait=run.wait, patience=run.wait_for_recovery)


def open_reader(
    settings: StoreSettings,
    *,
    wait: float = 0.0,
    timeout: float | None = None,
    patience: float | None = None,
) -> StoreReader:
    """Open the store of the settings for reading. Another process may write the embedded store
    meanwhile; `wait` is how long it may take to release a collection. A request to a server may
    take `timeout` seconds (default: as in the settings), and is retried for `patience` seconds
    (default: as in `open_store`)."""
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
    api_key = settings.secret_api_key()
    grpc_port = settings.server.grpc_port
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
    limits: dict[str, float] = {}
    if brief:
        limits["timeout"] = min(settings.timeout, PERSON_SECONDS)
        limits["patience"] = PERSON_SECONDS / 2
    with closing(_open_server(settings, **limits)) as store:
        yield store


def live_aliases(settings: StoreSettings, asked: Iterable[Alias] = ()) -> dict[str, str]:
    """Return the collection of each alias, without locking the embedded store. Aliases in `asked`
    are found even if the API key may not list them. A server has `PERSON_SECONDS` to answer. Raises
    as `find_unlisted`."""
    with open_names(settings, brief=True) as store:
        found = store.aliases()
        for alias in asked:
            if alias in found:
                continue
            live = find_unlisted(store, alias)
            if live is not None:
                found[alias] = live.name
        return found


def find_live(store: StoreNames, alias: Alias) -> LiveName | None:
    """Return the live collection of an alias; None if the store has none. Raises StoreMismatch if
    the alias points at a collection of another index or project, and as `find_unlisted`."""
    name = store.aliases().get(alias)
    if name is None:
        return find_unlisted(store, alias)
    metadata = store.find(name) or {}
    check_alias(alias, name, metadata)
    return LiveName(name, name, metadata)


def check_alias(alias: Alias, collection: str, metadata: Mapping[str, Any]) -> None:
    """Raise StoreMismatch if a collection, given by its metadata, was made for another alias or
    project."""
    made_for = metadata.get("alias") or alias
    if made_for != alias:
        raise StoreMismatch(
            f"alias {alias} points at {collection}, which was made for {made_for}: another program"
            " moved it, and `rag-index doctor --repair` moves it back"
        )
    check_owner(alias, collection, metadata.get(OWNER))


def check_owner(alias: Alias, collection: str, owner: Any) -> None:
    """Raise StoreMismatch if the metadata of a collection names another `owner` than its alias. A
    collection of an older version has None."""
    if not isinstance(owner, dict) or owner == alias.owner:
        return
    raise StoreMismatch(
        f"{collection} belongs to {_named(owner)}, and {_named(alias.owner)} would have the same"
        f" name: {RENAME}, or rename the index"
    )


def _named(owner: Mapping[str, Any]) -> str:
    return f"index {owner.get('index')} of project {owner.get('project')}"


def find_unlisted(store: StoreNames, alias: Alias) -> LiveName | None:
    """Return the live collection of an alias that the store does not list; None if there is none.
    Raises StoreRefused if the API key may not read the alias, and StoreMismatch if a collection of
    another program has its name, or if the collection is of another project."""
    metadata = store.find(alias)
    if metadata is None:
        return None
    if metadata.get("alias") != alias:
        raise StoreMismatch(
            f"the store has a collection named {alias}, which rag-index did not make, and searches"
            f" need this name as an alias: remove that collection, or {RENAME}"
        )
    name = metadata.get(INDEX_NAME, alias)
    check_owner(alias, name, metadata.get(OWNER))
    return LiveName(name, alias, metadata)


def count_indexed(settings: StoreSettings, names: Iterable[str]) -> dict[str, int]:
    """Return about how many points of each of these collections a server's search index has. The
    result is empty for the embedded store, and leaves out collections that do not exist. A server
    has `PERSON_SECONDS` to answer. Raises as `StoreReader`."""
    if settings.url is None:
        return {}
    with open_names(settings, brief=True) as store:
        server = cast("ServerStore", store)
        existing = store.names()
        return {name: server.points(name).count_indexed() for name in names if name in existing}


def commit_marks(settings: StoreSettings, names: Iterable[str]) -> dict[str, CommitMark]:
    """Return the commit marks of those of these collections that exist, without locking an embedded
    store. A server has `PERSON_SECONDS` to answer. Raises as `StoreReader`."""
    with open_names(settings, brief=True) as store:
        existing = store.names()
        wanted = [name for name in names if name in existing]
        if settings.url is None:
            catalog = cast("Catalog", store)
            return {name: catalog.commit_mark(name) for name in wanted}
        server = cast("ServerStore", store)
        return {name: server.points(name).commit_mark() for name in wanted}
