"""The collections of a server: made, configured, loaded without a search index, and indexed."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from qdrant_client import models

from rag_index.documents.batches import RESERVED_KEY
from rag_index.errors import StoreError, StoreMismatch, StoreUnavailable
from rag_index.stores import SPARSE
from rag_index.stores.conditions import index_changes
from rag_index.stores.metadata import BULK
from rag_index.stores.server.carry_over import carry_over
from rag_index.stores.server.configuration import changes, check_version, new_collection, notes
from rag_index.stores.server.info import DEFAULT_THRESHOLD, has_sparse, indexed_points, is_indexed, vector_params

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rag_index.settings import ServerSettings
    from rag_index.stores.server.requests import Requests

logger = logging.getLogger("rag_index.stores")

IDLE_WAIT, BUSY_WAIT = 600.0, 7200.0
"""Seconds without progress after which waiting for a search index ends: while the server does nothing, and while it
says that it is at work. A large segment may take an hour in which nothing else changes."""
POLL = 0.5


class Collections:
    """The collections of a server. `settings` says how they are made and configured."""

    def __init__(self, requests: Requests, settings: ServerSettings) -> None:
        self._requests = requests
        self._settings = settings

    def create(
        self, name: str, dimension: int, metadata: dict[str, Any], *, sparse: bool = False, like: str | None = None
    ) -> None:
        """Create a collection, or keep the existing one of that name and kind and merge its metadata.

        A new one is as the settings say. It gets what was set by hand on the collection `like`.
        """
        given = {key: value for key, value in metadata.items() if value is not None}
        if name not in self._requests.names():
            self._create(name, dimension, given, sparse=sparse)
        info = self._requests.info(name)
        _check_kind(name, info, dimension, sparse=sparse)
        kinds = {"key": models.PayloadSchemaType.KEYWORD, "chunk": models.PayloadSchemaType.INTEGER}
        for field, kind in kinds.items():
            if f"{RESERVED_KEY}.{field}" not in info.payload_schema:
                self._requests.index_payload(name, f"{RESERVED_KEY}.{field}", kind)
        if metadata and (info.config.metadata or {}) != given:
            self._requests.update(name, metadata=metadata)
        if like is not None:
            self._carry_over(like, name)

    def configure(self, name: str) -> str:
        """Give a collection what the settings say; return what a person should know of it, "" if there is nothing.

        Raises StoreError if the server is too old for it.
        """
        check_version(self._settings, self._requests.link.version(), self._requests.link.url)
        info = self._requests.info(name)
        if found := changes(self._settings, name, info):
            self._requests.update(name, **found)
            logger.info("%s was changed as [store.server] says: %s", name, ", ".join(sorted(found)))
        return notes(self._settings, name, info)

    def index_fields(self, name: str, fields: Mapping[str, str | None]) -> None:
        """Create payload indexes by field and kind; None removes one."""
        there = {path: found.data_type for path, found in self._requests.info(name).payload_schema.items()}
        for path, kind in index_changes(fields, there, models.PayloadSchemaType):
            if kind is None:
                self._requests.unindex_payload(name, path)
            else:
                self._requests.index_payload(name, path, kind)

    def pause_indexing(self, name: str) -> None:
        """Turn the building of the search index off, and note in the metadata what was set before, in one request."""
        info = self._requests.info(name)
        if BULK not in (info.config.metadata or {}):
            before = info.config.optimizer_config.indexing_threshold or DEFAULT_THRESHOLD
            off = models.OptimizersConfigDiff(indexing_threshold=0)
            self._requests.update(name, optimizers_config=off, metadata={BULK: before})

    def resume_indexing(self, name: str) -> None:
        """Turn the building of the search index on again if `pause_indexing` turned it off."""
        before = (self._requests.info(name).config.metadata or {}).get(BULK)
        if before is not None:
            restored = models.OptimizersConfigDiff(indexing_threshold=int(before))
            self._requests.update(name, optimizers_config=restored, metadata={BULK: None})

    def indexed(self, name: str) -> bool:
        """Return False if the server is still building, or a search scans more vectors than it should."""
        info = self._requests.info(name)
        return is_indexed(name, info, self._requests.count_sparse(name) if has_sparse(info) else 0)

    def count_indexed(self, name: str) -> int:
        """Return about how many points the search index has."""
        info = self._requests.info(name)
        return indexed_points(info, self._requests.count_sparse(name, exact=False) if has_sparse(info) else 0)

    def wait_until_indexed(self, name: str) -> None:
        """Wait until the server, by itself, has built the search index and has nothing left to do ("green").

        Raises StoreUnavailable if nothing changes for 10 minutes, or for 2 hours while the server says that it is at
        work.
        """
        link, seen = self._requests.link, (-1, -1)
        since = link.clock()
        while True:
            info = self._requests.info(name)
            complete = is_indexed(name, info, self._requests.count_sparse(name) if has_sparse(info) else 0)
            if complete and info.status == models.CollectionStatus.GREEN:
                return
            now = (info.indexed_vectors_count or 0, info.segments_count)
            if now != seen:
                seen, since = now, link.clock()
            busy = info.status == models.CollectionStatus.YELLOW
            waited = link.clock() - since
            if waited > (BUSY_WAIT if busy else IDLE_WAIT):
                raise StoreUnavailable(
                    f"the search index of {name} did not grow for {waited:.0f} s: look at Qdrant's log"
                )
            if info.status == models.CollectionStatus.GREY:  # after a restart it waits for a change to begin
                threshold = info.config.optimizer_config.indexing_threshold or DEFAULT_THRESHOLD
                same = models.OptimizersConfigDiff(indexing_threshold=threshold)
                self._requests.update(name, optimizers_config=same)
            link.sleep(POLL)

    def _create(self, name: str, dimension: int, metadata: dict[str, Any], *, sparse: bool) -> None:
        check_version(self._settings, self._requests.link.version(), self._requests.link.url)
        words = {SPARSE: models.SparseVectorParams(modifier=models.Modifier.IDF)} if sparse else None
        values = new_collection(self._settings, dimension)
        try:
            self._requests.ask(
                lambda client: client.create_collection(name, sparse_vectors_config=words, metadata=metadata, **values)
            )
        except StoreError:
            if name not in self._requests.names():  # else it exists: made by another process, or the answer was lost
                raise

    def _carry_over(self, old: str, name: str) -> None:
        """Give a collection what was set by hand on another one. One that cannot be read has nothing to give."""
        try:
            info = self._requests.info(old)
        except StoreError as exc:
            logger.warning("settings of collection %s are not carried over to %s: %s", old, name, exc)
            return
        self._requests.ask(lambda client: carry_over(client, info, name))


def _check_kind(name: str, info: models.CollectionInfo, dimension: int, *, sparse: bool) -> None:
    found = vector_params(name, info)
    if found.size != dimension or found.distance != models.Distance.COSINE:
        raise StoreMismatch(
            f"collection {name} holds {found.size}-d vectors ({found.distance.value}), not {dimension}-d (Cosine): "
            "run `rag-index rebuild`"
        )
    if sparse and not has_sparse(info):
        raise StoreMismatch(f"collection {name} has no sparse vectors: run `rag-index rebuild`")
