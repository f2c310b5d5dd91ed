"""The store on a Qdrant server: collections over one connection, REST or gRPC, made again after pickling."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

from qdrant_client import models

from rag_index.components.stores.protocol import Store, of_collection
from rag_index.components.stores.server.link import Link, names_of
from rag_index.components.stores.server.server_collection import ServerCollection
from rag_index.errors import StoreError

USUAL_PATIENCE = 120.0
"""Seconds for which a call waits for a store that is away, if its opener does not say otherwise: a server that restarts
reads its collections."""


class ServerStore(Store):
    """The Store protocol on a Qdrant server, 1.16 or newer. It connects with the first call. Each call retries passing
    faults for `patience` seconds, as `Link` does. Safe to use from several threads; picklable, with a new connection in
    the process that unpickles it."""

    embedded = False

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout: float = 60.0,
        patience: float = USUAL_PATIENCE,
        grpc_port: int | None = None,
    ) -> None:
        how: dict[str, Any] = {"patience": patience, "api_key": api_key, "timeout": timeout, "grpc_port": grpc_port}
        self._link = Link(url, **how)
        self._remake = partial(ServerStore, url, **how)

    def __reduce__(self) -> tuple[Callable[[], ServerStore], tuple[()]]:
        return self._remake, ()

    def collection(self, name: str) -> ServerCollection:
        """Return a collection or alias, whether or not it exists."""
        return ServerCollection(self._link, name)

    def lend(self, name: str) -> AbstractContextManager[ServerCollection]:
        return nullcontext(self.collection(name))

    create = of_collection(Store.create)
    drop = of_collection(Store.drop)
    metadata = of_collection(Store.metadata)
    set_metadata = of_collection(Store.set_metadata)
    dimension = of_collection(Store.dimension)
    commit_mark = of_collection(Store.commit_mark)

    def names(self) -> set[str]:
        return self._link.ask(names_of)

    def collections(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for name in sorted(self.names()):
            try:
                found[name] = self.metadata(name)
            except StoreError:
                if name in self.names():  # else it was dropped meanwhile
                    raise
        return found

    def find(self, name: str) -> dict[str, Any] | None:
        exists = self._link.ask(lambda client: client.collection_exists(name))
        return self.metadata(name) if exists else None

    def aliases(self) -> dict[str, str]:
        answer = self._link.ask(lambda client: client.get_aliases())
        return {alias.alias_name: alias.collection_name for alias in answer.aliases}

    def point_alias(self, alias: str, collection: str) -> None:
        current = self.aliases().get(alias)
        if current == collection:
            return
        create = models.CreateAlias(collection_name=collection, alias_name=alias)
        changes: list[models.AliasOperations] = [models.CreateAliasOperation(create_alias=create)]
        if current is not None:
            changes.insert(0, models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias)))
        self._link.ask(lambda client: client.update_collection_aliases(changes))

    def fallback(self) -> str:
        """Return why the server is not asked over gRPC although that is wanted; otherwise ""."""
        return self._link.call(lambda _: self._link.fallback)

    def let_go(self) -> None:
        self._link.let_go()

    def close(self) -> None:
        self._link.close()
