"""The store on a Qdrant server: collections, reads and writes over one connection, made again after pickling."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from rag_index.settings.sections import ServerSettings
from rag_index.stores.server.collections import Collections
from rag_index.stores.server.link import Link
from rag_index.stores.server.reads import Reads
from rag_index.stores.server.requests import Requests
from rag_index.stores.server.writes import Writes

if TYPE_CHECKING:
    from collections.abc import Callable

    from qdrant_client import QdrantClient

DEFAULT = ServerSettings()


class ServerStore(Collections, Reads, Writes):
    """The Store protocol on a Qdrant server, 1.16 or newer.

    It connects with the first call. Each call retries passing faults for `patience` seconds, as `Link` does. Safe to
    use from several threads; picklable, with a new connection in the process that unpickles it.
    """

    embedded = False

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout: float = 60.0,
        patience: float | None = None,
        grpc_port: int | None = None,
        settings: ServerSettings = DEFAULT,
    ) -> None:
        port = settings.grpc_port if grpc_port is None else grpc_port
        super().__init__(Link(url, api_key=api_key, timeout=timeout, patience=patience, grpc_port=port), settings)
        self._remake: partial[ServerStore] | None = partial(
            ServerStore, url, api_key=api_key, timeout=timeout, patience=patience, grpc_port=port, settings=settings
        )

    @classmethod
    def from_client(cls, client: QdrantClient, *, patience: float | None = None) -> ServerStore:
        """Make a store on an existing client, such as `QdrantClient(":memory:")`. It is not picklable."""
        store = cls.__new__(cls)
        store._remake = None
        Requests.__init__(store, Link("the given client", patience=patience, client=client), DEFAULT)
        return store

    def __reduce__(self) -> tuple[Callable[[], ServerStore], tuple[()]]:
        if self._remake is None:
            raise TypeError("a store made from a client cannot be pickled: make it from a URL")
        return self._remake, ()

    def fallback(self) -> str:
        """Return why points are not written over gRPC, "" if they are."""
        return self._link.fallback()

    def flush(self, name: str) -> None:
        """Do nothing: the server has completed writes in its log."""

    def prepare(self, name: str) -> None:
        """Do nothing: a server is ready."""

    def close(self) -> None:
        """Close the connection. A second call does nothing."""
        self._link.close()
