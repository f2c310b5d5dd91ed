"""The store on a Qdrant server: collections over one connection, REST or gRPC, made again after
pickling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qdrant_client import models

from rag_index.components.stores.protocol import Store
from rag_index.components.stores.server.link import Link, ServerAccess, names_of
from rag_index.components.stores.server.server_points import ServerPoints
from rag_index.errors import StoreError


class ServerStore(Store):
    """The Store protocol on a Qdrant server, 1.16 or newer. It connects with the first call. Each
    call retries passing faults, as `Link` does. Safe to use from several threads; picklable, with a
    new connection in the process that unpickles it."""

    embedded = False

    def __init__(self, access: ServerAccess) -> None:
        self._link = Link(access)

    def __reduce__(self) -> tuple[Callable[[ServerAccess], ServerStore], tuple[ServerAccess]]:
        return ServerStore, (self._link.access,)

    def points(self, name: str) -> ServerPoints:
        return ServerPoints(self._link, name)

    def create(
        self, name: str, dimension: int, metadata: dict[str, Any], *, sparse: bool = False
    ) -> None:
        self.points(name).create(dimension, metadata, sparse=sparse)

    def drop(self, name: str) -> None:
        self._link.ask(lambda client: client.delete_collection(name))

    def names(self) -> set[str]:
        return self._link.ask(names_of)

    def collections(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for name in sorted(self.names()):
            try:
                found[name] = self.points(name).metadata()
            except StoreError:
                if name in self.names():  # else it was dropped meanwhile
                    raise
        return found

    def find(self, name: str) -> dict[str, Any] | None:
        exists = self._link.ask(lambda client: client.collection_exists(name))
        return self.points(name).metadata() if exists else None

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
            changes.insert(
                0, models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias))
            )
        self._link.ask(lambda client: client.update_collection_aliases(changes))

    def fallback(self) -> str:
        """Return why the server is not asked over gRPC although that is wanted; otherwise ""."""
        return self._link.call(lambda _: self._link.fallback)

    def hand_over(self) -> None:
        """Do nothing: readers have at once what is written."""

    def let_go(self) -> None:
        self._link.let_go()

    def close(self) -> None:
        self._link.close()
