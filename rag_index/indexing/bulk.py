"""Loading a server's collection without its search index, which is built once before the collection is published.

`[store.server] bulk` asks for it. Only a new collection that no alias points at is loaded so. A death in the middle
leaves the search index off and a note in the collection's metadata; the next run of the index turns it on again.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from rag_index.errors import StoreError
from rag_index.stores import server_collections
from rag_index.stores.metadata import BULK

if TYPE_CHECKING:
    from rag_index.indexing.run import IndexRun
    from rag_index.ledger import Collection

logger = logging.getLogger("rag_index.indexing")


def loads_first(run: IndexRun) -> bool:
    """Return whether this run loads the first collection of its index in bulk, and publishes it at the end."""
    return _wanted(run) and not run.options.single and run.alias not in run.store.aliases()


def begin_bulk(run: IndexRun, collection: Collection, *, published_later: bool) -> bool:
    """Turn the search index of a new collection off, and those on again that a run of this index left off.

    Return whether the collection is published once its search index is built. One that holds points and has its search
    index keeps it, such as after an error: turning it off would wait for what the server is building.
    """
    server = server_collections(run.store)
    if server is None:
        return False
    there = run.store.collections() if len(run.ledger.collections(run.alias)) > 1 else {}
    for other in run.ledger.collections(run.alias):
        if other.id != collection.id and BULK in there.get(other.name, {}):
            server.resume_indexing(other.name)
    paused = BULK in run.store.metadata(collection.name)
    if published_later and _wanted(run):
        if not run.store.count(collection.name):
            server.pause_indexing(collection.name)
        return True
    if paused:
        server.resume_indexing(collection.name)
    return False


def build_index(run: IndexRun, collection: Collection) -> None:
    """Turn the search index of a loaded collection on, and wait until the server has built it.

    Raises StoreUnavailable if the server stops building it.
    """
    server = server_collections(run.store)
    if server is not None:
        server.resume_indexing(collection.name)
        run.progress.say("waiting for the server to build the search index")
        run.store.optimize(collection.name)


def end_bulk(run: IndexRun) -> None:
    """Turn the search index of a run's collection on again, however the run ended. A fault is left to the next run."""
    server = server_collections(run.store)
    if server is None or run.scan is None or not run.scan.bulk:
        return
    try:
        server.resume_indexing(run.scan.collection.name)
    except StoreError as error:
        name = run.scan.collection.name
        logger.warning("%s has no search index until the next run of %s: %s", name, run.index.name, error)


def _wanted(run: IndexRun) -> bool:
    return run.settings.store.server.bulk and not run.store.embedded
