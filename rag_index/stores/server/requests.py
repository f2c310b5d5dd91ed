"""The requests that make no points: what collections there are, what the server says of them, and counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from qdrant_client import models

from rag_index.errors import PointsRefused, StoreRefused
from rag_index.stores import SPARSE

if TYPE_CHECKING:
    from collections.abc import Callable

    from qdrant_client import QdrantClient

    from rag_index.stores.server.link import Link

T = TypeVar("T")


class Requests:
    """The requests to a server that write no points, so that no point is at fault if one is refused."""

    def __init__(self, link: Link) -> None:
        self.link = link

    def ask(self, ask: Callable[[QdrantClient], T]) -> T:
        """Return what `ask` returns. Raises as `Link.call`, but StoreRefused in place of PointsRefused."""
        try:
            return self.link.call(ask)
        except PointsRefused as exc:
            raise StoreRefused(str(exc)) from exc

    def names(self) -> set[str]:
        """Return the names of all collections."""
        return {found.name for found in self.ask(lambda client: client.get_collections()).collections}

    def info(self, name: str) -> models.CollectionInfo:
        """Return what the server says of a collection or alias."""
        return self.ask(lambda client: client.get_collection(name))

    def update(self, name: str, **changes: Any) -> None:
        """Change a collection's configuration or metadata."""
        self.ask(lambda client: client.update_collection(name, **changes))

    def index_payload(self, name: str, field: str, kind: models.PayloadSchemaType) -> None:
        """Create a payload index."""
        self.ask(lambda client: client.create_payload_index(name, field, field_schema=kind, wait=True))

    def unindex_payload(self, name: str, field: str) -> None:
        """Remove a payload index."""
        self.ask(lambda client: client.delete_payload_index(name, field, wait=True))

    def count(self, name: str, count_filter: models.Filter | None, *, exact: bool = True) -> int:
        """Return the number of points that meet a filter."""
        return self.ask(lambda client: client.count(name, count_filter=count_filter, exact=exact)).count

    def count_sparse(self, name: str, *, exact: bool = True) -> int:
        """Return the number of points that have a sparse vector."""
        condition: Any = models.HasVectorCondition(has_vector=SPARSE)
        return self.count(name, models.Filter(must=[condition]), exact=exact)
